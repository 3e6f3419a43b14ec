-- The change of a protected column's type, constraint and trigger, in one transaction: what
-- cmk.protect_column(), cmk.unprotect_column() and cmk.set_column_length() have in common.

CREATE TYPE cmk_internal.column_change AS (
    "table"           pg_catalog.regclass,
    "column"          pg_catalog.name,
    -- The type before; another one now means that somebody was faster.
    type              pg_catalog.oid,
    -- The type afterwards; null if it stays.
    target            pg_catalog.text,
    -- Makes the new values, if the table is rewritten.
    using_expression  pg_catalog.text,
    -- What our constraint says from now on, in place of what it said; null if it stays.
    check_name        pg_catalog.name,
    check_expression  pg_catalog.text,
    check_valid       pg_catalog.bool,
    label             pg_catalog.text,
    -- How values are found, before and from now on; null if by scan. Another one before now means
    -- that somebody was faster.
    former_options    pg_catalog.text,
    options           pg_catalog.text,
    -- The column's part of the trigger's WHEN; null if the trigger is to leave it alone.
    condition         pg_catalog.text,
    -- What cmk_internal.tolerated_uses() says.
    tolerated         pg_catalog.text[]
);

-- The constraints of a table and its children that the column is in, ours among them.
CREATE FUNCTION cmk_internal.checks_of_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT relation pg_catalog.regclass, OUT depth pg_catalog.int4, OUT name pg_catalog.name,
    OUT is_ours pg_catalog.bool, OUT is_local pg_catalog.bool,
    OUT definition pg_catalog.text, OUT comment pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, t.depth, c.conname,
           EXISTS (SELECT FROM cmk.protections() p
                    WHERE p.constraint_oid OPERATOR(pg_catalog.=) c.oid
                      AND p.attnum OPERATOR(pg_catalog.=) a.attnum),
           c.conislocal, pg_catalog.pg_get_constraintdef(c.oid),
           pg_catalog.obj_description(c.oid, 'pg_constraint')
      FROM cmk_internal.table_tree(checks_of_column."table") t
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) t.relation
       AND a.attname OPERATOR(pg_catalog.=) checks_of_column."column"
      JOIN pg_catalog.pg_constraint c
        ON c.conrelid OPERATOR(pg_catalog.=) t.relation
       AND c.contype OPERATOR(pg_catalog.=) 'c'
       AND a.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
     ORDER BY t.depth, t.relation::pg_catalog.oid, c.conname
$$;

-- Takes the lock last: readers who come through a view lock the view first, too. wanted: the
-- indexes that a searchable column is to have and had not, as cmk_internal.wanted_indexes() tells;
-- made: it has them now.
CREATE FUNCTION cmk_internal.change_column(
    change cmk_internal.column_change, OUT wanted pg_catalog.jsonb, OUT made pg_catalog.bool)
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    "table" CONSTANT pg_catalog.regclass := change."table";
    "column" CONSTANT pg_catalog.name := change."column";
    views pg_catalog.regclass[] := '{}';
    as_roles pg_catalog.name[];
    script pg_catalog.text[];
    relations pg_catalog.regclass[];
    lines pg_catalog.text[];
    conditions pg_catalog.jsonb := '{}';
    checks pg_catalog.jsonb := '[]';
    is_empty pg_catalog.bool;
    item pg_catalog.record;
    actions pg_catalog.text[] := '{}';
BEGIN
    wanted := '[]';
    IF 'recreate' OPERATOR(pg_catalog.=) ANY (change.tolerated) THEN
        views := ARRAY(SELECT v.view FROM cmk_internal.views_of_column("table", "column") v);
    END IF;
    IF pg_catalog.cardinality(views) OPERATOR(pg_catalog.>) 0 THEN
        -- A comment locks a view against other changes of it, and nobody else out.
        FOR item IN
            SELECT v.view, pg_catalog.obj_description(v.view, 'pg_class') AS comment FROM pg_catalog.unnest(views) v (view)
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON VIEW %s IS %L', item.view, item.comment);
        END LOOP;
        SELECT pg_catalog.array_agg(s.as_role ORDER BY v.number, s.number),
               pg_catalog.array_agg(s.statement ORDER BY v.number, s.number)
          INTO as_roles, script
          FROM pg_catalog.unnest(views) WITH ORDINALITY v (view, number)
         CROSS JOIN LATERAL cmk_internal.view_script(v.view) WITH ORDINALITY s (as_role, statement, number);
        EXECUTE pg_catalog.format('DROP VIEW %s', pg_catalog.array_to_string(views, ', '));
    END IF;

    EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', "table");
    relations := ARRAY(SELECT t.relation FROM cmk_internal.table_tree("table") t);
    -- Views that were dropped are none, and those that came since are in the way.
    lines := ARRAY(SELECT o.line
                     FROM cmk_internal.column_obstacles("table", "column",
                              CASE WHEN 'recreate' OPERATOR(pg_catalog.=) ANY (change.tolerated)
                                   THEN ARRAY(SELECT k.kind FROM pg_catalog.unnest(change.tolerated) k (kind)
                                               WHERE NOT k.kind OPERATOR(pg_catalog.=) ANY ('{recreate, view, matview}'))
                                   ELSE change.tolerated END) o (line)
                    ORDER BY 1);
    SELECT a.atttypid OPERATOR(pg_catalog.=) change.type AS same_type,
           COALESCE(p.options, '') OPERATOR(pg_catalog.=) COALESCE(change.former_options, '') AS same_options
      INTO item
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    IF item.same_type IS NOT TRUE THEN
        lines := pg_catalog.array_append(lines, 'its type has just been changed by somebody else');
    ELSIF NOT item.same_options THEN
        lines := pg_catalog.array_append(lines, 'its protection has just been changed by somebody else');
    END IF;
    PERFORM cmk_internal.refuse(lines);
    is_empty := NOT EXISTS (SELECT FROM pg_catalog.unnest(relations) t (relation)
                             WHERE pg_catalog.pg_relation_size(t.relation) OPERATOR(pg_catalog.>) 0);
    made := is_empty OR change.using_expression IS NOT NULL;
    IF change.options IS NOT NULL THEN
        SELECT COALESCE(pg_catalog.jsonb_agg(w.*), '[]') INTO wanted
          FROM cmk_internal.wanted_indexes("table", "column", NOT made) w;
        PERFORM cmk_internal.drop_plain_indexes("table", "column");
    END IF;

    -- Partitions have clones of their parent's trigger.
    SELECT pg_catalog.jsonb_object_agg(t.relation::pg_catalog.oid::pg_catalog.text,
               pg_catalog.to_jsonb(ARRAY(
                   SELECT pg_catalog.format('cmk.seals(%L, %s)', s.label, s.tenant)
                     FROM cmk_internal.seal_conditions(t.relation) WITH ORDINALITY s (label, tenant, number)
                    WHERE s.label OPERATOR(pg_catalog.=) change.label IS NOT TRUE
                    ORDER BY s.number)))
      INTO conditions
      FROM pg_catalog.unnest(relations) t (relation);
    FOR item IN
        SELECT g.tgrelid::pg_catalog.regclass AS relation
          FROM pg_catalog.pg_trigger g
         WHERE g.tgrelid OPERATOR(pg_catalog.=) ANY (relations::pg_catalog.oid[])
           AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
           AND g.tgparentid OPERATOR(pg_catalog.=) 0
    LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER "~cmk_seal" ON %s', item.relation);
    END LOOP;

    -- PostgreSQL would check every row again, under the lock, and open each value to do so.
    SELECT COALESCE(pg_catalog.jsonb_agg(c.*), '[]') INTO checks
      FROM cmk_internal.checks_of_column("table", "column") c
     WHERE change.target IS NOT NULL AND (c.is_ours OR change.condition IS NOT NULL)
        OR change.check_expression IS NOT NULL AND c.is_ours;
    FOR item IN SELECT c.* FROM pg_catalog.jsonb_to_recordset(checks) c (relation pg_catalog.regclass, name pg_catalog.name, is_local pg_catalog.bool) LOOP
        IF item.is_local THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', item.relation, item.name);
        END IF;
    END LOOP;

    IF change.target IS NOT NULL THEN
        SELECT pg_catalog.array_append(actions, pg_catalog.format('ALTER COLUMN %I TYPE %s%s%s', "column", change.target,
                   (SELECT pg_catalog.format(' COLLATE %s', l.oid::pg_catalog.regcollation)
                      FROM pg_catalog.pg_collation l WHERE l.oid OPERATOR(pg_catalog.=) a.attcollation),
                   CASE WHEN change.using_expression IS NOT NULL
                        THEN pg_catalog.concat(' USING ', change.using_expression) END))
          INTO actions
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    END IF;
    IF change.check_expression IS NOT NULL THEN
        actions := pg_catalog.array_append(actions, pg_catalog.format('ADD CONSTRAINT %I CHECK (%s)%s',
            change.check_name, change.check_expression,
            CASE WHEN change.check_valid IS NOT TRUE AND NOT is_empty THEN ' NOT VALID' END));
    END IF;
    IF pg_catalog.cardinality(actions) OPERATOR(pg_catalog.>) 0 THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s %s', "table", pg_catalog.array_to_string(actions, ', '));
    END IF;
    IF change.condition IS NULL THEN
        PERFORM cmk_internal.clean_defaults(relations, "column");
    END IF;

    -- Children first: what their parents add is merged with what they have.
    FOR item IN
        SELECT c.* FROM pg_catalog.jsonb_to_recordset(checks) c (
                   relation pg_catalog.regclass, depth pg_catalog.int4, name pg_catalog.name, is_ours pg_catalog.bool,
                   is_local pg_catalog.bool, definition pg_catalog.text)
         WHERE c.is_local AND NOT c.is_ours ORDER BY c.depth DESC
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', item.relation, item.name, item.definition,
            CASE WHEN item.definition OPERATOR(pg_catalog.!~) ' NOT (VALID|ENFORCED)$' THEN ' NOT VALID' END);
    END LOOP;
    FOR item IN
        SELECT c.* FROM pg_catalog.jsonb_to_recordset(checks) c (
                   relation pg_catalog.regclass, name pg_catalog.name, is_ours pg_catalog.bool, comment pg_catalog.text)
         WHERE c.comment IS NOT NULL
           AND (NOT c.is_ours OR c.name OPERATOR(pg_catalog.=) change.check_name)
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', item.name, item.relation, item.comment);
    END LOOP;

    PERFORM cmk_internal.make_seal_triggers(relations, conditions, change.condition);
    IF made THEN
        PERFORM cmk_internal.make_indexes(wanted);
    END IF;
    PERFORM cmk_internal.run_as(as_roles, script);
END
$$;

-- A default went through the casts to our type and back. Set again as it reads, it forgets them.
CREATE FUNCTION cmk_internal.clean_defaults(relations pg_catalog.regclass[], "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT d.adrelid::pg_catalog.regclass AS relation,
               cmk_internal.plain_default(d.adbin, d.adrelid) AS expression
          FROM pg_catalog.pg_attrdef d
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) d.adrelid AND a.attnum OPERATOR(pg_catalog.=) d.adnum
         WHERE d.adrelid OPERATOR(pg_catalog.=) ANY (relations::pg_catalog.oid[])
           AND a.attname OPERATOR(pg_catalog.=) "column"
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %s',
                                  item.relation, "column", item.expression);
    END LOOP;
END
$$;

-- conditions: what the triggers sealed before, without the column that changes.
CREATE FUNCTION cmk_internal.make_seal_triggers(
    relations pg_catalog.regclass[], conditions pg_catalog.jsonb, condition pg_catalog.text)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT c.oid::pg_catalog.regclass AS relation, c.relispartition,
               pg_catalog.array_remove(pg_catalog.array_append(
                   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(
                             conditions OPERATOR(pg_catalog.->) c.oid::pg_catalog.text)), condition), NULL) AS all_conditions
          FROM pg_catalog.unnest(relations) WITH ORDINALITY t (relation, number)
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
         ORDER BY t.number
    LOOP
        CONTINUE WHEN pg_catalog.cardinality(item.all_conditions) OPERATOR(pg_catalog.=) 0;
        -- The first of the relations may be a partition whose parent is not among them.
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                        WHERE g.tgrelid OPERATOR(pg_catalog.=) item.relation
                          AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal') THEN
            EXECUTE cmk_internal.seal_trigger(item.relation, item.all_conditions);
        END IF;
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "~cmk_seal"', item.relation);
    END LOOP;
END
$$;

-- Raises an error that names all obstacles, if there are any. A null is none.
CREATE FUNCTION cmk_internal.refuse(
    obstacles pg_catalog.text[], reason pg_catalog.text DEFAULT 'not_protectable') RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    obstacles := pg_catalog.array_remove(obstacles, NULL);
    IF pg_catalog.cardinality(obstacles) OPERATOR(pg_catalog.>) 0 THEN
        PERFORM cmk.raise(refuse.reason, pg_catalog.format(E'obstacles=%s\n%s',
            pg_catalog.cardinality(obstacles), pg_catalog.array_to_string(obstacles, E'\n')));
    END IF;
END
$$;

-- Makes the change, and waits for its locks no longer than lock_timeout at a time: whoever comes
-- later waits behind us. Between two tries everybody else gets through, for a time by chance, so
-- that two such changes do not meet again and again.
CREATE FUNCTION cmk_internal.change_column_politely(
    change cmk_internal.column_change, lock_timeout pg_catalog.interval, lock_attempts pg_catalog.int4,
    OUT wanted pg_catalog.jsonb, OUT made pg_catalog.bool)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    milliseconds CONSTANT pg_catalog.int8 := LEAST(2147483647, GREATEST(1,
        pg_catalog.date_part('epoch', COALESCE(lock_timeout, '2s')) OPERATOR(pg_catalog.*) 1000));
BEGIN
    FOR attempt IN 1 .. GREATEST(1, COALESCE(lock_attempts, 10)) LOOP
        BEGIN
            PERFORM pg_catalog.set_config('lock_timeout', milliseconds::pg_catalog.text, true);
            SELECT c.* INTO wanted, made FROM cmk_internal.change_column(change) c;
            PERFORM pg_catalog.set_config('lock_timeout', before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt OPERATOR(pg_catalog.>=) COALESCE(lock_attempts, 10) THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(pg_catalog.random() OPERATOR(pg_catalog.*) LEAST(attempt, 5) OPERATOR(pg_catalog.*) 0.4);
    END LOOP;
END
$$;
