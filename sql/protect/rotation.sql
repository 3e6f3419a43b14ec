-- The rotation of index keys, as far as it is done table by table.

-- Indexes of tokens that look-ups of a table lack, once its values have their tokens.
CREATE FUNCTION cmk_internal.tell_missing_indexes("table" pg_catalog.regclass) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT u.statement, s.relation, u.columns
          FROM cmk_internal.columns_to_seal("table") s
         CROSS JOIN LATERAL cmk_internal.missing_uniques(s.relation, s."column") u
         ORDER BY u.statement
    LOOP
        RAISE WARNING 'until the unique index of % on (%) is made again, duplicates are not refused', item.relation, item.columns
            USING HINT = pg_catalog.concat(item.statement, ';');
    END LOOP;
    FOR item IN
        SELECT DISTINCT w.statement, w.relation, s."column"
          FROM cmk_internal.columns_to_seal("table") s
         CROSS JOIN LATERAL cmk_internal.wanted_indexes("table", s."column", true) w
         WHERE s.searchable
           AND NOT EXISTS (SELECT FROM cmk_internal.missing_uniques(w.relation, s."column"))
         ORDER BY w.statement
    LOOP
        RAISE NOTICE 'without an index of tokens, searching % of % reads all of it',
            pg_catalog.quote_ident(item."column"), item.relation
            USING HINT = pg_catalog.concat(item.statement, ';');
    END LOOP;
END
$$;

-- The unique indexes of tokens of searchable columns, and the twin of each: the same index, by the
-- tokens under the next index key, which keeps duplicates out while writers go over to it.
CREATE FUNCTION cmk_internal.unique_token_indexes(
    "table" pg_catalog.regclass, OUT index pg_catalog.regclass, OUT twin pg_catalog.regclass)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
    WITH known AS MATERIALIZED (
        SELECT DISTINCT x.relation, x.index, x.kind, i.indnkeyatts,
               -- The same of an index and its twin, which has none of the first tokens' class.
               pg_catalog.array_replace(i.indclass::pg_catalog.oid[], next_ops.oid, first_ops.oid) AS classes,
               NOT first_ops.oid OPERATOR(pg_catalog.=) ANY (i.indclass::pg_catalog.oid[]) AS is_whole,
               i.indcollation::pg_catalog.text AS collations,
               COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct', 'false') AS nulls_not_distinct,
               pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
               pg_catalog.pg_get_expr(i.indexprs, i.indrelid) AS expressions,
               (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts] AS keys
          FROM cmk_internal.columns_to_seal(unique_token_indexes."table") s
         CROSS JOIN LATERAL cmk_internal.column_indexes(s.relation, s."column") x
          JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
          JOIN pg_catalog.pg_opclass first_ops
            ON first_ops.opcname OPERATOR(pg_catalog.=) 'cmk_token_ops'
           AND first_ops.opcnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
          JOIN pg_catalog.pg_opclass next_ops
            ON next_ops.opcname OPERATOR(pg_catalog.=) 'cmk_token_next_ops'
           AND next_ops.opcnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
         WHERE x.is_unique AND x.is_valid AND NOT x.is_attached)
    SELECT k.index,
           (SELECT pg_catalog.min(t.index::pg_catalog.oid)::pg_catalog.regclass
              FROM known t
             WHERE t.kind OPERATOR(pg_catalog.=) 'next index'
               AND t.relation OPERATOR(pg_catalog.=) k.relation
               AND t.keys OPERATOR(pg_catalog.=) k.keys
               AND t.classes OPERATOR(pg_catalog.=) k.classes
               AND t.collations OPERATOR(pg_catalog.=) k.collations
               AND t.nulls_not_distinct OPERATOR(pg_catalog.=) k.nulls_not_distinct
               AND t.is_whole
               AND COALESCE(t.predicate, '') OPERATOR(pg_catalog.=) COALESCE(k.predicate, '')
               AND COALESCE(t.expressions, '') OPERATOR(pg_catalog.=) COALESCE(k.expressions, ''))
      FROM known k
     WHERE k.kind OPERATOR(pg_catalog.=) 'token index'
$$;

-- Those of all tables that lack their twin.
CREATE FUNCTION cmk_internal.lone_unique_indexes(OUT index pg_catalog.regclass)
RETURNS SETOF pg_catalog.regclass
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT u.index
      FROM (SELECT DISTINCT p.relation FROM cmk.protections() p WHERE p.options IS NOT NULL) searchable (relation)
     CROSS JOIN LATERAL cmk_internal.unique_token_indexes(searchable.relation::pg_catalog.regclass) u
     WHERE u.twin IS NULL
$$;

-- The statement that makes the twin of an index. A name that is too long, or taken, PostgreSQL
-- chooses.
CREATE FUNCTION cmk_internal.twin_statement(index pg_catalog.regclass) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT cmk_internal.token_index(twin_statement.index, NULL,
               CASE WHEN pg_catalog.octet_length(twin.name) OPERATOR(pg_catalog.<) 64
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_class o
                                      WHERE o.relname OPERATOR(pg_catalog.=) twin.name::pg_catalog.name
                                        AND o.relnamespace OPERATOR(pg_catalog.=) c.relnamespace)
                    THEN twin.name END::pg_catalog.name,
               true, true)
      FROM pg_catalog.pg_class c
     CROSS JOIN LATERAL pg_catalog.concat(c.relname, '_next') AS twin (name)
     WHERE c.oid OPERATOR(pg_catalog.=) twin_statement.index::pg_catalog.oid
$$;

-- Waits until the transactions that are writing to a table at this moment have ended, if it has an
-- index by the tokens under a next index key: they may have begun before that key took over. Nobody
-- is kept out.
CREATE FUNCTION cmk_internal.wait_for_writers("table" pg_catalog.regclass) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relations CONSTANT pg_catalog.oid[] := ARRAY(
        SELECT t.relation::pg_catalog.oid FROM cmk_internal.table_tree("table") t);
    writers pg_catalog.text[];
BEGIN
    PERFORM FROM cmk_internal.columns_to_seal("table") s
           CROSS JOIN LATERAL cmk_internal.column_indexes(s.relation, s."column") x
           WHERE x.kind OPERATOR(pg_catalog.=) 'next index';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    LOOP
        SELECT pg_catalog.array_agg(l.virtualtransaction) INTO writers
          FROM pg_catalog.pg_locks l
         WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
           AND l.database OPERATOR(pg_catalog.=) (
                   SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
           AND l.relation OPERATOR(pg_catalog.=) ANY (relations)
           AND l.mode OPERATOR(pg_catalog.=) ANY ('{RowExclusiveLock, ShareRowExclusiveLock, ExclusiveLock, AccessExclusiveLock}')
           AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() IS NOT TRUE
           AND (writers IS NULL OR l.virtualtransaction OPERATOR(pg_catalog.=) ANY (writers));
        EXIT WHEN writers IS NULL;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
END
$$;

-- Calls of cmk.seal_table() for all tables with searchable columns, up to 50.
CREATE FUNCTION cmk_internal.seal_statements() RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.string_agg(pg_catalog.format('CALL cmk.seal_table(%L);', r.relation), ' ' ORDER BY r.relation)
      FROM (SELECT DISTINCT p.relation::pg_catalog.regclass::pg_catalog.text
              FROM cmk.protections() p
             WHERE p.options IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) p.relation)
             ORDER BY 1 LIMIT 50) r (relation)
$$;

-- What comes next, when the values of a table have the tokens that they are to have: twins of its
-- unique indexes, the end of the rotation if the caller may say so, and the end of the twins.
-- failures: the tenants whose values could not be sealed. They keep nobody else from going on.
CREATE FUNCTION cmk_internal.go_on_rotating("table" pg_catalog.regclass, failures pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rotating CONSTANT pg_catalog.int8 := (SELECT k.rotating FROM cmk.index_key_counts() k);
    again CONSTANT pg_catalog.text := pg_catalog.format('CALL cmk.seal_table(%L);', "table");
    item pg_catalog.record;
    complete pg_catalog.bool := true;
    detail pg_catalog.text;
BEGIN
    PERFORM FROM cmk_internal.columns_to_seal("table") s WHERE s.searchable;
    IF NOT FOUND THEN
        RETURN;
    ELSIF rotating OPERATOR(pg_catalog.=) 0 THEN
        FOR item IN
            SELECT DISTINCT x.index, c.relkind
              FROM cmk_internal.columns_to_seal("table") s
             CROSS JOIN LATERAL cmk_internal.column_indexes(s.relation, s."column") x
              JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
             WHERE x.kind OPERATOR(pg_catalog.=) 'next index' AND NOT x.is_attached
        LOOP
            -- Else equal values, with the tokens of one index key and of both, might be left to an
            -- index that compares the first ones.
            PERFORM FROM cmk_internal.columns_to_seal("table") s
                   WHERE s.searchable AND cmk_internal.has_pending(s.relation, s.pending);
            IF FOUND THEN
                RAISE NOTICE 'not all values have the tokens of the current index keys yet: index % is needed', item.index
                    USING HINT = again;
                RETURN;
            END IF;
            RAISE NOTICE 'no index key rotates any more: index % is not needed', item.index
                USING HINT = pg_catalog.format(
                    CASE item.relkind WHEN 'I' THEN 'DROP INDEX %s;' ELSE 'DROP INDEX CONCURRENTLY %s;' END, item.index);
        END LOOP;
        RETURN;
    END IF;

    FOR item IN SELECT u.index FROM cmk_internal.unique_token_indexes("table") u WHERE u.twin IS NULL LOOP
        complete := false;
        RAISE NOTICE 'while an index key rotates, unique index % needs a twin', item.index
            USING HINT = pg_catalog.concat(cmk_internal.twin_statement(item.index), '; ', again);
    END LOOP;
    IF NOT complete THEN
        RETURN;
    ELSIF NOT cmk_internal.may_rotate('cmk.finish_index_rotation(text)') THEN
        RAISE NOTICE 'the index keys of % tenants rotate', rotating
            USING HINT = pg_catalog.concat(
                'Have a database administrator run SELECT cmk.finish_index_rotation(TENANT), which says what is in the way, then ', again);
        RETURN;
    END IF;
    FOR item IN
        SELECT k.tenant
          FROM cmk.data_key k
         WHERE k.purpose OPERATOR(pg_catalog.=) 'index' AND k.state OPERATOR(pg_catalog.=) 'next'
           AND NOT failures OPERATOR(pg_catalog.?) k.tenant
         ORDER BY k.tenant
    LOOP
        BEGIN
            IF cmk.finish_index_rotation(item.tenant) THEN
                RAISE NOTICE 'the next index key of tenant % is the current one', pg_catalog.to_json(item.tenant)::pg_catalog.text
                    USING HINT = pg_catalog.concat('Tokens under the former one go: ', cmk_internal.seal_statements());
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                RAISE;
            END IF;
            RAISE NOTICE 'the index key of tenant % still rotates: %', pg_catalog.to_json(item.tenant)::pg_catalog.text, SQLERRM
                USING DETAIL = detail, HINT = cmk_internal.seal_statements();
        END;
    END LOOP;
END
$$;
