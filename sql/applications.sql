-- What applications call. In pg_catalog, because nobody but superusers may create there and every
-- session looks there.
--
-- PostgreSQL calls the function that matches the arguments best, wherever on search_path it is. So
-- each function exists for every combination of types that somebody could lay beside it: tenants
-- and plaintexts as text and varchar, and text for what is really bytea or an array, since an
-- untyped literal or parameter prefers text. Such a text is read in the input format of the real
-- type, as the literal always was: cmk_decrypt('acme', '\xc101…').
--
-- All of one name are one C function, or SQL functions that the planner inlines. PARALLEL
-- RESTRICTED: a parallel worker is a new process with an empty cache, so each would ask KMS again.

DO $$
DECLARE
    f pg_catalog.record;
    tenant_type pg_catalog.text;
    value_type pg_catalog.text;
    aad_type pg_catalog.text;
    forgive_type pg_catalog.text;
    is_real pg_catalog.bool;
    types pg_catalog.text;
    arguments pg_catalog.text;
    body pg_catalog.text;
    cost CONSTANT pg_catalog.int4 := 200;
BEGIN
    FOR f IN SELECT * FROM (VALUES
        ('cmk_encrypt', 'plaintext', '{bytea}'::pg_catalog.text[], 'bytea', 'VOLATILE', 'cmk_encrypt', '{-}'::pg_catalog.text[],
         'Seals a value under the current data key of a tenant; aad must be given again to decrypt'),
        ('cmk_encrypt', 'plaintext', '{text, varchar}', 'bytea', 'VOLATILE', 'cmk_encrypt_text', '{-}',
         'Seals a text under the current data key of a tenant; aad must be given again to decrypt'),
        ('cmk_encrypt_text', 'plaintext', '{text, varchar}', 'bytea', 'VOLATILE', 'cmk_encrypt_text', '{-}',
         'Seals a text under the current data key of a tenant; aad must be given again to decrypt'),
        ('cmk_encrypt_nested', 'plaintext', '{bytea}', 'bytea', 'VOLATILE', 'cmk_encrypt_nested', '{-}',
         'As cmk_encrypt, also of a value that is an envelope already'),
        ('cmk_encrypt_nested', 'plaintext', '{text, varchar}', 'bytea', 'VOLATILE', 'cmk_encrypt_nested_text', '{-}',
         'As cmk_encrypt, also of a value that is an envelope already'),
        ('cmk_decrypt', 'ciphertext', '{bytea, text}', 'bytea', 'STABLE', 'cmk_decrypt', '{-}',
         'Opens a value that cmk_encrypt sealed for the same tenant with the same aad'),
        ('cmk_decrypt_text', 'ciphertext', '{bytea, text}', 'text', 'STABLE', 'cmk_decrypt_text', '{-}',
         'Opens a text that cmk_encrypt sealed for the same tenant with the same aad'),
        ('cmk_try_decrypt', 'ciphertext', '{bytea, text}', 'bytea', 'STABLE', 'cmk_try_decrypt', '{_text, text}',
         'As cmk_decrypt, but NULL for failures that concern this value only, or for the reasons listed'),
        ('cmk_try_decrypt_text', 'ciphertext', '{bytea, text}', 'text', 'STABLE', 'cmk_try_decrypt_text', '{_text, text}',
         'As cmk_decrypt_text, but NULL for failures that concern this value only, or for the reasons listed')
    ) AS v (name, value_name, value_types, result, volatility, symbol, forgive_types, comment)
    LOOP
        FOREACH forgive_type IN ARRAY f.forgive_types LOOP
        FOREACH aad_type IN ARRAY '{bytea, text}'::pg_catalog.text[] LOOP
        FOREACH value_type IN ARRAY f.value_types LOOP
        FOREACH tenant_type IN ARRAY '{text, varchar}'::pg_catalog.text[] LOOP
            is_real := aad_type OPERATOR(pg_catalog.=) 'bytea'
                   AND forgive_type OPERATOR(pg_catalog.<>) 'text'
                   AND NOT (f.value_name OPERATOR(pg_catalog.=) 'ciphertext'
                            AND value_type OPERATOR(pg_catalog.=) 'text');
            types := pg_catalog.format('pg_catalog.%I, pg_catalog.%I, pg_catalog.%I', tenant_type, value_type, aad_type);
            -- Where an argument has a default there must be one function only that it can be left
            -- out of.
            arguments := pg_catalog.format('tenant pg_catalog.%I, %I pg_catalog.%I, aad pg_catalog.%I%s',
                tenant_type, f.value_name, value_type, aad_type,
                CASE WHEN aad_type OPERATOR(pg_catalog.=) 'bytea' AND forgive_type OPERATOR(pg_catalog.<>) 'text'
                     THEN $default$ DEFAULT ''::pg_catalog.bytea$default$ ELSE '' END);
            IF forgive_type OPERATOR(pg_catalog.<>) '-' THEN
                types := pg_catalog.format('%s, pg_catalog.%I', types, forgive_type);
                arguments := pg_catalog.format('%s, forgive pg_catalog.%I%s', arguments, forgive_type,
                    CASE WHEN forgive_type OPERATOR(pg_catalog.=) '_text' THEN ' DEFAULT NULL' ELSE '' END);
            END IF;
            body := CASE WHEN is_real
                THEN pg_catalog.format($c$LANGUAGE c COST %s %s AS 'MODULE_PATHNAME', '%s_wrapper'$c$,
                    cost, CASE WHEN f.volatility OPERATOR(pg_catalog.=) 'STABLE' THEN 'SUPPORT cmk_internal.defer' ELSE '' END,
                    f.symbol)
                ELSE pg_catalog.format($sql$LANGUAGE sql COST %s AS 'SELECT pg_catalog.%I($1, $2%s, $3::pg_catalog.bytea%s)'$sql$,
                    cost, f.name,
                    CASE WHEN f.value_name OPERATOR(pg_catalog.=) 'ciphertext' THEN '::pg_catalog.bytea' ELSE '' END,
                    CASE WHEN forgive_type OPERATOR(pg_catalog.<>) '-' THEN ', $4::pg_catalog._text' ELSE '' END)
                END;
            EXECUTE pg_catalog.format('CREATE FUNCTION pg_catalog.%I(%s) RETURNS pg_catalog.%I %s PARALLEL RESTRICTED %s',
                f.name, arguments, f.result, f.volatility, body);
            EXECUTE pg_catalog.format('COMMENT ON FUNCTION pg_catalog.%I(%s) IS %L', f.name, types, f.comment);
        END LOOP;
        END LOOP;
        END LOOP;
        END LOOP;
    END LOOP;
END
$$;
