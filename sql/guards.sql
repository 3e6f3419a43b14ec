-- What keeps the registry from being changed past its functions, and tells every session of a
-- change.

CREATE FUNCTION cmk.registry_guard() RETURNS pg_catalog.trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'registry_guard';
CREATE FUNCTION cmk.registry_changed() RETURNS pg_catalog.trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'registry_changed';
CREATE FUNCTION cmk.drop_guard() RETURNS pg_catalog.event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'drop_guard';

-- ALWAYS: also when a restore or logical replication writes the rows; the latter fires row triggers
-- only. The guards keep out roles that may write any table (pg_write_all_data) and so could grant
-- themselves access, or forge or forestall what the monitor tells and counts. Of the audit trail
-- nothing is changed or deleted by anybody, its owner included.
DO $$
DECLARE
    guarded pg_catalog.text;
    registry CONSTANT pg_catalog.text[] := '{tenant, data_key, access, home}';
    told CONSTANT pg_catalog.text[] := 
        '{data_key_use, key_event, audit_event, audit_chain, reencrypt_job, reencrypt_failure}';
BEGIN
    FOREACH guarded IN ARRAY registry OPERATOR(pg_catalog.||) told LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cmk.%1$I
                FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard();
            CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON cmk.%1$I
                FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard();
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard;
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard_row;
        $sql$, guarded);
    END LOOP;
    FOREACH guarded IN ARRAY registry LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON cmk.%1$I
                FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed();
            CREATE TRIGGER announce_truncate AFTER TRUNCATE ON cmk.%1$I
                FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed();
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce;
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce_truncate;
        $sql$, guarded);
    END LOOP;
END
$$;

-- Has the library loaded in time: its hook refuses to drop cmk.data_key while there are data keys,
-- whatever command or cascade gets there. Preloaded, it is there for all commands; else for those
-- that could get there by themselves.
CREATE EVENT TRIGGER cmk_drop_guard ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA') EXECUTE FUNCTION cmk.drop_guard();
ALTER EVENT TRIGGER cmk_drop_guard ENABLE ALWAYS;
