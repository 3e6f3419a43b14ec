-- Views on a column whose type changes: dropped, and made again as they were. PostgreSQL changes no
-- type beneath a view, and CREATE OR REPLACE VIEW no type of a view's column.

-- The views that use the column, and those that use these, in an order in which they can be made.
CREATE FUNCTION cmk_internal.views_of_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT view pg_catalog.regclass, OUT kind pg_catalog."char", OUT level pg_catalog.int4)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE used (view, level) AS (
        SELECT u.object, 1
          FROM cmk_internal.column_uses(views_of_column."table", views_of_column."column") u
         WHERE u.kind OPERATOR(pg_catalog.=) ANY ('{view, matview}')
        UNION
        SELECT r.ev_class, used.level OPERATOR(pg_catalog.+) 1
          FROM used
          JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) used.view
           AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
          JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
         WHERE r.ev_class OPERATOR(pg_catalog.<>) used.view
           AND c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog."char"[])
           AND used.level OPERATOR(pg_catalog.<) 100)
    SELECT c.oid::pg_catalog.regclass, c.relkind, pg_catalog.max(used.level)
      FROM used
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) used.view
     GROUP BY c.oid, c.relkind
     ORDER BY 3, c.oid
$$;

-- Why these views cannot be dropped and made again without a loss.
CREATE FUNCTION cmk_internal.view_obstacles("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH views AS MATERIALIZED (
        SELECT v.view, v.kind, c.relowner, c.relnamespace, c.relacl, c.reltype, t.typarray
          FROM cmk_internal.views_of_column(view_obstacles."table", view_obstacles."column") v
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) v.view
          JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) c.reltype)
    SELECT pg_catalog.format('materialized view %s uses it', views.view)
      FROM views WHERE views.kind OPERATOR(pg_catalog.=) 'm'
    UNION
    SELECT pg_catalog.format('you do not own view %s', views.view)
      FROM views WHERE NOT pg_catalog.pg_has_role(views.relowner, 'USAGE')
    UNION
    SELECT pg_catalog.format('you may not create view %s', views.view)
      FROM views
     WHERE NOT (pg_catalog.has_schema_privilege(views.relnamespace, 'CREATE')
                AND pg_catalog.has_schema_privilege(views.relowner, views.relnamespace, 'CREATE'))
    UNION
    SELECT pg_catalog.format('view %s belongs to an extension', views.view)
      FROM views
      JOIN pg_catalog.pg_depend d
        ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.objid OPERATOR(pg_catalog.=) views.view
       AND d.deptype OPERATOR(pg_catalog.=) 'e'
    UNION
    SELECT pg_catalog.format('view %s has a security label', views.view)
      FROM views
      JOIN pg_catalog.pg_seclabel l
        ON l.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND l.objoid OPERATOR(pg_catalog.=) views.view
    UNION
    SELECT pg_catalog.format('role %I granted rights on view %s, and you are not a member of it',
                             pg_catalog.pg_get_userbyid(granted.grantor), views.view)
      FROM views
     CROSS JOIN LATERAL (
           SELECT x.grantor FROM pg_catalog.aclexplode(views.relacl) x
           UNION
           SELECT x.grantor
             FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
            WHERE a.attrelid OPERATOR(pg_catalog.=) views.view) granted
     WHERE NOT pg_catalog.pg_has_role(granted.grantor, 'MEMBER')
    UNION
    -- What goes down with a view and is not made again: rules of tables, policies, functions.
    SELECT pg_catalog.format('%s uses view %s', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), views.view)
      FROM views
      JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) views.view
        OR d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) ANY (ARRAY[views.reltype, views.typarray])
      LEFT JOIN pg_catalog.pg_rewrite r
             ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            AND r.oid OPERATOR(pg_catalog.=) d.objid
      LEFT JOIN pg_catalog.pg_trigger g
             ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
            AND g.oid OPERATOR(pg_catalog.=) d.objid
      LEFT JOIN pg_catalog.pg_attrdef f
             ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
            AND f.oid OPERATOR(pg_catalog.=) d.objid
     WHERE d.deptype OPERATOR(pg_catalog.<>) 'i'
       AND NOT COALESCE(r.ev_class OPERATOR(pg_catalog.=) ANY (SELECT v.view::pg_catalog.oid FROM views v), false)
       AND NOT COALESCE(g.tgrelid OPERATOR(pg_catalog.=) views.view::pg_catalog.oid, false)
       AND NOT COALESCE(f.adrelid OPERATOR(pg_catalog.=) views.view::pg_catalog.oid, false)
$$;

-- The statements that grant what an ACL says, to nobody else, by whom it was granted: first what
-- the owner did, then in the order in which it came. as_role: who has to say it.
CREATE FUNCTION cmk_internal.view_grants(
    view pg_catalog.regclass, OUT as_role pg_catalog.name, OUT statement pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN granted.grantor OPERATOR(pg_catalog.<>) c.relowner
                THEN pg_catalog.pg_get_userbyid(granted.grantor) END,
           pg_catalog.format('GRANT %s%s ON %s TO %s%s', granted.privilege_type,
               CASE WHEN granted.attname IS NOT NULL THEN pg_catalog.format(' (%I)', granted.attname) END,
               view_grants.view,
               CASE WHEN granted.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                    ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(granted.grantee)) END,
               CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' END)
      FROM pg_catalog.pg_class c
     CROSS JOIN LATERAL (
           SELECT 0, NULL, x.*
             FROM pg_catalog.aclexplode(c.relacl)
                  WITH ORDINALITY x (grantor, grantee, privilege_type, is_grantable, number)
           UNION ALL
           SELECT a.attnum, a.attname, x.*
             FROM pg_catalog.pg_attribute a
            CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl)
                  WITH ORDINALITY x (grantor, grantee, privilege_type, is_grantable, number)
            WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid
           ) granted (attnum, attname, grantor, grantee, privilege_type, is_grantable, number)
     WHERE c.oid OPERATOR(pg_catalog.=) view_grants.view
     ORDER BY granted.grantor OPERATOR(pg_catalog.<>) c.relowner, granted.attnum, granted.number
$$;

-- Everything that makes a view again. as_role: who has to say it, else null.
CREATE FUNCTION cmk_internal.view_script(
    view pg_catalog.regclass, OUT as_role pg_catalog.name, OUT statement pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    SELECT c.relowner, c.relpersistence, c.relacl IS NOT NULL AS is_granted,
           CASE WHEN c.reloptions IS NOT NULL
                THEN (SELECT pg_catalog.format(' WITH (%s)', pg_catalog.string_agg(pg_catalog.format('%I = %L',
                             pg_catalog.split_part(o.option, '=', 1), pg_catalog.split_part(o.option, '=', 2)), ', '))
                        FROM pg_catalog.unnest(c.reloptions) o (option)) END AS options
      INTO item
      FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) view_script.view;
    statement := pg_catalog.format('CREATE %sVIEW %s%s AS %s',
        CASE WHEN item.relpersistence OPERATOR(pg_catalog.=) 't' THEN 'TEMPORARY ' END,
        view, item.options, pg_catalog.pg_get_viewdef(view));
    RETURN NEXT;
    statement := pg_catalog.format('ALTER VIEW %s OWNER TO %I', view, pg_catalog.pg_get_userbyid(item.relowner));
    RETURN NEXT;
    statement := pg_catalog.format('SELECT cmk_internal.clear_grants(%L, %L)', view, item.is_granted);
    RETURN NEXT;
    RETURN QUERY SELECT g.as_role, g.statement FROM cmk_internal.view_grants(view) g;
    RETURN QUERY
        SELECT NULL::pg_catalog.name,
               CASE WHEN d.objsubid OPERATOR(pg_catalog.=) 0
                    THEN pg_catalog.format('COMMENT ON VIEW %s IS %L', view, d.description)
                    ELSE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', view, a.attname, d.description) END
          FROM pg_catalog.pg_description d
          LEFT JOIN pg_catalog.pg_attribute a
                 ON a.attrelid OPERATOR(pg_catalog.=) d.objoid
                AND a.attnum OPERATOR(pg_catalog.=) d.objsubid
                AND a.attnum OPERATOR(pg_catalog.>) 0
         WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objoid OPERATOR(pg_catalog.=) view_script.view;
    RETURN QUERY
        SELECT NULL::pg_catalog.name,
               pg_catalog.format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', view, a.attname,
                                 cmk_internal.plain_default(f.adbin, f.adrelid))
          FROM pg_catalog.pg_attrdef f
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) f.adrelid AND a.attnum OPERATOR(pg_catalog.=) f.adnum
         WHERE f.adrelid OPERATOR(pg_catalog.=) view_script.view;
    FOR item IN
        SELECT g.tgname AS name, pg_catalog.pg_get_triggerdef(g.oid) AS definition,
               'TRIGGER' AS kind, pg_catalog.obj_description(g.oid, 'pg_trigger') AS comment
          FROM pg_catalog.pg_trigger g
         WHERE g.tgrelid OPERATOR(pg_catalog.=) view_script.view AND NOT g.tgisinternal
        UNION ALL
        SELECT r.rulename, pg_catalog.pg_get_ruledef(r.oid),
               'RULE', pg_catalog.obj_description(r.oid, 'pg_rewrite')
          FROM pg_catalog.pg_rewrite r
         WHERE r.ev_class OPERATOR(pg_catalog.=) view_script.view
           AND r.rulename OPERATOR(pg_catalog.<>) '_RETURN'
    LOOP
        statement := item.definition;
        RETURN NEXT;
        IF item.comment IS NOT NULL THEN
            statement := pg_catalog.format('COMMENT ON %s %I ON %s IS %L', item.kind, item.name, view, item.comment);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- Default privileges of whoever made the view, or of its owner, are none that it had. The owner's
-- own go, too, if they are granted again.
CREATE FUNCTION cmk_internal.clear_grants(view pg_catalog.regclass, also_owner pg_catalog.bool)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder pg_catalog.oid;
BEGIN
    FOR holder IN
        SELECT DISTINCT x.grantee
          FROM pg_catalog.pg_class c
         CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(c.relacl, pg_catalog.acldefault('r', c.relowner))) x
         WHERE c.oid OPERATOR(pg_catalog.=) view
           AND (also_owner OR x.grantee OPERATOR(pg_catalog.<>) c.relowner)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', view,
            CASE WHEN holder OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(holder)) END);
    END LOOP;
END
$$;

CREATE FUNCTION cmk_internal.run_as(as_roles pg_catalog.name[], statements pg_catalog.text[])
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
BEGIN
    FOR number IN 1 .. COALESCE(pg_catalog.cardinality(statements), 0) LOOP
        PERFORM pg_catalog.set_config('role', COALESCE(as_roles[number], before), true);
        EXECUTE statements[number];
    END LOOP;
    PERFORM pg_catalog.set_config('role', before, true);
END
$$;
