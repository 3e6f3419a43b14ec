"""Ways to the errors of keys and values: KMS, the server's settings, the bytes in a column.

They add themselves to `ALL` of provocations.py.
"""

from provocations import ALL, provokes, unguarded
from support import flip, unique

__all__ = ["ALL"]


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


# Moving to another key


@provokes("rewrap_target", "22023")
def rewrap_target(stage):
    stage.use()
    stage.dba.run("SELECT cmk.rewrap_tenant(%s, %s)", stage.tenant.name, stage.tenant.key_uri)


@provokes("rewrap_pending", "55000")
def rewrap_pending(stage):
    stage.use()
    for _ in range(2):
        stage.dba.run("SELECT cmk.rewrap_tenant(%s, %s)", stage.tenant.name, stage.kms.key())


@provokes("rewrap_incomplete", "55000")
def rewrap_incomplete(stage):
    stage.use()
    stage.dba.run("SELECT cmk.rewrap_tenant(%s, %s)", stage.tenant.name, stage.kms.key())
    stage.manage("rotate_tenant")
    stage.manage("confirm_rewrap")


@provokes("no_rewrap", "55000")
def no_rewrap(stage):
    stage.use()
    stage.manage("confirm_rewrap")


# The way to KMS


@provokes("service_principal", "F0000")
def service_principal(stage):
    stage.use(activate=False, to=())
    with stage.server.settings(service_principal="postgres"):
        stage.manage("key_policy")


@provokes("no_key_policy", "42809")
def no_key_policy(stage):
    stage.use("local:shared", activate=False, to=())
    stage.manage("key_policy")


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


def damage(stage, column, byte):
    with unguarded(stage.dba):
        stage.dba.run(
            f"UPDATE cmk.data_key SET {column} ="
            f" set_byte({column}, {byte}, get_byte({column}, {byte}) # 1) WHERE tenant = %s",
            stage.tenant.name,
        )


@provokes("wrapped_key_rejected", "39000")
def wrapped_key_rejected(stage):
    stage.use()
    damage(stage, "wrapped", 40)
    stage.app.encrypt(stage.tenant)


@provokes("commitment_mismatch", "39000")
def commitment_mismatch(stage):
    # The bytes behind the dek_id, which a constraint ties to the first sixteen.
    stage.use()
    damage(stage, "commitment", 31)
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
