-- Which data keys the values of a column are under.

-- Reads headers only, with the rights of its caller, and takes no key. Whose data key it is learns
-- who may read the registry, and who holds a grant for that tenant. dek_id is null for what is not
-- sealed; state is then "null" or "not sealed".
CREATE FUNCTION cmk.data_key_usage(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT tenant pg_catalog.text, OUT version pg_catalog.int4, OUT state pg_catalog.text,
    OUT dek_id pg_catalog.bytea, OUT "rows" pg_catalog.int8)
RETURNS SETOF pg_catalog.record
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) data_key_usage."column"
           AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
          JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) a.atttypid
         WHERE c.oid OPERATOR(pg_catalog.=) data_key_usage."table"::pg_catalog.oid
           AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,v,f}'::pg_catalog."char"[])
           AND (COALESCE(NULLIF(y.typbasetype, 0), y.oid) OPERATOR(pg_catalog.=) 'pg_catalog.bytea'::pg_catalog.regtype::pg_catalog.oid
                OR cmk_internal.is_protected_type(a.atttypid))) THEN
        PERFORM cmk_internal.refuse(ARRAY[pg_catalog.format('%s is no table with a column %I that can hold envelopes',
            "table", "column")], 'not_reencryptable');
    END IF;
    RETURN QUERY EXECUTE pg_catalog.format(
        'SELECT k.tenant::pg_catalog.text, k.version, CASE WHEN u.is_null THEN ''null'' WHEN u.id IS NULL THEN ''not sealed'' ELSE k.state::pg_catalog.text END,
                u.id, u.number
           FROM (SELECT cmk_internal.data_key_id(t.%1$I) AS id, t.%1$I IS NULL AS is_null, pg_catalog.count(*) AS number
                   FROM %2$s t GROUP BY 1, 2) u
           LEFT JOIN LATERAL (%3$s) k ON true
          ORDER BY 1, 2, 4, 3',
        "column", "table",
        CASE WHEN pg_catalog.has_table_privilege('cmk.data_key', 'SELECT')
             THEN 'SELECT d.tenant, d.version, d.state FROM cmk.data_key d WHERE d.dek_id OPERATOR(pg_catalog.=) u.id'
             ELSE 'SELECT pg_catalog.split_part(f.facts, E''\n'', 3) AS tenant, pg_catalog.split_part(f.facts, E''\n'', 1)::pg_catalog.int4 AS version,
                          pg_catalog.split_part(f.facts, E''\n'', 2) AS state
                     FROM cmk_internal.data_key_facts(u.id) f (facts) WHERE f.facts IS NOT NULL' END);
END
$$;
