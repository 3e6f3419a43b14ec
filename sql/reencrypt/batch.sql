-- One batch of cmk.reencrypt(): found, and done in one of three ways. Each finds the row as it is
-- when it changes it, so that no newer value is overwritten.
--
-- These have no pinned search_path: the caller's aad is read in the caller's. All else is
-- qualified. enable_seqscan and jit: rows are found by their place, in its order.

-- Up to so many rows behind a place, and before a block, that are to be renewed.
CREATE FUNCTION cmk_internal.reencrypt_find(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, before pg_catalog.int8, skip pg_catalog.text[],
    most pg_catalog.int4, OUT last pg_catalog.tid, OUT rows pg_catalog.int8, OUT bytes pg_catalog.int8)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '1s'
AS $$
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.max(f.at), pg_catalog.count(*), COALESCE(pg_catalog.sum(f.bytes), 0)::pg_catalog.int8
           FROM (SELECT "new".ctid, pg_catalog.pg_column_size("new".%I)::pg_catalog.int8 FROM ONLY %s AS "new"
                  WHERE "new".ctid OPERATOR(pg_catalog.>) %L AND "new".ctid OPERATOR(pg_catalog.<) %L AND %s%s LIMIT %s) f (at, bytes)',
        target."column", target.relation, behind, pg_catalog.format('(%s,0)', before), target.outdated,
        cmk_internal.not_skipped(target, skip), most)
        INTO last, rows, bytes;
END
$$;

-- Tenants whose values cannot be renewed now are not tried again and again. In PL/pgSQL, which
-- keeps what it made of this: it runs several times a batch.
CREATE FUNCTION cmk_internal.not_skipped(target cmk_internal.reencrypt_target, skip pg_catalog.text[]) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_catalog.cardinality(skip) OPERATOR(pg_catalog.=) 0 THEN
        RETURN '';
    END IF;
    RETURN pg_catalog.format(' AND (%1$s OPERATOR(pg_catalog.=) ANY (%2$L::pg_catalog.text[])) IS NOT TRUE', (target).tenant, skip);
END
$$;

-- The fast way: one UPDATE. It waits for rows that others hold, for a moment; a value that cannot
-- be renewed is an error.
CREATE FUNCTION cmk_internal.reencrypt_all(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, last pg_catalog.tid, skip pg_catalog.text[])
RETURNS pg_catalog.int8
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '100ms'
AS $$
DECLARE
    role CONSTANT pg_catalog.text := cmk_internal.leave_code_aside(target);
    done pg_catalog.int8;
BEGIN
    EXECUTE pg_catalog.format(
        'UPDATE ONLY %s AS "new" SET %I = %s
          WHERE "new".ctid OPERATOR(pg_catalog.>) %L AND "new".ctid OPERATOR(pg_catalog.<=) %L AND %s%s',
        target.relation, target."column", target.renewed, behind, last, target.outdated,
        cmk_internal.not_skipped(target, skip));
    GET DIAGNOSTICS done = ROW_COUNT;
    PERFORM pg_catalog.set_config('session_replication_role', role, true) WHERE role IS NOT NULL;
    RETURN done;
END
$$;

-- Has triggers and rules of users stay out of the next UPDATE, if the caller may. Returns how it
-- was before; null if nothing changed.
CREATE FUNCTION cmk_internal.leave_code_aside(target cmk_internal.reencrypt_target) RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('session_replication_role');
BEGIN
    IF NOT (target).has_code OR NOT cmk_internal.may_replicate()
       -- A foreign key is kept by triggers, too.
       OR cmk_internal.is_in_foreign_key((target).relation, (target).attnum) THEN
        RETURN NULL;
    END IF;
    PERFORM pg_catalog.set_config('session_replication_role', 'replica', true);
    RETURN before;
END
$$;

-- The careful way: rows that others hold are left out, and so are those whose value cannot be
-- renewed. problems: of the latter, key and problem.
CREATE FUNCTION cmk_internal.reencrypt_possible(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, last pg_catalog.tid, skip pg_catalog.text[],
    OUT done pg_catalog.int8, OUT problems pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '1s'
AS $$
DECLARE
    role CONSTANT pg_catalog.text := cmk_internal.leave_code_aside(target);
BEGIN
    -- The names of the first part are out of sight of expressions over the row, which may have
    -- columns of any name.
    EXECUTE pg_catalog.format(
        'WITH "cmk found" AS MATERIALIZED (
             SELECT "new".ctid AS "cmk ctid", %1$s AS "cmk key", %2$s AS "cmk problem" FROM ONLY %3$s AS "new"
              WHERE "new".ctid OPERATOR(pg_catalog.>) %4$L AND "new".ctid OPERATOR(pg_catalog.<=) %5$L AND %6$s%7$s
                FOR NO KEY UPDATE OF "new" SKIP LOCKED),
         "cmk done" AS (
             UPDATE ONLY %3$s AS "new" SET %8$I = %9$s
              WHERE "new".ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                    SELECT f."cmk ctid" FROM "cmk found" f WHERE f."cmk problem" IS NULL)) RETURNING 1)
         SELECT (SELECT pg_catalog.count(*) FROM "cmk done"),
                (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(''key'', "cmk key", ''problem'', "cmk problem")), ''[]'')
                   FROM "cmk found" WHERE "cmk problem" IS NOT NULL)',
        target.row_key, target.problem, target.relation, behind, last, target.outdated,
        cmk_internal.not_skipped(target, skip), target."column", target.renewed)
        INTO done, problems;
    PERFORM pg_catalog.set_config('session_replication_role', role, true) WHERE role IS NOT NULL;
END
$$;

-- Row by row, where a rule of the table keeps some from being changed at all.
CREATE FUNCTION cmk_internal.reencrypt_each(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, last pg_catalog.tid, skip pg_catalog.text[],
    OUT done pg_catalog.int8, OUT problems pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '100ms'
AS $$
DECLARE
    item pg_catalog.record;
    changed pg_catalog.int8;
    detail pg_catalog.text;
    constraint_name pg_catalog.text;
    role CONSTANT pg_catalog.text := cmk_internal.leave_code_aside(target);
BEGIN
    done := 0;
    problems := '[]';
    FOR item IN EXECUTE pg_catalog.format(
        'SELECT "new".ctid AS at, %s AS key, %s AS problem FROM ONLY %s AS "new"
          WHERE "new".ctid OPERATOR(pg_catalog.>) %L AND "new".ctid OPERATOR(pg_catalog.<=) %L AND %s%s',
        target.row_key, target.problem, target.relation, behind, last, target.outdated,
        cmk_internal.not_skipped(target, skip))
    LOOP
        IF item.problem IS NOT NULL THEN
            problems := problems OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('key', item.key, 'problem', item.problem);
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE pg_catalog.format(
                'UPDATE ONLY %s AS "new" SET %I = %s WHERE "new".ctid OPERATOR(pg_catalog.=) %L AND %s',
                target.relation, target."column", target.renewed, item.at, target.outdated);
            GET DIAGNOSTICS changed = ROW_COUNT;
            done := done OPERATOR(pg_catalog.+) changed;
        EXCEPTION
            WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
                NULL;
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, constraint_name = CONSTRAINT_NAME;
                IF NOT cmk_internal.concerns_row(SQLSTATE, detail) THEN
                    RAISE;
                END IF;
                -- Not the message: it may hold what is in the row.
                problems := problems OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('key', item.key, 'problem',
                    COALESCE(pg_catalog."substring"(detail, '^reason=(\w+)'), pg_catalog.concat_ws(' ',
                        pg_catalog.concat('sqlstate=', SQLSTATE),
                        CASE WHEN constraint_name OPERATOR(pg_catalog.<>) '' THEN pg_catalog.concat('constraint=', constraint_name) END)));
        END;
    END LOOP;
    PERFORM pg_catalog.set_config('session_replication_role', role, true) WHERE role IS NOT NULL;
END
$$;

-- Whether an error may be about single rows, so that others can go on: about their data, a
-- constraint, a key or a trigger of users.
CREATE FUNCTION cmk_internal.concerns_row(sqlstate_text pg_catalog.text, detail pg_catalog.text) RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog."left"(concerns_row.sqlstate_text, 2) OPERATOR(pg_catalog.=) ANY ('{09, 21, 22, 23, 27, 38, 39, 44, P0}')
        OR cmk_internal.concerns_tenant(concerns_row.sqlstate_text, concerns_row.detail)
$$;
