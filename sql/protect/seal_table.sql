-- Seals the values that were there before protection, and gives those of searchable columns the
-- tokens that they are to have, a few blocks at a time, while the table is in use. Each batch is a
-- transaction of its own, so that it can be stopped at any time, and called again to go on.

-- What of a table, its partitions and its children is to be sealed. tenant, and whether a value is
-- to be sealed, are expressions over a row that is called "new".
CREATE FUNCTION cmk_internal.columns_to_seal(
    "table" pg_catalog.regclass,
    OUT relation pg_catalog.regclass, OUT attnum pg_catalog.int2, OUT "column" pg_catalog.name,
    OUT tenant pg_catalog.text, OUT pending pg_catalog.text, OUT searchable pg_catalog.bool,
    OUT constraint_oid pg_catalog.oid, OUT validated pg_catalog.bool)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, a.attnum, a.attname,
           -- Where the row does not say whose it is, what is sealed stays its tenant's.
           CASE WHEN s.tenant OPERATOR(pg_catalog.<>) 'NULL::text' THEN s.tenant
                WHEN a.atttypid OPERATOR(pg_catalog.=) 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid
                THEN pg_catalog.format('COALESCE(cmk.sealed_for("new".%I), pg_catalog.current_setting(''cmk_encrypt.tenant'', true))', a.attname)
                ELSE 'pg_catalog.current_setting(''cmk_encrypt.tenant'', true)' END,
           cmk_internal.pending_condition(a.atttypid, pg_catalog.format('"new".%I', a.attname), p.label, p.options),
           p.options IS NOT NULL, p.constraint_oid, p.validated
      FROM cmk_internal.table_tree(columns_to_seal."table") t
      JOIN cmk.protections() p ON p.relation OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
      LEFT JOIN cmk_internal.seal_conditions(t.relation) s ON s.label OPERATOR(pg_catalog.=) p.label
     ORDER BY t.depth, t.relation::pg_catalog.oid, a.attnum
$$;

-- Whether the table itself, without its partitions and children, holds such a row. pending: an
-- expression over a row that is called "new". Takes no key.
CREATE FUNCTION cmk_internal.has_pending(relation pg_catalog.regclass, pending pg_catalog.text)
RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_one pg_catalog.bool;
BEGIN
    EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM ONLY %s AS "new" WHERE %s)', relation, pending) INTO found_one;
    RETURN found_one;
END
$$;

-- Whether a column of the table itself is part of a foreign key, on either side.
CREATE FUNCTION cmk_internal.is_in_foreign_key(relation pg_catalog.regclass, attnum pg_catalog.int2) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_constraint c
         WHERE c.contype OPERATOR(pg_catalog.=) 'f'
           AND (c.conrelid OPERATOR(pg_catalog.=) is_in_foreign_key.relation::pg_catalog.oid
                AND is_in_foreign_key.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
                OR c.confrelid OPERATOR(pg_catalog.=) is_in_foreign_key.relation::pg_catalog.oid
                AND is_in_foreign_key.attnum OPERATOR(pg_catalog.=) ANY (c.confkey)))
$$;

CREATE FUNCTION cmk_internal.seal_obstacles("table" pg_catalog.regclass) RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('you do not own %s', t.relation)
      FROM cmk_internal.table_tree(seal_obstacles."table") t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
     WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
    UNION ALL
    SELECT pg_catalog.format('row-level security hides rows of %s from you: have a superuser call this, or a role with BYPASSRLS', t.relation)
      FROM cmk_internal.table_tree(seal_obstacles."table") t
     WHERE pg_catalog.row_security_active(t.relation::pg_catalog.oid)
    UNION ALL
    SELECT pg_catalog.format('no column of %s is protected', seal_obstacles."table")
     WHERE NOT EXISTS (SELECT FROM cmk_internal.columns_to_seal(seal_obstacles."table"))
    UNION ALL
    SELECT DISTINCT pg_catalog.format('the trigger of %s does not seal column %I: call cmk.protect_column() again', s.relation, s."column")
      FROM cmk_internal.columns_to_seal(seal_obstacles."table") s
     WHERE NOT cmk_internal.is_protected(s.relation, s."column")
    UNION ALL
    -- Sealed values match no unsealed ones, so the two sides would not match meanwhile; and of
    -- values that are sealed for different tenants, never again.
    SELECT DISTINCT pg_catalog.format('column %I of %s is part of a foreign key: drop that, and add it again when all is sealed', s."column", s.relation)
      FROM cmk_internal.columns_to_seal(seal_obstacles."table") s
     WHERE cmk_internal.is_in_foreign_key(s.relation, s.attnum)
       AND cmk_internal.has_pending(s.relation, s.pending)
$$;

-- Notes which files the plaintext is in while it is sealed, unless that is known. They are others
-- after a VACUUM FULL.
CREATE FUNCTION cmk_internal.note_files(relation pg_catalog.regclass, attnum pg_catalog.int2, constraint_oid pg_catalog.oid)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    current_files CONSTANT pg_catalog.text[] := ARRAY(
        SELECT f.file FROM cmk_internal.files_of_column(note_files.relation, note_files.attnum) f);
    statement pg_catalog.text;
BEGIN
    SELECT cmk_internal.protection_comment(note_files.relation, c.conname, n.former, current_files, n.uniques) INTO statement
      FROM pg_catalog.pg_constraint c
     CROSS JOIN LATERAL cmk_internal.protection_note(c.oid) n
     WHERE c.oid OPERATOR(pg_catalog.=) note_files.constraint_oid
       AND n.files OPERATOR(pg_catalog.<>) current_files;
    IF FOUND THEN
        EXECUTE statement;
    END IF;
END
$$;

-- Seals the values of some blocks, tenant by tenant, and goes past those whose values cannot be
-- sealed. unavailable: tenants that need not be tried again; failures: what went wrong, by tenant.
CREATE FUNCTION cmk_internal.seal_by_tenant(
    relation pg_catalog.regclass, attnum pg_catalog.int2, pending pg_catalog.text, tenant pg_catalog.text,
    first_block pg_catalog.int8, last_block pg_catalog.int8, skip pg_catalog.text[],
    OUT sealed pg_catalog.int8, OUT unavailable pg_catalog.text[], OUT failures pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants pg_catalog.text[];
    one pg_catalog.text;
    detail pg_catalog.text;
BEGIN
    sealed := 0;
    unavailable := '{}';
    failures := '{}';
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.array_agg(DISTINCT t.tenant) FROM (SELECT (%s)::pg_catalog.text AS tenant FROM ONLY %s AS "new" WHERE "new".ctid OPERATOR(pg_catalog.>=) %L AND "new".ctid OPERATOR(pg_catalog.<) %L AND %s) t',
        tenant, relation, pg_catalog.format('(%s,0)', first_block), pg_catalog.format('(%s,0)', last_block), pending)
        INTO tenants;
    FOREACH one IN ARRAY COALESCE(tenants, '{}') LOOP
        CONTINUE WHEN pg_catalog.array_position(skip, one) IS NOT NULL;
        BEGIN
            sealed := sealed OPERATOR(pg_catalog.+) cmk.seal_batch(relation, attnum, first_block, last_block,
                skip OPERATOR(pg_catalog.||) pg_catalog.array_remove(tenants, one));
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                RAISE;
            END IF;
            failures := failures OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
                COALESCE(one, ''), pg_catalog.concat_ws(', ', SQLERRM, pg_catalog."substring"(detail, 'reason=\w+')));
            -- A value that breaks a rule of the table is its own affair.
            IF NOT pg_catalog."left"(SQLSTATE, 2) OPERATOR(pg_catalog.=) ANY ('{22, 23}') OR one IS NULL THEN
                unavailable := pg_catalog.array_append(unavailable, one);
            END IF;
        END;
    END LOOP;
END
$$;

-- Whether an error is about a tenant, its key or one of its values, so that others can go on.
CREATE FUNCTION cmk_internal.concerns_tenant(sqlstate_text pg_catalog.text, detail pg_catalog.text)
RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog."left"(concerns_tenant.sqlstate_text, 2) OPERATOR(pg_catalog.=) ANY ('{22, 23}')
        OR concerns_tenant.detail OPERATOR(pg_catalog.~) '^reason='
       AND concerns_tenant.sqlstate_text OPERATOR(pg_catalog.<>) '53200'
$$;

-- A procedure that commits can have no SET clause: so all names are qualified, and helpers do what
-- depends on search_path.
--
-- pause: how long to sleep after a batch, in times of what the batch took.
CREATE PROCEDURE cmk.seal_table(
    "table" pg_catalog.regclass, pause pg_catalog.numeric DEFAULT 2.0, batch_blocks pg_catalog.int4 DEFAULT 64)
LANGUAGE plpgsql
AS $$
DECLARE
    obstacles pg_catalog.text[];
    item pg_catalog.record;
    batch pg_catalog.record;
    first_block pg_catalog.int8;
    blocks pg_catalog.int8;
    sealed pg_catalog.int8;
    total pg_catalog.int8 := 0;
    skip pg_catalog.text[] := '{}';
    failures pg_catalog.jsonb := '{}';
    started pg_catalog.timestamptz;
    told pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    busy pg_catalog.int4 := 0;
    plaintext pg_catalog.bool;
    passes pg_catalog.int4;
    detail pg_catalog.text;
    error pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_pause(pause);
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.seal_obstacles("table") o (line));
    PERFORM cmk_internal.refuse(obstacles);
    PERFORM cmk_internal.tell_of_triggers("table");
    COMMIT;
    FOR item IN SELECT s.* FROM cmk_internal.columns_to_seal("table") s LOOP
        -- The tokens of a searchable column may be old, as after a rotation of an index key.
        CONTINUE WHEN item.validated AND NOT item.searchable;
        plaintext := NOT item.validated AND cmk_internal.has_pending(item.relation,
            pg_catalog.format('NOT cmk.is_sealed("new".%I)', item."column"));
        IF plaintext THEN
            PERFORM cmk_internal.note_files(item.relation, item.attnum, item.constraint_oid);
        END IF;
        COMMIT;
        -- What comes later, the trigger seals. Tokens that a row has, it keeps when somebody
        -- updates the row, which may then be in a block that we went past.
        passes := 0;
        first_block := 0;
        blocks := 0;
        LOOP
            IF first_block OPERATOR(pg_catalog.>=) blocks THEN
                EXIT WHEN passes OPERATOR(pg_catalog.>=) 10
                       OR passes OPERATOR(pg_catalog.>) 0
                          AND (plaintext AND NOT item.searchable
                               OR failures OPERATOR(pg_catalog.<>) '{}'::pg_catalog.jsonb
                               OR NOT cmk_internal.has_pending(item.relation, item.pending));
                passes := passes OPERATOR(pg_catalog.+) 1;
                first_block := 0;
                blocks := pg_catalog.pg_relation_size(item.relation)
                          OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8;
                CONTINUE WHEN blocks OPERATOR(pg_catalog.=) 0;
            END IF;
            started := pg_catalog.clock_timestamp();
            error := NULL;
            BEGIN
                sealed := cmk.seal_batch(item.relation, item.attnum, first_block,
                    first_block OPERATOR(pg_catalog.+) GREATEST(COALESCE(batch_blocks, 64), 1), skip);
            EXCEPTION
                WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
                    busy := busy OPERATOR(pg_catalog.+) 1;
                    IF busy OPERATOR(pg_catalog.>) 10 THEN
                        RAISE;
                    END IF;
                    error := SQLERRM;
                WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
                    IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                        RAISE;
                    END IF;
                    SELECT b.* INTO batch
                      FROM cmk_internal.seal_by_tenant(item.relation, item.attnum, item.pending, item.tenant, first_block,
                               first_block OPERATOR(pg_catalog.+) GREATEST(COALESCE(batch_blocks, 64), 1), skip) b;
                    sealed := batch.sealed;
                    skip := skip OPERATOR(pg_catalog.||) batch.unavailable;
                    failures := batch.failures OPERATOR(pg_catalog.||) failures;
            END;
            IF error IS NULL THEN
                busy := 0;
                IF plaintext AND sealed OPERATOR(pg_catalog.>) 0 THEN
                    PERFORM cmk_internal.note_files(item.relation, item.attnum, item.constraint_oid);
                END IF;
                total := total OPERATOR(pg_catalog.+) sealed;
                first_block := first_block OPERATOR(pg_catalog.+) GREATEST(COALESCE(batch_blocks, 64), 1);
            END IF;
            COMMIT;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told OPERATOR(pg_catalog.>) '5 seconds'::pg_catalog.interval THEN
                told := pg_catalog.clock_timestamp();
                RAISE NOTICE '% of %: % of % blocks, % rows sealed', pg_catalog.quote_ident(item."column"),
                    item.relation, LEAST(first_block, blocks), blocks, total;
            END IF;
            PERFORM pg_catalog.pg_sleep(GREATEST(COALESCE(pause, 2.0), 0)::pg_catalog.float8
                OPERATOR(pg_catalog.*) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started));
        END LOOP;
    END LOOP;
    PERFORM cmk_internal.tell_failures("table", failures);
    COMMIT;
    IF failures OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb THEN
        FOR item IN SELECT s.* FROM cmk_internal.columns_to_seal("table") s WHERE NOT s.validated LOOP
            PERFORM cmk_internal.validate_sealed(item.constraint_oid);
            COMMIT;
        END LOOP;
    END IF;
    IF total OPERATOR(pg_catalog.>) 0 THEN
        EXECUTE pg_catalog.format('ANALYZE %s', "table");
    END IF;
    PERFORM cmk_internal.tell_remnants("table", total);
    COMMIT;
    IF failures OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb THEN
        PERFORM cmk_internal.tell_missing_indexes("table");
    END IF;
    PERFORM cmk_internal.wait_for_writers("table");
    COMMIT;
    PERFORM cmk_internal.go_on_rotating("table", failures);
END
$$;

-- Lets PostgreSQL check every row, without a key and without keeping writers out.
CREATE FUNCTION cmk_internal.validate_sealed(constraint_oid pg_catalog.oid) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    detail pg_catalog.text;
    item pg_catalog.record;
BEGIN
    SELECT c.conname, c.conrelid::pg_catalog.regclass AS relation, a.attname INTO item
      FROM pg_catalog.pg_constraint c
      JOIN cmk.protections() p ON p.constraint_oid OPERATOR(pg_catalog.=) c.oid
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
     WHERE c.oid OPERATOR(pg_catalog.=) validate_sealed.constraint_oid AND NOT c.convalidated;
    IF FOUND THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', item.relation, item.conname);
        PERFORM cmk_internal.audit_column(item.relation, item.attname, 'seal_table');
    END IF;
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE WARNING '% of % is not valid: %', pg_catalog.quote_ident(item.conname), item.relation, SQLERRM USING DETAIL = detail;
END
$$;
