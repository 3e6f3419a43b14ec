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

-- One join and one sort or hash of all: a subquery for each tenant would be estimated so high that
-- PostgreSQL compiles a look at some ten thousand tenants (jit).
CREATE VIEW cmk.tenants AS
    SELECT t.tenant, t.state, t.key_uri,
           pg_catalog.max(k.version) FILTER (WHERE k.state OPERATOR(pg_catalog.=) 'current'
                                               AND k.purpose OPERATOR(pg_catalog.=) 'values') AS version,
           pg_catalog.count(k.version) AS data_keys, t.created_at, t.changed_at,
           t.suspended_at, t.next_key_uri,
           CASE WHEN t.next_key_uri IS NOT NULL
                THEN pg_catalog.count(*) FILTER (WHERE k.next_wrapped_by OPERATOR(pg_catalog.=) t.next_key_uri)
                END AS rewrapped,
           CASE WHEN t.next_key_uri IS NOT NULL
                THEN pg_catalog.count(k.wrapped) OPERATOR(pg_catalog.-)
                     pg_catalog.count(*) FILTER (WHERE k.next_wrapped_by OPERATOR(pg_catalog.=) t.next_key_uri)
                END AS remaining
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key k ON k.tenant OPERATOR(pg_catalog.=) t.tenant
     GROUP BY t.tenant;

CREATE TYPE cmk_internal.key_facts AS (
    key_state pg_catalog.text, reason pg_catalog.text, info pg_catalog.text,
    since pg_catalog.float8, last_success pg_catalog.float8, last_failure pg_catalog.float8,
    hits pg_catalog.int8, misses pg_catalog.int8, kms_calls pg_catalog.int8,
    kms_failures pg_catalog.int8, waits pg_catalog.int8, refused pg_catalog.int8,
    p50_ms pg_catalog.float8, p95_ms pg_catalog.float8, p99_ms pg_catalog.float8,
    holders pg_catalog.int4, server_wide pg_catalog.bool, is_first pg_catalog.bool,
    dark_since pg_catalog.float8, warnings pg_catalog.text[], worst_case pg_catalog.float8);

CREATE FUNCTION cmk.key_status(
    tenant pg_catalog.text, key_uri pg_catalog.text, options pg_catalog.text,
    epoch pg_catalog.int8, pass pg_catalog.uuid)
    RETURNS SETOF cmk_internal.key_facts
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'key_status_wrapper';

-- The functions behind these views answer to the word in cmk.home alone: see there. With the
-- default estimate of a thousand rows each, PostgreSQL would compile a look at the views (jit).
ALTER FUNCTION cmk.server_facts(pg_catalog.uuid) ROWS 1;
ALTER FUNCTION cmk.backend_cache_stats(pg_catalog.uuid) ROWS 1;
ALTER FUNCTION cmk.key_copies(pg_catalog.text) ROWS 1;

CREATE VIEW cmk.server AS
    SELECT f.preloaded, f.keyring_worker, f.monitor_configured, f.watched,
           pg_catalog.make_interval(secs => f.cache_ttl) AS cache_ttl,
           pg_catalog.make_interval(secs => f.promised_bound) AS promised_bound,
           f.tenants_forgotten, f.dropped_for_room,
           f.hits, f.misses, f.kms_calls, f.kms_failures, f.waits, f.refused
      FROM cmk.server_facts((SELECT h.pass FROM cmk.home h LIMIT 1)) f;

-- What KMS said last stands in memory, which a restart empties. Where a monitor watches, what it
-- wrote down then goes on, until KMS is asked again. Of the time before a tenant became active,
-- whatever was known is past: KMS made a data key since.
CREATE VIEW cmk.status AS
    SELECT t.tenant, t.state AS tenant_state, k.key_state, k.reason, k.info, k.since,
           pg_catalog.to_timestamp(s.last_success) AS last_success,
           pg_catalog.to_timestamp(s.last_failure) AS last_failure,
           s.hits, s.misses, s.kms_calls, s.kms_failures, s.waits, s.refused,
           s.p50_ms, s.p95_ms, s.p99_ms, s.holders, s.server_wide,
           CASE WHEN t.state OPERATOR(pg_catalog.=) 'active' THEN k.dark_since
                WHEN t.state OPERATOR(pg_catalog.<>) 'pending' THEN LEAST(t.changed_at, k.dark_since)
                END AS dark_since,
           w.watched, s.warnings, k.from_history,
           pg_catalog.make_interval(secs => s.worst_case) AS worst_case
      FROM cmk.server_facts((SELECT h.pass FROM cmk.home h LIMIT 1)) w
     CROSS JOIN cmk.tenant t
     CROSS JOIN LATERAL cmk.key_status(t.tenant, t.key_uri, t.options::pg_catalog.text, t.epoch,
                                        (SELECT h.pass FROM cmk.home h LIMIT 1)) s
      LEFT JOIN cmk.data_key first_key
             ON first_key.tenant OPERATOR(pg_catalog.=) t.tenant
            AND first_key.version OPERATOR(pg_catalog.=) 1
     CROSS JOIN LATERAL (
        SELECT s.key_state IS NOT NULL
               AND NOT COALESCE(pg_catalog.to_timestamp(GREATEST(s.last_success, s.last_failure))
                                OPERATOR(pg_catalog.<) first_key.created_at, false) AS is_known) now
      LEFT JOIN LATERAL (
        SELECT e.event, e.reason, e.info, e.at
          FROM cmk.key_event e
         WHERE w.monitor_configured
           AND (NOT now.is_known OR s.is_first AND s.key_state OPERATOR(pg_catalog.<>) 'usable')
           AND e.tenant OPERATOR(pg_catalog.=) t.tenant
           AND e.at OPERATOR(pg_catalog.>=) first_key.created_at
           AND e.event OPERATOR(pg_catalog.=) ANY ('{usable, revoked, unreachable, throttled, misconfigured}')
         ORDER BY e.at DESC LIMIT 1) past ON true
     CROSS JOIN LATERAL (
        SELECT CASE WHEN past.event OPERATOR(pg_catalog.=) 'revoked' THEN past.at
                    ELSE GREATEST(past.at, pg_catalog.pg_postmaster_start_time()) END AS since) dark
     CROSS JOIN LATERAL (
        SELECT CASE WHEN now.is_known THEN s.key_state ELSE past.event END AS key_state,
               CASE WHEN now.is_known THEN s.reason ELSE past.reason END AS reason,
               CASE WHEN now.is_known THEN s.info ELSE past.info END AS info,
               NOT now.is_known AND past.event IS NOT NULL AS from_history,
               CASE WHEN NOT now.is_known THEN past.at
                    WHEN past.event OPERATOR(pg_catalog.=) s.key_state
                    THEN LEAST(pg_catalog.to_timestamp(s.since), past.at)
                    ELSE pg_catalog.to_timestamp(s.since) END AS since,
               CASE WHEN now.is_known AND past.event OPERATOR(pg_catalog.=) s.key_state
                    THEN LEAST(pg_catalog.to_timestamp(s.dark_since), dark.since)
                    WHEN now.is_known THEN pg_catalog.to_timestamp(s.dark_since)
                    WHEN past.event OPERATOR(pg_catalog.=) 'revoked'
                      OR past.event OPERATOR(pg_catalog.<>) 'usable' AND s.holders OPERATOR(pg_catalog.=) 0
                    THEN dark.since END AS dark_since) k;

-- Not STRICT, so that a NULL is an error, as is a tenant that isn't registered.
CREATE FUNCTION cmk.revocation_bound(
    tenant pg_catalog.text,
    OUT dark_within pg_catalog.interval, OUT copies_until pg_catalog.timestamptz,
    OUT holders pg_catalog.int4, OUT worst_case pg_catalog.interval,
    OUT server_wide pg_catalog.bool)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.make_interval(secs => CASE WHEN c.is_dark THEN 0 ELSE c.lives_on END),
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => c.lives_on),
           c.holders,
           GREATEST(pg_catalog.make_interval(secs => c.worst_case), pg_catalog.make_interval(secs => c.lives_on)),
           c.server_wide
      FROM cmk.key_copies(revocation_bound.tenant) c
$$;

CREATE VIEW cmk.cache AS
    SELECT tenant, version, dek_id,
           pg_catalog.make_interval(secs => age_seconds) AS age,
           pg_catalog.make_interval(secs => expires_in_seconds) AS expires_in,
           hits
      FROM cmk.backend_cache((SELECT h.pass FROM cmk.home h LIMIT 1));

CREATE VIEW cmk.cache_stats AS
    SELECT * FROM cmk.backend_cache_stats((SELECT h.pass FROM cmk.home h LIMIT 1));
