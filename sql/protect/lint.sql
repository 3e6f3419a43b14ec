-- What is protected in this database, and what is wrong with it: read from the catalogs, so that
-- nothing can get lost.

-- Rows whose value cmk.seal_table() would change, in a table with its partitions and children: it
-- is not sealed, or has not the tokens that it is to have. Reads all of it, and takes no key.
CREATE FUNCTION cmk.unsealed_rows("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.int8
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    rows pg_catalog.int8;
    pending pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_unprotected("table", "column");
    SELECT cmk_internal.pending_condition(a.atttypid, pg_catalog.quote_ident(a.attname), p.label, p.options) INTO pending
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s WHERE %s', "table", pending) INTO rows;
    RETURN rows;
END
$$;

-- What is wrong with a protected column of one table, its partitions and children, a line each:
-- the problem, then where it is.
CREATE FUNCTION cmk_internal.column_problems("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS MATERIALIZED (
        SELECT t.relation, a.attnum, c.relkind, p.constraint_oid, p.label, p.options, p.validated,
               g.tgenabled, d.adbin, d.adrelid
          FROM cmk_internal.table_tree(column_problems."table") t
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) column_problems."column"
          LEFT JOIN cmk.protections() p
                 ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
          LEFT JOIN pg_catalog.pg_trigger g
                 ON g.tgrelid OPERATOR(pg_catalog.=) a.attrelid
                AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
                AND g.tgfoid OPERATOR(pg_catalog.=) 'cmk.seal()'::pg_catalog.regprocedure
          LEFT JOIN pg_catalog.pg_attrdef d
                 ON d.adrelid OPERATOR(pg_catalog.=) a.attrelid AND d.adnum OPERATOR(pg_catalog.=) a.attnum),
    index AS MATERIALIZED (
        SELECT x.*
          FROM cmk_internal.column_indexes(column_problems."table", column_problems."column") x)
    SELECT pg_catalog.format('constraint_missing: %s', place.relation)
      FROM place WHERE place.constraint_oid IS NULL
    UNION ALL
    SELECT pg_catalog.format('not_validated: %s', place.relation)
      FROM place WHERE NOT place.validated
    UNION ALL
    SELECT pg_catalog.format('no_index: %s', place.relation)
      FROM place
     WHERE place.options IS NOT NULL AND place.relkind OPERATOR(pg_catalog.=) 'r'
       AND NOT EXISTS (SELECT FROM index x
                        WHERE x.relation OPERATOR(pg_catalog.=) place.relation
                          AND x.kind OPERATOR(pg_catalog.=) 'token index' AND x.is_valid)
    UNION ALL
    -- Asked only where the note says so.
    SELECT pg_catalog.format('unique_index_missing: %s (%s)', place.relation, u.columns)
      FROM place
     CROSS JOIN LATERAL cmk_internal.protection_note(place.constraint_oid) n
     CROSS JOIN LATERAL cmk_internal.missing_uniques(
               CASE WHEN n.uniques OPERATOR(pg_catalog.<>) '{}'::pg_catalog.text[] THEN place.relation END,
               column_problems."column") u
    UNION ALL
    SELECT pg_catalog.format('unique_shortened: %s', x.index)
      FROM place
      JOIN index x ON x.relation OPERATOR(pg_catalog.=) place.relation
     WHERE x.is_unique AND NOT x.is_attached
       AND x.kind OPERATOR(pg_catalog.=) ANY ('{token index, next index}')
       AND place.options OPERATOR(pg_catalog.~) ',bits='
    UNION ALL
    SELECT pg_catalog.format('next_index: %s', x.index)
      FROM index x
     WHERE x.kind OPERATOR(pg_catalog.=) 'next index' AND NOT x.is_attached
       AND (SELECT k.rotating OPERATOR(pg_catalog.=) 0 FROM cmk.index_key_counts() k)
    UNION ALL
    SELECT pg_catalog.format('trigger_missing: %s', place.relation)
      FROM place WHERE place.tgenabled IS NULL
    UNION ALL
    SELECT pg_catalog.format('trigger_not_always: %s', place.relation)
      FROM place WHERE place.tgenabled OPERATOR(pg_catalog.<>) 'A'
    UNION ALL
    SELECT pg_catalog.format('trigger_without_column: %s', place.relation)
      FROM place
     WHERE place.tgenabled IS NOT NULL AND place.label IS NOT NULL
       AND NOT EXISTS (SELECT FROM cmk_internal.seal_conditions(place.relation) s
                        WHERE s.label OPERATOR(pg_catalog.=) place.label)
    UNION ALL
    SELECT pg_catalog.format('plaintext_default: %s', place.relation)
      FROM place
     WHERE pg_catalog.pg_get_expr(place.adbin, place.adrelid) OPERATOR(pg_catalog.~) ''''
    UNION ALL
    SELECT pg_catalog.format(CASE WHEN f.is_index THEN 'plaintext_in_index: %s' ELSE 'remnants: %s' END, f.object)
      FROM place
     CROSS JOIN LATERAL cmk_internal.protection_note(place.constraint_oid) n
     CROSS JOIN LATERAL cmk_internal.files_of_column(place.relation, place.attnum) f
     WHERE f.file OPERATOR(pg_catalog.=) ANY (n.files)
    UNION ALL
    SELECT pg_catalog.format('check_validated: %I on %s', o.conname, place.relation)
      FROM place
      JOIN pg_catalog.pg_constraint o
        ON o.conrelid OPERATOR(pg_catalog.=) place.relation::pg_catalog.oid
       AND o.contype OPERATOR(pg_catalog.=) 'c' AND o.conislocal AND o.convalidated
       AND place.attnum OPERATOR(pg_catalog.=) ANY (o.conkey)
       AND o.oid OPERATOR(pg_catalog.<>) place.constraint_oid
    UNION ALL
    SELECT DISTINCT pg_catalog.format('plaintext_generated: %s.%I', place.relation, g.attname)
      FROM place
      JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) place.relation::pg_catalog.oid
       AND d.refobjsubid OPERATOR(pg_catalog.=) place.attnum
       AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      JOIN pg_catalog.pg_attrdef e ON e.oid OPERATOR(pg_catalog.=) d.objid
      JOIN pg_catalog.pg_attribute g
        ON g.attrelid OPERATOR(pg_catalog.=) e.adrelid AND g.attnum OPERATOR(pg_catalog.=) e.adnum
       AND g.attgenerated OPERATOR(pg_catalog.=) 's'
       AND NOT cmk_internal.is_protected_type(g.atttypid)
    UNION ALL
    SELECT DISTINCT pg_catalog.format('extended_statistics: %s', pg_catalog.format('%I.%I', n.nspname, s.stxname))
      FROM place
      JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) place.relation
       AND d.refobjsubid OPERATOR(pg_catalog.=) place.attnum
       AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
      JOIN pg_catalog.pg_statistic_ext s ON s.oid OPERATOR(pg_catalog.=) d.objid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.stxnamespace
    UNION ALL
    SELECT pg_catalog.format('materialized_view: %s', v.view)
      FROM cmk_internal.views_of_column(column_problems."table", column_problems."column") v
     WHERE v.kind OPERATOR(pg_catalog.=) 'm'
$$;

-- Every column of our types, in tables that inherit it from no other. Partitions and children are
-- in the problems of the table that they belong to.
CREATE VIEW cmk.protected_columns AS
    SELECT pg_catalog.pg_get_userbyid(c.relowner) AS owner,
           c.oid::pg_catalog.regclass AS "table",
           a.attname AS "column",
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           p.label,
           CASE WHEN p.constraint_oid IS NOT NULL
                THEN COALESCE(p.tenant,
                              CASE WHEN s.tenant OPERATOR(pg_catalog.<>) 'NULL::text' THEN s.tenant END,
                              'current_setting(''cmk_encrypt.tenant'')')
                END AS tenant,
           p.options,
           CASE WHEN g.tgenabled OPERATOR(pg_catalog.=) 'A' THEN 'always'
                WHEN g.tgenabled OPERATOR(pg_catalog.=) 'O' THEN 'origin'
                WHEN g.tgenabled OPERATOR(pg_catalog.=) 'R' THEN 'replica'
                WHEN g.tgenabled OPERATOR(pg_catalog.=) 'D' THEN 'disabled'
                ELSE 'missing' END AS trigger,
           COALESCE(p.validated, false) AS validated,
           ARRAY(SELECT x.problem FROM cmk_internal.column_problems(c.oid, a.attname) x (problem) ORDER BY x.problem) AS problems
      FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_class c
        ON c.oid OPERATOR(pg_catalog.=) a.attrelid
       AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
      LEFT JOIN LATERAL cmk_internal.seal_conditions(c.oid) s ON s.label OPERATOR(pg_catalog.=) p.label
      LEFT JOIN pg_catalog.pg_trigger g
             ON g.tgrelid OPERATOR(pg_catalog.=) c.oid
            AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
            AND g.tgfoid OPERATOR(pg_catalog.=) 'cmk.seal()'::pg_catalog.regprocedure
     WHERE cmk_internal.is_protected_type(a.atttypid)
       AND a.attnum OPERATOR(pg_catalog.>) 0
       AND a.attinhcount OPERATOR(pg_catalog.=) 0;
