-- What is wrong with the registry, with protected columns and with the server's settings. No
-- constraint spans the registry's tables, so that a restore can fill them in any order. detail says
-- what is wrong and what people have to decide; fix is SQL to run, as it stands, once they decided,
-- or null.

-- Monitoring asks every minute, so it reads catalogs, the registry and memory only. deep reads the
-- protected columns of all tables, without a key.
CREATE FUNCTION cmk.check(
    deep pg_catalog.bool DEFAULT false,
    OUT problem pg_catalog.text, OUT tenant pg_catalog.text, OUT detail pg_catalog.text, OUT fix pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
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
    SELECT 'shredded_data_keys', t.tenant,
           pg_catalog.format('the tenant was shredded, and %s wrapped data keys are here again, as after restoring an older cmk.data_key',
               pg_catalog.count(*)),
           pg_catalog.format('SELECT cmk.shred_tenant(%1$L, confirm => %1$L)', t.tenant)
      FROM cmk.tenant t
      JOIN cmk.data_key k ON k.tenant OPERATOR(pg_catalog.=) t.tenant
     WHERE t.state OPERATOR(pg_catalog.=) 'shredded' AND k.wrapped IS NOT NULL
     GROUP BY t.tenant
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
           pg_catalog.format('a grant to role %s, which this server did not have when the grant came, has no effect; to grant it, create the role, then SELECT cmk.grant_access(%L, %L, encrypt => %L, decrypt => %L, bound => %L)',
               a.role, COALESCE(a.tenant, '*'), a.role, a.encrypt, a.decrypt, a.bound),
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
    -- Of its own grants, one for a single tenant may well be meant beside a bound one for all.
    SELECT 'bound_grant_without_effect', a.tenant,
           pg_catalog.format('the grant to role %s is bound to the session''s tenant, and that to role %s for %s, which it has too, is not',
               a.role, o.role, COALESCE(o.tenant, 'every tenant')),
           pg_catalog.format('SELECT cmk.revoke_access(%L, %L)', COALESCE(o.tenant, '*'), o.role)
      FROM cmk.access a
      JOIN pg_catalog.pg_roles r
             ON r.oid OPERATOR(pg_catalog.=) a.role::pg_catalog.oid AND NOT r.rolsuper
      JOIN cmk.access o
             ON NOT o.bound
            AND (o.tenant IS NULL OR o.tenant OPERATOR(pg_catalog.=) a.tenant
                 OR a.tenant IS NULL AND o.role::pg_catalog.oid OPERATOR(pg_catalog.<>) r.oid)
            AND (o.encrypt AND a.encrypt OR o.decrypt AND a.decrypt)
      JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) o.role::pg_catalog.oid
     WHERE a.bound AND pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE')
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
              FROM pg_catalog.unnest('{tenant, data_key, access, home, data_key_use, key_event, reencrypt_job, reencrypt_failure, audit_event, audit_chain}'::pg_catalog.text[]) r (relname)
             CROSS JOIN (VALUES
                ('guard', 'CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard'),
                ('guard_row', 'CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard_row'),
                ('announce', 'CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce'),
                ('announce_truncate', 'CREATE TRIGGER announce_truncate AFTER TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce_truncate')
             ) g (tgname, fix)
             WHERE NOT r.relname OPERATOR(pg_catalog.=) ANY ('{data_key_use, key_event, reencrypt_job, reencrypt_failure, audit_event, audit_chain}')
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
    UNION ALL
    SELECT 'wrapped_by_another_key', k.tenant,
           pg_catalog.format('data key %s was wrapped by %s, but the tenant''s key is %s, which does not unwrap it: cmk.tenant and cmk.data_key come from different backups; restore both from one',
               k.version, k.wrapped_by, t.key_uri),
           NULL
      FROM cmk.data_key k
      JOIN cmk.tenant t ON t.tenant OPERATOR(pg_catalog.=) k.tenant
     WHERE k.wrapped IS NOT NULL AND k.wrapped_by OPERATOR(pg_catalog.<>) t.key_uri
    UNION ALL
    SELECT 'registry_published_in_part', NULL,
           pg_catalog.format('publication %I sends %s, but not %s: a subscriber would have data keys, tenants or grants that do not belong together',
               p.pubname, pg_catalog.string_agg(r.name, ', ') FILTER (WHERE p.tablename IS NOT NULL),
               pg_catalog.string_agg(r.name, ', ') FILTER (WHERE p.tablename IS NULL)),
           pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s', p.pubname,
               pg_catalog.string_agg(r.name, ', ') FILTER (WHERE p.tablename IS NULL))
      FROM (SELECT DISTINCT x.pubname, r.name,
                   CASE WHEN x.tables OPERATOR(pg_catalog.@>) ARRAY[r.name] THEN r.name END AS tablename
              FROM (SELECT pt.pubname,
                           pg_catalog.array_agg(pg_catalog.format('cmk.%I', pt.tablename)) AS tables
                      FROM pg_catalog.pg_publication_tables pt
                     WHERE pt.schemaname OPERATOR(pg_catalog.=) 'cmk'
                       AND pt.tablename OPERATOR(pg_catalog.=) ANY ('{tenant, data_key, access}'::pg_catalog.name[])
                     GROUP BY pt.pubname) x
             CROSS JOIN (VALUES ('cmk.tenant'), ('cmk.data_key'), ('cmk.access')) r (name)) p
     CROSS JOIN LATERAL (SELECT p.name) r
     GROUP BY p.pubname
    HAVING pg_catalog.count(p.tablename) OPERATOR(pg_catalog.<) 3
    UNION ALL
    SELECT known.finding, NULL,
           pg_catalog.format('column %I of table %s: %s; %s', c."column", c."table", found.problem, known.meaning),
           CASE known.problem
                WHEN 'unique_index_missing'
                THEN (SELECT u.statement
                        FROM cmk_internal.table_tree(c."table") t
                       CROSS JOIN LATERAL cmk_internal.missing_uniques(t.relation, c."column") u
                       WHERE found.place OPERATOR(pg_catalog.=) pg_catalog.format('%s (%s)', t.relation, u.columns))
                WHEN 'not_validated' THEN pg_catalog.format(known.fix, c."table")
                ELSE pg_catalog.format(known.fix, found.place, c."column") END
      FROM cmk.protected_columns c
      JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) c."table"
     CROSS JOIN LATERAL (
           SELECT p.problem, pg_catalog.split_part(p.problem, ': ', 1), pg_catalog."substring"(p.problem, ': (.*)$')
             FROM pg_catalog.unnest(c.problems) p (problem)) found (problem, name, place)
      JOIN (VALUES
                ('column_unguarded', 'trigger_not_always',
                 'the sealing trigger is off, or off where rows are replicated, and plaintext is refused instead of sealed',
                 'ALTER TABLE %s ENABLE ALWAYS TRIGGER "~cmk_seal"'),
                ('column_unguarded', 'constraint_missing',
                 'plaintext is refused, or stored as it comes where trigger and constraint are both gone; call cmk.protect_column() again with the same tenant, or drop the table if it is a copy', NULL),
                ('column_unguarded', 'trigger_missing',
                 'plaintext is refused, or stored as it comes where trigger and constraint are both gone; call cmk.protect_column() again with the same tenant, or drop the table if it is a copy', NULL),
                ('column_unguarded', 'trigger_without_column',
                 'plaintext is refused; call cmk.protect_column() again with the same tenant', NULL),
                ('column_unfinished', 'not_validated', 'rows from before the protection may hold plaintext', 'CALL cmk.seal_table(%L)'),
                ('column_unfinished', 'no_index', 'each search reads the whole table', 'CREATE INDEX CONCURRENTLY ON %s (%I pg_catalog.cmk_token_ops)'),
                ('column_unfinished', 'unique_index_missing', 'it was unique before it was protected, and duplicates are not refused', NULL),
                ('column_unfinished', 'remnants', 'the file of the table may hold plaintext from before', 'VACUUM FULL %s'),
                ('column_unfinished', 'plaintext_in_index', 'the index may hold plaintext from before', 'REINDEX INDEX CONCURRENTLY %s'),
                ('column_unfinished', 'plaintext_generated', 'a generated column stores the plaintext: drop it', NULL),
                ('column_unfinished', 'check_validated', 'a constraint opens the values while a dump is restored, which fails without their keys: drop it, and add it NOT VALID', NULL)
           ) known (finding, problem, meaning, fix) ON known.problem OPERATOR(pg_catalog.=) found.name
     -- A temporary copy goes with its session.
     WHERE r.relpersistence OPERATOR(pg_catalog.<>) 't'
    UNION ALL
    SELECT 'monitor_not_running', NULL,
           CASE WHEN s.preloaded
                THEN 'cmk_encrypt.monitor_databases names this database, but no monitor was seen at work; the server log says why: mostly there is no room in max_worker_processes'
                ELSE 'cmk_encrypt.monitor_databases names this database, but the library is not preloaded: add cmk_encrypt to shared_preload_libraries and restart' END,
           NULL
      FROM cmk.server s
     WHERE s.monitor_configured AND NOT s.watched
       -- It takes a moment to start.
       AND (NOT s.preloaded
            OR (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '5 s'::pg_catalog.interval)
               OPERATOR(pg_catalog.>)
               GREATEST(pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_conf_load_time()))
    UNION ALL
    SELECT 'keyring_worker_not_running', NULL,
           'the library is preloaded, but its keyring worker does not run, so that no data key is shared: leave it room in max_worker_processes and restart; the server log says more',
           NULL
      FROM cmk.server s
     WHERE s.preloaded AND NOT s.keyring_worker
       AND (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '5 s'::pg_catalog.interval)
           OPERATOR(pg_catalog.>) pg_catalog.pg_postmaster_start_time()
    UNION ALL
    SELECT 'bound_too_long', CASE WHEN s.cache_ttl OPERATOR(pg_catalog.<=) s.promised_bound THEN t.tenant END,
           pg_catalog.format('values can be opened for %s after a revocation, which is longer than cmk_encrypt.promised_bound: %s',
               pg_catalog.max(t.worst_case),
               CASE WHEN s.cache_ttl OPERATOR(pg_catalog.<=) s.promised_bound
                    THEN 'the 15 minutes that the session of an assumed role can outlive it come on top; shorten cmk_encrypt.cache_ttl, use the key without a role, or promise more'
                    ELSE 'shorten cmk_encrypt.cache_ttl, or promise more' END),
           NULL
      FROM cmk.server s
     CROSS JOIN cmk.status t
     WHERE s.promised_bound IS NOT NULL AND t.worst_case OPERATOR(pg_catalog.>) s.promised_bound
       AND t.tenant_state OPERATOR(pg_catalog.<>) 'shredded'
     GROUP BY s.cache_ttl, s.promised_bound,
              CASE WHEN s.cache_ttl OPERATOR(pg_catalog.<=) s.promised_bound THEN t.tenant END
    UNION ALL
    SELECT 'setting_not_in_force', NULL,
           pg_catalog.format('%s in %s, line %s, is not in force: %s', f.name, f.sourcefile, f.sourceline, f.error),
           NULL
      FROM pg_catalog.pg_file_settings f
     WHERE f.error IS NOT NULL
       AND pg_catalog.starts_with(pg_catalog.lower(f.name), 'cmk_encrypt.')
    UNION ALL
    SELECT 'data_key_lost', NULL,
           pg_catalog.format('%s values or tokens in column %I of table %s need the data key with id %s, which cmk.data_key lacks; restore it from the backup that the table came from: pg_restore --data-only --schema=cmk --table=data_key',
               needed.number, needed.column_name, needed.relation, pg_catalog.encode(needed.dek_id, 'hex')),
           NULL
      FROM cmk_internal.dump_keys('{}') needed
     WHERE "check".deep AND needed.tenant IS NULL
    UNION ALL
    SELECT 'data_key_destroyed', needed.tenant,
           pg_catalog.format('%s values in column %I of table %s need data key %s, which was destroyed: they are lost for good; delete the rows, or restore them and cmk.data_key from a backup',
               needed.number, needed.column_name, needed.relation, needed.version),
           NULL
      FROM cmk_internal.dump_keys('{}') needed
      JOIN cmk.data_key k
        ON k.dek_id OPERATOR(pg_catalog.=) needed.dek_id AND k.purpose OPERATOR(pg_catalog.=) 'values'
     WHERE "check".deep AND needed.state OPERATOR(pg_catalog.=) 'destroyed'
    UNION ALL
    SELECT 'index_key_destroyed', needed.tenant,
           pg_catalog.format('%s values in column %I of table %s have tokens of index key %s, which was destroyed: the values open, and are sealed anew with the tokens that they should have',
               needed.number, needed.column_name, needed.relation, needed.version),
           pg_catalog.format('CALL cmk.seal_table(%L)', needed.relation)
      FROM cmk_internal.dump_keys('{}') needed
      JOIN cmk.data_key k
        ON k.dek_id OPERATOR(pg_catalog.=) needed.dek_id AND k.purpose OPERATOR(pg_catalog.=) 'index'
      JOIN cmk.tenant t ON t.tenant OPERATOR(pg_catalog.=) needed.tenant
     WHERE "check".deep AND needed.state OPERATOR(pg_catalog.=) 'destroyed'
       AND t.state OPERATOR(pg_catalog.<>) 'shredded'
$$;
