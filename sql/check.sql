-- The integrity of the registry: no constraint spans its tables, so that a restore can fill them in
-- any order. detail says what is wrong and what people have to decide; fix is SQL to run, as it
-- stands, once they decided, or null.

CREATE FUNCTION cmk.check(
    OUT problem pg_catalog.text, OUT tenant pg_catalog.text, OUT detail pg_catalog.text, OUT fix pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'data_keys_missing', t.tenant,
           pg_catalog.format('cmk.data_key lacks %s of %s data keys; restore it from the backup that cmk.tenant came from: pg_restore --data-only --schema=cmk --table=data_key',
               GREATEST(t.last_version, 1) OPERATOR(pg_catalog.-) pg_catalog.count(k.version),
               GREATEST(t.last_version, 1)),
           NULL
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key k
             ON k.tenant OPERATOR(pg_catalog.=) t.tenant
            AND k.version OPERATOR(pg_catalog.<=) GREATEST(t.last_version, 1)
     WHERE t.state OPERATOR(pg_catalog.<>) 'pending'
     GROUP BY t.tenant, t.last_version
    HAVING pg_catalog.count(k.version) OPERATOR(pg_catalog.<) GREATEST(t.last_version, 1)
    UNION ALL
    SELECT 'no_current_data_key', t.tenant,
           'none of its data keys for values is current; restore cmk.data_key from a backup, or go on with the newest that there is, or with a new one',
           pg_catalog.format(
               CASE WHEN pg_catalog.bool_or(k.state OPERATOR(pg_catalog.=) 'retired')
                    THEN $fix$UPDATE cmk.data_key SET state = 'current' WHERE (tenant, version) = (%L, %s)$fix$
                    ELSE 'SELECT cmk.rotate_tenant(%L)' END,
               t.tenant,
               pg_catalog.max(k.version) FILTER (WHERE k.state OPERATOR(pg_catalog.=) 'retired'))
      FROM cmk.tenant t
      JOIN cmk.data_key k
        ON k.tenant OPERATOR(pg_catalog.=) t.tenant AND k.purpose OPERATOR(pg_catalog.=) 'values'
     WHERE t.state OPERATOR(pg_catalog.=) ANY ('{active, suspended}')
     GROUP BY t.tenant
    HAVING NOT pg_catalog.bool_or(k.state OPERATOR(pg_catalog.=) 'current')
    UNION ALL
    SELECT 'tenant_row_missing', k.tenant,
           pg_catalog.format('%s data keys, but no row in cmk.tenant; restore it from the backup that cmk.data_key came from: pg_restore --data-only --schema=cmk --table=tenant',
               pg_catalog.count(*)),
           NULL
      FROM cmk.data_key k
     WHERE NOT EXISTS (SELECT FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) k.tenant)
     GROUP BY k.tenant
    UNION ALL
    SELECT 'grant_without_tenant', a.tenant,
           pg_catalog.format('a grant to role %s; restore cmk.tenant, or take it back', a.role),
           pg_catalog.format('DELETE FROM cmk.access WHERE id = %L', a.id)
      FROM cmk.access a
     WHERE a.tenant IS NOT NULL
       AND NOT EXISTS (SELECT FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) a.tenant)
    UNION ALL
    SELECT 'grant_without_role', a.tenant,
           pg_catalog.format('a grant to role %s, which this server did not have when the grant came, has no effect; to grant it, create the role, then SELECT cmk.grant_access(%L, %L, encrypt => %L, decrypt => %L)',
               a.role, COALESCE(a.tenant, '*'), a.role, a.encrypt, a.decrypt),
           pg_catalog.format('DELETE FROM cmk.access WHERE id = %L', a.id)
      FROM cmk.access a
     WHERE a.role::pg_catalog.oid OPERATOR(pg_catalog.=) 0
    UNION ALL
    SELECT 'grant_of_dropped_role', a.tenant, pg_catalog.format('a grant to role %s has no effect', a.role),
           pg_catalog.format('DELETE FROM cmk.access WHERE id = %L', a.id)
      FROM cmk.access a
     WHERE a.role::pg_catalog.oid OPERATOR(pg_catalog.<>) 0
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
                        WHERE r.oid OPERATOR(pg_catalog.=) a.role::pg_catalog.oid)
    UNION ALL
    SELECT CASE WHEN p.oid IS NULL THEN 'foreign_trigger' ELSE 'trigger_not_always' END, NULL,
           pg_catalog.format(
               CASE WHEN p.oid IS NULL THEN 'trigger %I of cmk.%I is none of ours, and may change or swallow rows'
                    ELSE 'trigger %I of cmk.%I is not ENABLE ALWAYS, as after pg_restore --disable-triggers' END,
               g.tgname, c.relname),
           pg_catalog.format(
               CASE WHEN p.oid IS NULL THEN 'DROP TRIGGER %2$I ON cmk.%1$I'
                    ELSE 'ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER %2$I' END,
               c.relname, g.tgname)
      FROM pg_catalog.pg_trigger g
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      LEFT JOIN pg_catalog.pg_proc p
             ON p.oid OPERATOR(pg_catalog.=) g.tgfoid
            AND p.pronamespace OPERATOR(pg_catalog.=) n.oid
            AND p.proname OPERATOR(pg_catalog.=) ANY ('{registry_guard, registry_changed}')
     WHERE n.nspname OPERATOR(pg_catalog.=) 'cmk' AND NOT g.tgisinternal
       AND (p.oid IS NULL OR g.tgenabled OPERATOR(pg_catalog.<>) 'A')
    UNION ALL
    SELECT 'trigger_missing', NULL, pg_catalog.format('cmk.%I has no trigger %I', wanted.relname, wanted.tgname),
           pg_catalog.format(wanted.fix, wanted.relname)
      FROM (SELECT r.relname, g.tgname, g.fix
              FROM pg_catalog.unnest('{tenant, data_key, access, home, key_event}'::pg_catalog.text[]) r (relname)
             CROSS JOIN (VALUES
                ('guard', 'CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard'),
                ('guard_row', 'CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard_row'),
                ('announce', 'CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce'),
                ('announce_truncate', 'CREATE TRIGGER announce_truncate AFTER TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce_truncate')
             ) g (tgname, fix)
             WHERE r.relname OPERATOR(pg_catalog.<>) 'key_event'
                OR pg_catalog.starts_with(g.tgname, 'guard')) wanted
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
                         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                        WHERE n.nspname OPERATOR(pg_catalog.=) 'cmk'
                          AND c.relname OPERATOR(pg_catalog.=) wanted.relname::pg_catalog.name
                          AND g.tgname OPERATOR(pg_catalog.=) wanted.tgname::pg_catalog.name)
    UNION ALL
    SELECT 'drop_guard_off', NULL, 'event trigger cmk_drop_guard does not exist', NULL
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
                        WHERE e.evtname OPERATOR(pg_catalog.=) 'cmk_drop_guard')
    UNION ALL
    SELECT 'drop_guard_off', NULL, 'event trigger cmk_drop_guard is not ENABLE ALWAYS',
           'ALTER EVENT TRIGGER cmk_drop_guard ENABLE ALWAYS'
      FROM pg_catalog.pg_event_trigger e
     WHERE e.evtname OPERATOR(pg_catalog.=) 'cmk_drop_guard'
       AND e.evtenabled OPERATOR(pg_catalog.<>) 'A'
    UNION ALL
    SELECT 'registry_copied', NULL,
           'this database was made from another one that has the extension; look at cmk.access and cmk.tenants before you adopt them',
           'SELECT cmk.adopt_registry()'
     WHERE NOT EXISTS (SELECT FROM cmk.home h
                         JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) h.database
                        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
$$;
