"""Several administrators and many applications at once: one clean winner, no torn state."""

from collections import Counter
from concurrent.futures import wait

import pytest

from support import CANARY, check_failure, fails, fails_with, unique, wait_for_lock


def outcomes(futures):
    wait(futures, timeout=30)
    return [future.exception(timeout=0) for future in futures]


@pytest.fixture
def other(session):
    return session()


def test_a_second_registration_waits_and_then_finds_the_tenant_there(dba, other):
    name = unique("tenant")
    with dba.connection.transaction():
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
        running = other.start("SELECT cmk.register_tenant(%s, 'local:shared')", name)
        wait_for_lock(dba, other.pid)
    check_failure(running.exception(timeout=10), "42710", "tenant_exists", name)
    assert dba.row("SELECT state, data_keys FROM cmk.tenants WHERE tenant = %s", name) == ("active", 1)


def test_a_second_registration_wins_if_the_first_is_rolled_back(dba, other):
    name = unique("tenant")
    dba.run("BEGIN")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    running = other.start("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    wait_for_lock(dba, other.pid)
    dba.run("ROLLBACK")
    assert running.result(timeout=10) == [("active",)]
    assert dba.row("SELECT state, data_keys FROM cmk.tenants WHERE tenant = %s", name) == ("active", 1)


@pytest.mark.parametrize("uri", ["local:shared", None], ids=["local", "aws"])
def test_of_many_registrations_at_once_exactly_one_wins(session, dba, kms, uri):
    name, uri = unique("tenant"), uri or kms.key()
    sessions = [session() for _ in range(8)]
    errors = outcomes([s.start("SELECT cmk.register_tenant(%s, %s)", name, uri) for s in sessions])
    assert errors.count(None) == 1
    for error in filter(None, errors):
        check_failure(error, "42710", "tenant_exists", name)
    assert dba.row("SELECT data_keys, version FROM cmk.tenants WHERE tenant = %s", name) == (1, 1)
    assert all(s.usable() for s in sessions)


CHANGES = ["rotate_tenant", "suspend_tenant", "evict"]


@pytest.mark.parametrize("first", CHANGES)
def test_a_rotation_of_a_tenant_that_another_session_is_changing_is_refused_at_once(
    dba, other, local_tenant, first
):
    tenant = local_tenant()
    with dba.connection.transaction():
        dba.run(f"SELECT cmk.{first}(%s)", tenant.name)
        with fails("55P03", "tenant_busy", tenant):
            other.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    assert other.usable()


@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("brake", ["suspend_tenant", "evict"])
def test_the_brakes_wait_for_another_change_and_then_take_effect(dba, other, local_tenant, first, brake):
    tenant = local_tenant()
    with dba.connection.transaction():
        dba.run(f"SELECT cmk.{first}(%s)", tenant.name)
        running = other.start(f"SELECT cmk.{brake}(%s)", tenant.name)
        wait_for_lock(dba, other.pid)
    if first == brake == "suspend_tenant":
        check_failure(running.exception(timeout=10), "55000", "tenant_state_conflict", tenant)
    else:
        assert running.exception(timeout=10) is None
    suspended = "suspend_tenant" in (first, brake)
    assert dba.one("SELECT state FROM cmk.tenant WHERE tenant = %s", tenant.name) == ("suspended" if suspended else "active")


def test_of_many_rotations_at_once_winners_and_losers_add_up(session, dba, app, tenant):
    made = tenant()
    old = app.encrypt(made)
    sessions = [session() for _ in range(8)]
    errors = outcomes([s.start("SELECT cmk.rotate_tenant(%s)", made.name) for s in sessions])
    winners = errors.count(None)
    assert winners >= 1
    for error in filter(None, errors):
        check_failure(error, "55P03", "tenant_busy", made)
    states = Counter(state for (state,) in dba.all("SELECT state FROM cmk.data_key WHERE tenant = %s", made.name))
    assert states == {"current": 1, "retired": winners}
    assert app.decrypt(made, old) == app.decrypt(made, app.encrypt(made)) == CANARY


def test_rotations_of_different_tenants_do_not_disturb_each_other(dba, other, local_tenant):
    first, second = local_tenant(), local_tenant()
    with dba.connection.transaction():
        dba.run("SELECT cmk.rotate_tenant(%s)", first.name)
        assert other.one("SELECT cmk.rotate_tenant(%s)", second.name) == 2


def test_readers_do_not_wait_for_an_administrator(dba, app, local_tenant):
    tenant = local_tenant()
    envelope = app.encrypt(tenant)
    with dba.connection.transaction():
        dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        app.run("SET lock_timeout = '100ms'")
        assert app.decrypt(tenant, envelope) == CANARY
        assert app.decrypt(tenant, app.encrypt(tenant)) == CANARY


def test_a_suspension_during_a_cold_unwrap_wins(dba, app, kms, tenant):
    made = tenant()
    envelope = app.encrypt(made)
    dba.run("SELECT cmk.evict(%s)", made.name)
    before = kms.calls(made.key_uri)
    with kms.fault("hang", arn=made.key_uri):
        running = app.start("SELECT cmk_decrypt(%s, %b)", made.name, envelope)
        while kms.calls(made.key_uri) == before:
            assert not running.done(), running.exception()
        dba.run("SELECT cmk.suspend_tenant(%s)", made.name)
    check_failure(running.exception(timeout=10), "55000", "tenant_suspended", made)


def test_many_sessions_encrypt_and_decrypt_for_many_tenants_at_once(session, app, kms, tenant, local_tenant):
    tenants = [tenant() for _ in range(5)] + [local_tenant() for _ in range(5)]
    names = [made.name for made in tenants]
    before = {made: kms.calls(made.key_uri) for made in tenants[:5]}
    sessions = [session(app.role) for _ in range(40)]
    running = [
        user.start(
            "SELECT count(*) FILTER (WHERE cmk_decrypt(t, cmk_encrypt(t, %b)) = %b)"
            " FROM generate_series(1, 50), unnest(%s::text[]) t",
            CANARY, CANARY, names,
        )
        for user in sessions
    ]
    assert [future.result(timeout=60) for future in running] == [[(500,)]] * 40
    # One unwrap for each tenant and backend, however the sessions interleave.
    assert all(kms.calls(made.key_uri) == before[made] + 40 for made in tenants[:5])


@pytest.mark.parametrize("brake", ["suspend_tenant", "evict"])
def test_a_brake_that_waits_obeys_lock_timeout(dba, other, local_tenant, brake):
    tenant = local_tenant()
    other.run("SET lock_timeout = '100ms'")
    with dba.connection.transaction():
        dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        with fails_with("55P03"):
            other.run(f"SELECT cmk.{brake}(%s)", tenant.name)
    other.run(f"SELECT cmk.{brake}(%s)", tenant.name)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_on_an_outdated_snapshot_is_a_serialization_failure(dba, other, local_tenant, change):
    tenant = local_tenant()
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.one("SELECT count(*) FROM cmk.tenant")
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    dba.run("SELECT cmk.evict(%s)", tenant.name)
    with fails_with("40001"):
        other.run(f"SELECT cmk.{change}(%s)", tenant.name)
    assert other.usable()
