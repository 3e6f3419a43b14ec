-- The main job on real rows, run by scripts/demo.sh as a superuser in a database without the
-- extension. Key files of local:acme and local:globex exist; :keys is their directory. Every claim
-- is checked: pg_temp.expect() stops the script where one does not hold.
\set QUIET on
\set ON_ERROR_STOP on
\set VERBOSITY verbose
\set SHOW_CONTEXT never
\pset footer off
\pset linestyle unicode
\pset border 1

CREATE FUNCTION pg_temp.expect(holds boolean, claim text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE 'the demonstration failed: it is not true that %', claim;
    END IF;
    RETURN '✓ ' || claim;
END $$;
CREATE ROLE app;

\echo
\echo '── 1. Two customers bring a key each; an application role may use them'
\set ECHO queries
CREATE EXTENSION cmk_encrypt;
SELECT cmk.register_tenant('acme', 'local:acme'), cmk.register_tenant('globex', 'local:globex');
SELECT cmk.grant_access('acme', 'app'), cmk.grant_access('globex', 'app');
SELECT tenant, state, key_uri, version FROM cmk.tenants ORDER BY tenant;
\set ECHO none

\echo '── 2. The application encrypts 10,000 rows, each bound to its row by its id'
CREATE TABLE customer (id int PRIMARY KEY, tenant text NOT NULL, ssn bytea NOT NULL);
GRANT SELECT, INSERT ON customer TO app;
CREATE FUNCTION pg_temp.ssn(id int) RETURNS text IMMUTABLE LANGUAGE sql
RETURN format('%s-%s-%s', 100 + id % 900, 10 + id % 90, 1000 + id % 9000);
SET ROLE app;
\timing on
\set ECHO queries
INSERT INTO customer
SELECT id, tenant, pg_catalog.cmk_encrypt_text(tenant, pg_temp.ssn(id), aad => int4send(id))
FROM generate_series(1, 10000) AS id,
     LATERAL (SELECT (ARRAY['acme', 'globex'])[1 + id % 2] AS tenant) AS t;
\set ECHO none
\timing off

\echo
\echo '── 3. On disk there are envelopes; the application reads plaintext'
\set ECHO queries
SELECT id, tenant, left(ssn::text, 46) || '…' AS stored,
       pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) AS ssn
FROM customer ORDER BY id LIMIT 4;
\timing on
SELECT tenant, count(*) FILTER (
    WHERE pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) = pg_temp.ssn(id)) AS readable
FROM customer GROUP BY tenant ORDER BY tenant;
\timing off
\set ECHO none
\t on \pset format unaligned
SELECT pg_temp.expect(count(*) = 10000
    AND bool_and(pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) = pg_temp.ssn(id)),
                      'all 10,000 rows decrypt to what went in') FROM customer;
SELECT pg_temp.expect(count(DISTINCT ssn) = 10000
    AND count(*) FILTER (WHERE position(convert_to(pg_temp.ssn(id), 'UTF8') IN ssn) > 0) = 0,
                      'no stored value holds its plaintext, and no two are alike') FROM customer;
RESET ROLE;
SELECT pg_temp.expect(hits >= 30000 AND kms_calls <= 10,
                      format('%s values cost %s calls to the key provider', hits, kms_calls))
FROM cmk.cache_stats;
\t off \pset format aligned

\echo
\echo '── 4. What an envelope says about itself, without any key'
\set ECHO queries
SELECT i.suite, i.tenant, i.version, i.state, i.plaintext_bytes, i.envelope_bytes
FROM customer, cmk.inspect(ssn) AS i WHERE id = 1;
\set ECHO none
SELECT i.tenant = 'globex' AND i.version = 1 AND i.envelope_bytes = i.plaintext_bytes + 58 AS holds
FROM customer, cmk.inspect(ssn) AS i WHERE id = 1 \gset
\t on \pset format unaligned
SELECT pg_temp.expect(:'holds', 'it names its tenant and data key; the overhead is 58 bytes');
\t off \pset format aligned

\echo
\echo '── 5. Default deny: a superuser without a grant reads nothing'
\set ON_ERROR_STOP off
\set ECHO queries
SELECT pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) FROM customer WHERE id = 1;
\set ECHO none
\set ON_ERROR_STOP on
\t on \pset format unaligned
SELECT pg_temp.expect(:'LAST_ERROR_SQLSTATE' = '42501', 'refused with SQLSTATE 42501');

\echo
\echo '── 6. Globex takes its key away'
\echo 'mv globex.key elsewhere'
\setenv KEYS :keys
\! mv "$KEYS/globex.key" "$KEYS/../globex.key"
\t off \pset format aligned
\set ECHO queries
SELECT cmk.evict('globex');
SET ROLE app;
\set ON_ERROR_STOP off
SELECT pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) FROM customer WHERE id = 1;
\set ECHO none
\set ON_ERROR_STOP on
\t on \pset format unaligned
SELECT pg_temp.expect(:'LAST_ERROR_SQLSTATE' = '55000',
                      'the data of globex went dark, with a clean error');
SELECT pg_temp.expect(count(*) = 5000
    AND bool_and(pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) = pg_temp.ssn(id)),
                      'acme reads its 5,000 rows as before') FROM customer WHERE tenant = 'acme';

\echo
\echo '── 7. Globex gives it back (a refusal is remembered for cmk_encrypt.failure_ttl, 3 s ± 25 %)'
\echo 'mv elsewhere globex.key'
\! mv "$KEYS/../globex.key" "$KEYS/globex.key"
SELECT pg_sleep(4) \g /dev/null
SELECT pg_temp.expect(count(*) = 5000
    AND bool_and(pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) = pg_temp.ssn(id)),
                      'globex reads its 5,000 rows again') FROM customer WHERE tenant = 'globex';
RESET ROLE;

\echo
\echo '── 8. Acme gets a new data key; new rows use it, old rows still open'
\t off \pset format aligned
\set ECHO queries
SELECT cmk.rotate_tenant('acme') AS version;
SET ROLE app;
INSERT INTO customer
SELECT id, 'acme', pg_catalog.cmk_encrypt_text('acme', pg_temp.ssn(id), aad => int4send(id))
FROM generate_series(10001, 10500) AS id;
RESET ROLE;
SELECT i.version, i.state, count(*) AS rows
FROM customer, cmk.inspect(ssn) AS i WHERE i.tenant = 'acme' GROUP BY 1, 2 ORDER BY 1;
\set ECHO none
\t on \pset format unaligned
SELECT pg_temp.expect(
    string_agg(format('%s: %s', version, n), ', ' ORDER BY version) = '1: 5000, 2: 500',
                      '5,000 rows are under version 1 and 500 under version 2')
FROM (SELECT i.version, count(*) AS n FROM customer, cmk.inspect(ssn) AS i
      WHERE i.tenant = 'acme' GROUP BY 1) AS v;
SET ROLE app;
SELECT pg_temp.expect(count(*) = 5500
    AND bool_and(pg_catalog.cmk_decrypt_text(tenant, ssn, int4send(id)) = pg_temp.ssn(id)),
                      'old and new rows of acme all open') FROM customer WHERE tenant = 'acme';
RESET ROLE;
\echo
