-- One run, one session: us beside our peers. Prints a table; fails only if something doesn't work.
-- Times are per row, above a bare scan of the same rows of the same round; figures are medians of
-- :runs rounds, ratios medians of each round's ratio.
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
CREATE FUNCTION bench.cipher(bytes int, calls int, one_by_one bool DEFAULT false) RETURNS double precision
    LANGUAGE c VOLATILE STRICT AS '$libdir/cmk_encrypt', 'bench_cipher_wrapper';
CREATE FUNCTION bench.cipher_at_hand(bytes int, calls int, one_by_one bool DEFAULT false) RETURNS double precision
    LANGUAGE c VOLATILE STRICT AS '$libdir/cmk_encrypt', 'bench_cipher_at_hand_wrapper';
CREATE FUNCTION bench.count(calls int) RETURNS double precision
    LANGUAGE c VOLATILE STRICT AS '$libdir/cmk_encrypt', 'bench_count_wrapper';

CREATE TABLE bench.clear AS
    SELECT sha512(i::text::bytea) AS v FROM generate_series(1, :rows) i;
CREATE TABLE bench.sealed AS
    SELECT cmk_encrypt('bench', v) AS v FROM bench.clear;
-- Sealed one a statement: an INSERT in a function is one.
CREATE TABLE bench.alone (v bytea);
DO $$
DECLARE
    value bytea;
BEGIN
    FOR value IN SELECT v FROM bench.clear LOOP
        INSERT INTO bench.alone VALUES (cmk_encrypt('bench', value));
    END LOOP;
END
$$;
VACUUM (ANALYZE) bench.clear;
VACUUM (ANALYZE) bench.sealed;
VACUUM (ANALYZE) bench.alone;

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
\echo :rows 'rows of 64 bytes, one warm backend, ns a row above a bare scan'
\echo
CREATE TABLE bench.call AS
SELECT * FROM (VALUES
    ('bare scan', 'v', 'clear'),
    ('bare scan', 'v', 'sealed'),
    ('bare scan', 'v', 'alone'),
    ('cmk_encrypt', $$cmk_encrypt('bench', v)$$, 'clear'),
    ('cmk_decrypt, sealed together', $$cmk_decrypt('bench', v)$$, 'sealed'),
    ('cmk_decrypt, sealed one a statement', $$cmk_decrypt('bench', v)$$, 'alone'),
    ('pgrx identity', $$bench.identity(v)$$, 'clear'),
    ('sha256(bytea)', $$sha256(v)$$, 'clear'),
    ('pgcrypto encrypt aes', $$encrypt(v, '0123456789abcdef0123456789abcdef', 'aes')$$, 'clear'),
    ('pgp_sym_encrypt_bytea', $$pgp_sym_encrypt_bytea(v, 'k', 's2k-mode=0')$$, 'clear')
  ) AS of (name, expression, source);

-- Round by round, so that a slow minute of the machine meets all alike.
CREATE TABLE bench.sample (round int, name text, source text, ms double precision);
CREATE TABLE bench.bare (round int, message_key text, ns double precision, one_by_one double precision);
DO $$
DECLARE
    one bench.call;
BEGIN
    FOR round IN 1 .. current_setting('bench.runs')::int LOOP
        FOR one IN SELECT * FROM bench.call LOOP
            INSERT INTO bench.sample SELECT round, one.name, one.source, bench.best_ms(
                format('SELECT count(%s) FROM bench.%I', one.expression, one.source), 1);
        END LOOP;
        INSERT INTO bench.bare VALUES
            (round, 'derived', bench.cipher(64, 200000), bench.cipher(64, 200000, true)),
            (round, 'at hand', bench.cipher_at_hand(64, 200000), bench.cipher_at_hand(64, 200000, true));
    END LOOP;
END
$$;

CREATE TEMP TABLE peer AS
SELECT call.round, call.name, (call.ms - bare.ms) * 1e6 / :rows AS ns
  FROM bench.sample AS call JOIN bench.sample AS bare USING (round, source)
 WHERE bare.name = 'bare scan' AND call.name <> 'bare scan';

CREATE FUNCTION bench.median(double precision[]) RETURNS double precision LANGUAGE sql AS
    'SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM unnest($1) x';

CREATE TEMP TABLE target (call text, peer text, most numeric);
INSERT INTO target VALUES
    ('cmk_encrypt', 'sha256(bytea)', 0.40), ('cmk_encrypt', 'pgcrypto encrypt aes', 0.22),
    ('cmk_encrypt', 'pgp_sym_encrypt_bytea', 0.08),
    ('cmk_decrypt, sealed together', 'sha256(bytea)', 0.40),
    ('cmk_decrypt, sealed one a statement', 'sha256(bytea)', 0.58);

SELECT name AS call, round(bench.median(array_agg(ns))) AS "ns/row", round(min(ns)) AS least, round(max(ns)) AS most
  FROM peer GROUP BY name ORDER BY 2;

SELECT target.call, 'against ' || target.peer AS peer,
       round(bench.median(array_agg(ours.ns / peer.ns))::numeric, 3) AS ratio, target.most AS "at most",
       CASE WHEN bench.median(array_agg(ours.ns / peer.ns)) <= target.most THEN 'met' ELSE 'MISSED' END AS figure
  FROM target JOIN peer ours ON ours.name = target.call JOIN peer ON peer.name = target.peer AND peer.round = ours.round
 GROUP BY target.call, target.peer, target.most ORDER BY 1, 4;

\echo 'Above a pgrx function that does nothing, against the bare cipher of the same round'
\echo
CREATE TEMP TABLE share (call text, message_key text, most numeric);
INSERT INTO share VALUES
    ('cmk_encrypt', 'at hand', 3), ('cmk_decrypt, sealed together', 'at hand', 3),
    ('cmk_decrypt, sealed one a statement', 'derived', 2);
SELECT call, 'message key ' || message_key AS "bare cipher", round(bench.median(array_agg(bare.ns))::numeric, 1) AS "its ns",
       round(bench.median(array_agg((ours.ns - identity.ns) / bare.ns))::numeric, 2) AS ratio, most AS "at most",
       CASE WHEN bench.median(array_agg((ours.ns - identity.ns) / bare.ns)) <= most THEN 'met' ELSE 'MISSED' END AS figure,
       round(bench.median(array_agg(bare.one_by_one))::numeric, 1) AS "its ns one by one",
       round(bench.median(array_agg((ours.ns - identity.ns) / bare.one_by_one))::numeric, 2) AS ratio
  FROM share JOIN bench.bare USING (message_key) JOIN peer ours ON ours.name = call AND ours.round = bare.round
  JOIN peer identity ON identity.name = 'pgrx identity' AND identity.round = bare.round
 GROUP BY call, message_key, most ORDER BY 1;

\echo 'Counting what a data key sealed, which each cmk_encrypt does once'
\echo
SELECT round(bench.count(10000000)::numeric, 2) AS "ns/call",
       round((bench.count(10000000) / bench.median(array_agg(ns)) * 100)::numeric, 2) AS "% of cmk_encrypt"
  FROM peer WHERE name = 'cmk_encrypt';

\echo 'Values in memory, us a value: the bare cipher of the same run, and pgcrypto aes'
\echo
CREATE TEMP TABLE big (bytes int, calls int);
INSERT INTO big VALUES (16384, 10000), (1048576, 200);
CREATE TEMP TABLE big_call (name text, expression text, value text);
INSERT INTO big_call VALUES
    ('cmk_encrypt', $$cmk_encrypt('bench', v)$$, '%s'), ('cmk_decrypt', $$cmk_decrypt('bench', v)$$, $$cmk_encrypt('bench', %s)$$),
    ('pgcrypto encrypt', $$encrypt(v, '0123456789abcdef0123456789abcdef', 'aes')$$, '%s'),
    ('pgcrypto decrypt', $$decrypt(v, '0123456789abcdef0123456789abcdef', 'aes')$$,
     $$encrypt(%s, '0123456789abcdef0123456789abcdef', 'aes')$$);
CREATE TEMP TABLE big_sample (round int, bytes int, name text, us double precision);
DO $$
DECLARE
    it record;
BEGIN
    FOR round IN 1 .. current_setting('bench.runs')::int LOOP
        FOR it IN SELECT * FROM big, big_call LOOP
            INSERT INTO big_sample SELECT round, it.bytes, it.name, bench.best_ms(format(
                'SELECT count(%s) FROM generate_series(1, %s), (SELECT %s AS v OFFSET 0) AS big', it.expression, it.calls,
                format(it.value, format($q$decode(repeat('00', %s), 'hex')$q$, it.bytes))), 1) * 1e3 / it.calls;
        END LOOP;
        INSERT INTO big_sample
            SELECT round, bytes, 'bare cipher', bench.cipher(bytes, calls / 5) / 1e3 FROM big;
    END LOOP;
END
$$;
SELECT ours.bytes, ours.name AS call, round(bench.median(array_agg(ours.us))::numeric, 1) AS "us/value",
       round(bench.median(array_agg(bare.us / ours.us * 100))::numeric) AS "% of cipher",
       round(bench.median(array_agg(ours.us / encrypt.us))::numeric, 3) AS "x pgcrypto encrypt",
       round(bench.median(array_agg(ours.us / decrypt.us))::numeric, 3) AS "x pgcrypto decrypt"
  FROM big_sample ours JOIN big_sample bare USING (round, bytes) JOIN big_sample encrypt USING (round, bytes)
  JOIN big_sample decrypt USING (round, bytes)
 WHERE bare.name = 'bare cipher' AND encrypt.name = 'pgcrypto encrypt' AND decrypt.name = 'pgcrypto decrypt'
 GROUP BY ours.bytes, ours.name ORDER BY 1, 3;
\echo 'Asked: 60 % of the cipher and 1.1 x pgcrypto decrypt at 1 MiB; 16 kB faster than its encrypt, 1.2 x its decrypt'
