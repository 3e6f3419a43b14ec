-- Indexes of protected columns: which there are, and how one of plaintext becomes one of tokens.

-- The indexes of a table, its partitions and children that use a column other than to INCLUDE it:
-- that needs no operator class. What they are:
--
-- token index   the column is a key of it, by its token
-- next index    the same, by the token under the tenant's next index key, while that rotates
-- plain index   it can be made again as a token index
-- index         it cannot; line says why
CREATE FUNCTION cmk_internal.column_indexes(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT relation pg_catalog.regclass, OUT index pg_catalog.regclass, OUT kind pg_catalog.text,
    OUT is_unique pg_catalog.bool, OUT is_valid pg_catalog.bool, OUT is_attached pg_catalog.bool,
    OUT line pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, c.oid::pg_catalog.regclass,
           CASE WHEN position.is_named THEN 'index'
                WHEN position.class OPERATOR(pg_catalog.=) 'cmk_token_next_ops' THEN 'next index'
                WHEN position.class IS NOT NULL THEN 'token index'
                WHEN refused.why IS NULL THEN 'plain index' ELSE 'index' END,
           i.indisunique, i.indisvalid, c.relispartition,
           pg_catalog.format('%s %s %s',
               CASE WHEN i.indisprimary THEN 'primary key'
                    WHEN i.indisexclusion THEN 'exclusion constraint'
                    WHEN i.indisunique AND NOT position.is_named THEN 'unique index' ELSE 'index' END,
               c.oid::pg_catalog.regclass,
               CASE WHEN position.is_named THEN 'uses it in an expression or in WHERE'
                    WHEN position.class IS NOT NULL THEN 'holds its tokens: drop it'
                    ELSE pg_catalog.concat('contains it: ', COALESCE(refused.why, 'drop it, or make the column searchable')) END)
      FROM cmk_internal.table_tree(column_indexes."table") t
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) t.relation
       AND a.attname OPERATOR(pg_catalog.=) column_indexes."column"
      JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) t.relation
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
      JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam
      LEFT JOIN pg_catalog.pg_constraint o
             ON o.conindid OPERATOR(pg_catalog.=) i.indexrelid
            AND o.conrelid OPERATOR(pg_catalog.=) i.indrelid
            AND o.contype OPERATOR(pg_catalog.=) 'u'
     CROSS JOIN LATERAL (
           SELECT pg_catalog.bool_or(true), pg_catalog.max(p.opcname::pg_catalog.text),
                  pg_catalog.strpos(
                      pg_catalog.concat(i.indexprs::pg_catalog.text, ' ', i.indpred::pg_catalog.text),
                      pg_catalog.format(':varattno %s ', a.attnum)) OPERATOR(pg_catalog.>) 0
             FROM ROWS FROM (pg_catalog.unnest(i.indkey), pg_catalog.unnest(i.indclass))
                  WITH ORDINALITY k (attnum, class, number)
             LEFT JOIN pg_catalog.pg_opclass p
                    ON p.oid OPERATOR(pg_catalog.=) k.class
                   AND p.opcnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
                   AND p.opcname OPERATOR(pg_catalog.=) ANY (
                       '{cmk_token_ops, cmk_token_next_ops}'::pg_catalog.name[])
            WHERE k.attnum OPERATOR(pg_catalog.=) a.attnum
              AND k.number OPERATOR(pg_catalog.<=) i.indnkeyatts
           ) position (is_key, class, is_named)
     CROSS JOIN LATERAL (
           SELECT CASE WHEN i.indisprimary THEN 'no primary key can'
                       WHEN i.indisexclusion THEN 'no exclusion constraint can'
                       WHEN NOT a.atttypid OPERATOR(pg_catalog.=) ANY (
                            '{text, varchar, bpchar, cmk_text}'::pg_catalog.regtype[]::pg_catalog.oid[])
                       THEN 'no index of this type can'
                       WHEN NOT m.amname OPERATOR(pg_catalog.=) ANY ('{btree, hash}'::pg_catalog.name[])
                       THEN 'only btree and hash indexes can'
                       WHEN NOT i.indisvalid THEN 'it is not valid, drop it'
                       WHEN o.condeferrable THEN 'it is deferrable, which no index of tokens is'
                       WHEN i.indisreplident THEN 'it is the replica identity, choose another'
                       END
           ) refused (why)
     WHERE position.is_key OR position.is_named
$$;

-- What stands behind a key column in CREATE INDEX: collation, operator class with its options, and
-- order, as far as they are not what comes by itself.
CREATE FUNCTION cmk_internal.index_key(index pg_catalog.oid, number pg_catalog.int4, is_next pg_catalog.bool)
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.concat(
               CASE WHEN x.attcollation OPERATOR(pg_catalog.<>) COALESCE(t.attcollation, 0)
                    THEN (SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname)
                            FROM pg_catalog.pg_collation l
                            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) l.collnamespace
                           WHERE l.oid OPERATOR(pg_catalog.=) x.attcollation) END,
               CASE WHEN index_key.is_next AND n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'
                     AND o.opcname OPERATOR(pg_catalog.=) 'cmk_token_ops'
                    THEN ' pg_catalog.cmk_token_next_ops'
                    WHEN x.attoptions IS NOT NULL OR NOT o.opcdefault
                      OR o.opcintype OPERATOR(pg_catalog.<>) x.atttypid
                    THEN pg_catalog.format(' %I.%I', n.nspname, o.opcname) END,
               (SELECT ' (' OPERATOR(pg_catalog.||)
                       pg_catalog.string_agg(pg_catalog.format('%I=%L', p.option_name, p.option_value), ', ')
                       OPERATOR(pg_catalog.||) ')'
                  FROM pg_catalog.pg_options_to_table(x.attoptions) p),
               -- Bits: 1 descending, 2 nulls first, which is what descending brings.
               CASE key.option OPERATOR(pg_catalog.&) 3::pg_catalog.int2
                    WHEN 1 THEN ' DESC NULLS LAST' WHEN 2 THEN ' NULLS FIRST' WHEN 3 THEN ' DESC' END)
      FROM pg_catalog.pg_index i
     CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey), pg_catalog.unnest(i.indclass), pg_catalog.unnest(i.indoption))
           WITH ORDINALITY key (attnum, class, option, number)
      JOIN pg_catalog.pg_attribute x
        ON x.attrelid OPERATOR(pg_catalog.=) i.indexrelid AND x.attnum OPERATOR(pg_catalog.=) key.number
      LEFT JOIN pg_catalog.pg_attribute t
             ON t.attrelid OPERATOR(pg_catalog.=) i.indrelid
            AND t.attnum OPERATOR(pg_catalog.=) key.attnum
            AND key.attnum OPERATOR(pg_catalog.<>) 0
      JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) key.class
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.opcnamespace
     WHERE i.indexrelid OPERATOR(pg_catalog.=) index_key.index
       AND key.number OPERATOR(pg_catalog.=) index_key.number
$$;

-- The key columns of an index without expression or WHERE, as SQL; null of others, and of one with
-- another protected column in it.
CREATE FUNCTION cmk_internal.index_columns(index pg_catalog.regclass) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT CASE WHEN i.indpred IS NULL AND i.indexprs IS NULL THEN
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.number)
              FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, number)
              JOIN pg_catalog.pg_attribute a
                ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
             WHERE k.number OPERATOR(pg_catalog.<=) i.indnkeyatts
            HAVING pg_catalog.count(*) FILTER (WHERE cmk_internal.is_protected_type(a.atttypid)) OPERATOR(pg_catalog.<=) 1) END
      FROM pg_catalog.pg_index i
     WHERE i.indexrelid OPERATOR(pg_catalog.=) index_columns.index::pg_catalog.oid
$$;

-- The unique indexes of a table, without its partitions and children, that went when the column
-- became searchable and were not made again, as the note on our constraint tells, and the
-- statements that make them.
CREATE FUNCTION cmk_internal.missing_uniques(
    relation pg_catalog.regclass, "column" pg_catalog.name,
    OUT columns pg_catalog.text, OUT statement pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT u.columns,
           pg_catalog.format('CREATE UNIQUE INDEX %sON %s (%s)',
               CASE WHEN c.relkind OPERATOR(pg_catalog.<>) 'p' THEN 'CONCURRENTLY ' END, missing_uniques.relation,
               (SELECT pg_catalog.string_agg(
                           pg_catalog.concat(k.name, CASE WHEN k.name OPERATOR(pg_catalog.=) pg_catalog.quote_ident(missing_uniques."column")
                                                          THEN ' pg_catalog.cmk_token_ops' END), ', ' ORDER BY k.number)
                  FROM pg_catalog.unnest(pg_catalog.string_to_array(u.columns, ', ')) WITH ORDINALITY k (name, number)))
      FROM pg_catalog.pg_class c
      JOIN cmk.protections() p ON p.relation OPERATOR(pg_catalog.=) c.oid
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid
       AND a.attnum OPERATOR(pg_catalog.=) p.attnum
       AND a.attname OPERATOR(pg_catalog.=) missing_uniques."column"
     CROSS JOIN LATERAL cmk_internal.protection_note(p.constraint_oid) n
     CROSS JOIN LATERAL pg_catalog.unnest(n.uniques) u (columns)
     WHERE c.oid OPERATOR(pg_catalog.=) missing_uniques.relation::pg_catalog.oid AND p.options IS NOT NULL
       -- What is in a comment has to be columns of this table.
       AND NOT EXISTS (SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(u.columns, ', ')) k (name)
                        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute other
                                           WHERE other.attrelid OPERATOR(pg_catalog.=) c.oid
                                             AND other.attnum OPERATOR(pg_catalog.>) 0
                                             AND pg_catalog.quote_ident(other.attname) OPERATOR(pg_catalog.=) k.name))
       AND NOT EXISTS (SELECT FROM cmk_internal.column_indexes(missing_uniques.relation, missing_uniques."column") x
                        WHERE x.relation OPERATOR(pg_catalog.=) missing_uniques.relation
                          AND x.kind OPERATOR(pg_catalog.=) 'token index' AND x.is_unique AND x.is_valid
                          AND cmk_internal.index_columns(x.index) OPERATOR(pg_catalog.=) u.columns)
$$;

-- The statement that makes such an index again, with the column by its tokens. What CREATE INDEX
-- says of other columns and of the index stays, but that a hash index becomes a btree index, as all
-- indexes of tokens are, and that no protected column is included. is_next: by the tokens under the
-- next index key, for all columns that are in it by their tokens.
CREATE FUNCTION cmk_internal.token_index(
    index pg_catalog.regclass, "column" pg_catalog.name, name pg_catalog.name,
    concurrently pg_catalog.bool, is_next pg_catalog.bool) RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT pg_catalog.concat(
               'CREATE ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, 'INDEX ',
               CASE WHEN token_index.concurrently AND c.relkind OPERATOR(pg_catalog.<>) 'I' THEN 'CONCURRENTLY ' END,
               pg_catalog.quote_ident(token_index.name) OPERATOR(pg_catalog.||) ' ',
               'ON ', i.indrelid::pg_catalog.regclass,
               ' (', columns.keys, ')',
               ' INCLUDE (' OPERATOR(pg_catalog.||) columns.included OPERATOR(pg_catalog.||) ')',
               -- The catalog of PostgreSQL 14 does not have it.
               CASE WHEN (pg_catalog.to_jsonb(i.*) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct')::pg_catalog.bool
                    THEN ' NULLS NOT DISTINCT' END,
               ' WITH (' OPERATOR(pg_catalog.||) options.list OPERATOR(pg_catalog.||) ')',
               ' TABLESPACE ' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(s.spcname),
               ' WHERE ' OPERATOR(pg_catalog.||) pg_catalog.pg_get_expr(i.indpred, i.indrelid))
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
      LEFT JOIN pg_catalog.pg_tablespace s ON s.oid OPERATOR(pg_catalog.=) c.reltablespace
     CROSS JOIN LATERAL (
           SELECT pg_catalog.string_agg(pg_catalog.format('%I=%L', o.option_name, o.option_value), ', ')
             FROM pg_catalog.pg_options_to_table(c.reloptions) o) options (list)
     CROSS JOIN LATERAL (
           SELECT pg_catalog.string_agg(
                      pg_catalog.concat(
                          pg_catalog.pg_get_indexdef(i.indexrelid, k.number::pg_catalog.int4, false),
                          CASE WHEN t.attname OPERATOR(pg_catalog.=) token_index."column"
                               THEN ' pg_catalog.cmk_token_ops'
                               ELSE cmk_internal.index_key(i.indexrelid, k.number::pg_catalog.int4, token_index.is_next) END),
                      ', ' ORDER BY k.number) FILTER (WHERE k.number OPERATOR(pg_catalog.<=) i.indnkeyatts),
                  pg_catalog.string_agg(pg_catalog.quote_ident(t.attname), ', ' ORDER BY k.number)
                      FILTER (WHERE k.number OPERATOR(pg_catalog.>) i.indnkeyatts
                                AND t.attname OPERATOR(pg_catalog.=) token_index."column" IS NOT TRUE
                                AND NOT cmk_internal.is_protected_type(t.atttypid))
             FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, number)
             LEFT JOIN pg_catalog.pg_attribute t
                    ON t.attrelid OPERATOR(pg_catalog.=) i.indrelid
                   AND t.attnum OPERATOR(pg_catalog.=) k.attnum
           ) columns (keys, included)
     WHERE i.indexrelid OPERATOR(pg_catalog.=) token_index.index::pg_catalog.oid
$$;
