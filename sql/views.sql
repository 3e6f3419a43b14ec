-- Views, and the functions behind them.

-- PARALLEL UNSAFE: its body may be what loads the library, which can't happen while workers run.
CREATE FUNCTION cmk.inspect(
    ciphertext pg_catalog.bytea,
    OUT suite pg_catalog.int4, OUT dek_id pg_catalog.bytea, OUT tenant pg_catalog.text,
    OUT version pg_catalog.int4, OUT state pg_catalog.text,
    OUT plaintext_bytes pg_catalog.int4, OUT envelope_bytes pg_catalog.int4,
    OUT index_key pg_catalog.bytea, OUT next_index_key pg_catalog.bytea)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.suite, h.dek_id, k.tenant, k.version, k.state, h.plaintext_bytes, h.envelope_bytes,
           h.index_key, h.next_index_key
      FROM cmk.envelope_header(ciphertext) h
      LEFT JOIN cmk.data_key k ON k.dek_id OPERATOR(pg_catalog.=) h.dek_id
$$;

CREATE VIEW cmk.tenants AS
    SELECT t.tenant, t.state, t.key_uri, current.version, counted.data_keys, t.created_at, t.changed_at
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key current
             ON current.tenant OPERATOR(pg_catalog.=) t.tenant
            AND current.state OPERATOR(pg_catalog.=) 'current'
            AND current.purpose OPERATOR(pg_catalog.=) 'values'
     CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS data_keys
                           FROM cmk.data_key k
                          WHERE k.tenant OPERATOR(pg_catalog.=) t.tenant) counted;

CREATE VIEW cmk.status AS
    SELECT t.tenant, t.state AS tenant_state, s.key_state, s.reason, s.info,
           pg_catalog.to_timestamp(s.since) AS since,
           pg_catalog.to_timestamp(s.last_success) AS last_success,
           pg_catalog.to_timestamp(s.last_failure) AS last_failure,
           s.hits, s.misses, s.kms_calls, s.kms_failures, s.waits, s.refused,
           s.p50_ms, s.p95_ms, s.p99_ms, s.holders, s.server_wide
      FROM cmk.tenant t CROSS JOIN LATERAL cmk.key_status(t.tenant) s;

-- An STS session of an assumed role outlives the role's withdrawal by up to 15 minutes. Not STRICT,
-- so that a NULL is an error, as is a tenant that isn't registered.
CREATE FUNCTION cmk.revocation_bound(
    tenant pg_catalog.text,
    OUT dark_within pg_catalog.interval, OUT copies_until pg_catalog.timestamptz,
    OUT holders pg_catalog.int4, OUT worst_case pg_catalog.interval,
    OUT server_wide pg_catalog.bool)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.make_interval(secs => c.lives_on),
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => c.lives_on),
           c.holders,
           GREATEST(pg_catalog.make_interval(secs => c.ttl), pg_catalog.make_interval(secs => c.lives_on))
           OPERATOR(pg_catalog.+)
           CASE WHEN c.assumed_role THEN '15 min'::pg_catalog.interval ELSE '0'::pg_catalog.interval END,
           c.server_wide
      FROM cmk.key_copies(revocation_bound.tenant) c
$$;

CREATE VIEW cmk.cache AS
    SELECT tenant, version, dek_id,
           pg_catalog.make_interval(secs => age_seconds) AS age,
           pg_catalog.make_interval(secs => expires_in_seconds) AS expires_in,
           hits
      FROM cmk.backend_cache();

CREATE VIEW cmk.cache_stats AS SELECT * FROM cmk.backend_cache_stats();
