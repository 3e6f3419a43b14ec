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
