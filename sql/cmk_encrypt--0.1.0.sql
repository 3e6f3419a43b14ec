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

-- Everybody may call what is in here, as it does nothing that its caller could not do, but nobody
-- has to: cmk.protect_column(), cmk.seal_table() and their kin do, and what the planner makes of
-- calls.
CREATE SCHEMA cmk_internal;
COMMENT ON SCHEMA cmk_internal IS 'Parts of the functions of cmk_encrypt; not for calling';

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
    last_version pg_catalog.int4 NOT NULL DEFAULT 0 CHECK (last_version OPERATOR(pg_catalog.>=) 0),
    -- Null of one that was suspended before this column was there: then changed_at is no earlier.
    suspended_at pg_catalog.timestamptz,
    -- What cmk.shred_tenant() returned.
    certificate  pg_catalog.jsonb,
    -- Null: the server's settings. 0: never.
    rotate_after pg_catalog.interval CHECK (rotate_after OPERATOR(pg_catalog.>=) '0'),
    rotate_after_values pg_catalog.int8 CHECK (rotate_after_values OPERATOR(pg_catalog.>=) 0),
    -- The key that the tenant is being moved to.
    next_key_uri pg_catalog.text COLLATE pg_catalog."C",
    next_options pg_catalog.jsonb
                 CHECK (pg_catalog.jsonb_typeof(next_options) OPERATOR(pg_catalog.=) 'object'),
    CHECK ((next_key_uri IS NULL) OPERATOR(pg_catalog.=) (next_options IS NULL))
);

CREATE TABLE cmk.data_key (
    tenant      pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    -- Counts the data keys that the tenant ever had, whatever their purpose.
    version     pg_catalog.int4 NOT NULL CHECK (version OPERATOR(pg_catalog.>=) 1),
    purpose     pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT 'values'
                CHECK (purpose OPERATOR(pg_catalog.=) ANY ('{values, index}')),
    -- next: while an index key rotates, values have a token under it beside that of the current
    -- one.
    state       pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT 'current'
                CHECK (state OPERATOR(pg_catalog.=) ANY ('{current, next, retired, destroyed}')),
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
    -- The same data key as the key that the tenant is being moved to wrapped it. Proven to unwrap,
    -- and not in force.
    next_wrapped    pg_catalog.bytea
                CHECK (pg_catalog.octet_length(next_wrapped) OPERATOR(pg_catalog.>=) 1
                       AND pg_catalog.octet_length(next_wrapped) OPERATOR(pg_catalog.<=) 6144),
    next_wrapped_by pg_catalog.text COLLATE pg_catalog."C",
    PRIMARY KEY (tenant, version),
    CHECK ((next_wrapped IS NULL) OPERATOR(pg_catalog.=) (next_wrapped_by IS NULL)),
    -- A data key is destroyed when all of its wrappings are.
    CHECK (state OPERATOR(pg_catalog.<>) 'destroyed' OR next_wrapped IS NULL),
    CHECK ((state OPERATOR(pg_catalog.=) 'destroyed') OPERATOR(pg_catalog.=) (wrapped IS NULL)),
    CHECK (state OPERATOR(pg_catalog.<>) 'next' OR purpose OPERATOR(pg_catalog.=) 'index')
);

-- ANALYZE would keep samples of wrapped data keys, also of those that are destroyed later.
ALTER TABLE cmk.data_key ALTER COLUMN wrapped SET STATISTICS 0,
    ALTER COLUMN next_wrapped SET STATISTICS 0;

CREATE UNIQUE INDEX data_key_one_current ON cmk.data_key (tenant, purpose)
    WHERE state OPERATOR(pg_catalog.=) 'current';
CREATE UNIQUE INDEX data_key_one_next ON cmk.data_key (tenant, purpose)
    WHERE state OPERATOR(pg_catalog.=) 'next';

-- Empty but while index keys are replaced, and after that: src/pg/registry/read.rs asks.
CREATE INDEX data_key_other_index_keys ON cmk.data_key (tenant)
    WHERE purpose OPERATOR(pg_catalog.=) 'index' AND state OPERATOR(pg_catalog.=) ANY ('{next, retired}');

-- How many values each data key has sealed, at least, as far as the monitor gathered it. Not
-- announced to sessions. A data key may have several rows, which add up: the monitor of a
-- subscriber writes its own beside those of the publisher.
CREATE TABLE cmk.data_key_use (
    id          pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant      pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    version     pg_catalog.int4 NOT NULL,
    sealed      pg_catalog.int8 NOT NULL CHECK (sealed OPERATOR(pg_catalog.>=) 0),
    counted_at  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now()
) WITH (fillfactor = 50);

CREATE INDEX data_key_use_tenant_version ON cmk.data_key_use (tenant, version);

CREATE TABLE cmk.access (
    tenant      pg_catalog.text COLLATE pg_catalog."C",
    role        cmk.grantee NOT NULL,
    encrypt     pg_catalog.bool NOT NULL,
    decrypt     pg_catalog.bool NOT NULL,
    granted_at  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- Without a primary key, a publication of all tables would forbid every revocation.
    id          pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    -- It counts while cmk_encrypt.tenant names the tenant.
    bound       pg_catalog.bool NOT NULL DEFAULT false,
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

-- What administrators did: a chain of events for each tenant and each database that wrote it down.
-- Written by src/pg/audit/write.rs when a transaction commits; crates/audit has the hash. Text that
-- was hashed is kept as it was: json, not jsonb.
CREATE TABLE cmk.audit_event (
    -- '*', which no tenant can be named: every tenant.
    tenant           pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    origin           pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    number           pg_catalog.int8 NOT NULL CHECK (number OPERATOR(pg_catalog.>=) 1),
    at               pg_catalog.timestamptz NOT NULL,
    session_role     pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    acting_role      pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    client_address   pg_catalog.text COLLATE pg_catalog."C",
    application_name pg_catalog.text COLLATE pg_catalog."C",
    database         pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    transaction      pg_catalog.xid8 NOT NULL,
    act              pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    data_key         pg_catalog.int4,
    before           pg_catalog.json,
    after            pg_catalog.json,
    kms_request_ids  pg_catalog.text[] COLLATE pg_catalog."C" NOT NULL DEFAULT '{}',
    previous_hash    pg_catalog.bytea NOT NULL
                     CHECK (pg_catalog.octet_length(previous_hash) OPERATOR(pg_catalog.=) 32),
    hash             pg_catalog.bytea NOT NULL
                     CHECK (pg_catalog.octet_length(hash) OPERATOR(pg_catalog.=) 32),
    PRIMARY KEY (tenant, origin, number)
);

CREATE INDEX audit_event_at ON cmk.audit_event (at);

-- The last event of each chain: that its end was cut off shows here.
CREATE TABLE cmk.audit_chain (
    tenant           pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    origin           pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    number           pg_catalog.int8 NOT NULL,
    hash             pg_catalog.bytea NOT NULL,
    at               pg_catalog.timestamptz NOT NULL,
    PRIMARY KEY (tenant, origin)
);

-- What is known of re-encryptions: of each column of each table that it last ran on, how far it
-- got, and rows that it could not do. This is about this server's tables, by their oids, and no
-- dump carries it: what is left to do stands in the values.
CREATE TABLE cmk.reencrypt_job (
    relation      pg_catalog.oid NOT NULL,
    attnum        pg_catalog.int2 NOT NULL,
    -- running, unless its session is gone: done, incomplete (rows are left), failed.
    state         pg_catalog.text COLLATE pg_catalog."C" NOT NULL
                  CHECK (state OPERATOR(pg_catalog.=) ANY ('{running, done, incomplete, failed}')),
    only_tenant   pg_catalog.text COLLATE pg_catalog."C",
    run_by        pg_catalog.name NOT NULL,
    pass          pg_catalog.int4 NOT NULL DEFAULT 1,
    blocks_done   pg_catalog.int8 NOT NULL DEFAULT 0,
    blocks        pg_catalog.int8 NOT NULL DEFAULT 0,
    rows_done     pg_catalog.int8 NOT NULL DEFAULT 0,
    rows_estimate pg_catalog.int8 NOT NULL DEFAULT 0,
    failed_rows   pg_catalog.int8 NOT NULL DEFAULT 0,
    -- Whether its beginning is an event; of a table without a value of any tenant's it is not.
    is_audited    pg_catalog.bool NOT NULL DEFAULT false,
    -- Values under older data keys that the last look found, by data key; null before that.
    left_over     pg_catalog.jsonb,
    last_error    pg_catalog.text,
    started       pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated       pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (relation, attnum)
);

CREATE TABLE cmk.reencrypt_failure (
    id        pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    relation  pg_catalog.oid NOT NULL,
    attnum    pg_catalog.int2 NOT NULL,
    -- Of the row: its primary key. {"tenant": …} stands for all rows of that tenant.
    key       pg_catalog.jsonb NOT NULL,
    reason    pg_catalog.text NOT NULL,
    at        pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE INDEX reencrypt_failure_job ON cmk.reencrypt_failure (relation, attnum);

-- The database that this registry belongs to. CREATE DATABASE ... TEMPLATE copies the row, and so
-- is noticed; a dump leaves it out. A subscriber may get its publisher's row beside its own, so
-- there is no key.
CREATE TABLE cmk.home (
    database    pg_catalog.oid NOT NULL,
    -- PostgreSQL asks whoever reads a view for the right to call its functions. So those behind
    -- cmk.status and the like are everybody's, and answer only to this word, which the views read
    -- with the rights of their owner.
    pass        pg_catalog.uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
ALTER TABLE cmk.home REPLICA IDENTITY FULL;
INSERT INTO cmk.home (database)
    SELECT d.oid FROM pg_catalog.pg_database d
     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

-- One statement each: they all update the same row of pg_extension.
SELECT pg_catalog.pg_extension_config_dump('cmk.tenant', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.data_key', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.data_key_use', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.key_event', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.audit_event', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.audit_chain', '');
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

CREATE FUNCTION cmk."alter_tenant_rotation"(
    "tenant" TEXT,
    "rotate_after" interval DEFAULT NULL,
    "rotate_after_values" bigint DEFAULT NULL
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'alter_tenant_rotation_wrapper';

CREATE FUNCTION cmk."backend_cache"(
    "pass" uuid
) RETURNS TABLE (
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

CREATE FUNCTION cmk."backend_cache_stats"(
    "pass" uuid
) RETURNS TABLE (
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

CREATE FUNCTION cmk."cancel_index_rotation"(
    "tenant" TEXT
) RETURNS bool
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'cancel_index_rotation_wrapper';

CREATE FUNCTION cmk."cancel_rewrap"(
    "tenant" TEXT
) RETURNS bool
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'cancel_rewrap_wrapper';

CREATE FUNCTION cmk."column_stats"() RETURNS TABLE (
    "seals" bigint,
    "opens" bigint
)
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'column_stats_wrapper';

CREATE FUNCTION cmk."confirm_rewrap"(
    "tenant" TEXT
) RETURNS INT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'confirm_rewrap_wrapper';

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
    "envelope_bytes" INT,
    "index_key" bytea,
    "next_index_key" bytea
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

CREATE FUNCTION cmk."finish_index_rotation"(
    "tenant" TEXT
) RETURNS bool
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'finish_index_rotation_wrapper';

CREATE FUNCTION cmk."grant_access"(
    "tenant" TEXT,
    "role" TEXT,
    "encrypt" bool DEFAULT true,
    "decrypt" bool DEFAULT true,
    "bound" bool DEFAULT NULL
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'grant_access_wrapper';

CREATE FUNCTION cmk."grant_access"(
    "tenant" TEXT,
    "role" pg_catalog.regrole,
    "encrypt" bool DEFAULT true,
    "decrypt" bool DEFAULT true,
    "bound" bool DEFAULT NULL
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'grant_access_to_regrole_wrapper';

CREATE FUNCTION cmk."identity"(
    "in_region" TEXT DEFAULT NULL
) RETURNS TABLE (
    "principal" TEXT,
    "session" TEXT,
    "account" TEXT,
    "credentials" TEXT,
    "region" TEXT
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'identity_wrapper';

CREATE FUNCTION cmk."is_envelope"(
    "value" bytea
) RETURNS bool
STRICT STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'is_envelope_wrapper';

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
    "worst_case" double precision,
    "is_dark" bool
)
VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'key_copies_wrapper';

CREATE FUNCTION cmk."key_policy"(
    "tenant" TEXT
) RETURNS jsonb
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'key_policy_wrapper';

CREATE FUNCTION cmk."match_cloudtrail"(
    "tenant" TEXT,
    "events" pg_catalog.jsonb,
    "calls" pg_catalog.jsonb DEFAULT NULL
) RETURNS TABLE (
    "request_id" TEXT,
    "side" TEXT,
    "operation" TEXT,
    "at" timestamp with time zone,
    "act" TEXT,
    "explanation" TEXT
)
STABLE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'match_cloudtrail_wrapper';

CREATE FUNCTION cmk."onboarding"(
    "tenant" TEXT,
    "format" TEXT DEFAULT 'guide'
) RETURNS TEXT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'onboarding_wrapper';

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

CREATE FUNCTION cmk."remove_tenant"(
    "tenant" TEXT
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'remove_tenant_wrapper';

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

CREATE FUNCTION cmk."retire_keys"(
    "tenant" TEXT,
    "also_checked" TEXT DEFAULT NULL,
    "dry_run" bool DEFAULT false
) RETURNS TABLE (
    "version" INT,
    "commitment" bytea,
    "destroyed" bool,
    "needed_by" TEXT
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'retire_keys_wrapper';

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

CREATE FUNCTION cmk."rewrap_tenant"(
    "tenant" TEXT,
    "key_uri" TEXT,
    "options" pg_catalog.jsonb DEFAULT '{}'
) RETURNS TABLE (
    "data_keys" INT,
    "rewrapped" INT,
    "remaining" INT,
    "problem" TEXT
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'rewrap_tenant_wrapper';

CREATE FUNCTION cmk."rotate_index_key"(
    "tenant" TEXT
) RETURNS INT
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'rotate_index_key_wrapper';

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

CREATE FUNCTION cmk."server_facts"(
    "pass" uuid
) RETURNS TABLE (
    "preloaded" bool,
    "keyring_worker" bool,
    "monitor_configured" bool,
    "watched" bool,
    "cache_ttl" double precision,
    "promised_bound" double precision,
    "tenants_forgotten" bigint,
    "dropped_for_room" bigint,
    "hits" bigint,
    "misses" bigint,
    "kms_calls" bigint,
    "kms_failures" bigint,
    "waits" bigint,
    "refused" bigint
)
STRICT VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'server_facts_wrapper';

CREATE FUNCTION cmk."service_policy"(
    "tenant" TEXT DEFAULT NULL
) RETURNS jsonb
STABLE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'service_policy_wrapper';

CREATE FUNCTION cmk."shred_tenant"(
    "tenant" TEXT,
    "confirm" TEXT,
    "immediately" bool DEFAULT false
) RETURNS jsonb
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'shred_tenant_wrapper';

CREATE FUNCTION cmk."suspend_tenant"(
    "tenant" TEXT
) RETURNS VOID
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'suspend_tenant_wrapper';

CREATE FUNCTION cmk."verify_audit"(
    "tenant" TEXT DEFAULT NULL
) RETURNS TABLE (
    "tenant" TEXT,
    "origin" TEXT,
    "events" bigint,
    "first_number" bigint,
    "last_number" bigint,
    "first_at" timestamp with time zone,
    "last_at" timestamp with time zone,
    "last_hash" bytea,
    "status" TEXT,
    "wrong_at" bigint
)
STABLE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_audit_wrapper';

CREATE FUNCTION cmk."verify_tenant"(
    "tenant" TEXT
) RETURNS TABLE (
    "check_name" TEXT,
    "status" TEXT,
    "required" bool,
    "seen" TEXT,
    "advice" TEXT
)
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_tenant_wrapper';

CREATE FUNCTION cmk."warm"(
    "tenants" VARIADIC TEXT[]
) RETURNS INT
VOLATILE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'warm_wrapper';

-- What keeps PostgreSQL from opening values while it plans: to estimate how many rows a condition
-- finds, the planner runs STABLE functions of known arguments. cmk_internal.defer is the support
-- function of everything that opens a value, or makes a token. In EXPLAIN it shows as
-- CASE WHEN (cmk_internal.at_execution() IS NULL) THEN argument END.
--
-- The planner runs no function that returns a record.
CREATE FUNCTION cmk_internal.at_execution() RETURNS pg_catalog.record
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'planner_at_execution';
CREATE FUNCTION cmk_internal.defer(pg_catalog.internal) RETURNS pg_catalog.internal
    LANGUAGE c STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'planner_defer';
COMMENT ON FUNCTION cmk_internal.at_execution() IS
    'Null while a query runs; its planner does not know that';
COMMENT ON FUNCTION cmk_internal.defer(pg_catalog.internal) IS
    'Support function of what opens values: keeps the planner from running it';

-- requires:
--   planning

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

-- requires:
--   planning

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
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
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
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_reveal';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_text) AS IMPLICIT;

-- Without casts of their own these would be printed and read: ciphertext where that is printed, and
-- blanks that a char(n) is filled up with.
CREATE FUNCTION pg_catalog.bpchar(pg_catalog.cmk_text) RETURNS pg_catalog.bpchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_reveal';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.bpchar)
    WITH FUNCTION pg_catalog.bpchar(pg_catalog.cmk_text) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.name(pg_catalog.cmk_text) RETURNS pg_catalog.name
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 200 SET search_path = pg_catalog, pg_temp
    AS 'SELECT pg_catalog.name(pg_catalog.text($1))';
CREATE CAST (pg_catalog.cmk_text AS pg_catalog.name)
    WITH FUNCTION pg_catalog.name(pg_catalog.cmk_text) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.cmk_text(pg_catalog.bpchar) RETURNS pg_catalog.cmk_text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_bpchar_conceal';
CREATE CAST (pg_catalog.bpchar AS pg_catalog.cmk_text)
    WITH FUNCTION pg_catalog.cmk_text(pg_catalog.bpchar) AS ASSIGNMENT;

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
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_json_reveal';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.json)
    WITH FUNCTION pg_catalog.json(pg_catalog.cmk_jsonb) AS ASSIGNMENT;

-- As text, too, they are opened: without these casts they would be printed, and so be ciphertext
-- where ciphertext is printed.
CREATE FUNCTION pg_catalog.text(pg_catalog.cmk_bytea) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_bytea_text';
CREATE CAST (pg_catalog.cmk_bytea AS pg_catalog.text)
    WITH FUNCTION pg_catalog.text(pg_catalog.cmk_bytea) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.text(pg_catalog.cmk_jsonb) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_jsonb_text';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.text)
    WITH FUNCTION pg_catalog.text(pg_catalog.cmk_jsonb) AS ASSIGNMENT;

CREATE FUNCTION pg_catalog.varchar(pg_catalog.cmk_bytea) RETURNS pg_catalog.varchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_bytea_text';
CREATE CAST (pg_catalog.cmk_bytea AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_bytea) AS ASSIGNMENT;
CREATE FUNCTION pg_catalog.varchar(pg_catalog.cmk_jsonb) RETURNS pg_catalog.varchar
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_jsonb_text';
CREATE CAST (pg_catalog.cmk_jsonb AS pg_catalog.varchar)
    WITH FUNCTION pg_catalog.varchar(pg_catalog.cmk_jsonb) AS ASSIGNMENT;

COMMENT ON FUNCTION pg_catalog.bpchar(pg_catalog.cmk_text) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.name(pg_catalog.cmk_text) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.cmk_text(pg_catalog.bpchar) IS 'A value that is not sealed yet';
COMMENT ON FUNCTION pg_catalog.varchar(pg_catalog.cmk_bytea) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.varchar(pg_catalog.cmk_jsonb) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.text(pg_catalog.cmk_bytea) IS 'Opens a value of a protected column';
COMMENT ON FUNCTION pg_catalog.text(pg_catalog.cmk_jsonb) IS 'Opens a value of a protected column';
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
    COMMENT ON FUNCTION pg_catalog.cmk_column_no_index(pg_catalog.internal) IS
        'Options of an index on a protected column: refuses it';

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
                    RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                    AS 'MODULE_PATHNAME', 'column_%1$s_%2$s';
                CREATE OPERATOR pg_catalog.%3$s (FUNCTION = pg_catalog.cmk_%1$s_%2$s,
                    LEFTARG = pg_catalog.cmk_%1$s, RIGHTARG = pg_catalog.cmk_%1$s, %4$s);
                COMMENT ON FUNCTION pg_catalog.cmk_%1$s_%2$s(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s) IS
                    'Implementation of operator %3$s';
                $sql$, kind, operator.symbol, operator.name, operator.more);
        END LOOP;
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_%1$s_cmp(pg_catalog.cmk_%1$s, pg_catalog.cmk_%1$s)
                RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_%1$s_cmp';
            CREATE FUNCTION pg_catalog.cmk_%1$s_sort(pg_catalog.internal) RETURNS pg_catalog.void
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'column_%1$s_sort';
            CREATE FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s) RETURNS pg_catalog.int4
                LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_%1$s_hash';
            CREATE FUNCTION pg_catalog.cmk_%1$s_hash(pg_catalog.cmk_%1$s, pg_catalog.int8)
                RETURNS pg_catalog.int8 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
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
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
                AS 'MODULE_PATHNAME', 'column_text_%1$s';
            CREATE FUNCTION pg_catalog.cmk_text_%1$s(pg_catalog.text, pg_catalog.cmk_text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
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

-- Without these, `||` would be the one that makes a text of anything. Inlined by the planner.
DO $$
DECLARE
    kind pg_catalog.text;
    types pg_catalog.record;
BEGIN
    FOREACH kind IN ARRAY '{bytea, jsonb}'::pg_catalog.text[] LOOP
        FOR types IN SELECT * FROM (VALUES
            (pg_catalog.concat('cmk_', kind), pg_catalog.concat('cmk_', kind)),
            (pg_catalog.concat('cmk_', kind), kind), (kind, pg_catalog.concat('cmk_', kind))
        ) AS v (a, b)
        LOOP
            EXECUTE pg_catalog.format($sql$
                CREATE FUNCTION pg_catalog.cmk_%1$s_concat(pg_catalog.%2$s, pg_catalog.%3$s)
                    RETURNS pg_catalog.%1$s LANGUAGE sql STABLE PARALLEL RESTRICTED AS
                    'SELECT $1::pg_catalog.%1$s OPERATOR(pg_catalog.||) $2::pg_catalog.%1$s';
                CREATE OPERATOR pg_catalog.|| (FUNCTION = pg_catalog.cmk_%1$s_concat,
                    LEFTARG = pg_catalog.%2$s, RIGHTARG = pg_catalog.%3$s);
                COMMENT ON FUNCTION pg_catalog.cmk_%1$s_concat(pg_catalog.%2$s, pg_catalog.%3$s) IS
                    'Implementation of operator ||';
                $sql$, kind, types.a, types.b);
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.cmk_text, pg_catalog.text)
    RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_text_cmp';
CREATE FUNCTION pg_catalog.cmk_text_cmp(pg_catalog.text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
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
                RETURNS pg_catalog.cmk_%1$s LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 200
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
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 200 SUPPORT cmk_internal.defer
    AS 'MODULE_PATHNAME', 'column_try_text';
COMMENT ON FUNCTION cmk.seal() IS 'The trigger that seals the values of protected columns';
COMMENT ON FUNCTION cmk.seals(pg_catalog.text, "any") IS
    'Names a protected column''s label and its tenant in the condition of the sealing trigger';
COMMENT ON FUNCTION cmk.try_text(pg_catalog.cmk_text) IS
    'Opens a value of a protected column; null for failures that concern this value only';

-- requires:
--   operators

-- Search by equality in protected columns: operators over the tokens of values, classes of indexes
-- on them, and what the planner puts into the place of a comparison.
--
-- The operators on tokens read headers, take no key, and hold between any two values: an index may
-- call them while it holds a page. They are LEAKPROOF: they raise for values that could never be in
-- such an index, and nothing else.
DO $$
DECLARE
    operator pg_catalog.record;
BEGIN
    FOR operator IN SELECT * FROM (VALUES
        ('===', 'eq', 'COMMUTATOR = OPERATOR(pg_catalog.===), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel'),
        ('<<<', 'lt', 'COMMUTATOR = OPERATOR(pg_catalog.>>>), NEGATOR = OPERATOR(pg_catalog.>>>=)'),
        ('<<<=', 'le', 'COMMUTATOR = OPERATOR(pg_catalog.>>>=), NEGATOR = OPERATOR(pg_catalog.>>>)'),
        ('>>>=', 'ge', 'COMMUTATOR = OPERATOR(pg_catalog.<<<=), NEGATOR = OPERATOR(pg_catalog.<<<)'),
        ('>>>', 'gt', 'COMMUTATOR = OPERATOR(pg_catalog.<<<), NEGATOR = OPERATOR(pg_catalog.<<<=)'),
        ('====', 'next_eq', 'COMMUTATOR = OPERATOR(pg_catalog.====), RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel')
    ) AS v (name, symbol, more)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION pg_catalog.cmk_token_%1$s(pg_catalog.cmk_text, pg_catalog.cmk_text)
                RETURNS pg_catalog.bool LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF
                AS 'MODULE_PATHNAME', 'column_token_%1$s';
            CREATE OPERATOR pg_catalog.%2$s (FUNCTION = pg_catalog.cmk_token_%1$s,
                LEFTARG = pg_catalog.cmk_text, RIGHTARG = pg_catalog.cmk_text, %3$s);
            COMMENT ON FUNCTION pg_catalog.cmk_token_%1$s(pg_catalog.cmk_text, pg_catalog.cmk_text) IS
                'Implementation of operator %2$s';
            $sql$, operator.symbol, operator.name, operator.more);
    END LOOP;
END
$$;

CREATE FUNCTION pg_catalog.cmk_token_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF
    AS 'MODULE_PATHNAME', 'column_token_cmp';
CREATE FUNCTION pg_catalog.cmk_token_next_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text)
    RETURNS pg_catalog.int4 LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF
    AS 'MODULE_PATHNAME', 'column_token_next_cmp';
CREATE FUNCTION pg_catalog.cmk_token_sort(pg_catalog.internal) RETURNS pg_catalog.void
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_token_sort';
CREATE FUNCTION pg_catalog.cmk_token_next_sort(pg_catalog.internal) RETURNS pg_catalog.void
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_token_next_sort';
COMMENT ON FUNCTION pg_catalog.cmk_token_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text) IS
    'Compares tokens';
COMMENT ON FUNCTION pg_catalog.cmk_token_next_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text) IS
    'Compares tokens, those for the next index key where there are any';
COMMENT ON FUNCTION pg_catalog.cmk_token_sort(pg_catalog.internal) IS 'Sort support';
COMMENT ON FUNCTION pg_catalog.cmk_token_next_sort(pg_catalog.internal) IS 'Sort support';

CREATE OPERATOR CLASS pg_catalog.cmk_token_ops FOR TYPE pg_catalog.cmk_text USING btree AS
    OPERATOR 1 pg_catalog.<<<, OPERATOR 2 pg_catalog.<<<=, OPERATOR 3 pg_catalog.===,
    OPERATOR 4 pg_catalog.>>>=, OPERATOR 5 pg_catalog.>>>,
    FUNCTION 1 pg_catalog.cmk_token_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text),
    FUNCTION 2 pg_catalog.cmk_token_sort(pg_catalog.internal);
-- Keeps values unique under the next index key while one replaces the other. Not for searching.
CREATE OPERATOR CLASS pg_catalog.cmk_token_next_ops FOR TYPE pg_catalog.cmk_text USING btree AS
    OPERATOR 3 pg_catalog.====,
    FUNCTION 1 pg_catalog.cmk_token_next_cmp(pg_catalog.cmk_text, pg_catalog.cmk_text),
    FUNCTION 2 pg_catalog.cmk_token_next_sort(pg_catalog.internal);

-- How a comparison is planned.
CREATE FUNCTION cmk.search_support(pg_catalog.internal) RETURNS pg_catalog.internal
    LANGUAGE c STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_plan';
COMMENT ON FUNCTION cmk.search_support(pg_catalog.internal) IS
    'Support function of comparisons with a protected column: lets them use an index on tokens';

-- LEAKPROOF, without which row-level security would keep every index from being used: what they
-- return and raise depends on the value that is searched for and on whose values are searched, not
-- on rows that a policy hides. Their cost keeps PostgreSQL evaluating policies first. It is half of
-- what opens a value costs, as they mostly compare tokens.
ALTER FUNCTION pg_catalog.cmk_text_eq(pg_catalog.cmk_text, pg_catalog.cmk_text)
    SUPPORT cmk.search_support LEAKPROOF COST 100;
ALTER FUNCTION pg_catalog.cmk_text_eq(pg_catalog.cmk_text, pg_catalog.text)
    SUPPORT cmk.search_support LEAKPROOF COST 100;
ALTER FUNCTION pg_catalog.cmk_text_eq(pg_catalog.text, pg_catalog.cmk_text)
    SUPPORT cmk.search_support LEAKPROOF COST 100;

DO $$
DECLARE
    type pg_catalog.text;
BEGIN
    FOREACH type IN ARRAY '{text, cmk_text}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION cmk.equal(value pg_catalog.cmk_text, sought pg_catalog.%1$s, tenant pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100
                SUPPORT cmk.search_support AS 'MODULE_PATHNAME', 'column_equal';
            CREATE FUNCTION cmk.equal_any(value pg_catalog.cmk_text, sought pg_catalog.%1$s[], tenant pg_catalog.text)
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100
                SUPPORT cmk.search_support AS 'MODULE_PATHNAME', 'column_equal_any';
            -- LEAKPROOF as `=` is. Not so what takes a tenant, which could be a hidden row's text.
            CREATE FUNCTION cmk.equal_any(value pg_catalog.cmk_text, sought pg_catalog.%1$s[])
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100 LEAKPROOF
                SUPPORT cmk.search_support AS 'MODULE_PATHNAME', 'column_equal_any';
            CREATE FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s)
                RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_text_eq';
            -- VOLATILE: the planner runs what is less, with the arguments that it knows, to
            -- estimate what will be found.
            CREATE FUNCTION cmk.probe(sought pg_catalog.%1$s, tenant pg_catalog.text,
                    slot pg_catalog.int4, label pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.cmk_text LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_probe';
            CREATE FUNCTION cmk.probes(sought pg_catalog.%1$s, label pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.cmk_text[] LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_probes';
            CREATE FUNCTION cmk.probes_any(sought pg_catalog.%1$s[], tenant pg_catalog.text,
                    label pg_catalog.text, options pg_catalog.text)
                RETURNS pg_catalog.cmk_text[] LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_probes_any';
            COMMENT ON FUNCTION cmk.equal(pg_catalog.cmk_text, pg_catalog.%1$s, pg_catalog.text) IS
                'What the planner makes of column = value where it knows the tenant';
            COMMENT ON FUNCTION cmk.equal_any(pg_catalog.cmk_text, pg_catalog.%1$s[], pg_catalog.text) IS
                'What the planner makes of column = ANY (array) where it knows the tenant';
            COMMENT ON FUNCTION cmk.equal_any(pg_catalog.cmk_text, pg_catalog.%1$s[]) IS
                'What the planner makes of column = ANY (array), and of column IN (list)';
            CREATE FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s[])
                RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 100
                AS 'MODULE_PATHNAME', 'column_equal_any';
            COMMENT ON FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s) IS
                'What the planner makes of = between two columns of a row';
            COMMENT ON FUNCTION cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.%1$s[]) IS
                'What the planner makes of = ANY between two columns of a row';
            COMMENT ON FUNCTION cmk.probe(pg_catalog.%1$s, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text) IS
                'What finds a value in an index on tokens: by the current index key (1), by the other one in use (2), by the only one (3), as it is (0)';
            COMMENT ON FUNCTION cmk.probes(pg_catalog.%1$s, pg_catalog.text, pg_catalog.text) IS
                'What finds a value in an index on tokens, for all tenants that are searched';
            COMMENT ON FUNCTION cmk.probes_any(pg_catalog.%1$s[], pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
                'What finds several values in an index on tokens';
            $sql$, type);
    END LOOP;
END
$$;

CREATE FUNCTION cmk.equal_columns(pg_catalog.text, pg_catalog.cmk_text)
    RETURNS pg_catalog.bool LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_text_eq';
COMMENT ON FUNCTION cmk.equal_columns(pg_catalog.text, pg_catalog.cmk_text) IS
    'What the planner makes of = between two columns of a row';

-- What cmk.seal_table() does to values that are sealed already.
CREATE FUNCTION cmk.needs_sealing(value pg_catalog.cmk_text, label pg_catalog.text, options pg_catalog.text)
    RETURNS pg_catalog.bool LANGUAGE c STABLE PARALLEL RESTRICTED COST 10
    AS 'MODULE_PATHNAME', 'column_needs_sealing';
CREATE FUNCTION cmk.reseal(value pg_catalog.cmk_text, label pg_catalog.text, options pg_catalog.text)
    RETURNS pg_catalog.cmk_text LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
    AS 'MODULE_PATHNAME', 'column_reseal';
CREATE FUNCTION cmk.sealed_for(value pg_catalog.cmk_text) RETURNS pg_catalog.text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 10 AS 'MODULE_PATHNAME', 'column_sealed_for';
COMMENT ON FUNCTION cmk.sealed_for(pg_catalog.cmk_text) IS
    'The tenant that a value is sealed for, to whom holds a grant for it; takes no key';
COMMENT ON FUNCTION cmk.needs_sealing(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text) IS
    'Whether a value is not sealed, or lacks the tokens that its column''s options and its tenant''s index keys ask for; takes no key';
COMMENT ON FUNCTION cmk.reseal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text) IS
    'Seals a sealed value anew, with the tokens that it should have';

-- requires:
--   types

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
                LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED COST 200
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
-- themselves access, or forge or forestall what the monitor tells and counts. Of the audit trail
-- nothing is changed or deleted by anybody, its owner included.
DO $$
DECLARE
    guarded pg_catalog.text;
    registry CONSTANT pg_catalog.text[] := '{tenant, data_key, access, home}';
    told CONSTANT pg_catalog.text[] := 
        '{data_key_use, key_event, audit_event, audit_chain, reencrypt_job, reencrypt_failure}';
BEGIN
    FOREACH guarded IN ARRAY registry OPERATOR(pg_catalog.||) told LOOP
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

-- requires:
--   envelope_header
--   key_copies
--   server_facts
--   backend_cache
--   backend_cache_stats

-- Views, and the functions behind them.

-- PARALLEL UNSAFE: its body may be what loads the library, which can't happen while workers run.
CREATE FUNCTION cmk.inspect(
    ciphertext pg_catalog.bytea,
    OUT suite pg_catalog.int4, OUT dek_id pg_catalog.bytea, OUT tenant pg_catalog.text,
    OUT version pg_catalog.int4, OUT state pg_catalog.text,
    OUT plaintext_bytes pg_catalog.int4, OUT envelope_bytes pg_catalog.int4,
    OUT index_key pg_catalog.bytea, OUT next_index_key pg_catalog.bytea)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.suite, h.dek_id, k.tenant, k.version, k.state, h.plaintext_bytes, h.envelope_bytes,
           h.index_key, h.next_index_key
      FROM cmk.envelope_header(ciphertext) h
      LEFT JOIN cmk.data_key k ON k.dek_id OPERATOR(pg_catalog.=) h.dek_id
$$;

-- One join and one sort or hash of all: a subquery for each tenant would be estimated so high that
-- PostgreSQL compiles a look at some ten thousand tenants (jit).
CREATE VIEW cmk.tenants AS
    SELECT t.tenant, t.state, t.key_uri,
           pg_catalog.max(k.version) FILTER (WHERE k.state OPERATOR(pg_catalog.=) 'current'
                                               AND k.purpose OPERATOR(pg_catalog.=) 'values') AS version,
           pg_catalog.count(k.version) AS data_keys, t.created_at, t.changed_at,
           t.suspended_at, t.next_key_uri,
           CASE WHEN t.next_key_uri IS NOT NULL
                THEN pg_catalog.count(*) FILTER (WHERE k.next_wrapped_by OPERATOR(pg_catalog.=) t.next_key_uri)
                END AS rewrapped,
           CASE WHEN t.next_key_uri IS NOT NULL
                THEN pg_catalog.count(k.wrapped) OPERATOR(pg_catalog.-)
                     pg_catalog.count(*) FILTER (WHERE k.next_wrapped_by OPERATOR(pg_catalog.=) t.next_key_uri)
                END AS remaining
      FROM cmk.tenant t
      LEFT JOIN cmk.data_key k ON k.tenant OPERATOR(pg_catalog.=) t.tenant
     GROUP BY t.tenant;

CREATE TYPE cmk_internal.key_facts AS (
    key_state pg_catalog.text, reason pg_catalog.text, info pg_catalog.text,
    since pg_catalog.float8, last_success pg_catalog.float8, last_failure pg_catalog.float8,
    hits pg_catalog.int8, misses pg_catalog.int8, kms_calls pg_catalog.int8,
    kms_failures pg_catalog.int8, waits pg_catalog.int8, refused pg_catalog.int8,
    p50_ms pg_catalog.float8, p95_ms pg_catalog.float8, p99_ms pg_catalog.float8,
    holders pg_catalog.int4, server_wide pg_catalog.bool, is_first pg_catalog.bool,
    dark_since pg_catalog.float8, warnings pg_catalog.text[], worst_case pg_catalog.float8);

CREATE FUNCTION cmk.key_status(
    tenant pg_catalog.text, key_uri pg_catalog.text, options pg_catalog.text,
    epoch pg_catalog.int8, pass pg_catalog.uuid)
    RETURNS SETOF cmk_internal.key_facts
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'key_status_wrapper';

-- The functions behind these views answer to the word in cmk.home alone: see there. With the
-- default estimate of a thousand rows each, PostgreSQL would compile a look at the views (jit).
ALTER FUNCTION cmk.server_facts(pg_catalog.uuid) ROWS 1;
ALTER FUNCTION cmk.backend_cache_stats(pg_catalog.uuid) ROWS 1;
ALTER FUNCTION cmk.key_copies(pg_catalog.text) ROWS 1;

CREATE VIEW cmk.server AS
    SELECT f.preloaded, f.keyring_worker, f.monitor_configured, f.watched,
           pg_catalog.make_interval(secs => f.cache_ttl) AS cache_ttl,
           pg_catalog.make_interval(secs => f.promised_bound) AS promised_bound,
           f.tenants_forgotten, f.dropped_for_room,
           f.hits, f.misses, f.kms_calls, f.kms_failures, f.waits, f.refused
      FROM cmk.server_facts((SELECT h.pass FROM cmk.home h LIMIT 1)) f;

-- What KMS said last stands in memory, which a restart empties. Where a monitor watches, what it
-- wrote down then goes on, until KMS is asked again. Of the time before a tenant became active,
-- whatever was known is past: KMS made a data key since.
CREATE VIEW cmk.status AS
    SELECT t.tenant, t.state AS tenant_state, k.key_state, k.reason, k.info, k.since,
           pg_catalog.to_timestamp(s.last_success) AS last_success,
           pg_catalog.to_timestamp(s.last_failure) AS last_failure,
           s.hits, s.misses, s.kms_calls, s.kms_failures, s.waits, s.refused,
           s.p50_ms, s.p95_ms, s.p99_ms, s.holders, s.server_wide,
           CASE WHEN t.state OPERATOR(pg_catalog.=) 'active' THEN k.dark_since
                WHEN t.state OPERATOR(pg_catalog.<>) 'pending' THEN LEAST(t.changed_at, k.dark_since)
                END AS dark_since,
           w.watched, s.warnings, k.from_history,
           pg_catalog.make_interval(secs => s.worst_case) AS worst_case
      FROM cmk.server_facts((SELECT h.pass FROM cmk.home h LIMIT 1)) w
     CROSS JOIN cmk.tenant t
     CROSS JOIN LATERAL cmk.key_status(t.tenant, t.key_uri, t.options::pg_catalog.text, t.epoch,
                                        (SELECT h.pass FROM cmk.home h LIMIT 1)) s
      LEFT JOIN cmk.data_key first_key
             ON first_key.tenant OPERATOR(pg_catalog.=) t.tenant
            AND first_key.version OPERATOR(pg_catalog.=) 1
     CROSS JOIN LATERAL (
        SELECT s.key_state IS NOT NULL
               AND NOT COALESCE(pg_catalog.to_timestamp(GREATEST(s.last_success, s.last_failure))
                                OPERATOR(pg_catalog.<) first_key.created_at, false) AS is_known) now
      LEFT JOIN LATERAL (
        SELECT e.event, e.reason, e.info, e.at
          FROM cmk.key_event e
         WHERE w.monitor_configured
           AND (NOT now.is_known OR s.is_first AND s.key_state OPERATOR(pg_catalog.<>) 'usable')
           AND e.tenant OPERATOR(pg_catalog.=) t.tenant
           AND e.at OPERATOR(pg_catalog.>=) first_key.created_at
           AND e.event OPERATOR(pg_catalog.=) ANY ('{usable, revoked, unreachable, throttled, misconfigured}')
         ORDER BY e.at DESC LIMIT 1) past ON true
     CROSS JOIN LATERAL (
        SELECT CASE WHEN past.event OPERATOR(pg_catalog.=) 'revoked' THEN past.at
                    ELSE GREATEST(past.at, pg_catalog.pg_postmaster_start_time()) END AS since) dark
     CROSS JOIN LATERAL (
        SELECT CASE WHEN now.is_known THEN s.key_state ELSE past.event END AS key_state,
               CASE WHEN now.is_known THEN s.reason ELSE past.reason END AS reason,
               CASE WHEN now.is_known THEN s.info ELSE past.info END AS info,
               NOT now.is_known AND past.event IS NOT NULL AS from_history,
               CASE WHEN NOT now.is_known THEN past.at
                    WHEN past.event OPERATOR(pg_catalog.=) s.key_state
                    THEN LEAST(pg_catalog.to_timestamp(s.since), past.at)
                    ELSE pg_catalog.to_timestamp(s.since) END AS since,
               CASE WHEN now.is_known AND past.event OPERATOR(pg_catalog.=) s.key_state
                    THEN LEAST(pg_catalog.to_timestamp(s.dark_since), dark.since)
                    WHEN now.is_known THEN pg_catalog.to_timestamp(s.dark_since)
                    WHEN past.event OPERATOR(pg_catalog.=) 'revoked'
                      OR past.event OPERATOR(pg_catalog.<>) 'usable' AND s.holders OPERATOR(pg_catalog.=) 0
                    THEN dark.since END AS dark_since) k;

-- Not STRICT, so that a NULL is an error, as is a tenant that isn't registered.
CREATE FUNCTION cmk.revocation_bound(
    tenant pg_catalog.text,
    OUT dark_within pg_catalog.interval, OUT copies_until pg_catalog.timestamptz,
    OUT holders pg_catalog.int4, OUT worst_case pg_catalog.interval,
    OUT server_wide pg_catalog.bool)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.make_interval(secs => CASE WHEN c.is_dark THEN 0 ELSE c.lives_on END),
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => c.lives_on),
           c.holders,
           GREATEST(pg_catalog.make_interval(secs => c.worst_case), pg_catalog.make_interval(secs => c.lives_on)),
           c.server_wide
      FROM cmk.key_copies(revocation_bound.tenant) c
$$;

CREATE VIEW cmk.cache AS
    SELECT tenant, version, dek_id,
           pg_catalog.make_interval(secs => age_seconds) AS age,
           pg_catalog.make_interval(secs => expires_in_seconds) AS expires_in,
           hits
      FROM cmk.backend_cache((SELECT h.pass FROM cmk.home h LIMIT 1));

CREATE VIEW cmk.cache_stats AS
    SELECT * FROM cmk.backend_cache_stats((SELECT h.pass FROM cmk.home h LIMIT 1));

-- requires:
--   sealing
--   protections
--   raise
--   is_preloaded

-- How protection is written in the catalogs: what the functions around protected columns share.
-- Nothing here changes anything, and it reads what everybody may read.

-- A table with its partitions and inheritance children, parents before children.
CREATE FUNCTION cmk_internal.table_tree(
    "table" pg_catalog.regclass, OUT relation pg_catalog.regclass, OUT depth pg_catalog.int4)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE tree (relation, depth) AS (
        SELECT table_tree."table"::pg_catalog.oid, 0
        UNION ALL
        SELECT i.inhrelid, tree.depth OPERATOR(pg_catalog.+) 1
          FROM tree
          JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) tree.relation)
    SELECT tree.relation::pg_catalog.regclass, pg_catalog.max(tree.depth)
      FROM tree GROUP BY tree.relation ORDER BY 2, tree.relation
$$;

CREATE FUNCTION cmk_internal.is_protected_type(type pg_catalog.oid) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT is_protected_type.type OPERATOR(pg_catalog.=) ANY (
        '{pg_catalog.cmk_text, pg_catalog.cmk_bytea, pg_catalog.cmk_jsonb}'::pg_catalog.regtype[]::pg_catalog.oid[])
$$;

-- The type that protects values of a type; null if none does. A length stays.
CREATE FUNCTION cmk_internal.protecting_type(type pg_catalog.oid, typmod pg_catalog.int4) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('pg_catalog.%s%s', known.ours,
               CASE WHEN known.has_length
                    THEN COALESCE(pg_catalog."substring"(
                        pg_catalog.format_type(protecting_type.type, protecting_type.typmod), '\(\d+\)'), '')
               END)
      FROM (VALUES ('text', 'cmk_text', false), ('varchar', 'cmk_text', true), ('bpchar', 'cmk_text', true),
                   ('bytea', 'cmk_bytea', false), ('jsonb', 'cmk_jsonb', false), ('json', 'cmk_jsonb', false)
           ) known (theirs, ours, has_length)
     WHERE known.theirs::pg_catalog.regtype::pg_catalog.oid OPERATOR(pg_catalog.=) protecting_type.type
$$;

-- What the comment on our constraint tells: the type before protection, the files in which
-- plaintext may be left, and the columns of unique indexes that went and are to be made again, by
-- tokens. A comment may come from anywhere, so no more than a type's name and names of columns are
-- taken.
CREATE FUNCTION cmk_internal.protection_note(
    constraint_oid pg_catalog.oid, OUT former pg_catalog.text, OUT files pg_catalog.text[],
    OUT uniques pg_catalog.text[])
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog."substring"(note.text,
               'was of type (text|character varying|character|bytea|jsonb|json)(?:\(\d+\))?\.'),
           COALESCE(pg_catalog.string_to_array(
               pg_catalog."substring"(note.text, 'may be left in files ([\d, ]+)'), ', '), '{}'),
           ARRAY(SELECT m.match[1]
                   FROM pg_catalog.regexp_matches(note.text, 'A unique index on \(((?:[^()"]|"(?:[^"]|"")*")+)\) is to be made again\.', 'g') m (match))
      FROM pg_catalog.obj_description(protection_note.constraint_oid, 'pg_constraint') AS note (text)
$$;

-- The statement that writes such a comment. No files: nothing is left.
CREATE FUNCTION cmk_internal.protection_comment(
    relation pg_catalog.regclass, constraint_name pg_catalog.name, former pg_catalog.text,
    files pg_catalog.text[], uniques pg_catalog.text[]) RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L',
        protection_comment.constraint_name, protection_comment.relation,
        pg_catalog.concat_ws(' ',
            'Keeps plaintext out of the column.',
            CASE WHEN protection_comment.former IS NOT NULL
                 THEN pg_catalog.format('It was of type %s.', protection_comment.former) END,
            CASE WHEN pg_catalog.cardinality(protection_comment.files) OPERATOR(pg_catalog.>) 0
                 THEN pg_catalog.format('Plaintext may be left in files %s, until VACUUM FULL.',
                          pg_catalog.array_to_string(protection_comment.files, ', ')) END,
            (SELECT pg_catalog.string_agg(pg_catalog.format('A unique index on (%s) is to be made again.', u.columns), ' ')
               FROM pg_catalog.unnest(protection_comment.uniques) u (columns))))
$$;

-- Comments on our constraint, in the table and its children: what the type was, in which files
-- plaintext may be left, none where all values were sealed while the table was rewritten, and which
-- unique indexes are to be made again.
CREATE FUNCTION cmk_internal.write_notes(
    "table" pg_catalog.regclass, check_name pg_catalog.name, "column" pg_catalog.name,
    former pg_catalog.text, wanted pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement pg_catalog.text;
BEGIN
    FOR statement IN
        SELECT cmk_internal.protection_comment(t.relation, check_name, former, CASE WHEN NOT c.convalidated
                   THEN ARRAY(SELECT f.file FROM cmk_internal.files_of_column(t.relation, a.attnum) f) END,
               ARRAY(SELECT w.columns
                       FROM pg_catalog.jsonb_to_recordset(wanted) w (
                                relation pg_catalog.regclass, is_unique pg_catalog.bool, columns pg_catalog.text)
                      WHERE w.is_unique AND w.columns IS NOT NULL
                        AND w.relation OPERATOR(pg_catalog.=) t.relation
                      ORDER BY w.columns))
          FROM cmk_internal.table_tree("table") t
          JOIN pg_catalog.pg_constraint c
            ON c.conrelid OPERATOR(pg_catalog.=) t.relation
           AND c.conname OPERATOR(pg_catalog.=) check_name
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) "column"
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;

-- The files in which plaintext of a column stays behind when the column is sealed row by row: the
-- heap's, and those of the indexes that include the column.
CREATE FUNCTION cmk_internal.files_of_column(
    relation pg_catalog.regclass, attnum pg_catalog.int2,
    OUT object pg_catalog.regclass, OUT is_index pg_catalog.bool, OUT file pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT kept.object, kept.is_index, pg_catalog.pg_relation_filenode(kept.object)::pg_catalog.text
      FROM (SELECT files_of_column.relation, false
            UNION ALL
            SELECT i.indexrelid::pg_catalog.regclass, true
              FROM pg_catalog.pg_index i
             WHERE i.indrelid OPERATOR(pg_catalog.=) files_of_column.relation
               AND files_of_column.attnum OPERATOR(pg_catalog.=) ANY (i.indkey)) kept (object, is_index)
     WHERE pg_catalog.pg_relation_filenode(kept.object) IS NOT NULL
       AND pg_catalog.pg_relation_size(kept.object) OPERATOR(pg_catalog.>) 0
$$;

-- A name for the constraint that no constraint of the table or of its children has. A name has up
-- to 63 bytes.
CREATE FUNCTION cmk_internal.unused_constraint_name("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.name
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base pg_catalog.text;
    number pg_catalog.text := '';
BEGIN
    FOR tried IN 1 .. 10000 LOOP
        base := pg_catalog.concat('cmk_sealed_', "column");
        WHILE pg_catalog.octet_length(pg_catalog.concat(base, number)) OPERATOR(pg_catalog.>) 63 LOOP
            base := pg_catalog."left"(base, -1);
        END LOOP;
        PERFORM FROM pg_catalog.pg_constraint c
                JOIN cmk_internal.table_tree("table") t ON c.conrelid OPERATOR(pg_catalog.=) t.relation
               WHERE c.conname OPERATOR(pg_catalog.=) pg_catalog.concat(base, number)::pg_catalog.name;
        EXIT WHEN NOT FOUND;
        number := pg_catalog.concat('_', tried);
    END LOOP;
    RETURN pg_catalog.concat(base, number);
END
$$;

-- What the trigger of a table seals, by the columns' labels, and who the tenant is: an expression
-- in which the row is "new", NULL for the setting. PostgreSQL prints the WHEN that
-- cmk_internal.seal_trigger() made as "((A AND B) OR true)", or as "(A OR true)".
CREATE FUNCTION cmk_internal.seal_conditions(
    relation pg_catalog.regclass, OUT label pg_catalog.text, OUT tenant pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    closing CONSTANT pg_catalog.text := ' OR true)) EXECUTE FUNCTION cmk.seal()';
    -- A label, and a tenant with literals and names that may contain anything.
    first_column CONSTANT pg_catalog.text := '^cmk\.seals\((E?''(?:[^'']|'''')*'')::text,\s+((?:[^''"]|''(?:[^'']|'''')*''|"(?:[^"]|"")*")*?)\)(?: AND (cmk\.seals\(E?''.*))?$';
    opening pg_catalog.text;
    printed pg_catalog.text;
    item pg_catalog.record;
    parts pg_catalog.text[];
BEGIN
    SELECT pg_catalog.pg_get_triggerdef(g.oid) AS definition, n.nspname, c.relname INTO item
      FROM pg_catalog.pg_trigger g
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE g.tgrelid OPERATOR(pg_catalog.=) relation
       AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- PostgreSQL calls the schema of temporary tables by either name, as the version goes.
    FOREACH opening IN ARRAY ARRAY[item.nspname::pg_catalog.text, 'pg_temp'] LOOP
        opening := pg_catalog.format('CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON %I.%I FOR EACH ROW WHEN ((',
                                     opening, item.relname);
        printed := CASE WHEN pg_catalog.starts_with(item.definition, opening) THEN item.definition END;
        EXIT WHEN printed IS NOT NULL;
    END LOOP;
    IF printed IS NULL OR NOT pg_catalog."right"(printed, pg_catalog.length(closing)) OPERATOR(pg_catalog.=) closing THEN
        RETURN;
    END IF;
    printed := pg_catalog.substr(printed, pg_catalog.length(opening) OPERATOR(pg_catalog.+) 1);
    printed := pg_catalog."left"(printed, OPERATOR(pg_catalog.-) pg_catalog.length(closing));
    IF pg_catalog.starts_with(printed, '(') THEN
        printed := pg_catalog.substr(pg_catalog."left"(printed, -1), 2);
    END IF;
    LOOP
        parts := pg_catalog.regexp_match(printed, first_column);
        EXIT WHEN parts IS NULL;
        label := pg_catalog.replace(pg_catalog."substring"(parts[1], '^E?''(.*)''$'), '''''', '''');
        IF pg_catalog.starts_with(parts[1], 'E') THEN
            label := pg_catalog.replace(label, E'\\\\', E'\\');
        END IF;
        tenant := parts[2];
        RETURN NEXT;
        printed := parts[3];
    END LOOP;
END
$$;

-- The label that a column of ours has whose constraint is gone, as far as the trigger tells: the
-- one that no constraint of the table has.
CREATE FUNCTION cmk_internal.label_in_trigger(relation pg_catalog.regclass) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 THEN pg_catalog.min(s.label) END
      FROM cmk_internal.seal_conditions(label_in_trigger.relation) s
     WHERE NOT EXISTS (SELECT FROM cmk.protections() p
                        WHERE p.relation OPERATOR(pg_catalog.=) label_in_trigger.relation::pg_catalog.oid
                          AND p.label OPERATOR(pg_catalog.=) s.label)
$$;

-- Under another label no search would find the values that there are. Why a column of ours cannot
-- get this one, or null: by a value of it, if there is a sealed one.
CREATE FUNCTION cmk_internal.label_obstacle(
    "table" pg_catalog.regclass, "column" pg_catalog.name, label pg_catalog.text) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    detail pg_catalog.text;
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT cmk.sealed(t.value, %1$L, NULL::pg_catalog.text, NULL::pg_catalog.text) FROM (SELECT %2$I AS value FROM %3$s WHERE cmk.is_sealed(%2$I) LIMIT 1) t',
        label, "column", "table");
    RETURN NULL;
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    -- Tokens of another kind, say, are no matter here.
    IF NOT pg_catalog.starts_with(detail, 'reason=foreign_envelope') THEN
        RETURN NULL;
    END IF;
    RETURN pg_catalog.format('its values were sealed under another label than %L: pass the label that the column had', label);
END
$$;

-- Whether cmk.seal_table() has something to do with a value, as SQL: it is not sealed, or its
-- tokens are not those that it is to have. A column without a constraint of ours has no label.
CREATE FUNCTION cmk_internal.pending_condition(
    type pg_catalog.oid, value pg_catalog.text, label pg_catalog.text, options pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN pending_condition.label IS NOT NULL
                 AND pending_condition.type OPERATOR(pg_catalog.=) 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid
                THEN pg_catalog.format('(%1$s IS NOT NULL AND cmk.needs_sealing(%1$s, %2$L, %3$L))',
                         pending_condition.value, pending_condition.label, pending_condition.options)
                ELSE pg_catalog.format('NOT cmk.is_sealed(%s)', pending_condition.value) END
$$;

-- The statement that makes the trigger. "OR true" lets the planner drop the condition, while
-- PostgreSQL goes on guarding the columns that it names.
CREATE FUNCTION cmk_internal.seal_trigger(relation pg_catalog.regclass, conditions pg_catalog.text[])
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON %s FOR EACH ROW WHEN (%s OR true) EXECUTE FUNCTION cmk.seal()',
        seal_trigger.relation, pg_catalog.array_to_string(seal_trigger.conditions, ' AND '))
$$;

-- Whether the column's values can stay where they are while its type changes to ours.
CREATE FUNCTION cmk_internal.keeps_file(type pg_catalog.oid) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT keeps_file.type OPERATOR(pg_catalog.=) ANY (
        '{pg_catalog.text, pg_catalog.varchar}'::pg_catalog.regtype[]::pg_catalog.oid[])
$$;

-- A column's default as SQL, without a cast that makes our type of a literal.
CREATE FUNCTION cmk_internal.plain_default(expression pg_catalog.pg_node_tree, relation pg_catalog.oid)
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT pg_catalog.regexp_replace(
        pg_catalog.pg_get_expr(plain_default.expression, plain_default.relation),
        '^(E?''(?:[^'']|'''')*'')::cmk_[a-z]+(\(\d+\))?$', '\1')
$$;

-- requires:
--   protect_names

-- Indexes of protected columns: which there are, and how one of plaintext becomes one of tokens.

-- The indexes of a table, its partitions and children that use a column other than to INCLUDE it:
-- that needs no operator class. What they are:
--
-- token index   the column is a key of it, by its token
-- next index    the same, by the token under the tenant's next index key, while that rotates
-- plain index   it can be made again as a token index
-- index         it cannot; line says why
CREATE FUNCTION cmk_internal.column_indexes(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT relation pg_catalog.regclass, OUT index pg_catalog.regclass, OUT kind pg_catalog.text,
    OUT is_unique pg_catalog.bool, OUT is_valid pg_catalog.bool, OUT is_attached pg_catalog.bool,
    OUT line pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, c.oid::pg_catalog.regclass,
           CASE WHEN position.is_named THEN 'index'
                WHEN position.class OPERATOR(pg_catalog.=) 'cmk_token_next_ops' THEN 'next index'
                WHEN position.class IS NOT NULL THEN 'token index'
                WHEN refused.why IS NULL THEN 'plain index' ELSE 'index' END,
           i.indisunique, i.indisvalid, c.relispartition,
           pg_catalog.format('%s %s %s',
               CASE WHEN i.indisprimary THEN 'primary key'
                    WHEN i.indisexclusion THEN 'exclusion constraint'
                    WHEN i.indisunique AND NOT position.is_named THEN 'unique index' ELSE 'index' END,
               c.oid::pg_catalog.regclass,
               CASE WHEN position.is_named THEN 'uses it in an expression or in WHERE'
                    WHEN position.class IS NOT NULL THEN 'holds its tokens: drop it'
                    ELSE pg_catalog.concat('contains it: ', COALESCE(refused.why, 'drop it, or make the column searchable')) END)
      FROM cmk_internal.table_tree(column_indexes."table") t
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) t.relation
       AND a.attname OPERATOR(pg_catalog.=) column_indexes."column"
      JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) t.relation
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
      JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam
      LEFT JOIN pg_catalog.pg_constraint o
             ON o.conindid OPERATOR(pg_catalog.=) i.indexrelid
            AND o.conrelid OPERATOR(pg_catalog.=) i.indrelid
            AND o.contype OPERATOR(pg_catalog.=) 'u'
     CROSS JOIN LATERAL (
           SELECT pg_catalog.bool_or(true), pg_catalog.max(p.opcname::pg_catalog.text),
                  pg_catalog.strpos(
                      pg_catalog.concat(i.indexprs::pg_catalog.text, ' ', i.indpred::pg_catalog.text),
                      pg_catalog.format(':varattno %s ', a.attnum)) OPERATOR(pg_catalog.>) 0
             FROM ROWS FROM (pg_catalog.unnest(i.indkey), pg_catalog.unnest(i.indclass))
                  WITH ORDINALITY k (attnum, class, number)
             LEFT JOIN pg_catalog.pg_opclass p
                    ON p.oid OPERATOR(pg_catalog.=) k.class
                   AND p.opcnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
                   AND p.opcname OPERATOR(pg_catalog.=) ANY (
                       '{cmk_token_ops, cmk_token_next_ops}'::pg_catalog.name[])
            WHERE k.attnum OPERATOR(pg_catalog.=) a.attnum
              AND k.number OPERATOR(pg_catalog.<=) i.indnkeyatts
           ) position (is_key, class, is_named)
     CROSS JOIN LATERAL (
           SELECT CASE WHEN i.indisprimary THEN 'no primary key can'
                       WHEN i.indisexclusion THEN 'no exclusion constraint can'
                       WHEN NOT a.atttypid OPERATOR(pg_catalog.=) ANY (
                            '{text, varchar, bpchar, cmk_text}'::pg_catalog.regtype[]::pg_catalog.oid[])
                       THEN 'no index of this type can'
                       WHEN NOT m.amname OPERATOR(pg_catalog.=) ANY ('{btree, hash}'::pg_catalog.name[])
                       THEN 'only btree and hash indexes can'
                       WHEN NOT i.indisvalid THEN 'it is not valid, drop it'
                       WHEN o.condeferrable THEN 'it is deferrable, which no index of tokens is'
                       WHEN i.indisreplident THEN 'it is the replica identity, choose another'
                       END
           ) refused (why)
     WHERE position.is_key OR position.is_named
$$;

-- What stands behind a key column in CREATE INDEX: collation, operator class with its options, and
-- order, as far as they are not what comes by itself.
CREATE FUNCTION cmk_internal.index_key(index pg_catalog.oid, number pg_catalog.int4, is_next pg_catalog.bool)
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.concat(
               CASE WHEN x.attcollation OPERATOR(pg_catalog.<>) COALESCE(t.attcollation, 0)
                    THEN (SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname)
                            FROM pg_catalog.pg_collation l
                            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) l.collnamespace
                           WHERE l.oid OPERATOR(pg_catalog.=) x.attcollation) END,
               CASE WHEN index_key.is_next AND n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'
                     AND o.opcname OPERATOR(pg_catalog.=) 'cmk_token_ops'
                    THEN ' pg_catalog.cmk_token_next_ops'
                    WHEN x.attoptions IS NOT NULL OR NOT o.opcdefault
                      OR o.opcintype OPERATOR(pg_catalog.<>) x.atttypid
                    THEN pg_catalog.format(' %I.%I', n.nspname, o.opcname) END,
               (SELECT ' (' OPERATOR(pg_catalog.||)
                       pg_catalog.string_agg(pg_catalog.format('%I=%L', p.option_name, p.option_value), ', ')
                       OPERATOR(pg_catalog.||) ')'
                  FROM pg_catalog.pg_options_to_table(x.attoptions) p),
               -- Bits: 1 descending, 2 nulls first, which is what descending brings.
               CASE key.option OPERATOR(pg_catalog.&) 3::pg_catalog.int2
                    WHEN 1 THEN ' DESC NULLS LAST' WHEN 2 THEN ' NULLS FIRST' WHEN 3 THEN ' DESC' END)
      FROM pg_catalog.pg_index i
     CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey), pg_catalog.unnest(i.indclass), pg_catalog.unnest(i.indoption))
           WITH ORDINALITY key (attnum, class, option, number)
      JOIN pg_catalog.pg_attribute x
        ON x.attrelid OPERATOR(pg_catalog.=) i.indexrelid AND x.attnum OPERATOR(pg_catalog.=) key.number
      LEFT JOIN pg_catalog.pg_attribute t
             ON t.attrelid OPERATOR(pg_catalog.=) i.indrelid
            AND t.attnum OPERATOR(pg_catalog.=) key.attnum
            AND key.attnum OPERATOR(pg_catalog.<>) 0
      JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) key.class
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.opcnamespace
     WHERE i.indexrelid OPERATOR(pg_catalog.=) index_key.index
       AND key.number OPERATOR(pg_catalog.=) index_key.number
$$;

-- The key columns of an index without expression or WHERE, as SQL; null of others, and of one with
-- another protected column in it.
CREATE FUNCTION cmk_internal.index_columns(index pg_catalog.regclass) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT CASE WHEN i.indpred IS NULL AND i.indexprs IS NULL THEN
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.number)
              FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, number)
              JOIN pg_catalog.pg_attribute a
                ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
             WHERE k.number OPERATOR(pg_catalog.<=) i.indnkeyatts
            HAVING pg_catalog.count(*) FILTER (WHERE cmk_internal.is_protected_type(a.atttypid)) OPERATOR(pg_catalog.<=) 1) END
      FROM pg_catalog.pg_index i
     WHERE i.indexrelid OPERATOR(pg_catalog.=) index_columns.index::pg_catalog.oid
$$;

-- The unique indexes of a table, without its partitions and children, that went when the column
-- became searchable and were not made again, as the note on our constraint tells, and the
-- statements that make them.
CREATE FUNCTION cmk_internal.missing_uniques(
    relation pg_catalog.regclass, "column" pg_catalog.name,
    OUT columns pg_catalog.text, OUT statement pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT u.columns,
           pg_catalog.format('CREATE UNIQUE INDEX %sON %s (%s)',
               CASE WHEN c.relkind OPERATOR(pg_catalog.<>) 'p' THEN 'CONCURRENTLY ' END, missing_uniques.relation,
               (SELECT pg_catalog.string_agg(
                           pg_catalog.concat(k.name, CASE WHEN k.name OPERATOR(pg_catalog.=) pg_catalog.quote_ident(missing_uniques."column")
                                                          THEN ' pg_catalog.cmk_token_ops' END), ', ' ORDER BY k.number)
                  FROM pg_catalog.unnest(pg_catalog.string_to_array(u.columns, ', ')) WITH ORDINALITY k (name, number)))
      FROM pg_catalog.pg_class c
      JOIN cmk.protections() p ON p.relation OPERATOR(pg_catalog.=) c.oid
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid
       AND a.attnum OPERATOR(pg_catalog.=) p.attnum
       AND a.attname OPERATOR(pg_catalog.=) missing_uniques."column"
     CROSS JOIN LATERAL cmk_internal.protection_note(p.constraint_oid) n
     CROSS JOIN LATERAL pg_catalog.unnest(n.uniques) u (columns)
     WHERE c.oid OPERATOR(pg_catalog.=) missing_uniques.relation::pg_catalog.oid AND p.options IS NOT NULL
       -- What is in a comment has to be columns of this table.
       AND NOT EXISTS (SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(u.columns, ', ')) k (name)
                        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute other
                                           WHERE other.attrelid OPERATOR(pg_catalog.=) c.oid
                                             AND other.attnum OPERATOR(pg_catalog.>) 0
                                             AND pg_catalog.quote_ident(other.attname) OPERATOR(pg_catalog.=) k.name))
       AND NOT EXISTS (SELECT FROM cmk_internal.column_indexes(missing_uniques.relation, missing_uniques."column") x
                        WHERE x.relation OPERATOR(pg_catalog.=) missing_uniques.relation
                          AND x.kind OPERATOR(pg_catalog.=) 'token index' AND x.is_unique AND x.is_valid
                          AND cmk_internal.index_columns(x.index) OPERATOR(pg_catalog.=) u.columns)
$$;

-- The statement that makes such an index again, with the column by its tokens. What CREATE INDEX
-- says of other columns and of the index stays, but that a hash index becomes a btree index, as all
-- indexes of tokens are, and that no protected column is included. is_next: by the tokens under the
-- next index key, for all columns that are in it by their tokens.
CREATE FUNCTION cmk_internal.token_index(
    index pg_catalog.regclass, "column" pg_catalog.name, name pg_catalog.name,
    concurrently pg_catalog.bool, is_next pg_catalog.bool) RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
    SELECT pg_catalog.concat(
               'CREATE ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, 'INDEX ',
               CASE WHEN token_index.concurrently AND c.relkind OPERATOR(pg_catalog.<>) 'I' THEN 'CONCURRENTLY ' END,
               pg_catalog.quote_ident(token_index.name) OPERATOR(pg_catalog.||) ' ',
               'ON ', i.indrelid::pg_catalog.regclass,
               ' (', columns.keys, ')',
               ' INCLUDE (' OPERATOR(pg_catalog.||) columns.included OPERATOR(pg_catalog.||) ')',
               -- The catalog of PostgreSQL 14 does not have it.
               CASE WHEN (pg_catalog.to_jsonb(i.*) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct')::pg_catalog.bool
                    THEN ' NULLS NOT DISTINCT' END,
               ' WITH (' OPERATOR(pg_catalog.||) options.list OPERATOR(pg_catalog.||) ')',
               ' TABLESPACE ' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(s.spcname),
               ' WHERE ' OPERATOR(pg_catalog.||) pg_catalog.pg_get_expr(i.indpred, i.indrelid))
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
      LEFT JOIN pg_catalog.pg_tablespace s ON s.oid OPERATOR(pg_catalog.=) c.reltablespace
     CROSS JOIN LATERAL (
           SELECT pg_catalog.string_agg(pg_catalog.format('%I=%L', o.option_name, o.option_value), ', ')
             FROM pg_catalog.pg_options_to_table(c.reloptions) o) options (list)
     CROSS JOIN LATERAL (
           SELECT pg_catalog.string_agg(
                      pg_catalog.concat(
                          pg_catalog.pg_get_indexdef(i.indexrelid, k.number::pg_catalog.int4, false),
                          CASE WHEN t.attname OPERATOR(pg_catalog.=) token_index."column"
                               THEN ' pg_catalog.cmk_token_ops'
                               ELSE cmk_internal.index_key(i.indexrelid, k.number::pg_catalog.int4, token_index.is_next) END),
                      ', ' ORDER BY k.number) FILTER (WHERE k.number OPERATOR(pg_catalog.<=) i.indnkeyatts),
                  pg_catalog.string_agg(pg_catalog.quote_ident(t.attname), ', ' ORDER BY k.number)
                      FILTER (WHERE k.number OPERATOR(pg_catalog.>) i.indnkeyatts
                                AND t.attname OPERATOR(pg_catalog.=) token_index."column" IS NOT TRUE
                                AND NOT cmk_internal.is_protected_type(t.atttypid))
             FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, number)
             LEFT JOIN pg_catalog.pg_attribute t
                    ON t.attrelid OPERATOR(pg_catalog.=) i.indrelid
                   AND t.attnum OPERATOR(pg_catalog.=) k.attnum
           ) columns (keys, included)
     WHERE i.indexrelid OPERATOR(pg_catalog.=) token_index.index::pg_catalog.oid
$$;

-- requires:
--   protect_indexes

-- What uses a column, found in the catalogs without a lock. PostgreSQL would name one use at a
-- time, and some only under its lock.

-- Tables that have a column of a table's row type, or of a type that is made of it.
CREATE FUNCTION cmk_internal.row_type_holders(relation pg_catalog.regclass) RETURNS SETOF pg_catalog.oid
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE made_of (type, holder) AS (
        SELECT c.reltype, NULL::pg_catalog.oid
          FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) row_type_holders.relation
        UNION
        SELECT CASE WHEN d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass THEN d.objid
                    WHEN c.relkind OPERATOR(pg_catalog.=) 'c' THEN c.reltype END,
               CASE WHEN c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,f}'::pg_catalog."char"[]) THEN c.oid END
          FROM made_of
          JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) made_of.type
          LEFT JOIN pg_catalog.pg_class c
                 ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                AND c.oid OPERATOR(pg_catalog.=) d.objid)
    SELECT DISTINCT made_of.holder FROM made_of WHERE made_of.holder IS NOT NULL
$$;

-- What uses a column of a table, or of its partitions and children, and how it is called.
CREATE FUNCTION cmk_internal.column_uses(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT kind pg_catalog.text, OUT object pg_catalog.oid, OUT line pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS MATERIALIZED (
        SELECT t.relation, t.relation::pg_catalog.oid AS oid, t.depth, a.attnum, a.atttypid
          FROM cmk_internal.table_tree(column_uses."table") t
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) column_uses."column"),
    used AS MATERIALIZED (
        SELECT d.classid::pg_catalog.regclass AS class, d.objid, d.objsubid, place.*
          FROM place
          JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) place.oid
           AND d.refobjsubid OPERATOR(pg_catalog.=) place.attnum)
    -- Views, materialized views, and rules on tables: all are rewrite rules.
    SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v' THEN 'view'
                WHEN c.relkind OPERATOR(pg_catalog.=) 'm' THEN 'matview' ELSE 'rule' END,
           c.oid,
           CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v'
                THEN pg_catalog.format('view %s uses it', c.oid::pg_catalog.regclass)
                WHEN c.relkind OPERATOR(pg_catalog.=) 'm'
                THEN pg_catalog.format('materialized view %s uses it', c.oid::pg_catalog.regclass)
                ELSE pg_catalog.format('rule %I on %s uses it', r.rulename, c.oid::pg_catalog.regclass) END
      FROM used
      JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) used.objid
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
     WHERE used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    UNION
    SELECT 'policy', p.oid,
           pg_catalog.format('policy %I on %s uses it', p.polname, p.polrelid::pg_catalog.regclass)
      FROM used
      JOIN pg_catalog.pg_policy p ON p.oid OPERATOR(pg_catalog.=) used.objid
     WHERE used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
    UNION
    -- Of triggers cloned to partitions, the first one's name is enough.
    SELECT CASE WHEN g.tgname OPERATOR(pg_catalog.=) '~cmk_seal' THEN 'tenant' ELSE 'trigger' END, g.oid,
           CASE WHEN g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
                THEN pg_catalog.format('it tells the tenant of other protected columns of %s', used.relation)
                ELSE pg_catalog.format('trigger %I on %s names it in UPDATE OF or WHEN',
                                       g.tgname, g.tgrelid::pg_catalog.regclass) END
      FROM used
      JOIN pg_catalog.pg_trigger g ON g.oid OPERATOR(pg_catalog.=) used.objid
     WHERE used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
       AND g.tgparentid OPERATOR(pg_catalog.=) 0
    UNION
    -- Where a generated column depends on another, the column depends, or its expression.
    SELECT 'generated', a.attrelid,
           pg_catalog.format('generated column %I of %s uses it', a.attname, used.relation)
      FROM used
      LEFT JOIN pg_catalog.pg_attrdef d
             ON d.oid OPERATOR(pg_catalog.=) used.objid
            AND used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) used.oid
       AND a.attnum OPERATOR(pg_catalog.=) COALESCE(d.adnum, used.objsubid::pg_catalog.int2)
     WHERE a.attnum OPERATOR(pg_catalog.>) 0
       AND a.attnum OPERATOR(pg_catalog.<>) used.attnum
       AND (d.oid IS NOT NULL
            OR used.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
               AND used.objid OPERATOR(pg_catalog.=) used.oid)
    UNION
    SELECT 'partition key', p.partrelid,
           pg_catalog.format('%s is partitioned by it', p.partrelid::pg_catalog.regclass)
      FROM place
      JOIN pg_catalog.pg_partitioned_table p ON p.partrelid OPERATOR(pg_catalog.=) place.oid
     WHERE place.attnum OPERATOR(pg_catalog.=) ANY (p.partattrs)
        -- Columns of expressions hang on the table, and not the other way round.
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.objid OPERATOR(pg_catalog.=) place.oid
                      AND d.objsubid OPERATOR(pg_catalog.=) place.attnum
                      AND d.refclassid OPERATOR(pg_catalog.=) d.classid
                      AND d.refobjid OPERATOR(pg_catalog.=) place.oid
                      AND d.refobjsubid OPERATOR(pg_catalog.=) 0)
    UNION
    SELECT 'foreign key', c.oid,
           pg_catalog.format('foreign key %I of %s %s it', c.conname, c.conrelid::pg_catalog.regclass,
               CASE WHEN c.conrelid OPERATOR(pg_catalog.=) place.oid
                     AND place.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
                    THEN 'contains' ELSE 'refers to' END)
      FROM place
      JOIN pg_catalog.pg_constraint c
        ON c.contype OPERATOR(pg_catalog.=) 'f'
       AND c.conparentid OPERATOR(pg_catalog.=) 0
       AND (c.conrelid OPERATOR(pg_catalog.=) place.oid
            AND place.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
            OR c.confrelid OPERATOR(pg_catalog.=) place.oid
            AND place.attnum OPERATOR(pg_catalog.=) ANY (c.confkey))
    UNION
    -- Of partitions' indexes, their parent's is enough.
    SELECT x.kind, x.index::pg_catalog.oid, x.line
      FROM cmk_internal.column_indexes(column_uses."table", column_uses."column") x
     WHERE NOT x.is_attached
    UNION
    SELECT 'row type', holder.oid,
           pg_catalog.format('%s has a column of the row type of %s', holder.oid::pg_catalog.regclass, place.relation)
      FROM place CROSS JOIN LATERAL cmk_internal.row_type_holders(place.relation) holder (oid)
    UNION
    -- Whatever else there is: publications, extended statistics, functions written in SQL.
    SELECT 'other', used.objid,
           pg_catalog.format('%s uses it', pg_catalog.pg_describe_object(used.class, used.objid, used.objsubid))
      FROM used
     WHERE NOT used.class OPERATOR(pg_catalog.=) ANY (
           '{pg_catalog.pg_class, pg_catalog.pg_attrdef, pg_catalog.pg_constraint, pg_catalog.pg_rewrite,
             pg_catalog.pg_policy, pg_catalog.pg_trigger}'::pg_catalog.regclass[])
$$;

-- requires:
--   protect_uses
--   views

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

-- requires:
--   protect_search

-- Views on a column whose type changes: dropped, and made again as they were. PostgreSQL changes no
-- type beneath a view, and CREATE OR REPLACE VIEW no type of a view's column.

-- The views that use the column, and those that use these, in an order in which they can be made.
CREATE FUNCTION cmk_internal.views_of_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT view pg_catalog.regclass, OUT kind pg_catalog."char", OUT level pg_catalog.int4)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE used (view, level) AS (
        SELECT u.object, 1
          FROM cmk_internal.column_uses(views_of_column."table", views_of_column."column") u
         WHERE u.kind OPERATOR(pg_catalog.=) ANY ('{view, matview}')
        UNION
        SELECT r.ev_class, used.level OPERATOR(pg_catalog.+) 1
          FROM used
          JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.refobjid OPERATOR(pg_catalog.=) used.view
           AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
          JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
         WHERE r.ev_class OPERATOR(pg_catalog.<>) used.view
           AND c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog."char"[])
           AND used.level OPERATOR(pg_catalog.<) 100)
    SELECT c.oid::pg_catalog.regclass, c.relkind, pg_catalog.max(used.level)
      FROM used
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) used.view
     GROUP BY c.oid, c.relkind
     ORDER BY 3, c.oid
$$;

-- Why these views cannot be dropped and made again without a loss.
CREATE FUNCTION cmk_internal.view_obstacles("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH views AS MATERIALIZED (
        SELECT v.view, v.kind, c.relowner, c.relnamespace, c.relacl, c.reltype, t.typarray
          FROM cmk_internal.views_of_column(view_obstacles."table", view_obstacles."column") v
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) v.view
          JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) c.reltype)
    SELECT pg_catalog.format('materialized view %s uses it', views.view)
      FROM views WHERE views.kind OPERATOR(pg_catalog.=) 'm'
    UNION
    SELECT pg_catalog.format('you do not own view %s', views.view)
      FROM views WHERE NOT pg_catalog.pg_has_role(views.relowner, 'USAGE')
    UNION
    SELECT pg_catalog.format('you may not create view %s', views.view)
      FROM views
     WHERE NOT (pg_catalog.has_schema_privilege(views.relnamespace, 'CREATE')
                AND pg_catalog.has_schema_privilege(views.relowner, views.relnamespace, 'CREATE'))
    UNION
    SELECT pg_catalog.format('view %s belongs to an extension', views.view)
      FROM views
      JOIN pg_catalog.pg_depend d
        ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.objid OPERATOR(pg_catalog.=) views.view
       AND d.deptype OPERATOR(pg_catalog.=) 'e'
    UNION
    SELECT pg_catalog.format('view %s has a security label', views.view)
      FROM views
      JOIN pg_catalog.pg_seclabel l
        ON l.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND l.objoid OPERATOR(pg_catalog.=) views.view
    UNION
    SELECT pg_catalog.format('role %I granted rights on view %s, and you are not a member of it',
                             pg_catalog.pg_get_userbyid(granted.grantor), views.view)
      FROM views
     CROSS JOIN LATERAL (
           SELECT x.grantor FROM pg_catalog.aclexplode(views.relacl) x
           UNION
           SELECT x.grantor
             FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
            WHERE a.attrelid OPERATOR(pg_catalog.=) views.view) granted
     WHERE NOT pg_catalog.pg_has_role(granted.grantor, 'MEMBER')
    UNION
    -- What goes down with a view and is not made again: rules of tables, policies, functions.
    SELECT pg_catalog.format('%s uses view %s', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), views.view)
      FROM views
      JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) views.view
        OR d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) ANY (ARRAY[views.reltype, views.typarray])
      LEFT JOIN pg_catalog.pg_rewrite r
             ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            AND r.oid OPERATOR(pg_catalog.=) d.objid
      LEFT JOIN pg_catalog.pg_trigger g
             ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
            AND g.oid OPERATOR(pg_catalog.=) d.objid
      LEFT JOIN pg_catalog.pg_attrdef f
             ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
            AND f.oid OPERATOR(pg_catalog.=) d.objid
     WHERE d.deptype OPERATOR(pg_catalog.<>) 'i'
       AND NOT COALESCE(r.ev_class OPERATOR(pg_catalog.=) ANY (SELECT v.view::pg_catalog.oid FROM views v), false)
       AND NOT COALESCE(g.tgrelid OPERATOR(pg_catalog.=) views.view::pg_catalog.oid, false)
       AND NOT COALESCE(f.adrelid OPERATOR(pg_catalog.=) views.view::pg_catalog.oid, false)
$$;

-- The statements that grant what an ACL says, to nobody else, by whom it was granted: first what
-- the owner did, then in the order in which it came. as_role: who has to say it.
CREATE FUNCTION cmk_internal.view_grants(
    view pg_catalog.regclass, OUT as_role pg_catalog.name, OUT statement pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN granted.grantor OPERATOR(pg_catalog.<>) c.relowner
                THEN pg_catalog.pg_get_userbyid(granted.grantor) END,
           pg_catalog.format('GRANT %s%s ON %s TO %s%s', granted.privilege_type,
               CASE WHEN granted.attname IS NOT NULL THEN pg_catalog.format(' (%I)', granted.attname) END,
               view_grants.view,
               CASE WHEN granted.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                    ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(granted.grantee)) END,
               CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' END)
      FROM pg_catalog.pg_class c
     CROSS JOIN LATERAL (
           SELECT 0, NULL, x.*
             FROM pg_catalog.aclexplode(c.relacl)
                  WITH ORDINALITY x (grantor, grantee, privilege_type, is_grantable, number)
           UNION ALL
           SELECT a.attnum, a.attname, x.*
             FROM pg_catalog.pg_attribute a
            CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl)
                  WITH ORDINALITY x (grantor, grantee, privilege_type, is_grantable, number)
            WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid
           ) granted (attnum, attname, grantor, grantee, privilege_type, is_grantable, number)
     WHERE c.oid OPERATOR(pg_catalog.=) view_grants.view
     ORDER BY granted.grantor OPERATOR(pg_catalog.<>) c.relowner, granted.attnum, granted.number
$$;

-- Everything that makes a view again. as_role: who has to say it, else null.
CREATE FUNCTION cmk_internal.view_script(
    view pg_catalog.regclass, OUT as_role pg_catalog.name, OUT statement pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    SELECT c.relowner, c.relpersistence, c.relacl IS NOT NULL AS is_granted,
           CASE WHEN c.reloptions IS NOT NULL
                THEN (SELECT pg_catalog.format(' WITH (%s)', pg_catalog.string_agg(pg_catalog.format('%I = %L',
                             pg_catalog.split_part(o.option, '=', 1), pg_catalog.split_part(o.option, '=', 2)), ', '))
                        FROM pg_catalog.unnest(c.reloptions) o (option)) END AS options
      INTO item
      FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) view_script.view;
    statement := pg_catalog.format('CREATE %sVIEW %s%s AS %s',
        CASE WHEN item.relpersistence OPERATOR(pg_catalog.=) 't' THEN 'TEMPORARY ' END,
        view, item.options, pg_catalog.pg_get_viewdef(view));
    RETURN NEXT;
    statement := pg_catalog.format('ALTER VIEW %s OWNER TO %I', view, pg_catalog.pg_get_userbyid(item.relowner));
    RETURN NEXT;
    statement := pg_catalog.format('SELECT cmk_internal.clear_grants(%L, %L)', view, item.is_granted);
    RETURN NEXT;
    RETURN QUERY SELECT g.as_role, g.statement FROM cmk_internal.view_grants(view) g;
    RETURN QUERY
        SELECT NULL::pg_catalog.name,
               CASE WHEN d.objsubid OPERATOR(pg_catalog.=) 0
                    THEN pg_catalog.format('COMMENT ON VIEW %s IS %L', view, d.description)
                    ELSE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', view, a.attname, d.description) END
          FROM pg_catalog.pg_description d
          LEFT JOIN pg_catalog.pg_attribute a
                 ON a.attrelid OPERATOR(pg_catalog.=) d.objoid
                AND a.attnum OPERATOR(pg_catalog.=) d.objsubid
                AND a.attnum OPERATOR(pg_catalog.>) 0
         WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objoid OPERATOR(pg_catalog.=) view_script.view;
    RETURN QUERY
        SELECT NULL::pg_catalog.name,
               pg_catalog.format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', view, a.attname,
                                 cmk_internal.plain_default(f.adbin, f.adrelid))
          FROM pg_catalog.pg_attrdef f
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) f.adrelid AND a.attnum OPERATOR(pg_catalog.=) f.adnum
         WHERE f.adrelid OPERATOR(pg_catalog.=) view_script.view;
    FOR item IN
        SELECT g.tgname AS name, pg_catalog.pg_get_triggerdef(g.oid) AS definition,
               'TRIGGER' AS kind, pg_catalog.obj_description(g.oid, 'pg_trigger') AS comment
          FROM pg_catalog.pg_trigger g
         WHERE g.tgrelid OPERATOR(pg_catalog.=) view_script.view AND NOT g.tgisinternal
        UNION ALL
        SELECT r.rulename, pg_catalog.pg_get_ruledef(r.oid),
               'RULE', pg_catalog.obj_description(r.oid, 'pg_rewrite')
          FROM pg_catalog.pg_rewrite r
         WHERE r.ev_class OPERATOR(pg_catalog.=) view_script.view
           AND r.rulename OPERATOR(pg_catalog.<>) '_RETURN'
    LOOP
        statement := item.definition;
        RETURN NEXT;
        IF item.comment IS NOT NULL THEN
            statement := pg_catalog.format('COMMENT ON %s %I ON %s IS %L', item.kind, item.name, view, item.comment);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- Default privileges of whoever made the view, or of its owner, are none that it had. The owner's
-- own go, too, if they are granted again.
CREATE FUNCTION cmk_internal.clear_grants(view pg_catalog.regclass, also_owner pg_catalog.bool)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder pg_catalog.oid;
BEGIN
    FOR holder IN
        SELECT DISTINCT x.grantee
          FROM pg_catalog.pg_class c
         CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(c.relacl, pg_catalog.acldefault('r', c.relowner))) x
         WHERE c.oid OPERATOR(pg_catalog.=) view
           AND (also_owner OR x.grantee OPERATOR(pg_catalog.<>) c.relowner)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', view,
            CASE WHEN holder OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(holder)) END);
    END LOOP;
END
$$;

CREATE FUNCTION cmk_internal.run_as(as_roles pg_catalog.name[], statements pg_catalog.text[])
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
BEGIN
    FOR number IN 1 .. COALESCE(pg_catalog.cardinality(statements), 0) LOOP
        PERFORM pg_catalog.set_config('role', COALESCE(as_roles[number], before), true);
        EXECUTE statements[number];
    END LOOP;
    PERFORM pg_catalog.set_config('role', before, true);
END
$$;

-- requires:
--   protect_views

-- Why the type of a column cannot be changed, and why a column cannot be protected: all reasons at
-- once, a line each.

-- What forbids any change of a column's type, whatever the new type is. tolerated: kinds of uses
-- that the change can cope with; "recreate" if it makes views again.
CREATE FUNCTION cmk_internal.column_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tolerated pg_catalog.text[])
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS MATERIALIZED (
        SELECT t.relation, t.depth, c.relkind, c.relowner, a.attinhcount,
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits i
                  JOIN cmk_internal.table_tree(column_obstacles."table") p
                    ON i.inhparent OPERATOR(pg_catalog.=) p.relation
                 WHERE i.inhrelid OPERATOR(pg_catalog.=) t.relation) AS parents
          FROM cmk_internal.table_tree(column_obstacles."table") t
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) c.oid
           AND a.attname OPERATOR(pg_catalog.=) column_obstacles."column")
    SELECT pg_catalog.format('you do not own %s', place.relation)
      FROM place WHERE NOT pg_catalog.pg_has_role(place.relowner, 'USAGE')
    UNION ALL
    SELECT pg_catalog.format('partition or child %s is a foreign table', place.relation)
      FROM place WHERE place.relkind OPERATOR(pg_catalog.=) 'f'
    UNION ALL
    SELECT CASE place.depth::pg_catalog.bool WHEN false
                THEN pg_catalog.format('%s inherits the column: do it in the parent, %s', place.relation, parent.inhparent::pg_catalog.regclass)
                ELSE pg_catalog.format('%s inherits the column from %s, too', place.relation, parent.inhparent::pg_catalog.regclass) END
      FROM place
      JOIN pg_catalog.pg_inherits parent ON parent.inhrelid OPERATOR(pg_catalog.=) place.relation
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) parent.inhparent
       AND a.attname OPERATOR(pg_catalog.=) column_obstacles."column"
     WHERE place.attinhcount OPERATOR(pg_catalog.>) place.parents
       AND NOT parent.inhparent OPERATOR(pg_catalog.=) ANY (SELECT p.relation FROM place p)
    UNION ALL
    SELECT u.line
      FROM cmk_internal.column_uses(column_obstacles."table", column_obstacles."column") u
     WHERE NOT u.kind OPERATOR(pg_catalog.=) ANY (column_obstacles.tolerated)
    UNION ALL
    SELECT v.line
      FROM cmk_internal.view_obstacles(column_obstacles."table", column_obstacles."column") v (line)
     WHERE 'recreate' OPERATOR(pg_catalog.=) ANY (column_obstacles.tolerated)
$$;

-- The kinds of uses that a change can cope with. Where the type stays, only what compares tokens
-- has to be dropped for them to go or to change.
CREATE FUNCTION cmk_internal.tolerated_uses(
    views pg_catalog.text, type_stays pg_catalog.bool,
    former_options pg_catalog.text, options pg_catalog.text)
RETURNS pg_catalog.text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.array_agg(t.kind)
      FROM (SELECT pg_catalog.unnest('{view, matview, rule, policy, trigger, tenant, generated, partition key, index, row type, other}'::pg_catalog.text[])
             WHERE tolerated_uses.type_stays
            UNION ALL
            SELECT pg_catalog.unnest('{recreate, view, matview}'::pg_catalog.text[])
             WHERE NOT tolerated_uses.type_stays AND tolerated_uses.views OPERATOR(pg_catalog.=) 'recreate'
            UNION ALL
            SELECT pg_catalog.unnest('{plain index, token index, next index}'::pg_catalog.text[])
             WHERE tolerated_uses.options IS NOT NULL
            UNION ALL
            SELECT 'foreign key'
             WHERE tolerated_uses.type_stays
               AND COALESCE(tolerated_uses.former_options, '') OPERATOR(pg_catalog.=) COALESCE(tolerated_uses.options, '')
            -- Not to be null, if there is nothing else.
            UNION ALL SELECT 'nothing') t (kind)
$$;

-- The same, in order, and what is wrong with the argument views.
CREATE FUNCTION cmk_internal.common_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name, views pg_catalog.text, tolerated pg_catalog.text[])
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'views can be refuse or recreate'
     WHERE NOT common_obstacles.views OPERATOR(pg_catalog.=) ANY ('{refuse, recreate}')
    UNION ALL
    (SELECT o.line
       FROM cmk_internal.column_obstacles(common_obstacles."table", common_obstacles."column",
                                          common_obstacles.tolerated) o (line)
      ORDER BY o.line)
$$;

-- The expression with "new." before the row's columns, as a trigger's WHEN wants it. PostgreSQL
-- itself prints the columns with the table's alias, for a view of two tables; nothing that is made
-- for that stays.
CREATE FUNCTION cmk_internal.row_expression("table" pg_catalog.regclass, expression pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    printed pg_catalog.text;
BEGIN
    BEGIN
        -- A CHECK takes no subquery, and no aggregate; nor does a WHEN.
        EXECUTE pg_catalog.format(
            'CREATE TEMPORARY TABLE "~cmk_row" (LIKE %s, CHECK ((%s) IS NULL OR true))', "table", expression);
        EXECUTE pg_catalog.format(
            'CREATE TEMPORARY VIEW "~cmk_view" AS SELECT (%s)::pg_catalog.text AS "~cmk" FROM pg_temp."~cmk_row" AS "~cmk_new" CROSS JOIN (SELECT) AS "~cmk_other"',
            expression);
        printed := pg_catalog."substring"(
            pg_catalog.pg_get_viewdef('pg_temp."~cmk_view"'::pg_catalog.regclass),
            '^\s*SELECT\s+(.*)\s+AS "~cmk"\s+FROM');
        RAISE EXCEPTION USING ERRCODE = 'CMKRB';
    EXCEPTION WHEN SQLSTATE 'CMKRB' THEN
        RETURN pg_catalog.replace(printed, '"~cmk_new".', 'new.');
    END;
END
$$;

-- Which of the ways to tell the tenant is meant, and what is wrong with it.
CREATE FUNCTION cmk_internal.tenant_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name, tenant_expression pg_catalog.text)
RETURNS SETOF pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    IF tenant_column IS NOT NULL AND tenant_expression IS NOT NULL THEN
        RETURN QUERY SELECT 'tenant_column and tenant_expression are both given';
    END IF;
    IF tenant_column IS NOT NULL THEN
        -- The tenant's name must read the same whatever a session has set, as that of a date does
        -- not.
        SELECT a.attnum, a.attgenerated, a.atttypid, t.typname, t.typnamespace,
               t.typcategory OPERATOR(pg_catalog.=) ANY ('{S,E,B}'::pg_catalog."char"[])
               OR t.oid OPERATOR(pg_catalog.=) ANY (
                  '{int2, int4, int8, numeric, uuid, oid}'::pg_catalog.regtype[]::pg_catalog.oid[]) AS names
          INTO item
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_type declared ON declared.oid OPERATOR(pg_catalog.=) a.atttypid
          JOIN pg_catalog.pg_type t
            ON t.oid OPERATOR(pg_catalog.=) COALESCE(NULLIF(declared.typbasetype, 0::pg_catalog.oid), declared.oid)
         WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
           AND a.attname OPERATOR(pg_catalog.=) tenant_column
           AND a.attnum OPERATOR(pg_catalog.>) 0;
        IF NOT FOUND THEN
            RETURN QUERY SELECT pg_catalog.format('there is no tenant column %I', tenant_column);
        ELSIF tenant_column OPERATOR(pg_catalog.=) "column" THEN
            RETURN QUERY SELECT 'the tenant column is the column itself';
        ELSIF cmk_internal.is_protected_type(item.atttypid) THEN
            RETURN QUERY SELECT pg_catalog.format('the tenant column %I is protected', tenant_column);
        ELSIF item.attgenerated OPERATOR(pg_catalog.<>) '' THEN
            RETURN QUERY SELECT pg_catalog.format('the tenant column %I is generated after the value is sealed', tenant_column);
        ELSIF NOT item.names THEN
            RETURN QUERY SELECT pg_catalog.format('the tenant column %I is of type %s, which names no tenant',
                tenant_column, pg_catalog.format_type(item.atttypid, NULL));
        END IF;
    END IF;
    IF tenant_expression IS NOT NULL THEN
        BEGIN
            PERFORM cmk_internal.row_expression("table", tenant_expression);
        EXCEPTION WHEN syntax_error_or_access_rule_violation OR feature_not_supported
                    OR data_exception OR insufficient_privilege THEN
            RETURN QUERY SELECT pg_catalog.format('tenant_expression: %s', SQLERRM);
        END;
    END IF;
END
$$;

-- Whether what the constraint and the trigger of a protected column do is in place for a table, its
-- partitions and its children.
CREATE FUNCTION cmk_internal.is_protected("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (
        SELECT FROM cmk_internal.table_tree(is_protected."table") t
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) is_protected."column"
         WHERE NOT EXISTS (SELECT FROM cmk.protections() p
                             JOIN cmk_internal.seal_conditions(t.relation) s
                               ON s.label OPERATOR(pg_catalog.=) p.label
                            WHERE p.relation OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
                              AND p.attnum OPERATOR(pg_catalog.=) a.attnum)
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                            WHERE g.tgrelid OPERATOR(pg_catalog.=) t.relation
                              AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
                              AND g.tgenabled OPERATOR(pg_catalog.=) 'A'))
$$;

CREATE FUNCTION cmk_internal.protect_obstacles(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name, tenant_expression pg_catalog.text,
    rewrite pg_catalog.bool, views pg_catalog.text, label pg_catalog.text,
    searchable pg_catalog.bool, normalization pg_catalog.text, token_bits pg_catalog.int4)
RETURNS SETOF pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
    former pg_catalog.text;
    options pg_catalog.text;
    type_stays pg_catalog.bool := false;
BEGIN
    SELECT c.relkind, c.relnamespace, n.nspname INTO item
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE c.oid OPERATOR(pg_catalog.=) "table";
    IF NOT FOUND OR NOT item.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[]) THEN
        RETURN QUERY SELECT pg_catalog.format('%s is not a table', "table");
        RETURN;
    ELSIF item.nspname OPERATOR(pg_catalog.=) ANY ('{pg_catalog, information_schema, pg_toast, cmk}'::pg_catalog.name[]) THEN
        RETURN QUERY SELECT pg_catalog.format('%s belongs to the system, or to cmk_encrypt', "table");
        RETURN;
    END IF;

    SELECT a.attnum, a.atttypid, a.atttypmod, a.attidentity, a.attgenerated, t.typtype,
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           cmk_internal.protecting_type(a.atttypid, a.atttypmod) AS target,
           (SELECT l.collisdeterministic FROM pg_catalog.pg_collation l
             WHERE l.oid OPERATOR(pg_catalog.=) a.attcollation) AS deterministic
      INTO item
      FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
       AND a.attname OPERATOR(pg_catalog.=) "column"
       AND a.attnum OPERATOR(pg_catalog.>) 0;
    IF NOT FOUND THEN
        RETURN QUERY SELECT pg_catalog.format('there is no column %I in %s', "column", "table");
        RETURN;
    ELSIF cmk_internal.is_protected_type(item.atttypid) THEN
        SELECT p.options INTO former
          FROM cmk.protections() p
         WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
           AND p.attnum OPERATOR(pg_catalog.=) item.attnum;
        options := cmk_internal.new_options(former, searchable, normalization, token_bits);
        type_stays := rewrite IS NOT TRUE
                      OR COALESCE(options, '') OPERATOR(pg_catalog.=) COALESCE(former, '');
        -- Else something of it was lost, and is made again, or its search changes.
        IF cmk_internal.is_protected("table", "column")
           AND COALESCE(options, '') OPERATOR(pg_catalog.=) COALESCE(former, '') THEN
            RETURN QUERY SELECT 'it is protected already';
        END IF;
    ELSIF item.attgenerated OPERATOR(pg_catalog.<>) '' THEN
        RETURN QUERY SELECT 'it is a generated column';
    ELSIF item.attidentity OPERATOR(pg_catalog.<>) '' THEN
        RETURN QUERY SELECT 'it is an identity column';
    ELSIF item.typtype OPERATOR(pg_catalog.=) 'd' THEN
        RETURN QUERY SELECT pg_catalog.format('its type %s is a domain: change it to the type beneath, with the checks on the column', item.type);
    ELSIF item.target IS NULL THEN
        RETURN QUERY SELECT pg_catalog.format('its type is %s: of what can be protected, text is nearest', item.type);
    ELSIF NOT cmk_internal.keeps_file(item.atttypid) AND rewrite IS NOT TRUE
          AND (rewrite IS NOT NULL
               -- Nobody's table is locked for long without a word.
               OR (SELECT pg_catalog.sum(pg_catalog.pg_table_size(t.relation)) OPERATOR(pg_catalog.>) 10485760
                     FROM cmk_internal.table_tree("table") t)
               OR item.atttypid OPERATOR(pg_catalog.=) 'pg_catalog.bpchar'::pg_catalog.regtype::pg_catalog.oid) THEN
        RETURN QUERY SELECT pg_catalog.format('its type %s needs rewrite => true, which locks the table while it is rewritten', item.type);
    END IF;
    IF NOT item.deterministic THEN
        RETURN QUERY SELECT 'its collation is not deterministic';
    END IF;
    options := cmk_internal.new_options(former, searchable, normalization, token_bits);
    RETURN QUERY SELECT * FROM cmk_internal.search_obstacles("table", "column", searchable, normalization, token_bits);
    RETURN QUERY SELECT * FROM cmk_internal.tenant_obstacles("table", "column", tenant_column, tenant_expression);
    IF label OPERATOR(pg_catalog.=) '' THEN
        RETURN QUERY SELECT 'the label is empty';
    END IF;
    RETURN QUERY
        SELECT pg_catalog.format('the label %L is that of column %I, too', p.label, a.attname)
          FROM cmk.protections() p
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
         WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
           AND p.label OPERATOR(pg_catalog.=) protect_obstacles.label
           AND a.attname OPERATOR(pg_catalog.<>) "column";
    RETURN QUERY SELECT * FROM cmk_internal.common_obstacles("table", "column", views,
        cmk_internal.tolerated_uses(views, type_stays, former, options));
END
$$;

-- requires:
--   protect_obstacles

-- A column that becomes searchable: what becomes of its indexes of plaintext, in the transaction
-- that changes it.

-- The indexes that the column is to have and hasn't: those that take the place of plain ones, and
-- one in each table that has none. Partitions get theirs from their parent.
CREATE FUNCTION cmk_internal.wanted_indexes(
    "table" pg_catalog.regclass, "column" pg_catalog.name, concurrently pg_catalog.bool,
    OUT relation pg_catalog.regclass, OUT name pg_catalog.name, OUT constraint_name pg_catalog.name,
    OUT is_unique pg_catalog.bool, OUT keys pg_catalog.int2[], OUT columns pg_catalog.text,
    OUT statement pg_catalog.text, OUT comment pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT x.relation, c.relname, o.conname, x.is_unique,
           (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts],
           cmk_internal.index_columns(x.index),
           cmk_internal.token_index(x.index, wanted_indexes."column", c.relname, wanted_indexes.concurrently, false),
           COALESCE(pg_catalog.obj_description(o.oid, 'pg_constraint'), pg_catalog.obj_description(c.oid, 'pg_class'))
      FROM cmk_internal.column_indexes(wanted_indexes."table", wanted_indexes."column") x
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
      JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
      LEFT JOIN pg_catalog.pg_constraint o
             ON o.conindid OPERATOR(pg_catalog.=) c.oid
            AND o.conrelid OPERATOR(pg_catalog.=) i.indrelid
            AND o.contype OPERATOR(pg_catalog.=) 'u'
     WHERE x.kind OPERATOR(pg_catalog.=) 'plain index' AND NOT x.is_attached
    UNION ALL
    SELECT t.relation, NULL, NULL, false, '{}', NULL,
           pg_catalog.format('CREATE INDEX %sON %s (%I pg_catalog.cmk_token_ops)',
               CASE WHEN wanted_indexes.concurrently AND c.relkind OPERATOR(pg_catalog.<>) 'p' THEN 'CONCURRENTLY ' END,
               t.relation, wanted_indexes."column"),
           NULL
      FROM cmk_internal.table_tree(wanted_indexes."table") t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
     WHERE NOT c.relispartition
       AND NOT EXISTS (SELECT FROM cmk_internal.column_indexes(wanted_indexes."table", wanted_indexes."column") x
                        WHERE x.relation OPERATOR(pg_catalog.=) t.relation
                          AND (x.kind OPERATOR(pg_catalog.=) 'plain index'
                               OR x.kind OPERATOR(pg_catalog.=) 'token index' AND x.is_valid))
$$;

-- Drops the plain ones. Whoever comes to the table waits for its lock anyway.
CREATE FUNCTION cmk_internal.drop_plain_indexes("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT x.relation, x.index, o.conname
          FROM cmk_internal.column_indexes("table", "column") x
          LEFT JOIN pg_catalog.pg_constraint o
                 ON o.conindid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
                AND o.conrelid OPERATOR(pg_catalog.=) x.relation::pg_catalog.oid
                AND o.contype OPERATOR(pg_catalog.=) 'u'
         WHERE x.kind OPERATOR(pg_catalog.=) 'plain index' AND NOT x.is_attached
    LOOP
        IF item.conname IS NOT NULL THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', item.relation, item.conname);
        ELSE
            EXECUTE pg_catalog.format('DROP INDEX %s', item.index);
        END IF;
    END LOOP;
END
$$;

-- Makes indexes that cmk_internal.wanted_indexes() told of. Where there was none before, there may
-- be values that are too long for one.
CREATE FUNCTION cmk_internal.make_indexes(wanted pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET default_tablespace = ''
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT w.*, n.nspname
          FROM pg_catalog.jsonb_to_recordset(wanted) w (
                   relation pg_catalog.regclass, name pg_catalog.name, statement pg_catalog.text, comment pg_catalog.text)
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.relation
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LOOP
        IF item.name IS NOT NULL THEN
            EXECUTE item.statement;
        ELSE
            BEGIN
                EXECUTE item.statement;
            EXCEPTION WHEN program_limit_exceeded THEN
                RAISE WARNING 'searching % reads all of it: %', item.relation, SQLERRM
                    USING HINT = 'An index holds whole envelopes, and entries of up to some 2600 bytes. For longer values make an index of cmk_search_token() of your own.';
            END;
        END IF;
        IF item.comment IS NOT NULL THEN
            EXECUTE pg_catalog.format('COMMENT ON INDEX %I.%I IS %L', item.nspname, item.name, item.comment);
        END IF;
    END LOOP;
END
$$;

-- Says what became of the indexes, and which statements are left to do. Not before all values are
-- sealed: an index would hold plaintext till then, and a unique one not refuse a value that is
-- there unsealed.
CREATE FUNCTION cmk_internal.tell_of_indexes(
    "table" pg_catalog.regclass, tenant_column pg_catalog.name, wanted pg_catalog.jsonb,
    made pg_catalog.bool) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
    sealing CONSTANT pg_catalog.text := pg_catalog.format('CALL cmk.seal_table(%L); ', "table");
BEGIN
    FOR item IN
        SELECT w.*,
               pg_catalog.concat(w.statement, ';',
                   CASE WHEN w.comment IS NOT NULL
                        THEN pg_catalog.format(' COMMENT ON INDEX %I.%I IS %L;', n.nspname, w.name, w.comment) END) AS script,
               EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid OPERATOR(pg_catalog.=) w.relation
                          AND a.attname OPERATOR(pg_catalog.=) tenant_column
                          AND a.attnum OPERATOR(pg_catalog.=) ANY (w.keys)) AS has_tenant
          FROM pg_catalog.jsonb_to_recordset(wanted) w (
                   relation pg_catalog.regclass, name pg_catalog.name, constraint_name pg_catalog.name,
                   is_unique pg_catalog.bool, keys pg_catalog.int2[], statement pg_catalog.text, comment pg_catalog.text)
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.relation
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LOOP
        IF item.is_unique AND NOT made THEN
            RAISE WARNING 'until unique index % is made again, duplicates are not refused', pg_catalog.quote_ident(item.name)
                USING HINT = pg_catalog.concat(sealing, item.script);
        ELSIF NOT made THEN
            RAISE NOTICE 'without an index of tokens, searching % reads all of it', item.relation
                USING HINT = pg_catalog.concat(sealing, item.script);
        END IF;
        IF item.constraint_name IS NOT NULL THEN
            RAISE NOTICE 'unique constraint % of % is an index from now on',
                pg_catalog.quote_ident(item.constraint_name), item.relation
                USING HINT = 'ON CONFLICT (COLUMNS) finds it, ON CONFLICT ON CONSTRAINT does not.';
        END IF;
        IF item.is_unique AND NOT item.has_tenant THEN
            RAISE WARNING 'unique index % refuses duplicates of one tenant, and no others, from now on',
                pg_catalog.quote_ident(item.name)
                USING HINT = 'Equal values of two tenants have different tokens.';
        END IF;
    END LOOP;
END
$$;

-- requires:
--   protect_reindex

-- The change of a protected column's type, constraint and trigger, in one transaction: what
-- cmk.protect_column(), cmk.unprotect_column() and cmk.set_column_length() have in common.

CREATE TYPE cmk_internal.column_change AS (
    "table"           pg_catalog.regclass,
    "column"          pg_catalog.name,
    -- The type before; another one now means that somebody was faster.
    type              pg_catalog.oid,
    -- The type afterwards; null if it stays.
    target            pg_catalog.text,
    -- Makes the new values, if the table is rewritten.
    using_expression  pg_catalog.text,
    -- What our constraint says from now on, in place of what it said; null if it stays.
    check_name        pg_catalog.name,
    check_expression  pg_catalog.text,
    check_valid       pg_catalog.bool,
    label             pg_catalog.text,
    -- How values are found, before and from now on; null if by scan. Another one before now means
    -- that somebody was faster.
    former_options    pg_catalog.text,
    options           pg_catalog.text,
    -- The column's part of the trigger's WHEN; null if the trigger is to leave it alone.
    condition         pg_catalog.text,
    -- What cmk_internal.tolerated_uses() says.
    tolerated         pg_catalog.text[]
);

-- The constraints of a table and its children that the column is in, ours among them.
CREATE FUNCTION cmk_internal.checks_of_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    OUT relation pg_catalog.regclass, OUT depth pg_catalog.int4, OUT name pg_catalog.name,
    OUT is_ours pg_catalog.bool, OUT is_local pg_catalog.bool,
    OUT definition pg_catalog.text, OUT comment pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, t.depth, c.conname,
           EXISTS (SELECT FROM cmk.protections() p
                    WHERE p.constraint_oid OPERATOR(pg_catalog.=) c.oid
                      AND p.attnum OPERATOR(pg_catalog.=) a.attnum),
           c.conislocal, pg_catalog.pg_get_constraintdef(c.oid),
           pg_catalog.obj_description(c.oid, 'pg_constraint')
      FROM cmk_internal.table_tree(checks_of_column."table") t
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) t.relation
       AND a.attname OPERATOR(pg_catalog.=) checks_of_column."column"
      JOIN pg_catalog.pg_constraint c
        ON c.conrelid OPERATOR(pg_catalog.=) t.relation
       AND c.contype OPERATOR(pg_catalog.=) 'c'
       AND a.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
     ORDER BY t.depth, t.relation::pg_catalog.oid, c.conname
$$;

-- Takes the lock last: readers who come through a view lock the view first, too. wanted: the
-- indexes that a searchable column is to have and had not, as cmk_internal.wanted_indexes() tells;
-- made: it has them now.
CREATE FUNCTION cmk_internal.change_column(
    change cmk_internal.column_change, OUT wanted pg_catalog.jsonb, OUT made pg_catalog.bool)
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    "table" CONSTANT pg_catalog.regclass := change."table";
    "column" CONSTANT pg_catalog.name := change."column";
    views pg_catalog.regclass[] := '{}';
    as_roles pg_catalog.name[];
    script pg_catalog.text[];
    relations pg_catalog.regclass[];
    lines pg_catalog.text[];
    conditions pg_catalog.jsonb := '{}';
    checks pg_catalog.jsonb := '[]';
    is_empty pg_catalog.bool;
    item pg_catalog.record;
    actions pg_catalog.text[] := '{}';
BEGIN
    wanted := '[]';
    IF 'recreate' OPERATOR(pg_catalog.=) ANY (change.tolerated) THEN
        views := ARRAY(SELECT v.view FROM cmk_internal.views_of_column("table", "column") v);
    END IF;
    IF pg_catalog.cardinality(views) OPERATOR(pg_catalog.>) 0 THEN
        -- A comment locks a view against other changes of it, and nobody else out.
        FOR item IN
            SELECT v.view, pg_catalog.obj_description(v.view, 'pg_class') AS comment FROM pg_catalog.unnest(views) v (view)
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON VIEW %s IS %L', item.view, item.comment);
        END LOOP;
        SELECT pg_catalog.array_agg(s.as_role ORDER BY v.number, s.number),
               pg_catalog.array_agg(s.statement ORDER BY v.number, s.number)
          INTO as_roles, script
          FROM pg_catalog.unnest(views) WITH ORDINALITY v (view, number)
         CROSS JOIN LATERAL cmk_internal.view_script(v.view) WITH ORDINALITY s (as_role, statement, number);
        EXECUTE pg_catalog.format('DROP VIEW %s', pg_catalog.array_to_string(views, ', '));
    END IF;

    EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', "table");
    relations := ARRAY(SELECT t.relation FROM cmk_internal.table_tree("table") t);
    -- Views that were dropped are none, and those that came since are in the way.
    lines := ARRAY(SELECT o.line
                     FROM cmk_internal.column_obstacles("table", "column",
                              CASE WHEN 'recreate' OPERATOR(pg_catalog.=) ANY (change.tolerated)
                                   THEN ARRAY(SELECT k.kind FROM pg_catalog.unnest(change.tolerated) k (kind)
                                               WHERE NOT k.kind OPERATOR(pg_catalog.=) ANY ('{recreate, view, matview}'))
                                   ELSE change.tolerated END) o (line)
                    ORDER BY 1);
    SELECT a.atttypid OPERATOR(pg_catalog.=) change.type AS same_type,
           COALESCE(p.options, '') OPERATOR(pg_catalog.=) COALESCE(change.former_options, '') AS same_options
      INTO item
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    IF item.same_type IS NOT TRUE THEN
        lines := pg_catalog.array_append(lines, 'its type has just been changed by somebody else');
    ELSIF NOT item.same_options THEN
        lines := pg_catalog.array_append(lines, 'its protection has just been changed by somebody else');
    END IF;
    PERFORM cmk_internal.refuse(lines);
    is_empty := NOT EXISTS (SELECT FROM pg_catalog.unnest(relations) t (relation)
                             WHERE pg_catalog.pg_relation_size(t.relation) OPERATOR(pg_catalog.>) 0);
    made := is_empty OR change.using_expression IS NOT NULL;
    IF change.options IS NOT NULL THEN
        SELECT COALESCE(pg_catalog.jsonb_agg(w.*), '[]') INTO wanted
          FROM cmk_internal.wanted_indexes("table", "column", NOT made) w;
        PERFORM cmk_internal.drop_plain_indexes("table", "column");
    END IF;

    -- Partitions have clones of their parent's trigger.
    SELECT pg_catalog.jsonb_object_agg(t.relation::pg_catalog.oid::pg_catalog.text,
               pg_catalog.to_jsonb(ARRAY(
                   SELECT pg_catalog.format('cmk.seals(%L, %s)', s.label, s.tenant)
                     FROM cmk_internal.seal_conditions(t.relation) WITH ORDINALITY s (label, tenant, number)
                    WHERE s.label OPERATOR(pg_catalog.=) change.label IS NOT TRUE
                    ORDER BY s.number)))
      INTO conditions
      FROM pg_catalog.unnest(relations) t (relation);
    FOR item IN
        SELECT g.tgrelid::pg_catalog.regclass AS relation
          FROM pg_catalog.pg_trigger g
         WHERE g.tgrelid OPERATOR(pg_catalog.=) ANY (relations::pg_catalog.oid[])
           AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
           AND g.tgparentid OPERATOR(pg_catalog.=) 0
    LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER "~cmk_seal" ON %s', item.relation);
    END LOOP;

    -- PostgreSQL would check every row again, under the lock, and open each value to do so.
    SELECT COALESCE(pg_catalog.jsonb_agg(c.*), '[]') INTO checks
      FROM cmk_internal.checks_of_column("table", "column") c
     WHERE change.target IS NOT NULL AND (c.is_ours OR change.condition IS NOT NULL)
        OR change.check_expression IS NOT NULL AND c.is_ours;
    FOR item IN SELECT c.* FROM pg_catalog.jsonb_to_recordset(checks) c (relation pg_catalog.regclass, name pg_catalog.name, is_local pg_catalog.bool) LOOP
        IF item.is_local THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', item.relation, item.name);
        END IF;
    END LOOP;

    IF change.target IS NOT NULL THEN
        SELECT pg_catalog.array_append(actions, pg_catalog.format('ALTER COLUMN %I TYPE %s%s%s', "column", change.target,
                   (SELECT pg_catalog.format(' COLLATE %s', l.oid::pg_catalog.regcollation)
                      FROM pg_catalog.pg_collation l WHERE l.oid OPERATOR(pg_catalog.=) a.attcollation),
                   CASE WHEN change.using_expression IS NOT NULL
                        THEN pg_catalog.concat(' USING ', change.using_expression) END))
          INTO actions
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    END IF;
    IF change.check_expression IS NOT NULL THEN
        actions := pg_catalog.array_append(actions, pg_catalog.format('ADD CONSTRAINT %I CHECK (%s)%s',
            change.check_name, change.check_expression,
            CASE WHEN change.check_valid IS NOT TRUE AND NOT is_empty THEN ' NOT VALID' END));
    END IF;
    IF pg_catalog.cardinality(actions) OPERATOR(pg_catalog.>) 0 THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s %s', "table", pg_catalog.array_to_string(actions, ', '));
    END IF;
    IF change.condition IS NULL THEN
        PERFORM cmk_internal.clean_defaults(relations, "column");
    END IF;

    -- Children first: what their parents add is merged with what they have.
    FOR item IN
        SELECT c.* FROM pg_catalog.jsonb_to_recordset(checks) c (
                   relation pg_catalog.regclass, depth pg_catalog.int4, name pg_catalog.name, is_ours pg_catalog.bool,
                   is_local pg_catalog.bool, definition pg_catalog.text)
         WHERE c.is_local AND NOT c.is_ours ORDER BY c.depth DESC
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', item.relation, item.name, item.definition,
            CASE WHEN item.definition OPERATOR(pg_catalog.!~) ' NOT (VALID|ENFORCED)$' THEN ' NOT VALID' END);
    END LOOP;
    FOR item IN
        SELECT c.* FROM pg_catalog.jsonb_to_recordset(checks) c (
                   relation pg_catalog.regclass, name pg_catalog.name, is_ours pg_catalog.bool, comment pg_catalog.text)
         WHERE c.comment IS NOT NULL
           AND (NOT c.is_ours OR c.name OPERATOR(pg_catalog.=) change.check_name)
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', item.name, item.relation, item.comment);
    END LOOP;

    PERFORM cmk_internal.make_seal_triggers(relations, conditions, change.condition);
    IF made THEN
        PERFORM cmk_internal.make_indexes(wanted);
    END IF;
    PERFORM cmk_internal.run_as(as_roles, script);
END
$$;

-- A default went through the casts to our type and back. Set again as it reads, it forgets them.
CREATE FUNCTION cmk_internal.clean_defaults(relations pg_catalog.regclass[], "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT d.adrelid::pg_catalog.regclass AS relation,
               cmk_internal.plain_default(d.adbin, d.adrelid) AS expression
          FROM pg_catalog.pg_attrdef d
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) d.adrelid AND a.attnum OPERATOR(pg_catalog.=) d.adnum
         WHERE d.adrelid OPERATOR(pg_catalog.=) ANY (relations::pg_catalog.oid[])
           AND a.attname OPERATOR(pg_catalog.=) "column"
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %s',
                                  item.relation, "column", item.expression);
    END LOOP;
END
$$;

-- conditions: what the triggers sealed before, without the column that changes.
CREATE FUNCTION cmk_internal.make_seal_triggers(
    relations pg_catalog.regclass[], conditions pg_catalog.jsonb, condition pg_catalog.text)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT c.oid::pg_catalog.regclass AS relation, c.relispartition,
               pg_catalog.array_remove(pg_catalog.array_append(
                   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(
                             conditions OPERATOR(pg_catalog.->) c.oid::pg_catalog.text)), condition), NULL) AS all_conditions
          FROM pg_catalog.unnest(relations) WITH ORDINALITY t (relation, number)
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
         ORDER BY t.number
    LOOP
        CONTINUE WHEN pg_catalog.cardinality(item.all_conditions) OPERATOR(pg_catalog.=) 0;
        -- The first of the relations may be a partition whose parent is not among them.
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                        WHERE g.tgrelid OPERATOR(pg_catalog.=) item.relation
                          AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal') THEN
            EXECUTE cmk_internal.seal_trigger(item.relation, item.all_conditions);
        END IF;
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "~cmk_seal"', item.relation);
    END LOOP;
END
$$;

-- Raises an error that names all obstacles, if there are any. A null is none.
CREATE FUNCTION cmk_internal.refuse(
    obstacles pg_catalog.text[], reason pg_catalog.text DEFAULT 'not_protectable') RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    obstacles := pg_catalog.array_remove(obstacles, NULL);
    IF pg_catalog.cardinality(obstacles) OPERATOR(pg_catalog.>) 0 THEN
        PERFORM cmk.raise(refuse.reason, pg_catalog.format(E'obstacles=%s\n%s',
            pg_catalog.cardinality(obstacles), pg_catalog.array_to_string(obstacles, E'\n')));
    END IF;
END
$$;

-- Makes the change, and waits for its locks no longer than lock_timeout at a time: whoever comes
-- later waits behind us. Between two tries everybody else gets through, for a time by chance, so
-- that two such changes do not meet again and again.
CREATE FUNCTION cmk_internal.change_column_politely(
    change cmk_internal.column_change, lock_timeout pg_catalog.interval, lock_attempts pg_catalog.int4,
    OUT wanted pg_catalog.jsonb, OUT made pg_catalog.bool)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    milliseconds CONSTANT pg_catalog.int8 := LEAST(2147483647, GREATEST(1,
        pg_catalog.date_part('epoch', COALESCE(lock_timeout, '2s')) OPERATOR(pg_catalog.*) 1000));
BEGIN
    FOR attempt IN 1 .. GREATEST(1, COALESCE(lock_attempts, 10)) LOOP
        BEGIN
            PERFORM pg_catalog.set_config('lock_timeout', milliseconds::pg_catalog.text, true);
            SELECT c.* INTO wanted, made FROM cmk_internal.change_column(change) c;
            PERFORM pg_catalog.set_config('lock_timeout', before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt OPERATOR(pg_catalog.>=) COALESCE(lock_attempts, 10) THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(pg_catalog.random() OPERATOR(pg_catalog.*) LEAST(attempt, 5) OPERATOR(pg_catalog.*) 0.4);
    END LOOP;
END
$$;

-- requires:
--   protect_change

-- Protection of a column of a table that may be full, and in use.

-- What values of the column are bound to, for good: no rename changes it. The schema is in it only
-- where two tables would share a label.
CREATE FUNCTION cmk_internal.default_label("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM cmk.protections() p
                              WHERE p.label OPERATOR(pg_catalog.=) short.label
                                AND NOT p.relation OPERATOR(pg_catalog.=) ANY (
                                        SELECT t.relation::pg_catalog.oid FROM cmk_internal.table_tree(default_label."table") t))
                THEN pg_catalog.concat(n.nspname, '.', short.label) ELSE short.label END
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     CROSS JOIN LATERAL pg_catalog.concat(c.relname, '.', default_label."column") AS short (label)
     WHERE c.oid OPERATOR(pg_catalog.=) default_label."table"
$$;

-- Seals something for each tenant that has values in the column: what is refused, is refused before
-- the lock, and what waits for KMS, waits before the lock. False, and nothing done, if there are
-- more tenants than at_most. tenant: an expression over a row that is called "new". resealed: what
-- is sealed will be opened, too.
CREATE FUNCTION cmk_internal.try_tenants(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant pg_catalog.text,
    label pg_catalog.text, options pg_catalog.text, resealed pg_catalog.bool,
    at_most pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants pg_catalog.text[];
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.array_agg(t.tenant) FROM (SELECT DISTINCT %s AS tenant FROM %s AS "new" WHERE "new".%I IS NOT NULL LIMIT %L) t',
        tenant, "table", "column", at_most OPERATOR(pg_catalog.+) 1)
        INTO tenants;
    IF pg_catalog.cardinality(tenants) OPERATOR(pg_catalog.>) at_most THEN
        RETURN false;
    END IF;
    IF resealed THEN
        PERFORM cmk.is_sealed(cmk.reseal(cmk.seal_value(''::pg_catalog.text, t.name, label, NULL::pg_catalog.text), label, options))
           FROM pg_catalog.unnest(tenants) AS t (name);
    ELSE
        PERFORM cmk.is_sealed(cmk.seal_value(''::pg_catalog.text, t.name, label, options))
           FROM pg_catalog.unnest(tenants) AS t (name);
    END IF;
    RETURN true;
END
$$;

-- Protects a column: new values are sealed from now on. Old ones are sealed at once where the table
-- is rewritten; else cmk.seal_table() does it. Of a column that is protected, it changes how values
-- are found, and makes again what was lost.
--
-- rewrite: null means yes for tables of up to 10 MB whose tenants (up to 100) can all be sealed
-- for: that takes no longer than a second or so, and leaves no plaintext in the table's files.
--
-- searchable: null leaves it as it is, and that is not searchable for a new column; true says anew
-- how, by normalization and token_bits.
CREATE FUNCTION cmk.protect_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name,
    tenant_column pg_catalog.name DEFAULT NULL, tenant_expression pg_catalog.text DEFAULT NULL,
    rewrite pg_catalog.bool DEFAULT NULL, views pg_catalog.text DEFAULT 'refuse',
    label pg_catalog.text DEFAULT NULL,
    searchable pg_catalog.bool DEFAULT NULL, normalization pg_catalog.text DEFAULT NULL,
    token_bits pg_catalog.int4 DEFAULT NULL,
    lock_timeout pg_catalog.interval DEFAULT '2s', lock_attempts pg_catalog.int4 DEFAULT 10)
RETURNS pg_catalog.text
-- No compiling while others wait for the lock.
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    small CONSTANT pg_catalog.int8 := 10485760;
    few CONSTANT pg_catalog.int8 := 100;
    obstacles pg_catalog.text[];
    subject pg_catalog.record;
    existing pg_catalog.record;
    options pg_catalog.text;
    -- It is protected, and will be found in another way.
    changes pg_catalog.bool;
    target pg_catalog.text;
    using_expression pg_catalog.text;
    check_name pg_catalog.name;
    check_expression pg_catalog.text;
    condition pg_catalog.text;
    -- The tenant, over the columns of a row; in the constraint; and in the trigger.
    tenant pg_catalog.text;
    tenant_in_check pg_catalog.text := 'NULL';
    tenant_in_trigger pg_catalog.text := 'NULL::pg_catalog.text';
    is_kept pg_catalog.bool := false;
    is_setting pg_catalog.bool := false;
    bytes pg_catalog.int8;
    outcome pg_catalog.record;
    detail pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_null(views, 'views');
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.protect_obstacles(
        "table", "column", tenant_column, tenant_expression, rewrite, views, label,
        searchable, normalization, token_bits) o (line));
    PERFORM cmk_internal.refuse(obstacles);
    IF rewrite IS DISTINCT FROM false THEN
        PERFORM cmk_internal.refuse(ARRAY[cmk_internal.expression_obstacle("table", tenant_expression)]);
    END IF;

    SELECT a.attnum, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           cmk_internal.protecting_type(a.atttypid, a.atttypmod) AS target, cmk_internal.keeps_file(a.atttypid) AS keeps_file
      INTO subject
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    SELECT p.label, c.conname, c.conkey, p.tenant, p.options, p.validated, n.former INTO existing
      FROM cmk.protections() p
      JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) p.constraint_oid
     CROSS JOIN LATERAL cmk_internal.protection_note(c.oid) n
     WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
       AND p.attnum OPERATOR(pg_catalog.=) subject.attnum;
    options := cmk_internal.new_options(existing.options, searchable, normalization, token_bits);
    changes := existing.conname IS NOT NULL
               AND COALESCE(existing.options, '') OPERATOR(pg_catalog.<>) COALESCE(options, '');
    target := CASE WHEN changes THEN pg_catalog.concat('pg_catalog.', subject.type) ELSE subject.target END;
    label := COALESCE(existing.label, label,
                      CASE WHEN subject.target IS NULL THEN cmk_internal.label_in_trigger("table") END,
                      cmk_internal.default_label("table", "column"));
    IF subject.target IS NULL AND existing.conname IS NULL THEN
        PERFORM cmk_internal.refuse(ARRAY[cmk_internal.label_obstacle("table", "column", label)]);
    END IF;

    IF existing.tenant IS NOT NULL THEN
        SELECT a.attname INTO tenant_column
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
           AND a.attnum OPERATOR(pg_catalog.=) ANY (existing.conkey)
           AND a.attnum OPERATOR(pg_catalog.<>) subject.attnum;
        tenant_expression := NULL;
    END IF;
    IF tenant_column IS NOT NULL THEN
        tenant := pg_catalog.format('%I::pg_catalog.text', tenant_column);
        tenant_in_check := tenant;
        tenant_in_trigger := pg_catalog.format('new.%I', tenant_column);
    ELSIF tenant_expression IS NOT NULL THEN
        tenant := pg_catalog.format('(%s)::pg_catalog.text', tenant_expression);
        tenant_in_trigger := pg_catalog.format('(%s)::pg_catalog.text', cmk_internal.row_expression("table", tenant_expression));
    ELSE
        SELECT s.tenant INTO tenant
          FROM cmk_internal.seal_conditions("table") s
         WHERE s.label OPERATOR(pg_catalog.=) existing.label
           AND s.tenant OPERATOR(pg_catalog.<>) 'NULL::text';
        is_kept := FOUND;
        is_setting := NOT is_kept;
        IF is_kept THEN
            tenant_in_trigger := tenant;
        ELSE
            tenant := 'pg_catalog.current_setting(''cmk_encrypt.tenant'')';
        END IF;
    END IF;

    IF options IS NOT NULL AND (changes OR existing.conname IS NULL) THEN
        PERFORM cmk_internal.make_index_keys();
    END IF;
    -- TOAST indexes have a page even in empty tables.
    SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(t.relation)), 0)::pg_catalog.int8 INTO bytes
      FROM cmk_internal.table_tree("table") t
     WHERE pg_catalog.pg_relation_size(t.relation) OPERATOR(pg_catalog.>) 0;
    IF target IS NULL
       OR changes AND rewrite IS NULL AND EXISTS (
              SELECT FROM cmk_internal.common_obstacles("table", "column", views,
                              cmk_internal.tolerated_uses(views, false, existing.options, options))) THEN
        rewrite := false;
    ELSIF changes AND is_kept AND NOT existing.validated THEN
        -- The trigger's expression names the row, and what is not sealed needs its tenant.
        IF rewrite THEN
            PERFORM cmk_internal.refuse('{"rewrite => true needs tenant_expression, as not all values are sealed"}');
        END IF;
        rewrite := false;
    ELSIF is_setting AND COALESCE(pg_catalog.current_setting('cmk_encrypt.tenant', true), '') OPERATOR(pg_catalog.=) '' THEN
        -- Nobody to seal for, which is no matter while nothing is to be sealed.
        IF (rewrite OR NOT changes AND NOT subject.keeps_file) AND NOT (changes AND existing.validated) THEN
            PERFORM cmk.raise('tenant_unset', pg_catalog.concat('column=', label));
        END IF;
        rewrite := rewrite IS TRUE AND changes AND existing.validated;
    ELSIF rewrite IS NULL AND (changes OR subject.keeps_file) THEN
        BEGIN
            rewrite := bytes OPERATOR(pg_catalog.>) 0 AND bytes OPERATOR(pg_catalog.<=) small
                       AND cmk_internal.try_tenants("table", "column", tenant, label, options, changes, few);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RAISE NOTICE 'the table is not rewritten: %', SQLERRM USING DETAIL = detail;
            rewrite := false;
        END;
    ELSIF rewrite OR NOT changes AND NOT subject.keeps_file THEN
        rewrite := true;
        PERFORM cmk_internal.try_tenants("table", "column", tenant, label, options, changes, 9223372036854775806);
    END IF;
    IF changes AND rewrite IS NOT TRUE AND bytes OPERATOR(pg_catalog.>) 0 THEN
        PERFORM cmk_internal.refuse(ARRAY[
            cmk_internal.options_obstacle("table", "column", label, existing.options, options)]);
    END IF;
    IF options IS NOT NULL AND (changes OR existing.conname IS NULL) THEN
        PERFORM cmk_internal.tell_of_few_values("table", "column");
    END IF;

    IF rewrite THEN
        using_expression := cmk_internal.sealing_expression(
            "column", target, CASE WHEN NOT is_kept THEN tenant END, label, options, changes);
    END IF;
    IF changes THEN
        check_name := existing.conname;
    ELSIF existing.conname IS NULL THEN
        check_name := cmk_internal.unused_constraint_name("table", "column");
    END IF;
    IF check_name IS NOT NULL THEN
        check_expression := pg_catalog.format('cmk.sealed(%I, %L, %s, %L)', "column", label,
            CASE WHEN existing.conname IS NULL OR existing.tenant IS NOT NULL THEN tenant_in_check ELSE 'NULL' END, options);
    END IF;
    condition := pg_catalog.format('cmk.seals(%L, %s)', label, tenant_in_trigger);
    SELECT c.* INTO outcome
      FROM cmk_internal.change_column_politely(
        ROW("table", "column", subject.atttypid, CASE WHEN rewrite OR NOT changes THEN target END, using_expression,
            check_name, check_expression, rewrite, label, existing.options, options, condition,
            cmk_internal.tolerated_uses(views, target IS NULL OR changes AND rewrite IS NOT TRUE, existing.options, options)
            )::cmk_internal.column_change,
        lock_timeout, lock_attempts) c;

    IF existing.conname IS NULL OR changes AND rewrite THEN
        PERFORM cmk_internal.write_notes("table", check_name, "column",
                                CASE WHEN changes THEN existing.former
                                     WHEN subject.target IS NOT NULL THEN subject.type END,
                                CASE WHEN outcome.made THEN '[]' ELSE outcome.wanted END);
    END IF;
    PERFORM cmk_internal.audit_column("table", "column", 'protect_column');
    PERFORM cmk_internal.tell_of_protection("table", "column", tenant_column);
    PERFORM cmk_internal.tell_of_indexes("table", tenant_column, outcome.wanted, outcome.made);
    RETURN cmk_internal.protection_sentence("table", "column", label, outcome.wanted, outcome.made,
        bytes OPERATOR(pg_catalog.>) 0 AND subject.target IS NOT NULL);
END
$$;

-- The new value of a column whose table is rewritten. Of a column that was protected before, sealed
-- values get the tokens of these options. No tenant: all values are sealed.
--
-- ALTER TABLE ... USING looks at the wrong column in partitions and children whose columns have
-- other numbers, if the expression says IS NULL, IS TRUE or the like: so this one does not.
CREATE FUNCTION cmk_internal.sealing_expression(
    "column" pg_catalog.name, target pg_catalog.text, tenant pg_catalog.text,
    label pg_catalog.text, options pg_catalog.text, is_protected pg_catalog.bool) RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN sealing_expression.is_protected
                THEN pg_catalog.format('CASE WHEN cmk.is_sealed(%1$I) THEN cmk.reseal(%1$I, %2$L, %3$L) ELSE %4$s END',
                         sealing_expression."column", sealing_expression.label, sealing_expression.options,
                         COALESCE(fresh.value, 'NULL'))
                ELSE fresh.value END
      FROM (SELECT CASE WHEN sealing_expression.tenant IS NOT NULL
                        THEN pg_catalog.format('cmk.seal_value(%1$I::%2$s, %3$s, %4$L, %5$L::pg_catalog.text)',
                                 sealing_expression."column",
                                 CASE WHEN sealing_expression.target OPERATOR(pg_catalog.=) 'pg_catalog.cmk_bytea' THEN 'pg_catalog.bytea'
                                      WHEN sealing_expression.target OPERATOR(pg_catalog.=) 'pg_catalog.cmk_jsonb' THEN 'pg_catalog.jsonb'
                                      ELSE 'pg_catalog.text' END,
                                 sealing_expression.tenant, sealing_expression.label, sealing_expression.options) END) fresh (value)
$$;

-- The same of a tenant's expression, which may say anything.
CREATE FUNCTION cmk_internal.expression_obstacle("table" pg_catalog.regclass, tenant_expression pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'the tenant expression says IS NULL, IS TRUE or the like, which ALTER TABLE gets wrong in partitions and children: use COALESCE, NULLIF or IS DISTINCT FROM, or rewrite => false'
     WHERE (SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 1 FROM cmk_internal.table_tree(expression_obstacle."table"))
       AND cmk_internal.row_expression(expression_obstacle."table", expression_obstacle.tenant_expression)
           OPERATOR(pg_catalog.~) '\mIS (NOT )?(NULL|TRUE|FALSE|UNKNOWN)\M'
$$;

-- How long to sleep after a batch, in times of what the batch took: no more than a thousand.
CREATE FUNCTION cmk_internal.refuse_pause(pause pg_catalog.numeric) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- NaN is greater than any number.
    IF pause OPERATOR(pg_catalog.>) 1000 THEN
        PERFORM cmk.raise('pause');
    END IF;
END
$$;

CREATE FUNCTION cmk_internal.refuse_null(value pg_catalog.text, argument pg_catalog.text) RETURNS pg_catalog.void
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value IS NULL THEN
        PERFORM cmk.raise('null_argument', pg_catalog.concat('argument=', argument));
    END IF;
END
$$;

-- requires:
--   protect

-- The way back.

-- The type that a protected column had before.
CREATE FUNCTION cmk_internal.former_type(type pg_catalog.oid, typmod pg_catalog.int4, former pg_catalog.text)
RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE former_type.type
           WHEN 'pg_catalog.cmk_bytea'::pg_catalog.regtype::pg_catalog.oid THEN 'pg_catalog.bytea'
           WHEN 'pg_catalog.cmk_jsonb'::pg_catalog.regtype::pg_catalog.oid THEN
               CASE WHEN former_type.former OPERATOR(pg_catalog.=) 'json' THEN 'pg_catalog.json' ELSE 'pg_catalog.jsonb' END
           WHEN 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid THEN
               CASE WHEN length.text IS NOT NULL
                    THEN pg_catalog.concat(CASE WHEN former_type.former OPERATOR(pg_catalog.=) 'character' THEN 'pg_catalog.bpchar' ELSE 'pg_catalog.varchar' END, length.text)
                    WHEN former_type.former OPERATOR(pg_catalog.=) 'character varying' THEN 'pg_catalog.varchar'
                    ELSE 'pg_catalog.text' END
           END
      FROM pg_catalog."substring"(pg_catalog.format_type(former_type.type, former_type.typmod), '\(\d+\)') AS length (text)
$$;

CREATE FUNCTION cmk_internal.refuse_unprotected("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM pg_catalog.pg_attribute a
           WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
             AND a.attname OPERATOR(pg_catalog.=) "column"
             AND a.attnum OPERATOR(pg_catalog.>) 0
             AND cmk_internal.is_protected_type(a.atttypid);
    IF NOT FOUND THEN
        PERFORM cmk.raise('not_protected', pg_catalog.format('table=%s column=%I', "table", "column"));
    END IF;
END
$$;

-- Opens every value while it rewrites the table, in one transaction. If one cannot be opened,
-- nothing has happened.
CREATE FUNCTION cmk.unprotect_column(
    "table" pg_catalog.regclass, "column" pg_catalog.name, views pg_catalog.text DEFAULT 'refuse',
    lock_timeout pg_catalog.interval DEFAULT '2s', lock_attempts pg_catalog.int4 DEFAULT 10)
RETURNS pg_catalog.text
-- No compiling while others wait for the lock.
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    obstacles pg_catalog.text[];
    tolerated CONSTANT pg_catalog.text[] := cmk_internal.tolerated_uses(views, false, NULL, NULL);
    subject pg_catalog.record;
    using_expression pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_null(views, 'views');
    PERFORM cmk_internal.refuse_unprotected("table", "column");
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.common_obstacles("table", "column", views, tolerated) o (line));
    PERFORM cmk_internal.refuse(obstacles);
    SELECT a.atttypid, COALESCE(p.label, cmk_internal.label_in_trigger("table")) AS label, p.options,
           cmk_internal.former_type(a.atttypid, a.atttypmod, n.former) AS target
      INTO subject
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
      LEFT JOIN LATERAL cmk_internal.protection_note(p.constraint_oid) n ON true
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    using_expression := pg_catalog.format('%I::%s', "column",
        CASE WHEN subject.target OPERATOR(pg_catalog.=) 'pg_catalog.bytea' THEN subject.target
             WHEN pg_catalog.starts_with(subject.target, 'pg_catalog.json') THEN 'pg_catalog.jsonb'
             ELSE 'pg_catalog.text' END);
    IF subject.target OPERATOR(pg_catalog.=) 'pg_catalog.json' THEN
        using_expression := pg_catalog.concat(using_expression, '::pg_catalog.json');
    END IF;
    PERFORM cmk_internal.change_column_politely(
        ROW("table", "column", subject.atttypid, subject.target, using_expression, NULL, NULL,
            false, subject.label, subject.options, NULL, NULL,
            tolerated)::cmk_internal.column_change,
        lock_timeout, lock_attempts);
    PERFORM cmk_internal.audit_column("table", "column", 'unprotect_column');
    RETURN pg_catalog.format('%I of %s holds plaintext again, in a column of type %s', "column", "table",
        (SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
          WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column"));
END
$$;

-- requires:
--   protect
--   seal_batch

-- Seals the values that were there before protection, and gives those of searchable columns the
-- tokens that they are to have, a few blocks at a time, while the table is in use. Each batch is a
-- transaction of its own, so that it can be stopped at any time, and called again to go on.

-- What of a table, its partitions and its children is to be sealed. tenant, and whether a value is
-- to be sealed, are expressions over a row that is called "new".
CREATE FUNCTION cmk_internal.columns_to_seal(
    "table" pg_catalog.regclass,
    OUT relation pg_catalog.regclass, OUT attnum pg_catalog.int2, OUT "column" pg_catalog.name,
    OUT tenant pg_catalog.text, OUT pending pg_catalog.text, OUT searchable pg_catalog.bool,
    OUT constraint_oid pg_catalog.oid, OUT validated pg_catalog.bool)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.relation, a.attnum, a.attname,
           -- Where the row does not say whose it is, what is sealed stays its tenant's.
           CASE WHEN s.tenant OPERATOR(pg_catalog.<>) 'NULL::text' THEN s.tenant
                WHEN a.atttypid OPERATOR(pg_catalog.=) 'pg_catalog.cmk_text'::pg_catalog.regtype::pg_catalog.oid
                THEN pg_catalog.format('COALESCE(cmk.sealed_for("new".%I), pg_catalog.current_setting(''cmk_encrypt.tenant'', true))', a.attname)
                ELSE 'pg_catalog.current_setting(''cmk_encrypt.tenant'', true)' END,
           cmk_internal.pending_condition(a.atttypid, pg_catalog.format('"new".%I', a.attname), p.label, p.options),
           p.options IS NOT NULL, p.constraint_oid, p.validated
      FROM cmk_internal.table_tree(columns_to_seal."table") t
      JOIN cmk.protections() p ON p.relation OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
      LEFT JOIN cmk_internal.seal_conditions(t.relation) s ON s.label OPERATOR(pg_catalog.=) p.label
     ORDER BY t.depth, t.relation::pg_catalog.oid, a.attnum
$$;

-- Whether the table itself, without its partitions and children, holds such a row. pending: an
-- expression over a row that is called "new". Takes no key.
CREATE FUNCTION cmk_internal.has_pending(relation pg_catalog.regclass, pending pg_catalog.text)
RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_one pg_catalog.bool;
BEGIN
    EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM ONLY %s AS "new" WHERE %s)', relation, pending) INTO found_one;
    RETURN found_one;
END
$$;

-- Whether a column of the table itself is part of a foreign key, on either side.
CREATE FUNCTION cmk_internal.is_in_foreign_key(relation pg_catalog.regclass, attnum pg_catalog.int2) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_constraint c
         WHERE c.contype OPERATOR(pg_catalog.=) 'f'
           AND (c.conrelid OPERATOR(pg_catalog.=) is_in_foreign_key.relation::pg_catalog.oid
                AND is_in_foreign_key.attnum OPERATOR(pg_catalog.=) ANY (c.conkey)
                OR c.confrelid OPERATOR(pg_catalog.=) is_in_foreign_key.relation::pg_catalog.oid
                AND is_in_foreign_key.attnum OPERATOR(pg_catalog.=) ANY (c.confkey)))
$$;

CREATE FUNCTION cmk_internal.seal_obstacles("table" pg_catalog.regclass) RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('you do not own %s', t.relation)
      FROM cmk_internal.table_tree(seal_obstacles."table") t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
     WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
    UNION ALL
    SELECT pg_catalog.format('row-level security hides rows of %s from you: have a superuser call this, or a role with BYPASSRLS', t.relation)
      FROM cmk_internal.table_tree(seal_obstacles."table") t
     WHERE pg_catalog.row_security_active(t.relation::pg_catalog.oid)
    UNION ALL
    SELECT pg_catalog.format('no column of %s is protected', seal_obstacles."table")
     WHERE NOT EXISTS (SELECT FROM cmk_internal.columns_to_seal(seal_obstacles."table"))
    UNION ALL
    SELECT DISTINCT pg_catalog.format('the trigger of %s does not seal column %I: call cmk.protect_column() again', s.relation, s."column")
      FROM cmk_internal.columns_to_seal(seal_obstacles."table") s
     WHERE NOT cmk_internal.is_protected(s.relation, s."column")
    UNION ALL
    -- Sealed values match no unsealed ones, so the two sides would not match meanwhile; and of
    -- values that are sealed for different tenants, never again.
    SELECT DISTINCT pg_catalog.format('column %I of %s is part of a foreign key: drop that, and add it again when all is sealed', s."column", s.relation)
      FROM cmk_internal.columns_to_seal(seal_obstacles."table") s
     WHERE cmk_internal.is_in_foreign_key(s.relation, s.attnum)
       AND cmk_internal.has_pending(s.relation, s.pending)
$$;

-- Notes which files the plaintext is in while it is sealed, unless that is known. They are others
-- after a VACUUM FULL.
CREATE FUNCTION cmk_internal.note_files(relation pg_catalog.regclass, attnum pg_catalog.int2, constraint_oid pg_catalog.oid)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    current_files CONSTANT pg_catalog.text[] := ARRAY(
        SELECT f.file FROM cmk_internal.files_of_column(note_files.relation, note_files.attnum) f);
    statement pg_catalog.text;
BEGIN
    SELECT cmk_internal.protection_comment(note_files.relation, c.conname, n.former, current_files, n.uniques) INTO statement
      FROM pg_catalog.pg_constraint c
     CROSS JOIN LATERAL cmk_internal.protection_note(c.oid) n
     WHERE c.oid OPERATOR(pg_catalog.=) note_files.constraint_oid
       AND n.files OPERATOR(pg_catalog.<>) current_files;
    IF FOUND THEN
        EXECUTE statement;
    END IF;
END
$$;

-- Seals the values of some blocks, tenant by tenant, and goes past those whose values cannot be
-- sealed. unavailable: tenants that need not be tried again; failures: what went wrong, by tenant.
CREATE FUNCTION cmk_internal.seal_by_tenant(
    relation pg_catalog.regclass, attnum pg_catalog.int2, pending pg_catalog.text, tenant pg_catalog.text,
    first_block pg_catalog.int8, last_block pg_catalog.int8, skip pg_catalog.text[],
    OUT sealed pg_catalog.int8, OUT unavailable pg_catalog.text[], OUT failures pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants pg_catalog.text[];
    one pg_catalog.text;
    detail pg_catalog.text;
BEGIN
    sealed := 0;
    unavailable := '{}';
    failures := '{}';
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.array_agg(DISTINCT t.tenant) FROM (SELECT (%s)::pg_catalog.text AS tenant FROM ONLY %s AS "new" WHERE "new".ctid OPERATOR(pg_catalog.>=) %L AND "new".ctid OPERATOR(pg_catalog.<) %L AND %s) t',
        tenant, relation, pg_catalog.format('(%s,0)', first_block), pg_catalog.format('(%s,0)', last_block), pending)
        INTO tenants;
    FOREACH one IN ARRAY COALESCE(tenants, '{}') LOOP
        CONTINUE WHEN pg_catalog.array_position(skip, one) IS NOT NULL;
        BEGIN
            sealed := sealed OPERATOR(pg_catalog.+) cmk.seal_batch(relation, attnum, first_block, last_block,
                skip OPERATOR(pg_catalog.||) pg_catalog.array_remove(tenants, one));
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                RAISE;
            END IF;
            failures := failures OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
                COALESCE(one, ''), pg_catalog.concat_ws(', ', SQLERRM, pg_catalog."substring"(detail, 'reason=\w+')));
            -- A value that breaks a rule of the table is its own affair.
            IF NOT pg_catalog."left"(SQLSTATE, 2) OPERATOR(pg_catalog.=) ANY ('{22, 23}') OR one IS NULL THEN
                unavailable := pg_catalog.array_append(unavailable, one);
            END IF;
        END;
    END LOOP;
END
$$;

-- Whether an error is about a tenant, its key or one of its values, so that others can go on.
CREATE FUNCTION cmk_internal.concerns_tenant(sqlstate_text pg_catalog.text, detail pg_catalog.text)
RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog."left"(concerns_tenant.sqlstate_text, 2) OPERATOR(pg_catalog.=) ANY ('{22, 23}')
        OR concerns_tenant.detail OPERATOR(pg_catalog.~) '^reason='
       AND concerns_tenant.sqlstate_text OPERATOR(pg_catalog.<>) '53200'
$$;

-- A procedure that commits can have no SET clause: so all names are qualified, and helpers do what
-- depends on search_path.
--
-- pause: how long to sleep after a batch, in times of what the batch took.
CREATE PROCEDURE cmk.seal_table(
    "table" pg_catalog.regclass, pause pg_catalog.numeric DEFAULT 2.0, batch_blocks pg_catalog.int4 DEFAULT 64)
LANGUAGE plpgsql
AS $$
DECLARE
    obstacles pg_catalog.text[];
    item pg_catalog.record;
    batch pg_catalog.record;
    first_block pg_catalog.int8;
    blocks pg_catalog.int8;
    sealed pg_catalog.int8;
    total pg_catalog.int8 := 0;
    skip pg_catalog.text[] := '{}';
    failures pg_catalog.jsonb := '{}';
    started pg_catalog.timestamptz;
    told pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    busy pg_catalog.int4 := 0;
    plaintext pg_catalog.bool;
    passes pg_catalog.int4;
    detail pg_catalog.text;
    error pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_pause(pause);
    obstacles := ARRAY(SELECT o.line FROM cmk_internal.seal_obstacles("table") o (line));
    PERFORM cmk_internal.refuse(obstacles);
    PERFORM cmk_internal.tell_of_triggers("table");
    COMMIT;
    FOR item IN SELECT s.* FROM cmk_internal.columns_to_seal("table") s LOOP
        -- The tokens of a searchable column may be old, as after a rotation of an index key.
        CONTINUE WHEN item.validated AND NOT item.searchable;
        plaintext := NOT item.validated AND cmk_internal.has_pending(item.relation,
            pg_catalog.format('NOT cmk.is_sealed("new".%I)', item."column"));
        IF plaintext THEN
            PERFORM cmk_internal.note_files(item.relation, item.attnum, item.constraint_oid);
        END IF;
        COMMIT;
        -- What comes later, the trigger seals. Tokens that a row has, it keeps when somebody
        -- updates the row, which may then be in a block that we went past.
        passes := 0;
        first_block := 0;
        blocks := 0;
        LOOP
            IF first_block OPERATOR(pg_catalog.>=) blocks THEN
                EXIT WHEN passes OPERATOR(pg_catalog.>=) 10
                       OR passes OPERATOR(pg_catalog.>) 0
                          AND (plaintext AND NOT item.searchable
                               OR failures OPERATOR(pg_catalog.<>) '{}'::pg_catalog.jsonb
                               OR NOT cmk_internal.has_pending(item.relation, item.pending));
                passes := passes OPERATOR(pg_catalog.+) 1;
                first_block := 0;
                blocks := pg_catalog.pg_relation_size(item.relation)
                          OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8;
                CONTINUE WHEN blocks OPERATOR(pg_catalog.=) 0;
            END IF;
            started := pg_catalog.clock_timestamp();
            error := NULL;
            BEGIN
                sealed := cmk.seal_batch(item.relation, item.attnum, first_block,
                    first_block OPERATOR(pg_catalog.+) GREATEST(COALESCE(batch_blocks, 64), 1), skip);
            EXCEPTION
                WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
                    busy := busy OPERATOR(pg_catalog.+) 1;
                    IF busy OPERATOR(pg_catalog.>) 10 THEN
                        RAISE;
                    END IF;
                    error := SQLERRM;
                WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
                    IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                        RAISE;
                    END IF;
                    SELECT b.* INTO batch
                      FROM cmk_internal.seal_by_tenant(item.relation, item.attnum, item.pending, item.tenant, first_block,
                               first_block OPERATOR(pg_catalog.+) GREATEST(COALESCE(batch_blocks, 64), 1), skip) b;
                    sealed := batch.sealed;
                    skip := skip OPERATOR(pg_catalog.||) batch.unavailable;
                    failures := batch.failures OPERATOR(pg_catalog.||) failures;
            END;
            IF error IS NULL THEN
                busy := 0;
                IF plaintext AND sealed OPERATOR(pg_catalog.>) 0 THEN
                    PERFORM cmk_internal.note_files(item.relation, item.attnum, item.constraint_oid);
                END IF;
                total := total OPERATOR(pg_catalog.+) sealed;
                first_block := first_block OPERATOR(pg_catalog.+) GREATEST(COALESCE(batch_blocks, 64), 1);
            END IF;
            COMMIT;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told OPERATOR(pg_catalog.>) '5 seconds'::pg_catalog.interval THEN
                told := pg_catalog.clock_timestamp();
                RAISE NOTICE '% of %: % of % blocks, % rows sealed', pg_catalog.quote_ident(item."column"),
                    item.relation, LEAST(first_block, blocks), blocks, total;
            END IF;
            PERFORM pg_catalog.pg_sleep(GREATEST(COALESCE(pause, 2.0), 0)::pg_catalog.float8
                OPERATOR(pg_catalog.*) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started));
        END LOOP;
    END LOOP;
    PERFORM cmk_internal.tell_failures("table", failures);
    COMMIT;
    IF failures OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb THEN
        FOR item IN SELECT s.* FROM cmk_internal.columns_to_seal("table") s WHERE NOT s.validated LOOP
            PERFORM cmk_internal.validate_sealed(item.constraint_oid);
            COMMIT;
        END LOOP;
    END IF;
    IF total OPERATOR(pg_catalog.>) 0 THEN
        EXECUTE pg_catalog.format('ANALYZE %s', "table");
    END IF;
    PERFORM cmk_internal.tell_remnants("table", total);
    COMMIT;
    IF failures OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb THEN
        PERFORM cmk_internal.tell_missing_indexes("table");
    END IF;
    PERFORM cmk_internal.wait_for_writers("table");
    COMMIT;
    PERFORM cmk_internal.go_on_rotating("table", failures);
END
$$;

-- Lets PostgreSQL check every row, without a key and without keeping writers out.
CREATE FUNCTION cmk_internal.validate_sealed(constraint_oid pg_catalog.oid) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    detail pg_catalog.text;
    item pg_catalog.record;
BEGIN
    SELECT c.conname, c.conrelid::pg_catalog.regclass AS relation, a.attname INTO item
      FROM pg_catalog.pg_constraint c
      JOIN cmk.protections() p ON p.constraint_oid OPERATOR(pg_catalog.=) c.oid
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
     WHERE c.oid OPERATOR(pg_catalog.=) validate_sealed.constraint_oid AND NOT c.convalidated;
    IF FOUND THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', item.relation, item.conname);
        PERFORM cmk_internal.audit_column(item.relation, item.attname, 'seal_table');
    END IF;
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE WARNING '% of % is not valid: %', pg_catalog.quote_ident(item.conname), item.relation, SQLERRM USING DETAIL = detail;
END
$$;

-- requires:
--   seal_table

-- What cmk.protect_column() and cmk.seal_table() say, beside doing it.

-- What protection of this column brings with it, and its owner may not expect.
CREATE FUNCTION cmk_internal.tell_of_protection(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant_column pg_catalog.name)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT c.relation, c.name FROM cmk_internal.checks_of_column("table", "column") c WHERE NOT c.is_ours AND c.is_local
    LOOP
        RAISE NOTICE 'constraint % of % opens the value at each write from now on', pg_catalog.quote_ident(item.name), item.relation
            USING HINT = 'It holds for new rows, and is NOT VALID: old rows are not checked.';
    END LOOP;
    IF NOT cmk.is_preloaded() THEN
        RAISE WARNING 'cmk_encrypt is not among the preloaded libraries'
            USING HINT = 'Sessions that load it late cannot read protected columns in their first parallel query; add it to shared_preload_libraries or session_preload_libraries.';
    END IF;
    PERFORM FROM pg_catalog.pg_attribute a
           WHERE a.attrelid OPERATOR(pg_catalog.=) "table"
             AND a.attname OPERATOR(pg_catalog.=) tenant_column
             AND NOT a.attnotnull;
    IF FOUND THEN
        RAISE WARNING 'tenant column % of % may be null', pg_catalog.quote_ident(tenant_column), "table"
            USING HINT = 'A row without a tenant can hold no value; SET NOT NULL tells so earlier.';
    END IF;
END
$$;

-- What cmk.protect_column() says at its end. had_plaintext: in files that are none of the table's
-- any more, if it was rewritten.
CREATE FUNCTION cmk_internal.protection_sentence(
    "table" pg_catalog.regclass, "column" pg_catalog.name, label pg_catalog.text,
    wanted pg_catalog.jsonb, made pg_catalog.bool, had_plaintext pg_catalog.bool) RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM cmk.protections() p
            JOIN pg_catalog.pg_attribute a
              ON a.attrelid OPERATOR(pg_catalog.=) p.relation AND a.attnum OPERATOR(pg_catalog.=) p.attnum
           WHERE p.relation OPERATOR(pg_catalog.=) "table"::pg_catalog.oid
             AND a.attname OPERATOR(pg_catalog.=) "column"
             AND NOT p.validated;
    IF FOUND THEN
        RETURN pg_catalog.concat(
            pg_catalog.format('%I of %s is protected, with the label %L; next, seal its old values: CALL cmk.seal_table(%L)',
                              "column", "table", label, "table"),
            (SELECT E'\nthen make its indexes: ' OPERATOR(pg_catalog.||) pg_catalog.string_agg(w.statement, '; ')
               FROM pg_catalog.jsonb_to_recordset(wanted) w (statement pg_catalog.text)
              WHERE NOT made));
    END IF;
    IF had_plaintext THEN
        RAISE NOTICE 'plaintext may be left in old statistics, in WAL and in backups'
            USING HINT = 'VACUUM FULL pg_catalog.pg_statistic removes it from the statistics.';
    END IF;
    RETURN pg_catalog.format('%I of %s is protected, with the label %L; all its values are sealed', "column", "table", label);
END
$$;

-- Who may not set session_replication_role cannot keep users' triggers from firing.
CREATE FUNCTION cmk_internal.tell_of_triggers("table" pg_catalog.regclass) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    triggers pg_catalog.text;
BEGIN
    -- Bits of tgtype: 1 for each row, 16 UPDATE.
    SELECT pg_catalog.string_agg(pg_catalog.format('%I on %s', g.tgname, t.relation), ', ') INTO triggers
      FROM cmk_internal.columns_to_seal("table") t
      JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.relation
     WHERE (t.searchable OR NOT t.validated) AND NOT g.tgisinternal
       AND g.tgname OPERATOR(pg_catalog.<>) '~cmk_seal'
       AND g.tgenabled OPERATOR(pg_catalog.=) 'O'
       AND g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 16 OPERATOR(pg_catalog.<>) 0;
    IF triggers IS NOT NULL THEN
        PERFORM pg_catalog.set_config('session_replication_role', pg_catalog.current_setting('session_replication_role'), true);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'triggers fire while values are sealed: %', triggers
        USING HINT = 'They do not for superusers, nor for roles that were granted SET ON PARAMETER session_replication_role.';
END
$$;

CREATE FUNCTION cmk_internal.tell_failures("table" pg_catalog.regclass, failures pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN SELECT f.key, f.value FROM pg_catalog.jsonb_each_text(failures) f ORDER BY f.key LIMIT 50 LOOP
        RAISE WARNING 'values of tenant % are not sealed: %',
            CASE WHEN item.key OPERATOR(pg_catalog.=) '' THEN 'NULL' ELSE pg_catalog.to_json(item.key)::pg_catalog.text END, item.value
            USING HINT = 'Once that is mended, CALL cmk.seal_table() again; it goes on where it must.';
    END LOOP;
    IF failures OPERATOR(pg_catalog.<>) '{}'::pg_catalog.jsonb THEN
        RAISE WARNING 'values of % tenants are not sealed%',
            (SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_object_keys(failures)),
            CASE WHEN EXISTS (SELECT FROM cmk_internal.columns_to_seal("table") s WHERE NOT s.validated)
                 THEN ', and the constraint is not validated' ELSE ' with the tokens that they are to have' END;
    END IF;
END
$$;

-- Says where plaintext is left, and how to remove it.
CREATE FUNCTION cmk_internal.tell_remnants("table" pg_catalog.regclass, sealed pg_catalog.int8) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    places pg_catalog.text;
    statements pg_catalog.text;
BEGIN
    SELECT pg_catalog.string_agg(DISTINCT f.object::pg_catalog.text, ', '),
           pg_catalog.string_agg(DISTINCT CASE WHEN f.is_index
               THEN pg_catalog.format('REINDEX INDEX CONCURRENTLY %s;', f.object)
               ELSE pg_catalog.format('VACUUM FULL %s;', f.object) END, ' ')
      INTO places, statements
      FROM cmk_internal.columns_to_seal("table") s
     CROSS JOIN LATERAL cmk_internal.protection_note(s.constraint_oid) n
     CROSS JOIN LATERAL cmk_internal.files_of_column(s.relation, s.attnum) f
     WHERE f.file OPERATOR(pg_catalog.=) ANY (n.files);
    RAISE NOTICE '% rows of % sealed', sealed, "table";
    IF places IS NOT NULL THEN
        RAISE NOTICE 'plaintext may be left in the files of %, in old statistics, in WAL and in backups', places
            USING HINT = pg_catalog.concat(statements, ' VACUUM FULL pg_catalog.pg_statistic;');
    END IF;
END
$$;

-- requires:
--   protect_tell

-- The rotation of index keys, as far as it is done table by table.

-- Indexes of tokens that look-ups of a table lack, once its values have their tokens.
CREATE FUNCTION cmk_internal.tell_missing_indexes("table" pg_catalog.regclass) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT u.statement, s.relation, u.columns
          FROM cmk_internal.columns_to_seal("table") s
         CROSS JOIN LATERAL cmk_internal.missing_uniques(s.relation, s."column") u
         ORDER BY u.statement
    LOOP
        RAISE WARNING 'until the unique index of % on (%) is made again, duplicates are not refused', item.relation, item.columns
            USING HINT = pg_catalog.concat(item.statement, ';');
    END LOOP;
    FOR item IN
        SELECT DISTINCT w.statement, w.relation, s."column"
          FROM cmk_internal.columns_to_seal("table") s
         CROSS JOIN LATERAL cmk_internal.wanted_indexes("table", s."column", true) w
         WHERE s.searchable
           AND NOT EXISTS (SELECT FROM cmk_internal.missing_uniques(w.relation, s."column"))
         ORDER BY w.statement
    LOOP
        RAISE NOTICE 'without an index of tokens, searching % of % reads all of it',
            pg_catalog.quote_ident(item."column"), item.relation
            USING HINT = pg_catalog.concat(item.statement, ';');
    END LOOP;
END
$$;

-- The unique indexes of tokens of searchable columns, and the twin of each: the same index, by the
-- tokens under the next index key, which keeps duplicates out while writers go over to it.
CREATE FUNCTION cmk_internal.unique_token_indexes(
    "table" pg_catalog.regclass, OUT index pg_catalog.regclass, OUT twin pg_catalog.regclass)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
    WITH known AS MATERIALIZED (
        SELECT DISTINCT x.relation, x.index, x.kind, i.indnkeyatts,
               -- The same of an index and its twin, which has none of the first tokens' class.
               pg_catalog.array_replace(i.indclass::pg_catalog.oid[], next_ops.oid, first_ops.oid) AS classes,
               NOT first_ops.oid OPERATOR(pg_catalog.=) ANY (i.indclass::pg_catalog.oid[]) AS is_whole,
               i.indcollation::pg_catalog.text AS collations,
               COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct', 'false') AS nulls_not_distinct,
               pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
               pg_catalog.pg_get_expr(i.indexprs, i.indrelid) AS expressions,
               (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts] AS keys
          FROM cmk_internal.columns_to_seal(unique_token_indexes."table") s
         CROSS JOIN LATERAL cmk_internal.column_indexes(s.relation, s."column") x
          JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
          JOIN pg_catalog.pg_opclass first_ops
            ON first_ops.opcname OPERATOR(pg_catalog.=) 'cmk_token_ops'
           AND first_ops.opcnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
          JOIN pg_catalog.pg_opclass next_ops
            ON next_ops.opcname OPERATOR(pg_catalog.=) 'cmk_token_next_ops'
           AND next_ops.opcnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
         WHERE x.is_unique AND x.is_valid AND NOT x.is_attached)
    SELECT k.index,
           (SELECT pg_catalog.min(t.index::pg_catalog.oid)::pg_catalog.regclass
              FROM known t
             WHERE t.kind OPERATOR(pg_catalog.=) 'next index'
               AND t.relation OPERATOR(pg_catalog.=) k.relation
               AND t.keys OPERATOR(pg_catalog.=) k.keys
               AND t.classes OPERATOR(pg_catalog.=) k.classes
               AND t.collations OPERATOR(pg_catalog.=) k.collations
               AND t.nulls_not_distinct OPERATOR(pg_catalog.=) k.nulls_not_distinct
               AND t.is_whole
               AND COALESCE(t.predicate, '') OPERATOR(pg_catalog.=) COALESCE(k.predicate, '')
               AND COALESCE(t.expressions, '') OPERATOR(pg_catalog.=) COALESCE(k.expressions, ''))
      FROM known k
     WHERE k.kind OPERATOR(pg_catalog.=) 'token index'
$$;

-- Those of all tables that lack their twin.
CREATE FUNCTION cmk_internal.lone_unique_indexes(OUT index pg_catalog.regclass)
RETURNS SETOF pg_catalog.regclass
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT u.index
      FROM (SELECT DISTINCT p.relation FROM cmk.protections() p WHERE p.options IS NOT NULL) searchable (relation)
     CROSS JOIN LATERAL cmk_internal.unique_token_indexes(searchable.relation::pg_catalog.regclass) u
     WHERE u.twin IS NULL
$$;

-- The statement that makes the twin of an index. A name that is too long, or taken, PostgreSQL
-- chooses.
CREATE FUNCTION cmk_internal.twin_statement(index pg_catalog.regclass) RETURNS pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT cmk_internal.token_index(twin_statement.index, NULL,
               CASE WHEN pg_catalog.octet_length(twin.name) OPERATOR(pg_catalog.<) 64
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_class o
                                      WHERE o.relname OPERATOR(pg_catalog.=) twin.name::pg_catalog.name
                                        AND o.relnamespace OPERATOR(pg_catalog.=) c.relnamespace)
                    THEN twin.name END::pg_catalog.name,
               true, true)
      FROM pg_catalog.pg_class c
     CROSS JOIN LATERAL pg_catalog.concat(c.relname, '_next') AS twin (name)
     WHERE c.oid OPERATOR(pg_catalog.=) twin_statement.index::pg_catalog.oid
$$;

-- Waits until the transactions that are writing to a table at this moment have ended, if it has an
-- index by the tokens under a next index key: they may have begun before that key took over. Nobody
-- is kept out.
CREATE FUNCTION cmk_internal.wait_for_writers("table" pg_catalog.regclass) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relations CONSTANT pg_catalog.oid[] := ARRAY(
        SELECT t.relation::pg_catalog.oid FROM cmk_internal.table_tree("table") t);
    writers pg_catalog.text[];
BEGIN
    PERFORM FROM cmk_internal.columns_to_seal("table") s
           CROSS JOIN LATERAL cmk_internal.column_indexes(s.relation, s."column") x
           WHERE x.kind OPERATOR(pg_catalog.=) 'next index';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    LOOP
        SELECT pg_catalog.array_agg(l.virtualtransaction) INTO writers
          FROM pg_catalog.pg_locks l
         WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
           AND l.database OPERATOR(pg_catalog.=) (
                   SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
           AND l.relation OPERATOR(pg_catalog.=) ANY (relations)
           AND l.mode OPERATOR(pg_catalog.=) ANY ('{RowExclusiveLock, ShareRowExclusiveLock, ExclusiveLock, AccessExclusiveLock}')
           AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() IS NOT TRUE
           AND (writers IS NULL OR l.virtualtransaction OPERATOR(pg_catalog.=) ANY (writers));
        EXIT WHEN writers IS NULL;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
END
$$;

-- Calls of cmk.seal_table() for all tables with searchable columns, up to 50.
CREATE FUNCTION cmk_internal.seal_statements() RETURNS pg_catalog.text
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.string_agg(pg_catalog.format('CALL cmk.seal_table(%L);', r.relation), ' ' ORDER BY r.relation)
      FROM (SELECT DISTINCT p.relation::pg_catalog.regclass::pg_catalog.text
              FROM cmk.protections() p
             WHERE p.options IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) p.relation)
             ORDER BY 1 LIMIT 50) r (relation)
$$;

-- What comes next, when the values of a table have the tokens that they are to have: twins of its
-- unique indexes, the end of the rotation if the caller may say so, and the end of the twins.
-- failures: the tenants whose values could not be sealed. They keep nobody else from going on.
CREATE FUNCTION cmk_internal.go_on_rotating("table" pg_catalog.regclass, failures pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rotating CONSTANT pg_catalog.int8 := (SELECT k.rotating FROM cmk.index_key_counts() k);
    again CONSTANT pg_catalog.text := pg_catalog.format('CALL cmk.seal_table(%L);', "table");
    item pg_catalog.record;
    complete pg_catalog.bool := true;
    detail pg_catalog.text;
BEGIN
    PERFORM FROM cmk_internal.columns_to_seal("table") s WHERE s.searchable;
    IF NOT FOUND THEN
        RETURN;
    ELSIF rotating OPERATOR(pg_catalog.=) 0 THEN
        FOR item IN
            SELECT DISTINCT x.index, c.relkind
              FROM cmk_internal.columns_to_seal("table") s
             CROSS JOIN LATERAL cmk_internal.column_indexes(s.relation, s."column") x
              JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.index::pg_catalog.oid
             WHERE x.kind OPERATOR(pg_catalog.=) 'next index' AND NOT x.is_attached
        LOOP
            -- Else equal values, with the tokens of one index key and of both, might be left to an
            -- index that compares the first ones.
            PERFORM FROM cmk_internal.columns_to_seal("table") s
                   WHERE s.searchable AND cmk_internal.has_pending(s.relation, s.pending);
            IF FOUND THEN
                RAISE NOTICE 'not all values have the tokens of the current index keys yet: index % is needed', item.index
                    USING HINT = again;
                RETURN;
            END IF;
            RAISE NOTICE 'no index key rotates any more: index % is not needed', item.index
                USING HINT = pg_catalog.format(
                    CASE item.relkind WHEN 'I' THEN 'DROP INDEX %s;' ELSE 'DROP INDEX CONCURRENTLY %s;' END, item.index);
        END LOOP;
        RETURN;
    END IF;

    FOR item IN SELECT u.index FROM cmk_internal.unique_token_indexes("table") u WHERE u.twin IS NULL LOOP
        complete := false;
        RAISE NOTICE 'while an index key rotates, unique index % needs a twin', item.index
            USING HINT = pg_catalog.concat(cmk_internal.twin_statement(item.index), '; ', again);
    END LOOP;
    IF NOT complete THEN
        RETURN;
    ELSIF NOT cmk_internal.may_rotate('cmk.finish_index_rotation(text)') THEN
        RAISE NOTICE 'the index keys of % tenants rotate', rotating
            USING HINT = pg_catalog.concat(
                'Have a database administrator run SELECT cmk.finish_index_rotation(TENANT), which says what is in the way, then ', again);
        RETURN;
    END IF;
    FOR item IN
        SELECT k.tenant
          FROM cmk.data_key k
         WHERE k.purpose OPERATOR(pg_catalog.=) 'index' AND k.state OPERATOR(pg_catalog.=) 'next'
           AND NOT failures OPERATOR(pg_catalog.?) k.tenant
         ORDER BY k.tenant
    LOOP
        BEGIN
            IF cmk.finish_index_rotation(item.tenant) THEN
                RAISE NOTICE 'the next index key of tenant % is the current one', pg_catalog.to_json(item.tenant)::pg_catalog.text
                    USING HINT = pg_catalog.concat('Tokens under the former one go: ', cmk_internal.seal_statements());
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF NOT cmk_internal.concerns_tenant(SQLSTATE, detail) THEN
                RAISE;
            END IF;
            RAISE NOTICE 'the index key of tenant % still rotates: %', pg_catalog.to_json(item.tenant)::pg_catalog.text, SQLERRM
                USING DETAIL = detail, HINT = cmk_internal.seal_statements();
        END;
    END LOOP;
END
$$;

-- requires:
--   unprotect

-- What is protected in this database, and what is wrong with it: read from the catalogs, so that
-- nothing can get lost.

-- Rows whose value cmk.seal_table() would change, in a table with its partitions and children: it
-- is not sealed, or has not the tokens that it is to have. Reads all of it, and takes no key.
CREATE FUNCTION cmk.unsealed_rows("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS pg_catalog.int8
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    rows pg_catalog.int8;
    pending pg_catalog.text;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_unprotected("table", "column");
    SELECT cmk_internal.pending_condition(a.atttypid, pg_catalog.quote_ident(a.attname), p.label, p.options) INTO pending
      FROM pg_catalog.pg_attribute a
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
     WHERE a.attrelid OPERATOR(pg_catalog.=) "table" AND a.attname OPERATOR(pg_catalog.=) "column";
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s WHERE %s', "table", pending) INTO rows;
    RETURN rows;
END
$$;

-- What is wrong with a protected column of one table, its partitions and children, a line each:
-- the problem, then where it is.
CREATE FUNCTION cmk_internal.column_problems("table" pg_catalog.regclass, "column" pg_catalog.name)
RETURNS SETOF pg_catalog.text
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS MATERIALIZED (
        SELECT t.relation, a.attnum, c.relkind, p.constraint_oid, p.label, p.options, p.validated,
               g.tgenabled, d.adbin, d.adrelid
          FROM cmk_internal.table_tree(column_problems."table") t
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) t.relation
           AND a.attname OPERATOR(pg_catalog.=) column_problems."column"
          LEFT JOIN cmk.protections() p
                 ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
          LEFT JOIN pg_catalog.pg_trigger g
                 ON g.tgrelid OPERATOR(pg_catalog.=) a.attrelid
                AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
                AND g.tgfoid OPERATOR(pg_catalog.=) 'cmk.seal()'::pg_catalog.regprocedure
          LEFT JOIN pg_catalog.pg_attrdef d
                 ON d.adrelid OPERATOR(pg_catalog.=) a.attrelid AND d.adnum OPERATOR(pg_catalog.=) a.attnum),
    index AS MATERIALIZED (
        SELECT x.*
          FROM cmk_internal.column_indexes(column_problems."table", column_problems."column") x)
    SELECT pg_catalog.format('constraint_missing: %s', place.relation)
      FROM place WHERE place.constraint_oid IS NULL
    UNION ALL
    SELECT pg_catalog.format('not_validated: %s', place.relation)
      FROM place WHERE NOT place.validated
    UNION ALL
    SELECT pg_catalog.format('no_index: %s', place.relation)
      FROM place
     WHERE place.options IS NOT NULL AND place.relkind OPERATOR(pg_catalog.=) 'r'
       AND NOT EXISTS (SELECT FROM index x
                        WHERE x.relation OPERATOR(pg_catalog.=) place.relation
                          AND x.kind OPERATOR(pg_catalog.=) 'token index' AND x.is_valid)
    UNION ALL
    -- Asked only where the note says so.
    SELECT pg_catalog.format('unique_index_missing: %s (%s)', place.relation, u.columns)
      FROM place
     CROSS JOIN LATERAL cmk_internal.protection_note(place.constraint_oid) n
     CROSS JOIN LATERAL cmk_internal.missing_uniques(
               CASE WHEN n.uniques OPERATOR(pg_catalog.<>) '{}'::pg_catalog.text[] THEN place.relation END,
               column_problems."column") u
    UNION ALL
    SELECT pg_catalog.format('unique_shortened: %s', x.index)
      FROM place
      JOIN index x ON x.relation OPERATOR(pg_catalog.=) place.relation
     WHERE x.is_unique AND NOT x.is_attached
       AND x.kind OPERATOR(pg_catalog.=) ANY ('{token index, next index}')
       AND place.options OPERATOR(pg_catalog.~) ',bits='
    UNION ALL
    SELECT pg_catalog.format('next_index: %s', x.index)
      FROM index x
     WHERE x.kind OPERATOR(pg_catalog.=) 'next index' AND NOT x.is_attached
       AND (SELECT k.rotating OPERATOR(pg_catalog.=) 0 FROM cmk.index_key_counts() k)
    UNION ALL
    SELECT pg_catalog.format('trigger_missing: %s', place.relation)
      FROM place WHERE place.tgenabled IS NULL
    UNION ALL
    SELECT pg_catalog.format('trigger_not_always: %s', place.relation)
      FROM place WHERE place.tgenabled OPERATOR(pg_catalog.<>) 'A'
    UNION ALL
    SELECT pg_catalog.format('trigger_without_column: %s', place.relation)
      FROM place
     WHERE place.tgenabled IS NOT NULL AND place.label IS NOT NULL
       AND NOT EXISTS (SELECT FROM cmk_internal.seal_conditions(place.relation) s
                        WHERE s.label OPERATOR(pg_catalog.=) place.label)
    UNION ALL
    SELECT pg_catalog.format('plaintext_default: %s', place.relation)
      FROM place
     WHERE pg_catalog.pg_get_expr(place.adbin, place.adrelid) OPERATOR(pg_catalog.~) ''''
    UNION ALL
    SELECT pg_catalog.format(CASE WHEN f.is_index THEN 'plaintext_in_index: %s' ELSE 'remnants: %s' END, f.object)
      FROM place
     CROSS JOIN LATERAL cmk_internal.protection_note(place.constraint_oid) n
     CROSS JOIN LATERAL cmk_internal.files_of_column(place.relation, place.attnum) f
     WHERE f.file OPERATOR(pg_catalog.=) ANY (n.files)
    UNION ALL
    SELECT pg_catalog.format('check_validated: %I on %s', o.conname, place.relation)
      FROM place
      JOIN pg_catalog.pg_constraint o
        ON o.conrelid OPERATOR(pg_catalog.=) place.relation::pg_catalog.oid
       AND o.contype OPERATOR(pg_catalog.=) 'c' AND o.conislocal AND o.convalidated
       AND place.attnum OPERATOR(pg_catalog.=) ANY (o.conkey)
       AND o.oid OPERATOR(pg_catalog.<>) place.constraint_oid
    UNION ALL
    SELECT DISTINCT pg_catalog.format('plaintext_generated: %s.%I', place.relation, g.attname)
      FROM place
      JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) place.relation::pg_catalog.oid
       AND d.refobjsubid OPERATOR(pg_catalog.=) place.attnum
       AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      JOIN pg_catalog.pg_attrdef e ON e.oid OPERATOR(pg_catalog.=) d.objid
      JOIN pg_catalog.pg_attribute g
        ON g.attrelid OPERATOR(pg_catalog.=) e.adrelid AND g.attnum OPERATOR(pg_catalog.=) e.adnum
       AND g.attgenerated OPERATOR(pg_catalog.=) 's'
       AND NOT cmk_internal.is_protected_type(g.atttypid)
    UNION ALL
    SELECT DISTINCT pg_catalog.format('extended_statistics: %s', pg_catalog.format('%I.%I', n.nspname, s.stxname))
      FROM place
      JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid OPERATOR(pg_catalog.=) place.relation
       AND d.refobjsubid OPERATOR(pg_catalog.=) place.attnum
       AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
      JOIN pg_catalog.pg_statistic_ext s ON s.oid OPERATOR(pg_catalog.=) d.objid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.stxnamespace
    UNION ALL
    SELECT pg_catalog.format('materialized_view: %s', v.view)
      FROM cmk_internal.views_of_column(column_problems."table", column_problems."column") v
     WHERE v.kind OPERATOR(pg_catalog.=) 'm'
$$;

-- Every column of our types, in tables that inherit it from no other. Partitions and children are
-- in the problems of the table that they belong to.
CREATE VIEW cmk.protected_columns AS
    SELECT pg_catalog.pg_get_userbyid(c.relowner) AS owner,
           c.oid::pg_catalog.regclass AS "table",
           a.attname AS "column",
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           p.label,
           CASE WHEN p.constraint_oid IS NOT NULL
                THEN COALESCE(p.tenant,
                              CASE WHEN s.tenant OPERATOR(pg_catalog.<>) 'NULL::text' THEN s.tenant END,
                              'current_setting(''cmk_encrypt.tenant'')')
                END AS tenant,
           p.options,
           CASE WHEN g.tgenabled OPERATOR(pg_catalog.=) 'A' THEN 'always'
                WHEN g.tgenabled OPERATOR(pg_catalog.=) 'O' THEN 'origin'
                WHEN g.tgenabled OPERATOR(pg_catalog.=) 'R' THEN 'replica'
                WHEN g.tgenabled OPERATOR(pg_catalog.=) 'D' THEN 'disabled'
                ELSE 'missing' END AS trigger,
           COALESCE(p.validated, false) AS validated,
           ARRAY(SELECT x.problem FROM cmk_internal.column_problems(c.oid, a.attname) x (problem) ORDER BY x.problem) AS problems
      FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_class c
        ON c.oid OPERATOR(pg_catalog.=) a.attrelid
       AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
      LEFT JOIN cmk.protections() p
             ON p.relation OPERATOR(pg_catalog.=) a.attrelid AND p.attnum OPERATOR(pg_catalog.=) a.attnum
      LEFT JOIN LATERAL cmk_internal.seal_conditions(c.oid) s ON s.label OPERATOR(pg_catalog.=) p.label
      LEFT JOIN pg_catalog.pg_trigger g
             ON g.tgrelid OPERATOR(pg_catalog.=) c.oid
            AND g.tgname OPERATOR(pg_catalog.=) '~cmk_seal'
            AND g.tgfoid OPERATOR(pg_catalog.=) 'cmk.seal()'::pg_catalog.regprocedure
     WHERE cmk_internal.is_protected_type(a.atttypid)
       AND a.attnum OPERATOR(pg_catalog.>) 0
       AND a.attinhcount OPERATOR(pg_catalog.=) 0;

-- requires:
--   protect
--   views

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

-- requires:
--   protect_lint
--   protect_keys

-- What is wrong with the registry, with protected columns and with the server's settings. No
-- constraint spans the registry's tables, so that a restore can fill them in any order. detail says
-- what is wrong and what people have to decide; fix is SQL to run, as it stands, once they decided,
-- or null.

-- Monitoring asks every minute, so it reads catalogs, the registry and memory only. deep reads the
-- protected columns of all tables, without a key.
CREATE FUNCTION cmk.check(
    deep pg_catalog.bool DEFAULT false,
    OUT problem pg_catalog.text, OUT tenant pg_catalog.text, OUT detail pg_catalog.text, OUT fix pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
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
    SELECT 'shredded_data_keys', t.tenant,
           pg_catalog.format('the tenant was shredded, and %s wrapped data keys are here again, as after restoring an older cmk.data_key',
               pg_catalog.count(*)),
           pg_catalog.format('SELECT cmk.shred_tenant(%1$L, confirm => %1$L)', t.tenant)
      FROM cmk.tenant t
      JOIN cmk.data_key k ON k.tenant OPERATOR(pg_catalog.=) t.tenant
     WHERE t.state OPERATOR(pg_catalog.=) 'shredded' AND k.wrapped IS NOT NULL
     GROUP BY t.tenant
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
           pg_catalog.format('a grant to role %s, which this server did not have when the grant came, has no effect; to grant it, create the role, then SELECT cmk.grant_access(%L, %L, encrypt => %L, decrypt => %L, bound => %L)',
               a.role, COALESCE(a.tenant, '*'), a.role, a.encrypt, a.decrypt, a.bound),
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
    -- Of its own grants, one for a single tenant may well be meant beside a bound one for all.
    SELECT 'bound_grant_without_effect', a.tenant,
           pg_catalog.format('the grant to role %s is bound to the session''s tenant, and that to role %s for %s, which it has too, is not',
               a.role, o.role, COALESCE(o.tenant, 'every tenant')),
           pg_catalog.format('SELECT cmk.revoke_access(%L, %L)', COALESCE(o.tenant, '*'), o.role)
      FROM cmk.access a
      JOIN pg_catalog.pg_roles r
             ON r.oid OPERATOR(pg_catalog.=) a.role::pg_catalog.oid AND NOT r.rolsuper
      JOIN cmk.access o
             ON NOT o.bound
            AND (o.tenant IS NULL OR o.tenant OPERATOR(pg_catalog.=) a.tenant
                 OR a.tenant IS NULL AND o.role::pg_catalog.oid OPERATOR(pg_catalog.<>) r.oid)
            AND (o.encrypt AND a.encrypt OR o.decrypt AND a.decrypt)
      JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) o.role::pg_catalog.oid
     WHERE a.bound AND pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE')
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
              FROM pg_catalog.unnest('{tenant, data_key, access, home, data_key_use, key_event, reencrypt_job, reencrypt_failure, audit_event, audit_chain}'::pg_catalog.text[]) r (relname)
             CROSS JOIN (VALUES
                ('guard', 'CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard'),
                ('guard_row', 'CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_guard(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER guard_row'),
                ('announce', 'CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON cmk.%1$I FOR EACH ROW EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce'),
                ('announce_truncate', 'CREATE TRIGGER announce_truncate AFTER TRUNCATE ON cmk.%1$I FOR EACH STATEMENT EXECUTE FUNCTION cmk.registry_changed(); ALTER TABLE cmk.%1$I ENABLE ALWAYS TRIGGER announce_truncate')
             ) g (tgname, fix)
             WHERE NOT r.relname OPERATOR(pg_catalog.=) ANY ('{data_key_use, key_event, reencrypt_job, reencrypt_failure, audit_event, audit_chain}')
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
    UNION ALL
    SELECT 'wrapped_by_another_key', k.tenant,
           pg_catalog.format('data key %s was wrapped by %s, but the tenant''s key is %s, which does not unwrap it: cmk.tenant and cmk.data_key come from different backups; restore both from one',
               k.version, k.wrapped_by, t.key_uri),
           NULL
      FROM cmk.data_key k
      JOIN cmk.tenant t ON t.tenant OPERATOR(pg_catalog.=) k.tenant
     WHERE k.wrapped IS NOT NULL AND k.wrapped_by OPERATOR(pg_catalog.<>) t.key_uri
    UNION ALL
    SELECT 'registry_published_in_part', NULL,
           pg_catalog.format('publication %I sends %s, but not %s: a subscriber would have data keys, tenants or grants that do not belong together',
               p.pubname, pg_catalog.string_agg(r.name, ', ') FILTER (WHERE p.tablename IS NOT NULL),
               pg_catalog.string_agg(r.name, ', ') FILTER (WHERE p.tablename IS NULL)),
           pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s', p.pubname,
               pg_catalog.string_agg(r.name, ', ') FILTER (WHERE p.tablename IS NULL))
      FROM (SELECT DISTINCT x.pubname, r.name,
                   CASE WHEN x.tables OPERATOR(pg_catalog.@>) ARRAY[r.name] THEN r.name END AS tablename
              FROM (SELECT pt.pubname,
                           pg_catalog.array_agg(pg_catalog.format('cmk.%I', pt.tablename)) AS tables
                      FROM pg_catalog.pg_publication_tables pt
                     WHERE pt.schemaname OPERATOR(pg_catalog.=) 'cmk'
                       AND pt.tablename OPERATOR(pg_catalog.=) ANY ('{tenant, data_key, access}'::pg_catalog.name[])
                     GROUP BY pt.pubname) x
             CROSS JOIN (VALUES ('cmk.tenant'), ('cmk.data_key'), ('cmk.access')) r (name)) p
     CROSS JOIN LATERAL (SELECT p.name) r
     GROUP BY p.pubname
    HAVING pg_catalog.count(p.tablename) OPERATOR(pg_catalog.<) 3
    UNION ALL
    SELECT known.finding, NULL,
           pg_catalog.format('column %I of table %s: %s; %s', c."column", c."table", found.problem, known.meaning),
           CASE known.problem
                WHEN 'unique_index_missing'
                THEN (SELECT u.statement
                        FROM cmk_internal.table_tree(c."table") t
                       CROSS JOIN LATERAL cmk_internal.missing_uniques(t.relation, c."column") u
                       WHERE found.place OPERATOR(pg_catalog.=) pg_catalog.format('%s (%s)', t.relation, u.columns))
                WHEN 'not_validated' THEN pg_catalog.format(known.fix, c."table")
                ELSE pg_catalog.format(known.fix, found.place, c."column") END
      FROM cmk.protected_columns c
      JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) c."table"
     CROSS JOIN LATERAL (
           SELECT p.problem, pg_catalog.split_part(p.problem, ': ', 1), pg_catalog."substring"(p.problem, ': (.*)$')
             FROM pg_catalog.unnest(c.problems) p (problem)) found (problem, name, place)
      JOIN (VALUES
                ('column_unguarded', 'trigger_not_always',
                 'the sealing trigger is off, or off where rows are replicated, and plaintext is refused instead of sealed',
                 'ALTER TABLE %s ENABLE ALWAYS TRIGGER "~cmk_seal"'),
                ('column_unguarded', 'constraint_missing',
                 'plaintext is refused, or stored as it comes where trigger and constraint are both gone; call cmk.protect_column() again with the same tenant, or drop the table if it is a copy', NULL),
                ('column_unguarded', 'trigger_missing',
                 'plaintext is refused, or stored as it comes where trigger and constraint are both gone; call cmk.protect_column() again with the same tenant, or drop the table if it is a copy', NULL),
                ('column_unguarded', 'trigger_without_column',
                 'plaintext is refused; call cmk.protect_column() again with the same tenant', NULL),
                ('column_unfinished', 'not_validated', 'rows from before the protection may hold plaintext', 'CALL cmk.seal_table(%L)'),
                ('column_unfinished', 'no_index', 'each search reads the whole table', 'CREATE INDEX CONCURRENTLY ON %s (%I pg_catalog.cmk_token_ops)'),
                ('column_unfinished', 'unique_index_missing', 'it was unique before it was protected, and duplicates are not refused', NULL),
                ('column_unfinished', 'remnants', 'the file of the table may hold plaintext from before', 'VACUUM FULL %s'),
                ('column_unfinished', 'plaintext_in_index', 'the index may hold plaintext from before', 'REINDEX INDEX CONCURRENTLY %s'),
                ('column_unfinished', 'plaintext_generated', 'a generated column stores the plaintext: drop it', NULL),
                ('column_unfinished', 'check_validated', 'a constraint opens the values while a dump is restored, which fails without their keys: drop it, and add it NOT VALID', NULL)
           ) known (finding, problem, meaning, fix) ON known.problem OPERATOR(pg_catalog.=) found.name
     -- A temporary copy goes with its session.
     WHERE r.relpersistence OPERATOR(pg_catalog.<>) 't'
    UNION ALL
    SELECT 'monitor_not_running', NULL,
           CASE WHEN s.preloaded
                THEN 'cmk_encrypt.monitor_databases names this database, but no monitor was seen at work; the server log says why: mostly there is no room in max_worker_processes'
                ELSE 'cmk_encrypt.monitor_databases names this database, but the library is not preloaded: add cmk_encrypt to shared_preload_libraries and restart' END,
           NULL
      FROM cmk.server s
     WHERE s.monitor_configured AND NOT s.watched
       -- It takes a moment to start.
       AND (NOT s.preloaded
            OR (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '5 s'::pg_catalog.interval)
               OPERATOR(pg_catalog.>)
               GREATEST(pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_conf_load_time()))
    UNION ALL
    SELECT 'keyring_worker_not_running', NULL,
           'the library is preloaded, but its keyring worker does not run, so that no data key is shared: leave it room in max_worker_processes and restart; the server log says more',
           NULL
      FROM cmk.server s
     WHERE s.preloaded AND NOT s.keyring_worker
       AND (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '5 s'::pg_catalog.interval)
           OPERATOR(pg_catalog.>) pg_catalog.pg_postmaster_start_time()
    UNION ALL
    SELECT 'bound_too_long', CASE WHEN s.cache_ttl OPERATOR(pg_catalog.<=) s.promised_bound THEN t.tenant END,
           pg_catalog.format('values can be opened for %s after a revocation, which is longer than cmk_encrypt.promised_bound: %s',
               pg_catalog.max(t.worst_case),
               CASE WHEN s.cache_ttl OPERATOR(pg_catalog.<=) s.promised_bound
                    THEN 'the 15 minutes that the session of an assumed role can outlive it come on top; shorten cmk_encrypt.cache_ttl, use the key without a role, or promise more'
                    ELSE 'shorten cmk_encrypt.cache_ttl, or promise more' END),
           NULL
      FROM cmk.server s
     CROSS JOIN cmk.status t
     WHERE s.promised_bound IS NOT NULL AND t.worst_case OPERATOR(pg_catalog.>) s.promised_bound
       AND t.tenant_state OPERATOR(pg_catalog.<>) 'shredded'
     GROUP BY s.cache_ttl, s.promised_bound,
              CASE WHEN s.cache_ttl OPERATOR(pg_catalog.<=) s.promised_bound THEN t.tenant END
    UNION ALL
    SELECT 'setting_not_in_force', NULL,
           pg_catalog.format('%s in %s, line %s, is not in force: %s', f.name, f.sourcefile, f.sourceline, f.error),
           NULL
      FROM pg_catalog.pg_file_settings f
     WHERE f.error IS NOT NULL
       AND pg_catalog.starts_with(pg_catalog.lower(f.name), 'cmk_encrypt.')
    UNION ALL
    SELECT 'data_key_lost', NULL,
           pg_catalog.format('%s values or tokens in column %I of table %s need the data key with id %s, which cmk.data_key lacks; restore it from the backup that the table came from: pg_restore --data-only --schema=cmk --table=data_key',
               needed.number, needed.column_name, needed.relation, pg_catalog.encode(needed.dek_id, 'hex')),
           NULL
      FROM cmk_internal.dump_keys('{}') needed
     WHERE "check".deep AND needed.tenant IS NULL
    UNION ALL
    SELECT 'data_key_destroyed', needed.tenant,
           pg_catalog.format('%s values in column %I of table %s need data key %s, which was destroyed: they are lost for good; delete the rows, or restore them and cmk.data_key from a backup',
               needed.number, needed.column_name, needed.relation, needed.version),
           NULL
      FROM cmk_internal.dump_keys('{}') needed
      JOIN cmk.data_key k
        ON k.dek_id OPERATOR(pg_catalog.=) needed.dek_id AND k.purpose OPERATOR(pg_catalog.=) 'values'
     WHERE "check".deep AND needed.state OPERATOR(pg_catalog.=) 'destroyed'
    UNION ALL
    SELECT 'index_key_destroyed', needed.tenant,
           pg_catalog.format('%s values in column %I of table %s have tokens of index key %s, which was destroyed: the values open, and are sealed anew with the tokens that they should have',
               needed.number, needed.column_name, needed.relation, needed.version),
           pg_catalog.format('CALL cmk.seal_table(%L)', needed.relation)
      FROM cmk_internal.dump_keys('{}') needed
      JOIN cmk.data_key k
        ON k.dek_id OPERATOR(pg_catalog.=) needed.dek_id AND k.purpose OPERATOR(pg_catalog.=) 'index'
      JOIN cmk.tenant t ON t.tenant OPERATOR(pg_catalog.=) needed.tenant
     WHERE "check".deep AND needed.state OPERATOR(pg_catalog.=) 'destroyed'
       AND t.state OPERATOR(pg_catalog.<>) 'shredded'
$$;

-- requires:
--   protect_rotation
--   protect_lint
--   protect_keys

-- What the parts are for, as \df+ shows it.
COMMENT ON FUNCTION cmk_internal.change_column(cmk_internal.column_change) IS
    'Changes type, constraint and trigger of a column, in one transaction';
COMMENT ON FUNCTION cmk_internal.change_column_politely(cmk_internal.column_change, pg_catalog.interval, pg_catalog.int4) IS
    'The same, waiting for its locks for a short time only, and again';
COMMENT ON FUNCTION cmk_internal.checks_of_column(pg_catalog.regclass, pg_catalog.name) IS
    'The CHECK constraints that a column is in, of a table and its children';
COMMENT ON FUNCTION cmk_internal.clean_defaults(pg_catalog._regclass, pg_catalog.name) IS
    'Sets defaults again as they read, without casts to our types';
COMMENT ON FUNCTION cmk_internal.clear_grants(pg_catalog.regclass, pg_catalog.bool) IS
    'Revokes what default privileges gave on a view';
COMMENT ON FUNCTION cmk_internal.column_indexes(pg_catalog.regclass, pg_catalog.name) IS
    'The indexes that use a column, and what is to become of them';
COMMENT ON FUNCTION cmk_internal.column_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog._text) IS
    'What forbids to change a columns type, a line each';
COMMENT ON FUNCTION cmk_internal.column_problems(pg_catalog.regclass, pg_catalog.name) IS
    'What is wrong with a protected column, a line each';
COMMENT ON FUNCTION cmk_internal.column_uses(pg_catalog.regclass, pg_catalog.name) IS
    'What uses a column, in a table and its children';
COMMENT ON FUNCTION cmk_internal.columns_to_seal(pg_catalog.regclass) IS
    'The protected columns of a table and its children, and who their tenants are';
COMMENT ON FUNCTION cmk_internal.common_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog._text) IS
    'What forbids to protect or to unprotect a column, in order';
COMMENT ON FUNCTION cmk_internal.concerns_tenant(pg_catalog.text, pg_catalog.text) IS
    'Whether an error is about one tenant, so that others can be sealed';
COMMENT ON FUNCTION cmk_internal.default_label(pg_catalog.regclass, pg_catalog.name) IS
    'The label of a column for which none is given';
COMMENT ON FUNCTION cmk_internal.drop_plain_indexes(pg_catalog.regclass, pg_catalog.name) IS
    'Drops the indexes of plaintext that indexes of tokens take the place of';
COMMENT ON FUNCTION cmk_internal.sealed_values(pg_catalog.oid, pg_catalog.int2) IS
    'Under which data keys the values of a protected column are, with tokens of which index keys';
COMMENT ON FUNCTION cmk_internal.dump_keys(pg_catalog._regclass) IS
    'What cmk.dump_keys_needed() tells';
COMMENT ON FUNCTION cmk_internal.files_of_column(pg_catalog.regclass, pg_catalog.int2) IS
    'The files in which plaintext of a column stays behind';
COMMENT ON FUNCTION cmk_internal.former_type(pg_catalog.oid, pg_catalog.int4, pg_catalog.text) IS
    'The type that a protected column had before';
COMMENT ON FUNCTION cmk_internal.go_on_rotating(pg_catalog.regclass, pg_catalog.jsonb) IS
    'What comes next in the rotation of index keys, once a table is done';
COMMENT ON FUNCTION cmk_internal.has_pending(pg_catalog.regclass, pg_catalog.text) IS
    'Whether a table holds a row of that kind';
COMMENT ON FUNCTION cmk_internal.has_tokens(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'Whether a value of a column has a token';
COMMENT ON FUNCTION cmk_internal.index_key(pg_catalog.oid, pg_catalog.int4, pg_catalog.bool) IS
    'What stands behind a key column in CREATE INDEX';
COMMENT ON FUNCTION cmk_internal.is_protected(pg_catalog.regclass, pg_catalog.name) IS
    'Whether constraint and trigger of a column are in place, in a table and its children';
COMMENT ON FUNCTION cmk_internal.is_protected_type(pg_catalog.oid) IS
    'Whether a type is one of protected columns';
COMMENT ON FUNCTION cmk_internal.keeps_file(pg_catalog.oid) IS
    'Whether values of a type can stay where they are while a column becomes protected';
COMMENT ON FUNCTION cmk_internal.lone_unique_indexes() IS
    'The unique indexes of tokens of all tables that lack a twin under the next index key';
COMMENT ON FUNCTION cmk_internal.make_index_keys() IS
    'Gives each active tenant an index key, if the caller may';
COMMENT ON FUNCTION cmk_internal.make_indexes(pg_catalog.jsonb) IS
    'Makes the indexes that a searchable column is to have';
COMMENT ON FUNCTION cmk_internal.make_seal_triggers(pg_catalog._regclass, pg_catalog.jsonb, pg_catalog.text) IS
    'Makes the sealing triggers of a table and its children';
COMMENT ON FUNCTION cmk_internal.expression_obstacle(pg_catalog.regclass, pg_catalog.text) IS
    'Why a table with partitions or children cannot be rewritten with a tenant expression';
COMMENT ON FUNCTION cmk_internal.index_columns(pg_catalog.regclass) IS
    'The key columns of an index without expression or WHERE';
COMMENT ON FUNCTION cmk_internal.label_in_trigger(pg_catalog.regclass) IS
    'The label of the column whose constraint is gone, as far as the trigger tells';
COMMENT ON FUNCTION cmk_internal.label_obstacle(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'Why a column cannot be protected under a label: its values were sealed under another';
COMMENT ON FUNCTION cmk_internal.missing_uniques(pg_catalog.regclass, pg_catalog.name) IS
    'The unique indexes that went when a column became searchable and were not made again';
COMMENT ON FUNCTION cmk_internal.may_rotate(pg_catalog.text) IS
    'Whether the caller may call a function around the rotation of index keys';
COMMENT ON FUNCTION cmk_internal.new_options(pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'The options that a column is to have';
COMMENT ON FUNCTION cmk_internal.note_files(pg_catalog.regclass, pg_catalog.int2, pg_catalog.oid) IS
    'Notes in which files plaintext may be left';
COMMENT ON FUNCTION cmk_internal.options_obstacle(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'Why the options of a column cannot change while its values stay as they are';
COMMENT ON FUNCTION cmk_internal.pending_condition(pg_catalog.oid, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'The SQL that tells whether a value is to be sealed, or its tokens are to change';
COMMENT ON FUNCTION cmk_internal.plain_default(pg_catalog.pg_node_tree, pg_catalog.oid) IS
    'A default as SQL, without a cast of a literal to our types';
COMMENT ON FUNCTION cmk_internal.protect_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'What forbids to protect a column, a line each';
COMMENT ON FUNCTION cmk_internal.protecting_type(pg_catalog.oid, pg_catalog.int4) IS
    'The type that protects values of a type';
COMMENT ON FUNCTION cmk_internal.protection_comment(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog._text, pg_catalog._text) IS
    'The statement that writes what cmk_internal.protection_note() reads';
COMMENT ON FUNCTION cmk_internal.protection_note(pg_catalog.oid) IS
    'What the comment on our constraint tells: the former type, where plaintext may be left, and what indexes are to be made again';
COMMENT ON FUNCTION cmk_internal.protection_sentence(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool, pg_catalog.bool) IS
    'What cmk.protect_column() says at its end';
COMMENT ON FUNCTION cmk_internal.refuse(pg_catalog._text, pg_catalog.text) IS
    'Raises not_protectable, if there are obstacles';
COMMENT ON FUNCTION cmk_internal.refuse_pause(pg_catalog.numeric) IS
    'Raises pause for one that no batch job can take';
COMMENT ON FUNCTION cmk_internal.refuse_null(pg_catalog.text, pg_catalog.text) IS
    'Raises null_argument, if the value is null';
COMMENT ON FUNCTION cmk_internal.refuse_unprotected(pg_catalog.regclass, pg_catalog.name) IS
    'Raises not_protected, if the column is of none of our types';
COMMENT ON FUNCTION cmk_internal.row_expression(pg_catalog.regclass, pg_catalog.text) IS
    'An expression with "new." before the columns of a row';
COMMENT ON FUNCTION cmk_internal.row_type_holders(pg_catalog.regclass) IS
    'Tables with a column of a tables row type';
COMMENT ON FUNCTION cmk_internal.run_as(pg_catalog._name, pg_catalog._text) IS
    'Runs statements, some as another role';
COMMENT ON FUNCTION cmk_internal.seal_statements() IS
    'The calls of cmk.seal_table() for all tables with searchable columns';
COMMENT ON FUNCTION cmk_internal.search_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'What is wrong with how a column is to be searched';
COMMENT ON FUNCTION cmk_internal.search_options(pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'The options of a constraint that say how a column is searched';
COMMENT ON FUNCTION cmk_internal.seal_by_tenant(pg_catalog.regclass, pg_catalog.int2, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.int8, pg_catalog._text) IS
    'Seals some blocks of a table tenant by tenant, and goes past those that cannot be sealed';
COMMENT ON FUNCTION cmk_internal.seal_conditions(pg_catalog.regclass) IS
    'The labels and tenants in the condition of a sealing trigger';
COMMENT ON FUNCTION cmk_internal.is_in_foreign_key(pg_catalog.regclass, pg_catalog.int2) IS
    'Whether a column of the table itself is part of a foreign key, on either side';
COMMENT ON FUNCTION cmk_internal.seal_obstacles(pg_catalog.regclass) IS
    'What forbids to seal a table, a line each';
COMMENT ON FUNCTION cmk_internal.seal_trigger(pg_catalog.regclass, pg_catalog._text) IS
    'The statement that makes a sealing trigger';
COMMENT ON FUNCTION cmk_internal.sealing_expression(pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
    'The new value of a column whose table is rewritten';
COMMENT ON FUNCTION cmk_internal.table_tree(pg_catalog.regclass) IS
    'A table with its partitions and children';
COMMENT ON FUNCTION cmk_internal.tell_failures(pg_catalog.regclass, pg_catalog.jsonb) IS
    'Warns of tenants whose values are not sealed';
COMMENT ON FUNCTION cmk_internal.tell_missing_indexes(pg_catalog.regclass) IS
    'Tells which indexes of tokens a table lacks';
COMMENT ON FUNCTION cmk_internal.tell_of_few_values(pg_catalog.regclass, pg_catalog.name) IS
    'Warns if a column has few different values';
COMMENT ON FUNCTION cmk_internal.tell_of_indexes(pg_catalog.regclass, pg_catalog.name, pg_catalog.jsonb, pg_catalog.bool) IS
    'Tells what became of the indexes of a column, and what is left to do';
COMMENT ON FUNCTION cmk_internal.tell_of_protection(pg_catalog.regclass, pg_catalog.name, pg_catalog.name) IS
    'Tells what protection of a column brings with it';
COMMENT ON FUNCTION cmk_internal.tell_of_triggers(pg_catalog.regclass) IS
    'Warns of triggers of users that will fire';
COMMENT ON FUNCTION cmk_internal.tell_remnants(pg_catalog.regclass, pg_catalog.int8) IS
    'Tells where plaintext is left, and how to remove it';
COMMENT ON FUNCTION cmk_internal.tenant_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
    'What is wrong with how the tenant of a column is told';
COMMENT ON FUNCTION cmk_internal.token_index(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.bool, pg_catalog.bool) IS
    'The statement that makes an index again, with columns by their tokens';
COMMENT ON FUNCTION cmk_internal.tolerated_uses(pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text) IS
    'The kinds of uses that a change of a column can cope with';
COMMENT ON FUNCTION cmk_internal.try_tenants(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.int8) IS
    'Seals something for each tenant of a table, before anything is locked';
COMMENT ON FUNCTION cmk_internal.twin_statement(pg_catalog.regclass) IS
    'The statement that makes the same index by the tokens under the next index key';
COMMENT ON FUNCTION cmk_internal.unique_token_indexes(pg_catalog.regclass) IS
    'The unique indexes of tokens of a table, and their twins under the next index key';
COMMENT ON FUNCTION cmk_internal.unused_constraint_name(pg_catalog.regclass, pg_catalog.name) IS
    'A name for the constraint of a column';
COMMENT ON FUNCTION cmk_internal.validate_sealed(pg_catalog.oid) IS
    'Validates our constraint, and warns if it does not hold';
COMMENT ON FUNCTION cmk_internal.view_grants(pg_catalog.regclass) IS
    'The statements that grant what is granted on a view';
COMMENT ON FUNCTION cmk_internal.view_obstacles(pg_catalog.regclass, pg_catalog.name) IS
    'Why views on a column cannot be made again without a loss';
COMMENT ON FUNCTION cmk_internal.view_script(pg_catalog.regclass) IS
    'The statements that make a view again';
COMMENT ON FUNCTION cmk_internal.views_of_column(pg_catalog.regclass, pg_catalog.name) IS
    'The views that use a column, in an order in which they can be made';
COMMENT ON FUNCTION cmk_internal.wait_for_writers(pg_catalog.regclass) IS
    'Waits for the transactions that are writing to a table, before its twins of unique indexes go';
COMMENT ON FUNCTION cmk_internal.wanted_indexes(pg_catalog.regclass, pg_catalog.name, pg_catalog.bool) IS
    'The indexes that a searchable column is to have, and has not';
COMMENT ON FUNCTION cmk_internal.write_notes(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.jsonb) IS
    'Comments on the constraint of a column that is protected now';
COMMENT ON TYPE cmk_internal.column_change IS 'What cmk_internal.change_column() does';

-- requires:
--   protect_names
--   verify_audit
--   raise

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

-- requires:
--   protect_names

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

-- requires:
--   audit
--   reencrypt_values

-- How far re-encryptions got: written by runs, and shown.

-- The columns that a session holds the lock of. It is taken by cmk_internal.reencrypt_begin() only,
-- from whoever owns the table.
CREATE FUNCTION cmk_internal.reencrypt_locks(
    OUT relation pg_catalog.oid, OUT attnum pg_catalog.int2, OUT pid pg_catalog.int4)
RETURNS SETOF pg_catalog.record
LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.objid, l.objsubid, l.pid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted
       AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'
       AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
       AND l.database OPERATOR(pg_catalog.=) (
               SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
$$;

-- Rows that failed beyond these are counted only.
CREATE FUNCTION cmk_internal.failures_kept() RETURNS pg_catalog.int4
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 1000 $$;

-- How many values of a column are not under their tenant's newest data key, by the data key's id;
-- the empty id stands for what is no envelope. Reads the table without running SQL of its owner,
-- for functions that run with other rights than the owner's; they alone may call it.
CREATE FUNCTION cmk_internal.outdated_values(relation pg_catalog.oid, attnum pg_catalog.int2) RETURNS pg_catalog.jsonb
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'outdated_values_wrapper';

-- Whether there is such a value of a tenant of this registry; the same rules hold.
CREATE FUNCTION cmk_internal.has_outdated_values(relation pg_catalog.oid, attnum pg_catalog.int2) RETURNS pg_catalog.bool
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'has_outdated_values_wrapper';

-- Whether this is what a run writes down: whoever holds a column's lock may call for it.
CREATE FUNCTION cmk_internal.is_note(state pg_catalog.text, note pg_catalog.jsonb) RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT is_note.state OPERATOR(pg_catalog.=) ANY ('{starting, running, counting, done, incomplete, failed}')
       AND pg_catalog.jsonb_typeof(is_note.note) OPERATOR(pg_catalog.=) 'object'
       AND COALESCE(pg_catalog.jsonb_typeof(is_note.note OPERATOR(pg_catalog.->) 'failures'), 'array') OPERATOR(pg_catalog.=) 'array'
       AND NOT EXISTS (
               SELECT FROM pg_catalog.unnest('{pass, blocks_done, blocks, rows_done, failed_rows}'::pg_catalog.text[]) n (name)
                WHERE (is_note.note OPERATOR(pg_catalog.->>) n.name) OPERATOR(pg_catalog.!~) '^[0-9]{1,18}$'
                   OR n.name OPERATOR(pg_catalog.=) 'pass' AND pg_catalog.length(is_note.note OPERATOR(pg_catalog.->>) n.name) OPERATOR(pg_catalog.>) 9)
       AND NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_array_elements(CASE WHEN pg_catalog.jsonb_typeof(is_note.note OPERATOR(pg_catalog.->) 'failures')
                          OPERATOR(pg_catalog.=) 'array' THEN is_note.note OPERATOR(pg_catalog.->) 'failures' ELSE '[]' END) f (it)
                WHERE pg_catalog.jsonb_typeof(f.it) OPERATOR(pg_catalog.<>) 'object'
                   OR f.it OPERATOR(pg_catalog.->) 'key' IS NULL OR f.it OPERATOR(pg_catalog.->>) 'reason' IS NULL)
$$;

-- Writes down what a run has done so far. SECURITY DEFINER, as owners of tables cannot write the
-- tables of this schema: whoever calls it holds the column's lock, and so owns the table. What is
-- left at the end it counts by itself, from headers, and returns by data key. counting: it is the
-- end, and the run done, if nothing is left; else only the count is returned.
CREATE FUNCTION cmk_internal.reencrypt_note(
    relation pg_catalog.oid, attnum pg_catalog.int2, state pg_catalog.text, note pg_catalog.jsonb)
RETURNS pg_catalog.jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    what_is_left pg_catalog.jsonb;
    place pg_catalog.jsonb;
    has_values pg_catalog.bool;
    tenant_named pg_catalog.text;
BEGIN
    PERFORM FROM cmk_internal.reencrypt_locks() l
           WHERE l.relation OPERATOR(pg_catalog.=) reencrypt_note.relation
             AND l.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
             AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid();
    IF NOT FOUND THEN
        PERFORM cmk.raise('not_owner');
    END IF;
    IF NOT COALESCE(cmk_internal.is_note(state, note), false) THEN
        PERFORM cmk.raise('registry_write');
    END IF;
    SELECT pg_catalog.jsonb_build_object('table', a.attrelid::pg_catalog.regclass::pg_catalog.text, 'column', a.attname)
      INTO place
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid OPERATOR(pg_catalog.=) reencrypt_note.relation AND a.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
       AND NOT a.attisdropped;
    IF state OPERATOR(pg_catalog.=) 'starting' THEN
        -- Anybody owns tables. Only who has values of a tenant of ours makes an event.
        has_values := cmk_internal.has_outdated_values(reencrypt_note.relation, reencrypt_note.attnum);
        DELETE FROM cmk.reencrypt_failure f
         WHERE f.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND f.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) f.relation);
        DELETE FROM cmk.reencrypt_job j
         WHERE j.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND j.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) j.relation);
        INSERT INTO cmk.reencrypt_job (relation, attnum, state, only_tenant, run_by, rows_estimate, is_audited)
        SELECT c.oid, reencrypt_note.attnum, 'running', note OPERATOR(pg_catalog.->>) 'only_tenant', session_user,
               GREATEST(c.reltuples, 0)::pg_catalog.int8, has_values
          FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) reencrypt_note.relation;
        IF has_values THEN
            PERFORM cmk_internal.audit('reencrypt', COALESCE(
                (SELECT t.tenant FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) (note OPERATOR(pg_catalog.->>) 'only_tenant')), '*'),
                NULL, place, '{"state": "running"}');
        END IF;
        RETURN NULL;
    END IF;
    IF state OPERATOR(pg_catalog.=) ANY ('{counting, done, incomplete}') THEN
        what_is_left := cmk_internal.outdated_values(reencrypt_note.relation, reencrypt_note.attnum);
    END IF;
    IF state OPERATOR(pg_catalog.=) 'counting' THEN
        state := 'running';
        IF what_is_left OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb THEN
            state := 'done';
            note := note OPERATOR(pg_catalog.||) '{"failed_rows": 0}';
        END IF;
    END IF;
    -- One row for each key: later passes meet the same rows again.
    DELETE FROM cmk.reencrypt_failure f
     USING pg_catalog.jsonb_to_recordset(COALESCE(note OPERATOR(pg_catalog.->) 'failures', '[]')) n (key pg_catalog.jsonb)
     WHERE f.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND f.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
       AND f.key OPERATOR(pg_catalog.=) n.key;
    INSERT INTO cmk.reencrypt_failure (relation, attnum, key, reason)
    SELECT reencrypt_note.relation, reencrypt_note.attnum, n.key, n.reason
      FROM pg_catalog.jsonb_to_recordset(COALESCE(note OPERATOR(pg_catalog.->) 'failures', '[]')) n (key pg_catalog.jsonb, reason pg_catalog.text)
     LIMIT GREATEST(0, cmk_internal.failures_kept() OPERATOR(pg_catalog.-) (
         SELECT pg_catalog.count(*) FROM cmk.reencrypt_failure f
          WHERE f.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND f.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum));
    UPDATE cmk.reencrypt_job j
       SET state = reencrypt_note.state, updated = pg_catalog.clock_timestamp(),
           left_over = CASE WHEN reencrypt_note.state OPERATOR(pg_catalog.<>) 'running' THEN what_is_left END,
           pass = COALESCE(n.pass, j.pass), blocks_done = COALESCE(n.blocks_done, j.blocks_done), blocks = COALESCE(n.blocks, j.blocks),
           rows_done = COALESCE(n.rows_done, j.rows_done), failed_rows = COALESCE(n.failed_rows, j.failed_rows),
           last_error = COALESCE(n.last_error, j.last_error)
      FROM pg_catalog.jsonb_to_record(note) n (
               pass pg_catalog.int4, blocks_done pg_catalog.int8, blocks pg_catalog.int8, rows_done pg_catalog.int8,
               failed_rows pg_catalog.int8, last_error pg_catalog.text)
     WHERE j.relation OPERATOR(pg_catalog.=) reencrypt_note.relation AND j.attnum OPERATOR(pg_catalog.=) reencrypt_note.attnum
    RETURNING j.is_audited, j.only_tenant INTO has_values, tenant_named;
    IF has_values AND state OPERATOR(pg_catalog.<>) 'running' THEN
        PERFORM cmk_internal.audit('reencrypt', COALESCE(
            (SELECT t.tenant FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) tenant_named), '*'), NULL, place, pg_catalog.jsonb_build_object(
            'state', state, 'left_over', what_is_left, 'rows_done', note OPERATOR(pg_catalog.->) 'rows_done'));
    END IF;
    RETURN what_is_left;
END
$$;

-- Whether a role sees the runs on a table: its owner, and whoever monitors the server.
CREATE FUNCTION cmk_internal.sees_reencryption(relation pg_catalog.oid) RETURNS pg_catalog.bool
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.pg_has_role('pg_monitor', 'USAGE')
        OR EXISTS (SELECT FROM pg_catalog.pg_class c
                    WHERE c.oid OPERATOR(pg_catalog.=) sees_reencryption.relation
                      AND pg_catalog.pg_has_role(c.relowner, 'USAGE'))
$$;

-- The rate and the remaining time are those of the pass that is under way.
CREATE VIEW cmk.reencrypt_progress WITH (security_barrier) AS
    SELECT c.oid::pg_catalog.regclass AS "table", a.attname AS "column",
           CASE WHEN j.state OPERATOR(pg_catalog.=) 'running' AND l.pid IS NULL THEN 'interrupted' ELSE j.state END AS state,
           l.pid, j.only_tenant, j.run_by, j.pass, j.rows_done, j.rows_estimate,
           CASE WHEN j.blocks OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.round(100.0 OPERATOR(pg_catalog.*) j.blocks_done OPERATOR(pg_catalog./) j.blocks, 1) END AS percent,
           CASE WHEN j.updated OPERATOR(pg_catalog.>) j.started
                THEN pg_catalog.round((j.rows_done OPERATOR(pg_catalog./) pg_catalog.date_part('epoch', j.updated OPERATOR(pg_catalog.-) j.started))::pg_catalog.numeric, 1)
           END AS rows_per_second,
           CASE WHEN j.state OPERATOR(pg_catalog.=) 'running' AND l.pid IS NOT NULL AND j.pass OPERATOR(pg_catalog.=) 1 AND j.blocks_done OPERATOR(pg_catalog.>) 0
                THEN j.updated OPERATOR(pg_catalog.+) ((j.updated OPERATOR(pg_catalog.-) j.started)
                     OPERATOR(pg_catalog.*) ((j.blocks OPERATOR(pg_catalog.-) j.blocks_done)::pg_catalog.float8 OPERATOR(pg_catalog./) j.blocks_done))
           END AS eta,
           j.failed_rows,
           CASE WHEN j.left_over IS NOT NULL
                THEN (SELECT COALESCE(pg_catalog.sum(o.value::pg_catalog.int8), 0)::pg_catalog.int8 FROM pg_catalog.jsonb_each_text(j.left_over) o)
           END AS rows_left,
           j.last_error, j.started, j.updated
      FROM cmk.reencrypt_job j
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) j.relation
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) j.attnum AND NOT a.attisdropped
      LEFT JOIN cmk_internal.reencrypt_locks() l
             ON l.relation OPERATOR(pg_catalog.=) j.relation AND l.attnum OPERATOR(pg_catalog.=) j.attnum
     WHERE cmk_internal.sees_reencryption(c.oid);

CREATE VIEW cmk.reencrypt_failures WITH (security_barrier) AS
    SELECT c.oid::pg_catalog.regclass AS "table", a.attname AS "column", f.key, f.reason, f.at
      FROM cmk.reencrypt_failure f
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) f.relation
      JOIN pg_catalog.pg_attribute a
        ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) f.attnum AND NOT a.attisdropped
     WHERE cmk_internal.sees_reencryption(c.oid);

-- requires:
--   reencrypt_values
--   protect

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

-- requires:
--   reencrypt_targets

-- One batch of cmk.reencrypt(): found, and done in one of three ways. Each finds the row as it is
-- when it changes it, so that no newer value is overwritten.
--
-- These have no pinned search_path: the caller's aad is read in the caller's. All else is
-- qualified. enable_seqscan and jit: rows are found by their place, in its order.

-- Up to so many rows behind a place, and before a block, that are to be renewed.
CREATE FUNCTION cmk_internal.reencrypt_find(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, before pg_catalog.int8, skip pg_catalog.text[],
    most pg_catalog.int4, OUT last pg_catalog.tid, OUT rows pg_catalog.int8, OUT bytes pg_catalog.int8)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '1s'
AS $$
BEGIN
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.max(f.at), pg_catalog.count(*), COALESCE(pg_catalog.sum(f.bytes), 0)::pg_catalog.int8
           FROM (SELECT "new".ctid, pg_catalog.pg_column_size("new".%I)::pg_catalog.int8 FROM ONLY %s AS "new"
                  WHERE "new".ctid OPERATOR(pg_catalog.>) %L AND "new".ctid OPERATOR(pg_catalog.<) %L AND %s%s LIMIT %s) f (at, bytes)',
        target."column", target.relation, behind, pg_catalog.format('(%s,0)', before), target.outdated,
        cmk_internal.not_skipped(target, skip), most)
        INTO last, rows, bytes;
END
$$;

-- Tenants whose values cannot be renewed now are not tried again and again. In PL/pgSQL, which
-- keeps what it made of this: it runs several times a batch.
CREATE FUNCTION cmk_internal.not_skipped(target cmk_internal.reencrypt_target, skip pg_catalog.text[]) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_catalog.cardinality(skip) OPERATOR(pg_catalog.=) 0 THEN
        RETURN '';
    END IF;
    RETURN pg_catalog.format(' AND (%1$s OPERATOR(pg_catalog.=) ANY (%2$L::pg_catalog.text[])) IS NOT TRUE', (target).tenant, skip);
END
$$;

-- The fast way: one UPDATE. It waits for rows that others hold, for a moment; a value that cannot
-- be renewed is an error.
CREATE FUNCTION cmk_internal.reencrypt_all(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, last pg_catalog.tid, skip pg_catalog.text[])
RETURNS pg_catalog.int8
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '100ms'
AS $$
DECLARE
    role CONSTANT pg_catalog.text := cmk_internal.leave_code_aside(target);
    done pg_catalog.int8;
BEGIN
    EXECUTE pg_catalog.format(
        'UPDATE ONLY %s AS "new" SET %I = %s
          WHERE "new".ctid OPERATOR(pg_catalog.>) %L AND "new".ctid OPERATOR(pg_catalog.<=) %L AND %s%s',
        target.relation, target."column", target.renewed, behind, last, target.outdated,
        cmk_internal.not_skipped(target, skip));
    GET DIAGNOSTICS done = ROW_COUNT;
    PERFORM pg_catalog.set_config('session_replication_role', role, true) WHERE role IS NOT NULL;
    RETURN done;
END
$$;

-- Has triggers and rules of users stay out of the next UPDATE, if the caller may. Returns how it
-- was before; null if nothing changed.
CREATE FUNCTION cmk_internal.leave_code_aside(target cmk_internal.reencrypt_target) RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('session_replication_role');
BEGIN
    IF NOT (target).has_code OR NOT cmk_internal.may_replicate()
       -- A foreign key is kept by triggers, too.
       OR cmk_internal.is_in_foreign_key((target).relation, (target).attnum) THEN
        RETURN NULL;
    END IF;
    PERFORM pg_catalog.set_config('session_replication_role', 'replica', true);
    RETURN before;
END
$$;

-- The careful way: rows that others hold are left out, and so are those whose value cannot be
-- renewed. problems: of the latter, key and problem.
CREATE FUNCTION cmk_internal.reencrypt_possible(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, last pg_catalog.tid, skip pg_catalog.text[],
    OUT done pg_catalog.int8, OUT problems pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '1s'
AS $$
DECLARE
    role CONSTANT pg_catalog.text := cmk_internal.leave_code_aside(target);
BEGIN
    -- The names of the first part are out of sight of expressions over the row, which may have
    -- columns of any name.
    EXECUTE pg_catalog.format(
        'WITH "cmk found" AS MATERIALIZED (
             SELECT "new".ctid AS "cmk ctid", %1$s AS "cmk key", %2$s AS "cmk problem" FROM ONLY %3$s AS "new"
              WHERE "new".ctid OPERATOR(pg_catalog.>) %4$L AND "new".ctid OPERATOR(pg_catalog.<=) %5$L AND %6$s%7$s
                FOR NO KEY UPDATE OF "new" SKIP LOCKED),
         "cmk done" AS (
             UPDATE ONLY %3$s AS "new" SET %8$I = %9$s
              WHERE "new".ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                    SELECT f."cmk ctid" FROM "cmk found" f WHERE f."cmk problem" IS NULL)) RETURNING 1)
         SELECT (SELECT pg_catalog.count(*) FROM "cmk done"),
                (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(''key'', "cmk key", ''problem'', "cmk problem")), ''[]'')
                   FROM "cmk found" WHERE "cmk problem" IS NOT NULL)',
        target.row_key, target.problem, target.relation, behind, last, target.outdated,
        cmk_internal.not_skipped(target, skip), target."column", target.renewed)
        INTO done, problems;
    PERFORM pg_catalog.set_config('session_replication_role', role, true) WHERE role IS NOT NULL;
END
$$;

-- Row by row, where a rule of the table keeps some from being changed at all.
CREATE FUNCTION cmk_internal.reencrypt_each(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, last pg_catalog.tid, skip pg_catalog.text[],
    OUT done pg_catalog.int8, OUT problems pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET enable_seqscan = off SET jit = off SET row_security = off SET lock_timeout = '100ms'
AS $$
DECLARE
    item pg_catalog.record;
    changed pg_catalog.int8;
    detail pg_catalog.text;
    constraint_name pg_catalog.text;
    role CONSTANT pg_catalog.text := cmk_internal.leave_code_aside(target);
BEGIN
    done := 0;
    problems := '[]';
    FOR item IN EXECUTE pg_catalog.format(
        'SELECT "new".ctid AS at, %s AS key, %s AS problem FROM ONLY %s AS "new"
          WHERE "new".ctid OPERATOR(pg_catalog.>) %L AND "new".ctid OPERATOR(pg_catalog.<=) %L AND %s%s',
        target.row_key, target.problem, target.relation, behind, last, target.outdated,
        cmk_internal.not_skipped(target, skip))
    LOOP
        IF item.problem IS NOT NULL THEN
            problems := problems OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('key', item.key, 'problem', item.problem);
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE pg_catalog.format(
                'UPDATE ONLY %s AS "new" SET %I = %s WHERE "new".ctid OPERATOR(pg_catalog.=) %L AND %s',
                target.relation, target."column", target.renewed, item.at, target.outdated);
            GET DIAGNOSTICS changed = ROW_COUNT;
            done := done OPERATOR(pg_catalog.+) changed;
        EXCEPTION
            WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
                NULL;
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, constraint_name = CONSTRAINT_NAME;
                IF NOT cmk_internal.concerns_row(SQLSTATE, detail) THEN
                    RAISE;
                END IF;
                -- Not the message: it may hold what is in the row.
                problems := problems OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('key', item.key, 'problem',
                    COALESCE(pg_catalog."substring"(detail, '^reason=(\w+)'), pg_catalog.concat_ws(' ',
                        pg_catalog.concat('sqlstate=', SQLSTATE),
                        CASE WHEN constraint_name OPERATOR(pg_catalog.<>) '' THEN pg_catalog.concat('constraint=', constraint_name) END)));
        END;
    END LOOP;
    PERFORM pg_catalog.set_config('session_replication_role', role, true) WHERE role IS NOT NULL;
END
$$;

-- Whether an error may be about single rows, so that others can go on: about their data, a
-- constraint, a key or a trigger of users.
CREATE FUNCTION cmk_internal.concerns_row(sqlstate_text pg_catalog.text, detail pg_catalog.text) RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog."left"(concerns_row.sqlstate_text, 2) OPERATOR(pg_catalog.=) ANY ('{09, 21, 22, 23, 27, 38, 39, 44, P0}')
        OR cmk_internal.concerns_tenant(concerns_row.sqlstate_text, concerns_row.detail)
$$;

-- requires:
--   reencrypt_batch
--   reencrypt_jobs

-- cmk.reencrypt(): values that are under older data keys of their tenants are sealed under the
-- newest, a batch at a time, while the table is in use. Each batch is a transaction of its own.
--
-- Rows are found by their place in the table: in any table, without a key, and without reading
-- blocks at random. Where somebody else updates a row meanwhile it goes to another place, perhaps
-- one that was passed; so the table is gone through again until nothing is left.

-- Tries one batch the fast way or, careful, the slower ones: up to so many rows behind a place, and
-- before a block. last: its end; null if there is nothing to do. outcome: done; busy if others hold
-- what it takes; failed with the error's fields. failures: key and reason of rows that cannot be
-- done; unavailable: tenants of which none can.
--
-- full_blocks: in how many blocks the last batch found its rows. Where so many are to be renewed
-- that each block is full of them, they are not looked for first: the next blocks are a batch. Null
-- where they are looked for.
CREATE FUNCTION cmk_internal.reencrypt_batch(
    target cmk_internal.reencrypt_target, behind pg_catalog.tid, before pg_catalog.int8, most pg_catalog.int4,
    skip pg_catalog.text[], INOUT careful pg_catalog.bool, INOUT full_blocks pg_catalog.int8,
    OUT last pg_catalog.tid, OUT outcome pg_catalog.text,
    OUT rows pg_catalog.int8, OUT failures pg_catalog.jsonb, OUT unavailable pg_catalog.text[], OUT error pg_catalog.jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
    -- A batch of long values has fewer rows.
    most_bytes CONSTANT pg_catalog.int8 := 16777216;
    -- Fewer blocks would hold many rows more, or less, than a batch.
    fewest_full_blocks CONSTANT pg_catalog.int8 := 8;
    first_block CONSTANT pg_catalog.int8 := (behind::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8;
    looks_first pg_catalog.bool;
    found_rows pg_catalog.record;
    problems pg_catalog.jsonb := '[]';
    detail pg_catalog.text;
    hint pg_catalog.text;
    is_about_rows pg_catalog.bool := false;
BEGIN
    outcome := 'done';
    rows := 0;
    failures := '[]';
    unavailable := '{}';
    looks_first := careful OR cmk_internal.has_values_elsewhere(target.relation);
    IF full_blocks IS NOT NULL AND NOT looks_first THEN
        BEGIN
            last := pg_catalog.format('(%s,0)', LEAST(before, first_block OPERATOR(pg_catalog.+) full_blocks));
            rows := cmk_internal.reencrypt_all(target, behind, last, skip);
            IF rows OPERATOR(pg_catalog.<) (most OPERATOR(pg_catalog./) 2) THEN
                full_blocks := NULL;
            END IF;
            RETURN;
        EXCEPTION WHEN OTHERS THEN
            -- Below this is tried again, and told; what others hold, without waiting for it.
            full_blocks := NULL;
            rows := 0;
            careful := SQLSTATE OPERATOR(pg_catalog.=) ANY ('{40001, 40P01, 55P03}');
        END;
    END IF;
    BEGIN
        SELECT f.* INTO found_rows FROM cmk_internal.reencrypt_find(target, behind, before, skip, most) f;
        IF found_rows.bytes OPERATOR(pg_catalog.>) most_bytes AND found_rows.rows OPERATOR(pg_catalog.>) 1 THEN
            SELECT f.* INTO found_rows
              FROM cmk_internal.reencrypt_find(target, behind, before, skip,
                       GREATEST(1, found_rows.rows OPERATOR(pg_catalog.*) most_bytes OPERATOR(pg_catalog./) found_rows.bytes)::pg_catalog.int4) f;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        outcome := CASE WHEN SQLSTATE OPERATOR(pg_catalog.=) '55P03' THEN 'busy' ELSE 'failed' END;
        error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
        RETURN;
    END;
    last := found_rows.last;
    IF last IS NULL THEN
        full_blocks := NULL;
        RETURN;
    END IF;
    full_blocks := (last::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8 OPERATOR(pg_catalog.-) first_block;
    IF looks_first OR found_rows.rows OPERATOR(pg_catalog.<) most OR full_blocks OPERATOR(pg_catalog.<) fewest_full_blocks THEN
        full_blocks := NULL;
    END IF;
    IF NOT careful THEN
        BEGIN
            rows := cmk_internal.reencrypt_all(target, behind, last, skip);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            careful := true;
            IF NOT SQLSTATE OPERATOR(pg_catalog.=) ANY ('{40001, 40P01, 55P03}')
               AND NOT cmk_internal.concerns_row(SQLSTATE, detail) THEN
                outcome := 'failed';
                error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
            END IF;
        END;
    END IF;
    IF careful AND outcome OPERATOR(pg_catalog.=) 'done' THEN
        BEGIN
            SELECT p.done, p.problems INTO rows, problems
              FROM cmk_internal.reencrypt_possible(target, behind, last, skip) p;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            is_about_rows := cmk_internal.concerns_row(SQLSTATE, detail);
            IF SQLSTATE OPERATOR(pg_catalog.=) ANY ('{40001, 40P01, 55P03}') THEN
                outcome := 'busy';
            ELSIF NOT is_about_rows THEN
                outcome := 'failed';
            END IF;
            error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
        END;
    END IF;
    IF is_about_rows THEN
        BEGIN
            SELECT p.done, p.problems INTO rows, problems
              FROM cmk_internal.reencrypt_each(target, behind, last, skip) p;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            outcome := 'failed';
            error := pg_catalog.jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM, 'detail', detail, 'hint', hint);
        END;
    END IF;
    -- A second line names a tenant, of whom nothing more is tried.
    SELECT COALESCE(pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_object(
               'key', CASE WHEN p.tenant OPERATOR(pg_catalog.=) '' THEN p.key ELSE pg_catalog.jsonb_build_object('tenant', p.tenant) END,
               'reason', p.reason, 'is_row', p.tenant OPERATOR(pg_catalog.=) '')), '[]'),
           COALESCE(pg_catalog.array_agg(DISTINCT p.tenant) FILTER (WHERE p.tenant OPERATOR(pg_catalog.<>) ''), '{}')
      INTO failures, unavailable
      FROM (SELECT f.key, pg_catalog.split_part(f.problem, E'\n', 1), pg_catalog.split_part(f.problem, E'\n', 2)
              FROM pg_catalog.jsonb_to_recordset(problems) f (key pg_catalog.jsonb, problem pg_catalog.text)) p (key, reason, tenant);
    IF failures OPERATOR(pg_catalog.=) '[]'::pg_catalog.jsonb AND outcome OPERATOR(pg_catalog.=) 'done' AND NOT is_about_rows THEN
        careful := false;
    END IF;
END
$$;

-- Whether a table has values outside of its blocks. What blocks hold is no bound then on how much a
-- batch of them is.
CREATE FUNCTION cmk_internal.has_values_elsewhere(relation pg_catalog.regclass) RETURNS pg_catalog.bool
LANGUAGE plpgsql VOLATILE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT c.reltoastrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
                   AND pg_catalog.pg_relation_size(c.reltoastrelid) OPERATOR(pg_catalog.>) 0
              FROM pg_catalog.pg_class c
             WHERE c.oid OPERATOR(pg_catalog.=) has_values_elsewhere.relation::pg_catalog.oid);
END
$$;

-- How many rows are to be renewed still, but for tenants that are skipped.
CREATE FUNCTION cmk_internal.count_outdated(target cmk_internal.reencrypt_target, skip pg_catalog.text[]) RETURNS pg_catalog.int8
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET jit = off SET row_security = off
AS $$
DECLARE
    number pg_catalog.int8;
BEGIN
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM ONLY %s AS "new" WHERE %s%s',
        target.relation, target.outdated, cmk_internal.not_skipped(target, skip)) INTO number;
    RETURN number;
END
$$;

-- What a run would do: values that are to be renewed, and why some cannot be.
CREATE FUNCTION cmk_internal.tell_dry_run(targets cmk_internal.reencrypt_target[]) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET jit = off SET row_security = off
AS $$
DECLARE
    target cmk_internal.reencrypt_target;
    item pg_catalog.record;
BEGIN
    FOREACH target IN ARRAY targets LOOP
        FOR item IN EXECUTE pg_catalog.format(
            'SELECT pg_catalog.split_part(o.problem, E''\n'', 1) AS reason, pg_catalog.count(*) AS number
               FROM (SELECT %s FROM ONLY %s AS "new" WHERE %s) o (problem)
              GROUP BY 1 ORDER BY 1 NULLS FIRST', target.problem, target.relation, target.outdated)
        LOOP
            IF item.reason IS NULL THEN
                RAISE NOTICE '% of %: % values are to be re-encrypted', pg_catalog.quote_ident(target."column"), target.relation, item.number;
            ELSE
                RAISE WARNING '% of %: % values cannot be re-encrypted, reason=%', pg_catalog.quote_ident(target."column"),
                    target.relation, item.number, item.reason;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The end of a run on one table. left_over: what cmk_internal.reencrypt_note() returned.
CREATE FUNCTION cmk_internal.tell_reencrypted(
    target cmk_internal.reencrypt_target, total pg_catalog.int8, failed pg_catalog.int8, left_over pg_catalog.jsonb)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item pg_catalog.record;
BEGIN
    RAISE NOTICE '% of %: % values re-encrypted', pg_catalog.quote_ident((target)."column"), (target).relation, total;
    FOR item IN
        SELECT o.key AS id, o.value AS number, NULLIF(pg_catalog.split_part(f.facts, E'\n', 3), '') AS tenant,
               pg_catalog.split_part(f.facts, E'\n', 1) AS version
          FROM pg_catalog.jsonb_each_text(left_over) o
         CROSS JOIN LATERAL cmk_internal.data_key_facts(pg_catalog.decode(o.key, 'hex')) f (facts)
         ORDER BY 3, 4, 1 LIMIT 50
    LOOP
        RAISE WARNING '% of %: % values are %', pg_catalog.quote_ident((target)."column"), (target).relation, item.number,
            CASE WHEN item.id OPERATOR(pg_catalog.=) '' THEN 'no envelopes of cmk_encrypt()'
                 WHEN item.tenant IS NULL THEN pg_catalog.format('under data key %s, which is not known or not yours', item.id)
                 ELSE pg_catalog.format('under version %s of tenant %s still', item.version, pg_catalog.to_json(item.tenant)) END
            USING HINT = 'cmk.reencrypt_failures lists rows that could not be done, and why. Others were held by somebody else: CALL cmk.reencrypt() again.';
    END LOOP;
END
$$;

-- A procedure that commits can have no SET clause: so all names are qualified, and helpers do what
-- depends on search_path.
--
-- pause: how long to sleep after a batch, in times of what the batch took. The time that it waited
-- for a processor is left out: while others keep the processors busy, they slow a batch down.
CREATE PROCEDURE cmk.reencrypt(
    "table" pg_catalog.regclass, "column" pg_catalog.name, tenant_column pg_catalog.name DEFAULT NULL,
    aad pg_catalog.text DEFAULT NULL, only_tenant pg_catalog.text DEFAULT NULL, batch pg_catalog.int4 DEFAULT 2000,
    pause pg_catalog.numeric DEFAULT 1.2, dry_run pg_catalog.bool DEFAULT false)
LANGUAGE plpgsql
AS $$
DECLARE
    -- Blocks that are looked through at a time where nothing is to be done.
    window_blocks CONSTANT pg_catalog.int8 := 16384;
    -- So often the table is gone through without a row that gets done, and all in all.
    most_stalls CONSTANT pg_catalog.int4 := 5;
    most_passes CONSTANT pg_catalog.int4 := 100;
    targets cmk_internal.reencrypt_target[];
    target cmk_internal.reencrypt_target;
    made pg_catalog.record;
    behind pg_catalog.tid;
    block pg_catalog.int8;
    blocks pg_catalog.int8;
    pass pg_catalog.int4;
    stalls pg_catalog.int4;
    total pg_catalog.int8;
    done_in_pass pg_catalog.int8;
    failed pg_catalog.int8;
    failures pg_catalog.jsonb;
    skip pg_catalog.text[];
    careful pg_catalog.bool;
    full_blocks pg_catalog.int8;
    is_over pg_catalog.bool;
    busy pg_catalog.int4;
    still pg_catalog.int8;
    started pg_catalog.timestamptz;
    waited pg_catalog.float8;
    noted pg_catalog.timestamptz;
    told pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    left_over pg_catalog.jsonb;
BEGIN
    PERFORM cmk_internal.refuse_null("table"::pg_catalog.text, 'table');
    PERFORM cmk_internal.refuse_null("column"::pg_catalog.text, 'column');
    PERFORM cmk_internal.refuse_pause(pause);
    PERFORM cmk_internal.refuse(ARRAY(
        SELECT o.line FROM cmk_internal.reencrypt_obstacles("table", "column", tenant_column, aad) o (line)), 'not_reencryptable');
    PERFORM cmk_internal.refuse(ARRAY[cmk_internal.aad_obstacle("table", aad)], 'not_reencryptable');
    targets := ARRAY(
        SELECT t FROM cmk_internal.reencrypt_targets("table", "column", tenant_column, aad, only_tenant) t);
    IF dry_run THEN
        PERFORM cmk_internal.tell_dry_run(targets);
        RETURN;
    END IF;
    FOREACH target IN ARRAY targets LOOP
        PERFORM cmk_internal.reencrypt_begin(target.relation, target.attnum);
        IF target.has_code AND cmk_internal.is_in_foreign_key(target.relation, target.attnum) THEN
            RAISE WARNING 'triggers of % fire while values are re-encrypted', target.relation
                USING HINT = 'The column is part of a foreign key, which PostgreSQL keeps by triggers, too.';
        ELSIF target.has_code AND NOT cmk_internal.may_replicate() THEN
            RAISE WARNING 'triggers of % fire while values are re-encrypted', target.relation
                USING HINT = 'They do not for superusers, nor for roles that were granted SET ON PARAMETER session_replication_role.';
        END IF;
    END LOOP;
    COMMIT;
    FOREACH target IN ARRAY targets LOOP
        PERFORM cmk_internal.reencrypt_note(target.relation, target.attnum, 'starting', pg_catalog.jsonb_build_object('only_tenant', only_tenant));
        COMMIT;
        pass := 0;
        stalls := 0;
        total := 0;
        block := 0;
        blocks := 0;
        busy := 0;
        failed := 0;
        done_in_pass := 0;
        skip := '{}';
        failures := '[]';
        careful := false;
        full_blocks := NULL;
        is_over := false;
        behind := '(0,0)';
        noted := pg_catalog.clock_timestamp();
        LOOP
            IF block OPERATOR(pg_catalog.>=) blocks THEN
                IF pass OPERATOR(pg_catalog.>) 0 THEN
                    IF only_tenant IS NULL AND skip OPERATOR(pg_catalog.=) '{}'::pg_catalog.text[] THEN
                        -- If nothing is left, that is the end, and written down.
                        left_over := cmk_internal.reencrypt_note(target.relation, target.attnum, 'counting', pg_catalog.jsonb_build_object(
                            'pass', pass, 'blocks_done', block, 'blocks', blocks, 'rows_done', total, 'failed_rows', failed, 'failures', failures));
                        failures := '[]';
                        is_over := left_over OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb;
                        SELECT COALESCE(pg_catalog.sum(o.value::pg_catalog.int8), 0)::pg_catalog.int8 INTO still
                          FROM pg_catalog.jsonb_each_text(left_over) o;
                    ELSE
                        still := cmk_internal.count_outdated(target, skip);
                    END IF;
                    stalls := CASE WHEN done_in_pass OPERATOR(pg_catalog.>) 0 THEN 0 ELSE stalls OPERATOR(pg_catalog.+) 1 END;
                    EXIT WHEN still OPERATOR(pg_catalog.<=) failed
                           OR stalls OPERATOR(pg_catalog.>=) most_stalls OR pass OPERATOR(pg_catalog.>=) most_passes;
                    -- What is left is held by somebody.
                    IF stalls OPERATOR(pg_catalog.>) 0 THEN
                        COMMIT;
                        PERFORM pg_catalog.pg_sleep(0.05 OPERATOR(pg_catalog.*) stalls);
                    END IF;
                END IF;
                blocks := pg_catalog.pg_relation_size(target.relation)
                          OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8;
                EXIT WHEN blocks OPERATOR(pg_catalog.=) 0;
                pass := pass OPERATOR(pg_catalog.+) 1;
                block := 0;
                behind := '(0,0)';
                failed := 0;
                done_in_pass := 0;
            END IF;
            started := pg_catalog.clock_timestamp();
            waited := cmk_internal.waited_for_processor();
            SELECT b.* INTO made
              FROM cmk_internal.reencrypt_batch(target, behind, LEAST(blocks, block OPERATOR(pg_catalog.+) window_blocks),
                       GREATEST(COALESCE(batch, 2000), 1), skip, careful, full_blocks) b;
            careful := made.careful;
            full_blocks := made.full_blocks;
            IF made.outcome OPERATOR(pg_catalog.=) 'failed' OR made.outcome OPERATOR(pg_catalog.=) 'busy' AND busy OPERATOR(pg_catalog.>=) 50 THEN
                PERFORM cmk_internal.reencrypt_note(target.relation, target.attnum, 'failed', pg_catalog.jsonb_build_object(
                    'rows_done', total, 'failures', failures, 'last_error', pg_catalog.concat_ws(' ',
                        -- Not the message: it may hold what is in a row.
                        'sqlstate=' OPERATOR(pg_catalog.||) (made.error OPERATOR(pg_catalog.->>) 'sqlstate'),
                        pg_catalog."substring"(made.error OPERATOR(pg_catalog.->>) 'detail', '^reason=\w+'))));
                COMMIT;
                RAISE EXCEPTION USING ERRCODE = made.error OPERATOR(pg_catalog.->>) 'sqlstate',
                    MESSAGE = made.error OPERATOR(pg_catalog.->>) 'message',
                    DETAIL = COALESCE(made.error OPERATOR(pg_catalog.->>) 'detail', ''), HINT = COALESCE(made.error OPERATOR(pg_catalog.->>) 'hint', '');
            ELSIF made.outcome OPERATOR(pg_catalog.=) 'busy' THEN
                busy := busy OPERATOR(pg_catalog.+) 1;
            ELSIF made.last IS NULL THEN
                block := LEAST(blocks, block OPERATOR(pg_catalog.+) window_blocks);
                behind := pg_catalog.format('(%s,0)', block);
            ELSE
                busy := 0;
                total := total OPERATOR(pg_catalog.+) made.rows;
                done_in_pass := done_in_pass OPERATOR(pg_catalog.+) made.rows;
                skip := skip OPERATOR(pg_catalog.||) made.unavailable;
                failures := failures OPERATOR(pg_catalog.||) made.failures;
                failed := failed OPERATOR(pg_catalog.+) pg_catalog.jsonb_array_length(
                    pg_catalog.jsonb_path_query_array(made.failures, '$[*] ? (@.is_row == true)'));
                behind := made.last;
                block := (behind::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8;
            END IF;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) noted OPERATOR(pg_catalog.>) '1 second'::pg_catalog.interval
               OR pg_catalog.jsonb_array_length(failures) OPERATOR(pg_catalog.>) 100 THEN
                noted := pg_catalog.clock_timestamp();
                PERFORM cmk_internal.reencrypt_note(target.relation, target.attnum, 'running', pg_catalog.jsonb_build_object(
                    'pass', pass, 'blocks_done', block, 'blocks', blocks, 'rows_done', total, 'failed_rows', failed, 'failures', failures));
                failures := '[]';
            END IF;
            -- A batch that a crash takes back is done again.
            PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
            COMMIT;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told OPERATOR(pg_catalog.>) '5 seconds'::pg_catalog.interval THEN
                told := pg_catalog.clock_timestamp();
                RAISE NOTICE '% of %: % of % blocks, % values re-encrypted', pg_catalog.quote_ident(target."column"),
                    target.relation, block, blocks, total;
            END IF;
            PERFORM pg_catalog.pg_sleep(GREATEST(COALESCE(pause, 1.2), 0)::pg_catalog.float8 OPERATOR(pg_catalog.*) GREATEST(0,
                pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started)
                OPERATOR(pg_catalog.-) (cmk_internal.waited_for_processor() OPERATOR(pg_catalog.-) waited)));
        END LOOP;
        -- The last look did not count those of tenants that were skipped.
        IF pass OPERATOR(pg_catalog.=) 0 THEN
            still := 0;
        ELSIF pg_catalog.cardinality(skip) OPERATOR(pg_catalog.>) 0 THEN
            still := cmk_internal.count_outdated(target, '{}');
        END IF;
        IF NOT is_over THEN
            left_over := cmk_internal.reencrypt_note(target.relation, target.attnum,
                CASE WHEN still OPERATOR(pg_catalog.=) 0 THEN 'done' ELSE 'incomplete' END, pg_catalog.jsonb_build_object(
                    'pass', pass, 'blocks_done', block, 'blocks', blocks, 'rows_done', total, 'failed_rows', still, 'failures', failures));
        END IF;
        COMMIT;
        PERFORM cmk_internal.tell_reencrypted(target, total, failed, CASE WHEN still OPERATOR(pg_catalog.>) 0 THEN left_over ELSE '{}' END);
    END LOOP;
    PERFORM cmk_internal.reencrypt_end();
END
$$;

-- requires:
--   reencrypt_values

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

-- requires:
--   reencrypt
--   reencrypt_usage
--   retire_keys

COMMENT ON PROCEDURE cmk.reencrypt(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.numeric, pg_catalog.bool) IS
    'Seals the values of a column that are under older data keys under the newest, in batches, while the table is in use';
COMMENT ON FUNCTION cmk.data_key_usage(pg_catalog.regclass, pg_catalog.name) IS
    'How many values of a column are under which data key; takes no key';
COMMENT ON FUNCTION cmk.retire_keys(pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
    'Destroys the old data keys of a tenant that no value of this database needs, once the caller says what else was looked at';
COMMENT ON TABLE cmk.reencrypt_job IS 'How far the re-encryption of each column got; see cmk.reencrypt_progress';
COMMENT ON COLUMN cmk.reencrypt_job.left_over IS
    'Values under older data keys at the end, by the data key''s id; the empty id: no envelopes';
COMMENT ON TABLE cmk.reencrypt_failure IS 'Rows that could not be re-encrypted, up to 1000 of a column; see cmk.reencrypt_failures';
COMMENT ON VIEW cmk.reencrypt_progress IS
    'How far the re-encryption of each column is: for the table''s owner, and members of pg_monitor';
COMMENT ON COLUMN cmk.reencrypt_progress.state IS
    'running; interrupted: its session is gone; done; incomplete: rows are left; failed';
COMMENT ON COLUMN cmk.reencrypt_progress.rows_estimate IS 'Rows that the table had at the start, as PostgreSQL estimates';
COMMENT ON COLUMN cmk.reencrypt_progress.percent IS 'Of the table''s blocks, in this pass';
COMMENT ON COLUMN cmk.reencrypt_progress.eta IS 'When the first pass will end, at the rate so far';
COMMENT ON COLUMN cmk.reencrypt_progress.failed_rows IS 'Rows that could not be re-encrypted; at the end, those that are left';
COMMENT ON COLUMN cmk.reencrypt_progress.rows_left IS 'Values under older data keys that the look at the end found; null before that';
COMMENT ON VIEW cmk.reencrypt_failures IS
    'Rows that the last re-encryption of a column could not do: for the table''s owner, and members of pg_monitor';
COMMENT ON COLUMN cmk.reencrypt_failures.key IS
    'The row''s primary key, else another unique key, else its place; {"tenant": …} stands for all rows of a tenant';
COMMENT ON COLUMN cmk.reencrypt_failures.reason IS 'As in the DETAIL of errors, or sqlstate and constraint';

COMMENT ON TYPE cmk_internal.reencrypt_target IS 'What cmk.reencrypt() runs on';
COMMENT ON FUNCTION cmk_internal.is_note(pg_catalog.text, pg_catalog.jsonb) IS
    'Whether this is what a run of cmk.reencrypt writes down';
COMMENT ON FUNCTION cmk_internal.aad_obstacle(pg_catalog.regclass, pg_catalog.text) IS
    'Why the aad that cmk.reencrypt was given is none; null if it is one';
COMMENT ON FUNCTION cmk_internal.tenant_of(pg_catalog.bytea) IS 'Whose data key it is, to whom holds a grant for that tenant';
COMMENT ON FUNCTION cmk_internal.data_key_facts(pg_catalog.bytea) IS
    'Version, state and tenant of a data key, a line each, to whom holds a grant for that tenant';
COMMENT ON FUNCTION cmk_internal.reencrypt_begin(pg_catalog.oid, pg_catalog.int2) IS
    'Locks a column of a table that the caller owns against a second re-encryption';
COMMENT ON FUNCTION cmk_internal.waited_for_processor() IS
    'For how many seconds this session was ready to run and had no processor, since it began';
COMMENT ON FUNCTION cmk_internal.reencrypt_end() IS 'Lets go of all columns that this session locked';
COMMENT ON FUNCTION cmk_internal.envelope_columns() IS 'The columns of this database that can hold envelopes';
COMMENT ON FUNCTION cmk_internal.retirement_obstacles() IS 'What keeps cmk.retire_keys() from a proof';
COMMENT ON FUNCTION cmk_internal.reencrypt_locks() IS 'The columns that are being re-encrypted, and by which process';
COMMENT ON FUNCTION cmk_internal.failures_kept() IS 'How many failed rows of a column are kept';
COMMENT ON FUNCTION cmk_internal.outdated_values(pg_catalog.oid, pg_catalog.int2) IS
    'How many values of a column are under older data keys, by data key';
COMMENT ON FUNCTION cmk_internal.has_outdated_values(pg_catalog.oid, pg_catalog.int2) IS
    'Whether a column has a value under an older data key of a tenant';
COMMENT ON FUNCTION cmk_internal.reencrypt_note(pg_catalog.oid, pg_catalog.int2, pg_catalog.text, pg_catalog.jsonb) IS
    'Writes down how far a run is, for the session that holds the column''s lock';
COMMENT ON FUNCTION cmk_internal.sees_reencryption(pg_catalog.oid) IS 'Whether the current role is shown the runs on a table';
COMMENT ON FUNCTION cmk_internal.row_key(pg_catalog.regclass, pg_catalog.int2) IS 'The SQL that tells a row to people';
COMMENT ON FUNCTION cmk_internal.reencrypt_targets(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.text) IS
    'The tables that cmk.reencrypt() runs on';
COMMENT ON FUNCTION cmk_internal.reencrypt_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
    'Why a column cannot be re-encrypted';
COMMENT ON FUNCTION cmk_internal.may_replicate() IS 'Whether the caller may leave triggers of users aside';
COMMENT ON FUNCTION cmk_internal.reencrypt_find(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.int8, pg_catalog.text[], pg_catalog.int4) IS
    'The next rows to re-encrypt';
COMMENT ON FUNCTION cmk_internal.not_skipped(cmk_internal.reencrypt_target, pg_catalog.text[]) IS
    'The condition that leaves tenants out';
COMMENT ON FUNCTION cmk_internal.reencrypt_all(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.tid, pg_catalog.text[]) IS
    'Re-encrypts a batch in one UPDATE';
COMMENT ON FUNCTION cmk_internal.leave_code_aside(cmk_internal.reencrypt_target) IS
    'Keeps triggers and rules of users out of the next UPDATE';
COMMENT ON FUNCTION cmk_internal.reencrypt_possible(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.tid, pg_catalog.text[]) IS
    'Re-encrypts what of a batch can be';
COMMENT ON FUNCTION cmk_internal.reencrypt_each(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.tid, pg_catalog.text[]) IS
    'Re-encrypts a batch row by row';
COMMENT ON FUNCTION cmk_internal.concerns_row(pg_catalog.text, pg_catalog.text) IS 'Whether an error may be about single rows';
COMMENT ON FUNCTION cmk_internal.reencrypt_batch(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.int8, pg_catalog.int4, pg_catalog.text[], pg_catalog.bool, pg_catalog.int8) IS
    'Re-encrypts a batch in the fastest way that works';
COMMENT ON FUNCTION cmk_internal.has_values_elsewhere(pg_catalog.regclass) IS
    'Whether a table has values outside of its blocks';
COMMENT ON FUNCTION cmk_internal.count_outdated(cmk_internal.reencrypt_target, pg_catalog.text[]) IS
    'How many values are to be re-encrypted';
COMMENT ON FUNCTION cmk_internal.tell_dry_run(cmk_internal.reencrypt_target[]) IS 'Says what a run would do';
COMMENT ON FUNCTION cmk_internal.tell_reencrypted(cmk_internal.reencrypt_target, pg_catalog.int8, pg_catalog.int8, pg_catalog.jsonb) IS
    'Says what a run did, and what is left';

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
            SELECT pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure), p.proacl, p.proowner
              FROM pg_catalog.pg_proc p
              JOIN members m
                ON m.classid OPERATOR(pg_catalog.=) 'pg_proc'::pg_catalog.regclass
               AND m.objid OPERATOR(pg_catalog.=) p.oid
            UNION ALL
            SELECT pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype), t.typacl, t.typowner
              FROM pg_catalog.pg_type t
              JOIN members m
                ON m.classid OPERATOR(pg_catalog.=) 'pg_type'::pg_catalog.regclass
               AND m.objid OPERATOR(pg_catalog.=) t.oid
             WHERE t.typelem OPERATOR(pg_catalog.=) 0
               AND t.typrelid OPERATOR(pg_catalog.=) 0
            UNION ALL
            SELECT pg_catalog.format('SCHEMA %I', n.nspname), n.nspacl, n.nspowner
              FROM pg_catalog.pg_namespace n
             WHERE n.nspname OPERATOR(pg_catalog.=) ANY ('{cmk, cmk_internal}'::pg_catalog.name[]))
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

    -- Anyone may call them; the grants for tenants decide, at every call, or who owns the table.
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
           AND p.pronamespace OPERATOR(pg_catalog.=) ANY ('{pg_catalog, cmk_internal}'::pg_catalog.regnamespace[])
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', object);
    END LOOP;
END
$$;

-- Whoever could call it could say that somebody did what he did not.
REVOKE EXECUTE ON FUNCTION cmk_internal.audit(pg_catalog.text, pg_catalog.text, pg_catalog.int4,
    pg_catalog.jsonb, pg_catalog.jsonb) FROM PUBLIC;
-- Reads any table.
REVOKE EXECUTE ON FUNCTION cmk_internal.outdated_values(pg_catalog.oid, pg_catalog.int2),
    cmk_internal.has_outdated_values(pg_catalog.oid, pg_catalog.int2) FROM PUBLIC;

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
    cmk.equal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.equal(pg_catalog.cmk_text, pg_catalog.cmk_text, pg_catalog.text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._text, pg_catalog.text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._cmk_text, pg_catalog.text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._text),
    cmk.equal_any(pg_catalog.cmk_text, pg_catalog._cmk_text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.cmk_text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog.text),
    cmk.equal_columns(pg_catalog.text, pg_catalog.cmk_text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog._text),
    cmk.equal_columns(pg_catalog.cmk_text, pg_catalog._cmk_text),
    cmk.probe(pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text),
    cmk.probe(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text),
    cmk.probes(pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.probes(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.probes_any(pg_catalog._text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.probes_any(pg_catalog._cmk_text, pg_catalog.text, pg_catalog.text, pg_catalog.text),
    cmk.sealed_for(pg_catalog.cmk_text), cmk.is_envelope(pg_catalog.bytea),
    cmk.needs_sealing(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    cmk.reseal(pg_catalog.cmk_text, pg_catalog.text, pg_catalog.text),
    -- These have rows for the views only: sql/registry.sql, cmk.home.
    cmk.key_status(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.uuid),
    cmk.server_facts(pg_catalog.uuid),
    cmk.backend_cache(pg_catalog.uuid), cmk.backend_cache_stats(pg_catalog.uuid),
    cmk.protections(), cmk.is_preloaded(), cmk.column_stats(), cmk.raise(pg_catalog.text, pg_catalog.text) TO PUBLIC;

-- Who may protect columns: whoever owns the table. These run with the rights of their caller, and
-- PostgreSQL asks for the ownership in each ALTER TABLE. What the others tell stands in catalogs
-- that everybody may read, but for two numbers: cmk.index_key_counts() tells owners of searchable
-- columns what to ask an administrator for. Only the data keys that a dump needs
-- (cmk.dump_keys_needed) are the registry's affair, and its owner's.
GRANT USAGE ON SCHEMA cmk_internal TO PUBLIC;
GRANT SELECT ON cmk.protected_columns, cmk.reencrypt_progress, cmk.reencrypt_failures TO PUBLIC;
GRANT EXECUTE ON ROUTINE
    cmk.protect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text,
        pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text,
        pg_catalog.int4, pg_catalog.interval, pg_catalog.int4),
    cmk.unprotect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text,
        pg_catalog.interval, pg_catalog.int4),
    cmk.seal_table(pg_catalog.regclass, pg_catalog.numeric, pg_catalog.int4),
    cmk.unsealed_rows(pg_catalog.regclass, pg_catalog.name), cmk.index_key_counts(),
    cmk.reencrypt(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.text,
        pg_catalog.int4, pg_catalog.numeric, pg_catalog.bool),
    cmk.data_key_usage(pg_catalog.regclass, pg_catalog.name) TO PUBLIC;

-- Those who monitor see names, states and counters, and can change nothing.
GRANT SELECT ON cmk.tenants, cmk.status, cmk.server, cmk.data_key_use, cmk.key_event, cmk.cache,
    cmk.cache_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION cmk.revocation_bound(pg_catalog.text), cmk.check(pg_catalog.bool)
    TO pg_monitor;

COMMENT ON SCHEMA cmk IS 'Key registry and administration of cmk_encrypt';
COMMENT ON FUNCTION cmk.protect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4, pg_catalog.interval, pg_catalog.int4) IS
    'Protects a column: its values are sealed from now on, and searchable if that is said; says what comes next';
COMMENT ON FUNCTION cmk.index_key_counts() IS
    'How many active tenants have no index key, and of how many tenants it rotates';
COMMENT ON FUNCTION cmk.rotate_index_key(pg_catalog.text) IS
    'Makes a tenant''s first index key, or the next one, under which values get a second token; returns its version';
COMMENT ON FUNCTION cmk.finish_index_rotation(pg_catalog.text) IS
    'Makes the next index key of a tenant the current one, once all its values have tokens of both; false if there is no next one';
COMMENT ON FUNCTION cmk.cancel_index_rotation(pg_catalog.text) IS
    'Destroys the next index key of a tenant; cmk.seal_table() removes its tokens';
COMMENT ON FUNCTION cmk.unprotect_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.interval, pg_catalog.int4) IS
    'Opens all values of a column, and gives it back the type that it had';
COMMENT ON PROCEDURE cmk.seal_table(pg_catalog.regclass, pg_catalog.numeric, pg_catalog.int4) IS
    'Seals the values that a table had before protection, and renews tokens, in batches, while it is in use';
COMMENT ON FUNCTION cmk.unsealed_rows(pg_catalog.regclass, pg_catalog.name) IS
    'How many values of a protected column are not sealed, or lack the tokens that they are to have; reads the whole table';
COMMENT ON FUNCTION cmk.dump_keys_needed(pg_catalog._regclass) IS
    'Which data keys and index keys a dump of these tables, or of all, needs; tenant is null if the registry lacks one';
COMMENT ON VIEW cmk.protected_columns IS
    'The protected columns of this database, and what is wrong with them';
COMMENT ON COLUMN cmk.protected_columns.tenant IS
    'The SQL that tells a row''s tenant';
COMMENT ON COLUMN cmk.protected_columns.trigger IS
    'How the sealing trigger fires: always, as it must, origin, replica, disabled; or missing';
COMMENT ON COLUMN cmk.protected_columns.validated IS
    'PostgreSQL has seen that all values are sealed';
COMMENT ON COLUMN cmk.protected_columns.problems IS
    'What is wrong, and where; see docs/columns.md';
COMMENT ON FUNCTION cmk.protections() IS
    'How the columns of this database are protected, as their CHECK constraints say it';
COMMENT ON FUNCTION cmk.is_preloaded() IS
    'Whether the library was loaded before this session''s first statement, by shared_preload_libraries or session_preload_libraries';
COMMENT ON FUNCTION cmk.column_stats() IS
    'How many values of protected columns this session sealed and opened';
COMMENT ON FUNCTION cmk.seal_batch(pg_catalog.oid, pg_catalog.int2, pg_catalog.int8, pg_catalog.int8, pg_catalog._text) IS
    'Seals what is still plaintext in some blocks of a table, and renews tokens, except for the tenants named; used by cmk.seal_table()';
COMMENT ON FUNCTION cmk.raise(pg_catalog.text, pg_catalog.text) IS
    'Raises the error of that reason, for the functions of cmk that are written in SQL';
COMMENT ON FUNCTION cmk.register_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool) IS
    'Registers a tenant and its key (KMS key ARN or local:NAME) and, unless told not to, makes its first data key';
COMMENT ON FUNCTION cmk.alter_tenant_options(pg_catalog.text, pg_catalog.jsonb) IS
    'Changes the role or external id by which a tenant''s key is used, once KMS unwraps the current data key that way';
COMMENT ON FUNCTION cmk.activate_tenant(pg_catalog.text) IS
    'Makes the first data key of a pending tenant, once its key policy lets us';
COMMENT ON FUNCTION cmk.verify_tenant(pg_catalog.text) IS
    'Whether a tenant''s key does what it must, and whether all its data keys unwrap: a row a check; changes nothing';
COMMENT ON FUNCTION cmk.key_policy(pg_catalog.text) IS
    'What the owner of a tenant''s key has to allow this server, and no more: statements for the key''s policy, or the policies of the role that is assumed';
COMMENT ON FUNCTION cmk.service_policy(pg_catalog.text) IS
    'The IAM policy that the server''s own role needs to use the key of a tenant, or without one the keys of all';
COMMENT ON FUNCTION cmk.onboarding(pg_catalog.text, pg_catalog.text) IS
    'A document for the owner of a tenant''s key: guide (Markdown), policy (JSON), cli (a script), terraform or cloudformation';
COMMENT ON FUNCTION cmk.identity(pg_catalog.text) IS
    'As whom AWS knows this server, by which provider of credentials, and in which Region STS said so';
COMMENT ON FUNCTION cmk.rotate_tenant(pg_catalog.text) IS
    'Makes a new data key for new values and returns its version; old values still open';
COMMENT ON FUNCTION cmk.alter_tenant_rotation(pg_catalog.text, pg_catalog.interval, pg_catalog.int8) IS
    'When the monitor rotates the data key of a tenant: by its age, or the values that it sealed; null: as the settings say, 0: never';
COMMENT ON FUNCTION cmk.rewrap_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb) IS
    'Wraps every data key of a tenant for another key, and keeps what unwraps there beside what is in force; says how far that is';
COMMENT ON FUNCTION cmk.confirm_rewrap(pg_catalog.text) IS
    'Puts a tenant''s new wrappings into force, once each was proven again; returns how many data keys that were';
COMMENT ON FUNCTION cmk.cancel_rewrap(pg_catalog.text) IS
    'Forgets a tenant''s new wrappings; false if there was no move under way';
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
    'If the key were revoked now: for how long values could still be opened, when the last copy of a data key in any process is gone, and how many processes hold one';
COMMENT ON FUNCTION cmk.reset_stats() IS
    'Sets the counters of cmk.status for this database back to zero, at once; a rollback does not undo it';
COMMENT ON FUNCTION cmk.key_status(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.uuid) IS 'A row of the view cmk.status';
COMMENT ON TYPE cmk_internal.key_facts IS 'A row of the function cmk.key_status';
COMMENT ON FUNCTION cmk.server_facts(pg_catalog.uuid) IS 'The row of the view cmk.server';
COMMENT ON FUNCTION cmk.key_copies(pg_catalog.text) IS 'How long copies of a tenant''s data keys live';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool, pg_catalog.bool) IS
    'Allows a role to encrypt or decrypt values of a tenant, or of every tenant (*)';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.bool) IS
    'Takes back what cmk.grant_access allowed';
COMMENT ON FUNCTION cmk.grant_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.revoke_access(pg_catalog.text, pg_catalog.regrole, pg_catalog.bool, pg_catalog.bool) IS
    'The same for a role given as regrole';
COMMENT ON FUNCTION cmk.check(pg_catalog.bool) IS
    'What is wrong with the key registry, protected columns and the server''s settings, and what mends it; no row if nothing is. deep: reads all protected columns, too';
COMMENT ON FUNCTION cmk.shred_tenant(pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
    'Destroys all data keys of a suspended tenant for good, and returns a certificate; confirm is the tenant''s name again';
COMMENT ON FUNCTION cmk.remove_tenant(pg_catalog.text) IS
    'Removes a pending or shredded tenant with its grants; its name can be registered again';
COMMENT ON FUNCTION cmk.destroy_data_keys(pg_catalog.text) IS
    'Deletes every data key of this database, whose name must be given: all sealed values are lost. For whoever means to DROP EXTENSION';
COMMENT ON FUNCTION cmk.adopt_registry() IS
    'Makes a registry that CREATE DATABASE ... TEMPLATE copied the registry of this database; for superusers';
COMMENT ON FUNCTION cmk.inspect(pg_catalog.bytea) IS
    'What an envelope and the registry say about a sealed value; needs no key';
COMMENT ON FUNCTION cmk.envelope_header(pg_catalog.bytea) IS 'The header fields of an envelope';
COMMENT ON FUNCTION cmk.is_envelope(pg_catalog.bytea) IS
    'Whether a value is an envelope of a data key that the registry has; never fails, and takes no key';
COMMENT ON FUNCTION cmk.registry_guard() IS
    'Trigger function: lets only the registry''s owner change it, and nobody destroy data keys by the way';
COMMENT ON FUNCTION cmk.drop_guard() IS
    'Event trigger function: has the library loaded, which refuses to drop data keys';
COMMENT ON EVENT TRIGGER cmk_drop_guard IS
    'Refuses to drop the extension while there are data keys';
COMMENT ON TYPE cmk.grantee IS
    'A role by oid that remembers its name; text form: the name, not quoted';
COMMENT ON FUNCTION cmk_internal.audit(pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Makes an event of what the calling function did; for functions that run with the rights of the extension''s owner';
COMMENT ON FUNCTION cmk_internal.audit_column(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'Makes an event of a change of protection that this transaction made';
COMMENT ON FUNCTION cmk_internal.is_own_change(pg_catalog.xid) IS
    'Whether a row of this xmin is of this transaction';
COMMENT ON FUNCTION cmk.verify_audit(pg_catalog.text) IS
    'Whether the chains of a tenant, or all, are whole: nothing changed, left out or put in between';
COMMENT ON FUNCTION cmk.audit_report(pg_catalog.text, pg_catalog.timestamptz, pg_catalog.timestamptz) IS
    'What a tenant''s auditor needs to know, and nothing of other tenants';
COMMENT ON FUNCTION cmk.match_cloudtrail(pg_catalog.text, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Joins our requests to KMS for a tenant with records of AWS CloudTrail';
COMMENT ON FUNCTION cmk.grantee_in(pg_catalog.cstring) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_out(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_recv(pg_catalog.internal) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_send(cmk.grantee) IS 'I/O of type cmk.grantee';
COMMENT ON FUNCTION cmk.grantee_oid(cmk.grantee) IS 'Oid of the role; 0 if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_regrole(cmk.grantee) IS 'The role; - if this server has no such role';
COMMENT ON FUNCTION cmk.grantee_key(cmk.grantee) IS 'What tells grantees apart';
COMMENT ON FUNCTION cmk.registry_changed() IS
    'Trigger function: tells every session, at commit, to read the registry again';
COMMENT ON FUNCTION cmk.backend_cache(pg_catalog.uuid) IS 'Rows of the view cmk.cache';
COMMENT ON FUNCTION cmk.backend_cache_stats(pg_catalog.uuid) IS 'The row of the view cmk.cache_stats';
COMMENT ON TABLE cmk.tenant IS 'Tenants and the keys they own; change it through the functions of schema cmk';
COMMENT ON TABLE cmk.audit_event IS 'What administrators did, in hash chains: docs/audit.md';
COMMENT ON TABLE cmk.audit_chain IS 'The last event of each chain of cmk.audit_event';
COMMENT ON TABLE cmk.data_key IS 'Wrapped data keys; losing a row is losing the values sealed under it';
COMMENT ON TABLE cmk.data_key_use IS 'How many values each data key has sealed, at least; the rows of one add up';
COMMENT ON TABLE cmk.access IS 'Which database roles may encrypt and decrypt for which tenant; a null tenant means every tenant';
COMMENT ON TABLE cmk.home IS 'The database that this registry belongs to';
COMMENT ON COLUMN cmk.home.pass IS
    'By which the functions behind cmk.status and the like know the views';
COMMENT ON COLUMN cmk.tenant.last_version IS 'Highest version that a data key of the tenant ever had';
COMMENT ON COLUMN cmk.tenant.key_uri IS 'The key that wraps the tenant''s data keys';
COMMENT ON COLUMN cmk.tenant.next_key_uri IS 'The key that the tenant is being moved to';
COMMENT ON COLUMN cmk.tenant.next_options IS 'Options of the key that the tenant is being moved to';
COMMENT ON COLUMN cmk.data_key.next_wrapped IS
    'The data key as the key wrapped it that the tenant is being moved to; not in force';
COMMENT ON COLUMN cmk.data_key.next_wrapped_by IS 'URI of the key that wrapped next_wrapped';
COMMENT ON COLUMN cmk.tenant.options IS
    'How the key is used: role_arn and external_id of an AWS key';
COMMENT ON COLUMN cmk.tenant.suspended_at IS 'Since when it is suspended, or was when it was shredded';
COMMENT ON COLUMN cmk.tenant.certificate IS 'What cmk.shred_tenant() returned; null unless shredded';
COMMENT ON COLUMN cmk.tenant.rotate_after IS
    'Age at which the monitor rotates its data key; null: cmk_encrypt.rotate_after, 0: never';
COMMENT ON COLUMN cmk.tenant.rotate_after_values IS
    'Sealed values at which the monitor rotates its data key; null: cmk_encrypt.rotate_after_values, 0: never';
COMMENT ON COLUMN cmk.data_key_use.sealed IS 'Values sealed since it was made';
COMMENT ON COLUMN cmk.data_key_use.counted_at IS 'When this was last added to';
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
COMMENT ON COLUMN cmk.tenants.next_key_uri IS 'The key that the tenant is being moved to: see cmk.rewrap_tenant()';
COMMENT ON COLUMN cmk.tenants.rewrapped IS 'Data keys that this key has wrapped and unwrapped';
COMMENT ON COLUMN cmk.tenants.remaining IS 'Data keys that it has not';
COMMENT ON COLUMN cmk.tenants.data_keys IS 'How many there are; none costs anything until it is used';

COMMENT ON COLUMN cmk.tenants.suspended_at IS
    'Since when it is suspended, or was when it was shredded';

COMMENT ON COLUMN cmk.status.tenant_state IS 'As in cmk.tenants';
COMMENT ON COLUMN cmk.status.key_state IS
    'usable, revoked, unreachable, throttled or misconfigured, as KMS last said; null if that is not known';
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
COMMENT ON COLUMN cmk.status.dark_since IS
    'Since when this server can''t open the tenant''s values; null if it can, as far as is known, and while the tenant is pending';
COMMENT ON COLUMN cmk.status.watched IS
    'A monitor of this database is at work; else changes show only when a session asks KMS';
COMMENT ON COLUMN cmk.status.warnings IS
    'deletion_scheduled, key_material_expires, rotation_off, as the monitor last saw; null: warnings can''t be seen, for want of a monitor or of kms:DescribeKey';
COMMENT ON COLUMN cmk.status.from_history IS
    'key_state and its reason, info and since are the last event in cmk.key_event: KMS was not asked since the server started';
COMMENT ON COLUMN cmk.status.worst_case IS
    'The longest that values can be opened after the owner revoked the key, with these settings';
COMMENT ON VIEW cmk.server IS 'The server, as far as this extension goes: one row';
COMMENT ON COLUMN cmk.server.preloaded IS
    'The library is in shared_preload_libraries; else all figures are of this session';
COMMENT ON COLUMN cmk.server.keyring_worker IS 'The keyring worker runs; without it no data key is shared';
COMMENT ON COLUMN cmk.server.monitor_configured IS 'cmk_encrypt.monitor_databases names this database';
COMMENT ON COLUMN cmk.server.watched IS 'The monitor of this database is at work';
COMMENT ON COLUMN cmk.server.cache_ttl IS 'cmk_encrypt.cache_ttl';
COMMENT ON COLUMN cmk.server.promised_bound IS 'cmk_encrypt.promised_bound; null if none';
COMMENT ON COLUMN cmk.server.tenants_forgotten IS
    'Times that a tenant''s state was forgotten because there are more than cmk_encrypt.shared_keyring_size';
COMMENT ON COLUMN cmk.server.dropped_for_room IS
    'Data keys that sessions dropped because they need more than cmk_encrypt.cache_size';
COMMENT ON COLUMN cmk.server.hits IS
    'This and the columns that follow: as in cmk.status, of all databases since the server started; they never fall';

COMMENT ON COLUMN cmk.key_event.id IS 'As in the notification on cmk_key_events';
COMMENT ON COLUMN cmk.key_event.event IS
    'The state entered: usable, revoked, unreachable, throttled, misconfigured; or a warning: deletion_scheduled, key_material_expires, rotation_off, rotation_failed';
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

COMMENT ON COLUMN cmk.audit_event.tenant IS 'The tenant; * for what concerns every tenant';
COMMENT ON COLUMN cmk.audit_event.origin IS
    'The cluster''s identifier and the database''s number where the event was written down: there is a chain for each tenant and origin';
COMMENT ON COLUMN cmk.audit_event.number IS 'Place in the chain, from 1 on, in the order of the commits';
COMMENT ON COLUMN cmk.audit_event.at IS 'When it was done; the commit came later';
COMMENT ON COLUMN cmk.audit_event.session_role IS 'session_user';
COMMENT ON COLUMN cmk.audit_event.acting_role IS 'current_user of whoever called the function';
COMMENT ON COLUMN cmk.audit_event.client_address IS '[local] for a Unix socket; null for a process of the server';
COMMENT ON COLUMN cmk.audit_event.application_name IS 'What the client says of itself';
COMMENT ON COLUMN cmk.audit_event.act IS 'The SQL function';
COMMENT ON COLUMN cmk.audit_event.data_key IS 'Version of the data key that it is about';
COMMENT ON COLUMN cmk.audit_event.before IS 'What was changed';
COMMENT ON COLUMN cmk.audit_event.after IS 'What it was changed to';
COMMENT ON COLUMN cmk.audit_event.kms_request_ids IS 'As in the CloudTrail of the key''s owner: requestID';
COMMENT ON COLUMN cmk.audit_event.previous_hash IS
    'Of the event before; of the first one, that of the tenant''s newest event of another origin, or zeros';
COMMENT ON COLUMN cmk.audit_event.hash IS 'SHA-256 over all other columns, as docs/audit.md says';
