-- Protection of a column of a table that may be full, and in use.

-- What values of the column are bound to, for good: no rename changes it. The schema is in it only
-- where two tables would share a label.
CREATE FUNCTION cmk_internal.default_label("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM cmk.protections() p
                              WHERE p.label OPERATOR(pg_catalog.=) short.label
                                AND NOT p.relation OPERATOR(pg_catalog.=) ANY (
                                        SELECT t.relation::pg_catalog.oid FROM cmk_internal.table_tree(default_label."table") t))
                THEN pg_catalog.concat(n.nspname, '.', short.label) ELSE short.label END
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     CROSS JOIN LATERAL pg_catalog.concat(c.relname, '.', default_label."column") AS short (label)
     WHERE c.oid OPERATOR(pg_catalog.=) default_label."table"
$$;

-- Seals something for each tenant that has values in the column: what is refused, is refused before
-- the lock, and what waits for KMS, waits before the lock. False, and nothing done, if there are
-- more tenants than at_most.
CREATE FUNCTION cmk_internal.try_tenants(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant pg_catalog.text,
    at_most pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants pg_catalog.text[];
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.array_agg(t.tenant) FROM (SELECT DISTINCT %s AS tenant FROM %s WHERE %I IS NOT NULL LIMIT %L) t',
        tenant, "table", "column", at_most OPERATOR(pg_catalog.+) 1)
        INTO tenants;
    IF pg_catalog.cardinality(tenants) OPERATOR(pg_catalog.>) at_most THEN
        RETURN false;
    END IF;
    PERFORM cmk.is_sealed(cmk.seal_value(''::pg_catalog.text, t.name, pg_catalog.format('%s.%I', "table", "column"), NULL::pg_catalog.text))
       FROM pg_catalog.unnest(tenants) AS t (name);
    RETURN true;
END
$$;

-- Protects a column: new values are sealed from now on. Old ones are sealed at once where the table
-- is rewritten; else cmk.seal_table() does it.
--
-- rewrite: null means yes for tables of up to 10 MB whose tenants (up to 100) can all be sealed
-- for: that takes no longer than a second or so, and leaves no plaintext in the table's files.
CREATE FUNCTION cmk.protect_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name DEFAULT NULL, tenant_expression pg_catalog.text DEFAULT NULL,
    rewrite pg_catalog.bool DEFAULT NULL, views pg_catalog.text DEFAULT 'refuse',
    label pg_catalog.text DEFAULT NULL,
    lock_timeout pg_catalog.interval DEFAULT '2s', lock_attempts pg_catalog.int4 DEFAULT 10)
RETURNS pg_catalog.text
-- No compiling while others wait for the lock.
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    small CONSTANT pg_catalog.int8 := 10485760;
    few CONSTANT pg_catalog.int8 := 100;
    obstacles pg_catalog.text[];
    subject pg_catalog.record;
    existing pg_catalog.record;
    using_expression pg_catalog.text;
    check_name pg_catalog.name;
    check_expression pg_catalog.text;
    condition pg_catalog.text;
    -- The tenant, over the columns of a row, and as the constraint has it.
    tenant pg_catalog.text;
    tenant_in_check pg_catalog.text := 'NULL';
    tenant_in_trigger pg_catalog.text := 'NULL::pg_catalog.text';
    bytes pg_catalog.int8;
    detail pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_null(views, 'views');
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.protect_obstacles(
        "table", "column", tenant_column, tenant_expression, rewrite, views, label) o (line));
    PERFORM cmk_internal.refuse(obstacles);

    SELECT a.attnum, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           cmk_internal.protecting_type(a.atttypid, a.atttypmod) AS target, cmk_internal.keeps_file(a.atttypid) AS keeps_file
      INTO subject
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    SELECT p.label, c.conname, c.conkey, p.tenant INTO existing
      FROM cmk.protections() p
      JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) p.constraint_oid
     WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
       AND p.attnum OPERATOR(pg_catalog.=) subject.attnum;
    IF existing.tenant IS NOT NULL THEN
        SELECT a.attname INTO tenant_column
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
           AND a.attnum OPERATOR(pg_catalog.=) ANY (existing.conkey)
           AND a.attnum OPERATOR(pg_catalog.<>) subject.attnum;
        tenant_expression := NULL;
    END IF;

    IF tenant_column IS NOT NULL THEN
        tenant := pg_catalog.format('%I::pg_catalog.text', tenant_column);
        tenant_in_check := tenant;
        tenant_in_trigger := pg_catalog.format('new.%I', tenant_column);
    ELSIF tenant_expression IS NOT NULL THEN
        tenant := pg_catalog.format('(%s)::pg_catalog.text', tenant_expression);
        tenant_in_trigger := pg_catalog.format('(%s)::pg_catalog.text', cmk_internal.row_expression("table", tenant_expression));
    ELSE
        tenant := 'pg_catalog.current_setting(''cmk_encrypt.tenant'')';
    END IF;
    label := COALESCE(existing.label, label, cmk_internal.default_label("table", "column"));

    -- TOAST indexes have a page even in empty tables.
    SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(t.relation)), 0)::pg_catalog.int8 INTO bytes
      FROM cmk_internal.table_tree("table") t
     WHERE pg_catalog.pg_relation_size(t.relation) OPERATOR(pg_catalog.>) 0;
    IF subject.target IS NULL THEN
        rewrite := false;
    ELSIF tenant_column IS NULL AND tenant_expression IS NULL
          AND COALESCE(pg_catalog.current_setting('cmk_encrypt.tenant', true), '') OPERATOR(pg_catalog.=) '' THEN
        -- Nobody to seal for, which is no matter while nothing is to be sealed.
        IF rewrite OR NOT subject.keeps_file THEN
            PERFORM cmk.raise('tenant_unset', pg_catalog.concat('column=', label));
        END IF;
        rewrite := false;
    ELSIF rewrite IS NULL AND subject.keeps_file THEN
        BEGIN
            rewrite := bytes OPERATOR(pg_catalog.>) 0 AND bytes OPERATOR(pg_catalog.<=) small
                       AND cmk_internal.try_tenants("table", "column", tenant, few);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RAISE NOTICE 'the table is not rewritten: %', SQLERRM USING DETAIL = detail;
            rewrite := false;
        END;
    ELSIF rewrite OR NOT subject.keeps_file THEN
        rewrite := true;
        PERFORM cmk_internal.try_tenants("table", "column", tenant, 9223372036854775806);
    END IF;

    IF rewrite THEN
        using_expression := pg_catalog.format(
            'CASE WHEN %1$I IS NOT NULL THEN cmk.seal_value(%1$I::%2$s, %3$s, %4$L, NULL::pg_catalog.text) END',
            "column",
            CASE WHEN subject.target OPERATOR(pg_catalog.=) 'pg_catalog.cmk_bytea' THEN 'pg_catalog.bytea'
                 WHEN subject.target OPERATOR(pg_catalog.=) 'pg_catalog.cmk_jsonb' THEN 'pg_catalog.jsonb'
                 ELSE 'pg_catalog.text' END,
            tenant, label);
    END IF;
    IF existing.conname IS NULL THEN
        check_name := cmk_internal.unused_constraint_name("table", "column");
        check_expression := pg_catalog.format(
            'cmk.sealed(%I, %L, %s, NULL)', "column", label, tenant_in_check);
    END IF;
    condition := pg_catalog.format('cmk.seals(%L, %s)', label, tenant_in_trigger);
    PERFORM cmk_internal.change_column_politely(
        ROW("table", "column", subject.atttypid, subject.target, using_expression, check_name, check_expression,
            rewrite, label, condition, views OPERATOR(pg_catalog.=) 'recreate')::cmk_internal.column_change,
        lock_timeout, lock_attempts);

    IF existing.conname IS NULL THEN
        PERFORM cmk_internal.write_notes("table", check_name, "column",
                                CASE WHEN subject.target IS NOT NULL THEN subject.type END);
    END IF;
    PERFORM cmk_internal.tell_of_protection("table", "column", tenant_column);
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c
                    WHERE c.conrelid OPERATOR(pg_catalog.=) "table"
                      AND c.conname OPERATOR(pg_catalog.=) COALESCE(existing.conname, check_name)
                      AND NOT c.convalidated) THEN
        IF bytes OPERATOR(pg_catalog.>) 0 AND subject.target IS NOT NULL THEN
            RAISE NOTICE 'plaintext may be left in old statistics, in WAL and in backups'
                USING HINT = 'VACUUM FULL pg_catalog.pg_statistic removes it from the statistics.';
        END IF;
        RETURN pg_catalog.format('%I of %s is protected, with the label %L; all its values are sealed', "column", "table", label);
    END IF;
    RETURN pg_catalog.format('%I of %s is protected, with the label %L; next, seal its old values: CALL cmk.seal_table(%L)',
                             "column", "table", label, "table");
END
$$;

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

CREATE FUNCTION cmk_internal.refuse_null(value pg_catalog.text, argument pg_catalog.text) RETURNS pg_catalog.void
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value IS NULL THEN
        PERFORM cmk.raise('null_argument', pg_catalog.concat('argument=', argument));
    END IF;
END
$$;

-- Comments on our constraint, in the table and its children: what the type was, and in which files
-- plaintext may be left. None where all values were sealed while the table was rewritten.
CREATE FUNCTION cmk_internal.write_notes(
    "table" pg_catalog.regclass, check_name pg_catalog.name, "column" pg_catalog.name, former pg_catalog.text)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement pg_catalog.text;
BEGIN
    FOR statement IN
        SELECT cmk_internal.protection_comment(t.relation, check_name, former, CASE WHEN NOT c.convalidated
                   THEN ARRAY(SELECT f.file FROM cmk_internal.files_of_column(t.relation, a.attnum) f) END)
          FROM cmk_internal.table_tree("table") t
          JOIN pg_catalog.pg_constraint c
            ON c.conrelid OPERATOR(pg_catalog.=) t.relation
           AND c.conname OPERATOR(pg_catalog.=) check_name
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) "column"
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
