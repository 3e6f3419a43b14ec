-- Which data keys a dump needs.

-- Under which data keys the values of a protected column are, with tokens of which index keys.
-- Reads the table without SQL, so that nothing of its owner's runs: not even an index's expression,
-- which the planner would. Whoever calls it may read the table.
CREATE FUNCTION cmk_internal.sealed_values(
    relation pg_catalog.oid, attnum pg_catalog.int2,
    OUT dek_id pg_catalog.bytea, OUT index_key pg_catalog.bytea, OUT next_index_key pg_catalog.bytea,
    OUT number pg_catalog.int8)
RETURNS SETOF pg_catalog.record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sealed_values_wrapper';

-- Reads the registry and the tables with the rights of its caller, and takes no key.
CREATE FUNCTION cmk_internal.dump_keys(
    tables pg_catalog.regclass[],
    OUT tenant pg_catalog.text, OUT version pg_catalog.int4, OUT dek_id pg_catalog.bytea, OUT state pg_catalog.text,
    OUT relation pg_catalog.regclass, OUT column_name pg_catalog.name, OUT number pg_catalog.int8)
RETURNS SETOF pg_catalog.record
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT c.oid::pg_catalog.regclass AS relation, a.attnum, a.attname
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) c.oid
           AND a.attnum OPERATOR(pg_catalog.>) 0
           AND cmk_internal.is_protected_type(a.atttypid)
         WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::pg_catalog."char"[])
           -- Nobody can read another session's temporary tables, nor a view that was never filled.
           AND c.relispopulated
           AND NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)
           AND (pg_catalog.cardinality(tables) OPERATOR(pg_catalog.=) 0
                OR c.oid OPERATOR(pg_catalog.=) ANY (
                       SELECT t.relation::pg_catalog.oid
                         FROM pg_catalog.unnest(tables) given (relation)
                        CROSS JOIN LATERAL cmk_internal.table_tree(given.relation) t))
         ORDER BY c.oid::pg_catalog.regclass::pg_catalog.text, a.attnum
    LOOP
        IF NOT pg_catalog.has_table_privilege(item.relation::pg_catalog.oid, 'SELECT')
           OR pg_catalog.row_security_active(item.relation::pg_catalog.oid) THEN
            RAISE EXCEPTION 'permission denied for table %', item.relation USING ERRCODE = 'insufficient_privilege';
        END IF;
        -- A token names its index key by the first bytes of the id, which tell those of a tenant
        -- apart.
        RETURN QUERY
            WITH sealed AS MATERIALIZED (
                 SELECT s.dek_id, s.index_key, s.next_index_key, s.number
                   FROM cmk_internal.sealed_values(item.relation::pg_catalog.oid, item.attnum) s),
             needed AS (
                 SELECT k.tenant, k.version, sealed.dek_id, k.state, sealed.number
                   FROM sealed
                   LEFT JOIN cmk.data_key k ON k.dek_id OPERATOR(pg_catalog.=) sealed.dek_id
                 UNION ALL
                 SELECT k.tenant, k.version, COALESCE(k.dek_id, token.index_key), k.state, sealed.number
                   FROM sealed
                  CROSS JOIN LATERAL (VALUES (sealed.index_key), (sealed.next_index_key)) token (index_key)
                   LEFT JOIN cmk.data_key opens ON opens.dek_id OPERATOR(pg_catalog.=) sealed.dek_id
                   LEFT JOIN cmk.data_key k
                          ON k.tenant OPERATOR(pg_catalog.=) opens.tenant
                         AND k.purpose OPERATOR(pg_catalog.=) 'index'
                         AND pg_catalog.substring(k.dek_id, 1, 4) OPERATOR(pg_catalog.=) token.index_key
                  WHERE token.index_key IS NOT NULL)
             SELECT n.tenant, n.version, n.dek_id, n.state, item.relation, item.attname,
                    pg_catalog.sum(n.number)::pg_catalog.int8
               FROM needed n
              GROUP BY n.tenant, n.version, n.dek_id, n.state
              ORDER BY n.tenant, n.version, n.dek_id;
    END LOOP;
END
$$;

-- Of the protected columns of these tables, or of all tables: how many values each data key seals,
-- and how many have a token of each index key. tenant is null where the registry lacks the data
-- key; of an index key, dek_id is then only as long as it stands in tokens.
CREATE FUNCTION cmk.dump_keys_needed(
    VARIADIC tables pg_catalog.regclass[] DEFAULT '{}',
    OUT tenant pg_catalog.text, OUT version pg_catalog.int4, OUT dek_id pg_catalog.bytea, OUT state pg_catalog.text,
    OUT "table" pg_catalog.regclass, OUT column_name pg_catalog.name, OUT "values" pg_catalog.int8)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.tenant, d.version, d.dek_id, d.state, d.relation, d.column_name, d.number
      FROM cmk_internal.dump_keys(dump_keys_needed.tables) d
$$;
