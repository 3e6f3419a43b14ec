"""Transactions, subtransactions, prepared statements and parallel plans."""

import pytest

from support import CANARY, fails, grant, unique


def registered(dba, name):
    return dba.row(
        "SELECT (SELECT count(*) FROM cmk.tenant WHERE tenant = %s), (SELECT count(*) FROM cmk.data_key WHERE tenant = %s)",
        name, name,
    )


@pytest.mark.parametrize("provider", ["local", "aws"])
def test_a_rolled_back_registration_leaves_nothing(dba, kms, provider):
    name = unique("tenant")
    uri = "local:shared" if provider == "local" else kms.key()
    dba.run("BEGIN")
    dba.run("SELECT cmk.register_tenant(%s, %s)", name, uri)
    dba.run("SELECT cmk.grant_access(%s, 'postgres')", name)
    envelope = dba.encrypt(name)
    assert dba.decrypt(name, envelope) == CANARY, "usable in its own transaction"
    dba.connection.rollback()
    assert registered(dba, name) == (0, 0)
    with fails("42704", "unknown_tenant", name):
        dba.decrypt(name, envelope)
    dba.run("SELECT cmk.register_tenant(%s, %s)", name, uri)
    dba.run("SELECT cmk.grant_access(%s, 'postgres')", name)
    with fails("39000", "unknown_data_key", name):
        dba.decrypt(name, envelope)


def test_a_registration_rolled_back_to_a_savepoint_leaves_nothing(dba):
    kept, undone = unique("tenant"), unique("tenant")
    with dba.connection.transaction():
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", kept)
        dba.run("SAVEPOINT before")
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", undone)
        dba.run("ROLLBACK TO before")
    assert registered(dba, kept) == (1, 1) and registered(dba, undone) == (0, 0)


def test_a_failed_registration_leaves_nothing_and_the_subtransaction_goes_on(dba, kms):
    name, arn = unique("tenant"), kms.key()
    kms.deny(arn, operations=["Decrypt"])  # the data key can be made but not unwrapped
    dba.run("BEGIN")
    dba.run("SAVEPOINT before")
    with fails("55000", "key_access_denied", name):
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, arn)
    dba.run("ROLLBACK TO before")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    dba.run("COMMIT")
    assert registered(dba, name) == (1, 1)


def test_a_rolled_back_rotation_leaves_the_old_key_current(dba, app, local_tenant):
    tenant = local_tenant()
    old = app.encrypt(tenant)
    grant(dba, tenant, "postgres")
    dba.run("BEGIN")
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    lost = dba.encrypt(tenant)
    assert lost[2:18] != old[2:18]
    dba.connection.rollback()
    for session in (dba, app):
        assert session.encrypt(tenant)[2:18] == old[2:18]
        with fails("39000", "unknown_data_key", tenant):
            session.decrypt(tenant, lost)


def test_an_error_caught_in_plpgsql_leaves_the_cache_and_the_transaction_usable(app, local_tenant):
    tenant = local_tenant()
    name = tenant.name
    app.run("BEGIN")
    app.run("CREATE TEMP TABLE caught (code text, detail text)")
    app.run(
        f"""DO $$ DECLARE code text; detail text; BEGIN
        FOR i IN 1..50 LOOP
            BEGIN
                PERFORM cmk_decrypt('{name}', cmk_encrypt('{name}', 'x', 'here'), 'there');
            EXCEPTION WHEN external_routine_invocation_exception THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
                INSERT INTO caught VALUES (code, detail);
            END;
        END LOOP; END $$"""
    )
    assert app.all("SELECT DISTINCT code, detail, count(*) OVER () FROM caught GROUP BY code, detail, ctid")[0] == (
        "39000", f"reason=not_authentic tenant={name}", 50,
    )
    assert app.decrypt(tenant, app.encrypt(tenant)) == CANARY
    app.run("COMMIT")


@pytest.mark.parametrize(
    "call",
    [
        "register_tenant('another', 'local:shared')",
        "activate_tenant(%(tenant)s)",
        "suspend_tenant(%(tenant)s)",
        "resume_tenant(%(tenant)s)",
        "rotate_tenant(%(tenant)s)",
        "evict(%(tenant)s)",
        "grant_access(%(tenant)s, 'postgres')",
        "revoke_access(%(tenant)s, 'postgres')",
    ],
)
def test_the_registry_cannot_be_changed_in_a_read_only_transaction(dba, kms, local_tenant, call):
    tenant = local_tenant()
    before = kms.counters()["total"]
    dba.run("BEGIN READ ONLY")
    with fails("25006", "read_only"):
        dba.connection.execute(f"SELECT cmk.{call}", {"tenant": tenant.name})
    dba.connection.rollback()
    assert kms.counters()["total"] == before, "refused before anything is asked of KMS"


def test_values_can_be_read_and_made_in_a_read_only_transaction(app, local_tenant):
    tenant = local_tenant()
    app.run("BEGIN READ ONLY")
    assert app.decrypt(tenant, app.encrypt(tenant)) == CANARY
    app.run("COMMIT")


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_prepared_statements_follow_registry_changes(app, dba, local_tenant, mode):
    tenant = local_tenant()
    first = app.encrypt(tenant)
    app.run(f"SET plan_cache_mode = {mode}")
    app.run("PREPARE seal(text, bytea) AS SELECT cmk_encrypt($1, $2)")
    app.run("PREPARE open(text, bytea) AS SELECT cmk_decrypt($1, $2)")

    def execute(statement, value):
        return app.one(f"EXECUTE {statement}('{tenant}', '\\x{value.hex()}')")

    assert execute("open", first) == CANARY
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    assert execute("seal", b"x")[2:18] != first[2:18]
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    for statement, value in (("open", first), ("seal", b"x")):
        with fails("55000", "tenant_suspended", tenant):
            execute(statement, value)
    dba.run("SELECT cmk.resume_tenant(%s)", tenant.name)
    assert execute("open", first) == CANARY


def test_encryption_is_never_folded_into_a_plan(app, local_tenant):
    tenant = local_tenant()
    rows = app.all("SELECT cmk_encrypt(%s, 'constant') FROM generate_series(1, 3)", tenant.name)
    assert len(set(rows)) == 3
    plan = app.all("EXPLAIN (VERBOSE, COSTS OFF) SELECT cmk_decrypt('nobody', '\\xc101')")
    assert "cmk_decrypt" in str(plan), "decrypt is not evaluated by the planner"


FORCE_PARALLEL = [
    "parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0",
    "max_parallel_workers_per_gather = 2",
]


def test_parallel_plans_give_the_same_answers_under_the_same_rules(app, dba, session, role, local_tenant):
    tenant, table = local_tenant(), unique("wide")
    dba.run(f"CREATE TABLE {table} (id int, sealed bytea) WITH (parallel_workers = 2)")
    dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    app.run(f"INSERT INTO {table} SELECT n, cmk_encrypt_text(%s, 'v' || n) FROM generate_series(1, 5000) n", tenant.name)
    dba.run(f"ANALYZE {table}")
    count = f"SELECT count(*) FROM {table} WHERE cmk_decrypt_text(%s, sealed) = 'v' || id"
    force = "debug_parallel_query" if app.connection.info.server_version >= 160000 else "force_parallel_mode"
    stranger = session(role())
    for user in (app, stranger):
        for setting in (*FORCE_PARALLEL, f"{force} = on"):
            user.run(f"SET {setting}")
    plan = str(app.all(f"EXPLAIN SELECT count(*) FROM {table} WHERE id > 0"))
    assert "Gather" in plan, "the settings do force parallel plans"
    assert app.one(count, tenant.name) == 5000
    with fails("42501", "no_grant", tenant):
        stranger.one(count, tenant.name)
    app.run(f"DELETE FROM {table} WHERE id > 10")
    app.run(f"UPDATE {table} SET sealed = cmk_encrypt_text(%s, 'v' || id)", tenant.name)
    assert app.one(count, tenant.name) == 10
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "tenant_suspended", tenant):
        app.one(count, tenant.name)


def test_cursors_and_returning_work_across_a_rotation(app, dba, local_tenant):
    tenant, table = local_tenant(), unique("slow")
    dba.run(f"CREATE TABLE {table} (sealed bytea)")
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    app.run(f"INSERT INTO {table} SELECT cmk_encrypt(%s, 'x') FROM generate_series(1, 20)", tenant.name)
    app.run("BEGIN")
    app.run(f"DECLARE c CURSOR FOR SELECT cmk_decrypt('{tenant}', sealed) FROM {table}")
    assert app.all("FETCH 10 FROM c") == [(b"x",)] * 10
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    assert app.all("FETCH 20 FROM c") == [(b"x",)] * 10
    app.run("COMMIT")
