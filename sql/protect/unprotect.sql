-- The way back.

-- The type that a protected column had before.
CREATE FUNCTION cmk_internal.former_type(type pg_catalog.oid, typmod pg_catalog.int4, former pg_catalog.text)
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

CREATE FUNCTION cmk_internal.refuse_unprotected("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM pg_catalog.pg_attribute a
           WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
             AND a.attname OPERATOR(pg_catalog.=) "column"
             AND a.attnum OPERATOR(pg_catalog.>) 0
             AND cmk_internal.is_protected_type(a.atttypid);
    IF NOT FOUND THEN
        PERFORM cmk.raise('not_protected', pg_catalog.format('table=%s column=%I', "table", "column"));
    END IF;
END
$$;

-- Opens every value while it rewrites the table, in one transaction. If one cannot be opened,
-- nothing has happened.
CREATE FUNCTION cmk.unprotect_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name, views pg_catalog.text DEFAULT 'refuse',
    lock_timeout pg_catalog.interval DEFAULT '2s', lock_attempts pg_catalog.int4 DEFAULT 10)
RETURNS pg_catalog.text
-- No compiling while others wait for the lock.
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    obstacles pg_catalog.text[];
    tolerated CONSTANT pg_catalog.text[] := cmk_internal.tolerated_uses(views, false, NULL, NULL);
    subject pg_catalog.record;
    using_expression pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_null(views, 'views');
    PERFORM cmk_internal.refuse_unprotected("table", "column");
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.common_obstacles("table", "column", views, tolerated) o (line));
    PERFORM cmk_internal.refuse(obstacles);
    SELECT a.atttypid, COALESCE(p.label, cmk_internal.label_in_trigger("table")) AS label, p.options,
           cmk_internal.former_type(a.atttypid, a.atttypmod, n.former) AS target
      INTO subject
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
      LEFT JOIN LATERAL cmk_internal.protection_note(p.constraint_oid) n ON true
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    using_expression := pg_catalog.format('%I::%s', "column",
        CASE WHEN subject.target OPERATOR(pg_catalog.=) 'pg_catalog.bytea' THEN subject.target
             WHEN pg_catalog.starts_with(subject.target, 'pg_catalog.json') THEN 'pg_catalog.jsonb'
             ELSE 'pg_catalog.text' END);
    IF subject.target OPERATOR(pg_catalog.=) 'pg_catalog.json' THEN
        using_expression := pg_catalog.concat(using_expression, '::pg_catalog.json');
    END IF;
    PERFORM cmk_internal.change_column_politely(
        ROW("table", "column", subject.atttypid, subject.target, using_expression, NULL, NULL,
            false, subject.label, subject.options, NULL, NULL,
            tolerated)::cmk_internal.column_change,
        lock_timeout, lock_attempts);
    PERFORM cmk_internal.audit_column("table", "column", 'unprotect_column');
    RETURN pg_catalog.format('%I of %s holds plaintext again, in a column of type %s', "column", "table",
        (SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
          WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column"));
END
$$;
