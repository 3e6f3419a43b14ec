-- What cmk.protect_column() and cmk.seal_table() say, beside doing it.

-- What protection of this column brings with it, and its owner may not expect.
CREATE FUNCTION cmk_internal.tell_of_protection(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant_column pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT c.relation, c.name FROM cmk_internal.checks_of_column("table", "column") c WHERE NOT c.is_ours AND c.is_local
    LOOP
        RAISE NOTICE 'constraint % of % opens the value at each write from now on', pg_catalog.quote_ident(item.name), item.relation
            USING HINT = 'It holds for new rows, and is NOT VALID: old rows are not checked.';
    END LOOP;
    IF NOT cmk.is_preloaded() THEN
        RAISE WARNING 'cmk_encrypt is not among the preloaded libraries'
            USING HINT = 'Sessions that load it late cannot read protected columns in their first parallel query; add it to shared_preload_libraries or session_preload_libraries.';
    END IF;
    PERFORM FROM pg_catalog.pg_attribute a
           WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
             AND a.attname OPERATOR(pg_catalog.=) tenant_column
             AND NOT a.attnotnull;
    IF FOUND THEN
        RAISE WARNING 'tenant column % of % may be null', pg_catalog.quote_ident(tenant_column), "table"
            USING HINT = 'A row without a tenant can hold no value; SET NOT NULL tells so earlier.';
    END IF;
END
$$;

-- What cmk.protect_column() says at its end. had_plaintext: in files that are none of the table's
-- any more, if it was rewritten.
CREATE FUNCTION cmk_internal.protection_sentence(
    "table" pg_catalog.regclass, "column" pg_catalog.name, label pg_catalog.text,
    wanted pg_catalog.jsonb, made pg_catalog.bool, had_plaintext pg_catalog.bool) RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM cmk.protections() p
            JOIN pg_catalog.pg_attribute a
              ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
           WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
             AND a.attname OPERATOR(pg_catalog.=) "column"
             AND NOT p.validated;
    IF FOUND THEN
        RETURN pg_catalog.concat(
            pg_catalog.format('%I of %s is protected, with the label %L; next, seal its old values: CALL cmk.seal_table(%L)',
                              "column", "table", label, "table"),
            (SELECT E'\nthen make its indexes: ' OPERATOR(pg_catalog.||) pg_catalog.string_agg(w.statement, '; ')
               FROM pg_catalog.jsonb_to_recordset(wanted) w (statement pg_catalog.text)
              WHERE NOT made));
    END IF;
    IF had_plaintext THEN
        RAISE NOTICE 'plaintext may be left in old statistics, in WAL and in backups'
            USING HINT = 'VACUUM FULL pg_catalog.pg_statistic removes it from the statistics.';
    END IF;
    RETURN pg_catalog.format('%I of %s is protected, with the label %L; all its values are sealed', "column", "table", label);
END
$$;

-- Who may not set session_replication_role cannot keep users' triggers from firing.
CREATE FUNCTION cmk_internal.tell_of_triggers("table" pg_catalog.regclass) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    triggers pg_catalog.text;
BEGIN
    -- Bits of tgtype: 1 for each row, 16 UPDATE.
    SELECT pg_catalog.string_agg(pg_catalog.format('%I on %s', g.tgname, t.relation), ', ') INTO triggers
      FROM cmk_internal.columns_to_seal("table") t
      JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.relation
     WHERE (t.searchable OR NOT t.validated) AND NOT g.tgisinternal
       AND g.tgname OPERATOR(pg_catalog.<>) '~cmk_seal'
       AND g.tgenabled OPERATOR(pg_catalog.=) 'O'
       AND g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 16 OPERATOR(pg_catalog.<>) 0;
    IF triggers IS NOT NULL THEN
        PERFORM pg_catalog.set_config('session_replication_role', pg_catalog.current_setting('session_replication_role'), true);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'triggers fire while values are sealed: %', triggers
        USING HINT = 'They do not for superusers, nor for roles that were granted SET ON PARAMETER session_replication_role.';
END
$$;

CREATE FUNCTION cmk_internal.tell_failures("table" pg_catalog.regclass, failures pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN SELECT f.key, f.value FROM pg_catalog.jsonb_each_text(failures) f ORDER BY f.key LIMIT 50 LOOP
        RAISE WARNING 'values of tenant % are not sealed: %',
            CASE WHEN item.key OPERATOR(pg_catalog.=) '' THEN 'NULL' ELSE pg_catalog.to_json(item.key)::pg_catalog.text END, item.value
            USING HINT = 'Once that is mended, CALL cmk.seal_table() again; it goes on where it must.';
    END LOOP;
    IF failures OPERATOR(pg_catalog.<>) '{}'::pg_catalog.jsonb THEN
        RAISE WARNING 'values of % tenants are not sealed%',
            (SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_object_keys(failures)),
            CASE WHEN EXISTS (SELECT FROM cmk_internal.columns_to_seal("table") s WHERE NOT s.validated)
                 THEN ', and the constraint is not validated' ELSE ' with the tokens that they are to have' END;
    END IF;
END
$$;

-- Says where plaintext is left, and how to remove it.
CREATE FUNCTION cmk_internal.tell_remnants("table" pg_catalog.regclass, sealed pg_catalog.int8) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    places pg_catalog.text;
    statements pg_catalog.text;
BEGIN
    SELECT pg_catalog.string_agg(DISTINCT f.object::pg_catalog.text, ', '),
           pg_catalog.string_agg(DISTINCT CASE WHEN f.is_index
               THEN pg_catalog.format('REINDEX INDEX CONCURRENTLY %s;', f.object)
               ELSE pg_catalog.format('VACUUM FULL %s;', f.object) END, ' ')
      INTO places, statements
      FROM cmk_internal.columns_to_seal("table") s
     CROSS JOIN LATERAL cmk_internal.protection_note(s.constraint_oid) n
     CROSS JOIN LATERAL cmk_internal.files_of_column(s.relation, s.attnum) f
     WHERE f.file OPERATOR(pg_catalog.=) ANY (n.files);
    RAISE NOTICE '% rows of % sealed', sealed, "table";
    IF places IS NOT NULL THEN
        RAISE NOTICE 'plaintext may be left in the files of %, in old statistics, in WAL and in backups', places
            USING HINT = pg_catalog.concat(statements, ' VACUUM FULL pg_catalog.pg_statistic;');
    END IF;
END
$$;
