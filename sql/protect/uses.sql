-- What uses a column, found in the catalogs without a lock. PostgreSQL would name one use at a
-- time, and some only under its lock.

-- Tables that have a column of a table's row type, or of a type that is made of it.
CREATE FUNCTION cmk_internal.row_type_holders(relation pg_catalog.regclass) RETURNS SETOF pg_catalog.oid
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE made_of (type, holder) AS (
        SELECT c.reltype, NULL::pg_catalog.oid
          FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) row_type_holders.relation
        UNION
        SELECT CASE WHEN d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass THEN d.objid
                    WHEN c.relkind OPERATOR(pg_catalog.=) 'c' THEN c.reltype END,
               CASE WHEN c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,f}'::pg_catalog."char"[]) THEN c.oid END
          FROM made_of
          JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) made_of.type
          LEFT JOIN pg_catalog.pg_class c
                 ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                AND c.oid OPERATOR(pg_catalog.=) d.objid)
    SELECT DISTINCT made_of.holder FROM made_of WHERE made_of.holder IS NOT NULL
$$;

-- What uses a column of a table, or of its partitions and children, and how it is called.
CREATE FUNCTION cmk_internal.column_uses(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT kind pg_catalog.text, OUT object pg_catalog.oid, OUT line pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS MATERIALIZED (
        SELECT t.relation, t.relation::pg_catalog.oid AS oid, t.depth, a.attnum, a.atttypid
          FROM cmk_internal.table_tree(column_uses."table") t
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) column_uses."column"),
    used AS MATERIALIZED (
        SELECT d.classid::pg_catalog.regclass AS class, d.objid, d.objsubid, place.*
          FROM place
          JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) place.oid
           AND d.refobjsubid OPERATOR(pg_catalog.=) place.attnum)
    -- Views, materialized views, and rules on tables: all are rewrite rules.
    SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v' THEN 'view'
                WHEN c.relkind OPERATOR(pg_catalog.=) 'm' THEN 'matview' ELSE 'rule' END,
           c.oid,
           CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v'
                THEN pg_catalog.format('view %s uses it', c.oid::pg_catalog.regclass)
                WHEN c.relkind OPERATOR(pg_catalog.=) 'm'
                THEN pg_catalog.format('materialized view %s uses it', c.oid::pg_catalog.regclass)
                ELSE pg_catalog.format('rule %I on %s uses it', r.rulename, c.oid::pg_catalog.regclass) END
      FROM used
      JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) used.objid
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
     WHERE used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    UNION
    SELECT 'policy', p.oid,
           pg_catalog.format('policy %I on %s uses it', p.polname, p.polrelid::pg_catalog.regclass)
      FROM used
      JOIN pg_catalog.pg_policy p ON p.oid OPERATOR(pg_catalog.=) used.objid
     WHERE used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
    UNION
    -- Of triggers cloned to partitions, the first one's name is enough.
    SELECT CASE WHEN g.tgname OPERATOR(pg_catalog.=) '~cmk_seal' THEN 'tenant' ELSE 'trigger' END, g.oid,
           CASE WHEN g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
                THEN pg_catalog.format('it tells the tenant of other protected columns of %s', used.relation)
                ELSE pg_catalog.format('trigger %I on %s names it in UPDATE OF or WHEN',
                                       g.tgname, g.tgrelid::pg_catalog.regclass) END
      FROM used
      JOIN pg_catalog.pg_trigger g ON g.oid OPERATOR(pg_catalog.=) used.objid
     WHERE used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
       AND g.tgparentid OPERATOR(pg_catalog.=) 0
    UNION
    -- Where a generated column depends on another, the column depends, or its expression.
    SELECT 'generated', a.attrelid,
           pg_catalog.format('generated column %I of %s uses it', a.attname, used.relation)
      FROM used
      LEFT JOIN pg_catalog.pg_attrdef d
             ON d.oid OPERATOR(pg_catalog.=) used.objid
            AND used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) used.oid
       AND a.attnum OPERATOR(pg_catalog.=) COALESCE(d.adnum, used.objsubid::pg_catalog.int2)
     WHERE a.attnum OPERATOR(pg_catalog.>) 0
       AND a.attnum OPERATOR(pg_catalog.<>) used.attnum
       AND (d.oid IS NOT NULL
            OR used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
               AND used.objid OPERATOR(pg_catalog.=) used.oid)
    UNION
    SELECT 'partition key', p.partrelid,
           pg_catalog.format('%s is partitioned by it', p.partrelid::pg_catalog.regclass)
      FROM place
      JOIN pg_catalog.pg_partitioned_table p ON p.partrelid OPERATOR(pg_catalog.=) place.oid
     WHERE place.attnum OPERATOR(pg_catalog.=) ANY (p.partattrs)
        -- Columns of expressions hang on the table, and not the other way round.
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.objid OPERATOR(pg_catalog.=) place.oid
                      AND d.objsubid OPERATOR(pg_catalog.=) place.attnum
                      AND d.refclassid OPERATOR(pg_catalog.=) d.classid
                      AND d.refobjid OPERATOR(pg_catalog.=) place.oid
                      AND d.refobjsubid OPERATOR(pg_catalog.=) 0)
    UNION
    SELECT 'foreign key', c.oid,
           pg_catalog.format('foreign key %I of %s %s it', c.conname, c.conrelid::pg_catalog.regclass,
               CASE WHEN c.conrelid OPERATOR(pg_catalog.=) place.oid
                     AND place.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
                    THEN 'contains' ELSE 'refers to' END)
      FROM place
      JOIN pg_catalog.pg_constraint c
        ON c.contype OPERATOR(pg_catalog.=) 'f'
       AND c.conparentid OPERATOR(pg_catalog.=) 0
       AND (c.conrelid OPERATOR(pg_catalog.=) place.oid
            AND place.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
            OR c.confrelid OPERATOR(pg_catalog.=) place.oid
            AND place.attnum OPERATOR(pg_catalog.=) ANY (c.confkey))
    UNION
    -- Of partitions' indexes, their parent's is enough.
    SELECT x.kind, x.index::pg_catalog.oid, x.line
      FROM cmk_internal.column_indexes(column_uses."table", column_uses."column") x
     WHERE NOT x.is_attached
    UNION
    SELECT 'row type', holder.oid,
           pg_catalog.format('%s has a column of the row type of %s', holder.oid::pg_catalog.regclass, place.relation)
      FROM place CROSS JOIN LATERAL cmk_internal.row_type_holders(place.relation) holder (oid)
    UNION
    -- Whatever else there is: publications, extended statistics, functions written in SQL.
    SELECT 'other', used.objid,
           pg_catalog.format('%s uses it', pg_catalog.pg_describe_object(used.class, used.objid, used.objsubid))
      FROM used
     WHERE NOT used.class OPERATOR(pg_catalog.=) ANY (
           '{pg_catalog.pg_class, pg_catalog.pg_attrdef, pg_catalog.pg_constraint, pg_catalog.pg_rewrite,
             pg_catalog.pg_policy, pg_catalog.pg_trigger}'::pg_catalog.regclass[])
$$;
