-- Tokens for an index of an application's own: the same that a searchable column of that label has.
-- For every combination of types that somebody could lay beside it, as sql/applications.sql says.
--
-- STABLE, so that an index can be used. The planner does not run it to estimate what it will find:
-- see sql/planning.sql.
DO $$
DECLARE
    f pg_catalog.record;
    tenant_type pg_catalog.text;
    value_type pg_catalog.text;
    label_type pg_catalog.text;
BEGIN
    FOR f IN SELECT * FROM (VALUES
        ('cmk_search_token', 'bytea',
         'What finds a value in an index of one''s own: equal for equal values of a tenant and label'),
        ('cmk_search_tokens', 'bytea[]',
         'As cmk_search_token, under each index key of the tenant by which values are found')
    ) AS v (name, result, comment)
    LOOP
        FOREACH tenant_type IN ARRAY '{text, varchar}'::pg_catalog.text[] LOOP
            FOREACH value_type IN ARRAY '{text, varchar}'::pg_catalog.text[] LOOP
                FOREACH label_type IN ARRAY '{text, varchar}'::pg_catalog.text[] LOOP
                    EXECUTE pg_catalog.format($sql$
                        CREATE FUNCTION pg_catalog.%1$s(tenant pg_catalog.%2$s, value pg_catalog.%3$s,
                                label pg_catalog.%4$s, normalization pg_catalog.text DEFAULT NULL)
                            RETURNS pg_catalog.%5$s LANGUAGE c STABLE PARALLEL RESTRICTED COST 200
                            SUPPORT cmk_internal.defer
                            AS 'MODULE_PATHNAME', '%1$s_wrapper';
                        COMMENT ON FUNCTION pg_catalog.%1$s(pg_catalog.%2$s, pg_catalog.%3$s, pg_catalog.%4$s, pg_catalog.text) IS %6$L;
                        $sql$, f.name, tenant_type, value_type, label_type, f.result, f.comment);
                END LOOP;
            END LOOP;
        END LOOP;
    END LOOP;
END
$$;
