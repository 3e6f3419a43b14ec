-- What cmk.reencrypt() is made of that looks at values. Whoever calls one needs the grants for the
-- tenant where a value is opened and sealed; the others read headers only.

-- An argument list differs by the type of the value: of a bytea, what cmk_encrypt() bound it to is
-- given; of a protected column its label and options.
DO $$
DECLARE
    type pg_catalog.text;
    part pg_catalog.text;
    arguments pg_catalog.text;
BEGIN
    FOREACH type IN ARRAY '{bytea, cmk_text, cmk_bytea, cmk_jsonb}'::pg_catalog.text[] LOOP
        part := CASE WHEN type OPERATOR(pg_catalog.=) 'bytea' THEN 'envelope' ELSE 'column' END;
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION cmk_internal.data_key_id(value pg_catalog.%1$I) RETURNS pg_catalog.bytea
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_data_key_id';
            CREATE FUNCTION cmk_internal.is_outdated(value pg_catalog.%1$I) RETURNS pg_catalog.bool
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', '%2$s_is_outdated';
            COMMENT ON FUNCTION cmk_internal.data_key_id(pg_catalog.%1$I) IS
                'The id of the data key in an envelope; null of anything else; takes no key';
            COMMENT ON FUNCTION cmk_internal.is_outdated(pg_catalog.%1$I) IS
                'Whether a value is not under the newest data key of its tenant; takes no key';
            $sql$, type, part);
        FOREACH arguments IN ARRAY CASE
            WHEN type OPERATOR(pg_catalog.=) 'bytea' THEN '{"aad pg_catalog.bytea", "aad pg_catalog.bytea, tenant pg_catalog.text"}'::pg_catalog.text[]
            ELSE '{"label pg_catalog.text, options pg_catalog.text"}' END
        LOOP
            EXECUTE pg_catalog.format($sql$
                CREATE FUNCTION cmk_internal.renewed(value pg_catalog.%1$I, %3$s) RETURNS pg_catalog.%1$I
                    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', '%2$s_renewed';
                CREATE FUNCTION cmk_internal.renewal_problem(value pg_catalog.%1$I, %3$s) RETURNS pg_catalog.text
                    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', '%2$s_renewal_problem';
                COMMENT ON FUNCTION cmk_internal.renewed(pg_catalog.%1$I, %3$s) IS
                    'A value under the newest data key of its tenant; the plaintext does not leave the function';
                COMMENT ON FUNCTION cmk_internal.renewal_problem(pg_catalog.%1$I, %3$s) IS
                    'Why cmk_internal.renewed() fails: a reason, and in a second line the tenant if it concerns all its values; null if it does not fail';
                $sql$, type, part, arguments);
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION cmk_internal.tenant_of(data_key pg_catalog.bytea) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'data_key_tenant';
CREATE FUNCTION cmk_internal.data_key_facts(data_key pg_catalog.bytea) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'data_key_facts';
CREATE FUNCTION cmk_internal.reencrypt_begin(relation pg_catalog.oid, attnum pg_catalog.int2) RETURNS pg_catalog.void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reencrypt_begin';
CREATE FUNCTION cmk_internal.waited_for_processor() RETURNS pg_catalog.float8
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'waited_for_processor_wrapper';
CREATE FUNCTION cmk_internal.reencrypt_end() RETURNS pg_catalog.void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reencrypt_end';

-- The columns of this database that can hold envelopes as they are: of the types of protected
-- columns, of bytea, and of domains over them. is_out_of_reach: in temporary tables of other
-- sessions, which nobody else can read.
CREATE FUNCTION cmk_internal.envelope_columns(
    OUT relation pg_catalog.oid, OUT attnum pg_catalog.int2, OUT name pg_catalog.text, OUT is_out_of_reach pg_catalog.bool)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE types (oid) AS (
        SELECT t.oid FROM pg_catalog.pg_type t
         WHERE t.oid OPERATOR(pg_catalog.=) 'pg_catalog.bytea'::pg_catalog.regtype::pg_catalog.oid
            OR cmk_internal.is_protected_type(t.oid)
        UNION ALL
        SELECT t.oid FROM types JOIN pg_catalog.pg_type t ON t.typbasetype OPERATOR(pg_catalog.=) types.oid)
    SELECT c.oid, a.attnum, pg_catalog.format('%s.%I', c.oid::pg_catalog.regclass, a.attname),
           c.relpersistence OPERATOR(pg_catalog.=) 't' AND c.relnamespace OPERATOR(pg_catalog.<>) pg_catalog.pg_my_temp_schema()
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid
       AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
      JOIN types ON types.oid OPERATOR(pg_catalog.=) a.atttypid
     WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::pg_catalog."char"[])
       AND NOT c.relnamespace OPERATOR(pg_catalog.=) ANY ('{pg_catalog, cmk}'::pg_catalog.regnamespace[])
$$;

-- What keeps cmk.retire_keys() from a proof, a line each.
CREATE FUNCTION cmk_internal.retirement_obstacles() RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('prepared transaction %L', p.gid)
      FROM pg_catalog.pg_prepared_xacts p
     WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database()
    UNION ALL
    SELECT pg_catalog.format('%s, a temporary table of another session', e.name)
      FROM cmk_internal.envelope_columns() e
     WHERE e.is_out_of_reach AND pg_catalog.pg_relation_size(e.relation) OPERATOR(pg_catalog.>) 0
$$;
