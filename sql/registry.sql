-- The key registry. Losing these rows is losing the data, so a plain pg_dump carries them.

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

CREATE TABLE cmk.tenant (
    tenant      text COLLATE "C" PRIMARY KEY
                CHECK (pg_catalog.octet_length(tenant) BETWEEN 1 AND 255 AND tenant <> '*' AND tenant !~ '[[:cntrl:]]'),
    state       text COLLATE "C" NOT NULL DEFAULT 'pending'
                CHECK (state IN ('pending', 'active', 'suspended', 'shredded')),
    key_uri     text COLLATE "C" NOT NULL
                CHECK (key_uri ~ '^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+|local:[A-Za-z0-9_-]{1,64})$'),
    role_arn    text COLLATE "C",
    external_id text COLLATE "C",
    epoch       bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK ((role_arn IS NULL) = (external_id IS NULL)),
    CHECK (role_arn IS NULL OR key_uri LIKE 'arn:%')
);

CREATE TABLE cmk.data_key (
    tenant      text COLLATE "C" NOT NULL REFERENCES cmk.tenant,
    version     integer NOT NULL CHECK (version >= 1),
    state       text COLLATE "C" NOT NULL DEFAULT 'current'
                CHECK (state IN ('current', 'retired', 'destroyed')),
    dek_id      bytea NOT NULL UNIQUE GENERATED ALWAYS AS (pg_catalog.substring(commitment, 1, 16)) STORED,
    commitment  bytea NOT NULL CHECK (pg_catalog.octet_length(commitment) = 32),
    wrapped     bytea CHECK (pg_catalog.octet_length(wrapped) BETWEEN 1 AND 6144),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant, version),
    CHECK ((state = 'destroyed') = (wrapped IS NULL))
);

CREATE UNIQUE INDEX data_key_one_current ON cmk.data_key (tenant) WHERE state = 'current';

CREATE TABLE cmk.access (
    tenant      text COLLATE "C" REFERENCES cmk.tenant ON DELETE CASCADE,
    role        regrole NOT NULL,
    encrypt     boolean NOT NULL,
    decrypt     boolean NOT NULL,
    granted_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT access_tenant_role_key UNIQUE (tenant, role),
    CHECK (encrypt OR decrypt)
);

-- What the monitor saw. Nothing depends on it; old rows may be deleted.
CREATE TABLE cmk.key_event (
    id          uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tenant      text COLLATE "C" NOT NULL,
    event       text COLLATE "C" NOT NULL,
    was         text COLLATE "C",
    reason      text COLLATE "C",
    info        text COLLATE "C"
);

CREATE INDEX key_event_tenant_at ON cmk.key_event (tenant, at);

-- Without a primary key, a publication of all tables would forbid every revocation.
ALTER TABLE cmk.access REPLICA IDENTITY FULL;

CREATE UNIQUE INDEX access_every_tenant_key ON cmk.access (role) WHERE tenant IS NULL;

-- One statement each: they all update the same row of pg_extension.
SELECT pg_catalog.pg_extension_config_dump('cmk.tenant', '');
SELECT pg_catalog.pg_extension_config_dump('cmk.data_key', '');
-- A dropped role's grant would be dumped as a bare number, which may be another role where it is restored.
SELECT pg_catalog.pg_extension_config_dump('cmk.access', 'WHERE role::oid IN (SELECT oid FROM pg_catalog.pg_roles)');
