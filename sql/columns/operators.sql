-- Operators of protected columns. All compare plaintexts, as the type that is protected does. What
-- isn't here (<, LIKE, ||, ->, …) is that type's own, by the implicit cast.
--
-- The operators of the default btree classes have names of their own, so that `<` stays text's. The
-- classes are for sorting, grouping and joining; they refuse to be indexed. `=` does not MERGE: the
-- planner would build on it what holds only of an operator that never fails.
DO $$
DECLARE
    kind pg_catalog.text;
    operator pg_catalog.record;
BEGIN
    CREATE FUNCTION pg_catalog.cmk_column_no_index(pg_catalog.internal) RETURNS pg_catalog.void
        LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_refuse_index';
    COMMENT ON FUNCTION pg_catalog.cmk_column_no_index(pg_catalog.internal) IS
        'Options of an index on a protected column: refuses it';

    FOREACH kind IN ARRAY '{text, bytea, jsonb}'::pg_catalog.text[] LOOP
        FOR operator IN SELECT * FROM (VALUES
            ('=', 'eq', 'HASHES, COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel'),
            ('<>', 'ne', 'COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = pg_catalog.neqsel, JOIN = pg_catalog.neqjoinsel'),
            ('<#', 'lt', 'COMMUTATOR = OPERATOR(pg_catalog.>#)'),
            ('<=#', 'le', 'COMMUTATOR = OPERATOR(pg_catalog.>=#)'),
            ('>#', 'gt', 'COMMUTATOR = OPERATOR(pg_catalog.<#)'),
            ('>=#', 'ge', 'COMMUTATOR = OPERATOR(pg_catalog.<=#)')
        ) AS v (name, symbol, more)
        LOOP
            EXECUTE pg_catalog.format($sql$
                CREATE FUNCTION pg_catalog.cmk_%1$s_%2$s(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s)
                    RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                    AS 'MODULE_PATHNAME', 'column_%1$s_%2$s';
                CREATE OPERATOR pg_catalog.%3$s (FUNCTION = pg_catalog.cmk_%1$s_%2$s,
                    LEFTARG = pg_catalog.cmk_%1$s, RIGHTARG = pg_catalog.cmk_%1$s, %4$s);
                COMMENT ON FUNCTION pg_catalog.cmk_%1$s_%2$s(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s) IS
                    'Implementation of operator %3$s';
                $sql$, kind, operator.symbol, operator.name, operator.more);
        END LOOP;
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s)
                RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_%1$s_cmp';
            CREATE FUNCTION pg_catalog.cmk_%1$s_sort(pg_catalog.internal) RETURNS pg_catalog.void
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_sort';
            CREATE FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s) RETURNS pg_catalog.int4
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_%1$s_hash';
            CREATE FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8)
                RETURNS pg_catalog.int8 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_%1$s_hash_extended';
            CREATE OPERATOR CLASS pg_catalog.cmk_%1$s_sort_ops DEFAULT FOR TYPE pg_catalog.cmk_%1$s
                USING btree AS
                OPERATOR 1 pg_catalog.<#, OPERATOR 2 pg_catalog.<=#, OPERATOR 3 pg_catalog.=,
                OPERATOR 4 pg_catalog.>=#, OPERATOR 5 pg_catalog.>#,
                FUNCTION 1 pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s),
                FUNCTION 2 pg_catalog.cmk_%1$s_sort(pg_catalog.internal),
                FUNCTION 5 pg_catalog.cmk_column_no_index(pg_catalog.internal);
            CREATE OPERATOR CLASS pg_catalog.cmk_%1$s_hash_ops DEFAULT FOR TYPE pg_catalog.cmk_%1$s
                USING hash AS
                OPERATOR 1 pg_catalog.=,
                FUNCTION 1 pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s),
                FUNCTION 2 pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8),
                FUNCTION 3 pg_catalog.cmk_column_no_index(pg_catalog.internal);
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s) IS
                'Compares plaintexts';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_sort(pg_catalog.internal) IS
                'Sort support: opens every value once';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s) IS 'Hash of the plaintext';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8) IS
                'Hash of the plaintext';
            $sql$, kind);
    END LOOP;

    -- Text on one side: what a driver sends as text or varchar.
    FOR operator IN SELECT * FROM (VALUES
        ('=', 'eq', 'NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel'),
        ('<>', 'ne', 'NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = pg_catalog.neqsel, JOIN = pg_catalog.neqjoinsel')
    ) AS v (name, symbol, more)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.cmk_text, pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_text_%1$s';
            CREATE FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.text, pg_catalog.cmk_text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_text_%1$s';
            CREATE OPERATOR pg_catalog.%2$s (FUNCTION = pg_catalog.cmk_text_%1$s,
                LEFTARG = pg_catalog.cmk_text, RIGHTARG = pg_catalog.text,
                COMMUTATOR = OPERATOR(pg_catalog.%2$s), %3$s);
            CREATE OPERATOR pg_catalog.%2$s (FUNCTION = pg_catalog.cmk_text_%1$s,
                LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.cmk_text,
                COMMUTATOR = OPERATOR(pg_catalog.%2$s), %3$s);
            COMMENT ON FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.cmk_text, pg_catalog.text) IS
                'Implementation of operator %2$s';
            COMMENT ON FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.text, pg_catalog.cmk_text) IS
                'Implementation of operator %2$s';
            $sql$, operator.symbol, operator.name, operator.more);
    END LOOP;
END
$$;

-- Without these, `||` would be the one that makes a text of anything. Inlined by the planner.
DO $$
DECLARE
    kind pg_catalog.text;
    types pg_catalog.record;
BEGIN
    FOREACH kind IN ARRAY '{bytea, jsonb}'::pg_catalog.text[] LOOP
        FOR types IN SELECT * FROM (VALUES
            (pg_catalog.concat('cmk_', kind), pg_catalog.concat('cmk_', kind)),
            (pg_catalog.concat('cmk_', kind), kind), (kind, pg_catalog.concat('cmk_', kind))
        ) AS v (a, b)
        LOOP
            EXECUTE pg_catalog.format($sql$
                CREATE FUNCTION pg_catalog.cmk_%1$s_concat(pg_catalog.%2$s, pg_catalog.%3$s)
                    RETURNS pg_catalog.%1$s LANGUAGE sql STABLE PARALLEL RESTRICTED AS
                    'SELECT $1::pg_catalog.%1$s OPERATOR(pg_catalog.||) $2::pg_catalog.%1$s';
                CREATE OPERATOR pg_catalog.|| (FUNCTION = pg_catalog.cmk_%1$s_concat,
                    LEFTARG = pg_catalog.%2$s, RIGHTARG = pg_catalog.%3$s);
                COMMENT ON FUNCTION pg_catalog.cmk_%1$s_concat(pg_catalog.%2$s, pg_catalog.%3$s) IS
                    'Implementation of operator ||';
                $sql$, kind, types.a, types.b);
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text)
    RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_cmp';
CREATE FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_cmp';
ALTER OPERATOR FAMILY pg_catalog.cmk_text_sort_ops USING btree ADD
    OPERATOR 3 pg_catalog.= (pg_catalog.cmk_text, pg_catalog.text),
    FUNCTION 1 (pg_catalog.cmk_text, pg_catalog.text)
        pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text),
    OPERATOR 3 pg_catalog.= (pg_catalog.text, pg_catalog.cmk_text),
    FUNCTION 1 (pg_catalog.text, pg_catalog.cmk_text)
        pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text);
COMMENT ON FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text) IS
    'Compares plaintexts';
COMMENT ON FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text) IS
    'Compares plaintexts';
