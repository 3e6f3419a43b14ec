"""One way to each error that SQL can reach. test_errors.py runs them all and misses none.

`@provokes(reason, sqlstate)`: the function does what fails. `names_tenant=False` where the error can't
name one, because there is none or its name is what is wrong.
"""

from dataclasses import dataclass

from support import flip, unique

ALL = {}

# Reasons that no SQL leads to, and why.
OUT_OF_REACH = {
    "out_of_memory": "needs a memory limit at the right moment; test_hardening.py sets one",
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
    with dba.connection.transaction():
        dba.run("UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE tenant = %s", tenant.name)
        dba.run("UPDATE cmk.tenant SET state = 'shredded' WHERE tenant = %s", tenant.name)


@provokes("unknown_tenant", "42704")
def unknown(stage):
    stage.use()
    stage.tenant = stage.tenant.name.upper()
    stage.app.encrypt(stage.tenant)


@provokes("not_installed", "42704", names_tenant=False)
def not_installed(stage):
    dba = stage.session(dbname=stage.database(extension=False))
    symbol = stage.dba.one("SELECT prosrc FROM pg_proc WHERE proname = 'cmk_encrypt'")
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


# Access


@provokes("no_grant", "42501")
def no_grant(stage):
    stage.use(to=())
    stage.app.encrypt(stage.tenant)


@provokes("registry_write", "42501", names_tenant=False)
def registry_write(stage):
    stage.use("local:shared", to=())
    stage.dba.run(f"GRANT pg_write_all_data TO {stage.app.role}")
    stage.app.run(
        "INSERT INTO cmk.access (tenant, role, encrypt, decrypt)"
        f" VALUES ('{stage.tenant}', '{stage.app.role}', true, true)"
    )


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


# The tenant's key


@provokes("key_access_denied", "55000")
def denied(stage):
    stage.use()
    stage.kms.deny(stage.tenant.key_uri)
    stage.app.encrypt(stage.tenant)


@provokes("key_disabled", "55000")
def disabled(stage):
    stage.state("Disabled")


@provokes("key_pending_deletion", "55000")
def pending_deletion(stage):
    stage.state("PendingDeletion")


@provokes("key_not_found", "55000")
def not_found(stage):
    stage.state("Deleted")


@provokes("key_invalid_state", "55000")
def invalid_state(stage):
    stage.state("PendingImport")


@provokes("key_unusable", "F0000")
def unusable(stage):
    stage.use(stage.kms.key(usage="SIGN_VERIFY", spec="RSA_2048"), name=stage.expect_name())


# The way to KMS


@provokes("kms_unreachable", "58000")
def unreachable(stage):
    stage.use()
    with stage.server.settings(kms_endpoint_url="http://127.0.0.1:1", kms_max_attempts=1):
        stage.app.encrypt(stage.tenant)


@provokes("kms_timeout", "58000")
def timeout(stage):
    stage.use()
    stage.cold_decrypt_under("hang")


@provokes("kms_server_error", "58000")
def server_error(stage):
    stage.use()
    stage.cold_decrypt_under("status", status=500, code="KMSInternalException")


@provokes("kms_throttled", "53000")
def throttled(stage):
    stage.use()
    stage.cold_decrypt_under("throttle")


@provokes("call_budget_spent", "53000")
def budget_spent(stage):
    stage.use()
    with stage.server.settings(tenant_call_budget=1):
        stage.cold_decrypt()


@provokes("credentials", "F0000")
def credentials(stage):
    stage.use()
    stage.cold_decrypt_under("status", status=400, code="UnrecognizedClientException")


@provokes("kms_rejected", "F0000")
def rejected(stage):
    stage.use()
    stage.cold_decrypt_under("status", status=400, code="ValidationException")


@provokes("endpoint", "F0000")
def endpoint(stage):
    stage.use()
    with stage.server.settings(kms_endpoint_url="http://kms.example"):
        stage.app.encrypt(stage.tenant)


@provokes("kms_answer_mismatch", "39000")
def answer_mismatch(stage):
    stage.use()
    stage.cold_decrypt_under("wrong_key_id")


# The settings


@provokes("settings_overridden", "F0000", names_tenant=False)
def settings_overridden(stage):
    stage.session(stage.app.role, options="-c cmk_encrypt.cache_ttl=1d").encrypt("anyone")


@provokes("loaded_too_late", "F0000", names_tenant=False)
def loaded_too_late(stage):
    # PostgreSQL is in parallel mode while Gather runs; the function above it has not loaded the library yet.
    table, function = unique("rows"), unique("seal")
    late = stage.session()
    late.run(f"CREATE TABLE {table} AS SELECT n FROM generate_series(1, 1000) n")
    late.run(
        f"CREATE FUNCTION {function}(n int) RETURNS bytea LANGUAGE plpgsql PARALLEL RESTRICTED"
        " AS $$ BEGIN RETURN cmk_encrypt('anyone', int4send(n)); END $$"
    )
    for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0"):
        late.run(f"SET {setting}")
    query = f"SELECT {function}(n) FROM {table}"
    plan = late.all(f"EXPLAIN {query}")
    assert any("Gather" in line for (line,) in plan), plan
    late.all(query)


# Local keys


@provokes("local_keys_off", "F0000")
def local_keys_off(stage):
    stage.use("local:shared")
    with stage.server.settings(local_keys="off"):
        stage.app.encrypt(stage.tenant)


@provokes("local_key_file", "F0000")
def local_key_file(stage):
    name = unique("open")
    path = stage.server.make_local_key(name)
    stage.use(f"local:{name}")
    path.chmod(0o644)
    stage.app.encrypt(stage.tenant)


# The value and the registry


@provokes("not_authentic", "39000")
def not_authentic(stage):
    stage.use()
    stage.app.decrypt(stage.tenant, flip(stage.app.encrypt(stage.tenant), 8 * 60))


@provokes("unknown_data_key", "39000")
def unknown_data_key(stage):
    foreign = stage.app.encrypt(stage.use())
    stage.app.decrypt(stage.use(), foreign)


@provokes("wrapped_key_rejected", "39000")
def wrapped_key_rejected(stage):
    stage.use()
    stage.dba.run(
        "UPDATE cmk.data_key SET wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1) WHERE tenant = %s",
        stage.tenant.name,
    )
    stage.app.encrypt(stage.tenant)


@provokes("commitment_mismatch", "39000")
def commitment_mismatch(stage):
    # The bytes behind the dek_id, which a constraint ties to the first sixteen.
    stage.use()
    stage.dba.run(
        "UPDATE cmk.data_key SET commitment = set_byte(commitment, 31, get_byte(commitment, 31) # 1)"
        " WHERE tenant = %s",
        stage.tenant.name,
    )
    stage.app.encrypt(stage.tenant)


@provokes("not_an_envelope", "22P03")
def not_an_envelope(stage):
    stage.app.decrypt(stage.use(), b"plain string")


@provokes("unknown_suite", "22P03")
def unknown_suite(stage):
    stage.app.decrypt(stage.use(), b"\xc1\x02" + bytes(100))


@provokes("not_text", "22021")
def not_text(stage):
    stage.use()
    stage.app.one("SELECT cmk_decrypt_text(%s, %b)", stage.tenant.name, stage.app.encrypt(stage.tenant, b"\xff"))


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


@provokes("external_id", "22023", names_tenant=False)
def external_id(stage):
    stage.use(name=stage.expect_name(), role_arn="arn:aws:iam::111122223333:role/acme")


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


@provokes("null_argument", "22004", names_tenant=False)
def null_argument(stage):
    stage.app.one("SELECT cmk_encrypt(NULL, 'x')")
