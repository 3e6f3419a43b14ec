-- What cmk_encrypt.wire_type = text puts around the columns that a client's statement returns.
--
-- VOLATILE, although it is not: so the planner has it called after sorting, and what a sort spills
-- to disk is ciphertext. In schema cmk, because nobody needs to call it.
DO $$
DECLARE
    kind pg_catalog.text;
BEGIN
    FOREACH kind IN ARRAY '{text, bytea, jsonb}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION cmk.show(value pg_catalog.cmk_%1$s) RETURNS pg_catalog.%1$s
                LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED COST 200
                AS 'MODULE_PATHNAME', 'column_%1$s_show';
            COMMENT ON FUNCTION cmk.show(pg_catalog.cmk_%1$s) IS
                'A value of a protected column as a client is sent it; for cmk_encrypt.wire_type = text';
            $sql$, kind);
    END LOOP;
END
$$;
