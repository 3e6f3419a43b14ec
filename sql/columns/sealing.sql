-- What stands in the definitions of protected tables. Anybody may own such a table, so anybody may
-- call these; none takes a key but the trigger, which asks for grants.

CREATE FUNCTION cmk.seal() RETURNS pg_catalog.trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'column_seal';
CREATE FUNCTION cmk.seals(label pg_catalog.text, tenant "any") RETURNS pg_catalog.bool
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_seals';

DO $$
DECLARE
    kind pg_catalog.text;
BEGIN
    FOREACH kind IN ARRAY '{text, bytea, jsonb}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION cmk.sealed(value pg_catalog.cmk_%1$s, label pg_catalog.text,
                    tenant pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c IMMUTABLE PARALLEL SAFE
                AS 'MODULE_PATHNAME', 'column_check';
            CREATE FUNCTION cmk.is_sealed(value pg_catalog.cmk_%1$s) RETURNS pg_catalog.bool
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_is_sealed';
            CREATE FUNCTION cmk.envelope(value pg_catalog.cmk_%1$s) RETURNS pg_catalog.bytea
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_envelope';
            CREATE FUNCTION cmk.seal_value(value pg_catalog.%1$s, tenant pg_catalog.text,
                    label pg_catalog.text, options pg_catalog.text DEFAULT NULL)
                RETURNS pg_catalog.cmk_%1$s LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 200
                AS 'MODULE_PATHNAME', 'column_%1$s_seal_value';
            COMMENT ON FUNCTION cmk.sealed(pg_catalog.cmk_%1$s, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
                'CHECK constraint of a protected column: the value is sealed, for this tenant and this column';
            COMMENT ON FUNCTION cmk.is_sealed(pg_catalog.cmk_%1$s) IS
                'Whether a value of a protected column is sealed; takes no key';
            COMMENT ON FUNCTION cmk.envelope(pg_catalog.cmk_%1$s) IS
                'The envelope of a value of a protected column, as it is stored; null if it isn''t sealed';
            COMMENT ON FUNCTION cmk.seal_value(pg_catalog.%1$s, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
                'Seals a value for a protected column of that label, for ALTER TABLE ... USING';
            $sql$, kind);
    END LOOP;
END
$$;

CREATE FUNCTION cmk.try_text(value pg_catalog.cmk_text) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_try_text';
COMMENT ON FUNCTION cmk.seal() IS 'The trigger that seals the values of protected columns';
COMMENT ON FUNCTION cmk.seals(pg_catalog.text, "any") IS
    'Names a protected column''s label and its tenant in the condition of the sealing trigger';
COMMENT ON FUNCTION cmk.try_text(pg_catalog.cmk_text) IS
    'Opens a value of a protected column; null for failures that concern this value only';
