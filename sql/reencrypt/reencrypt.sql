-- cmk.reencrypt(): values that are under older data keys of their tenants are sealed under the
-- newest, a batch at a time, while the table is in use. Each batch is a transaction of its own.
--
-- Rows are found by their place in the table: in any table, without a key, and without reading
-- blocks at random. Where somebody else updates a row meanwhile it goes to another place, perhaps
-- one that was passed; so the table is gone through again until nothing is left.

-- Tries one batch the fast way or, careful, the slower ones: up to so many rows behind a place, and
-- before a block. last: its end; null if there is nothing to do. outcome: done; busy if others hold
-- what it takes; failed with the error's fields. failures: key and reason of rows that cannot be
-- done; unavailable: tenants of which none can.
--
-- full_blocks: in how many blocks the last batch found its rows. Where so many are to be renewed
-- that each block is full of them, they are not looked for first: the next blocks are a batch. Null
-- where they are looked for.
CREATE FUNCTION cmk_internal.reencrypt_batch(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, before pg_catalog.int8, most pg_catalog.int4,
    skip pg_catalog.text[], INOUT careful pg_catalog.bool, INOUT full_blocks pg_catalog.int8,
    OUT last pg_catalog.tid, OUT outcome pg_catalog.text,
    OUT rows pg_catalog.int8, OUT failures pg_catalog.jsonb, OUT unavailable pg_catalog.text[], OUT error pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
    -- A batch of long values has fewer rows.
    most_bytes CONSTANT pg_catalog.int8 := 16777216;
    -- Fewer blocks would hold many rows more, or less, than a batch.
    fewest_full_blocks CONSTANT pg_catalog.int8 := 8;
    first_block CONSTANT pg_catalog.int8 := (behind::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8;
    looks_first pg_catalog.bool;
    found_rows pg_catalog.record;
    problems pg_catalog.jsonb := '[]';
    detail pg_catalog.text;
    hint pg_catalog.text;
    is_about_rows pg_catalog.bool := false;
BEGIN
    outcome := 'done';
    rows := 0;
    failures := '[]';
    unavailable := '{}';
    looks_first := careful OR cmk_internal.has_values_elsewhere(target.relation);
    IF full_blocks IS NOT NULL AND NOT looks_first THEN
        BEGIN
            last := pg_catalog.format('(%s,0)', LEAST(before, first_block OPERATOR(pg_catalog.+) full_blocks));
            rows := cmk_internal.reencrypt_all(target, behind, last, skip);
            IF rows OPERATOR(pg_catalog.<) (most OPERATOR(pg_catalog./) 2) THEN
                full_blocks := NULL;
            END IF;
            RETURN;
        EXCEPTION WHEN OTHERS THEN
            -- Below this is tried again, and told; what others hold, without waiting for it.
            full_blocks := NULL;
            rows := 0;
            careful := SQLSTATE OPERATOR(pg_catalog.=) ANY ('{40001, 40P01, 55P03}');
        END;
    END IF;
    BEGIN
        SELECT f.* INTO found_rows FROM cmk_internal.reencrypt_find(target, behind, before, skip, most) f;
        IF found_rows.bytes OPERATOR(pg_catalog.>) most_bytes AND found_rows.rows OPERATOR(pg_catalog.>) 1 THEN
            SELECT f.* INTO found_rows
              FROM cmk_internal.reencrypt_find(target, behind, before, skip,
                       GREATEST(1, found_rows.rows OPERATOR(pg_catalog.*) most_bytes OPERATOR(pg_catalog./) found_rows.bytes)::pg_catalog.int4) f;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        outcome := CASE WHEN SQLSTATE OPERATOR(pg_catalog.=) '55P03' THEN 'busy' ELSE 'failed' END;
        error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
        RETURN;
    END;
    last := found_rows.last;
    IF last IS NULL THEN
        full_blocks := NULL;
        RETURN;
    END IF;
    full_blocks := (last::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8 OPERATOR(pg_catalog.-) first_block;
    IF looks_first OR found_rows.rows OPERATOR(pg_catalog.<) most OR full_blocks OPERATOR(pg_catalog.<) fewest_full_blocks THEN
        full_blocks := NULL;
    END IF;
    IF NOT careful THEN
        BEGIN
            rows := cmk_internal.reencrypt_all(target, behind, last, skip);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            careful := true;
            IF NOT SQLSTATE OPERATOR(pg_catalog.=) ANY ('{40001, 40P01, 55P03}')
               AND NOT cmk_internal.concerns_row(SQLSTATE, detail) THEN
                outcome := 'failed';
                error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
            END IF;
        END;
    END IF;
    IF careful AND outcome OPERATOR(pg_catalog.=) 'done' THEN
        BEGIN
            SELECT p.done, p.problems INTO rows, problems
              FROM cmk_internal.reencrypt_possible(target, behind, last, skip) p;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            is_about_rows := cmk_internal.concerns_row(SQLSTATE, detail);
            IF SQLSTATE OPERATOR(pg_catalog.=) ANY ('{40001, 40P01, 55P03}') THEN
                outcome := 'busy';
            ELSIF NOT is_about_rows THEN
                outcome := 'failed';
            END IF;
            error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
        END;
    END IF;
    IF is_about_rows THEN
        BEGIN
            SELECT p.done, p.problems INTO rows, problems
              FROM cmk_internal.reencrypt_each(target, behind, last, skip) p;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            outcome := 'failed';
            error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
        END;
    END IF;
    -- A second line names a tenant, of whom nothing more is tried.
    SELECT COALESCE(pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_object(
               'key', CASE WHEN p.tenant OPERATOR(pg_catalog.=) '' THEN p.key ELSE pg_catalog.jsonb_build_object('tenant', p.tenant) END,
               'reason', p.reason, 'is_row', p.tenant OPERATOR(pg_catalog.=) '')), '[]'),
           COALESCE(pg_catalog.array_agg(DISTINCT p.tenant) FILTER (WHERE p.tenant OPERATOR(pg_catalog.<>) ''), '{}')
      INTO failures, unavailable
      FROM (SELECT f.key, pg_catalog.split_part(f.problem, E'\n', 1), pg_catalog.split_part(f.problem, E'\n', 2)
              FROM pg_catalog.jsonb_to_recordset(problems) f (key pg_catalog.jsonb, problem pg_catalog.text)) p (key, reason, tenant);
    IF failures OPERATOR(pg_catalog.=) '[]'::pg_catalog.jsonb AND outcome OPERATOR(pg_catalog.=) 'done' AND NOT is_about_rows THEN
        careful := false;
    END IF;
END
$$;

-- Whether a table has values outside of its blocks. What blocks hold is no bound then on how much a
-- batch of them is.
CREATE FUNCTION cmk_internal.has_values_elsewhere(relation pg_catalog.regclass) RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT c.reltoastrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
                   AND pg_catalog.pg_relation_size(c.reltoastrelid) OPERATOR(pg_catalog.>) 0
              FROM pg_catalog.pg_class c
             WHERE c.oid OPERATOR(pg_catalog.=) has_values_elsewhere.relation::pg_catalog.oid);
END
$$;

-- How many rows are to be renewed still, but for tenants that are skipped.
CREATE FUNCTION cmk_internal.count_outdated(target cmk_internal.reencrypt_target, skip pg_catalog.text[]) RETURNS pg_catalog.int8
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET jit = off SET row_security = off
AS $$
DECLARE
    number pg_catalog.int8;
BEGIN
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM ONLY %s AS "new" WHERE %s%s',
        target.relation, target.outdated, cmk_internal.not_skipped(target, skip)) INTO number;
    RETURN number;
END
$$;

-- What a run would do: values that are to be renewed, and why some cannot be.
CREATE FUNCTION cmk_internal.tell_dry_run(targets cmk_internal.reencrypt_target[]) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET jit = off SET row_security = off
AS $$
DECLARE
    target cmk_internal.reencrypt_target;
    item pg_catalog.record;
BEGIN
    FOREACH target IN ARRAY targets LOOP
        FOR item IN EXECUTE pg_catalog.format(
            'SELECT pg_catalog.split_part(o.problem, E''\n'', 1) AS reason, pg_catalog.count(*) AS number
               FROM (SELECT %s FROM ONLY %s AS "new" WHERE %s) o (problem)
              GROUP BY 1 ORDER BY 1 NULLS FIRST', target.problem, target.relation, target.outdated)
        LOOP
            IF item.reason IS NULL THEN
                RAISE NOTICE '% of %: % values are to be re-encrypted', pg_catalog.quote_ident(target."column"), target.relation, item.number;
            ELSE
                RAISE WARNING '% of %: % values cannot be re-encrypted, reason=%', pg_catalog.quote_ident(target."column"),
                    target.relation, item.number, item.reason;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The end of a run on one table. left_over: what cmk_internal.reencrypt_note() returned.
CREATE FUNCTION cmk_internal.tell_reencrypted(
    target cmk_internal.reencrypt_target, total pg_catalog.int8, failed pg_catalog.int8, left_over pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    RAISE NOTICE '% of %: % values re-encrypted', pg_catalog.quote_ident((target)."column"), (target).relation, total;
    FOR item IN
        SELECT o.key AS id, o.value AS number, NULLIF(pg_catalog.split_part(f.facts, E'\n', 3), '') AS tenant,
               pg_catalog.split_part(f.facts, E'\n', 1) AS version
          FROM pg_catalog.jsonb_each_text(left_over) o
         CROSS JOIN LATERAL cmk_internal.data_key_facts(pg_catalog.decode(o.key, 'hex')) f (facts)
         ORDER BY 3, 4, 1 LIMIT 50
    LOOP
        RAISE WARNING '% of %: % values are %', pg_catalog.quote_ident((target)."column"), (target).relation, item.number,
            CASE WHEN item.id OPERATOR(pg_catalog.=) '' THEN 'no envelopes of cmk_encrypt()'
                 WHEN item.tenant IS NULL THEN pg_catalog.format('under data key %s, which is not known or not yours', item.id)
                 ELSE pg_catalog.format('under version %s of tenant %s still', item.version, pg_catalog.to_json(item.tenant)) END
            USING HINT = 'cmk.reencrypt_failures lists rows that could not be done, and why. Others were held by somebody else: CALL cmk.reencrypt() again.';
    END LOOP;
END
$$;

-- A procedure that commits can have no SET clause: so all names are qualified, and helpers do what
-- depends on search_path.
--
-- pause: how long to sleep after a batch, in times of what the batch took. The time that it waited
-- for a processor is left out: while others keep the processors busy, they slow a batch down.
CREATE PROCEDURE cmk.reencrypt(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant_column pg_catalog.name DEFAULT NULL,
    aad pg_catalog.text DEFAULT NULL, only_tenant pg_catalog.text DEFAULT NULL, batch pg_catalog.int4 DEFAULT 2000,
    pause pg_catalog.numeric DEFAULT 1.2, dry_run pg_catalog.bool DEFAULT false)
LANGUAGE plpgsql
AS $$
DECLARE
    -- Blocks that are looked through at a time where nothing is to be done.
    window_blocks CONSTANT pg_catalog.int8 := 16384;
    -- So often the table is gone through without a row that gets done, and all in all.
    most_stalls CONSTANT pg_catalog.int4 := 5;
    most_passes CONSTANT pg_catalog.int4 := 100;
    targets cmk_internal.reencrypt_target[];
    target cmk_internal.reencrypt_target;
    made pg_catalog.record;
    behind pg_catalog.tid;
    block pg_catalog.int8;
    blocks pg_catalog.int8;
    pass pg_catalog.int4;
    stalls pg_catalog.int4;
    total pg_catalog.int8;
    done_in_pass pg_catalog.int8;
    failed pg_catalog.int8;
    failures pg_catalog.jsonb;
    skip pg_catalog.text[];
    careful pg_catalog.bool;
    full_blocks pg_catalog.int8;
    is_over pg_catalog.bool;
    busy pg_catalog.int4;
    still pg_catalog.int8;
    started pg_catalog.timestamptz;
    waited pg_catalog.float8;
    noted pg_catalog.timestamptz;
    told pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    left_over pg_catalog.jsonb;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_pause(pause);
    PERFORM cmk_internal.refuse(ARRAY(
        SELECT o.line FROM cmk_internal.reencrypt_obstacles("table", "column", tenant_column, aad) o (line)), 'not_reencryptable');
    PERFORM cmk_internal.refuse(ARRAY[cmk_internal.aad_obstacle("table", aad)], 'not_reencryptable');
    targets := ARRAY(
        SELECT t FROM cmk_internal.reencrypt_targets("table", "column", tenant_column, aad, only_tenant) t);
    IF dry_run THEN
        PERFORM cmk_internal.tell_dry_run(targets);
        RETURN;
    END IF;
    FOREACH target IN ARRAY targets LOOP
        PERFORM cmk_internal.reencrypt_begin(target.relation, target.attnum);
        IF target.has_code AND cmk_internal.is_in_foreign_key(target.relation, target.attnum) THEN
            RAISE WARNING 'triggers of % fire while values are re-encrypted', target.relation
                USING HINT = 'The column is part of a foreign key, which PostgreSQL keeps by triggers, too.';
        ELSIF target.has_code AND NOT cmk_internal.may_replicate() THEN
            RAISE WARNING 'triggers of % fire while values are re-encrypted', target.relation
                USING HINT = 'They do not for superusers, nor for roles that were granted SET ON PARAMETER session_replication_role.';
        END IF;
    END LOOP;
    COMMIT;
    FOREACH target IN ARRAY targets LOOP
        PERFORM cmk_internal.reencrypt_note(target.relation, target.attnum, 'starting', pg_catalog.jsonb_build_object('only_tenant', only_tenant));
        COMMIT;
        pass := 0;
        stalls := 0;
        total := 0;
        block := 0;
        blocks := 0;
        busy := 0;
        failed := 0;
        done_in_pass := 0;
        skip := '{}';
        failures := '[]';
        careful := false;
        full_blocks := NULL;
        is_over := false;
        behind := '(0,0)';
        noted := pg_catalog.clock_timestamp();
        LOOP
            IF block OPERATOR(pg_catalog.>=) blocks THEN
                IF pass OPERATOR(pg_catalog.>) 0 THEN
                    IF only_tenant IS NULL AND skip OPERATOR(pg_catalog.=) '{}'::pg_catalog.text[] THEN
                        -- If nothing is left, that is the end, and written down.
                        left_over := cmk_internal.reencrypt_note(target.relation, target.attnum, 'counting', pg_catalog.jsonb_build_object(
                            'pass', pass, 'blocks_done', block, 'blocks', blocks, 'rows_done', total, 'failed_rows', failed, 'failures', failures));
                        failures := '[]';
                        is_over := left_over OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb;
                        SELECT COALESCE(pg_catalog.sum(o.value::pg_catalog.int8), 0)::pg_catalog.int8 INTO still
                          FROM pg_catalog.jsonb_each_text(left_over) o;
                    ELSE
                        still := cmk_internal.count_outdated(target, skip);
                    END IF;
                    stalls := CASE WHEN done_in_pass OPERATOR(pg_catalog.>) 0 THEN 0 ELSE stalls OPERATOR(pg_catalog.+) 1 END;
                    EXIT WHEN still OPERATOR(pg_catalog.<=) failed
                           OR stalls OPERATOR(pg_catalog.>=) most_stalls OR pass OPERATOR(pg_catalog.>=) most_passes;
                    -- What is left is held by somebody.
                    IF stalls OPERATOR(pg_catalog.>) 0 THEN
                        COMMIT;
                        PERFORM pg_catalog.pg_sleep(0.05 OPERATOR(pg_catalog.*) stalls);
                    END IF;
                END IF;
                blocks := pg_catalog.pg_relation_size(target.relation)
                          OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8;
                EXIT WHEN blocks OPERATOR(pg_catalog.=) 0;
                pass := pass OPERATOR(pg_catalog.+) 1;
                block := 0;
                behind := '(0,0)';
                failed := 0;
                done_in_pass := 0;
            END IF;
            started := pg_catalog.clock_timestamp();
            waited := cmk_internal.waited_for_processor();
            SELECT b.* INTO made
              FROM cmk_internal.reencrypt_batch(target, behind, LEAST(blocks, block OPERATOR(pg_catalog.+) window_blocks),
                       GREATEST(COALESCE(batch, 2000), 1), skip, careful, full_blocks) b;
            careful := made.careful;
            full_blocks := made.full_blocks;
            IF made.outcome OPERATOR(pg_catalog.=) 'failed' OR made.outcome OPERATOR(pg_catalog.=) 'busy' AND busy OPERATOR(pg_catalog.>=) 50 THEN
                PERFORM cmk_internal.reencrypt_note(target.relation, target.attnum, 'failed', pg_catalog.jsonb_build_object(
                    'rows_done', total, 'failures', failures, 'last_error', pg_catalog.concat_ws(' ',
                        -- Not the message: it may hold what is in a row.
                        'sqlstate=' OPERATOR(pg_catalog.||) (made.error OPERATOR(pg_catalog.->>) 'sqlstate'),
                        pg_catalog."substring"(made.error OPERATOR(pg_catalog.->>) 'detail', '^reason=\w+'))));
                COMMIT;
                RAISE EXCEPTION USING ERRCODE = made.error OPERATOR(pg_catalog.->>) 'sqlstate',
                    MESSAGE = made.error OPERATOR(pg_catalog.->>) 'message',
                    DETAIL = COALESCE(made.error OPERATOR(pg_catalog.->>) 'detail', ''), HINT = COALESCE(made.error OPERATOR(pg_catalog.->>) 'hint', '');
            ELSIF made.outcome OPERATOR(pg_catalog.=) 'busy' THEN
                busy := busy OPERATOR(pg_catalog.+) 1;
            ELSIF made.last IS NULL THEN
                block := LEAST(blocks, block OPERATOR(pg_catalog.+) window_blocks);
                behind := pg_catalog.format('(%s,0)', block);
            ELSE
                busy := 0;
                total := total OPERATOR(pg_catalog.+) made.rows;
                done_in_pass := done_in_pass OPERATOR(pg_catalog.+) made.rows;
                skip := skip OPERATOR(pg_catalog.||) made.unavailable;
                failures := failures OPERATOR(pg_catalog.||) made.failures;
                failed := failed OPERATOR(pg_catalog.+) pg_catalog.jsonb_array_length(
                    pg_catalog.jsonb_path_query_array(made.failures, '$[*] ? (@.is_row == true)'));
                behind := made.last;
                block := (behind::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8;
            END IF;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) noted OPERATOR(pg_catalog.>) '1 second'::pg_catalog.interval
               OR pg_catalog.jsonb_array_length(failures) OPERATOR(pg_catalog.>) 100 THEN
                noted := pg_catalog.clock_timestamp();
                PERFORM cmk_internal.reencrypt_note(target.relation, target.attnum, 'running', pg_catalog.jsonb_build_object(
                    'pass', pass, 'blocks_done', block, 'blocks', blocks, 'rows_done', total, 'failed_rows', failed, 'failures', failures));
                failures := '[]';
            END IF;
            -- A batch that a crash takes back is done again.
            PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
            COMMIT;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told OPERATOR(pg_catalog.>) '5 seconds'::pg_catalog.interval THEN
                told := pg_catalog.clock_timestamp();
                RAISE NOTICE '% of %: % of % blocks, % values re-encrypted', pg_catalog.quote_ident(target."column"),
                    target.relation, block, blocks, total;
            END IF;
            PERFORM pg_catalog.pg_sleep(GREATEST(COALESCE(pause, 1.2), 0)::pg_catalog.float8 OPERATOR(pg_catalog.*) GREATEST(0,
                pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started)
                OPERATOR(pg_catalog.-) (cmk_internal.waited_for_processor() OPERATOR(pg_catalog.-) waited)));
        END LOOP;
        -- The last look did not count those of tenants that were skipped.
        IF pass OPERATOR(pg_catalog.=) 0 THEN
            still := 0;
        ELSIF pg_catalog.cardinality(skip) OPERATOR(pg_catalog.>) 0 THEN
            still := cmk_internal.count_outdated(target, '{}');
        END IF;
        IF NOT is_over THEN
            left_over := cmk_internal.reencrypt_note(target.relation, target.attnum,
                CASE WHEN still OPERATOR(pg_catalog.=) 0 THEN 'done' ELSE 'incomplete' END, pg_catalog.jsonb_build_object(
                    'pass', pass, 'blocks_done', block, 'blocks', blocks, 'rows_done', total, 'failed_rows', still, 'failures', failures));
        END IF;
        COMMIT;
        PERFORM cmk_internal.tell_reencrypted(target, total, failed, CASE WHEN still OPERATOR(pg_catalog.>) 0 THEN left_over ELSE '{}' END);
    END LOOP;
    PERFORM cmk_internal.reencrypt_end();
END
$$;
