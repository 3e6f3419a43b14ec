-- Privileges and comments, when everything is there.

-- Default privileges (ALTER DEFAULT PRIVILEGES) may have granted more, or less, than is meant here.
-- So everything is taken back from everybody, PUBLIC included, before it is granted to whom it is
-- for. Not from row types: pg_dump warns of each whose privileges an extension has set.
DO $$
DECLARE
    grantee pg_catalog.text;
    object pg_catalog.text;
BEGIN
    FOR object, grantee IN
        WITH members AS (
            SELECT d.classid, d.objid
              FROM pg_catalog.pg_depend d
              JOIN pg_catalog.pg_extension e
                ON d.refclassid OPERATOR(pg_catalog.=) 'pg_extension'::pg_catalog.regclass
               AND d.refobjid OPERATOR(pg_catalog.=) e.oid
             WHERE e.extname OPERATOR(pg_catalog.=) 'cmk_encrypt'
               AND d.deptype OPERATOR(pg_catalog.=) 'e'),
        ours (object, acl, owner) AS (
            SELECT pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass), c.relacl, c.relowner
              FROM pg_catalog.pg_class c
             WHERE c.relnamespace OPERATOR(pg_catalog.=) 'cmk'::pg_catalog.regnamespace
               AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v}'::pg_catalog."char"[])
            UNION ALL
            SELECT pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure), p.proacl, p.proowner
              FROM pg_catalog.pg_proc p
              JOIN members m
                ON m.classid OPERATOR(pg_catalog.=) 'pg_proc'::pg_catalog.regclass
               AND m.objid OPERATOR(pg_catalog.=) p.oid
            UNION ALL
            SELECT pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype), t.typacl, t.typowner
              FROM pg_catalog.pg_type t
              JOIN members m
                ON m.classid OPERATOR(pg_catalog.=) 'pg_type'::pg_catalog.regclass
               AND m.objid OPERATOR(pg_catalog.=) t.oid
             WHERE t.typelem OPERATOR(pg_catalog.=) 0
               AND t.typrelid OPERATOR(pg_catalog.=) 0
            UNION ALL
            SELECT pg_catalog.format('SCHEMA %I', n.nspname), n.nspacl, n.nspowner
              FROM pg_catalog.pg_namespace n
             WHERE n.nspname OPERATOR(pg_catalog.=) ANY ('{cmk, cmk_internal}'::pg_catalog.name[]))
        SELECT ours.object, 'PUBLIC'
          FROM ours
        UNION ALL
        SELECT ours.object, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee))
          FROM ours CROSS JOIN LATERAL pg_catalog.aclexplode(ours.acl) AS acl
         WHERE acl.grantee OPERATOR(pg_catalog.<>) 0
           AND acl.grantee OPERATOR(pg_catalog.<>) ours.owner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', object, grantee);
    END LOOP;

    -- Anyone may call them; the grants for tenants decide, at every call, or who owns the table.
    FOR object IN
        SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text
          FROM pg_catalog.pg_proc p
          JOIN pg_catalog.pg_depend d
            ON d.classid OPERATOR(pg_catalog.=) 'pg_proc'::pg_catalog.regclass
           AND d.objid OPERATOR(pg_catalog.=) p.oid
           AND d.deptype OPERATOR(pg_catalog.=) 'e'
          JOIN pg_catalog.pg_extension e
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_extension'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) e.oid
         WHERE e.extname OPERATOR(pg_catalog.=) 'cmk_encrypt'
           AND p.pronamespace OPERATOR(pg_catalog.=) ANY ('{pg_catalog, cmk_internal}'::pg_catalog.regnamespace[])
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', object);
    END LOOP;
END
$$;

-- pg_read_all_data must be able to dump cmk.access, whose roles are of this type.
GRANT EXECUTE ON FUNCTION cmk.grantee_in(pg_catalog.cstring), cmk.grantee_out(cmk.grantee),
    cmk.grantee_recv(pg_catalog.internal), cmk.grantee_send(cmk.grantee), cmk.grantee_oid(cmk.grantee),
    cmk.grantee_regrole(cmk.grantee), cmk.grantee_key(cmk.grantee) TO pg_read_all_data;

-- What stands in the definitions of protected tables has to be found by whoever restores, owns or
-- writes one. None of these tells anything about keys or other people's tables but
-- cmk.protections(), which repeats what pg_constraint shows to everybody.
GRANT USAGE ON SCHEMA cmk TO PUBLIC;
GRANT USAGE ON TYPE pg_catalog.cmk_text, pg_catalog.cmk_bytea, pg_catalog.cmk_jsonb TO PUBLIC;
GRANT EXECUTE ON FUNCTION
    cmk.seal(), cmk.seals(pg_catalog.text, "any"), cmk.try_text(pg_catalog.cmk_text),
    cmk.sealed(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.sealed(pg_catalog.cmk_bytea, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.sealed(pg_catalog.cmk_jsonb, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.is_sealed(pg_catalog.cmk_text), cmk.is_sealed(pg_catalog.cmk_bytea),
    cmk.is_sealed(pg_catalog.cmk_jsonb),
    cmk.envelope(pg_catalog.cmk_text), cmk.envelope(pg_catalog.cmk_bytea),
    cmk.envelope(pg_catalog.cmk_jsonb),
    cmk.seal_value(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.seal_value(pg_catalog.bytea, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.seal_value(pg_catalog.jsonb, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.seal_batch(pg_catalog.oid, pg_catalog.int2, pg_catalog.int8, pg_catalog.int8, pg_catalog._text),
    cmk.show(pg_catalog.cmk_text), cmk.show(pg_catalog.cmk_bytea), cmk.show(pg_catalog.cmk_jsonb),
    cmk.equal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.equal(pg_catalog.cmk_text, pg_catalog.cmk_text, pg_catalog.text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._text, pg_catalog.text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._cmk_text, pg_catalog.text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._cmk_text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.cmk_text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.text),
    cmk.equal_columns(pg_catalog.text, pg_catalog.cmk_text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog._text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog._cmk_text),
    cmk.probe(pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text),
    cmk.probe(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text),
    cmk.probes(pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.probes(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.probes_any(pg_catalog._text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.probes_any(pg_catalog._cmk_text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.sealed_for(pg_catalog.cmk_text),
    cmk.needs_sealing(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.reseal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.protections(), cmk.is_preloaded(), cmk.column_stats(), cmk.raise(pg_catalog.text, pg_catalog.text) TO PUBLIC;

-- Who may protect columns: whoever owns the table. These run with the rights of their caller, and
-- PostgreSQL asks for the ownership in each ALTER TABLE. What the others tell stands in catalogs
-- that everybody may read, but for two numbers: cmk.index_key_counts() tells owners of searchable
-- columns what to ask an administrator for. Only the data keys that a dump needs
-- (cmk.dump_keys_needed) are the registry's affair, and its owner's.
GRANT USAGE ON SCHEMA cmk_internal TO PUBLIC;
GRANT SELECT ON cmk.protected_columns TO PUBLIC;
GRANT EXECUTE ON ROUTINE
    cmk.protect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text,
        pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text,
        pg_catalog.int4, pg_catalog.interval, pg_catalog.int4),
    cmk.unprotect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text,
        pg_catalog.interval, pg_catalog.int4),
    cmk.seal_table(pg_catalog.regclass, pg_catalog.numeric, pg_catalog.int4),
    cmk.unsealed_rows(pg_catalog.regclass, pg_catalog.name), cmk.index_key_counts() TO PUBLIC;

-- Those who monitor see names, states and counters, and can change nothing.
GRANT SELECT ON cmk.tenants, cmk.status, cmk.key_event, cmk.cache, cmk.cache_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION cmk.key_status(pg_catalog.text),
    cmk.revocation_bound(pg_catalog.text), cmk.backend_cache(), cmk.backend_cache_stats(),
    cmk.check() TO pg_monitor;

COMMENT ON SCHEMA cmk IS 'Key registry and administration of cmk_encrypt';
COMMENT ON FUNCTION cmk.protect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4, pg_catalog.interval, pg_catalog.int4) IS
    'Protects a column: its values are sealed from now on, and searchable if that is said; says what comes next';
COMMENT ON FUNCTION cmk.index_key_counts() IS
    'How many active tenants have no index key, and of how many tenants it rotates';
COMMENT ON FUNCTION cmk.rotate_index_key(pg_catalog.text) IS
    'Makes a tenant''s first index key, or the next one, under which values get a second token; returns its version';
COMMENT ON FUNCTION cmk.finish_index_rotation(pg_catalog.text) IS
    'Makes the next index key of a tenant the current one, once all its values have tokens of both; false if some have not';
COMMENT ON FUNCTION cmk.cancel_index_rotation(pg_catalog.text) IS
    'Destroys the next index key of a tenant; cmk.seal_table() removes its tokens';
COMMENT ON FUNCTION cmk.unprotect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.interval, pg_catalog.int4) IS
    'Opens all values of a column, and gives it back the type that it had';
COMMENT ON PROCEDURE cmk.seal_table(pg_catalog.regclass, pg_catalog.numeric, pg_catalog.int4) IS
    'Seals the values that a table had before protection, and renews tokens, in batches, while it is in use';
COMMENT ON FUNCTION cmk.unsealed_rows(pg_catalog.regclass, pg_catalog.name) IS
    'How many values of a protected column are not sealed, or lack the tokens that they are to have; reads the whole table';
COMMENT ON FUNCTION cmk.dump_keys_needed(pg_catalog._regclass) IS
    'Which data keys and index keys a dump of these tables, or of all, needs; tenant is null if the registry lacks one';
COMMENT ON VIEW cmk.protected_columns IS
    'The protected columns of this database, and what is wrong with them';
COMMENT ON COLUMN cmk.protected_columns.tenant IS
    'The SQL that tells a row''s tenant';
COMMENT ON COLUMN cmk.protected_columns.trigger IS
    'How the sealing trigger fires: always, as it must, origin, replica, disabled; or missing';
COMMENT ON COLUMN cmk.protected_columns.validated IS
    'PostgreSQL has seen that all values are sealed';
COMMENT ON COLUMN cmk.protected_columns.problems IS
    'What is wrong, and where; see docs/columns.md';
COMMENT ON FUNCTION cmk.protections() IS
    'How the columns of this database are protected, as their CHECK constraints say it';
COMMENT ON FUNCTION cmk.is_preloaded() IS
    'Whether the library was loaded before this session''s first statement, by shared_preload_libraries or session_preload_libraries';
COMMENT ON FUNCTION cmk.column_stats() IS
    'How many values of protected columns this session sealed and opened';
COMMENT ON FUNCTION cmk.seal_batch(pg_catalog.oid, pg_catalog.int2, pg_catalog.int8, pg_catalog.int8, pg_catalog._text) IS
    'Seals what is still plaintext in some blocks of a table, and renews tokens, except for the tenants named; used by cmk.seal_table()';
COMMENT ON FUNCTION cmk.raise(pg_catalog.text, pg_catalog.text) IS
    'Raises the error of that reason, for the functions of cmk that are written in SQL';
COMMENT ON FUNCTION cmk.register_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool) IS
    'Registers a tenant and its key (KMS key ARN or local:NAME) and, unless told not to, makes its first data key';
COMMENT ON FUNCTION cmk.alter_tenant_options(pg_catalog.text, pg_catalog.jsonb) IS
    'Changes the role or external id by which a tenant''s key is used, once KMS unwraps the current data key that way';
COMMENT ON FUNCTION cmk.activate_tenant(pg_catalog.text) IS
    'Makes the first data key of a pending tenant, once its key policy lets us';
COMMENT ON FUNCTION cmk.rotate_tenant(pg_catalog.text) IS
    'Makes a new data key for new values and returns its version; old values still open';
COMMENT ON FUNCTION cmk.suspend_tenant(pg_catalog.text) IS
    'Stops encryption and decryption for a tenant, in every session from commit on';
COMMENT ON FUNCTION cmk.resume_tenant(pg_catalog.text) IS 'Lifts a suspension';
COMMENT ON FUNCTION cmk.evict(pg_catalog.text) IS
    'From commit on, no session uses a data key of the tenant without asking KMS again';
COMMENT ON FUNCTION cmk.evict_all() IS
    'From commit on, no session uses a data key of any tenant of this database without asking KMS again';
COMMENT ON FUNCTION cmk.warm(pg_catalog.text[]) IS
    'Has every data key of these tenants at hand, for a transaction that must not wait for KMS; returns how many';
COMMENT ON FUNCTION cmk.revocation_bound(pg_catalog.text) IS
    'If the key were revoked now: when the last copy of a data key in any process is gone, and how many processes hold one';
COMMENT ON FUNCTION cmk.reset_stats() IS
    'Sets the counters of cmk.status for this database back to zero, at once; a rollback does not undo it';
COMMENT ON FUNCTION cmk.key_status(pg_catalog.text) IS 'A row of the view cmk.status';
COMMENT ON FUNCTION cmk.key_copies(pg_catalog.text) IS 'How long copies of a tenant''s data keys live';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool) IS
    'Allows a role to encrypt or decrypt values of a tenant, or of every tenant (*)';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool) IS
    'Takes back what cmk.grant_access allowed';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.check() IS
    'What is wrong with the key registry, and what mends it; no row if nothing is';
COMMENT ON FUNCTION cmk.destroy_data_keys(pg_catalog.text) IS
    'Deletes every data key of this database, whose name must be given: all sealed values are lost. For whoever means to DROP EXTENSION';
COMMENT ON FUNCTION cmk.adopt_registry() IS
    'Makes a registry that CREATE DATABASE ... TEMPLATE copied the registry of this database; for superusers';
COMMENT ON FUNCTION cmk.inspect(pg_catalog.bytea) IS
    'What an envelope and the registry say about a sealed value; needs no key';
COMMENT ON FUNCTION cmk.envelope_header(pg_catalog.bytea) IS 'The header fields of an envelope';
COMMENT ON FUNCTION cmk.registry_guard() IS
    'Trigger function: lets only the registry''s owner change it, and nobody destroy data keys by the way';
COMMENT ON FUNCTION cmk.drop_guard() IS
    'Event trigger function: has the library loaded, which refuses to drop data keys';
COMMENT ON EVENT TRIGGER cmk_drop_guard IS
    'Refuses to drop the extension while there are data keys';
COMMENT ON TYPE cmk.grantee IS
    'A role by oid that remembers its name; text form: the name, not quoted';
COMMENT ON FUNCTION cmk.grantee_in(pg_catalog.cstring) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_out(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_recv(pg_catalog.internal) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_send(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_oid(cmk.grantee) IS 'Oid of the role; 0 if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_regrole(cmk.grantee) IS 'The role; - if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_key(cmk.grantee) IS 'What tells grantees apart';
COMMENT ON FUNCTION cmk.registry_changed() IS
    'Trigger function: tells every session, at commit, to read the registry again';
COMMENT ON FUNCTION cmk.backend_cache() IS 'Rows of the view cmk.cache';
COMMENT ON FUNCTION cmk.backend_cache_stats() IS 'The row of the view cmk.cache_stats';
COMMENT ON TABLE cmk.tenant IS 'Tenants and the keys they own; change it through the functions of schema cmk';
COMMENT ON TABLE cmk.data_key IS 'Wrapped data keys; losing a row is losing the values sealed under it';
COMMENT ON TABLE cmk.access IS 'Which database roles may encrypt and decrypt for which tenant; a null tenant means every tenant';
COMMENT ON TABLE cmk.home IS 'The database that this registry belongs to';
COMMENT ON COLUMN cmk.tenant.last_version IS 'Highest version that a data key of the tenant ever had';
COMMENT ON COLUMN cmk.tenant.key_uri IS 'The key that wraps the tenant''s data keys';
COMMENT ON COLUMN cmk.tenant.options IS
    'How the key is used: role_arn and external_id of an AWS key';
COMMENT ON COLUMN cmk.data_key.purpose IS
    'values: seals and opens values; index: makes search tokens. One of each is current';
COMMENT ON COLUMN cmk.data_key.wrapped_by IS 'The URI of the key that wrapped it';
COMMENT ON COLUMN cmk.access.role IS
    'By its present name. A role that this server doesn''t have gets nothing; cmk.check() lists it';
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
COMMENT ON COLUMN cmk.status.info IS 'kms_code, request_id or cause of the last failure';
COMMENT ON COLUMN cmk.status.since IS 'Beginning of key_state, whatever its reason';
COMMENT ON COLUMN cmk.status.last_success IS 'When KMS last did what it was asked';
COMMENT ON COLUMN cmk.status.last_failure IS 'When KMS last did not';
COMMENT ON COLUMN cmk.status.hits IS 'Values sealed or opened under a data key that was at hand';
COMMENT ON COLUMN cmk.status.misses IS 'Times a process lacked a data key';
COMMENT ON COLUMN cmk.status.kms_calls IS
    'Calls asked of KMS to make and unwrap data keys, those of registration and rotation included';
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
    'kms_code, request_id or cause; dark_in_seconds, from this event to the end of the last cached data key; at, the time a warning is about';

COMMENT ON COLUMN cmk.cache.age IS 'Since the beginning of the KMS call that last vouched for it';
COMMENT ON COLUMN cmk.cache.expires_in IS 'Until it is zeroed, unless it is renewed';
COMMENT ON COLUMN cmk.cache_stats.entries IS 'Places taken, also by data keys that were zeroed at their TTL and not asked for since';
COMMENT ON COLUMN cmk.cache_stats.capacity IS 'cmk_encrypt.cache_size';
COMMENT ON COLUMN cmk.cache_stats.dropped_for_room IS 'Data keys that went for want of room';
COMMENT ON COLUMN cmk.cache_stats.memory_locked IS 'Data keys can''t be swapped out; null before there was one';
COMMENT ON COLUMN cmk.cache_stats.expiry_timer IS 'Data keys are zeroed on time even while the session sleeps';
