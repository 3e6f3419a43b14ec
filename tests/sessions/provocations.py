"""One way to each error that SQL can reach. test_errors.py runs them all and misses none.

Here are those of tenants, access, registry and arguments; provocations_keys.py, provocations_columns.py and
provocations_search.py add the others.

`@provokes(reason, sqlstate)`: the function does what fails. `names_tenant=False` where the error can't
name one, because there is none or its name is what is wrong.
"""

import contextlib
from dataclasses import dataclass

from support import unique

ALL = {}

# Reasons that no SQL leads to, and why.
OUT_OF_REACH = {
    "out_of_memory": "needs a memory limit at the right moment; test_hardening.py sets one",
    "registry_unusable": "SPI itself would have to refuse a statement",
    "system_random": "getrandom(2) does not fail on a running system",
}


@dataclass(frozen=True)
class Provocation:
    reason: str
    sqlstate: str
    names_tenant: bool
    run: object


def provokes(reason, sqlstate, names_tenant=True):
    def register(function):
        assert reason not in ALL, reason
        ALL[reason] = Provocation(reason, sqlstate, names_tenant, function)
        return function

    return register


# The tenant


@provokes("tenant_pending", "55000")
def pending(stage):
    stage.use(activate=False)
    stage.app.encrypt(stage.tenant)


@provokes("tenant_suspended", "55000")
def suspended(stage):
    stage.use()
    stage.manage("suspend_tenant")
    stage.app.encrypt(stage.tenant)


@provokes("tenant_shredded", "55000")
def shredded(stage):
    stage.use()
    shred(stage.dba, stage.tenant)
    stage.app.encrypt(stage.tenant)


def shred(dba, tenant):
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    dba.run("SELECT cmk.shred_tenant(%s, confirm => %s, immediately => true)", tenant.name, tenant.name)


@provokes("unknown_tenant", "42704")
def unknown(stage):
    stage.use()
    stage.tenant = stage.tenant.name.upper()
    stage.app.encrypt(stage.tenant)


@provokes("not_installed", "42704", names_tenant=False)
def not_installed(stage):
    dba = stage.session(dbname=stage.database(extension=False))
    signature = "pg_catalog.cmk_encrypt(text, bytea, bytea)"
    symbol = stage.dba.one("SELECT prosrc FROM pg_proc WHERE oid = %s::regprocedure", signature)
    dba.run(
        "CREATE FUNCTION orphan(text, bytea, bytea) RETURNS bytea LANGUAGE c"
        f" AS '$libdir/cmk_encrypt', '{symbol}'"
    )
    dba.one("SELECT orphan('acme', 'x', '')")


@provokes("tenant_exists", "42710")
def exists(stage):
    stage.use()
    stage.dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", stage.tenant.name)


@provokes("tenant_busy", "55P03")
def busy(stage):
    stage.use()
    other = stage.session()
    with other.connection.transaction():
        other.run("SELECT cmk.rotate_tenant(%s)", stage.tenant.name)
        stage.manage("rotate_tenant")


@provokes("tenant_state_conflict", "55000")
def conflict(stage):
    stage.use(activate=False)
    stage.manage("suspend_tenant")


@provokes("verification_failed", "55000")
def verification_failed(stage):
    stage.use(activate=False)
    with stage.kms.fault("any_context", arn=stage.tenant.key_uri):
        stage.manage("activate_tenant")


@provokes("rotation_limit", "22023")
def rotation_limit(stage):
    stage.use()
    stage.dba.run("SELECT cmk.alter_tenant_rotation(%s, rotate_after_values => -1)", stage.tenant.name)


@provokes("confirmation", "22023")
def confirmation(stage):
    stage.use()
    stage.dba.run("SELECT cmk.shred_tenant(%s, confirm => 'another')", stage.tenant.name)


@provokes("shred_too_soon", "55000")
def shred_too_soon(stage):
    stage.use()
    stage.manage("suspend_tenant")
    stage.dba.run("SELECT cmk.shred_tenant(%s, confirm => %s)", stage.tenant.name, stage.tenant.name)


# Access


@provokes("no_grant", "42501")
def no_grant(stage):
    stage.use(to=())
    stage.app.encrypt(stage.tenant)


@provokes("tenant_mismatch", "42501")
def tenant_mismatch(stage):
    stage.use(to=())
    stage.dba.run("SELECT cmk.grant_access(%s, %s, bound => true)", stage.tenant.name, stage.app.role)
    stage.app.encrypt(stage.tenant)


@provokes("registry_write", "42501", names_tenant=False)
def registry_write(stage):
    stage.use("local:shared", to=())
    stage.dba.run(f"GRANT pg_write_all_data TO {stage.app.role}")
    stage.app.run(
        "INSERT INTO cmk.access (tenant, role, encrypt, decrypt)"
        f" VALUES ('{stage.tenant}', '{stage.app.role}', true, true)"
    )


@provokes("audit_trail", "42501", names_tenant=False)
def audit_trail(stage):
    stage.use("local:shared", to=())
    stage.dba.run("DELETE FROM cmk.audit_event")


@provokes("security_restricted_operation", "42501", names_tenant=False)
def restricted(stage):
    stage.use()
    view = unique("view")
    stage.dba.run("SELECT cmk.grant_access(%s, 'postgres')", stage.tenant.name)
    envelope = stage.app.encrypt(stage.tenant)
    stage.dba.run(
        f"CREATE MATERIALIZED VIEW {view} AS SELECT cmk_decrypt('{stage.tenant}', '\\x{envelope.hex()}') AS plain"
        " WITH NO DATA"
    )
    stage.dba.run(f"REFRESH MATERIALIZED VIEW {view}")


@provokes("read_only", "25006", names_tenant=False)
def read_only(stage):
    stage.use()
    stage.dba.run("SET default_transaction_read_only = on")
    stage.manage("rotate_tenant")


# The registry


@contextlib.contextmanager
def unguarded(dba, table="data_key"):
    """The block may damage rows of the registry, as a bad restore or a bad disk does."""
    for trigger in ("guard", "guard_row"):
        dba.run(f"ALTER TABLE cmk.{table} DISABLE TRIGGER {trigger}")
    try:
        yield
    finally:
        for trigger in ("guard", "guard_row"):
            dba.run(f"ALTER TABLE cmk.{table} ENABLE ALWAYS TRIGGER {trigger}")


def lose(dba, tenant, table):
    with unguarded(dba, table):
        dba.run(f"DELETE FROM cmk.{table} WHERE tenant = %s", tenant.name)


@provokes("data_keys_missing", "55000")
def data_keys_missing(stage):
    stage.use()
    lose(stage.dba, stage.tenant, "data_key")
    stage.app.encrypt(stage.tenant)


@provokes("tenant_row_missing", "55000")
def tenant_row_missing(stage):
    stage.use()
    lose(stage.dba, stage.tenant, "tenant")
    stage.dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", stage.tenant.name)


@provokes("tenant_name_fixed", "2BP01")
def tenant_name_fixed(stage):
    stage.use()
    stage.dba.run("UPDATE cmk.tenant SET tenant = %s WHERE tenant = %s", unique("renamed"), stage.tenant.name)


@provokes("keys_would_be_lost", "2BP01", names_tenant=False)
def keys_would_be_lost(stage):
    stage.use()
    stage.dba.run("DELETE FROM cmk.data_key WHERE tenant = %s", stage.tenant.name)


@provokes("registry_copied", "55000", names_tenant=False)
def registry_copied(stage):
    original, copy = stage.database(), stage.database(extension=False)
    register = "SELECT cmk.register_tenant('a', 'local:shared'), cmk.grant_access('a', 'postgres')"
    stage.server.execute(register, original)
    stage.server.execute(f"DROP DATABASE {copy}")
    stage.server.execute(f"CREATE DATABASE {copy} TEMPLATE {original}")
    stage.session(dbname=copy).encrypt("a")


@provokes("cannot_prepare", "55000", names_tenant=False)
def cannot_prepare(stage):
    stage.use()
    stage.dba.run("BEGIN")
    stage.manage("suspend_tenant")
    stage.dba.run(f"PREPARE TRANSACTION '{stage.tenant}'")


@provokes("not_a_trigger_call", "39P01", names_tenant=False)
def not_a_trigger_call(stage):
    stage.dba.run("SELECT cmk.registry_guard()")


# Arguments


@provokes("tenant_name", "22023", names_tenant=False)
def tenant_name(stage):
    stage.dba.run("SELECT cmk.register_tenant('', 'local:shared')")


@provokes("key_uri", "22023", names_tenant=False)
def key_uri(stage):
    stage.use("arn:aws:kms:eu-central-1:111122223333:alias/acme", name=stage.expect_name())


@provokes("role_arn", "22023", names_tenant=False)
def role_arn(stage):
    stage.use(name=stage.expect_name(), role_arn="arn:aws:iam::111122223333:user/eve", external_id="id-1")


@provokes("key_options", "22023")
def key_options(stage):
    stage.use(name=stage.expect_name(), role="arn:aws:iam::111122223333:role/acme")


@provokes("external_id", "22023", names_tenant=False)
def external_id(stage):
    stage.use(name=stage.expect_name(), role_arn="arn:aws:iam::111122223333:role/acme")


@provokes("onboarding_format", "22023")
def onboarding_format(stage):
    stage.use(activate=False, to=())
    stage.dba.one("SELECT cmk.onboarding(%s, 'fax')", stage.tenant.name)


@provokes("too_large", "22023", names_tenant=False)
def too_large(stage):
    stage.use("local:shared")
    stage.app.one("SELECT octet_length(cmk_encrypt_text(%s, repeat('x', 1073741800)))", stage.tenant.name)


@provokes("reason_name", "22023", names_tenant=False)
def reason_name(stage):
    stage.use("local:shared")
    stage.app.one("SELECT cmk_try_decrypt(%s, 'x', forgive => ARRAY['whatever'])", stage.tenant.name)


@provokes("access_argument", "22023", names_tenant=False)
def access_argument(stage):
    stage.use("local:shared")
    stage.dba.run(f"SELECT cmk.grant_access('{stage.tenant}', '{stage.app.role}', encrypt => false, decrypt => false)")


@provokes("cloudtrail", "22023")
def cloudtrail(stage):
    stage.use("local:shared", to=())
    stage.dba.run("SELECT cmk.match_cloudtrail(%s, '{}')", str(stage.tenant))


@provokes("null_argument", "22004", names_tenant=False)
def null_argument(stage):
    stage.app.one("SELECT cmk_encrypt(NULL, 'x')")


@provokes("unknown_role", "42704", names_tenant=False)
def unknown_role(stage):
    stage.use("local:shared")
    stage.dba.run("SELECT cmk.grant_access(%s, %s)", stage.tenant.name, unique("nobody"))


@provokes("too_many_names", "22023", names_tenant=False)
def too_many_names(stage):
    forgive = "array_fill('no_grant'::text, ARRAY[257])"
    stage.app.one(f"SELECT cmk_try_decrypt('a', 'x', forgive => {forgive})")


@provokes("database_name", "22023", names_tenant=False)
def database_name(stage):
    stage.dba.run("SELECT cmk.destroy_data_keys('another')")
