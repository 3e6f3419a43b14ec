-- Search by equality in protected columns: operators over the tokens of values, classes of indexes
-- on them, and what the planner puts into the place of a comparison.
--
-- The operators on tokens read headers, take no key, and hold between any two values: an index may
-- call them while it holds a page. They are LEAKPROOF: they raise for values that could never be in
-- such an index, and nothing else.
DO $$
DECLARE
    operator pg_catalog.record;
BEGIN
    FOR operator IN SELECT * FROM (VALUES
        ('===', 'eq', 'COMMUTATOR = OPERATOR(pg_catalog.===), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel'),
        ('<<<', 'lt', 'COMMUTATOR = OPERATOR(pg_catalog.>>>), NEGATOR = OPERATOR(pg_catalog.>>>=)'),
        ('<<<=', 'le', 'COMMUTATOR = OPERATOR(pg_catalog.>>>=), NEGATOR = OPERATOR(pg_catalog.>>>)'),
        ('>>>=', 'ge', 'COMMUTATOR = OPERATOR(pg_catalog.<<<=), NEGATOR = OPERATOR(pg_catalog.<<<)'),
        ('>>>', 'gt', 'COMMUTATOR = OPERATOR(pg_catalog.<<<), NEGATOR = OPERATOR(pg_catalog.<<<=)'),
        ('====', 'next_eq', 'COMMUTATOR = OPERATOR(pg_catalog.====), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel')
    ) AS v (name, symbol, more)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_token_%1$s(pg_catalog.cmk_text, pg_catalog.cmk_text)
                RETURNS pg_catalog.bool LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF
                AS 'MODULE_PATHNAME', 'column_token_%1$s';
            CREATE OPERATOR pg_catalog.%2$s (FUNCTION = pg_catalog.cmk_token_%1$s,
                LEFTARG = pg_catalog.cmk_text, RIGHTARG = pg_catalog.cmk_text, %3$s);
            COMMENT ON FUNCTION pg_catalog.cmk_token_%1$s(pg_catalog.cmk_text, pg_catalog.cmk_text) IS
                'Implementation of operator %2$s';
            $sql$, operator.symbol, operator.name, operator.more);
    END LOOP;
END
$$;

CREATE FUNCTION pg_catalog.cmk_token_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF
    AS 'MODULE_PATHNAME', 'column_token_cmp';
CREATE FUNCTION pg_catalog.cmk_token_next_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF
    AS 'MODULE_PATHNAME', 'column_token_next_cmp';
CREATE FUNCTION pg_catalog.cmk_token_sort(pg_catalog.internal) RETURNS pg_catalog.void
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_token_sort';
CREATE FUNCTION pg_catalog.cmk_token_next_sort(pg_catalog.internal) RETURNS pg_catalog.void
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_token_next_sort';
COMMENT ON FUNCTION pg_catalog.cmk_token_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text) IS
    'Compares tokens';
COMMENT ON FUNCTION pg_catalog.cmk_token_next_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text) IS
    'Compares tokens, those for the next index key where there are any';
COMMENT ON FUNCTION pg_catalog.cmk_token_sort(pg_catalog.internal) IS 'Sort support';
COMMENT ON FUNCTION pg_catalog.cmk_token_next_sort(pg_catalog.internal) IS 'Sort support';

CREATE OPERATOR CLASS pg_catalog.cmk_token_ops FOR TYPE pg_catalog.cmk_text USING btree AS
    OPERATOR 1 pg_catalog.<<<, OPERATOR 2 pg_catalog.<<<=, OPERATOR 3 pg_catalog.===,
    OPERATOR 4 pg_catalog.>>>=, OPERATOR 5 pg_catalog.>>>,
    FUNCTION 1 pg_catalog.cmk_token_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text),
    FUNCTION 2 pg_catalog.cmk_token_sort(pg_catalog.internal);
-- Keeps values unique under the next index key while one replaces the other. Not for searching.
CREATE OPERATOR CLASS pg_catalog.cmk_token_next_ops FOR TYPE pg_catalog.cmk_text USING btree AS
    OPERATOR 3 pg_catalog.====,
    FUNCTION 1 pg_catalog.cmk_token_next_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text),
    FUNCTION 2 pg_catalog.cmk_token_next_sort(pg_catalog.internal);

-- How a comparison is planned.
CREATE FUNCTION cmk.search_support(pg_catalog.internal) RETURNS pg_catalog.internal
    LANGUAGE c STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_plan';
COMMENT ON FUNCTION cmk.search_support(pg_catalog.internal) IS
    'Support function of comparisons with a protected column: lets them use an index on tokens';

-- LEAKPROOF, without which row-level security would keep every index from being used: what they
-- return and raise depends on the value that is searched for and on whose values are searched, not
-- on rows that a policy hides. Their cost keeps PostgreSQL evaluating policies first. It is half of
-- what opens a value costs, as they mostly compare tokens.
ALTER FUNCTION pg_catalog.cmk_text_eq(pg_catalog.cmk_text, pg_catalog.cmk_text)
    SUPPORT cmk.search_support LEAKPROOF COST 100;
ALTER FUNCTION pg_catalog.cmk_text_eq(pg_catalog.cmk_text, pg_catalog.text)
    SUPPORT cmk.search_support LEAKPROOF COST 100;
ALTER FUNCTION pg_catalog.cmk_text_eq(pg_catalog.text, pg_catalog.cmk_text)
    SUPPORT cmk.search_support LEAKPROOF COST 100;

DO $$
DECLARE
    type pg_catalog.text;
BEGIN
    FOREACH type IN ARRAY '{text, cmk_text}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION cmk.equal(value pg_catalog.cmk_text, sought pg_catalog.%1$s, tenant pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100
                SUPPORT cmk.search_support AS 'MODULE_PATHNAME', 'column_equal';
            CREATE FUNCTION cmk.equal_any(value pg_catalog.cmk_text, sought pg_catalog.%1$s[], tenant pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100
                SUPPORT cmk.search_support AS 'MODULE_PATHNAME', 'column_equal_any';
            -- LEAKPROOF as `=` is. Not so what takes a tenant, which could be a hidden row's text.
            CREATE FUNCTION cmk.equal_any(value pg_catalog.cmk_text, sought pg_catalog.%1$s[])
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 LEAKPROOF
                SUPPORT cmk.search_support AS 'MODULE_PATHNAME', 'column_equal_any';
            CREATE FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_text_eq';
            -- VOLATILE: the planner runs what is less, with the arguments that it knows, to
            -- estimate what will be found.
            CREATE FUNCTION cmk.probe(sought pg_catalog.%1$s, tenant pg_catalog.text,
                    slot pg_catalog.int4, label pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.cmk_text LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_probe';
            CREATE FUNCTION cmk.probes(sought pg_catalog.%1$s, label pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.cmk_text[] LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_probes';
            CREATE FUNCTION cmk.probes_any(sought pg_catalog.%1$s[], tenant pg_catalog.text,
                    label pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.cmk_text[] LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_probes_any';
            COMMENT ON FUNCTION cmk.equal(pg_catalog.cmk_text, pg_catalog.%1$s, pg_catalog.text) IS
                'What the planner makes of column = value where it knows the tenant';
            COMMENT ON FUNCTION cmk.equal_any(pg_catalog.cmk_text, pg_catalog.%1$s[], pg_catalog.text) IS
                'What the planner makes of column = ANY (array) where it knows the tenant';
            COMMENT ON FUNCTION cmk.equal_any(pg_catalog.cmk_text, pg_catalog.%1$s[]) IS
                'What the planner makes of column = ANY (array), and of column IN (list)';
            CREATE FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s[])
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_equal_any';
            COMMENT ON FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s) IS
                'What the planner makes of = between two columns of a row';
            COMMENT ON FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s[]) IS
                'What the planner makes of = ANY between two columns of a row';
            COMMENT ON FUNCTION cmk.probe(pg_catalog.%1$s, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text) IS
                'What finds a value in an index on tokens: by the current index key (1), by the other one in use (2), by the only one (3), as it is (0)';
            COMMENT ON FUNCTION cmk.probes(pg_catalog.%1$s, pg_catalog.text, pg_catalog.text) IS
                'What finds a value in an index on tokens, for all tenants that are searched';
            COMMENT ON FUNCTION cmk.probes_any(pg_catalog.%1$s[], pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
                'What finds several values in an index on tokens';
            $sql$, type);
    END LOOP;
END
$$;

CREATE FUNCTION cmk.equal_columns(pg_catalog.text, pg_catalog.cmk_text)
    RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_text_eq';
COMMENT ON FUNCTION cmk.equal_columns(pg_catalog.text, pg_catalog.cmk_text) IS
    'What the planner makes of = between two columns of a row';

-- What cmk.seal_table() does to values that are sealed already.
CREATE FUNCTION cmk.needs_sealing(value pg_catalog.cmk_text, label pg_catalog.text, options pg_catalog.text)
    RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 10
    AS 'MODULE_PATHNAME', 'column_needs_sealing';
CREATE FUNCTION cmk.reseal(value pg_catalog.cmk_text, label pg_catalog.text, options pg_catalog.text)
    RETURNS pg_catalog.cmk_text LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_reseal';
CREATE FUNCTION cmk.sealed_for(value pg_catalog.cmk_text) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 10 AS 'MODULE_PATHNAME', 'column_sealed_for';
COMMENT ON FUNCTION cmk.sealed_for(pg_catalog.cmk_text) IS
    'The tenant that a value is sealed for, to whom holds a grant for it; takes no key';
COMMENT ON FUNCTION cmk.needs_sealing(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text) IS
    'Whether a value is not sealed, or lacks the tokens that its column''s options and its tenant''s index keys ask for; takes no key';
COMMENT ON FUNCTION cmk.reseal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text) IS
    'Seals a sealed value anew, with the tokens that it should have';
