-- What cmk.reencrypt() runs on: a table, or each of its partitions and children, with the SQL that
-- looks at a row, which is called "new".

CREATE TYPE cmk_internal.reencrypt_target AS (
    relation   pg_catalog.regclass,
    attnum     pg_catalog.int2,
    "column"   pg_catalog.name,
    -- Whether the value is to be renewed.
    outdated   pg_catalog.text,
    -- The new value, and why there can be none.
    renewed    pg_catalog.text,
    problem    pg_catalog.text,
    -- The tenant, as far as it is known without opening the value.
    tenant     pg_catalog.text,
    -- What tells the row to people: jsonb.
    row_key    pg_catalog.text,
    -- Triggers or rules of users would take part in an UPDATE.
    has_code   pg_catalog.bool
);

-- A row's primary key, else a unique key that is never null, else its place. Not what would have
-- to be opened.
CREATE FUNCTION cmk_internal.row_key(relation pg_catalog.regclass, attnum pg_catalog.int2) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE((
        SELECT pg_catalog.format('pg_catalog.jsonb_build_object(%s)',
                   (SELECT pg_catalog.string_agg(pg_catalog.format('%L, "new".%I', a.attname, a.attname), ', ' ORDER BY k.place)
                      FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k (attnum, place)
                      JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
                     WHERE k.place OPERATOR(pg_catalog.<=) i.indnkeyatts))
          FROM pg_catalog.pg_index i
         WHERE i.indrelid OPERATOR(pg_catalog.=) row_key.relation::pg_catalog.oid
           AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
           AND NOT EXISTS (
                   SELECT FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k (attnum, place)
                     JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
                    WHERE k.place OPERATOR(pg_catalog.<=) i.indnkeyatts
                      AND (NOT a.attnotnull OR cmk_internal.is_protected_type(a.atttypid)
                           OR a.attnum OPERATOR(pg_catalog.=) row_key.attnum))
         ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1),
        'pg_catalog.jsonb_build_object(''ctid'', "new".ctid)')
$$;

-- aad: an expression over the row, as it was given to cmk_encrypt(); null if none was. It is read
-- in the caller's search_path.
CREATE FUNCTION cmk_internal.reencrypt_targets(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant_column pg_catalog.name, aad pg_catalog.text,
    only_tenant pg_catalog.text)
RETURNS SETOF cmk_internal.reencrypt_target
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::pg_catalog.regclass, a.attnum, a.attname,
           pg_catalog.concat(pg_catalog.format('cmk_internal.is_outdated(%s)', value.sql),
               CASE WHEN reencrypt_targets.only_tenant IS NOT NULL
                    THEN pg_catalog.format(' AND %s OPERATOR(pg_catalog.=) %L', tenant.sql, reencrypt_targets.only_tenant) END),
           pg_catalog.format('cmk_internal.renewed(%s, %s)', value.sql, arguments.sql),
           pg_catalog.format('cmk_internal.renewal_problem(%s, %s)', value.sql, arguments.sql),
           tenant.sql,
           cmk_internal.row_key(c.oid::pg_catalog.regclass, a.attnum),
           -- Bits of tgtype: 16 UPDATE. Event 2 of a rule: UPDATE.
           EXISTS (SELECT FROM pg_catalog.pg_trigger g
                    WHERE g.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT g.tgisinternal
                      AND g.tgname OPERATOR(pg_catalog.<>) '~cmk_seal'
                      AND g.tgenabled OPERATOR(pg_catalog.=) 'O'
                      AND g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 16 OPERATOR(pg_catalog.<>) 0)
           OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r
                       WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid AND r.ev_type OPERATOR(pg_catalog.=) '2')
      FROM cmk_internal.table_tree(reencrypt_targets."table") t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation AND c.relkind OPERATOR(pg_catalog.=) 'r'
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) reencrypt_targets."column"
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) c.oid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
     CROSS JOIN LATERAL pg_catalog.format('"new".%I', a.attname) AS value (sql)
     CROSS JOIN LATERAL (
         SELECT CASE WHEN reencrypt_targets.tenant_column IS NOT NULL
                     THEN pg_catalog.format('"new".%I::pg_catalog.text', reencrypt_targets.tenant_column)
                     ELSE pg_catalog.format('cmk_internal.tenant_of(cmk_internal.data_key_id(%s))', value.sql) END) tenant (sql)
     CROSS JOIN LATERAL (
         SELECT CASE WHEN p.label IS NOT NULL THEN pg_catalog.format('%L, %L', p.label, p.options)
                     ELSE pg_catalog.concat(
                         -- The line break ends a comment that the expression may end with.
                         pg_catalog.format(E'(%s\n)::pg_catalog.bytea', COALESCE(reencrypt_targets.aad, '''''')),
                         CASE WHEN reencrypt_targets.tenant_column IS NOT NULL THEN pg_catalog.concat(', ', tenant.sql) END)
                END) arguments (sql)
     ORDER BY t.depth, c.oid
$$;

-- Why aad is not what it has to be; null if it is, or is left out. With the rights and the
-- search_path of the caller, whose expression it is, and of no row.
CREATE FUNCTION cmk_internal.aad_obstacle(relation pg_catalog.regclass, aad pg_catalog.text) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
AS $$
BEGIN
    -- In WHERE, because no aggregate or set may stand there.
    EXECUTE pg_catalog.format(E'SELECT FROM ONLY %2$s AS "new" WHERE false AND (%1$s\n)::pg_catalog.bytea IS NULL', aad, relation);
    RETURN NULL;
EXCEPTION WHEN syntax_error_or_access_rule_violation OR data_exception OR feature_not_supported THEN
    -- Not the message: it repeats what was passed.
    RETURN pg_catalog.format('aad is no expression over a row of %s that gives a bytea (sqlstate %s); leave it out where there is none',
        relation, SQLSTATE);
END
$$;

-- Why a column cannot be re-encrypted, a line each.
CREATE FUNCTION cmk_internal.reencrypt_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant_column pg_catalog.name, aad pg_catalog.text)
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH tree AS MATERIALIZED (
        SELECT t.relation, t.depth, c.relkind, c.relowner, a.atttypid, a.attgenerated,
               COALESCE(NULLIF(y.typbasetype, 0), a.atttypid) AS base
          FROM cmk_internal.table_tree(reencrypt_obstacles."table") t
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
          LEFT JOIN pg_catalog.pg_attribute a
                 ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) reencrypt_obstacles."column"
                AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
          LEFT JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) a.atttypid)
    SELECT pg_catalog.format('%s is not a table', t.relation)
      FROM tree t WHERE t.depth OPERATOR(pg_catalog.=) 0 AND NOT t.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
    UNION ALL
    SELECT pg_catalog.format('partition or child %s is a foreign table', t.relation)
      FROM tree t WHERE t.depth OPERATOR(pg_catalog.>) 0 AND t.relkind OPERATOR(pg_catalog.=) 'f'
    UNION ALL
    SELECT pg_catalog.format('you do not own %s', t.relation)
      FROM tree t WHERE NOT pg_catalog.pg_has_role(t.relowner, 'USAGE')
    UNION ALL
    SELECT pg_catalog.format('row-level security hides rows of %s from you: have a superuser call this, or a role with BYPASSRLS', t.relation)
      FROM tree t WHERE pg_catalog.row_security_active(t.relation::pg_catalog.oid)
    UNION ALL
    SELECT pg_catalog.format('%s has no column %I', t.relation, reencrypt_obstacles."column")
      FROM tree t WHERE t.depth OPERATOR(pg_catalog.=) 0 AND t.atttypid IS NULL
    UNION ALL
    SELECT pg_catalog.format('column %I of %s is of type %s, which holds no envelopes of cmk_encrypt()', reencrypt_obstacles."column", t.relation,
               pg_catalog.format_type(t.atttypid, NULL))
      FROM tree t
     WHERE NOT (t.base OPERATOR(pg_catalog.=) 'pg_catalog.bytea'::pg_catalog.regtype::pg_catalog.oid OR cmk_internal.is_protected_type(t.atttypid))
    UNION ALL
    SELECT pg_catalog.format('column %I of %s is generated', reencrypt_obstacles."column", t.relation)
      FROM tree t WHERE t.attgenerated OPERATOR(pg_catalog.<>) ''
    UNION ALL
    SELECT pg_catalog.format('the protection of column %I of %s does not work: call cmk.protect_column() again', reencrypt_obstacles."column", t.relation)
      FROM tree t WHERE cmk_internal.is_protected_type(t.atttypid) AND NOT cmk_internal.is_protected(t.relation, reencrypt_obstacles."column")
    UNION ALL
    SELECT 'of a protected column, tenant_column and aad are known: leave them out'
      FROM tree t WHERE t.depth OPERATOR(pg_catalog.=) 0 AND cmk_internal.is_protected_type(t.atttypid)
                    AND (reencrypt_obstacles.tenant_column IS NOT NULL OR reencrypt_obstacles.aad IS NOT NULL)
    UNION ALL
    SELECT pg_catalog.format('%s has no column %I for the tenant', t.relation, reencrypt_obstacles.tenant_column)
      FROM tree t
     WHERE t.depth OPERATOR(pg_catalog.=) 0 AND reencrypt_obstacles.tenant_column IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
                          AND a.attname OPERATOR(pg_catalog.=) reencrypt_obstacles.tenant_column
                          AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)
    UNION ALL
    SELECT pg_catalog.format('rule %I of %s would change the update: have a superuser call this', r.rulename, t.relation)
      FROM tree t
      JOIN pg_catalog.pg_rewrite r
        ON r.ev_class OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid AND r.ev_type OPERATOR(pg_catalog.=) '2'
     WHERE NOT cmk_internal.may_replicate() OR r.ev_enabled OPERATOR(pg_catalog.=) ANY ('{A,R}'::pg_catalog."char"[])
$$;

-- Whether the caller may have triggers and rules of users left aside: as superusers may.
CREATE FUNCTION cmk_internal.may_replicate() RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_catalog.set_config('session_replication_role', pg_catalog.current_setting('session_replication_role'), true);
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN false;
END
$$;
