-- A column that becomes searchable: what becomes of its indexes of plaintext, in the transaction
-- that changes it.

-- The indexes that the column is to have and hasn't: those that take the place of plain ones, and
-- one in each table that has none. Partitions get theirs from their parent.
CREATE FUNCTION cmk_internal.wanted_indexes(
    "table" pg_catalog.regclass, "column" pg_catalog.name, concurrently pg_catalog.bool,
    OUT relation pg_catalog.regclass, OUT name pg_catalog.name, OUT constraint_name pg_catalog.name,
    OUT is_unique pg_catalog.bool, OUT keys pg_catalog.int2[], OUT columns pg_catalog.text,
    OUT statement pg_catalog.text, OUT comment pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT x.relation, c.relname, o.conname, x.is_unique,
           (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts],
           cmk_internal.index_columns(x.index),
           cmk_internal.token_index(x.index, wanted_indexes."column", c.relname, wanted_indexes.concurrently, false),
           COALESCE(pg_catalog.obj_description(o.oid, 'pg_constraint'), pg_catalog.obj_description(c.oid, 'pg_class'))
      FROM cmk_internal.column_indexes(wanted_indexes."table", wanted_indexes."column") x
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
      JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
      LEFT JOIN pg_catalog.pg_constraint o
             ON o.conindid OPERATOR(pg_catalog.=) c.oid
            AND o.conrelid OPERATOR(pg_catalog.=) i.indrelid
            AND o.contype OPERATOR(pg_catalog.=) 'u'
     WHERE x.kind OPERATOR(pg_catalog.=) 'plain index' AND NOT x.is_attached
    UNION ALL
    SELECT t.relation, NULL, NULL, false, '{}', NULL,
           pg_catalog.format('CREATE INDEX %sON %s (%I pg_catalog.cmk_token_ops)',
               CASE WHEN wanted_indexes.concurrently AND c.relkind OPERATOR(pg_catalog.<>) 'p' THEN 'CONCURRENTLY ' END,
               t.relation, wanted_indexes."column"),
           NULL
      FROM cmk_internal.table_tree(wanted_indexes."table") t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
     WHERE NOT c.relispartition
       AND NOT EXISTS (SELECT FROM cmk_internal.column_indexes(wanted_indexes."table", wanted_indexes."column") x
                        WHERE x.relation OPERATOR(pg_catalog.=) t.relation
                          AND (x.kind OPERATOR(pg_catalog.=) 'plain index'
                               OR x.kind OPERATOR(pg_catalog.=) 'token index' AND x.is_valid))
$$;

-- Drops the plain ones. Whoever comes to the table waits for its lock anyway.
CREATE FUNCTION cmk_internal.drop_plain_indexes("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT x.relation, x.index, o.conname
          FROM cmk_internal.column_indexes("table", "column") x
          LEFT JOIN pg_catalog.pg_constraint o
                 ON o.conindid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
                AND o.conrelid OPERATOR(pg_catalog.=) x.relation::pg_catalog.oid
                AND o.contype OPERATOR(pg_catalog.=) 'u'
         WHERE x.kind OPERATOR(pg_catalog.=) 'plain index' AND NOT x.is_attached
    LOOP
        IF item.conname IS NOT NULL THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', item.relation, item.conname);
        ELSE
            EXECUTE pg_catalog.format('DROP INDEX %s', item.index);
        END IF;
    END LOOP;
END
$$;

-- Makes indexes that cmk_internal.wanted_indexes() told of. Where there was none before, there may
-- be values that are too long for one.
CREATE FUNCTION cmk_internal.make_indexes(wanted pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET default_tablespace = ''
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT w.*, n.nspname
          FROM pg_catalog.jsonb_to_recordset(wanted) w (
                   relation pg_catalog.regclass, name pg_catalog.name, statement pg_catalog.text, comment pg_catalog.text)
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.relation
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LOOP
        IF item.name IS NOT NULL THEN
            EXECUTE item.statement;
        ELSE
            BEGIN
                EXECUTE item.statement;
            EXCEPTION WHEN program_limit_exceeded THEN
                RAISE WARNING 'searching % reads all of it: %', item.relation, SQLERRM
                    USING HINT = 'An index holds whole envelopes, and entries of up to some 2600 bytes. For longer values make an index of cmk_search_token() of your own.';
            END;
        END IF;
        IF item.comment IS NOT NULL THEN
            EXECUTE pg_catalog.format('COMMENT ON INDEX %I.%I IS %L', item.nspname, item.name, item.comment);
        END IF;
    END LOOP;
END
$$;

-- Says what became of the indexes, and which statements are left to do. Not before all values are
-- sealed: an index would hold plaintext till then, and a unique one not refuse a value that is
-- there unsealed.
CREATE FUNCTION cmk_internal.tell_of_indexes(
    "table" pg_catalog.regclass, tenant_column pg_catalog.name, wanted pg_catalog.jsonb,
    made pg_catalog.bool) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
    sealing CONSTANT pg_catalog.text := pg_catalog.format('CALL cmk.seal_table(%L); ', "table");
BEGIN
    FOR item IN
        SELECT w.*,
               pg_catalog.concat(w.statement, ';',
                   CASE WHEN w.comment IS NOT NULL
                        THEN pg_catalog.format(' COMMENT ON INDEX %I.%I IS %L;', n.nspname, w.name, w.comment) END) AS script,
               EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid OPERATOR(pg_catalog.=) w.relation
                          AND a.attname OPERATOR(pg_catalog.=) tenant_column
                          AND a.attnum OPERATOR(pg_catalog.=) ANY (w.keys)) AS has_tenant
          FROM pg_catalog.jsonb_to_recordset(wanted) w (
                   relation pg_catalog.regclass, name pg_catalog.name, constraint_name pg_catalog.name,
                   is_unique pg_catalog.bool, keys pg_catalog.int2[], statement pg_catalog.text, comment pg_catalog.text)
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.relation
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LOOP
        IF item.is_unique AND NOT made THEN
            RAISE WARNING 'until unique index % is made again, duplicates are not refused', pg_catalog.quote_ident(item.name)
                USING HINT = pg_catalog.concat(sealing, item.script);
        ELSIF NOT made THEN
            RAISE NOTICE 'without an index of tokens, searching % reads all of it', item.relation
                USING HINT = pg_catalog.concat(sealing, item.script);
        END IF;
        IF item.constraint_name IS NOT NULL THEN
            RAISE NOTICE 'unique constraint % of % is an index from now on',
                pg_catalog.quote_ident(item.constraint_name), item.relation
                USING HINT = 'ON CONFLICT (COLUMNS) finds it, ON CONFLICT ON CONSTRAINT does not.';
        END IF;
        IF item.is_unique AND NOT item.has_tenant THEN
            RAISE WARNING 'unique index % refuses duplicates of one tenant, and no others, from now on',
                pg_catalog.quote_ident(item.name)
                USING HINT = 'Equal values of two tenants have different tokens.';
        END IF;
    END LOOP;
END
$$;
