"""A change made in one session holds in every other, warm ones included, from its commit on."""

import hashlib
from concurrent.futures import wait
from contextlib import contextmanager

import pytest

from support import CANARY, check_failure, fails, fails_with, grant, wait_for_lock

BARRIER = 4711


@pytest.fixture(params=["local", "aws"])
def warm(request, app, tenant):
    """A tenant that `app` has in its cache, and an envelope."""
    made = tenant("local:shared" if request.param == "local" else None)
    envelope = app.encrypt(made)
    assert app.decrypt(made, envelope) == CANARY
    return made, envelope


# Changes that end a session's right to a tenant's data: what to run and what it means to the others.
TAKE_AWAY = {
    "revoke": ("SELECT cmk.revoke_access(%(tenant)s, %(role)s)", "42501", "no_grant"),
    "suspend": ("SELECT cmk.suspend_tenant(%(tenant)s)", "55000", "tenant_suspended"),
    "delete from access": ("DELETE FROM cmk.access WHERE tenant = %(tenant)s", "42501", "no_grant"),
    "update access": ("UPDATE cmk.access SET decrypt = false WHERE tenant = %(tenant)s", "42501", "no_grant"),
    "update tenant": (
        "UPDATE cmk.tenant SET state = 'suspended' WHERE tenant = %(tenant)s", "55000", "tenant_suspended",
    ),
    "destroy in data_key": (
        "UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE tenant = %(tenant)s",
        "55000", "tenant_shredded",
    ),
}
each_take_away = pytest.mark.parametrize("change, sqlstate, reason", TAKE_AWAY.values(), ids=list(TAKE_AWAY))


def apply(dba, change, tenant, session):
    dba.connection.execute(change, {"tenant": tenant.name, "role": session.role})


@each_take_away
def test_what_is_taken_away_is_gone_from_a_warm_session_at_commit(app, dba, warm, change, sqlstate, reason):
    tenant, envelope = warm
    with dba.connection.transaction():
        apply(dba, change, tenant, app)
        assert app.decrypt(tenant, envelope) == CANARY, "not before commit"
    with fails(sqlstate, reason, tenant):
        app.decrypt(tenant, envelope)


@each_take_away
def test_what_is_taken_away_is_gone_in_the_middle_of_a_statement(app, dba, warm, change, sqlstate, reason):
    tenant, envelope = warm
    dba.run("SELECT pg_advisory_lock(%s)", BARRIER)
    running = app.start(
        "SELECT cmk_decrypt(%s, %b), pg_advisory_xact_lock_shared(%s), cmk_decrypt(%s, %b)",
        tenant.name, envelope, BARRIER, tenant.name, envelope,
    )
    wait_for_lock(dba, app.pid)
    apply(dba, change, tenant, app)
    dba.run("SELECT pg_advisory_unlock(%s)", BARRIER)
    check_failure(running.exception(timeout=10), sqlstate, reason, tenant)


@each_take_away
def test_an_old_snapshot_keeps_no_old_rights(app, dba, warm, change, sqlstate, reason):
    tenant, envelope = warm
    app.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert app.decrypt(tenant, envelope) == CANARY
    apply(dba, change, tenant, app)
    with fails(sqlstate, reason, tenant):
        app.decrypt(tenant, envelope)
    app.connection.rollback()


@each_take_away
def test_a_change_that_is_rolled_back_never_was(app, dba, warm, change, sqlstate, reason):
    tenant, envelope = warm
    grant(dba, tenant, "postgres")
    dba.run("BEGIN")
    apply(dba, change, tenant, app)
    if reason != "no_grant":
        # Its own session sees the change at once, and the old state after the rollback.
        with fails(sqlstate, reason, tenant):
            dba.decrypt(tenant, envelope)
    dba.connection.rollback()
    assert dba.decrypt(tenant, envelope) == CANARY
    assert app.decrypt(tenant, envelope) == CANARY


@each_take_away
def test_a_change_rolled_back_to_a_savepoint_never_was(app, dba, warm, change, sqlstate, reason):
    tenant, envelope = warm
    grant(dba, tenant, "postgres")
    dba.run("BEGIN")
    dba.run("SAVEPOINT before")
    apply(dba, change, tenant, app)
    dba.run("ROLLBACK TO before")
    assert dba.decrypt(tenant, envelope) == CANARY
    dba.run("COMMIT")
    assert dba.decrypt(tenant, envelope) == CANARY
    assert app.decrypt(tenant, envelope) == CANARY


def test_a_long_running_query_stops_soon_after_a_revoke(app, dba, warm):
    tenant, envelope = warm
    running = app.start(
        "SELECT count(cmk_decrypt(%s, %b)), count(pg_sleep(0.001)) FROM generate_series(1, 20000)",
        tenant.name, envelope,
    )
    while not dba.one("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s", app.pid):
        assert not running.done()
    dba.run("SELECT cmk.revoke_access(%s, %s)", tenant.name, app.role)
    check_failure(running.exception(timeout=2), "42501", "no_grant", tenant)


def test_what_is_granted_works_in_a_session_that_was_refused(session, role, dba, warm):
    tenant, envelope = warm
    user = session(role())
    with fails("42501", "no_grant", tenant):
        user.decrypt(tenant, envelope)
    with dba.connection.transaction():
        grant(dba, tenant, user.role)
        with fails("42501", "no_grant", tenant):
            user.decrypt(tenant, envelope)
    assert user.decrypt(tenant, envelope) == CANARY


def test_resume_holds_in_a_session_that_was_refused(app, dba, warm):
    tenant, envelope = warm
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "tenant_suspended", tenant):
        app.decrypt(tenant, envelope)
    dba.run("SELECT cmk.resume_tenant(%s)", tenant.name)
    assert app.decrypt(tenant, envelope) == CANARY


def test_activation_holds_in_a_session_that_was_refused(app, dba, tenant):
    made = tenant(activate=False)
    with fails("55000", "tenant_pending", made):
        app.encrypt(made)
    assert dba.one("SELECT cmk.activate_tenant(%s)", made.name) == "active"
    assert app.decrypt(made, app.encrypt(made)) == CANARY


def test_registration_holds_in_a_session_that_knew_no_such_tenant(session, role, dba, local_tenant):
    user, name = session(role()), "later_" + role()
    grant(dba, "*", user.role)
    with fails("42704", "unknown_tenant", name):
        user.encrypt(name)
    tenant = local_tenant(name=name, to=())
    assert user.decrypt(tenant, user.encrypt(tenant)) == CANARY


def test_rotation_in_one_session_is_what_another_encrypts_under(app, dba, warm):
    tenant, old = warm
    with dba.connection.transaction():
        dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        assert app.encrypt(tenant)[2:18] == old[2:18], "not before commit"
    new = app.encrypt(tenant)
    assert new[2:18] != old[2:18]
    assert dba.row("SELECT version, state FROM cmk.inspect(%b)", new) == (2, "current")
    assert app.decrypt(tenant, old) == app.decrypt(tenant, new) == CANARY


def test_evict_empties_every_sessions_cache_of_that_tenant_only(app, session, dba, kms, tenant):
    evicted, kept = tenant(), tenant()
    second = session(app.role)
    for user in (app, second):
        for made in (evicted, kept):
            user.encrypt(made)
    before = {made: kms.calls(made.key_uri) for made in (evicted, kept)}
    with dba.connection.transaction():
        dba.run("SELECT cmk.evict(%s)", evicted.name)
        app.encrypt(evicted)
        assert kms.calls(evicted.key_uri) == before[evicted], "not before commit"
    for user in (app, second):
        for made in (evicted, kept):
            user.encrypt(made)
            user.encrypt(made)
    assert kms.calls(evicted.key_uri) == before[evicted] + 2
    assert kms.calls(kept.key_uri) == before[kept]


def test_an_unrelated_registry_change_costs_no_kms_call(app, dba, kms, tenant):
    made = tenant()
    app.encrypt(made)
    before = kms.calls(made.key_uri)
    for _ in range(3):
        tenant("local:shared")
        app.encrypt(made)
    assert kms.calls(made.key_uri) == before


def place(name):
    """Where changes of a tenant are counted (src/pg/registry/invalidation.rs)."""
    return int.from_bytes(hashlib.sha256(b"cmk_encrypt/v1/tenant" + name.encode()).digest()[:2], "big") % 4096


@pytest.fixture
def quiet(dba):
    """No autovacuum of the registry: what it writes down of a table has sessions look at it again."""
    tables = ("cmk.tenant", "cmk.data_key", "cmk.access")
    for table in tables:
        dba.run(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    yield
    for table in tables:
        dba.run(f"ALTER TABLE {table} RESET (autovacuum_enabled)")


@contextmanager
def registry_locked(session, reader):
    """Whoever reads the registry fails."""
    administrator = session()
    administrator.run("BEGIN")
    administrator.run("LOCK TABLE cmk.tenant, cmk.data_key, cmk.access")
    try:
        reader.run("SET lock_timeout = '100ms'")
        yield
    finally:
        administrator.connection.rollback()
        reader.run("RESET lock_timeout")


CHANGES = (
    "UPDATE cmk.tenant SET rotate_after = '1 day' WHERE tenant = %s",
    "UPDATE cmk.data_key SET state = state WHERE tenant = %s",
    "UPDATE cmk.access SET encrypt = encrypt WHERE tenant = %s",
    "SELECT cmk.evict(%s)",
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_tenant_has_no_session_read_others_again(app, session, dba, local_tenant, quiet, change):
    number = CHANGES.index(change)
    changed, other = (local_tenant(name=f"{name}_{number}") for name in ("the_one_that_changes", "the_other_one"))
    assert place(changed.name) != place(other.name), "take other names"
    envelopes = [app.encrypt(tenant) for tenant in (changed, other)]
    dba.run(change, changed.name)
    with registry_locked(session, app):
        assert app.decrypt(other, envelopes[1]) == CANARY
        with fails_with("55P03"):
            app.decrypt(changed, envelopes[0])
    assert app.decrypt(changed, envelopes[0]) == CANARY


def test_tenants_that_share_a_place_share_nothing_else(app, session, dba, local_tenant):
    seen, number = {}, 0
    while (of := place(f"sharer_{number}")) not in seen:
        seen[of], number = f"sharer_{number}", number + 1
    one, other = (local_tenant(name=name) for name in (seen[of], f"sharer_{number}"))
    envelopes = [app.encrypt(tenant) for tenant in (one, other)]
    dba.run("SELECT cmk.revoke_access(%s, %s)", one.name, app.role)
    with registry_locked(session, app), fails_with("55P03"):
        app.decrypt(other, envelopes[1])
    assert app.decrypt(other, envelopes[1]) == CANARY
    with fails("42501", "no_grant", one):
        app.decrypt(one, envelopes[0])


@pytest.mark.parametrize("statements", ["one", "many"])
def test_a_transaction_that_changes_many_tenants_is_heard_of_for_each(app, dba, local_tenant, statements):
    # More of them than a transaction sends messages for.
    made = [local_tenant(name=f"one_of_many_{statements}_{n}") for n in range(300)]
    names, read = [tenant.name for tenant in made], "SELECT count(cmk_decrypt(t, cmk_encrypt(t, 'x'))) FROM unnest(%s::text[]) t"
    assert app.one(read, names) == 300
    with dba.connection.transaction():
        if statements == "one":
            dba.run("UPDATE cmk.access SET decrypt = false WHERE tenant = ANY (%s)", names)
        else:
            for name in names:
                dba.run("UPDATE cmk.access SET decrypt = false WHERE tenant = %s", name)
    for tenant in made:
        with fails("42501", "no_grant", tenant):
            app.one(read, [tenant.name])


def test_what_concerns_all_tenants_reaches_all(session, role, dba, local_tenant):
    user, made = session(role()), [local_tenant(to=()) for _ in range(2)]
    grant(dba, "*", user.role)
    envelopes = [user.encrypt(tenant) for tenant in made]
    dba.run("SELECT cmk.revoke_access('*', %s)", user.role)
    for tenant, envelope in zip(made, envelopes):
        with fails("42501", "no_grant", tenant):
            user.decrypt(tenant, envelope)


def test_another_key_uri_in_the_table_is_not_served_from_the_cache(app, dba, kms, tenant):
    made = tenant()
    envelope = app.encrypt(made)
    dba.run("UPDATE cmk.tenant SET key_uri = %s WHERE tenant = %s", kms.key(), made.name)
    with fails("39000", "wrapped_key_rejected", made):
        app.decrypt(made, envelope)


def test_a_dropped_and_recreated_extension_forgets_everything(session, role, database):
    where = database()
    dba, user = session(dbname=where), session(role(), dbname=where)

    def register():
        dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
        grant(dba, "a", user.role)

    register()
    envelope = user.encrypt("a")
    dba.run("SELECT cmk.destroy_data_keys(%s)", where)
    dba.run("DROP EXTENSION cmk_encrypt")
    with fails_with("42883"):
        user.decrypt("a", envelope)
    dba.run("CREATE EXTENSION cmk_encrypt")
    with fails("42704", "unknown_tenant", "a"):
        user.decrypt("a", envelope)
    register()
    with fails("39000", "unknown_data_key", "a"):
        user.decrypt("a", envelope)
    assert user.decrypt("a", user.encrypt("a")) == CANARY


def test_many_warm_sessions_all_see_one_revoke(app, session, dba, warm):
    tenant, envelope = warm
    sessions = [session(app.role) for _ in range(20)]
    for user in sessions:
        assert user.decrypt(tenant, envelope) == CANARY
    dba.run("SELECT cmk.revoke_access(%s, %s)", tenant.name, app.role)
    running = [user.start("SELECT cmk_decrypt(%s, %b)", tenant.name, envelope) for user in sessions]
    wait(running, timeout=20)
    for future in running:
        check_failure(future.exception(timeout=0), "42501", "no_grant", tenant)


def test_a_revoke_is_not_lost_in_a_flood_of_other_messages(app, dba, warm):
    # More than the queue between backends holds: PostgreSQL then says "anything may have changed".
    tenant, envelope = warm
    dba.run("SELECT cmk.revoke_access(%s, %s)", tenant.name, app.role)
    dba.run(
        "DO $$ BEGIN FOR i IN 1..400 LOOP CREATE TEMP TABLE flood (a int PRIMARY KEY, b text); DROP TABLE flood;"
        " END LOOP; END $$"
    )
    with fails("42501", "no_grant", tenant):
        app.decrypt(tenant, envelope)


def test_changes_written_as_a_replica_hold_too(app, dba, warm):
    tenant, envelope = warm
    dba.run("SET session_replication_role = replica")
    dba.run("UPDATE cmk.tenant SET state = 'suspended' WHERE tenant = %s", tenant.name)
    with fails("55000", "tenant_suspended", tenant):
        app.decrypt(tenant, envelope)


def test_a_transaction_that_changed_the_registry_cannot_be_prepared(app, dba, warm):
    tenant, envelope = warm
    dba.run("BEGIN")
    dba.run("SELECT cmk.revoke_access(%s, %s)", tenant.name, app.role)
    with fails("55000", "cannot_prepare"):
        dba.run(f"PREPARE TRANSACTION 'prepared {tenant}'")
    assert dba.usable()
    assert app.decrypt(tenant, envelope) == CANARY, "it was rolled back"


@pytest.mark.parametrize("command", ["VACUUM FULL", "REINDEX TABLE", "CLUSTER {} USING {}_pkey", "ANALYZE"])
def test_maintenance_of_the_registry_disturbs_no_session(session, role, database, command):
    where = database()
    dba, user = session(dbname=where), session(role(), dbname=where)
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    grant(dba, "a", user.role)
    envelope = user.encrypt("a")
    for table in ("cmk.tenant", "cmk.data_key"):
        short = table.removeprefix("cmk.")
        dba.run(command.format(table, short) if "{}" in command else f"{command} {table}")
        assert user.decrypt("a", envelope) == CANARY
        assert session(user.role, dbname=where).decrypt("a", envelope) == CANARY
