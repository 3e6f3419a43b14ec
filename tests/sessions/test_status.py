"""cmk.status: each column means what it says, for the whole server or for one session. Who may read what."""

import time

import pytest

from crowd import READ
from drill import Drill
from server import until
from support import CANARY, Tenant, fails, fails_with, unique

QUICK = {"cmk_encrypt.failure_ttl": "200ms", "cmk_encrypt.kms_max_attempts": "1"}


@pytest.fixture(scope="module")
def shared(make_server, kms_process, shim):
    conf = {**QUICK, "shared_preload_libraries": "cmk_encrypt"}
    return Drill(make_server(conf, shim.env), kms_process, preloaded=True)


@pytest.fixture(scope="module")
def private(make_server, kms_process, shim):
    return Drill(make_server(QUICK, shim.env), kms_process, preloaded=False)


@pytest.fixture
def drill(shared, kms):
    """A server whose processes know in common what one of them knows."""
    return shared


@pytest.fixture(params=["shared", "private"])
def either(request, kms):
    return request.getfixturevalue(request.param)


@pytest.fixture
def connect(session):
    return lambda drill: session(dbname="postgres", on=drill.server)


def status(session, tenant, columns):
    return session.row(f"SELECT {columns} FROM cmk.status WHERE tenant = %s", tenant.name)


def now(session):
    return session.one("SELECT clock_timestamp()::text")


# State


def test_before_kms_was_asked_nothing_is_known(either, connect):
    tenant = Tenant(unique("tenant"), either.kms.key())
    either.dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", tenant.name, tenant.key_uri)
    user = connect(either)
    known = status(user, tenant, "tenant_state, key_state, reason, info, since, last_success, last_failure, p50_ms, p99_ms")
    assert known == ("pending", *[None] * 8)
    counted = status(user, tenant, "hits, misses, kms_calls, kms_failures, waits, refused, holders, server_wide")
    assert counted == (*[0] * 7, either.preloaded)


def test_a_key_is_usable_then_revoked_then_usable(either, connect, kms):
    tenant, user = either.tenant(), connect(either)
    begin = now(user)
    assert user.one(READ, tenant.name) == CANARY
    seen = f"key_state, reason, info, last_success BETWEEN '{begin}' AND '{now(user)}', since <= last_success, last_failure"
    assert status(user, tenant, seen) == ("usable", None, None, True, True, None)

    kms.state(tenant.key_uri, "Disabled")
    either.evict(tenant)
    begin = now(user)
    for _ in range(3):
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)
    dark = now(user)
    state = f"key_state, reason, info LIKE 'kms_code=DisabledException request_id=%%', since BETWEEN '{begin}' AND '{dark}'"
    assert status(user, tenant, state) == ("revoked", "key_disabled", True, True)
    assert status(user, tenant, f"last_success < '{begin}', last_failure BETWEEN '{begin}' AND '{dark}'") == (True, True)

    # Another reason for the same state does not make it younger.
    since = status(user, tenant, "since::text")
    kms.state(tenant.key_uri, "PendingDeletion")
    time.sleep(0.25)  # the failure is remembered
    with fails("55000", "key_pending_deletion", tenant):
        user.one(READ, tenant.name)
    assert status(user, tenant, "key_state, reason, since::text") == ("revoked", "key_pending_deletion", *since)

    kms.state(tenant.key_uri, "Enabled")
    time.sleep(0.25)
    begin = now(user)
    assert user.one(READ, tenant.name) == CANARY
    assert status(user, tenant, f"key_state, reason, info, since > '{begin}', last_success > '{begin}', kms_failures") == (
        "usable", None, None, True, True, 2)


@pytest.mark.parametrize("kind, options, state, reason, sqlstate", [
    ("status", {"status": 500}, "unreachable", "kms_server_error", "58000"),
    ("throttle", {}, "throttled", "kms_throttled", "53000"),
    ("status", {"status": 400, "code": "UnrecognizedClientException"}, "misconfigured", "credentials", "F0000"),
])
def test_an_outage_has_its_own_state(either, connect, kms, kind, options, state, reason, sqlstate):
    tenant, user = either.tenant(), connect(either)
    with kms.fault(kind, arn=tenant.key_uri, **options):
        begin = now(user)
        with fails(sqlstate, reason, tenant):
            user.one(READ, tenant.name)
    columns = f"key_state, reason, info ~ '^kms_code=[A-Za-z]+ request_id=', since > '{begin}', last_failure > '{begin}'"
    assert status(user, tenant, columns) == (state, reason, True, True, True)
    assert status(user, tenant, "kms_failures") == (1,)


def test_a_refused_value_says_nothing_of_the_key(either, connect):
    tenant, user = either.tenant(), connect(either)
    assert user.one(READ, tenant.name) == CANARY
    with fails("39000", "not_authentic", tenant):
        user.run("SELECT cmk_decrypt(tenant, sealed, 'other') FROM customer WHERE tenant = %s", tenant.name)
    assert status(user, tenant, "key_state, kms_failures") == ("usable", 0)


# Counters


def test_counters_of_all_sessions_survive_their_exit(drill, connect):
    tenant = drill.tenant()
    drill.dba.run("SELECT cmk.reset_stats()")
    for _ in range(2):
        user = connect(drill)
        for _ in range(5):
            user.one(READ, tenant.name)
        user.close()
    # The first look of each session finds nothing at hand; the second session takes what the first unwrapped.
    counted = lambda: status(drill.dba, tenant, "hits, misses, kms_calls, kms_failures, server_wide")  # noqa: E731
    until(lambda: counted() == (8, 2, 1, 0, True), 2, f"both exits, {counted()}")


def test_without_shared_memory_a_session_sees_its_own_counters(private, connect):
    tenant, one, other = private.tenant(), connect(private), connect(private)
    for _ in range(5):
        one.one(READ, tenant.name)
    assert status(one, tenant, "hits, misses, kms_calls, server_wide") == (4, 1, 1, False)
    assert status(other, tenant, "hits, misses, kms_calls, key_state, server_wide") == (0, 0, 0, None, False)


def test_hits_of_a_busy_session_show_within_a_second(drill, connect):
    tenant, user = drill.tenant(), connect(drill)
    user.one(READ, tenant.name)
    drill.dba.run("SELECT cmk.reset_stats()")
    hits = lambda: status(drill.dba, tenant, "hits")[0]  # noqa: E731
    for _ in range(3):
        user.one(READ, tenant.name)
    time.sleep(0.6)
    user.one(READ, tenant.name)
    assert hits() == 4


def test_what_kms_said_last_is_no_counter(either, connect, kms):
    tenant, user = either.tenant(), connect(either)
    user.one(READ, tenant.name)
    kms.state(tenant.key_uri, "Disabled")
    either.evict(tenant)
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    said = status(user, tenant, "last_success, last_failure")
    assert None not in said
    user.run("SELECT cmk.reset_stats()")
    assert status(user, tenant, "kms_calls, kms_failures, last_success, last_failure") == (0, 0, *said)


def test_a_call_that_was_cancelled_was_a_call(either, connect, kms):
    tenant, user = either.tenant(), connect(either)
    user.run("SELECT cmk.reset_stats()")
    user.run("SET statement_timeout = '300ms'")
    with kms.fault("hang", arn=tenant.key_uri), fails_with("57014"):
        user.one(READ, tenant.name)
    assert status(user, tenant, "kms_calls, kms_failures") == (1, 0)


def test_a_session_that_asks_sees_all_its_hits(either, connect):
    tenant, user = either.tenant(), connect(either)
    user.one(READ, tenant.name)
    user.run("SELECT cmk.reset_stats()")
    for wanted in (1, 2, 3):
        user.one(READ, tenant.name)
        assert status(user, tenant, "hits") == (wanted,)


def test_who_waits_for_anothers_call_is_counted(drill, connect, kms):
    tenant = drill.tenant()
    drill.dba.run("SELECT cmk.reset_stats()")
    users = [connect(drill) for _ in range(4)]
    with kms.fault("delay", arn=tenant.key_uri, millis=300):
        for future in [user.start(READ, tenant.name) for user in users]:
            assert future.result(timeout=10) == [(CANARY,)]
    calls, misses, waits = status(drill.dba, tenant, "kms_calls, misses, waits")
    assert (calls, misses) == (1, 4)
    assert 3 <= waits <= 6, "once each, and again should one wake early"


def test_a_call_that_the_budget_forbids_is_counted(either, connect):
    tenant, user = either.tenant(), connect(either)
    with either.server.settings(tenant_call_budget=1):
        user.run("SELECT cmk.reset_stats()")
        allowed = 0
        for _ in range(3):
            either.evict(tenant)
            try:
                assert user.one(READ, tenant.name) == CANARY
                allowed += 1
            except Exception as error:
                with fails("53000", "call_budget_spent", tenant):
                    raise error
        calls, refused, state = status(user, tenant, "kms_calls, refused, key_state")
    assert (calls, refused) == (allowed, 3 - allowed)
    assert allowed <= 1
    assert state == "usable", "our budget says nothing of the key"


def test_percentiles_tell_how_long_kms_took(either, connect, kms):
    tenant, user = either.tenant(), connect(either)
    user.one(READ, tenant.name)
    user.run("SELECT cmk.reset_stats()")

    def ask(count):
        for _ in range(count):
            either.evict(tenant)
            user.one(READ, tenant.name)

    ask(18)
    with kms.fault("delay", arn=tenant.key_uri, millis=300):
        ask(2)
    p50, p95, p99 = status(user, tenant, "p50_ms, p95_ms, p99_ms")
    assert p50 < 200, "half of the calls were not delayed"
    # The upper bound of a bucket that is half an octave wide.
    for late in (p95, p99):
        assert 300 <= late <= 2 * 300 * 1.42


def test_reset_stats_is_for_one_database(drill, connect, session):
    tenant, where = drill.tenant(), unique("db")
    drill.dba.one(READ, tenant.name)
    drill.server.execute(f"CREATE DATABASE {where}")
    drill.server.execute("CREATE EXTENSION cmk_encrypt", where)
    counted = "misses > 0, kms_calls > 0, p50_ms IS NOT NULL"
    drill.server.execute("SELECT cmk.reset_stats()", where)
    assert status(drill.dba, tenant, counted) == (True, True, True)
    drill.dba.run("SELECT cmk.reset_stats()")
    assert status(drill.dba, tenant, counted) == (False, False, False)
    assert status(drill.dba, tenant, "key_state") == ("usable",), "counters only"


# Privileges

READABLE = ["TABLE cmk.status", "TABLE cmk.key_event", "SELECT * FROM cmk.revocation_bound('{}')"]
CLOSED = [
    *(f"SELECT cmk.{call}" for call in ("reset_stats()", "warm('{}')", "evict_all()", "evict('{}')", "key_copies('{}')")),
    *(f"TABLE cmk.{table}" for table in ("tenant", "data_key", "access")),
]


@pytest.fixture(scope="module")
def people(shared):
    shared.server.execute("CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN")


@pytest.mark.parametrize("query", READABLE)
def test_pg_monitor_reads_and_nobody_else(drill, people, session, query):
    tenant = drill.tenant()
    drill.dba.one(READ, tenant.name)
    watcher, nobody = (session(role, "postgres", on=drill.server) for role in ("watcher", "nobody"))
    rows = watcher.all(query.format(tenant))
    assert rows or "key_event" in query
    dek = drill.dek(tenant)
    assert not any(dek[at : at + 4] in (bytes(cell) if isinstance(cell, bytes) else str(cell).encode())
                   or dek[at : at + 4].hex() in str(cell) for row in rows for cell in row for at in range(0, 32, 4))
    with fails_with("42501"):
        nobody.all(query.format(tenant))


@pytest.mark.parametrize("query", CLOSED)
def test_what_is_for_administrators_is_closed_to_both(drill, people, session, query):
    tenant = drill.tenant()
    for role in ("watcher", "nobody"):
        with fails_with("42501"):
            session(role, "postgres", on=drill.server).run(query.format(tenant))


def test_hits_are_counted_though_an_eviction_came_before_they_were_told(make_server, kms, session):
    drill = Drill(make_server({"shared_preload_libraries": "cmk_encrypt"}), kms, preloaded=True)
    tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    user.one(READ, tenant.name)
    drill.dba.run("SELECT cmk.reset_stats()")
    for _ in range(10):
        user.one(READ, tenant.name)
    drill.evict(tenant)
    user.one(READ, tenant.name)
    assert user.one("SELECT hits FROM cmk.status WHERE tenant = %s", tenant.name) == 10


def test_a_row_type_that_was_changed_is_not_filled(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    dba.run("ALTER TYPE cmk_internal.key_facts ADD ATTRIBUTE more text CASCADE")
    with fails("58000", "registry_unusable"):
        dba.run("SELECT s.* FROM cmk.tenant t, cmk.key_status(t.tenant, t.key_uri, '{}', 0, (SELECT pass FROM cmk.home)) s")
