-- How far re-encryptions got: written by runs, and shown.

-- The columns that a session holds the lock of. It is taken by cmk_internal.reencrypt_begin() only,
-- from whoever owns the table.
CREATE FUNCTION cmk_internal.reencrypt_locks(
    OUT relation pg_catalog.oid, OUT attnum pg_catalog.int2, OUT pid pg_catalog.int4)
RETURNS SETOF pg_catalog.record
LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.objid, l.objsubid, l.pid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted
       AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'
       AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
       AND l.database OPERATOR(pg_catalog.=) (
               SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
$$;

-- Rows that failed beyond these are counted only.
CREATE FUNCTION cmk_internal.failures_kept() RETURNS pg_catalog.int4
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 1000 $$;

-- How many values of a column are not under their tenant's newest data key, by the data key's id;
-- the empty id stands for what is no envelope. Reads the table without running SQL of its owner,
-- for functions that run with other rights than the owner's; they alone may call it.
CREATE FUNCTION cmk_internal.outdated_values(relation pg_catalog.oid, attnum pg_catalog.int2) RETURNS pg_catalog.jsonb
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'outdated_values_wrapper';

-- Whether there is such a value of a tenant of this registry; the same rules hold.
CREATE FUNCTION cmk_internal.has_outdated_values(relation pg_catalog.oid, attnum pg_catalog.int2) RETURNS pg_catalog.bool
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'has_outdated_values_wrapper';

-- Whether this is what a run writes down: whoever holds a column's lock may call for it.
CREATE FUNCTION cmk_internal.is_note(state pg_catalog.text, note pg_catalog.jsonb) RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT is_note.state OPERATOR(pg_catalog.=) ANY ('{starting, running, counting, done, incomplete, failed}')
       AND pg_catalog.jsonb_typeof(is_note.note) OPERATOR(pg_catalog.=) 'object'
       AND COALESCE(pg_catalog.jsonb_typeof(is_note.note OPERATOR(pg_catalog.->) 'failures'), 'array') OPERATOR(pg_catalog.=) 'array'
       AND NOT EXISTS (
               SELECT FROM pg_catalog.unnest('{pass, blocks_done, blocks, rows_done, failed_rows}'::pg_catalog.text[]) n (name)
                WHERE (is_note.note OPERATOR(pg_catalog.->>) n.name) OPERATOR(pg_catalog.!~) '^[0-9]{1,18}$'
                   OR n.name OPERATOR(pg_catalog.=) 'pass' AND pg_catalog.length(is_note.note OPERATOR(pg_catalog.->>) n.name) OPERATOR(pg_catalog.>) 9)
       AND NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_array_elements(CASE WHEN pg_catalog.jsonb_typeof(is_note.note OPERATOR(pg_catalog.->) 'failures')
                          OPERATOR(pg_catalog.=) 'array' THEN is_note.note OPERATOR(pg_catalog.->) 'failures' ELSE '[]' END) f (it)
                WHERE pg_catalog.jsonb_typeof(f.it) OPERATOR(pg_catalog.<>) 'object'
                   OR f.it OPERATOR(pg_catalog.->) 'key' IS NULL OR f.it OPERATOR(pg_catalog.->>) 'reason' IS NULL)
$$;

-- Writes down what a run has done so far. SECURITY DEFINER, as owners of tables cannot write the
-- tables of this schema: whoever calls it holds the column's lock, and so owns the table. What is
-- left at the end it counts by itself, from headers, and returns by data key. counting: it is the
-- end, and the run done, if nothing is left; else only the count is returned.
CREATE FUNCTION cmk_internal.reencrypt_note(
    relation pg_catalog.oid, attnum pg_catalog.int2, state pg_catalog.text, note pg_catalog.jsonb)
RETURNS pg_catalog.jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    what_is_left pg_catalog.jsonb;
    place pg_catalog.jsonb;
    has_values pg_catalog.bool;
    tenant_named pg_catalog.text;
BEGIN
    PERFORM FROM cmk_internal.reencrypt_locks() l
           WHERE l.relation OPERATOR(pg_catalog.=) reencrypt_note.relation
             AND l.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
             AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid();
    IF NOT FOUND THEN
        PERFORM cmk.raise('not_owner');
    END IF;
    IF NOT COALESCE(cmk_internal.is_note(state, note), false) THEN
        PERFORM cmk.raise('registry_write');
    END IF;
    SELECT pg_catalog.jsonb_build_object('table', a.attrelid::pg_catalog.regclass::pg_catalog.text, 'column', a.attname)
      INTO place
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid OPERATOR(pg_catalog.=) reencrypt_note.relation AND a.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
       AND NOT a.attisdropped;
    IF state OPERATOR(pg_catalog.=) 'starting' THEN
        -- Anybody owns tables. Only who has values of a tenant of ours makes an event.
        has_values := cmk_internal.has_outdated_values(reencrypt_note.relation, reencrypt_note.attnum);
        DELETE FROM cmk.reencrypt_failure f
         WHERE f.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND f.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) f.relation);
        DELETE FROM cmk.reencrypt_job j
         WHERE j.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND j.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) j.relation);
        INSERT INTO cmk.reencrypt_job (relation, attnum, state, only_tenant, run_by, rows_estimate, is_audited)
        SELECT c.oid, reencrypt_note.attnum, 'running', note OPERATOR(pg_catalog.->>) 'only_tenant', session_user,
               GREATEST(c.reltuples, 0)::pg_catalog.int8, has_values
          FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) reencrypt_note.relation;
        IF has_values THEN
            PERFORM cmk_internal.audit('reencrypt', COALESCE(
                (SELECT t.tenant FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) (note OPERATOR(pg_catalog.->>) 'only_tenant')), '*'),
                NULL, place, '{"state": "running"}');
        END IF;
        RETURN NULL;
    END IF;
    IF state OPERATOR(pg_catalog.=) ANY ('{counting, done, incomplete}') THEN
        what_is_left := cmk_internal.outdated_values(reencrypt_note.relation, reencrypt_note.attnum);
    END IF;
    IF state OPERATOR(pg_catalog.=) 'counting' THEN
        state := 'running';
        IF what_is_left OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb THEN
            state := 'done';
            note := note OPERATOR(pg_catalog.||) '{"failed_rows": 0}';
        END IF;
    END IF;
    -- One row for each key: later passes meet the same rows again.
    DELETE FROM cmk.reencrypt_failure f
     USING pg_catalog.jsonb_to_recordset(COALESCE(note OPERATOR(pg_catalog.->) 'failures', '[]')) n (key pg_catalog.jsonb)
     WHERE f.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND f.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
       AND f.key OPERATOR(pg_catalog.=) n.key;
    INSERT INTO cmk.reencrypt_failure (relation, attnum, key, reason)
    SELECT reencrypt_note.relation, reencrypt_note.attnum, n.key, n.reason
      FROM pg_catalog.jsonb_to_recordset(COALESCE(note OPERATOR(pg_catalog.->) 'failures', '[]')) n (key pg_catalog.jsonb, reason pg_catalog.text)
     LIMIT GREATEST(0, cmk_internal.failures_kept() OPERATOR(pg_catalog.-) (
         SELECT pg_catalog.count(*) FROM cmk.reencrypt_failure f
          WHERE f.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND f.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum));
    UPDATE cmk.reencrypt_job j
       SET state = reencrypt_note.state, updated = pg_catalog.clock_timestamp(),
           left_over = CASE WHEN reencrypt_note.state OPERATOR(pg_catalog.<>) 'running' THEN what_is_left END,
           pass = COALESCE(n.pass, j.pass), blocks_done = COALESCE(n.blocks_done, j.blocks_done), blocks = COALESCE(n.blocks, j.blocks),
           rows_done = COALESCE(n.rows_done, j.rows_done), failed_rows = COALESCE(n.failed_rows, j.failed_rows),
           last_error = COALESCE(n.last_error, j.last_error)
      FROM pg_catalog.jsonb_to_record(note) n (
               pass pg_catalog.int4, blocks_done pg_catalog.int8, blocks pg_catalog.int8, rows_done pg_catalog.int8,
               failed_rows pg_catalog.int8, last_error pg_catalog.text)
     WHERE j.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND j.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
    RETURNING j.is_audited, j.only_tenant INTO has_values, tenant_named;
    IF has_values AND state OPERATOR(pg_catalog.<>) 'running' THEN
        PERFORM cmk_internal.audit('reencrypt', COALESCE(
            (SELECT t.tenant FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) tenant_named), '*'), NULL, place, pg_catalog.jsonb_build_object(
            'state', state, 'left_over', what_is_left, 'rows_done', note OPERATOR(pg_catalog.->) 'rows_done'));
    END IF;
    RETURN what_is_left;
END
$$;

-- Whether a role sees the runs on a table: its owner, and whoever monitors the server.
CREATE FUNCTION cmk_internal.sees_reencryption(relation pg_catalog.oid) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.pg_has_role('pg_monitor', 'USAGE')
        OR EXISTS (SELECT FROM pg_catalog.pg_class c
                    WHERE c.oid OPERATOR(pg_catalog.=) sees_reencryption.relation
                      AND pg_catalog.pg_has_role(c.relowner, 'USAGE'))
$$;

-- The rate and the remaining time are those of the pass that is under way.
CREATE VIEW cmk.reencrypt_progress WITH (security_barrier) AS
    SELECT c.oid::pg_catalog.regclass AS "table", a.attname AS "column",
           CASE WHEN j.state OPERATOR(pg_catalog.=) 'running' AND l.pid IS NULL THEN 'interrupted' ELSE j.state END AS state,
           l.pid, j.only_tenant, j.run_by, j.pass, j.rows_done, j.rows_estimate,
           CASE WHEN j.blocks OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.round(100.0 OPERATOR(pg_catalog.*) j.blocks_done OPERATOR(pg_catalog./) j.blocks, 1) END AS percent,
           CASE WHEN j.updated OPERATOR(pg_catalog.>) j.started
                THEN pg_catalog.round((j.rows_done OPERATOR(pg_catalog./) pg_catalog.date_part('epoch', j.updated OPERATOR(pg_catalog.-) j.started))::pg_catalog.numeric, 1)
           END AS rows_per_second,
           CASE WHEN j.state OPERATOR(pg_catalog.=) 'running' AND l.pid IS NOT NULL AND j.pass OPERATOR(pg_catalog.=) 1 AND j.blocks_done OPERATOR(pg_catalog.>) 0
                THEN j.updated OPERATOR(pg_catalog.+) ((j.updated OPERATOR(pg_catalog.-) j.started)
                     OPERATOR(pg_catalog.*) ((j.blocks OPERATOR(pg_catalog.-) j.blocks_done)::pg_catalog.float8 OPERATOR(pg_catalog./) j.blocks_done))
           END AS eta,
           j.failed_rows,
           CASE WHEN j.left_over IS NOT NULL
                THEN (SELECT COALESCE(pg_catalog.sum(o.value::pg_catalog.int8), 0)::pg_catalog.int8 FROM pg_catalog.jsonb_each_text(j.left_over) o)
           END AS rows_left,
           j.last_error, j.started, j.updated
      FROM cmk.reencrypt_job j
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) j.relation
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) j.attnum AND NOT a.attisdropped
      LEFT JOIN cmk_internal.reencrypt_locks() l
             ON l.relation OPERATOR(pg_catalog.=) j.relation AND l.attnum OPERATOR(pg_catalog.=) j.attnum
     WHERE cmk_internal.sees_reencryption(c.oid);

CREATE VIEW cmk.reencrypt_failures WITH (security_barrier) AS
    SELECT c.oid::pg_catalog.regclass AS "table", a.attname AS "column", f.key, f.reason, f.at
      FROM cmk.reencrypt_failure f
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) f.relation
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) f.attnum AND NOT a.attisdropped
     WHERE cmk_internal.sees_reencryption(c.oid);
