-- The way back, and a change of length, which the trigger would forbid to ALTER TABLE.

-- The type that a protected column had before.
CREATE FUNCTION cmk.former_type(type pg_catalog.oid, typmod pg_catalog.int4, former pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE former_type.type
           WHEN 'pg_catalog.cmk_bytea'::pg_catalog.regtype::pg_catalog.oid THEN 'pg_catalog.bytea'
           WHEN 'pg_catalog.cmk_jsonb'::pg_catalog.regtype::pg_catalog.oid THEN
               CASE WHEN former_type.former OPERATOR(pg_catalog.=) 'json' THEN 'pg_catalog.json' ELSE 'pg_catalog.jsonb' END
           WHEN 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid THEN
               CASE WHEN length.text IS NOT NULL
                    THEN pg_catalog.concat(CASE WHEN former_type.former OPERATOR(pg_catalog.=) 'character' THEN 'pg_catalog.bpchar' ELSE 'pg_catalog.varchar' END, length.text)
                    WHEN former_type.former OPERATOR(pg_catalog.=) 'character varying' THEN 'pg_catalog.varchar'
                    ELSE 'pg_catalog.text' END
           END
      FROM pg_catalog."substring"(pg_catalog.format_type(former_type.type, former_type.typmod), '\(\d+\)') AS length (text)
$$;

CREATE FUNCTION cmk.unprotect_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name, recreate_views pg_catalog.bool)
RETURNS SETOF pg_catalog.text
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM pg_catalog.pg_attribute a
           WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
             AND a.attname OPERATOR(pg_catalog.=) "column"
             AND a.attnum OPERATOR(pg_catalog.>) 0
             AND cmk.is_protected_type(a.atttypid);
    IF NOT FOUND THEN
        PERFORM cmk.raise('not_protected', pg_catalog.format('table=%s column=%I', "table", "column"));
    END IF;
    RETURN QUERY SELECT * FROM cmk.column_obstacles("table", "column", recreate_views) o (line) ORDER BY o.line;
END
$$;

-- What stands in the catalogs about a protected column, as a change that changes nothing.
CREATE FUNCTION cmk.unchanged_column("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS cmk.column_change
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT unchanged_column."table", unchanged_column."column", a.atttypid, NULL, NULL,
           c.conname, pg_catalog.pg_get_expr(c.conbin, c.conrelid), false, s.condition, false
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid
            AND p.attnum OPERATOR(pg_catalog.=) a.attnum
      LEFT JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) p.constraint_oid
      LEFT JOIN cmk.seal_conditions(unchanged_column."table") s ON s.attnum OPERATOR(pg_catalog.=) a.attnum
     WHERE a.attrelid OPERATOR(pg_catalog.=) unchanged_column."table"
       AND a.attname OPERATOR(pg_catalog.=) unchanged_column."column"
$$;

-- Opens every value while it rewrites the table, in one transaction. If one cannot be opened,
-- nothing has happened.
CREATE FUNCTION cmk.unprotect_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name, views pg_catalog.text DEFAULT 'refuse',
    lock_timeout pg_catalog.interval DEFAULT '2s', lock_attempts pg_catalog.int4 DEFAULT 10)
RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    change cmk.column_change;
BEGIN
    PERFORM cmk.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk.refuse_null(views, 'views');
    PERFORM cmk.refuse(ARRAY(
        SELECT o.line FROM cmk.unprotect_obstacles("table", "column", views OPERATOR(pg_catalog.=) 'recreate') o (line)
        UNION ALL
        SELECT 'views can be refuse or recreate' WHERE NOT views OPERATOR(pg_catalog.=) ANY ('{refuse, recreate}')));
    change := cmk.unchanged_column("table", "column");
    SELECT cmk.former_type(a.atttypid, a.atttypmod, n.former) INTO change.target
      FROM pg_catalog.pg_attribute a
      LEFT JOIN pg_catalog.pg_constraint c
             ON c.conrelid OPERATOR(pg_catalog.=) a.attrelid
            AND c.conname OPERATOR(pg_catalog.=) change.check_name
      LEFT JOIN LATERAL cmk.protection_note(c.oid) n ON true
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    change.using_expression := pg_catalog.format('%I::%s', "column",
        CASE WHEN change.target OPERATOR(pg_catalog.=) 'pg_catalog.bytea' THEN change.target
             WHEN pg_catalog.starts_with(change.target, 'pg_catalog.json') THEN 'pg_catalog.jsonb'
             ELSE 'pg_catalog.text' END);
    IF change.target OPERATOR(pg_catalog.=) 'pg_catalog.json' THEN
        change.using_expression := pg_catalog.concat(change.using_expression, '::pg_catalog.json');
    END IF;
    change.check_name := NULL;
    change.check_expression := NULL;
    change.condition := NULL;
    change.recreate_views := views OPERATOR(pg_catalog.=) 'recreate';
    PERFORM cmk.change_column_politely(change, lock_timeout, lock_attempts);
    RETURN pg_catalog.format('%I of %s holds plaintext again, in a column of type %s', "column", "table",
        (SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
          WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column"));
END
$$;

-- Like ALTER TABLE ... TYPE varchar(length), which PostgreSQL refuses for a column that a trigger
-- names. No rewrite; null for any length. Longer values that there are stay, as nobody can tell
-- without keys.
CREATE FUNCTION cmk.set_column_length(
    "table" pg_catalog.regclass, "column" pg_catalog.name, length pg_catalog.int4,
    lock_timeout pg_catalog.interval DEFAULT '2s', lock_attempts pg_catalog.int4 DEFAULT 10)
RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    change cmk.column_change;
    former pg_catalog.text;
BEGIN
    PERFORM cmk.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk.refuse(ARRAY(SELECT o.line FROM cmk.unprotect_obstacles("table", "column", false) o (line)));
    change := cmk.unchanged_column("table", "column");
    IF NOT cmk.is_protected("table", "column") THEN
        PERFORM cmk.refuse(ARRAY['its constraint or its trigger is lost']);
    ELSIF change.type OPERATOR(pg_catalog.<>) 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid THEN
        PERFORM cmk.refuse(ARRAY['its values have no length in characters']);
    END IF;
    SELECT n.former INTO former
      FROM pg_catalog.pg_constraint c
     CROSS JOIN LATERAL cmk.protection_note(c.oid) n
     WHERE c.conrelid OPERATOR(pg_catalog.=) "table" AND c.conname OPERATOR(pg_catalog.=) change.check_name;
    change.target := pg_catalog.concat('pg_catalog.cmk_text', pg_catalog.format('(%s)', length));
    IF length IS NULL THEN
        change.target := 'pg_catalog.cmk_text';
    END IF;
    PERFORM cmk.change_column_politely(change, lock_timeout, lock_attempts);
    PERFORM cmk.write_notes("table", change.check_name, "column", former);
    RETURN pg_catalog.format('%I of %s is of type %s; next, CALL cmk.seal_table(%L) validates the constraint again', "column", "table",
        (SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
          WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column"), "table");
END
$$;
