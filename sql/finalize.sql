-- Triggers, views, privileges and comments: what stands on the functions.

-- ALWAYS: also when a restore or logical replication writes the rows; the latter fires row triggers only.
-- The guards keep out roles that may write any table (pg_write_all_data) and so could grant themselves access, or
-- forge or forestall what the monitor tells.
DO $$
DECLARE
    guarded regclass;
    registry CONSTANT regclass[] := '{cmk.tenant, cmk.data_key, cmk.access}';
BEGIN
    FOREACH guarded IN ARRAY registry || 'cmk.key_event'::regclass LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s
                FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard();
            CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON %1$s
                FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard();
            ALTER TABLE %1$s ENABLE ALWAYS TRIGGER guard;
            ALTER TABLE %1$s ENABLE ALWAYS TRIGGER guard_row;
        $sql$, guarded);
    END LOOP;
    FOREACH guarded IN ARRAY registry LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON %1$s
                FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed();
            CREATE TRIGGER announce_truncate AFTER TRUNCATE ON %1$s
                FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed();
            ALTER TABLE %1$s ENABLE ALWAYS TRIGGER announce;
            ALTER TABLE %1$s ENABLE ALWAYS TRIGGER announce_truncate;
        $sql$, guarded);
    END LOOP;
END
$$;

-- PARALLEL UNSAFE: its body may be what loads the library, which can't happen while workers run.
CREATE FUNCTION cmk.inspect(
    ciphertext bytea,
    OUT suite integer, OUT dek_id bytea, OUT tenant text, OUT version integer, OUT state text,
    OUT plaintext_bytes integer, OUT envelope_bytes integer)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.suite, h.dek_id, k.tenant, k.version, k.state, h.plaintext_bytes, h.envelope_bytes
      FROM cmk.envelope_header(ciphertext) h LEFT JOIN cmk.data_key k USING (dek_id)
$$;

CREATE VIEW cmk.tenants AS
    SELECT t.tenant, t.state, t.key_uri, current.version, counted.data_keys, t.created_at, t.changed_at
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key current ON current.tenant = t.tenant AND current.state = 'current'
     CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS data_keys
                           FROM cmk.data_key k WHERE k.tenant = t.tenant) counted;

CREATE VIEW cmk.status AS
    SELECT t.tenant, t.state AS tenant_state, s.key_state, s.reason, s.info,
           pg_catalog.to_timestamp(s.since) AS since,
           pg_catalog.to_timestamp(s.last_success) AS last_success,
           pg_catalog.to_timestamp(s.last_failure) AS last_failure,
           s.hits, s.misses, s.kms_calls, s.kms_failures, s.waits, s.refused,
           s.p50_ms, s.p95_ms, s.p99_ms, s.holders, s.server_wide
      FROM cmk.tenant t CROSS JOIN LATERAL cmk.key_status(t.tenant) s;

-- An STS session of a lent role outlives the role's withdrawal by up to 15 minutes. Not STRICT, so that a NULL is an
-- error, as is a tenant that isn't registered.
CREATE FUNCTION cmk.revocation_bound(
    tenant text,
    OUT dark_within interval, OUT copies_until timestamptz, OUT holders integer, OUT worst_case interval,
    OUT server_wide boolean)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT make_interval(secs => c.lives_on), clock_timestamp() + make_interval(secs => c.lives_on), c.holders,
           greatest(make_interval(secs => c.ttl), make_interval(secs => c.lives_on))
           + CASE WHEN c.lent_role THEN '15 min'::interval ELSE '0'::interval END,
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

REVOKE ALL ON SCHEMA cmk FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA cmk FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA cmk FROM PUBLIC;

-- Default privileges (ALTER DEFAULT PRIVILEGES) may have granted more than PUBLIC had.
DO $$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN
        SELECT DISTINCT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee))
          FROM (SELECT relacl AS acl, relowner AS owner FROM pg_catalog.pg_class
                 WHERE relnamespace = 'cmk'::regnamespace
                UNION ALL
                SELECT proacl, proowner FROM pg_catalog.pg_proc WHERE pronamespace = 'cmk'::regnamespace
                UNION ALL
                SELECT nspacl, nspowner FROM pg_catalog.pg_namespace WHERE oid = 'cmk'::regnamespace) AS ours,
               LATERAL pg_catalog.aclexplode(ours.acl) AS acl
         WHERE acl.grantee <> 0 AND acl.grantee <> ours.owner
    LOOP
        EXECUTE 'REVOKE ALL ON ALL TABLES IN SCHEMA cmk FROM ' || grantee;
        EXECUTE 'REVOKE ALL ON ALL FUNCTIONS IN SCHEMA cmk FROM ' || grantee;
        EXECUTE 'REVOKE ALL ON SCHEMA cmk FROM ' || grantee;
    END LOOP;
END
$$;

-- Those who monitor see names, states and counters, and can change nothing.
GRANT USAGE ON SCHEMA cmk TO pg_monitor;
GRANT SELECT ON cmk.tenants, cmk.status, cmk.key_event, cmk.cache, cmk.cache_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION cmk.key_status(text), cmk.revocation_bound(text), cmk.backend_cache(),
    cmk.backend_cache_stats() TO pg_monitor;

COMMENT ON SCHEMA cmk IS 'Key registry and administration of cmk_encrypt';
COMMENT ON FUNCTION @extschema@.cmk_encrypt(text, bytea, bytea) IS
    'Seals a value under the current data key of a tenant; aad must be given again to decrypt';
COMMENT ON FUNCTION @extschema@.cmk_encrypt_text(text, text, bytea) IS
    'Seals a text under the current data key of a tenant; aad must be given again to decrypt';
COMMENT ON FUNCTION @extschema@.cmk_decrypt(text, bytea, bytea) IS
    'Opens a value that cmk_encrypt sealed for the same tenant with the same aad';
COMMENT ON FUNCTION @extschema@.cmk_decrypt_text(text, bytea, bytea) IS
    'Opens a text that cmk_encrypt_text sealed for the same tenant with the same aad';
COMMENT ON FUNCTION @extschema@.cmk_try_decrypt(text, bytea, bytea, text[]) IS
    'As cmk_decrypt, but NULL for failures that concern this value only, or for the reasons listed';
COMMENT ON FUNCTION @extschema@.cmk_try_decrypt_text(text, bytea, bytea, text[]) IS
    'As cmk_decrypt_text, but NULL for failures that concern this value only, or for the reasons listed';
COMMENT ON FUNCTION cmk.register_tenant(text, text, text, text, boolean) IS
    'Registers a tenant and its key (KMS key ARN or local:NAME) and, unless told not to, makes its first data key';
COMMENT ON FUNCTION cmk.activate_tenant(text) IS
    'Makes the first data key of a pending tenant, once its key policy lets us';
COMMENT ON FUNCTION cmk.rotate_tenant(text) IS
    'Makes a new data key for new values and returns its version; old values still open';
COMMENT ON FUNCTION cmk.suspend_tenant(text) IS
    'Stops encryption and decryption for a tenant, in every session from commit on';
COMMENT ON FUNCTION cmk.resume_tenant(text) IS 'Lifts a suspension';
COMMENT ON FUNCTION cmk.evict(text) IS
    'From commit on, no session uses a data key of the tenant without asking KMS again';
COMMENT ON FUNCTION cmk.evict_all() IS
    'From commit on, no session uses a data key of any tenant of this database without asking KMS again';
COMMENT ON FUNCTION cmk.warm(text[]) IS
    'Has every data key of these tenants at hand, for a transaction that must not wait for KMS; returns how many';
COMMENT ON FUNCTION cmk.revocation_bound(text) IS
    'If the key were revoked now: when the last copy of a data key in any process is gone, and how many processes hold one';
COMMENT ON FUNCTION cmk.reset_stats() IS
    'Sets the counters of cmk.status for this database back to zero, at once; a rollback does not undo it';
COMMENT ON FUNCTION cmk.key_status(text) IS 'A row of the view cmk.status';
COMMENT ON FUNCTION cmk.key_copies(text) IS 'How long copies of a tenant''s data keys live';
COMMENT ON FUNCTION cmk.grant_access(text, regrole, boolean, boolean) IS
    'Allows a role to encrypt or decrypt values of a tenant, or of every tenant (*)';
COMMENT ON FUNCTION cmk.revoke_access(text, regrole, boolean, boolean) IS
    'Takes back what cmk.grant_access allowed';
COMMENT ON FUNCTION cmk.inspect(bytea) IS
    'What an envelope and the registry say about a sealed value; needs no key';
COMMENT ON FUNCTION cmk.envelope_header(bytea) IS 'The header fields of an envelope';
COMMENT ON FUNCTION cmk.registry_guard() IS
    'Trigger function: lets only the registry''s owner change it';
COMMENT ON FUNCTION cmk.registry_changed() IS
    'Trigger function: tells every session, at commit, to read the registry again';
COMMENT ON FUNCTION cmk.backend_cache() IS 'Rows of the view cmk.cache';
COMMENT ON FUNCTION cmk.backend_cache_stats() IS 'The row of the view cmk.cache_stats';
COMMENT ON TABLE cmk.tenant IS 'Tenants and the keys they own; change it through the functions of schema cmk';
COMMENT ON TABLE cmk.data_key IS 'Wrapped data keys; losing a row is losing the values sealed under it';
COMMENT ON TABLE cmk.access IS 'Which database roles may encrypt and decrypt for which tenant; a null tenant means every tenant';
COMMENT ON VIEW cmk.tenants IS 'Tenants with state, key and current data key version';
COMMENT ON TABLE cmk.key_event IS 'Changes of tenants'' keys that the monitor saw, and what it warned of';
COMMENT ON VIEW cmk.status IS
    'State of each tenant''s key as last seen, and what it cost: of the whole server if server_wide, else of this session';
COMMENT ON VIEW cmk.cache IS 'Data keys cached by this session; never key bytes';
COMMENT ON VIEW cmk.cache_stats IS 'Counters of this session''s cache since it started';

COMMENT ON COLUMN cmk.tenants.state IS 'pending, active, suspended or shredded';
COMMENT ON COLUMN cmk.tenants.version IS 'Of the data key that seals new values';
COMMENT ON COLUMN cmk.tenants.data_keys IS 'How many there are; none costs anything until it is used';

COMMENT ON COLUMN cmk.status.tenant_state IS 'As in cmk.tenants';
COMMENT ON COLUMN cmk.status.key_state IS
    'usable, revoked, unreachable, throttled or misconfigured, as KMS last said; null if it was not asked since the server started, or that is forgotten';
COMMENT ON COLUMN cmk.status.reason IS 'Why it is not usable, as in the DETAIL of errors';
COMMENT ON COLUMN cmk.status.info IS 'aws_code, request_id or cause of the last failure';
COMMENT ON COLUMN cmk.status.since IS 'Beginning of key_state, whatever its reason';
COMMENT ON COLUMN cmk.status.last_success IS 'When KMS last unwrapped a data key';
COMMENT ON COLUMN cmk.status.last_failure IS 'When KMS last failed to';
COMMENT ON COLUMN cmk.status.hits IS 'Values sealed or opened under a data key that was at hand';
COMMENT ON COLUMN cmk.status.misses IS 'Times a process lacked a data key';
COMMENT ON COLUMN cmk.status.kms_calls IS
    'Unwraps asked of KMS for values, cmk.warm and the monitor; not those of registration and rotation';
COMMENT ON COLUMN cmk.status.kms_failures IS 'Those of them that failed; not those that were cancelled';
COMMENT ON COLUMN cmk.status.waits IS 'Times a process waited for the call of another';
COMMENT ON COLUMN cmk.status.refused IS 'Times the tenant''s call budget did not allow a call';
COMMENT ON COLUMN cmk.status.p50_ms IS 'Median duration of KMS calls in milliseconds, an upper bound within a factor of 1.41';
COMMENT ON COLUMN cmk.status.p95_ms IS 'The same, 95th percentile';
COMMENT ON COLUMN cmk.status.p99_ms IS 'The same, 99th percentile';
COMMENT ON COLUMN cmk.status.holders IS
    'Processes that hold a data key of the tenant; of this session alone unless server_wide; null if not known';
COMMENT ON COLUMN cmk.status.server_wide IS 'The library is preloaded: figures are of the whole server';

COMMENT ON COLUMN cmk.key_event.id IS 'As in the notification on cmk_key_events';
COMMENT ON COLUMN cmk.key_event.event IS
    'The state entered: usable, revoked, unreachable, throttled, misconfigured; or a warning: deletion_scheduled, key_material_expires, rotation_off';
COMMENT ON COLUMN cmk.key_event.was IS 'The state before; null if not known';
COMMENT ON COLUMN cmk.key_event.reason IS 'Why, as in the DETAIL of errors';
COMMENT ON COLUMN cmk.key_event.info IS
    'aws_code, request_id or cause; dark_in_seconds, from this event to the end of the last cached data key; at, the time a warning is about';

COMMENT ON COLUMN cmk.cache.age IS 'Since the beginning of the KMS call that last vouched for it';
COMMENT ON COLUMN cmk.cache.expires_in IS 'Until it is zeroed, unless it is renewed';
COMMENT ON COLUMN cmk.cache_stats.entries IS 'Places taken, also by data keys that were zeroed at their TTL and not asked for since';
COMMENT ON COLUMN cmk.cache_stats.capacity IS 'cmk_encrypt.cache_size';
COMMENT ON COLUMN cmk.cache_stats.evictions IS 'Data keys that went for want of room';
COMMENT ON COLUMN cmk.cache_stats.memory_locked IS 'Data keys can''t be swapped out; null before there was one';
COMMENT ON COLUMN cmk.cache_stats.expiry_timer IS 'Data keys are zeroed on time even while the session sleeps';
