"""What the monitor spends and tells over time: budgets, intervals, unused data keys, quick changes, restarts."""

import contextlib
import time
from datetime import timedelta

import pytest

from server import until
from watched import Watched, import_material, running, schedule_deletion

REVOKED = ("revoked", "usable", "key_disabled")


@pytest.fixture(scope="module")
def watched_server(make_server, kms_process):
    with running(make_server, monitor_databases="postgres") as server:
        yield Watched(server, kms_process)


@pytest.fixture
def watched(watched_server, kms):
    return watched_server


def test_a_data_key_that_nobody_uses_any_more_dies_and_costs_no_calls(make_server, kms):
    with running(make_server, cache_ttl="4s", monitor_interval="1h", monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        tenant = watched.tenant()
        time.sleep(3.5)  # until the monitor has seen that the extension is there
        watched.dba.encrypt(tenant)
        time.sleep(6)
        asked = kms.calls(tenant.key_uri)
        time.sleep(4)
        assert kms.calls(tenant.key_uri) == asked
        bound = watched.dba.row("SELECT dark_within, holders FROM cmk.revocation_bound(%s)", tenant.name)
        assert bound == (timedelta(0), 0)


def test_another_interval_holds_at_once(make_server, kms):
    with running(make_server, monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        tenant = watched.tenant()
        watched.checks(tenant)
        with server.settings(monitor_interval="1h"):
            time.sleep(1)  # for a check that had begun
            before = kms.calls(tenant.key_uri)
            time.sleep(3)
            assert kms.calls(tenant.key_uri) == before
        watched.checks(tenant)


def test_the_budget_counts_every_call(make_server, kms):
    with running(make_server, monitor_budget="60", monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        keys = {watched.tenant().key_uri for _ in range(6)}
        time.sleep(1)
        began = time.time()
        time.sleep(6)
        asked = [e["operation"] for e in kms.log() if e["key_arn"] in keys and e["at_ms"] / 1e3 > began]
    # One a second. A check takes up to three at once, and the first may have been saved up for.
    assert len(asked) <= 9, f"{asked} in 6 seconds"


def test_each_of_two_quick_changes_is_told(watched, kms):
    tenant = watched.tenant()
    watched.checks(tenant)
    for state in ("Disabled", "Enabled"):
        kms.state(tenant.key_uri, state)
        watched.dba.run("SELECT cmk.evict(%s)", tenant.name)
        watched.dba.run("SELECT cmk_try_decrypt(%s, cmk_encrypt(%s, 'x'))" if state == "Enabled" else
                        "SELECT cmk_try_decrypt(%s, (SELECT '\\xc101'::bytea || dek_id || decode(repeat('00', 48), 'hex')"
                        " FROM cmk.data_key WHERE tenant = %s), '', '{key_disabled}')", tenant.name, tenant.name)
    assert len(watched.log(tenant.name)) == 2
    watched.says(tenant, REVOKED, ("usable", "revoked", None))


@pytest.mark.parametrize("kind", ["imported", "pending deletion"])
def test_a_key_that_cannot_rotate_or_need_not_is_no_reason_to_warn(watched, kms, kind):
    # KMS reports rotation as off for both, whatever the owner does.
    key = watched.key(rotates=True)
    if kind == "imported":
        import_material(kms, key, None)
    tenant = watched.tenant(key)
    watched.checks(tenant)
    if kind == "pending deletion":
        schedule_deletion(kms, key, 2_000_000_000)
        until(lambda: kms.calls(key, "GetKeyRotationStatus") == 2, what="a look at what changed")
        watched.checks(tenant)
    assert "rotation_off" not in str(watched.events(tenant))


@pytest.mark.parametrize("late, other", [
    ("GetKeyRotationStatus", "DescribeKey"), ("DescribeKey", "GetKeyRotationStatus"),
])
def test_nor_is_one_whose_deletion_is_scheduled_between_the_two_questions(watched, kms, late, other):
    tenant = watched.tenant()
    watched.checks(tenant)
    key, asked = tenant.key_uri, kms.calls(tenant.key_uri, other)
    with kms.fault("delay", key, late, millis=1500):
        kms.state(key, "Disabled")
        until(lambda: kms.calls(key, other) > asked, what="a look at what changed")
        schedule_deletion(kms, key, 2_000_000_000)
        watched.checks(tenant)
    assert "rotation_off" not in str(watched.events(tenant))


def test_what_became_of_a_revoked_key_is_told(watched, kms):
    tenant = watched.tenant()
    watched.checks(tenant)
    kms.state(tenant.key_uri, "Disabled")
    watched.says(tenant, REVOKED)
    since = watched.status(tenant, "since")
    schedule_deletion(kms, tenant.key_uri, 2_000_000_000)
    # Worse is in order of time: what happened, then what it bodes.
    watched.says(tenant, REVOKED, ("revoked", "revoked", "key_pending_deletion"), ("deletion_scheduled", None, None))
    assert watched.status(tenant, "key_state, reason, since") == ("revoked", "key_pending_deletion", *since)
    assert [line.split(" request_id")[0].split(" kms_code")[0] for line in watched.log(tenant.name)][:2] == [
        f"cmk_encrypt key_state=revoked was=usable reason=key_disabled tenant={tenant.name}",
        f"cmk_encrypt key_state=revoked was=revoked reason=key_pending_deletion tenant={tenant.name}",
    ]


def test_a_history_that_takes_no_rows_does_not_stop_the_checks(watched, kms):
    tenant, other = watched.tenant(), watched.tenant()
    watched.checks(tenant, 1)
    monitor = watched.monitor()
    watched.dba.run("CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END'")
    watched.dba.run("CREATE TRIGGER no_room AFTER INSERT ON cmk.key_event EXECUTE FUNCTION no_room()")
    watched.dba.run("ALTER TABLE cmk.key_event ENABLE ALWAYS TRIGGER no_room")
    try:
        kms.state(tenant.key_uri, "Disabled")
        until(lambda: watched.status(tenant) == ("revoked",), what="the revocation")
        watched.checks(other, 3)
        assert watched.events(tenant) == []
        assert "cmk_encrypt monitor: disk_full database=postgres" in watched.log()
        schedule_deletion(kms, tenant.key_uri, 2_000_000_000)
        until(lambda: watched.status(tenant, "reason") == ("key_pending_deletion",), what="the worse")
    finally:
        watched.dba.run("DROP FUNCTION no_room() CASCADE")
    # It tries again after ten seconds, or after twenty more.
    worse = ("revoked", "revoked", "key_pending_deletion")
    watched.says(tenant, REVOKED, worse, ("deletion_scheduled", None, None), timeout=32)
    assert watched.monitor() == monitor


def test_a_locked_history_does_not_stop_the_checks(watched, kms):
    tenant, other = watched.tenant(), watched.tenant()
    watched.checks(tenant)
    with watched.server.connect() as admin:
        admin.execute("BEGIN")
        admin.execute("LOCK TABLE cmk.key_event")
        kms.state(tenant.key_uri, "Disabled")
        watched.checks(tenant, 1)
        watched.checks(other, 3)


@contextlib.contextmanager
def revoked(make_server, kms):
    """A server of its own, and a tenant that its monitor has said is revoked."""
    with running(make_server, monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        tenant = watched.tenant()
        watched.checks(tenant, 1)
        kms.state(tenant.key_uri, "Disabled")
        watched.says(tenant, REVOKED)
        yield server, watched, tenant


def test_a_key_that_came_back_during_a_restart_is_told(make_server, kms):
    with revoked(make_server, kms) as (server, watched, tenant):
        with kms.fault("hang"):
            server.restart()
            kms.state(tenant.key_uri, "Enabled")
        watched.connect()
        watched.says(tenant, REVOKED, ("usable", "revoked", None))


def test_a_key_still_revoked_after_a_restart_is_not_told_again(make_server, kms):
    with revoked(make_server, kms) as (server, watched, tenant):
        server.restart()
        watched.connect()
        watched.checks(tenant)
        watched.says(tenant, REVOKED)
