-- The main job on real rows, run by scripts/demo.sh as a superuser in a database without the
-- extension. Key files of local:acme and local:globex exist; :keys is their directory. Every claim
-- is checked: expect() stops the script where one does not hold.
\set QUIET on
\set ON_ERROR_STOP on
\set VERBOSITY verbose
\set SHOW_CONTEXT never
\pset footer off
\pset linestyle unicode
\pset border 1

CREATE FUNCTION public.expect(holds boolean, claim text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE 'the demonstration failed: it is not true that %', claim;
    END IF;
    RETURN '✓ ' || claim;
END $$;
CREATE FUNCTION public.ssn(id int) RETURNS text IMMUTABLE LANGUAGE sql
RETURN format('%s-%s-%s', 100 + id % 900, 10 + id % 90, 1000 + id % 9000);
CREATE ROLE app LOGIN;

\echo
\echo '── 1. Two customers bring a key each; an ordinary table has 10,000 rows of plaintext'
\set ECHO queries
CREATE EXTENSION cmk_encrypt;
SELECT cmk.register_tenant('acme', 'local:acme'), cmk.register_tenant('globex', 'local:globex');
SELECT cmk.grant_access('acme', 'app'), cmk.grant_access('globex', 'app');
CREATE TABLE customer (id int PRIMARY KEY, tenant text NOT NULL, ssn text);
INSERT INTO customer
SELECT id, (ARRAY['acme', 'globex'])[1 + id % 2], ssn(id) FROM generate_series(1, 10000) AS id;
GRANT SELECT, INSERT ON customer TO app;
\set ECHO none

\echo
\echo '── 2. The DBA protects a column, and needs a grant to seal what is there'
\timing on
\set ECHO queries
SELECT cmk.grant_access('*', current_user, decrypt => false);
SELECT cmk.protect_column('customer', 'ssn', tenant_column => 'tenant');
\set ECHO none
\timing off
\t on \pset format unaligned
SELECT expect(count(*) = 10000, 'all 10,000 values are sealed')
FROM customer WHERE cmk.is_sealed(ssn);
SELECT expect(hits >= 10000 AND kms_calls <= 10,
              format('%s values cost %s calls to the key provider', hits, kms_calls))
FROM cmk.cache_stats;
\t off \pset format aligned

\echo
\echo '── 3. Who did not ask for plaintext sees envelopes, and so does a dump'
\set ECHO queries
SELECT id, tenant, left(concat(ssn), 46) || '…' AS ssn FROM customer ORDER BY id LIMIT 3;
\set ECHO none
\echo 'pg_dump -t customer'
\set sealed `pg_dump -t customer | grep -c 'cmk1:'`
\set readable `pg_dump -t customer | grep -cE '[0-9]{3}-[0-9]{2}-[0-9]{4}'`
\t on \pset format unaligned
SELECT expect(:sealed = 10000 AND :readable = 0, 'the dump has 10,000 envelopes and no plaintext');
\t off \pset format aligned

\echo
\echo '── 4. The application keeps its SQL, and reads plaintext'
\set ECHO queries
ALTER ROLE app SET cmk_encrypt.output = plaintext;
\echo '\\connect - app'
\connect - app
INSERT INTO customer VALUES (10001, 'acme', ssn(10001));
SELECT id, tenant, ssn FROM customer WHERE ssn LIKE '101-%' ORDER BY ssn DESC LIMIT 3;
\timing on
SELECT tenant, count(*) FILTER (WHERE ssn = ssn(id)) AS readable
FROM customer GROUP BY tenant ORDER BY tenant;
\timing off
\set ECHO none
\t on \pset format unaligned
SELECT expect(count(*) = 10001 AND bool_and(ssn = ssn(id)), 'all 10,001 rows read as written')
FROM customer;
\t off \pset format aligned

\echo
\echo '── 5. Default deny: the superuser may seal, and reads nothing'
\set ON_ERROR_STOP off
\set ECHO queries
\echo '\\connect - postgres'
\connect - postgres
SET cmk_encrypt.output = plaintext;
SELECT ssn FROM customer WHERE id = 1;
\set ECHO none
\set ON_ERROR_STOP on
\t on \pset format unaligned
SELECT expect(:'LAST_ERROR_SQLSTATE' = '42501', 'refused with SQLSTATE 42501');

\echo
\echo '── 6. Globex takes its key away'
\echo 'mv globex.key elsewhere'
\setenv KEYS :keys
\! mv "$KEYS/globex.key" "$KEYS/../globex.key"
\t off \pset format aligned
\set ECHO queries
SELECT cmk.evict('globex');
\echo '\\connect - app'
\connect - app
\set ON_ERROR_STOP off
SELECT ssn FROM customer WHERE tenant = 'globex' AND id = 1;
\set ECHO none
\set ON_ERROR_STOP on
\t on \pset format unaligned
SELECT expect(:'LAST_ERROR_SQLSTATE' = '55000',
              'the data of globex went dark, with a clean error');
SELECT expect(count(*) = 5001 AND bool_and(ssn = ssn(id)), 'acme reads its 5,001 rows as before')
FROM customer WHERE tenant = 'acme';

\echo
\echo '── 7. Globex gives it back (a refusal is remembered for cmk_encrypt.failure_ttl, 3 s ± 25 %)'
\echo 'mv elsewhere globex.key'
\! mv "$KEYS/../globex.key" "$KEYS/globex.key"
SELECT pg_sleep(4) \g /dev/null
SELECT expect(count(*) = 5000 AND bool_and(ssn = ssn(id)), 'globex reads its 5,000 rows again')
FROM customer WHERE tenant = 'globex';
\echo
