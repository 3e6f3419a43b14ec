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
-- more tenants than at_most. tenant: an expression over a row that is called "new". resealed: what
-- is sealed will be opened, too.
CREATE FUNCTION cmk_internal.try_tenants(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant pg_catalog.text,
    label pg_catalog.text, options pg_catalog.text, resealed pg_catalog.bool,
    at_most pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants pg_catalog.text[];
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.array_agg(t.tenant) FROM (SELECT DISTINCT %s AS tenant FROM %s AS "new" WHERE "new".%I IS NOT NULL LIMIT %L) t',
        tenant, "table", "column", at_most OPERATOR(pg_catalog.+) 1)
        INTO tenants;
    IF pg_catalog.cardinality(tenants) OPERATOR(pg_catalog.>) at_most THEN
        RETURN false;
    END IF;
    IF resealed THEN
        PERFORM cmk.is_sealed(cmk.reseal(cmk.seal_value(''::pg_catalog.text, t.name, label, NULL::pg_catalog.text), label, options))
           FROM pg_catalog.unnest(tenants) AS t (name);
    ELSE
        PERFORM cmk.is_sealed(cmk.seal_value(''::pg_catalog.text, t.name, label, options))
           FROM pg_catalog.unnest(tenants) AS t (name);
    END IF;
    RETURN true;
END
$$;

-- Protects a column: new values are sealed from now on. Old ones are sealed at once where the table
-- is rewritten; else cmk.seal_table() does it. Of a column that is protected, it changes how values
-- are found, and makes again what was lost.
--
-- rewrite: null means yes for tables of up to 10 MB whose tenants (up to 100) can all be sealed
-- for: that takes no longer than a second or so, and leaves no plaintext in the table's files.
--
-- searchable: null leaves it as it is, and that is not searchable for a new column; true says anew
-- how, by normalization and token_bits.
CREATE FUNCTION cmk.protect_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name DEFAULT NULL, tenant_expression pg_catalog.text DEFAULT NULL,
    rewrite pg_catalog.bool DEFAULT NULL, views pg_catalog.text DEFAULT 'refuse',
    label pg_catalog.text DEFAULT NULL,
    searchable pg_catalog.bool DEFAULT NULL, normalization pg_catalog.text DEFAULT NULL,
    token_bits pg_catalog.int4 DEFAULT NULL,
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
    options pg_catalog.text;
    -- It is protected, and will be found in another way.
    changes pg_catalog.bool;
    target pg_catalog.text;
    using_expression pg_catalog.text;
    check_name pg_catalog.name;
    check_expression pg_catalog.text;
    condition pg_catalog.text;
    -- The tenant, over the columns of a row; in the constraint; and in the trigger.
    tenant pg_catalog.text;
    tenant_in_check pg_catalog.text := 'NULL';
    tenant_in_trigger pg_catalog.text := 'NULL::pg_catalog.text';
    is_kept pg_catalog.bool := false;
    is_setting pg_catalog.bool := false;
    bytes pg_catalog.int8;
    outcome pg_catalog.record;
    detail pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_null(views, 'views');
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.protect_obstacles(
        "table", "column", tenant_column, tenant_expression, rewrite, views, label,
        searchable, normalization, token_bits) o (line));
    PERFORM cmk_internal.refuse(obstacles);
    IF rewrite IS DISTINCT FROM false THEN
        PERFORM cmk_internal.refuse(ARRAY[cmk_internal.expression_obstacle("table", tenant_expression)]);
    END IF;

    SELECT a.attnum, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           cmk_internal.protecting_type(a.atttypid, a.atttypmod) AS target, cmk_internal.keeps_file(a.atttypid) AS keeps_file
      INTO subject
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    SELECT p.label, c.conname, c.conkey, p.tenant, p.options, p.validated, n.former INTO existing
      FROM cmk.protections() p
      JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) p.constraint_oid
     CROSS JOIN LATERAL cmk_internal.protection_note(c.oid) n
     WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
       AND p.attnum OPERATOR(pg_catalog.=) subject.attnum;
    options := cmk_internal.new_options(existing.options, searchable, normalization, token_bits);
    changes := existing.conname IS NOT NULL
               AND COALESCE(existing.options, '') OPERATOR(pg_catalog.<>) COALESCE(options, '');
    target := CASE WHEN changes THEN pg_catalog.concat('pg_catalog.', subject.type) ELSE subject.target END;
    label := COALESCE(existing.label, label,
                      CASE WHEN subject.target IS NULL THEN cmk_internal.label_in_trigger("table") END,
                      cmk_internal.default_label("table", "column"));
    IF subject.target IS NULL AND existing.conname IS NULL THEN
        PERFORM cmk_internal.refuse(ARRAY[cmk_internal.label_obstacle("table", "column", label)]);
    END IF;

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
        SELECT s.tenant INTO tenant
          FROM cmk_internal.seal_conditions("table") s
         WHERE s.label OPERATOR(pg_catalog.=) existing.label
           AND s.tenant OPERATOR(pg_catalog.<>) 'NULL::text';
        is_kept := FOUND;
        is_setting := NOT is_kept;
        IF is_kept THEN
            tenant_in_trigger := tenant;
        ELSE
            tenant := 'pg_catalog.current_setting(''cmk_encrypt.tenant'')';
        END IF;
    END IF;

    IF options IS NOT NULL AND (changes OR existing.conname IS NULL) THEN
        PERFORM cmk_internal.make_index_keys();
    END IF;
    -- TOAST indexes have a page even in empty tables.
    SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(t.relation)), 0)::pg_catalog.int8 INTO bytes
      FROM cmk_internal.table_tree("table") t
     WHERE pg_catalog.pg_relation_size(t.relation) OPERATOR(pg_catalog.>) 0;
    IF target IS NULL
       OR changes AND rewrite IS NULL AND EXISTS (
              SELECT FROM cmk_internal.common_obstacles("table", "column", views,
                              cmk_internal.tolerated_uses(views, false, existing.options, options))) THEN
        rewrite := false;
    ELSIF changes AND is_kept AND NOT existing.validated THEN
        -- The trigger's expression names the row, and what is not sealed needs its tenant.
        IF rewrite THEN
            PERFORM cmk_internal.refuse('{"rewrite => true needs tenant_expression, as not all values are sealed"}');
        END IF;
        rewrite := false;
    ELSIF is_setting AND COALESCE(pg_catalog.current_setting('cmk_encrypt.tenant', true), '') OPERATOR(pg_catalog.=) '' THEN
        -- Nobody to seal for, which is no matter while nothing is to be sealed.
        IF (rewrite OR NOT changes AND NOT subject.keeps_file) AND NOT (changes AND existing.validated) THEN
            PERFORM cmk.raise('tenant_unset', pg_catalog.concat('column=', label));
        END IF;
        rewrite := rewrite IS TRUE AND changes AND existing.validated;
    ELSIF rewrite IS NULL AND (changes OR subject.keeps_file) THEN
        BEGIN
            rewrite := bytes OPERATOR(pg_catalog.>) 0 AND bytes OPERATOR(pg_catalog.<=) small
                       AND cmk_internal.try_tenants("table", "column", tenant, label, options, changes, few);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RAISE NOTICE 'the table is not rewritten: %', SQLERRM USING DETAIL = detail;
            rewrite := false;
        END;
    ELSIF rewrite OR NOT changes AND NOT subject.keeps_file THEN
        rewrite := true;
        PERFORM cmk_internal.try_tenants("table", "column", tenant, label, options, changes, 9223372036854775806);
    END IF;
    IF changes AND rewrite IS NOT TRUE AND bytes OPERATOR(pg_catalog.>) 0 THEN
        PERFORM cmk_internal.refuse(ARRAY[
            cmk_internal.options_obstacle("table", "column", label, existing.options, options)]);
    END IF;
    IF options IS NOT NULL AND (changes OR existing.conname IS NULL) THEN
        PERFORM cmk_internal.tell_of_few_values("table", "column");
    END IF;

    IF rewrite THEN
        using_expression := cmk_internal.sealing_expression(
            "column", target, CASE WHEN NOT is_kept THEN tenant END, label, options, changes);
    END IF;
    IF changes THEN
        check_name := existing.conname;
    ELSIF existing.conname IS NULL THEN
        check_name := cmk_internal.unused_constraint_name("table", "column");
    END IF;
    IF check_name IS NOT NULL THEN
        check_expression := pg_catalog.format('cmk.sealed(%I, %L, %s, %L)', "column", label,
            CASE WHEN existing.conname IS NULL OR existing.tenant IS NOT NULL THEN tenant_in_check ELSE 'NULL' END, options);
    END IF;
    condition := pg_catalog.format('cmk.seals(%L, %s)', label, tenant_in_trigger);
    SELECT c.* INTO outcome
      FROM cmk_internal.change_column_politely(
        ROW("table", "column", subject.atttypid, CASE WHEN rewrite OR NOT changes THEN target END, using_expression,
            check_name, check_expression, rewrite, label, existing.options, options, condition,
            cmk_internal.tolerated_uses(views, target IS NULL OR changes AND rewrite IS NOT TRUE, existing.options, options)
            )::cmk_internal.column_change,
        lock_timeout, lock_attempts) c;

    IF existing.conname IS NULL OR changes AND rewrite THEN
        PERFORM cmk_internal.write_notes("table", check_name, "column",
                                CASE WHEN changes THEN existing.former
                                     WHEN subject.target IS NOT NULL THEN subject.type END,
                                CASE WHEN outcome.made THEN '[]' ELSE outcome.wanted END);
    END IF;
    PERFORM cmk_internal.audit_column("table", "column", 'protect_column');
    PERFORM cmk_internal.tell_of_protection("table", "column", tenant_column);
    PERFORM cmk_internal.tell_of_indexes("table", tenant_column, outcome.wanted, outcome.made);
    RETURN cmk_internal.protection_sentence("table", "column", label, outcome.wanted, outcome.made,
        bytes OPERATOR(pg_catalog.>) 0 AND subject.target IS NOT NULL);
END
$$;

-- The new value of a column whose table is rewritten. Of a column that was protected before, sealed
-- values get the tokens of these options. No tenant: all values are sealed.
--
-- ALTER TABLE ... USING looks at the wrong column in partitions and children whose columns have
-- other numbers, if the expression says IS NULL, IS TRUE or the like: so this one does not.
CREATE FUNCTION cmk_internal.sealing_expression(
    "column" pg_catalog.name, target pg_catalog.text, tenant pg_catalog.text,
    label pg_catalog.text, options pg_catalog.text, is_protected pg_catalog.bool) RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN sealing_expression.is_protected
                THEN pg_catalog.format('CASE WHEN cmk.is_sealed(%1$I) THEN cmk.reseal(%1$I, %2$L, %3$L) ELSE %4$s END',
                         sealing_expression."column", sealing_expression.label, sealing_expression.options,
                         COALESCE(fresh.value, 'NULL'))
                ELSE fresh.value END
      FROM (SELECT CASE WHEN sealing_expression.tenant IS NOT NULL
                        THEN pg_catalog.format('cmk.seal_value(%1$I::%2$s, %3$s, %4$L, %5$L::pg_catalog.text)',
                                 sealing_expression."column",
                                 CASE WHEN sealing_expression.target OPERATOR(pg_catalog.=) 'pg_catalog.cmk_bytea' THEN 'pg_catalog.bytea'
                                      WHEN sealing_expression.target OPERATOR(pg_catalog.=) 'pg_catalog.cmk_jsonb' THEN 'pg_catalog.jsonb'
                                      ELSE 'pg_catalog.text' END,
                                 sealing_expression.tenant, sealing_expression.label, sealing_expression.options) END) fresh (value)
$$;

-- The same of a tenant's expression, which may say anything.
CREATE FUNCTION cmk_internal.expression_obstacle("table" pg_catalog.regclass, tenant_expression pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'the tenant expression says IS NULL, IS TRUE or the like, which ALTER TABLE gets wrong in partitions and children: use COALESCE, NULLIF or IS DISTINCT FROM, or rewrite => false'
     WHERE (SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 1 FROM cmk_internal.table_tree(expression_obstacle."table"))
       AND cmk_internal.row_expression(expression_obstacle."table", expression_obstacle.tenant_expression)
           OPERATOR(pg_catalog.~) '\mIS (NOT )?(NULL|TRUE|FALSE|UNKNOWN)\M'
$$;

-- How long to sleep after a batch, in times of what the batch took: no more than a thousand.
CREATE FUNCTION cmk_internal.refuse_pause(pause pg_catalog.numeric) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- NaN is greater than any number.
    IF pause OPERATOR(pg_catalog.>) 1000 THEN
        PERFORM cmk.raise('pause');
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
