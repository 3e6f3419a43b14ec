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

-- Whoever could call it could say that somebody did what he did not.
REVOKE EXECUTE ON FUNCTION cmk_internal.audit(pg_catalog.text, pg_catalog.text, pg_catalog.int4,
    pg_catalog.jsonb, pg_catalog.jsonb) FROM PUBLIC;
-- Reads any table.
REVOKE EXECUTE ON FUNCTION cmk_internal.outdated_values(pg_catalog.oid, pg_catalog.int2),
    cmk_internal.has_outdated_values(pg_catalog.oid, pg_catalog.int2) FROM PUBLIC;

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
    cmk.sealed_for(pg_catalog.cmk_text), cmk.is_envelope(pg_catalog.bytea),
    cmk.needs_sealing(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.reseal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    -- These have rows for the views only: sql/registry.sql, cmk.home.
    cmk.key_status(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.uuid),
    cmk.server_facts(pg_catalog.uuid),
    cmk.backend_cache(pg_catalog.uuid), cmk.backend_cache_stats(pg_catalog.uuid),
    cmk.protections(), cmk.is_preloaded(), cmk.column_stats(), cmk.raise(pg_catalog.text, pg_catalog.text) TO PUBLIC;

-- Who may protect columns: whoever owns the table. These run with the rights of their caller, and
-- PostgreSQL asks for the ownership in each ALTER TABLE. What the others tell stands in catalogs
-- that everybody may read, but for two numbers: cmk.index_key_counts() tells owners of searchable
-- columns what to ask an administrator for. Only the data keys that a dump needs
-- (cmk.dump_keys_needed) are the registry's affair, and its owner's.
GRANT USAGE ON SCHEMA cmk_internal TO PUBLIC;
GRANT SELECT ON cmk.protected_columns, cmk.reencrypt_progress, cmk.reencrypt_failures TO PUBLIC;
GRANT EXECUTE ON ROUTINE
    cmk.protect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text,
        pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text,
        pg_catalog.int4, pg_catalog.interval, pg_catalog.int4),
    cmk.unprotect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text,
        pg_catalog.interval, pg_catalog.int4),
    cmk.seal_table(pg_catalog.regclass, pg_catalog.numeric, pg_catalog.int4),
    cmk.unsealed_rows(pg_catalog.regclass, pg_catalog.name), cmk.index_key_counts(),
    cmk.reencrypt(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.text,
        pg_catalog.int4, pg_catalog.numeric, pg_catalog.bool),
    cmk.data_key_usage(pg_catalog.regclass, pg_catalog.name) TO PUBLIC;

-- Those who monitor see names, states and counters, and can change nothing.
GRANT SELECT ON cmk.tenants, cmk.status, cmk.server, cmk.data_key_use, cmk.key_event, cmk.cache,
    cmk.cache_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION cmk.revocation_bound(pg_catalog.text), cmk.check(pg_catalog.bool)
    TO pg_monitor;

COMMENT ON SCHEMA cmk IS 'Key registry and administration of cmk_encrypt';
COMMENT ON FUNCTION cmk.protect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4, pg_catalog.interval, pg_catalog.int4) IS
    'Protects a column: its values are sealed from now on, and searchable if that is said; says what comes next';
COMMENT ON FUNCTION cmk.index_key_counts() IS
    'How many active tenants have no index key, and of how many tenants it rotates';
COMMENT ON FUNCTION cmk.rotate_index_key(pg_catalog.text) IS
    'Makes a tenant''s first index key, or the next one, under which values get a second token; returns its version';
COMMENT ON FUNCTION cmk.finish_index_rotation(pg_catalog.text) IS
    'Makes the next index key of a tenant the current one, once all its values have tokens of both; false if there is no next one';
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
COMMENT ON FUNCTION cmk.verify_tenant(pg_catalog.text) IS
    'Whether a tenant''s key does what it must, and whether all its data keys unwrap: a row a check; changes nothing';
COMMENT ON FUNCTION cmk.key_policy(pg_catalog.text) IS
    'What the owner of a tenant''s key has to allow this server, and no more: statements for the key''s policy, or the policies of the role that is assumed';
COMMENT ON FUNCTION cmk.service_policy(pg_catalog.text) IS
    'The IAM policy that the server''s own role needs to use the key of a tenant, or without one the keys of all';
COMMENT ON FUNCTION cmk.onboarding(pg_catalog.text, pg_catalog.text) IS
    'A document for the owner of a tenant''s key: guide (Markdown), policy (JSON), cli (a script), terraform or cloudformation';
COMMENT ON FUNCTION cmk.identity(pg_catalog.text) IS
    'As whom AWS knows this server, by which provider of credentials, and in which Region STS said so';
COMMENT ON FUNCTION cmk.rotate_tenant(pg_catalog.text) IS
    'Makes a new data key for new values and returns its version; old values still open';
COMMENT ON FUNCTION cmk.alter_tenant_rotation(pg_catalog.text, pg_catalog.interval, pg_catalog.int8) IS
    'When the monitor rotates the data key of a tenant: by its age, or the values that it sealed; null: as the settings say, 0: never';
COMMENT ON FUNCTION cmk.rewrap_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb) IS
    'Wraps every data key of a tenant for another key, and keeps what unwraps there beside what is in force; says how far that is';
COMMENT ON FUNCTION cmk.confirm_rewrap(pg_catalog.text) IS
    'Puts a tenant''s new wrappings into force, once each was proven again; returns how many data keys that were';
COMMENT ON FUNCTION cmk.cancel_rewrap(pg_catalog.text) IS
    'Forgets a tenant''s new wrappings; false if there was no move under way';
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
    'If the key were revoked now: for how long values could still be opened, when the last copy of a data key in any process is gone, and how many processes hold one';
COMMENT ON FUNCTION cmk.reset_stats() IS
    'Sets the counters of cmk.status for this database back to zero, at once; a rollback does not undo it';
COMMENT ON FUNCTION cmk.key_status(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.uuid) IS 'A row of the view cmk.status';
COMMENT ON TYPE cmk_internal.key_facts IS 'A row of the function cmk.key_status';
COMMENT ON FUNCTION cmk.server_facts(pg_catalog.uuid) IS 'The row of the view cmk.server';
COMMENT ON FUNCTION cmk.key_copies(pg_catalog.text) IS 'How long copies of a tenant''s data keys live';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool, pg_catalog.bool) IS
    'Allows a role to encrypt or decrypt values of a tenant, or of every tenant (*)';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool) IS
    'Takes back what cmk.grant_access allowed';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.check(pg_catalog.bool) IS
    'What is wrong with the key registry, protected columns and the server''s settings, and what mends it; no row if nothing is. deep: reads all protected columns, too';
COMMENT ON FUNCTION cmk.shred_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
    'Destroys all data keys of a suspended tenant for good, and returns a certificate; confirm is the tenant''s name again';
COMMENT ON FUNCTION cmk.remove_tenant(pg_catalog.text) IS
    'Removes a pending or shredded tenant with its grants; its name can be registered again';
COMMENT ON FUNCTION cmk.destroy_data_keys(pg_catalog.text) IS
    'Deletes every data key of this database, whose name must be given: all sealed values are lost. For whoever means to DROP EXTENSION';
COMMENT ON FUNCTION cmk.adopt_registry() IS
    'Makes a registry that CREATE DATABASE ... TEMPLATE copied the registry of this database; for superusers';
COMMENT ON FUNCTION cmk.inspect(pg_catalog.bytea) IS
    'What an envelope and the registry say about a sealed value; needs no key';
COMMENT ON FUNCTION cmk.envelope_header(pg_catalog.bytea) IS 'The header fields of an envelope';
COMMENT ON FUNCTION cmk.is_envelope(pg_catalog.bytea) IS
    'Whether a value is an envelope of a data key that the registry has; never fails, and takes no key';
COMMENT ON FUNCTION cmk.registry_guard() IS
    'Trigger function: lets only the registry''s owner change it, and nobody destroy data keys by the way';
COMMENT ON FUNCTION cmk.drop_guard() IS
    'Event trigger function: has the library loaded, which refuses to drop data keys';
COMMENT ON EVENT TRIGGER cmk_drop_guard IS
    'Refuses to drop the extension while there are data keys';
COMMENT ON TYPE cmk.grantee IS
    'A role by oid that remembers its name; text form: the name, not quoted';
COMMENT ON FUNCTION cmk_internal.audit(pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Makes an event of what the calling function did; for functions that run with the rights of the extension''s owner';
COMMENT ON FUNCTION cmk_internal.audit_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'Makes an event of a change of protection that this transaction made';
COMMENT ON FUNCTION cmk_internal.is_own_change(pg_catalog.xid) IS
    'Whether a row of this xmin is of this transaction';
COMMENT ON FUNCTION cmk.verify_audit(pg_catalog.text) IS
    'Whether the chains of a tenant, or all, are whole: nothing changed, left out or put in between';
COMMENT ON FUNCTION cmk.audit_report(pg_catalog.text, pg_catalog.timestamptz, pg_catalog.timestamptz) IS
    'What a tenant''s auditor needs to know, and nothing of other tenants';
COMMENT ON FUNCTION cmk.match_cloudtrail(pg_catalog.text, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Joins our requests to KMS for a tenant with records of AWS CloudTrail';
COMMENT ON FUNCTION cmk.grantee_in(pg_catalog.cstring) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_out(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_recv(pg_catalog.internal) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_send(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_oid(cmk.grantee) IS 'Oid of the role; 0 if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_regrole(cmk.grantee) IS 'The role; - if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_key(cmk.grantee) IS 'What tells grantees apart';
COMMENT ON FUNCTION cmk.registry_changed() IS
    'Trigger function: tells every session, at commit, to read the registry again';
COMMENT ON FUNCTION cmk.backend_cache(pg_catalog.uuid) IS 'Rows of the view cmk.cache';
COMMENT ON FUNCTION cmk.backend_cache_stats(pg_catalog.uuid) IS 'The row of the view cmk.cache_stats';
COMMENT ON TABLE cmk.tenant IS 'Tenants and the keys they own; change it through the functions of schema cmk';
COMMENT ON TABLE cmk.audit_event IS 'What administrators did, in hash chains: docs/audit.md';
COMMENT ON TABLE cmk.audit_chain IS 'The last event of each chain of cmk.audit_event';
COMMENT ON TABLE cmk.data_key IS 'Wrapped data keys; losing a row is losing the values sealed under it';
COMMENT ON TABLE cmk.data_key_use IS 'How many values each data key has sealed, at least; the rows of one add up';
COMMENT ON TABLE cmk.access IS 'Which database roles may encrypt and decrypt for which tenant; a null tenant means every tenant';
COMMENT ON TABLE cmk.home IS 'The database that this registry belongs to';
COMMENT ON COLUMN cmk.home.pass IS
    'By which the functions behind cmk.status and the like know the views';
COMMENT ON COLUMN cmk.tenant.last_version IS 'Highest version that a data key of the tenant ever had';
COMMENT ON COLUMN cmk.tenant.key_uri IS 'The key that wraps the tenant''s data keys';
COMMENT ON COLUMN cmk.tenant.next_key_uri IS 'The key that the tenant is being moved to';
COMMENT ON COLUMN cmk.tenant.next_options IS 'Options of the key that the tenant is being moved to';
COMMENT ON COLUMN cmk.data_key.next_wrapped IS
    'The data key as the key wrapped it that the tenant is being moved to; not in force';
COMMENT ON COLUMN cmk.data_key.next_wrapped_by IS 'URI of the key that wrapped next_wrapped';
COMMENT ON COLUMN cmk.tenant.options IS
    'How the key is used: role_arn and external_id of an AWS key';
COMMENT ON COLUMN cmk.tenant.suspended_at IS 'Since when it is suspended, or was when it was shredded';
COMMENT ON COLUMN cmk.tenant.certificate IS 'What cmk.shred_tenant() returned; null unless shredded';
COMMENT ON COLUMN cmk.tenant.rotate_after IS
    'Age at which the monitor rotates its data key; null: cmk_encrypt.rotate_after, 0: never';
COMMENT ON COLUMN cmk.tenant.rotate_after_values IS
    'Sealed values at which the monitor rotates its data key; null: cmk_encrypt.rotate_after_values, 0: never';
COMMENT ON COLUMN cmk.data_key_use.sealed IS 'Values sealed since it was made';
COMMENT ON COLUMN cmk.data_key_use.counted_at IS 'When this was last added to';
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
COMMENT ON COLUMN cmk.tenants.next_key_uri IS 'The key that the tenant is being moved to: see cmk.rewrap_tenant()';
COMMENT ON COLUMN cmk.tenants.rewrapped IS 'Data keys that this key has wrapped and unwrapped';
COMMENT ON COLUMN cmk.tenants.remaining IS 'Data keys that it has not';
COMMENT ON COLUMN cmk.tenants.data_keys IS 'How many there are; none costs anything until it is used';

COMMENT ON COLUMN cmk.tenants.suspended_at IS
    'Since when it is suspended, or was when it was shredded';

COMMENT ON COLUMN cmk.status.tenant_state IS 'As in cmk.tenants';
COMMENT ON COLUMN cmk.status.key_state IS
    'usable, revoked, unreachable, throttled or misconfigured, as KMS last said; null if that is not known';
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
COMMENT ON COLUMN cmk.status.dark_since IS
    'Since when this server can''t open the tenant''s values; null if it can, as far as is known, and while the tenant is pending';
COMMENT ON COLUMN cmk.status.watched IS
    'A monitor of this database is at work; else changes show only when a session asks KMS';
COMMENT ON COLUMN cmk.status.warnings IS
    'deletion_scheduled, key_material_expires, rotation_off, as the monitor last saw; null: warnings can''t be seen, for want of a monitor or of kms:DescribeKey';
COMMENT ON COLUMN cmk.status.from_history IS
    'key_state and its reason, info and since are the last event in cmk.key_event: KMS was not asked since the server started';
COMMENT ON COLUMN cmk.status.worst_case IS
    'The longest that values can be opened after the owner revoked the key, with these settings';
COMMENT ON VIEW cmk.server IS 'The server, as far as this extension goes: one row';
COMMENT ON COLUMN cmk.server.preloaded IS
    'The library is in shared_preload_libraries; else all figures are of this session';
COMMENT ON COLUMN cmk.server.keyring_worker IS 'The keyring worker runs; without it no data key is shared';
COMMENT ON COLUMN cmk.server.monitor_configured IS 'cmk_encrypt.monitor_databases names this database';
COMMENT ON COLUMN cmk.server.watched IS 'The monitor of this database is at work';
COMMENT ON COLUMN cmk.server.cache_ttl IS 'cmk_encrypt.cache_ttl';
COMMENT ON COLUMN cmk.server.promised_bound IS 'cmk_encrypt.promised_bound; null if none';
COMMENT ON COLUMN cmk.server.tenants_forgotten IS
    'Times that a tenant''s state was forgotten because there are more than cmk_encrypt.shared_keyring_size';
COMMENT ON COLUMN cmk.server.dropped_for_room IS
    'Data keys that sessions dropped because they need more than cmk_encrypt.cache_size';
COMMENT ON COLUMN cmk.server.hits IS
    'This and the columns that follow: as in cmk.status, of all databases since the server started; they never fall';

COMMENT ON COLUMN cmk.key_event.id IS 'As in the notification on cmk_key_events';
COMMENT ON COLUMN cmk.key_event.event IS
    'The state entered: usable, revoked, unreachable, throttled, misconfigured; or a warning: deletion_scheduled, key_material_expires, rotation_off, rotation_failed';
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

COMMENT ON COLUMN cmk.audit_event.tenant IS 'The tenant; * for what concerns every tenant';
COMMENT ON COLUMN cmk.audit_event.origin IS
    'The cluster''s identifier and the database''s number where the event was written down: there is a chain for each tenant and origin';
COMMENT ON COLUMN cmk.audit_event.number IS 'Place in the chain, from 1 on, in the order of the commits';
COMMENT ON COLUMN cmk.audit_event.at IS 'When it was done; the commit came later';
COMMENT ON COLUMN cmk.audit_event.session_role IS 'session_user';
COMMENT ON COLUMN cmk.audit_event.acting_role IS 'current_user of whoever called the function';
COMMENT ON COLUMN cmk.audit_event.client_address IS '[local] for a Unix socket; null for a process of the server';
COMMENT ON COLUMN cmk.audit_event.application_name IS 'What the client says of itself';
COMMENT ON COLUMN cmk.audit_event.act IS 'The SQL function';
COMMENT ON COLUMN cmk.audit_event.data_key IS 'Version of the data key that it is about';
COMMENT ON COLUMN cmk.audit_event.before IS 'What was changed';
COMMENT ON COLUMN cmk.audit_event.after IS 'What it was changed to';
COMMENT ON COLUMN cmk.audit_event.kms_request_ids IS 'As in the CloudTrail of the key''s owner: requestID';
COMMENT ON COLUMN cmk.audit_event.previous_hash IS
    'Of the event before; of the first one, that of the tenant''s newest event of another origin, or zeros';
COMMENT ON COLUMN cmk.audit_event.hash IS 'SHA-256 over all other columns, as docs/audit.md says';
