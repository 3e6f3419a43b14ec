-- The types of protected columns: cmk_text (for text and varchar), cmk_bytea, cmk_jsonb. In
-- pg_catalog, where every session looks first, and dumps and workers look only.
--
-- What may open a value is PARALLEL RESTRICTED: a parallel worker is a new process with an empty
-- cache, so each would ask KMS again. Nothing that opens values is IMMUTABLE, so no index can be
-- made of what it returns. STORAGE external: ciphertext doesn't compress, and so the header of a
-- long value is read without the rest.
DO $$
DECLARE
    kind pg_catalog.record;
BEGIN
    FOR kind IN SELECT * FROM (VALUES
        ('text', 'text', $more$, TYPMOD_IN = pg_catalog.cmk_text_typmod_in,
            TYPMOD_OUT = pg_catalog.cmk_text_typmod_out, CATEGORY = 'S', COLLATABLE = true$more$),
        ('bytea', 'bytea', ''),
        ('jsonb', 'jsonb', '')
    ) AS v (name, protected, more)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TYPE pg_catalog.cmk_%1$s;
            CREATE FUNCTION pg_catalog.cmk_%1$s_in(pg_catalog.cstring) RETURNS pg_catalog.cmk_%1$s
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_in';
            CREATE FUNCTION pg_catalog.cmk_%1$s_out(pg_catalog.cmk_%1$s) RETURNS pg_catalog.cstring
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_out';
            CREATE FUNCTION pg_catalog.cmk_%1$s_recv(pg_catalog.internal) RETURNS pg_catalog.cmk_%1$s
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_recv';
            CREATE FUNCTION pg_catalog.cmk_%1$s_send(pg_catalog.cmk_%1$s) RETURNS pg_catalog.bytea
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_send';
            $sql$, kind.name);
        IF kind.name OPERATOR(pg_catalog.=) 'text' THEN
            CREATE FUNCTION pg_catalog.cmk_text_typmod_in(pg_catalog._cstring) RETURNS pg_catalog.int4
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_text_modifier_in';
            CREATE FUNCTION pg_catalog.cmk_text_typmod_out(pg_catalog.int4) RETURNS pg_catalog.cstring
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_text_modifier_out';
            CREATE FUNCTION pg_catalog.cmk_column_analyze(pg_catalog.internal) RETURNS pg_catalog.bool
                LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_analyze';
        END IF;
        EXECUTE pg_catalog.format($sql$
            CREATE TYPE pg_catalog.cmk_%1$s (
                INPUT = pg_catalog.cmk_%1$s_in, OUTPUT = pg_catalog.cmk_%1$s_out,
                RECEIVE = pg_catalog.cmk_%1$s_recv, SEND = pg_catalog.cmk_%1$s_send,
                ANALYZE = pg_catalog.cmk_column_analyze,
                INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = external%3$s);
            CREATE FUNCTION pg_catalog.%2$s(pg_catalog.cmk_%1$s) RETURNS pg_catalog.%2$s
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_%1$s_reveal';
            CREATE CAST (pg_catalog.cmk_%1$s AS pg_catalog.%2$s)
                WITH FUNCTION pg_catalog.%2$s(pg_catalog.cmk_%1$s) AS IMPLICIT;
            COMMENT ON FUNCTION pg_catalog.%2$s(pg_catalog.cmk_%1$s) IS 'Opens a value of a protected column';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_in(pg_catalog.cstring) IS 'I/O';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_out(pg_catalog.cmk_%1$s) IS 'I/O';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_recv(pg_catalog.internal) IS 'I/O';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_send(pg_catalog.cmk_%1$s) IS 'I/O';
            $sql$, kind.name, kind.protected, kind.more);
        EXECUTE pg_catalog.format('COMMENT ON TYPE pg_catalog.cmk_%s IS %L', kind.name,
            pg_catalog.format('A %s that is sealed where it is stored: see cmk.protect_column()', kind.protected));
    END LOOP;
END
$$;

-- The same bytes while they are not sealed: so a column becomes protected, and an INSERT casts,
-- without any work. An INSERT only: where both types would do, text is meant.
CREATE CAST (pg_catalog.text AS pg_catalog.cmk_text) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (pg_catalog.varchar AS pg_catalog.cmk_text) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) RETURNS pg_catalog.varchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_reveal';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) AS IMPLICIT;

-- Without casts of their own these would be printed and read: ciphertext where that is printed, and
-- blanks that a char(n) is filled up with.
CREATE FUNCTION pg_catalog.bpchar(pg_catalog.cmk_text) RETURNS pg_catalog.bpchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_reveal';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.bpchar)
    WITH FUNCTION pg_catalog.bpchar(pg_catalog.cmk_text) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.name(pg_catalog.cmk_text) RETURNS pg_catalog.name
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 200 SET search_path = pg_catalog, pg_temp
    AS 'SELECT pg_catalog.name(pg_catalog.text($1))';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.name)
    WITH FUNCTION pg_catalog.name(pg_catalog.cmk_text) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.cmk_text(pg_catalog.bpchar) RETURNS pg_catalog.cmk_text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_bpchar_conceal';
CREATE CAST (pg_catalog.bpchar AS pg_catalog.cmk_text)
    WITH FUNCTION pg_catalog.cmk_text(pg_catalog.bpchar) AS ASSIGNMENT;

-- A bytea or jsonb may begin with any byte, so a mark goes before it until it is sealed.
CREATE FUNCTION pg_catalog.cmk_bytea(pg_catalog.bytea) RETURNS pg_catalog.cmk_bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_bytea_conceal';
CREATE CAST (pg_catalog.bytea AS pg_catalog.cmk_bytea)
    WITH FUNCTION pg_catalog.cmk_bytea(pg_catalog.bytea) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.cmk_jsonb(pg_catalog.jsonb) RETURNS pg_catalog.cmk_jsonb
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_jsonb_conceal';
CREATE CAST (pg_catalog.jsonb AS pg_catalog.cmk_jsonb)
    WITH FUNCTION pg_catalog.cmk_jsonb(pg_catalog.jsonb) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.cmk_jsonb(pg_catalog.json) RETURNS pg_catalog.cmk_jsonb
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_json_conceal';
CREATE CAST (pg_catalog.json AS pg_catalog.cmk_jsonb)
    WITH FUNCTION pg_catalog.cmk_jsonb(pg_catalog.json) AS ASSIGNMENT;
-- What row_to_json() calls. Not implicit, because json has operators of the same names as jsonb.
CREATE FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) RETURNS pg_catalog.json
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_json_reveal';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.json)
    WITH FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) AS ASSIGNMENT;

-- As text, too, they are opened: without these casts they would be printed, and so be ciphertext
-- where ciphertext is printed.
CREATE FUNCTION pg_catalog.text(pg_catalog.cmk_bytea) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_bytea_text';
CREATE CAST (pg_catalog.cmk_bytea AS pg_catalog.text)
    WITH FUNCTION pg_catalog.text(pg_catalog.cmk_bytea) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.text(pg_catalog.cmk_jsonb) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_jsonb_text';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.text)
    WITH FUNCTION pg_catalog.text(pg_catalog.cmk_jsonb) AS ASSIGNMENT;

CREATE FUNCTION pg_catalog.varchar(pg_catalog.cmk_bytea) RETURNS pg_catalog.varchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_bytea_text';
CREATE CAST (pg_catalog.cmk_bytea AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_bytea) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.varchar(pg_catalog.cmk_jsonb) RETURNS pg_catalog.varchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_jsonb_text';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_jsonb) AS ASSIGNMENT;

COMMENT ON FUNCTION pg_catalog.bpchar(pg_catalog.cmk_text) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.name(pg_catalog.cmk_text) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.cmk_text(pg_catalog.bpchar) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.varchar(pg_catalog.cmk_bytea) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.varchar(pg_catalog.cmk_jsonb) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.text(pg_catalog.cmk_bytea) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.text(pg_catalog.cmk_jsonb) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.cmk_bytea(pg_catalog.bytea) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.cmk_jsonb(pg_catalog.json) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.cmk_jsonb(pg_catalog.jsonb) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.cmk_text_typmod_in(pg_catalog._cstring) IS 'I/O typmod';
COMMENT ON FUNCTION pg_catalog.cmk_text_typmod_out(pg_catalog.int4) IS 'I/O typmod';
COMMENT ON FUNCTION pg_catalog.cmk_column_analyze(pg_catalog.internal) IS
    'Statistics of a protected column, without its values';
