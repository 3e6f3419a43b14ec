-- What keeps PostgreSQL from opening values while it plans: to estimate how many rows a condition
-- finds, the planner runs STABLE functions of known arguments. cmk_internal.defer is the support
-- function of everything that opens a value, or makes a token. In EXPLAIN it shows as
-- CASE WHEN (cmk_internal.at_execution() IS NULL) THEN argument END.
--
-- The planner runs no function that returns a record.
CREATE FUNCTION cmk_internal.at_execution() RETURNS pg_catalog.record
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'planner_at_execution';
CREATE FUNCTION cmk_internal.defer(pg_catalog.internal) RETURNS pg_catalog.internal
    LANGUAGE c STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'planner_defer';
COMMENT ON FUNCTION cmk_internal.at_execution() IS
    'Null while a query runs; its planner does not know that';
COMMENT ON FUNCTION cmk_internal.defer(pg_catalog.internal) IS
    'Support function of what opens values: keeps the planner from running it';
