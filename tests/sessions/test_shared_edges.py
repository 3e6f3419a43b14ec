"""Where shared data keys could outlive what took them away: destruction, recycled records, uncommitted evictions."""

import os
import signal

import pytest

from crowd import READ
from drill import Drill
from server import until
from support import CANARY, fails

RECORDS = 16


@pytest.fixture(scope="module")
def crowded(make_server, kms_process):
    """A server with far more tenants than it can know in common."""
    conf = {"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.shared_keyring_size": str(RECORDS)}
    return Drill(make_server(conf), kms_process, preloaded=True)


@pytest.fixture
def connect(crowded, session):
    return lambda: session(dbname="postgres", on=crowded.server)


@pytest.fixture
def destroy(crowded):
    def destroyed(tenant):
        crowded.dba.run(
            "UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE tenant = %s", tenant.name
        )

    return destroyed


def push_records_out(drill):
    for _ in range(3 * RECORDS):
        drill.tenant()


def test_more_tenants_than_it_can_know_are_said_once(crowded):
    push_records_out(crowded)
    line = "cmk_encrypt keyring worker: more tenants than cmk_encrypt.shared_keyring_size"
    # It looks once a minute, or when there is something else to do.
    with crowded.server.settings(cache_ttl="299s"):
        until(lambda: crowded.server.log.read_text().count(line) == 1, 5, "the line")
    push_records_out(crowded)
    with crowded.server.settings(cache_ttl="299s"):
        assert crowded.server.log.read_text().count(line) == 1


def test_a_destroyed_data_key_opens_nothing_though_others_have_it(crowded, connect, destroy):
    tenant, warm, cold = crowded.tenant(), connect(), connect()
    assert warm.one(READ, tenant.name) == CANARY
    destroy(tenant)
    for user in (warm, cold):
        with fails("55000", "tenant_shredded", tenant):
            user.one(READ, tenant.name)


def test_a_revocation_is_known_after_its_record_went_to_others(crowded, connect, kms):
    tenant, first, second, third = crowded.tenant(), connect(), connect(), connect()
    for user in (first, second):
        assert user.one(READ, tenant.name) == CANARY
    # The third alone asks KMS, for a second version of the data key, and hears of it.
    crowded.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        third.encrypt(tenant)
    push_records_out(crowded)
    for user in (first, second):
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)


def test_the_bound_covers_copies_from_before_the_record_went_to_others(crowded, connect):
    tenant, user = crowded.tenant(), connect()
    assert user.one(READ, tenant.name) == CANARY
    push_records_out(crowded)
    bound = "SELECT dark_within > '1 min', holders FROM cmk.revocation_bound(%s)"
    assert crowded.dba.row(bound, tenant.name) == (True, None)


def test_the_bound_follows_a_ttl_that_was_raised(make_server, kms, session):
    drill = Drill(make_server({"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.cache_ttl": "5s"}), kms, True)
    tenant, first, second = drill.tenant(), *(session(dbname="postgres", on=drill.server) for _ in range(2))
    assert first.one(READ, tenant.name) == CANARY
    with drill.server.settings(cache_ttl="1min"):
        assert second.one(READ, tenant.name) == CANARY
        assert drill.dba.one("SELECT dark_within > '40 s' FROM cmk.revocation_bound(%s)", tenant.name)


def test_a_session_that_only_evicts_speaks_of_the_whole_server(crowded, connect):
    tenant, user, evictor = crowded.tenant(), connect(), connect()
    evictor.run("SELECT cmk.evict(%s)", tenant.name)
    assert user.one(READ, tenant.name) == CANARY
    bound = "SELECT dark_within > '1 min', server_wide FROM cmk.revocation_bound(%s)"
    assert evictor.row(bound, tenant.name) == (True, True)
    evictor.run("BEGIN")
    evictor.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    assert evictor.row(bound, tenant.name) == (True, True)
    evictor.run("ROLLBACK")


def test_a_refusal_met_in_an_open_transaction_is_everybodys(crowded, connect, kms):
    tenant, user, admin = crowded.tenant(), connect(), connect()
    assert user.one(READ, tenant.name) == CANARY
    kms.state(tenant.key_uri, "Disabled")
    admin.run("BEGIN")
    admin.run("SELECT cmk.evict(%s)", tenant.name)
    admin.run("SAVEPOINT before")
    with fails("55000", "key_disabled", tenant):
        admin.one(READ, tenant.name)
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    admin.run("ROLLBACK")


def test_a_refusal_met_elsewhere_reaches_an_open_transaction(crowded, connect, kms):
    tenant, admin, other = crowded.tenant(), connect(), connect()
    admin.run("BEGIN")
    admin.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    assert admin.one(READ, tenant.name) == CANARY
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        other.one(READ, tenant.name)
    with fails("55000", "key_disabled", tenant):
        admin.one(READ, tenant.name)
    admin.run("ROLLBACK")


def test_the_bound_covers_copies_of_open_transactions(crowded, connect):
    tenant, admin = crowded.tenant(), connect()
    admin.run("BEGIN")
    admin.run("SELECT cmk.evict(%s)", tenant.name)
    assert admin.one(READ, tenant.name) == CANARY
    bound = "SELECT dark_within > '1 min', holders FROM cmk.revocation_bound(%s)"
    assert crowded.dba.row(bound, tenant.name) == (True, None)
    admin.run("ROLLBACK")


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_what_was_asked_for_under_an_uncommitted_eviction_serves_nobody_else(crowded, connect, kms, end):
    tenant, evictor, other = crowded.tenant(), connect(), connect()
    assert other.one(READ, tenant.name) == CANARY
    evictor.run("BEGIN")
    evictor.run("SELECT cmk.evict(%s)", tenant.name)
    assert evictor.one(READ, tenant.name) == CANARY
    kms.state(tenant.key_uri, "Disabled")
    evictor.run(end)
    if end == "ROLLBACK":
        assert other.one(READ, tenant.name) == CANARY, "nothing was evicted"
        crowded.evict(tenant)
    for user in (other, evictor, connect()):
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)


def test_a_dead_tenant_does_not_stir_the_others(crowded, connect, kms):
    """Each refusal of a key that is known to be revoked would otherwise have all sessions read the registry again."""
    dead, alive, user, knocker = crowded.tenant(), crowded.tenant(), connect(), connect()
    kms.state(dead.key_uri, "Disabled")

    def registry_reads():
        for session in (user, knocker):
            session.run("SELECT pg_stat_force_next_flush()")
        return crowded.dba.one("SELECT idx_scan FROM pg_stat_user_tables WHERE relid = 'cmk.tenant'::regclass")

    def knock():
        with fails("55000", "key_disabled", dead):
            knocker.one(READ, dead.name)
        assert user.one(READ, alive.name) == CANARY

    with crowded.server.settings(failure_ttl="0"):
        knock()
        reads, calls = registry_reads(), kms.calls(dead.key_uri)
        for _ in range(20):
            knock()
        assert kms.calls(dead.key_uri) == calls + 20, "there was to be no pause between calls"
        assert registry_reads() - reads <= 2


def test_a_call_that_was_superseded_fails_nobody(make_server, kms, session):
    """The first is stopped in the middle of its call; the second takes over; what comes of the first is old news."""
    conf = {"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.kms_operation_timeout": "500ms",
            "cmk_encrypt.kms_attempt_timeout": "400ms", "cmk_encrypt.kms_max_attempts": "1"}
    drill = Drill(make_server(conf), kms, preloaded=True)
    tenant, first, second = drill.tenant(), *(session(dbname="postgres", on=drill.server) for _ in range(2))
    with kms.fault("hang", arn=tenant.key_uri):
        before = kms.calls(tenant.key_uri)
        stopped = first.start(READ, tenant.name)
        until(lambda: kms.calls(tenant.key_uri) > before, what="the call")
        os.kill(first.pid, signal.SIGSTOP)
    try:
        assert second.one(READ, tenant.name) == CANARY
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert stopped.result(10) == [(CANARY,)]
    assert second.one(READ, tenant.name) == CANARY
