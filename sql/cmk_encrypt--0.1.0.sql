-- Made by scripts/schema.sh: change sql/*.sql and src/sql/*.rs, then run that.
\echo Use "CREATE EXTENSION cmk_encrypt" to load this file. \quit

-- The key registry. Losing these rows is losing the data, so a plain pg_dump carries them.
--
-- No table depends on another: pg_restore fills them in any order, several at a time. The functions
-- of schema cmk keep them consistent, and cmk.check() tells where they are not.
--
-- The control file's schema makes search_path "pg_catalog, pg_temp" here, where nobody else may
-- create. Names are qualified all the same.

DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION 'cmk_encrypt needs a database with encoding UTF8'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Create the database with ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
END
$$;

CREATE SCHEMA cmk;

-- The role that a grant is to: its oid, and the name by which dumps and replication find it
-- elsewhere. Input of a name that no role has is accepted and stands for nobody. src/pg/grantee.rs
-- says more.
CREATE TYPE cmk.grantee;

CREATE FUNCTION cmk.grantee_in(pg_catalog.cstring) RETURNS cmk.grantee
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_in';
CREATE FUNCTION cmk.grantee_out(cmk.grantee) RETURNS pg_catalog.cstring
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_out';
CREATE FUNCTION cmk.grantee_recv(pg_catalog.internal) RETURNS cmk.grantee
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_recv';
CREATE FUNCTION cmk.grantee_send(cmk.grantee) RETURNS pg_catalog.bytea
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_send';

CREATE TYPE cmk.grantee (
    INTERNALLENGTH = 68, ALIGNMENT = int4, STORAGE = plain,
    INPUT = cmk.grantee_in, OUTPUT = cmk.grantee_out,
    RECEIVE = cmk.grantee_recv, SEND = cmk.grantee_send);

CREATE FUNCTION cmk.grantee_oid(cmk.grantee) RETURNS pg_catalog.oid
    LANGUAGE c IMMUTABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_oid';
CREATE FUNCTION cmk.grantee_regrole(cmk.grantee) RETURNS pg_catalog.regrole
    LANGUAGE c IMMUTABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_oid';
-- What makes two grantees one: the oid, or the name of somebody who isn't here.
CREATE FUNCTION cmk.grantee_key(cmk.grantee) RETURNS pg_catalog.text
    LANGUAGE c IMMUTABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'grantee_key';

CREATE CAST (cmk.grantee AS pg_catalog.oid)
    WITH FUNCTION cmk.grantee_oid(cmk.grantee) AS IMPLICIT;
CREATE CAST (cmk.grantee AS pg_catalog.regrole)
    WITH FUNCTION cmk.grantee_regrole(cmk.grantee) AS ASSIGNMENT;

CREATE TABLE cmk.tenant (
    tenant       pg_catalog.text COLLATE pg_catalog."C" PRIMARY KEY
                 CHECK (pg_catalog.octet_length(tenant) OPERATOR(pg_catalog.>=) 1
                        AND pg_catalog.octet_length(tenant) OPERATOR(pg_catalog.<=) 255
                        AND tenant OPERATOR(pg_catalog.<>) '*'
                        AND tenant OPERATOR(pg_catalog.!~) '[[:cntrl:]]'),
    state        pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT 'pending'
                 CHECK (state OPERATOR(pg_catalog.=) ANY ('{pending, active, suspended, shredded}')),
    -- Which URIs and options there are, the providers say (crates/kms).
    key_uri      pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    options      pg_catalog.jsonb NOT NULL DEFAULT '{}'
                 CHECK (pg_catalog.jsonb_typeof(options) OPERATOR(pg_catalog.=) 'object'),
    epoch        pg_catalog.int8 NOT NULL DEFAULT 0,
    created_at   pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at   pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- The highest version that a data key of the tenant ever had: a number is never given twice,
    -- and a restore that lost data keys shows.
    last_version pg_catalog.int4 NOT NULL DEFAULT 0 CHECK (last_version OPERATOR(pg_catalog.>=) 0)
);

CREATE TABLE cmk.data_key (
    tenant      pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    -- Counts the data keys that the tenant ever had, whatever their purpose.
    version     pg_catalog.int4 NOT NULL CHECK (version OPERATOR(pg_catalog.>=) 1),
    purpose     pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT 'values'
                CHECK (purpose OPERATOR(pg_catalog.=) ANY ('{values, index}')),
    state       pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT 'current'
                CHECK (state OPERATOR(pg_catalog.=) ANY ('{current, retired, destroyed}')),
    dek_id      pg_catalog.bytea NOT NULL UNIQUE
                GENERATED ALWAYS AS (pg_catalog.substring(commitment, 1, 16)) STORED,
    commitment  pg_catalog.bytea NOT NULL
                CHECK (pg_catalog.octet_length(commitment) OPERATOR(pg_catalog.=) 32),
    wrapped     pg_catalog.bytea
                CHECK (pg_catalog.octet_length(wrapped) OPERATOR(pg_catalog.>=) 1
                       AND pg_catalog.octet_length(wrapped) OPERATOR(pg_catalog.<=) 6144),
    -- The URI of the key that wrapped it: while a tenant moves to another key, data keys of both
    -- are here.
    wrapped_by  pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    created_at  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant, version),
    CHECK ((state OPERATOR(pg_catalog.=) 'destroyed') OPERATOR(pg_catalog.=) (wrapped IS NULL))
);

CREATE UNIQUE INDEX data_key_one_current ON cmk.data_key (tenant, purpose)
    WHERE state OPERATOR(pg_catalog.=) 'current';

CREATE TABLE cmk.access (
    tenant      pg_catalog.text COLLATE pg_catalog."C",
    role        cmk.grantee NOT NULL,
    encrypt     pg_catalog.bool NOT NULL,
    decrypt     pg_catalog.bool NOT NULL,
    granted_at  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- Without a primary key, a publication of all tables would forbid every revocation.
    id          pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    CHECK (encrypt OR decrypt)
);

CREATE UNIQUE INDEX access_tenant_role_key ON cmk.access (tenant, cmk.grantee_key(role));
CREATE UNIQUE INDEX access_every_tenant_key ON cmk.access (cmk.grantee_key(role)) WHERE tenant IS NULL;

-- What the monitor saw. Nothing depends on it; old rows may be deleted.
CREATE TABLE cmk.key_event (
    id          pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    at          pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tenant      pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    event       pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    was         pg_catalog.text COLLATE pg_catalog."C",
    reason      pg_catalog.text COLLATE pg_catalog."C",
    info        pg_catalog.text COLLATE pg_catalog."C"
);

CREATE INDEX key_event_tenant_at ON cmk.key_event (tenant, at);

-- The database that this registry belongs to. CREATE DATABASE ... TEMPLATE copies the row, and so
-- is noticed; a dump leaves it out. A subscriber may get its publisher's row beside its own, so
-- there is no key.
CREATE TABLE cmk.home (
    database    pg_catalog.oid NOT NULL
);
ALTER TABLE cmk.home REPLICA IDENTITY FULL;
INSERT INTO cmk.home
    SELECT d.oid FROM pg_catalog.pg_database d
     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

-- One statement each: they all update the same row of pg_extension.
SELECT pg_catalog.pg_extension_config_dump('cmk.tenant', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.data_key', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.key_event', '');
-- Not the grants of dropped roles, nor those that came for a role which wasn't there and is
-- somebody else by now: where they are restored, that name would get them.
SELECT pg_catalog.pg_extension_config_dump('cmk.access', $$
    WHERE CASE WHEN role::pg_catalog.oid OPERATOR(pg_catalog.=) 0
               THEN NOT role::pg_catalog.text OPERATOR(pg_catalog.=) ANY (SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r)
               ELSE role::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT r.oid FROM pg_catalog.pg_roles r) END$$);

CREATE SCHEMA IF NOT EXISTS cmk;

CREATE FUNCTION cmk."activate_tenant"(
    "tenant" TEXT
) RETURNS TEXT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'activate_tenant_wrapper';

CREATE FUNCTION cmk."adopt_registry"() RETURNS VOID
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'adopt_registry_wrapper';

CREATE FUNCTION cmk."alter_tenant_options"(
    "tenant" TEXT,
    "options" pg_catalog.jsonb
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'alter_tenant_options_wrapper';

CREATE FUNCTION cmk."backend_cache"() RETURNS TABLE (
    "tenant" TEXT,
    "version" INT,
    "dek_id" bytea,
    "age_seconds" double precision,
    "expires_in_seconds" double precision,
    "hits" bigint
)
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'backend_cache_wrapper';

CREATE FUNCTION cmk."backend_cache_stats"() RETURNS TABLE (
    "entries" bigint,
    "capacity" bigint,
    "hits" bigint,
    "misses" bigint,
    "kms_calls" bigint,
    "kms_failures" bigint,
    "dropped_for_room" bigint,
    "memory_locked" bool,
    "expiry_timer" bool
)
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'backend_cache_stats_wrapper';

CREATE FUNCTION cmk."column_stats"() RETURNS TABLE (
    "seals" bigint,
    "opens" bigint
)
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'column_stats_wrapper';

CREATE FUNCTION cmk."destroy_data_keys"(
    "database" TEXT
) RETURNS INT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'destroy_data_keys_wrapper';

CREATE FUNCTION cmk."envelope_header"(
    "ciphertext" bytea
) RETURNS TABLE (
    "suite" INT,
    "dek_id" bytea,
    "plaintext_bytes" INT,
    "envelope_bytes" INT
)
IMMUTABLE STRICT PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'envelope_header_wrapper';

CREATE FUNCTION cmk."evict"(
    "tenant" TEXT
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'evict_wrapper';

CREATE FUNCTION cmk."evict_all"() RETURNS VOID
STRICT VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'evict_all_wrapper';

CREATE FUNCTION cmk."grant_access"(
    "tenant" TEXT,
    "role" TEXT,
    "encrypt" bool DEFAULT true,
    "decrypt" bool DEFAULT true
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'grant_access_wrapper';

CREATE FUNCTION cmk."grant_access"(
    "tenant" TEXT,
    "role" pg_catalog.regrole,
    "encrypt" bool DEFAULT true,
    "decrypt" bool DEFAULT true
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'grant_access_to_regrole_wrapper';

CREATE FUNCTION cmk."is_preloaded"() RETURNS bool
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'is_preloaded_wrapper';

CREATE FUNCTION cmk."key_copies"(
    "tenant" TEXT
) RETURNS TABLE (
    "lives_on" double precision,
    "holders" INT,
    "server_wide" bool,
    "ttl" double precision,
    "assumed_role" bool
)
VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'key_copies_wrapper';

CREATE FUNCTION cmk."key_status"(
    "tenant" TEXT
) RETURNS TABLE (
    "key_state" TEXT,
    "reason" TEXT,
    "info" TEXT,
    "since" double precision,
    "last_success" double precision,
    "last_failure" double precision,
    "hits" bigint,
    "misses" bigint,
    "kms_calls" bigint,
    "kms_failures" bigint,
    "waits" bigint,
    "refused" bigint,
    "p50_ms" double precision,
    "p95_ms" double precision,
    "p99_ms" double precision,
    "holders" INT,
    "server_wide" bool
)
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'key_status_wrapper';

CREATE FUNCTION cmk."protections"() RETURNS TABLE (
    "relation" oid,
    "attnum" smallint,
    "label" TEXT,
    "tenant" TEXT,
    "options" TEXT,
    "constraint_oid" oid,
    "validated" bool
)
STRICT STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'protections_wrapper';

CREATE FUNCTION cmk."raise"(
    "reason" TEXT,
    "info" TEXT DEFAULT NULL
) RETURNS VOID
VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'raise_wrapper';

CREATE FUNCTION cmk."register_tenant"(
    "tenant" TEXT,
    "key_uri" TEXT,
    "options" pg_catalog.jsonb DEFAULT '{}',
    "activate" bool DEFAULT true
) RETURNS TEXT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'register_tenant_wrapper';

CREATE FUNCTION cmk."reset_stats"() RETURNS void
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'reset_stats_wrapper';

CREATE FUNCTION cmk."resume_tenant"(
    "tenant" TEXT
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'resume_tenant_wrapper';

CREATE FUNCTION cmk."revoke_access"(
    "tenant" TEXT,
    "role" TEXT,
    "encrypt" bool DEFAULT true,
    "decrypt" bool DEFAULT true
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'revoke_access_wrapper';

CREATE FUNCTION cmk."revoke_access"(
    "tenant" TEXT,
    "role" pg_catalog.regrole,
    "encrypt" bool DEFAULT true,
    "decrypt" bool DEFAULT true
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'revoke_access_from_regrole_wrapper';

CREATE FUNCTION cmk."rotate_tenant"(
    "tenant" TEXT
) RETURNS INT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'rotate_tenant_wrapper';

CREATE FUNCTION cmk."seal_batch"(
    "relation" oid,
    "attnum" smallint,
    "first_block" bigint,
    "last_block" bigint,
    "skip" TEXT[]
) RETURNS bigint
VOLATILE PARALLEL UNSAFE
LANGUAGE c
AS 'MODULE_PATHNAME', 'seal_batch_wrapper';

CREATE FUNCTION cmk."suspend_tenant"(
    "tenant" TEXT
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'suspend_tenant_wrapper';

CREATE FUNCTION cmk."warm"(
    "tenants" VARIADIC TEXT[]
) RETURNS INT
VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'warm_wrapper';

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
BEGIN
    FOR f IN SELECT * FROM (VALUES
        ('cmk_encrypt', 'plaintext', '{bytea}'::pg_catalog.text[], 'bytea', 'VOLATILE', 'cmk_encrypt', '{-}'::pg_catalog.text[],
         'Seals a value under the current data key of a tenant; aad must be given again to decrypt'),
        ('cmk_encrypt', 'plaintext', '{text, varchar}', 'bytea', 'VOLATILE', 'cmk_encrypt_text', '{-}',
         'Seals a text under the current data key of a tenant; aad must be given again to decrypt'),
        ('cmk_encrypt_text', 'plaintext', '{text, varchar}', 'bytea', 'VOLATILE', 'cmk_encrypt_text', '{-}',
         'Seals a text under the current data key of a tenant; aad must be given again to decrypt'),
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
                THEN pg_catalog.format($c$LANGUAGE c COST 1 AS 'MODULE_PATHNAME', '%s_wrapper'$c$, f.symbol)
                ELSE pg_catalog.format($sql$LANGUAGE sql COST 1 AS 'SELECT pg_catalog.%I($1, $2%s, $3::pg_catalog.bytea%s)'$sql$,
                    f.name,
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

-- The types of protected columns: cmk_text (for text and varchar), cmk_bytea, cmk_jsonb. In
-- pg_catalog, where every session looks first, and dumps and workers look only.
--
-- What may open a value is PARALLEL RESTRICTED: a parallel worker is a new process with an empty
-- cache, so each would ask KMS again. Nothing that opens values is IMMUTABLE, so no index can be
-- made of what it returns. STORAGE external: ciphertext doesn't compress, and so the header of a
-- long value is read without the rest.
DO $$
DECLARE
    kind pg_catalog.record;
BEGIN
    FOR kind IN SELECT * FROM (VALUES
        ('text', 'text', $more$, TYPMOD_IN = pg_catalog.cmk_text_typmod_in,
            TYPMOD_OUT = pg_catalog.cmk_text_typmod_out, CATEGORY = 'S', COLLATABLE = true$more$),
        ('bytea', 'bytea', ''),
        ('jsonb', 'jsonb', '')
    ) AS v (name, protected, more)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TYPE pg_catalog.cmk_%1$s;
            CREATE FUNCTION pg_catalog.cmk_%1$s_in(pg_catalog.cstring) RETURNS pg_catalog.cmk_%1$s
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_in';
            CREATE FUNCTION pg_catalog.cmk_%1$s_out(pg_catalog.cmk_%1$s) RETURNS pg_catalog.cstring
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_out';
            CREATE FUNCTION pg_catalog.cmk_%1$s_recv(pg_catalog.internal) RETURNS pg_catalog.cmk_%1$s
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_recv';
            CREATE FUNCTION pg_catalog.cmk_%1$s_send(pg_catalog.cmk_%1$s) RETURNS pg_catalog.bytea
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_send';
            $sql$, kind.name);
        IF kind.name OPERATOR(pg_catalog.=) 'text' THEN
            CREATE FUNCTION pg_catalog.cmk_text_typmod_in(pg_catalog._cstring) RETURNS pg_catalog.int4
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_text_modifier_in';
            CREATE FUNCTION pg_catalog.cmk_text_typmod_out(pg_catalog.int4) RETURNS pg_catalog.cstring
                LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_text_modifier_out';
            CREATE FUNCTION pg_catalog.cmk_column_analyze(pg_catalog.internal) RETURNS pg_catalog.bool
                LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_analyze';
        END IF;
        EXECUTE pg_catalog.format($sql$
            CREATE TYPE pg_catalog.cmk_%1$s (
                INPUT = pg_catalog.cmk_%1$s_in, OUTPUT = pg_catalog.cmk_%1$s_out,
                RECEIVE = pg_catalog.cmk_%1$s_recv, SEND = pg_catalog.cmk_%1$s_send,
                ANALYZE = pg_catalog.cmk_column_analyze,
                INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = external%3$s);
            CREATE FUNCTION pg_catalog.%2$s(pg_catalog.cmk_%1$s) RETURNS pg_catalog.%2$s
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_%1$s_reveal';
            CREATE CAST (pg_catalog.cmk_%1$s AS pg_catalog.%2$s)
                WITH FUNCTION pg_catalog.%2$s(pg_catalog.cmk_%1$s) AS IMPLICIT;
            COMMENT ON FUNCTION pg_catalog.%2$s(pg_catalog.cmk_%1$s) IS 'Opens a value of a protected column';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_in(pg_catalog.cstring) IS 'I/O';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_out(pg_catalog.cmk_%1$s) IS 'I/O';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_recv(pg_catalog.internal) IS 'I/O';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_send(pg_catalog.cmk_%1$s) IS 'I/O';
            $sql$, kind.name, kind.protected, kind.more);
        EXECUTE pg_catalog.format('COMMENT ON TYPE pg_catalog.cmk_%s IS %L', kind.name,
            pg_catalog.format('A %s that is sealed where it is stored: see cmk.protect_column()', kind.protected));
    END LOOP;
END
$$;

-- The same bytes while they are not sealed: so a column becomes protected, and an INSERT casts,
-- without any work. An INSERT only: where both types would do, text is meant.
CREATE CAST (pg_catalog.text AS pg_catalog.cmk_text) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (pg_catalog.varchar AS pg_catalog.cmk_text) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) RETURNS pg_catalog.varchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_text_reveal';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) AS IMPLICIT;

-- A bytea or jsonb may begin with any byte, so a mark goes before it until it is sealed.
CREATE FUNCTION pg_catalog.cmk_bytea(pg_catalog.bytea) RETURNS pg_catalog.cmk_bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_bytea_conceal';
CREATE CAST (pg_catalog.bytea AS pg_catalog.cmk_bytea)
    WITH FUNCTION pg_catalog.cmk_bytea(pg_catalog.bytea) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.cmk_jsonb(pg_catalog.jsonb) RETURNS pg_catalog.cmk_jsonb
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_jsonb_conceal';
CREATE CAST (pg_catalog.jsonb AS pg_catalog.cmk_jsonb)
    WITH FUNCTION pg_catalog.cmk_jsonb(pg_catalog.jsonb) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.cmk_jsonb(pg_catalog.json) RETURNS pg_catalog.cmk_jsonb
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_json_conceal';
CREATE CAST (pg_catalog.json AS pg_catalog.cmk_jsonb)
    WITH FUNCTION pg_catalog.cmk_jsonb(pg_catalog.json) AS ASSIGNMENT;
-- What row_to_json() calls. Not implicit, because json has operators of the same names as jsonb.
CREATE FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) RETURNS pg_catalog.json
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_json_reveal';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.json)
    WITH FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) AS ASSIGNMENT;
COMMENT ON FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.cmk_bytea(pg_catalog.bytea) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.cmk_jsonb(pg_catalog.json) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.cmk_jsonb(pg_catalog.jsonb) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.cmk_text_typmod_in(pg_catalog._cstring) IS 'I/O typmod';
COMMENT ON FUNCTION pg_catalog.cmk_text_typmod_out(pg_catalog.int4) IS 'I/O typmod';
COMMENT ON FUNCTION pg_catalog.cmk_column_analyze(pg_catalog.internal) IS
    'Statistics of a protected column, without its values';

-- requires:
--   types

-- Operators of protected columns. All compare plaintexts, as the type that is protected does. What
-- isn't here (<, LIKE, ||, ->, …) is that type's own, by the implicit cast.
--
-- The operators of the default btree classes have names of their own, so that `<` stays text's. The
-- classes are for sorting, grouping and joining; they refuse to be indexed. `=` does not MERGE: the
-- planner would build on it what holds only of an operator that never fails.
DO $$
DECLARE
    kind pg_catalog.text;
    operator pg_catalog.record;
BEGIN
    CREATE FUNCTION pg_catalog.cmk_column_no_index(pg_catalog.internal) RETURNS pg_catalog.void
        LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_refuse_index';

    FOREACH kind IN ARRAY '{text, bytea, jsonb}'::pg_catalog.text[] LOOP
        FOR operator IN SELECT * FROM (VALUES
            ('=', 'eq', 'HASHES, COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel'),
            ('<>', 'ne', 'COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = pg_catalog.neqsel, JOIN = pg_catalog.neqjoinsel'),
            ('<#', 'lt', 'COMMUTATOR = OPERATOR(pg_catalog.>#)'),
            ('<=#', 'le', 'COMMUTATOR = OPERATOR(pg_catalog.>=#)'),
            ('>#', 'gt', 'COMMUTATOR = OPERATOR(pg_catalog.<#)'),
            ('>=#', 'ge', 'COMMUTATOR = OPERATOR(pg_catalog.<=#)')
        ) AS v (name, symbol, more)
        LOOP
            EXECUTE pg_catalog.format($sql$
                CREATE FUNCTION pg_catalog.cmk_%1$s_%2$s(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s)
                    RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                    AS 'MODULE_PATHNAME', 'column_%1$s_%2$s';
                CREATE OPERATOR pg_catalog.%3$s (FUNCTION = pg_catalog.cmk_%1$s_%2$s,
                    LEFTARG = pg_catalog.cmk_%1$s, RIGHTARG = pg_catalog.cmk_%1$s, %4$s);
                COMMENT ON FUNCTION pg_catalog.cmk_%1$s_%2$s(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s) IS
                    'Implementation of operator %3$s';
                $sql$, kind, operator.symbol, operator.name, operator.more);
        END LOOP;
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s)
                RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_%1$s_cmp';
            CREATE FUNCTION pg_catalog.cmk_%1$s_sort(pg_catalog.internal) RETURNS pg_catalog.void
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_sort';
            CREATE FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s) RETURNS pg_catalog.int4
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_%1$s_hash';
            CREATE FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8)
                RETURNS pg_catalog.int8 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_%1$s_hash_extended';
            CREATE OPERATOR CLASS pg_catalog.cmk_%1$s_sort_ops DEFAULT FOR TYPE pg_catalog.cmk_%1$s
                USING btree AS
                OPERATOR 1 pg_catalog.<#, OPERATOR 2 pg_catalog.<=#, OPERATOR 3 pg_catalog.=,
                OPERATOR 4 pg_catalog.>=#, OPERATOR 5 pg_catalog.>#,
                FUNCTION 1 pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s),
                FUNCTION 2 pg_catalog.cmk_%1$s_sort(pg_catalog.internal),
                FUNCTION 5 pg_catalog.cmk_column_no_index(pg_catalog.internal);
            CREATE OPERATOR CLASS pg_catalog.cmk_%1$s_hash_ops DEFAULT FOR TYPE pg_catalog.cmk_%1$s
                USING hash AS
                OPERATOR 1 pg_catalog.=,
                FUNCTION 1 pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s),
                FUNCTION 2 pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8),
                FUNCTION 3 pg_catalog.cmk_column_no_index(pg_catalog.internal);
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s) IS
                'Compares plaintexts';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_sort(pg_catalog.internal) IS
                'Sort support: opens every value once';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s) IS 'Hash of the plaintext';
            COMMENT ON FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8) IS
                'Hash of the plaintext';
            $sql$, kind);
    END LOOP;

    -- Text on one side: what a driver sends as text or varchar.
    FOR operator IN SELECT * FROM (VALUES
        ('=', 'eq', 'NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel'),
        ('<>', 'ne', 'NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = pg_catalog.neqsel, JOIN = pg_catalog.neqjoinsel')
    ) AS v (name, symbol, more)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.cmk_text, pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_text_%1$s';
            CREATE FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.text, pg_catalog.cmk_text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_text_%1$s';
            CREATE OPERATOR pg_catalog.%2$s (FUNCTION = pg_catalog.cmk_text_%1$s,
                LEFTARG = pg_catalog.cmk_text, RIGHTARG = pg_catalog.text,
                COMMUTATOR = OPERATOR(pg_catalog.%2$s), %3$s);
            CREATE OPERATOR pg_catalog.%2$s (FUNCTION = pg_catalog.cmk_text_%1$s,
                LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.cmk_text,
                COMMUTATOR = OPERATOR(pg_catalog.%2$s), %3$s);
            COMMENT ON FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.cmk_text, pg_catalog.text) IS
                'Implementation of operator %2$s';
            COMMENT ON FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.text, pg_catalog.cmk_text) IS
                'Implementation of operator %2$s';
            $sql$, operator.symbol, operator.name, operator.more);
    END LOOP;
END
$$;

CREATE FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text)
    RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_text_cmp';
CREATE FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_text_cmp';
ALTER OPERATOR FAMILY pg_catalog.cmk_text_sort_ops USING btree ADD
    OPERATOR 3 pg_catalog.= (pg_catalog.cmk_text, pg_catalog.text),
    FUNCTION 1 (pg_catalog.cmk_text, pg_catalog.text)
        pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text),
    OPERATOR 3 pg_catalog.= (pg_catalog.text, pg_catalog.cmk_text),
    FUNCTION 1 (pg_catalog.text, pg_catalog.cmk_text)
        pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text);
COMMENT ON FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text) IS
    'Compares plaintexts';
COMMENT ON FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text) IS
    'Compares plaintexts';

-- requires:
--   types

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
                RETURNS pg_catalog.cmk_%1$s LANGUAGE c VOLATILE PARALLEL RESTRICTED
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
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'column_try_text';
COMMENT ON FUNCTION cmk.seal() IS 'The trigger that seals the values of protected columns';
COMMENT ON FUNCTION cmk.seals(pg_catalog.text, "any") IS
    'Names a protected column''s label and its tenant in the condition of the sealing trigger';
COMMENT ON FUNCTION cmk.try_text(pg_catalog.cmk_text) IS
    'Opens a value of a protected column; null for failures that concern this value only';

-- requires:
--   types

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
                LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_%1$s_show';
            COMMENT ON FUNCTION cmk.show(pg_catalog.cmk_%1$s) IS
                'A value of a protected column as a client is sent it; for cmk_encrypt.wire_type = text';
            $sql$, kind);
    END LOOP;
END
$$;

-- What keeps the registry from being changed past its functions, and tells every session of a
-- change.

CREATE FUNCTION cmk.registry_guard() RETURNS pg_catalog.trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'registry_guard';
CREATE FUNCTION cmk.registry_changed() RETURNS pg_catalog.trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'registry_changed';
CREATE FUNCTION cmk.drop_guard() RETURNS pg_catalog.event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'drop_guard';

-- ALWAYS: also when a restore or logical replication writes the rows; the latter fires row triggers
-- only. The guards keep out roles that may write any table (pg_write_all_data) and so could grant
-- themselves access, or forge or forestall what the monitor tells.
DO $$
DECLARE
    guarded pg_catalog.text;
    registry CONSTANT pg_catalog.text[] := '{tenant, data_key, access, home}';
BEGIN
    FOREACH guarded IN ARRAY pg_catalog.array_append(registry, 'key_event') LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cmk.%1$I
                FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard();
            CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON cmk.%1$I
                FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard();
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard;
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard_row;
        $sql$, guarded);
    END LOOP;
    FOREACH guarded IN ARRAY registry LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON cmk.%1$I
                FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed();
            CREATE TRIGGER announce_truncate AFTER TRUNCATE ON cmk.%1$I
                FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed();
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce;
            ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce_truncate;
        $sql$, guarded);
    END LOOP;
END
$$;

-- Has the library loaded in time: its hook refuses to drop cmk.data_key while there are data keys,
-- whatever command or cascade gets there. Preloaded, it is there for all commands; else for those
-- that could get there by themselves.
CREATE EVENT TRIGGER cmk_drop_guard ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA') EXECUTE FUNCTION cmk.drop_guard();
ALTER EVENT TRIGGER cmk_drop_guard ENABLE ALWAYS;

-- The integrity of the registry: no constraint spans its tables, so that a restore can fill them in
-- any order. detail says what is wrong and what people have to decide; fix is SQL to run, as it
-- stands, once they decided, or null.

CREATE FUNCTION cmk.check(
    OUT problem pg_catalog.text, OUT tenant pg_catalog.text, OUT detail pg_catalog.text, OUT fix pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'data_keys_missing', t.tenant,
           pg_catalog.format('cmk.data_key lacks %s of %s data keys; restore it from the backup that cmk.tenant came from: pg_restore --data-only --schema=cmk --table=data_key',
               GREATEST(t.last_version, 1) OPERATOR(pg_catalog.-) pg_catalog.count(k.version),
               GREATEST(t.last_version, 1)),
           NULL
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key k
             ON k.tenant OPERATOR(pg_catalog.=) t.tenant
            AND k.version OPERATOR(pg_catalog.<=) GREATEST(t.last_version, 1)
     WHERE t.state OPERATOR(pg_catalog.<>) 'pending'
     GROUP BY t.tenant, t.last_version
    HAVING pg_catalog.count(k.version) OPERATOR(pg_catalog.<) GREATEST(t.last_version, 1)
    UNION ALL
    SELECT 'no_current_data_key', t.tenant,
           'none of its data keys for values is current; restore cmk.data_key from a backup, or go on with the newest that there is, or with a new one',
           pg_catalog.format(
               CASE WHEN pg_catalog.bool_or(k.state OPERATOR(pg_catalog.=) 'retired')
                    THEN $fix$UPDATE cmk.data_key SET state = 'current' WHERE (tenant, version) = (%L, %s)$fix$
                    ELSE 'SELECT cmk.rotate_tenant(%L)' END,
               t.tenant,
               pg_catalog.max(k.version) FILTER (WHERE k.state OPERATOR(pg_catalog.=) 'retired'))
      FROM cmk.tenant t
      JOIN cmk.data_key k
        ON k.tenant OPERATOR(pg_catalog.=) t.tenant AND k.purpose OPERATOR(pg_catalog.=) 'values'
     WHERE t.state OPERATOR(pg_catalog.=) ANY ('{active, suspended}')
     GROUP BY t.tenant
    HAVING NOT pg_catalog.bool_or(k.state OPERATOR(pg_catalog.=) 'current')
    UNION ALL
    SELECT 'tenant_row_missing', k.tenant,
           pg_catalog.format('%s data keys, but no row in cmk.tenant; restore it from the backup that cmk.data_key came from: pg_restore --data-only --schema=cmk --table=tenant',
               pg_catalog.count(*)),
           NULL
      FROM cmk.data_key k
     WHERE NOT EXISTS (SELECT FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) k.tenant)
     GROUP BY k.tenant
    UNION ALL
    SELECT 'grant_without_tenant', a.tenant,
           pg_catalog.format('a grant to role %s; restore cmk.tenant, or take it back', a.role),
           pg_catalog.format('DELETE FROM cmk.access WHERE id = %L', a.id)
      FROM cmk.access a
     WHERE a.tenant IS NOT NULL
       AND NOT EXISTS (SELECT FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) a.tenant)
    UNION ALL
    SELECT 'grant_without_role', a.tenant,
           pg_catalog.format('a grant to role %s, which this server did not have when the grant came, has no effect; to grant it, create the role, then SELECT cmk.grant_access(%L, %L, encrypt => %L, decrypt => %L)',
               a.role, COALESCE(a.tenant, '*'), a.role, a.encrypt, a.decrypt),
           pg_catalog.format('DELETE FROM cmk.access WHERE id = %L', a.id)
      FROM cmk.access a
     WHERE a.role::pg_catalog.oid OPERATOR(pg_catalog.=) 0
    UNION ALL
    SELECT 'grant_of_dropped_role', a.tenant, pg_catalog.format('a grant to role %s has no effect', a.role),
           pg_catalog.format('DELETE FROM cmk.access WHERE id = %L', a.id)
      FROM cmk.access a
     WHERE a.role::pg_catalog.oid OPERATOR(pg_catalog.<>) 0
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
                        WHERE r.oid OPERATOR(pg_catalog.=) a.role::pg_catalog.oid)
    UNION ALL
    SELECT CASE WHEN p.oid IS NULL THEN 'foreign_trigger' ELSE 'trigger_not_always' END, NULL,
           pg_catalog.format(
               CASE WHEN p.oid IS NULL THEN 'trigger %I of cmk.%I is none of ours, and may change or swallow rows'
                    ELSE 'trigger %I of cmk.%I is not ENABLE ALWAYS, as after pg_restore --disable-triggers' END,
               g.tgname, c.relname),
           pg_catalog.format(
               CASE WHEN p.oid IS NULL THEN 'DROP TRIGGER %2$I ON cmk.%1$I'
                    ELSE 'ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER %2$I' END,
               c.relname, g.tgname)
      FROM pg_catalog.pg_trigger g
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      LEFT JOIN pg_catalog.pg_proc p
             ON p.oid OPERATOR(pg_catalog.=) g.tgfoid
            AND p.pronamespace OPERATOR(pg_catalog.=) n.oid
            AND p.proname OPERATOR(pg_catalog.=) ANY ('{registry_guard, registry_changed}')
     WHERE n.nspname OPERATOR(pg_catalog.=) 'cmk' AND NOT g.tgisinternal
       AND (p.oid IS NULL OR g.tgenabled OPERATOR(pg_catalog.<>) 'A')
    UNION ALL
    SELECT 'trigger_missing', NULL, pg_catalog.format('cmk.%I has no trigger %I', wanted.relname, wanted.tgname),
           pg_catalog.format(wanted.fix, wanted.relname)
      FROM (SELECT r.relname, g.tgname, g.fix
              FROM pg_catalog.unnest('{tenant, data_key, access, home, key_event}'::pg_catalog.text[]) r (relname)
             CROSS JOIN (VALUES
                ('guard', 'CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard'),
                ('guard_row', 'CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard_row'),
                ('announce', 'CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce'),
                ('announce_truncate', 'CREATE TRIGGER announce_truncate AFTER TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce_truncate')
             ) g (tgname, fix)
             WHERE r.relname OPERATOR(pg_catalog.<>) 'key_event'
                OR pg_catalog.starts_with(g.tgname, 'guard')) wanted
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
                         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                        WHERE n.nspname OPERATOR(pg_catalog.=) 'cmk'
                          AND c.relname OPERATOR(pg_catalog.=) wanted.relname::pg_catalog.name
                          AND g.tgname OPERATOR(pg_catalog.=) wanted.tgname::pg_catalog.name)
    UNION ALL
    SELECT 'drop_guard_off', NULL, 'event trigger cmk_drop_guard does not exist', NULL
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
                        WHERE e.evtname OPERATOR(pg_catalog.=) 'cmk_drop_guard')
    UNION ALL
    SELECT 'drop_guard_off', NULL, 'event trigger cmk_drop_guard is not ENABLE ALWAYS',
           'ALTER EVENT TRIGGER cmk_drop_guard ENABLE ALWAYS'
      FROM pg_catalog.pg_event_trigger e
     WHERE e.evtname OPERATOR(pg_catalog.=) 'cmk_drop_guard'
       AND e.evtenabled OPERATOR(pg_catalog.<>) 'A'
    UNION ALL
    SELECT 'registry_copied', NULL,
           'this database was made from another one that has the extension; look at cmk.access and cmk.tenants before you adopt them',
           'SELECT cmk.adopt_registry()'
     WHERE NOT EXISTS (SELECT FROM cmk.home h
                         JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) h.database
                        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
$$;

-- requires:
--   envelope_header
--   key_status
--   key_copies
--   backend_cache
--   backend_cache_stats

-- Views, and the functions behind them.

-- PARALLEL UNSAFE: its body may be what loads the library, which can't happen while workers run.
CREATE FUNCTION cmk.inspect(
    ciphertext pg_catalog.bytea,
    OUT suite pg_catalog.int4, OUT dek_id pg_catalog.bytea, OUT tenant pg_catalog.text,
    OUT version pg_catalog.int4, OUT state pg_catalog.text,
    OUT plaintext_bytes pg_catalog.int4, OUT envelope_bytes pg_catalog.int4)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.suite, h.dek_id, k.tenant, k.version, k.state, h.plaintext_bytes, h.envelope_bytes
      FROM cmk.envelope_header(ciphertext) h
      LEFT JOIN cmk.data_key k ON k.dek_id OPERATOR(pg_catalog.=) h.dek_id
$$;

CREATE VIEW cmk.tenants AS
    SELECT t.tenant, t.state, t.key_uri, current.version, counted.data_keys, t.created_at, t.changed_at
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key current
             ON current.tenant OPERATOR(pg_catalog.=) t.tenant
            AND current.state OPERATOR(pg_catalog.=) 'current'
            AND current.purpose OPERATOR(pg_catalog.=) 'values'
     CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS data_keys
                           FROM cmk.data_key k
                          WHERE k.tenant OPERATOR(pg_catalog.=) t.tenant) counted;

CREATE VIEW cmk.status AS
    SELECT t.tenant, t.state AS tenant_state, s.key_state, s.reason, s.info,
           pg_catalog.to_timestamp(s.since) AS since,
           pg_catalog.to_timestamp(s.last_success) AS last_success,
           pg_catalog.to_timestamp(s.last_failure) AS last_failure,
           s.hits, s.misses, s.kms_calls, s.kms_failures, s.waits, s.refused,
           s.p50_ms, s.p95_ms, s.p99_ms, s.holders, s.server_wide
      FROM cmk.tenant t CROSS JOIN LATERAL cmk.key_status(t.tenant) s;

-- An STS session of an assumed role outlives the role's withdrawal by up to 15 minutes. Not STRICT,
-- so that a NULL is an error, as is a tenant that isn't registered.
CREATE FUNCTION cmk.revocation_bound(
    tenant pg_catalog.text,
    OUT dark_within pg_catalog.interval, OUT copies_until pg_catalog.timestamptz,
    OUT holders pg_catalog.int4, OUT worst_case pg_catalog.interval,
    OUT server_wide pg_catalog.bool)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.make_interval(secs => c.lives_on),
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => c.lives_on),
           c.holders,
           GREATEST(pg_catalog.make_interval(secs => c.ttl), pg_catalog.make_interval(secs => c.lives_on))
           OPERATOR(pg_catalog.+)
           CASE WHEN c.assumed_role THEN '15 min'::pg_catalog.interval ELSE '0'::pg_catalog.interval END,
           c.server_wide
      FROM cmk.key_copies(revocation_bound.tenant) c
$$;

CREATE VIEW cmk.cache AS
    SELECT tenant, version, dek_id,
           pg_catalog.make_interval(secs => age_seconds) AS age,
           pg_catalog.make_interval(secs => expires_in_seconds) AS expires_in,
           hits
      FROM cmk.backend_cache();

CREATE VIEW cmk.cache_stats AS SELECT * FROM cmk.backend_cache_stats();

-- Privileges and comments, when everything is there.

-- Default privileges (ALTER DEFAULT PRIVILEGES) may have granted more, or less, than is meant here.
-- So everything is taken back from everybody, PUBLIC included, before it is granted to whom it is
-- for. Not from row types: pg_dump warns of each whose privileges an extension has set.
DO $$
DECLARE
    grantee pg_catalog.text;
    object pg_catalog.text;
BEGIN
    FOR object, grantee IN
        WITH members AS (
            SELECT d.classid, d.objid
              FROM pg_catalog.pg_depend d
              JOIN pg_catalog.pg_extension e
                ON d.refclassid OPERATOR(pg_catalog.=) 'pg_extension'::pg_catalog.regclass
               AND d.refobjid OPERATOR(pg_catalog.=) e.oid
             WHERE e.extname OPERATOR(pg_catalog.=) 'cmk_encrypt'
               AND d.deptype OPERATOR(pg_catalog.=) 'e'),
        ours (object, acl, owner) AS (
            SELECT pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass), c.relacl, c.relowner
              FROM pg_catalog.pg_class c
             WHERE c.relnamespace OPERATOR(pg_catalog.=) 'cmk'::pg_catalog.regnamespace
               AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v}'::pg_catalog."char"[])
            UNION ALL
            SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure), p.proacl, p.proowner
              FROM pg_catalog.pg_proc p
              JOIN members m
                ON m.classid OPERATOR(pg_catalog.=) 'pg_proc'::pg_catalog.regclass
               AND m.objid OPERATOR(pg_catalog.=) p.oid
            UNION ALL
            SELECT pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype), t.typacl, t.typowner
              FROM pg_catalog.pg_type t
             WHERE t.typnamespace OPERATOR(pg_catalog.=) 'cmk'::pg_catalog.regnamespace
               AND t.typelem OPERATOR(pg_catalog.=) 0
               AND t.typrelid OPERATOR(pg_catalog.=) 0
            UNION ALL
            SELECT 'SCHEMA cmk', n.nspacl, n.nspowner
              FROM pg_catalog.pg_namespace n
             WHERE n.nspname OPERATOR(pg_catalog.=) 'cmk')
        SELECT ours.object, 'PUBLIC'
          FROM ours
        UNION ALL
        SELECT ours.object, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee))
          FROM ours CROSS JOIN LATERAL pg_catalog.aclexplode(ours.acl) AS acl
         WHERE acl.grantee OPERATOR(pg_catalog.<>) 0
           AND acl.grantee OPERATOR(pg_catalog.<>) ours.owner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', object, grantee);
    END LOOP;

    -- Anyone may call them; the grants for tenants decide, at every call.
    FOR object IN
        SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text
          FROM pg_catalog.pg_proc p
          JOIN pg_catalog.pg_depend d
            ON d.classid OPERATOR(pg_catalog.=) 'pg_proc'::pg_catalog.regclass
           AND d.objid OPERATOR(pg_catalog.=) p.oid
           AND d.deptype OPERATOR(pg_catalog.=) 'e'
          JOIN pg_catalog.pg_extension e
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_extension'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) e.oid
         WHERE e.extname OPERATOR(pg_catalog.=) 'cmk_encrypt'
           AND p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', object);
    END LOOP;
END
$$;

-- pg_read_all_data must be able to dump cmk.access, whose roles are of this type.
GRANT EXECUTE ON FUNCTION cmk.grantee_in(pg_catalog.cstring), cmk.grantee_out(cmk.grantee),
    cmk.grantee_recv(pg_catalog.internal), cmk.grantee_send(cmk.grantee), cmk.grantee_oid(cmk.grantee),
    cmk.grantee_regrole(cmk.grantee), cmk.grantee_key(cmk.grantee) TO pg_read_all_data;

-- What stands in the definitions of protected tables has to be found by whoever restores, owns or
-- writes one. None of these tells anything about keys or other people's tables but
-- cmk.protections(), which repeats what pg_constraint shows to everybody.
GRANT USAGE ON SCHEMA cmk TO PUBLIC;
GRANT USAGE ON TYPE pg_catalog.cmk_text, pg_catalog.cmk_bytea, pg_catalog.cmk_jsonb TO PUBLIC;
GRANT EXECUTE ON FUNCTION
    cmk.seal(), cmk.seals(pg_catalog.text, "any"), cmk.try_text(pg_catalog.cmk_text),
    cmk.sealed(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.sealed(pg_catalog.cmk_bytea, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.sealed(pg_catalog.cmk_jsonb, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.is_sealed(pg_catalog.cmk_text), cmk.is_sealed(pg_catalog.cmk_bytea),
    cmk.is_sealed(pg_catalog.cmk_jsonb),
    cmk.envelope(pg_catalog.cmk_text), cmk.envelope(pg_catalog.cmk_bytea),
    cmk.envelope(pg_catalog.cmk_jsonb),
    cmk.seal_value(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.seal_value(pg_catalog.bytea, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.seal_value(pg_catalog.jsonb, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.seal_batch(pg_catalog.oid, pg_catalog.int2, pg_catalog.int8, pg_catalog.int8, pg_catalog._text),
    cmk.show(pg_catalog.cmk_text), cmk.show(pg_catalog.cmk_bytea), cmk.show(pg_catalog.cmk_jsonb),
    cmk.protections(), cmk.is_preloaded(), cmk.column_stats(), cmk.raise(pg_catalog.text, pg_catalog.text) TO PUBLIC;

-- Those who monitor see names, states and counters, and can change nothing.
GRANT SELECT ON cmk.tenants, cmk.status, cmk.key_event, cmk.cache, cmk.cache_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION cmk.key_status(pg_catalog.text),
    cmk.revocation_bound(pg_catalog.text), cmk.backend_cache(), cmk.backend_cache_stats(),
    cmk.check() TO pg_monitor;

COMMENT ON SCHEMA cmk IS 'Key registry and administration of cmk_encrypt';
COMMENT ON FUNCTION cmk.protections() IS
    'How the columns of this database are protected, as their CHECK constraints say it';
COMMENT ON FUNCTION cmk.is_preloaded() IS
    'Whether the library was loaded before this session''s first statement, by shared_preload_libraries or session_preload_libraries';
COMMENT ON FUNCTION cmk.column_stats() IS
    'How many values of protected columns this session sealed and opened';
COMMENT ON FUNCTION cmk.seal_batch(pg_catalog.oid, pg_catalog.int2, pg_catalog.int8, pg_catalog.int8, pg_catalog._text) IS
    'Seals what is still plaintext in some blocks of a table, except for the tenants named; used by cmk.seal_table()';
COMMENT ON FUNCTION cmk.raise(pg_catalog.text, pg_catalog.text) IS
    'Raises the error of that reason, for the functions of cmk that are written in SQL';
COMMENT ON FUNCTION cmk.register_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool) IS
    'Registers a tenant and its key (KMS key ARN or local:NAME) and, unless told not to, makes its first data key';
COMMENT ON FUNCTION cmk.alter_tenant_options(pg_catalog.text, pg_catalog.jsonb) IS
    'Changes the role or external id by which a tenant''s key is used, once KMS unwraps the current data key that way';
COMMENT ON FUNCTION cmk.activate_tenant(pg_catalog.text) IS
    'Makes the first data key of a pending tenant, once its key policy lets us';
COMMENT ON FUNCTION cmk.rotate_tenant(pg_catalog.text) IS
    'Makes a new data key for new values and returns its version; old values still open';
COMMENT ON FUNCTION cmk.suspend_tenant(pg_catalog.text) IS
    'Stops encryption and decryption for a tenant, in every session from commit on';
COMMENT ON FUNCTION cmk.resume_tenant(pg_catalog.text) IS 'Lifts a suspension';
COMMENT ON FUNCTION cmk.evict(pg_catalog.text) IS
    'From commit on, no session uses a data key of the tenant without asking KMS again';
COMMENT ON FUNCTION cmk.evict_all() IS
    'From commit on, no session uses a data key of any tenant of this database without asking KMS again';
COMMENT ON FUNCTION cmk.warm(pg_catalog.text[]) IS
    'Has every data key of these tenants at hand, for a transaction that must not wait for KMS; returns how many';
COMMENT ON FUNCTION cmk.revocation_bound(pg_catalog.text) IS
    'If the key were revoked now: when the last copy of a data key in any process is gone, and how many processes hold one';
COMMENT ON FUNCTION cmk.reset_stats() IS
    'Sets the counters of cmk.status for this database back to zero, at once; a rollback does not undo it';
COMMENT ON FUNCTION cmk.key_status(pg_catalog.text) IS 'A row of the view cmk.status';
COMMENT ON FUNCTION cmk.key_copies(pg_catalog.text) IS 'How long copies of a tenant''s data keys live';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool) IS
    'Allows a role to encrypt or decrypt values of a tenant, or of every tenant (*)';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool) IS
    'Takes back what cmk.grant_access allowed';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.check() IS
    'What is wrong with the key registry, and what mends it; no row if nothing is';
COMMENT ON FUNCTION cmk.destroy_data_keys(pg_catalog.text) IS
    'Deletes every data key of this database, whose name must be given: all sealed values are lost. For whoever means to DROP EXTENSION';
COMMENT ON FUNCTION cmk.adopt_registry() IS
    'Makes a registry that CREATE DATABASE ... TEMPLATE copied the registry of this database; for superusers';
COMMENT ON FUNCTION cmk.inspect(pg_catalog.bytea) IS
    'What an envelope and the registry say about a sealed value; needs no key';
COMMENT ON FUNCTION cmk.envelope_header(pg_catalog.bytea) IS 'The header fields of an envelope';
COMMENT ON FUNCTION cmk.registry_guard() IS
    'Trigger function: lets only the registry''s owner change it, and nobody destroy data keys by the way';
COMMENT ON FUNCTION cmk.drop_guard() IS
    'Event trigger function: has the library loaded, which refuses to drop data keys';
COMMENT ON EVENT TRIGGER cmk_drop_guard IS
    'Refuses to drop the extension while there are data keys';
COMMENT ON TYPE cmk.grantee IS
    'A role by oid that remembers its name; text form: the name, not quoted';
COMMENT ON FUNCTION cmk.grantee_in(pg_catalog.cstring) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_out(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_recv(pg_catalog.internal) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_send(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_oid(cmk.grantee) IS 'Oid of the role; 0 if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_regrole(cmk.grantee) IS 'The role; - if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_key(cmk.grantee) IS 'What tells grantees apart';
COMMENT ON FUNCTION cmk.registry_changed() IS
    'Trigger function: tells every session, at commit, to read the registry again';
COMMENT ON FUNCTION cmk.backend_cache() IS 'Rows of the view cmk.cache';
COMMENT ON FUNCTION cmk.backend_cache_stats() IS 'The row of the view cmk.cache_stats';
COMMENT ON TABLE cmk.tenant IS 'Tenants and the keys they own; change it through the functions of schema cmk';
COMMENT ON TABLE cmk.data_key IS 'Wrapped data keys; losing a row is losing the values sealed under it';
COMMENT ON TABLE cmk.access IS 'Which database roles may encrypt and decrypt for which tenant; a null tenant means every tenant';
COMMENT ON TABLE cmk.home IS 'The database that this registry belongs to';
COMMENT ON COLUMN cmk.tenant.last_version IS 'Highest version that a data key of the tenant ever had';
COMMENT ON COLUMN cmk.tenant.key_uri IS 'The key that wraps the tenant''s data keys';
COMMENT ON COLUMN cmk.tenant.options IS
    'How the key is used: role_arn and external_id of an AWS key';
COMMENT ON COLUMN cmk.data_key.purpose IS
    'values: seals and opens values; index: makes search tokens. One of each is current';
COMMENT ON COLUMN cmk.data_key.wrapped_by IS 'The URI of the key that wrapped it';
COMMENT ON COLUMN cmk.access.role IS
    'By its present name. A role that this server doesn''t have gets nothing; cmk.check() lists it';
COMMENT ON VIEW cmk.tenants IS 'Tenants with state, key and current data key version';
COMMENT ON TABLE cmk.key_event IS 'Changes of tenants'' keys that the monitor saw, and what it warned of';
COMMENT ON VIEW cmk.status IS
    'State of each tenant''s key as last seen, and what it cost: of the whole server if server_wide, else of this session';
COMMENT ON VIEW cmk.cache IS 'Data keys cached by this session; never key bytes';
COMMENT ON VIEW cmk.cache_stats IS 'Counters of this session''s cache since it started';

COMMENT ON COLUMN cmk.tenants.state IS 'pending, active, suspended or shredded';
COMMENT ON COLUMN cmk.tenants.version IS 'Of the data key that seals new values';
COMMENT ON COLUMN cmk.tenants.data_keys IS 'How many there are; none costs anything until it is used';

COMMENT ON COLUMN cmk.status.tenant_state IS 'As in cmk.tenants';
COMMENT ON COLUMN cmk.status.key_state IS
    'usable, revoked, unreachable, throttled or misconfigured, as KMS last said; null if it was not asked since the server started, or that is forgotten';
COMMENT ON COLUMN cmk.status.reason IS 'Why it is not usable, as in the DETAIL of errors';
COMMENT ON COLUMN cmk.status.info IS 'kms_code, request_id or cause of the last failure';
COMMENT ON COLUMN cmk.status.since IS 'Beginning of key_state, whatever its reason';
COMMENT ON COLUMN cmk.status.last_success IS 'When KMS last did what it was asked';
COMMENT ON COLUMN cmk.status.last_failure IS 'When KMS last did not';
COMMENT ON COLUMN cmk.status.hits IS 'Values sealed or opened under a data key that was at hand';
COMMENT ON COLUMN cmk.status.misses IS 'Times a process lacked a data key';
COMMENT ON COLUMN cmk.status.kms_calls IS
    'Calls asked of KMS to make and unwrap data keys, those of registration and rotation included';
COMMENT ON COLUMN cmk.status.kms_failures IS 'Those of them that failed; not those that were cancelled';
COMMENT ON COLUMN cmk.status.waits IS 'Times a process waited for the call of another';
COMMENT ON COLUMN cmk.status.refused IS 'Times the tenant''s call budget did not allow a call';
COMMENT ON COLUMN cmk.status.p50_ms IS 'Median duration of KMS calls in milliseconds, an upper bound within a factor of 1.41';
COMMENT ON COLUMN cmk.status.p95_ms IS 'The same, 95th percentile';
COMMENT ON COLUMN cmk.status.p99_ms IS 'The same, 99th percentile';
COMMENT ON COLUMN cmk.status.holders IS
    'Processes that hold a data key of the tenant; of this session alone unless server_wide; null if not known';
COMMENT ON COLUMN cmk.status.server_wide IS 'The library is preloaded: figures are of the whole server';

COMMENT ON COLUMN cmk.key_event.id IS 'As in the notification on cmk_key_events';
COMMENT ON COLUMN cmk.key_event.event IS
    'The state entered: usable, revoked, unreachable, throttled, misconfigured; or a warning: deletion_scheduled, key_material_expires, rotation_off';
COMMENT ON COLUMN cmk.key_event.was IS 'The state before; null if not known';
COMMENT ON COLUMN cmk.key_event.reason IS 'Why, as in the DETAIL of errors';
COMMENT ON COLUMN cmk.key_event.info IS
    'kms_code, request_id or cause; dark_in_seconds, from this event to the end of the last cached data key; at, the time a warning is about';

COMMENT ON COLUMN cmk.cache.age IS 'Since the beginning of the KMS call that last vouched for it';
COMMENT ON COLUMN cmk.cache.expires_in IS 'Until it is zeroed, unless it is renewed';
COMMENT ON COLUMN cmk.cache_stats.entries IS 'Places taken, also by data keys that were zeroed at their TTL and not asked for since';
COMMENT ON COLUMN cmk.cache_stats.capacity IS 'cmk_encrypt.cache_size';
COMMENT ON COLUMN cmk.cache_stats.dropped_for_room IS 'Data keys that went for want of room';
COMMENT ON COLUMN cmk.cache_stats.memory_locked IS 'Data keys can''t be swapped out; null before there was one';
COMMENT ON COLUMN cmk.cache_stats.expiry_timer IS 'Data keys are zeroed on time even while the session sleeps';
