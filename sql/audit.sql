-- The audit trail.

-- Makes an event of what the calling function did. For functions that run with the rights of the
-- extension's owner, who alone may call it: others could say that somebody did what he did not.
CREATE FUNCTION cmk_internal.audit(
    act pg_catalog.text, tenant pg_catalog.text, data_key pg_catalog.int4 DEFAULT NULL,
    before pg_catalog.jsonb DEFAULT NULL, after pg_catalog.jsonb DEFAULT NULL)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'audit_wrapper';

-- Makes an event of a change of a column's protection that this very transaction made, and says
-- which; null if it made none. So it may be called by everybody, with the rights of the owner of
-- the trail: what it writes down is what happened, whoever calls it.
CREATE FUNCTION cmk_internal.audit_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name, act pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject pg_catalog.record;
    described pg_catalog.jsonb;
BEGIN
    SELECT n.nspname, k.relname, a.attname, p.label, p.options, c.convalidated,
           cmk_internal.is_own_change(c.xmin) AS protected_now,
           cmk_internal.is_own_change(a.xmin)
               AND NOT cmk_internal.is_protected_type(a.atttypid) AS unprotected_now
      INTO subject
      FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_class k ON k.oid OPERATOR(pg_catalog.=) a.attrelid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) k.relnamespace
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
      LEFT JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) p.constraint_oid
     WHERE a.attrelid OPERATOR(pg_catalog.=) audit_column."table"::pg_catalog.oid
       AND a.attname OPERATOR(pg_catalog.=) audit_column."column"
       AND NOT a.attisdropped;
    described := pg_catalog.jsonb_build_object(
        'schema', subject.nspname, 'table', subject.relname, 'column', subject.attname);
    IF subject.protected_now AND act OPERATOR(pg_catalog.=) ANY ('{protect_column, seal_table}') THEN
        PERFORM cmk_internal.audit(act, '*', after => described OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
            'label', subject.label, 'options', subject.options, 'all_sealed', subject.convalidated));
        RETURN act;
    ELSIF subject.unprotected_now AND subject.label IS NULL AND act OPERATOR(pg_catalog.=) 'unprotect_column' THEN
        PERFORM cmk_internal.audit(act, '*', before => described);
        RETURN act;
    END IF;
    RETURN NULL;
END
$$;

-- Whether a row of this xmin is of this transaction, or of a subtransaction of it.
CREATE FUNCTION cmk_internal.is_own_change(xmin pg_catalog.xid) RETURNS pg_catalog.bool
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'is_own_change_wrapper';

-- All that a tenant's auditor needs, and nothing of other tenants: what administrators did to it
-- and to every tenant, who may do what, its data keys, what the monitor saw, and whether the chains
-- are whole. Events are as they were hashed, so that the auditor can verify them.
CREATE FUNCTION cmk.audit_report(
    tenant pg_catalog.text, since pg_catalog.timestamptz DEFAULT NULL, until pg_catalog.timestamptz DEFAULT NULL)
RETURNS pg_catalog.jsonb
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF audit_report.tenant IS NULL THEN
        PERFORM cmk.raise('null_argument', 'argument=tenant');
    ELSIF NOT EXISTS (SELECT FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) audit_report.tenant)
      AND NOT EXISTS (SELECT FROM cmk.audit_event e
                       WHERE e.tenant OPERATOR(pg_catalog.=) audit_report.tenant
                         AND e.tenant OPERATOR(pg_catalog.<>) '*') THEN
        PERFORM cmk.raise('unknown_tenant', pg_catalog.concat('name=', pg_catalog.to_json(audit_report.tenant)));
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'format', 'cmk_encrypt/v1/audit-report',
        'tenant', audit_report.tenant,
        'database', pg_catalog.current_database(),
        'made_at', pg_catalog.clock_timestamp(),
        'made_by', SESSION_USER,
        'since', audit_report.since,
        'until', audit_report.until,
        'state', (SELECT t.state FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) audit_report.tenant),
        'key_uri', (SELECT t.key_uri FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) audit_report.tenant),
        'options', (SELECT t.options FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) audit_report.tenant),
        'chains', (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'tenant', v.tenant, 'origin', v.origin, 'events', v.events,
                       'first_number', v.first_number, 'last_number', v.last_number,
                       'last_at', v.last_at, 'last_hash', pg_catalog.encode(v.last_hash, 'hex'),
                       'status', v.status, 'wrong_at', v.wrong_at)), '[]')
                     FROM pg_catalog.unnest(ARRAY[audit_report.tenant, '*']) AS of (tenant)
                    CROSS JOIN LATERAL cmk.verify_audit(of.tenant) v),
        'events', (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'tenant', e.tenant, 'origin', e.origin, 'number', e.number,
                       'at', CASE WHEN pg_catalog.isfinite(e.at)
                                  THEN (pg_catalog."extract"('epoch', e.at) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 END,
                       'time', e.at, 'session_role', e.session_role, 'acting_role', e.acting_role,
                       'client_address', e.client_address, 'application_name', e.application_name,
                       'database', e.database,
                       'transaction', e.transaction::pg_catalog.text::pg_catalog.numeric,
                       'act', e.act, 'data_key', e.data_key,
                       'before', e.before::pg_catalog.text, 'after', e.after::pg_catalog.text,
                       'kms_request_ids', e.kms_request_ids,
                       'previous_hash', pg_catalog.encode(e.previous_hash, 'hex'),
                       'hash', pg_catalog.encode(e.hash, 'hex'))
                       ORDER BY e.tenant DESC, e.origin, e.number), '[]')
                     FROM cmk.audit_event e
                    WHERE e.tenant OPERATOR(pg_catalog.=) ANY (ARRAY[audit_report.tenant, '*'])
                      AND (audit_report.since IS NULL OR e.at OPERATOR(pg_catalog.>=) audit_report.since)
                      AND (audit_report.until IS NULL OR e.at OPERATOR(pg_catalog.<) audit_report.until)),
        'grants', (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'role', a.role::pg_catalog.text, 'encrypt', a.encrypt, 'decrypt', a.decrypt, 'bound', a.bound,
                       'every_tenant', a.tenant IS NULL, 'granted_at', a.granted_at)
                       ORDER BY a.role::pg_catalog.text), '[]')
                     FROM cmk.access a
                    WHERE a.tenant OPERATOR(pg_catalog.=) audit_report.tenant OR a.tenant IS NULL),
        'data_keys', (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'version', k.version, 'purpose', k.purpose, 'state', k.state,
                       'commitment', pg_catalog.encode(k.commitment, 'hex'),
                       'wrapped_by', k.wrapped_by, 'created_at', k.created_at) ORDER BY k.version), '[]')
                     FROM cmk.data_key k
                    WHERE k.tenant OPERATOR(pg_catalog.=) audit_report.tenant),
        'key_events', (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'at', k.at, 'event', k.event, 'was', k.was, 'reason', k.reason, 'info', k.info)
                       ORDER BY k.at), '[]')
                     FROM cmk.key_event k
                    WHERE k.tenant OPERATOR(pg_catalog.=) audit_report.tenant
                      AND (audit_report.since IS NULL OR k.at OPERATOR(pg_catalog.>=) audit_report.since)
                      AND (audit_report.until IS NULL OR k.at OPERATOR(pg_catalog.<) audit_report.until)));
END
$$;
