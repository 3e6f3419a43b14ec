-- How values of a protected column are found: the options of its constraint, what a change of them
-- needs, and what it brings with it.

-- The fourth argument of the constraint.
CREATE FUNCTION cmk_internal.search_options(
    searchable pg_catalog.bool, normalization pg_catalog.text, token_bits pg_catalog.int4)
RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN search_options.searchable
                THEN pg_catalog.concat_ws(',', 'search', search_options.normalization,
                         CASE WHEN search_options.token_bits IS NOT NULL
                              THEN pg_catalog.concat('bits=', search_options.token_bits) END) END
$$;

-- The options that a column is to have. Unless told how to search it, it stays as it is.
CREATE FUNCTION cmk_internal.new_options(
    former pg_catalog.text,
    searchable pg_catalog.bool, normalization pg_catalog.text, token_bits pg_catalog.int4)
RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN new_options.searchable IS NULL THEN new_options.former
                ELSE cmk_internal.search_options(new_options.searchable, new_options.normalization, new_options.token_bits) END
$$;

-- What is wrong with the arguments that tell how to search.
CREATE FUNCTION cmk_internal.search_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    searchable pg_catalog.bool, normalization pg_catalog.text, token_bits pg_catalog.int4)
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'normalization and token_bits need searchable => true'
     WHERE search_obstacles.searchable IS NOT TRUE
       AND (search_obstacles.normalization IS NOT NULL OR search_obstacles.token_bits IS NOT NULL)
    UNION ALL
    SELECT 'normalization can be lower, digits or alnum'
     WHERE NOT search_obstacles.normalization OPERATOR(pg_catalog.=) ANY ('{lower, digits, alnum}')
    UNION ALL
    SELECT 'token_bits can be 8 to 120'
     WHERE NOT (search_obstacles.token_bits OPERATOR(pg_catalog.>=) 8
                AND search_obstacles.token_bits OPERATOR(pg_catalog.<=) 120)
    UNION ALL
    SELECT pg_catalog.format('its type %s cannot be searchable: only text can', pg_catalog.format_type(a.atttypid, a.atttypmod))
      FROM pg_catalog.pg_attribute a
     WHERE search_obstacles.searchable
       AND a.attrelid OPERATOR(pg_catalog.=) search_obstacles."table"
       AND a.attname OPERATOR(pg_catalog.=) search_obstacles."column"
       AND NOT a.atttypid OPERATOR(pg_catalog.=) ANY (
           '{text, varchar, bpchar, cmk_text}'::pg_catalog.regtype[]::pg_catalog.oid[])
    UNION ALL
    SELECT pg_catalog.format('unique index %s would refuse different values: token_bits goes with no unique index', x.index)
      FROM cmk_internal.column_indexes(search_obstacles."table", search_obstacles."column") x
     WHERE search_obstacles.searchable AND search_obstacles.token_bits IS NOT NULL
       AND x.is_unique AND NOT x.is_attached
       AND x.kind OPERATOR(pg_catalog.<>) 'index'
$$;

-- Whether a value of the column has a token. Reads all of it, if none has, and takes no key.
CREATE FUNCTION cmk_internal.has_tokens(
    "table" pg_catalog.regclass, "column" pg_catalog.name, label pg_catalog.text) RETURNS pg_catalog.bool
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    found_one pg_catalog.bool;
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT EXISTS (SELECT FROM %1$s WHERE cmk.is_sealed(%2$I) AND cmk.needs_sealing(%2$I, %3$L, NULL))',
        "table", "column", label) INTO found_one;
    RETURN found_one;
END
$$;

-- Tokens of two kinds in one column would hide values from an index: whoever asks for one kind does
-- not find the other. Why the options cannot change while the values stay as they are, or null.
CREATE FUNCTION cmk_internal.options_obstacle(
    "table" pg_catalog.regclass, "column" pg_catalog.name, label pg_catalog.text,
    former pg_catalog.text, options pg_catalog.text) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF former IS NOT NULL AND options IS NOT NULL THEN
        RETURN pg_catalog.format('its values have tokens for "%s": rewrite => true, or searchable => false, then CALL cmk.seal_table(%L), first',
                                 former, "table");
    ELSIF options IS NOT NULL AND cmk_internal.has_tokens("table", "column", label) THEN
        RETURN pg_catalog.format('its values have tokens from before: rewrite => true, or CALL cmk.seal_table(%L), first', "table");
    END IF;
    RETURN NULL;
END
$$;

-- How many active tenants have no index key, and how many have a next one.
CREATE FUNCTION cmk.index_key_counts(OUT missing pg_catalog.int8, OUT rotating pg_catalog.int8)
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT pg_catalog.count(*)
              FROM cmk.tenant t
             WHERE t.state OPERATOR(pg_catalog.=) 'active'
               AND NOT EXISTS (SELECT FROM cmk.data_key k
                                WHERE k.tenant OPERATOR(pg_catalog.=) t.tenant
                                  AND k.purpose OPERATOR(pg_catalog.=) 'index'
                                  AND k.state OPERATOR(pg_catalog.=) 'current')),
           (SELECT pg_catalog.count(*)
              FROM cmk.data_key k
             WHERE k.purpose OPERATOR(pg_catalog.=) 'index'
               AND k.state OPERATOR(pg_catalog.=) 'next')
$$;

-- Gives each active tenant an index key, if the caller may. No value is sealed for a searchable
-- column without one.
CREATE FUNCTION cmk_internal.make_index_keys() RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number CONSTANT pg_catalog.int8 := (SELECT k.missing FROM cmk.index_key_counts() k);
    item pg_catalog.record;
    detail pg_catalog.text;
BEGIN
    IF number OPERATOR(pg_catalog.=) 0 THEN
        RETURN;
    ELSIF NOT cmk_internal.may_rotate('cmk.rotate_index_key(text)') THEN
        RAISE WARNING '% active tenants have no index key: no value is sealed for them in a searchable column', number
            USING HINT = 'Have a database administrator run: SELECT cmk.rotate_index_key(t.tenant) FROM cmk.tenant t WHERE t.state = ''active'' AND NOT EXISTS (SELECT FROM cmk.data_key k WHERE k.tenant = t.tenant AND k.purpose = ''index'' AND k.state = ''current'');';
        RETURN;
    END IF;
    FOR item IN
        SELECT t.tenant
          FROM cmk.tenant t
         WHERE t.state OPERATOR(pg_catalog.=) 'active'
           AND NOT EXISTS (SELECT FROM cmk.data_key k
                            WHERE k.tenant OPERATOR(pg_catalog.=) t.tenant
                              AND k.purpose OPERATOR(pg_catalog.=) 'index'
                              AND k.state OPERATOR(pg_catalog.=) 'current')
         ORDER BY t.tenant
    LOOP
        BEGIN
            PERFORM cmk.rotate_index_key(item.tenant);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                RAISE;
            END IF;
            RAISE WARNING 'tenant % has no index key: %', pg_catalog.to_json(item.tenant)::pg_catalog.text, SQLERRM
                USING DETAIL = detail,
                      HINT = 'Once that is mended: SELECT cmk.rotate_index_key(TENANT). Until then no value is sealed for the tenant in a searchable column.';
        END;
    END LOOP;
END
$$;

-- Whether the caller may make index keys, or finish their rotation, and see whose there are.
CREATE FUNCTION cmk_internal.may_rotate(function pg_catalog.text) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.has_function_privilege(may_rotate.function, 'EXECUTE')
       AND pg_catalog.has_table_privilege('cmk.tenant', 'SELECT')
       AND pg_catalog.has_table_privilege('cmk.data_key', 'SELECT')
$$;

-- Equal values have equal tokens, so that whoever can count knows the most frequent one.
CREATE FUNCTION cmk_internal.tell_of_few_values("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seen pg_catalog.int8;
    different pg_catalog.int8;
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.count(*), pg_catalog.count(DISTINCT s.value::pg_catalog.text) FROM (SELECT %1$I AS value FROM %2$s WHERE %1$I IS NOT NULL LIMIT 10000) s',
        "column", "table") INTO seen, different;
    IF seen OPERATOR(pg_catalog.>=) 100 AND different OPERATOR(pg_catalog.*) 10 OPERATOR(pg_catalog.<) seen THEN
        RAISE WARNING '% has % different values in % rows: tokens show which rows are equal, and how often each value occurs',
            pg_catalog.quote_ident("column"), different, seen
            USING HINT = 'Who knows how frequent values are can guess them. searchable => false needs no index where another column narrows the search.';
    END IF;
EXCEPTION WHEN OTHERS THEN
    -- Values that are sealed already, and that the caller may not open.
    IF pg_catalog."left"(SQLSTATE, 2) OPERATOR(pg_catalog.=) ANY ('{42, 55, 58, 53, F0}') THEN
        RAISE NOTICE 'how many different values there are is not known: %', SQLERRM;
    ELSE
        RAISE;
    END IF;
END
$$;
