-- Why the type of a column cannot be changed, and why a column cannot be protected: all reasons at
-- once, a line each.

-- What forbids any change of a column's type, whatever the new type is. tolerated: kinds of uses
-- that the change can cope with; "recreate" if it makes views again.
CREATE FUNCTION cmk_internal.column_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tolerated pg_catalog.text[])
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS MATERIALIZED (
        SELECT t.relation, t.depth, c.relkind, c.relowner, a.attinhcount,
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits i
                  JOIN cmk_internal.table_tree(column_obstacles."table") p
                    ON i.inhparent OPERATOR(pg_catalog.=) p.relation
                 WHERE i.inhrelid OPERATOR(pg_catalog.=) t.relation) AS parents
          FROM cmk_internal.table_tree(column_obstacles."table") t
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) c.oid
           AND a.attname OPERATOR(pg_catalog.=) column_obstacles."column")
    SELECT pg_catalog.format('you do not own %s', place.relation)
      FROM place WHERE NOT pg_catalog.pg_has_role(place.relowner, 'USAGE')
    UNION ALL
    SELECT pg_catalog.format('partition or child %s is a foreign table', place.relation)
      FROM place WHERE place.relkind OPERATOR(pg_catalog.=) 'f'
    UNION ALL
    SELECT CASE place.depth::pg_catalog.bool WHEN false
                THEN pg_catalog.format('%s inherits the column: do it in the parent, %s', place.relation, parent.inhparent::pg_catalog.regclass)
                ELSE pg_catalog.format('%s inherits the column from %s, too', place.relation, parent.inhparent::pg_catalog.regclass) END
      FROM place
      JOIN pg_catalog.pg_inherits parent ON parent.inhrelid OPERATOR(pg_catalog.=) place.relation
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) parent.inhparent
       AND a.attname OPERATOR(pg_catalog.=) column_obstacles."column"
     WHERE place.attinhcount OPERATOR(pg_catalog.>) place.parents
       AND NOT parent.inhparent OPERATOR(pg_catalog.=) ANY (SELECT p.relation FROM place p)
    UNION ALL
    SELECT u.line
      FROM cmk_internal.column_uses(column_obstacles."table", column_obstacles."column") u
     WHERE NOT u.kind OPERATOR(pg_catalog.=) ANY (column_obstacles.tolerated)
    UNION ALL
    SELECT v.line
      FROM cmk_internal.view_obstacles(column_obstacles."table", column_obstacles."column") v (line)
     WHERE 'recreate' OPERATOR(pg_catalog.=) ANY (column_obstacles.tolerated)
$$;

-- The kinds of uses that a change can cope with. Where the type stays, only what compares tokens
-- has to be dropped for them to go or to change.
CREATE FUNCTION cmk_internal.tolerated_uses(
    views pg_catalog.text, type_stays pg_catalog.bool,
    former_options pg_catalog.text, options pg_catalog.text)
RETURNS pg_catalog.text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.array_agg(t.kind)
      FROM (SELECT pg_catalog.unnest('{view, matview, rule, policy, trigger, tenant, generated, partition key, index, row type, other}'::pg_catalog.text[])
             WHERE tolerated_uses.type_stays
            UNION ALL
            SELECT pg_catalog.unnest('{recreate, view, matview}'::pg_catalog.text[])
             WHERE NOT tolerated_uses.type_stays AND tolerated_uses.views OPERATOR(pg_catalog.=) 'recreate'
            UNION ALL
            SELECT pg_catalog.unnest('{plain index, token index, next index}'::pg_catalog.text[])
             WHERE tolerated_uses.options IS NOT NULL
            UNION ALL
            SELECT 'foreign key'
             WHERE tolerated_uses.type_stays
               AND COALESCE(tolerated_uses.former_options, '') OPERATOR(pg_catalog.=) COALESCE(tolerated_uses.options, '')
            -- Not to be null, if there is nothing else.
            UNION ALL SELECT 'nothing') t (kind)
$$;

-- The same, in order, and what is wrong with the argument views.
CREATE FUNCTION cmk_internal.common_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name, views pg_catalog.text, tolerated pg_catalog.text[])
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'views can be refuse or recreate'
     WHERE NOT common_obstacles.views OPERATOR(pg_catalog.=) ANY ('{refuse, recreate}')
    UNION ALL
    (SELECT o.line
       FROM cmk_internal.column_obstacles(common_obstacles."table", common_obstacles."column",
                                          common_obstacles.tolerated) o (line)
      ORDER BY o.line)
$$;

-- The expression with "new." before the row's columns, as a trigger's WHEN wants it. PostgreSQL
-- itself prints the columns with the table's alias, for a view of two tables; nothing that is made
-- for that stays.
CREATE FUNCTION cmk_internal.row_expression("table" pg_catalog.regclass, expression pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    printed pg_catalog.text;
BEGIN
    BEGIN
        -- A CHECK takes no subquery, and no aggregate; nor does a WHEN.
        EXECUTE pg_catalog.format(
            'CREATE TEMPORARY TABLE "~cmk_row" (LIKE %s, CHECK ((%s) IS NULL OR true))', "table", expression);
        EXECUTE pg_catalog.format(
            'CREATE TEMPORARY VIEW "~cmk_view" AS SELECT (%s)::pg_catalog.text AS "~cmk" FROM pg_temp."~cmk_row" AS "~cmk_new" CROSS JOIN (SELECT) AS "~cmk_other"',
            expression);
        printed := pg_catalog."substring"(
            pg_catalog.pg_get_viewdef('pg_temp."~cmk_view"'::pg_catalog.regclass),
            '^\s*SELECT\s+(.*)\s+AS "~cmk"\s+FROM');
        RAISE EXCEPTION USING ERRCODE = 'CMKRB';
    EXCEPTION WHEN SQLSTATE 'CMKRB' THEN
        RETURN pg_catalog.replace(printed, '"~cmk_new".', 'new.');
    END;
END
$$;

-- Which of the ways to tell the tenant is meant, and what is wrong with it.
CREATE FUNCTION cmk_internal.tenant_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name, tenant_expression pg_catalog.text)
RETURNS SETOF pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    IF tenant_column IS NOT NULL AND tenant_expression IS NOT NULL THEN
        RETURN QUERY SELECT 'tenant_column and tenant_expression are both given';
    END IF;
    IF tenant_column IS NOT NULL THEN
        -- The tenant's name must read the same whatever a session has set, as that of a date does
        -- not.
        SELECT a.attnum, a.attgenerated, a.atttypid, t.typname, t.typnamespace,
               t.typcategory OPERATOR(pg_catalog.=) ANY ('{S,E,B}'::pg_catalog."char"[])
               OR t.oid OPERATOR(pg_catalog.=) ANY (
                  '{int2, int4, int8, numeric, uuid, oid}'::pg_catalog.regtype[]::pg_catalog.oid[]) AS names
          INTO item
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_type declared ON declared.oid OPERATOR(pg_catalog.=) a.atttypid
          JOIN pg_catalog.pg_type t
            ON t.oid OPERATOR(pg_catalog.=) COALESCE(NULLIF(declared.typbasetype, 0::pg_catalog.oid), declared.oid)
         WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
           AND a.attname OPERATOR(pg_catalog.=) tenant_column
           AND a.attnum OPERATOR(pg_catalog.>) 0;
        IF NOT FOUND THEN
            RETURN QUERY SELECT pg_catalog.format('there is no tenant column %I', tenant_column);
        ELSIF tenant_column OPERATOR(pg_catalog.=) "column" THEN
            RETURN QUERY SELECT 'the tenant column is the column itself';
        ELSIF cmk_internal.is_protected_type(item.atttypid) THEN
            RETURN QUERY SELECT pg_catalog.format('the tenant column %I is protected', tenant_column);
        ELSIF item.attgenerated OPERATOR(pg_catalog.<>) '' THEN
            RETURN QUERY SELECT pg_catalog.format('the tenant column %I is generated after the value is sealed', tenant_column);
        ELSIF NOT item.names THEN
            RETURN QUERY SELECT pg_catalog.format('the tenant column %I is of type %s, which names no tenant',
                tenant_column, pg_catalog.format_type(item.atttypid, NULL));
        END IF;
    END IF;
    IF tenant_expression IS NOT NULL THEN
        BEGIN
            PERFORM cmk_internal.row_expression("table", tenant_expression);
        EXCEPTION WHEN syntax_error_or_access_rule_violation OR feature_not_supported
                    OR data_exception OR insufficient_privilege THEN
            RETURN QUERY SELECT pg_catalog.format('tenant_expression: %s', SQLERRM);
        END;
    END IF;
END
$$;

-- Whether what the constraint and the trigger of a protected column do is in place for a table, its
-- partitions and its children.
CREATE FUNCTION cmk_internal.is_protected("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (
        SELECT FROM cmk_internal.table_tree(is_protected."table") t
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) is_protected."column"
         WHERE NOT EXISTS (SELECT FROM cmk.protections() p
                             JOIN cmk_internal.seal_conditions(t.relation) s
                               ON s.label OPERATOR(pg_catalog.=) p.label
                            WHERE p.relation OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
                              AND p.attnum OPERATOR(pg_catalog.=) a.attnum)
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                            WHERE g.tgrelid OPERATOR(pg_catalog.=) t.relation
                              AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
                              AND g.tgenabled OPERATOR(pg_catalog.=) 'A'))
$$;

CREATE FUNCTION cmk_internal.protect_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name, tenant_expression pg_catalog.text,
    rewrite pg_catalog.bool, views pg_catalog.text, label pg_catalog.text,
    searchable pg_catalog.bool, normalization pg_catalog.text, token_bits pg_catalog.int4)
RETURNS SETOF pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
    former pg_catalog.text;
    options pg_catalog.text;
    type_stays pg_catalog.bool := false;
BEGIN
    SELECT c.relkind, c.relnamespace, n.nspname INTO item
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE c.oid OPERATOR(pg_catalog.=) "table";
    IF NOT FOUND OR NOT item.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[]) THEN
        RETURN QUERY SELECT pg_catalog.format('%s is not a table', "table");
        RETURN;
    ELSIF item.nspname OPERATOR(pg_catalog.=) ANY ('{pg_catalog, information_schema, pg_toast, cmk}'::pg_catalog.name[]) THEN
        RETURN QUERY SELECT pg_catalog.format('%s belongs to the system, or to cmk_encrypt', "table");
        RETURN;
    END IF;

    SELECT a.attnum, a.atttypid, a.atttypmod, a.attidentity, a.attgenerated, t.typtype,
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           cmk_internal.protecting_type(a.atttypid, a.atttypmod) AS target,
           (SELECT l.collisdeterministic FROM pg_catalog.pg_collation l
             WHERE l.oid OPERATOR(pg_catalog.=) a.attcollation) AS deterministic
      INTO item
      FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
       AND a.attname OPERATOR(pg_catalog.=) "column"
       AND a.attnum OPERATOR(pg_catalog.>) 0;
    IF NOT FOUND THEN
        RETURN QUERY SELECT pg_catalog.format('there is no column %I in %s', "column", "table");
        RETURN;
    ELSIF cmk_internal.is_protected_type(item.atttypid) THEN
        SELECT p.options INTO former
          FROM cmk.protections() p
         WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
           AND p.attnum OPERATOR(pg_catalog.=) item.attnum;
        options := cmk_internal.new_options(former, searchable, normalization, token_bits);
        type_stays := rewrite IS NOT TRUE
                      OR COALESCE(options, '') OPERATOR(pg_catalog.=) COALESCE(former, '');
        -- Else something of it was lost, and is made again, or its search changes.
        IF cmk_internal.is_protected("table", "column")
           AND COALESCE(options, '') OPERATOR(pg_catalog.=) COALESCE(former, '') THEN
            RETURN QUERY SELECT 'it is protected already';
        END IF;
    ELSIF item.attgenerated OPERATOR(pg_catalog.<>) '' THEN
        RETURN QUERY SELECT 'it is a generated column';
    ELSIF item.attidentity OPERATOR(pg_catalog.<>) '' THEN
        RETURN QUERY SELECT 'it is an identity column';
    ELSIF item.typtype OPERATOR(pg_catalog.=) 'd' THEN
        RETURN QUERY SELECT pg_catalog.format('its type %s is a domain: change it to the type beneath, with the checks on the column', item.type);
    ELSIF item.target IS NULL THEN
        RETURN QUERY SELECT pg_catalog.format('its type is %s: of what can be protected, text is nearest', item.type);
    ELSIF NOT cmk_internal.keeps_file(item.atttypid) AND rewrite IS NOT TRUE
          AND (rewrite IS NOT NULL
               -- Nobody's table is locked for long without a word.
               OR (SELECT pg_catalog.sum(pg_catalog.pg_table_size(t.relation)) OPERATOR(pg_catalog.>) 10485760
                     FROM cmk_internal.table_tree("table") t)
               OR item.atttypid OPERATOR(pg_catalog.=) 'pg_catalog.bpchar'::pg_catalog.regtype::pg_catalog.oid) THEN
        RETURN QUERY SELECT pg_catalog.format('its type %s needs rewrite => true, which locks the table while it is rewritten', item.type);
    END IF;
    IF NOT item.deterministic THEN
        RETURN QUERY SELECT 'its collation is not deterministic';
    END IF;
    options := cmk_internal.new_options(former, searchable, normalization, token_bits);
    RETURN QUERY SELECT * FROM cmk_internal.search_obstacles("table", "column", searchable, normalization, token_bits);
    RETURN QUERY SELECT * FROM cmk_internal.tenant_obstacles("table", "column", tenant_column, tenant_expression);
    IF label OPERATOR(pg_catalog.=) '' THEN
        RETURN QUERY SELECT 'the label is empty';
    END IF;
    RETURN QUERY
        SELECT pg_catalog.format('the label %L is that of column %I, too', p.label, a.attname)
          FROM cmk.protections() p
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
         WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
           AND p.label OPERATOR(pg_catalog.=) protect_obstacles.label
           AND a.attname OPERATOR(pg_catalog.<>) "column";
    RETURN QUERY SELECT * FROM cmk_internal.common_obstacles("table", "column", views,
        cmk_internal.tolerated_uses(views, type_stays, former, options));
END
$$;
