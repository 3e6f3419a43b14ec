-- One run, one session: us beside our peers. Prints a table; fails only if something doesn't work.
-- Times are the best of :runs, per row, above a bare scan of the same rows.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET jit = off;
SET bench.runs = :runs;
SET max_parallel_workers_per_gather = 0;

CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE EXTENSION IF NOT EXISTS cmk_encrypt;
SELECT cmk.register_tenant('bench', 'local:bench') \g /dev/null
SELECT cmk.grant_access('bench', CURRENT_USER::regrole) \g /dev/null
CREATE SCHEMA bench;
-- src/sql/bench.rs, which no release has
CREATE FUNCTION bench.identity(bytea) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS '$libdir/cmk_encrypt', 'bench_identity_wrapper';
CREATE FUNCTION bench.cipher(bytes int, calls int) RETURNS double precision
    LANGUAGE c VOLATILE STRICT AS '$libdir/cmk_encrypt', 'bench_cipher_wrapper';
CREATE FUNCTION bench.count(calls int) RETURNS double precision
    LANGUAGE c VOLATILE STRICT AS '$libdir/cmk_encrypt', 'bench_count_wrapper';

CREATE TABLE bench.clear AS
    SELECT sha512(i::text::bytea) AS v FROM generate_series(1, :rows) i;
CREATE TABLE bench.sealed AS
    SELECT cmk_encrypt('bench', v) AS v FROM bench.clear;
VACUUM (ANALYZE) bench.clear;
VACUUM (ANALYZE) bench.sealed;

CREATE FUNCTION bench.best_ms(query text, runs int) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    best double precision := 'infinity';
    started timestamptz;
BEGIN
    FOR i IN 1 .. runs LOOP
        started := clock_timestamp();
        EXECUTE query;
        best := least(best, extract(epoch FROM clock_timestamp() - started) * 1e3);
    END LOOP;
    RETURN best;
END
$$;

\echo
\echo ':rows rows of 64 bytes, one warm backend, ns a row above a bare scan'
\echo
CREATE TABLE bench.call AS
SELECT *, double precision 'infinity' AS ms
  FROM (VALUES
    ('bare scan', 'v', 'clear'),
    ('bare scan', 'v', 'sealed'),
    ('cmk_encrypt', $$cmk_encrypt('bench', v)$$, 'clear'),
    ('cmk_decrypt', $$cmk_decrypt('bench', v)$$, 'sealed'),
    ('pgrx identity', $$bench.identity(v)$$, 'clear'),
    ('sha256(bytea)', $$sha256(v)$$, 'clear'),
    ('pgcrypto encrypt aes', $$encrypt(v, '0123456789abcdef0123456789abcdef', 'aes')$$, 'clear'),
    ('pgp_sym_encrypt_bytea', $$pgp_sym_encrypt_bytea(v, 'k', 's2k-mode=0')$$, 'clear')
  ) AS of (name, expression, source);

-- Round by round, so that a slow minute of the machine meets all alike.
DO $$
DECLARE
    one bench.call;
BEGIN
    FOR round IN 1 .. current_setting('bench.runs')::int LOOP
        FOR one IN SELECT * FROM bench.call LOOP
            UPDATE bench.call AS c
               SET ms = least(c.ms, bench.best_ms(
                       format('SELECT count(%s) FROM bench.%I', one.expression, one.source), 1))
             WHERE (c.name, c.source) = (one.name, one.source);
        END LOOP;
    END LOOP;
END
$$;

CREATE TEMP TABLE peer AS
SELECT call.name, (call.ms - bare.ms) * 1e6 / :rows AS ns
  FROM bench.call JOIN bench.call AS bare ON bare.name = 'bare scan' AND bare.source = call.source
 WHERE call.name <> 'bare scan';

CREATE TEMP TABLE target (peer text, most numeric);
INSERT INTO target VALUES ('sha256(bytea)', 0.75), ('pgcrypto encrypt aes', 0.40),
                          ('pgp_sym_encrypt_bytea', 0.08), ('pgrx identity', 4);

SELECT name AS call, round(ns) AS "ns/row" FROM peer ORDER BY ns;

SELECT ours.name AS call, 'against ' || target.peer AS peer,
       round((ours.ns / peer.ns)::numeric, 3) AS ratio, target.most AS "at most",
       CASE WHEN ours.ns / peer.ns <= target.most THEN 'met' ELSE 'MISSED' END AS figure
  FROM peer ours, target JOIN peer ON peer.name = target.peer
 WHERE ours.name LIKE 'cmk%' ORDER BY 1, 4;

\echo 'Counting what a data key sealed, which each cmk_encrypt does once'
\echo
SELECT round(bench.count(10000000)::numeric, 2) AS "ns/call",
       round((bench.count(10000000) / ns * 100)::numeric, 2) AS "% of cmk_encrypt"
  FROM peer WHERE name = 'cmk_encrypt';

\echo '1 MiB values in memory, throughput against the bare cipher of the same run'
\echo
SELECT call, round((1048576 / ns * 1e3)::numeric) AS "MB/s",
       round((raw / ns * 100)::numeric) AS "% of cipher",
       60 AS "at least", CASE WHEN raw / ns >= 0.6 THEN 'met' ELSE 'MISSED' END AS figure
  FROM bench.cipher(1048576, 100) raw,
       LATERAL (VALUES ('bare cipher', raw),
         ('cmk_encrypt', bench.best_ms($$
             SELECT count(cmk_encrypt('bench', v)) FROM generate_series(1, 200),
                 (SELECT decode(repeat('00', 1048576), 'hex') AS v OFFSET 0) AS big
             $$, :runs) * 1e6 / 200),
         ('cmk_decrypt', bench.best_ms($$
             SELECT count(cmk_decrypt('bench', v)) FROM generate_series(1, 200),
                 (SELECT cmk_encrypt('bench', decode(repeat('00', 1048576), 'hex')) AS v OFFSET 0) AS big
             $$, :runs) * 1e6 / 200)
       ) AS measured (call, ns);
