-- How protection is written in the catalogs: what the functions around protected columns share.
-- Nothing here changes anything, and it reads what everybody may read.

-- A table with its partitions and inheritance children, parents before children.
CREATE FUNCTION cmk_internal.table_tree(
    "table" pg_catalog.regclass, OUT relation pg_catalog.regclass, OUT depth pg_catalog.int4)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE tree (relation, depth) AS (
        SELECT table_tree."table"::pg_catalog.oid, 0
        UNION ALL
        SELECT i.inhrelid, tree.depth OPERATOR(pg_catalog.+) 1
          FROM tree
          JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) tree.relation)
    SELECT tree.relation::pg_catalog.regclass, pg_catalog.max(tree.depth)
      FROM tree GROUP BY tree.relation ORDER BY 2, tree.relation
$$;

CREATE FUNCTION cmk_internal.is_protected_type(type pg_catalog.oid) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT is_protected_type.type OPERATOR(pg_catalog.=) ANY (
        '{pg_catalog.cmk_text, pg_catalog.cmk_bytea, pg_catalog.cmk_jsonb}'::pg_catalog.regtype[]::pg_catalog.oid[])
$$;

-- The type that protects values of a type; null if none does. A length stays.
CREATE FUNCTION cmk_internal.protecting_type(type pg_catalog.oid, typmod pg_catalog.int4) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('pg_catalog.%s%s', known.ours,
               CASE WHEN known.has_length
                    THEN COALESCE(pg_catalog."substring"(
                        pg_catalog.format_type(protecting_type.type, protecting_type.typmod), '\(\d+\)'), '')
               END)
      FROM (VALUES ('text', 'cmk_text', false), ('varchar', 'cmk_text', true), ('bpchar', 'cmk_text', true),
                   ('bytea', 'cmk_bytea', false), ('jsonb', 'cmk_jsonb', false), ('json', 'cmk_jsonb', false)
           ) known (theirs, ours, has_length)
     WHERE known.theirs::pg_catalog.regtype::pg_catalog.oid OPERATOR(pg_catalog.=) protecting_type.type
$$;

-- What the comment on our constraint tells: the type before protection, the files in which
-- plaintext may be left, and the columns of unique indexes that went and are to be made again, by
-- tokens. A comment may come from anywhere, so no more than a type's name and names of columns are
-- taken.
CREATE FUNCTION cmk_internal.protection_note(
    constraint_oid pg_catalog.oid, OUT former pg_catalog.text, OUT files pg_catalog.text[],
    OUT uniques pg_catalog.text[])
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog."substring"(note.text,
               'was of type (text|character varying|character|bytea|jsonb|json)(?:\(\d+\))?\.'),
           COALESCE(pg_catalog.string_to_array(
               pg_catalog."substring"(note.text, 'may be left in files ([\d, ]+)'), ', '), '{}'),
           ARRAY(SELECT m.match[1]
                   FROM pg_catalog.regexp_matches(note.text, 'A unique index on \(((?:[^()"]|"(?:[^"]|"")*")+)\) is to be made again\.', 'g') m (match))
      FROM pg_catalog.obj_description(protection_note.constraint_oid, 'pg_constraint') AS note (text)
$$;

-- The statement that writes such a comment. No files: nothing is left.
CREATE FUNCTION cmk_internal.protection_comment(
    relation pg_catalog.regclass, constraint_name pg_catalog.name, former pg_catalog.text,
    files pg_catalog.text[], uniques pg_catalog.text[]) RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L',
        protection_comment.constraint_name, protection_comment.relation,
        pg_catalog.concat_ws(' ',
            'Keeps plaintext out of the column.',
            CASE WHEN protection_comment.former IS NOT NULL
                 THEN pg_catalog.format('It was of type %s.', protection_comment.former) END,
            CASE WHEN pg_catalog.cardinality(protection_comment.files) OPERATOR(pg_catalog.>) 0
                 THEN pg_catalog.format('Plaintext may be left in files %s, until VACUUM FULL.',
                          pg_catalog.array_to_string(protection_comment.files, ', ')) END,
            (SELECT pg_catalog.string_agg(pg_catalog.format('A unique index on (%s) is to be made again.', u.columns), ' ')
               FROM pg_catalog.unnest(protection_comment.uniques) u (columns))))
$$;

-- Comments on our constraint, in the table and its children: what the type was, in which files
-- plaintext may be left, none where all values were sealed while the table was rewritten, and which
-- unique indexes are to be made again.
CREATE FUNCTION cmk_internal.write_notes(
    "table" pg_catalog.regclass, check_name pg_catalog.name, "column" pg_catalog.name,
    former pg_catalog.text, wanted pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement pg_catalog.text;
BEGIN
    FOR statement IN
        SELECT cmk_internal.protection_comment(t.relation, check_name, former, CASE WHEN NOT c.convalidated
                   THEN ARRAY(SELECT f.file FROM cmk_internal.files_of_column(t.relation, a.attnum) f) END,
               ARRAY(SELECT w.columns
                       FROM pg_catalog.jsonb_to_recordset(wanted) w (
                                relation pg_catalog.regclass, is_unique pg_catalog.bool, columns pg_catalog.text)
                      WHERE w.is_unique AND w.columns IS NOT NULL
                        AND w.relation OPERATOR(pg_catalog.=) t.relation
                      ORDER BY w.columns))
          FROM cmk_internal.table_tree("table") t
          JOIN pg_catalog.pg_constraint c
            ON c.conrelid OPERATOR(pg_catalog.=) t.relation
           AND c.conname OPERATOR(pg_catalog.=) check_name
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) "column"
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;

-- The files in which plaintext of a column stays behind when the column is sealed row by row: the
-- heap's, and those of the indexes that include the column.
CREATE FUNCTION cmk_internal.files_of_column(
    relation pg_catalog.regclass, attnum pg_catalog.int2,
    OUT object pg_catalog.regclass, OUT is_index pg_catalog.bool, OUT file pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT kept.object, kept.is_index, pg_catalog.pg_relation_filenode(kept.object)::pg_catalog.text
      FROM (SELECT files_of_column.relation, false
            UNION ALL
            SELECT i.indexrelid::pg_catalog.regclass, true
              FROM pg_catalog.pg_index i
             WHERE i.indrelid OPERATOR(pg_catalog.=) files_of_column.relation
               AND files_of_column.attnum OPERATOR(pg_catalog.=) ANY (i.indkey)) kept (object, is_index)
     WHERE pg_catalog.pg_relation_filenode(kept.object) IS NOT NULL
       AND pg_catalog.pg_relation_size(kept.object) OPERATOR(pg_catalog.>) 0
$$;

-- A name for the constraint that no constraint of the table or of its children has. A name has up
-- to 63 bytes.
CREATE FUNCTION cmk_internal.unused_constraint_name("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.name
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base pg_catalog.text;
    number pg_catalog.text := '';
BEGIN
    FOR tried IN 1 .. 10000 LOOP
        base := pg_catalog.concat('cmk_sealed_', "column");
        WHILE pg_catalog.octet_length(pg_catalog.concat(base, number)) OPERATOR(pg_catalog.>) 63 LOOP
            base := pg_catalog."left"(base, -1);
        END LOOP;
        PERFORM FROM pg_catalog.pg_constraint c
                JOIN cmk_internal.table_tree("table") t ON c.conrelid OPERATOR(pg_catalog.=) t.relation
               WHERE c.conname OPERATOR(pg_catalog.=) pg_catalog.concat(base, number)::pg_catalog.name;
        EXIT WHEN NOT FOUND;
        number := pg_catalog.concat('_', tried);
    END LOOP;
    RETURN pg_catalog.concat(base, number);
END
$$;

-- What the trigger of a table seals, by the columns' labels, and who the tenant is: an expression
-- in which the row is "new", NULL for the setting. PostgreSQL prints the WHEN that
-- cmk_internal.seal_trigger() made as "((A AND B) OR true)", or as "(A OR true)".
CREATE FUNCTION cmk_internal.seal_conditions(
    relation pg_catalog.regclass, OUT label pg_catalog.text, OUT tenant pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    closing CONSTANT pg_catalog.text := ' OR true)) EXECUTE FUNCTION cmk.seal()';
    -- A label, and a tenant with literals and names that may contain anything.
    first_column CONSTANT pg_catalog.text := '^cmk\.seals\((E?''(?:[^'']|'''')*'')::text,\s+((?:[^''"]|''(?:[^'']|'''')*''|"(?:[^"]|"")*")*?)\)(?: AND (cmk\.seals\(E?''.*))?$';
    opening pg_catalog.text;
    printed pg_catalog.text;
    item pg_catalog.record;
    parts pg_catalog.text[];
BEGIN
    SELECT pg_catalog.pg_get_triggerdef(g.oid) AS definition, n.nspname, c.relname INTO item
      FROM pg_catalog.pg_trigger g
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE g.tgrelid OPERATOR(pg_catalog.=) relation
       AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- PostgreSQL calls the schema of temporary tables by either name, as the version goes.
    FOREACH opening IN ARRAY ARRAY[item.nspname::pg_catalog.text, 'pg_temp'] LOOP
        opening := pg_catalog.format('CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON %I.%I FOR EACH ROW WHEN ((',
                                     opening, item.relname);
        printed := CASE WHEN pg_catalog.starts_with(item.definition, opening) THEN item.definition END;
        EXIT WHEN printed IS NOT NULL;
    END LOOP;
    IF printed IS NULL OR NOT pg_catalog."right"(printed, pg_catalog.length(closing)) OPERATOR(pg_catalog.=) closing THEN
        RETURN;
    END IF;
    printed := pg_catalog.substr(printed, pg_catalog.length(opening) OPERATOR(pg_catalog.+) 1);
    printed := pg_catalog."left"(printed, OPERATOR(pg_catalog.-) pg_catalog.length(closing));
    IF pg_catalog.starts_with(printed, '(') THEN
        printed := pg_catalog.substr(pg_catalog."left"(printed, -1), 2);
    END IF;
    LOOP
        parts := pg_catalog.regexp_match(printed, first_column);
        EXIT WHEN parts IS NULL;
        label := pg_catalog.replace(pg_catalog."substring"(parts[1], '^E?''(.*)''$'), '''''', '''');
        IF pg_catalog.starts_with(parts[1], 'E') THEN
            label := pg_catalog.replace(label, E'\\\\', E'\\');
        END IF;
        tenant := parts[2];
        RETURN NEXT;
        printed := parts[3];
    END LOOP;
END
$$;

-- The label that a column of ours has whose constraint is gone, as far as the trigger tells: the
-- one that no constraint of the table has.
CREATE FUNCTION cmk_internal.label_in_trigger(relation pg_catalog.regclass) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 THEN pg_catalog.min(s.label) END
      FROM cmk_internal.seal_conditions(label_in_trigger.relation) s
     WHERE NOT EXISTS (SELECT FROM cmk.protections() p
                        WHERE p.relation OPERATOR(pg_catalog.=) label_in_trigger.relation::pg_catalog.oid
                          AND p.label OPERATOR(pg_catalog.=) s.label)
$$;

-- Under another label no search would find the values that there are. Why a column of ours cannot
-- get this one, or null: by a value of it, if there is a sealed one.
CREATE FUNCTION cmk_internal.label_obstacle(
    "table" pg_catalog.regclass, "column" pg_catalog.name, label pg_catalog.text) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    detail pg_catalog.text;
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT cmk.sealed(t.value, %1$L, NULL::pg_catalog.text, NULL::pg_catalog.text) FROM (SELECT %2$I AS value FROM %3$s WHERE cmk.is_sealed(%2$I) LIMIT 1) t',
        label, "column", "table");
    RETURN NULL;
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    -- Tokens of another kind, say, are no matter here.
    IF NOT pg_catalog.starts_with(detail, 'reason=foreign_envelope') THEN
        RETURN NULL;
    END IF;
    RETURN pg_catalog.format('its values were sealed under another label than %L: pass the label that the column had', label);
END
$$;

-- Whether cmk.seal_table() has something to do with a value, as SQL: it is not sealed, or its
-- tokens are not those that it is to have. A column without a constraint of ours has no label.
CREATE FUNCTION cmk_internal.pending_condition(
    type pg_catalog.oid, value pg_catalog.text, label pg_catalog.text, options pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN pending_condition.label IS NOT NULL
                 AND pending_condition.type OPERATOR(pg_catalog.=) 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid
                THEN pg_catalog.format('(%1$s IS NOT NULL AND cmk.needs_sealing(%1$s, %2$L, %3$L))',
                         pending_condition.value, pending_condition.label, pending_condition.options)
                ELSE pg_catalog.format('NOT cmk.is_sealed(%s)', pending_condition.value) END
$$;

-- The statement that makes the trigger. "OR true" lets the planner drop the condition, while
-- PostgreSQL goes on guarding the columns that it names.
CREATE FUNCTION cmk_internal.seal_trigger(relation pg_catalog.regclass, conditions pg_catalog.text[])
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON %s FOR EACH ROW WHEN (%s OR true) EXECUTE FUNCTION cmk.seal()',
        seal_trigger.relation, pg_catalog.array_to_string(seal_trigger.conditions, ' AND '))
$$;

-- Whether the column's values can stay where they are while its type changes to ours.
CREATE FUNCTION cmk_internal.keeps_file(type pg_catalog.oid) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT keeps_file.type OPERATOR(pg_catalog.=) ANY (
        '{pg_catalog.text, pg_catalog.varchar}'::pg_catalog.regtype[]::pg_catalog.oid[])
$$;

-- A column's default as SQL, without a cast that makes our type of a literal.
CREATE FUNCTION cmk_internal.plain_default(expression pg_catalog.pg_node_tree, relation pg_catalog.oid)
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT pg_catalog.regexp_replace(
        pg_catalog.pg_get_expr(plain_default.expression, plain_default.relation),
        '^(E?''(?:[^'']|'''')*'')::cmk_[a-z]+(\(\d+\))?$', '\1')
$$;
