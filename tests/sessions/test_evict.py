"""cmk.evict and cmk.evict_all: from commit on, no process uses a data key without asking KMS again."""

import pytest

from crowd import READ
from drill import Drill
from server import until
from support import CANARY, Session, fails
from standby import Standby, replayed
from watched import QUICK, Watched

EVICTIONS = {"evict": "SELECT cmk.evict('{}')", "evict_all": "SELECT cmk.evict_all()"}
each_eviction = pytest.mark.parametrize("eviction", EVICTIONS.values(), ids=list(EVICTIONS))


@pytest.fixture(scope="module")
def drill_server(make_server, kms_process):
    conf = {"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.failure_ttl": "1h"}
    return Drill(make_server(conf), kms_process, preloaded=True)


@pytest.fixture
def drill(drill_server, kms):
    return drill_server


@pytest.fixture
def users(drill, session):
    return [session(dbname="postgres", on=drill.server) for _ in range(3)]


@pytest.fixture
def warm(drill, users):
    """A tenant that all of `users` have at hand."""
    tenant = drill.tenant()
    read(users, tenant)
    return tenant


def read(users, tenant):
    for user in users:
        assert user.one(READ, tenant.name) == CANARY


def go_dark(users, tenant):
    for user in users:
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)


@each_eviction
def test_after_an_eviction_the_server_asks_kms_once_more(drill, users, warm, kms, eviction):
    asked = kms.calls(warm.key_uri)
    read(users, warm)
    assert kms.calls(warm.key_uri) == asked
    drill.dba.run(eviction.format(warm))
    read(users, warm)
    assert kms.calls(warm.key_uri) == asked + 1, "and all share the answer"


@each_eviction
def test_after_an_eviction_a_dead_key_is_dead_to_all(drill, users, warm, kms, eviction):
    kms.state(warm.key_uri, "Disabled")
    read(users, warm)
    drill.dba.run(eviction.format(warm))
    go_dark(users, warm)


@each_eviction
def test_after_an_eviction_a_key_that_is_back_works_at_once(drill, users, warm, kms, eviction):
    kms.state(warm.key_uri, "Disabled")
    drill.dba.run(eviction.format(warm))
    go_dark(users, warm)
    kms.state(warm.key_uri, "Enabled")
    go_dark(users, warm)  # the failure is remembered
    drill.dba.run(eviction.format(warm))
    read(users, warm)


@each_eviction
def test_an_eviction_holds_from_commit_on(drill, users, warm, kms, eviction):
    asked = kms.calls(warm.key_uri)
    with drill.dba.connection.transaction():
        drill.dba.run(eviction.format(warm))
        read(users, warm)
        assert kms.calls(warm.key_uri) == asked, "not before commit"
        read([drill.dba], warm)
        assert kms.calls(warm.key_uri) == asked + 1, "but in its own transaction"
    kms.state(warm.key_uri, "Disabled")
    drill.dba.run(eviction.format(warm))
    go_dark([*users, drill.dba], warm)


@each_eviction
@pytest.mark.parametrize("undo", ["ROLLBACK", "ROLLBACK TO before; COMMIT"])
def test_an_eviction_that_is_rolled_back_costs_nothing(drill, users, warm, kms, eviction, undo):
    read([drill.dba], warm)
    asked = kms.calls(warm.key_uri)
    drill.dba.run("BEGIN")
    drill.dba.run("SAVEPOINT before")
    drill.dba.run(eviction.format(warm))
    for statement in undo.split("; "):
        drill.dba.run(statement)
    read([*users, drill.dba], warm)
    assert kms.calls(warm.key_uri) == asked


@each_eviction
@pytest.mark.parametrize("undo", ["ROLLBACK", "ROLLBACK TO before; COMMIT"])
def test_a_data_key_of_an_eviction_that_was_rolled_back_does_not_survive_the_next(
    drill, users, warm, kms, eviction, undo
):
    asked = kms.calls(warm.key_uri)
    drill.dba.run("BEGIN")
    drill.dba.run("SAVEPOINT before")
    drill.dba.run(eviction.format(warm))
    read([drill.dba], warm)
    assert kms.calls(warm.key_uri) == asked + 1
    for statement in undo.split("; "):
        drill.dba.run(statement)
    kms.state(warm.key_uri, "Disabled")
    users[0].run(eviction.format(warm))
    go_dark([*users, drill.dba], warm)


@each_eviction
def test_an_eviction_cannot_be_prepared(drill, users, warm, eviction):
    drill.dba.run("BEGIN")
    drill.dba.run(eviction.format(warm))
    with fails("55000", "cannot_prepare"):
        drill.dba.run(f"PREPARE TRANSACTION '{warm}'")
    assert drill.dba.usable()
    read(users, warm)


@each_eviction
def test_an_answer_to_a_call_from_before_the_eviction_is_not_shared(drill, users, kms, eviction):
    tenant = drill.tenant()
    asked = kms.calls(tenant.key_uri)
    with kms.fault("delay", arn=tenant.key_uri, millis=500, times=1):
        early = users[0].start(READ, tenant.name)
        until(lambda: kms.calls(tenant.key_uri) == asked + 1, what="the first call")
        drill.dba.run(eviction.format(tenant))
        read(users[1:], tenant)
        assert early.result(timeout=5) == [(CANARY,)]
    assert kms.calls(tenant.key_uri) >= asked + 2
    kms.state(tenant.key_uri, "Disabled")
    read(users[1:], tenant)


def test_a_transaction_that_began_before_the_eviction_asks_again_too(drill, users, warm, kms):
    users[0].run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    read(users[:1], warm)
    kms.state(warm.key_uri, "Disabled")
    drill.dba.run("SELECT cmk.evict(%s)", warm.name)
    go_dark(users[:1], warm)


def test_evict_leaves_other_tenants_alone(drill, users, warm, kms):
    kept = drill.tenant()
    read(users, kept)
    asked = kms.calls(kept.key_uri)
    drill.evict(warm)
    read(users, kept)
    assert kms.calls(kept.key_uri) == asked


def test_evict_all_is_for_every_tenant_of_one_database(drill, users, warm, kms):
    other = drill.tenant()
    read(users, other)
    drill.server.execute("CREATE DATABASE elsewhere")
    there = Watched(drill.server, kms, "elsewhere")
    kept = there.tenant()
    there.dba.encrypt(kept)
    for tenant in (warm, other, kept):
        kms.state(tenant.key_uri, "Disabled")
    drill.dba.run("SELECT cmk.evict_all()")
    for tenant in (warm, other):
        go_dark(users, tenant)
    assert there.dba.encrypt(kept)


def test_what_cannot_be_evicted_is_an_error(drill, users):
    with fails("42704", "unknown_tenant", "nobody"):
        drill.dba.run("SELECT cmk.evict('nobody')")
    users[0].run("BEGIN READ ONLY")
    with fails("25006", "read_only"):
        users[0].run("SELECT cmk.evict_all()")


# A standby whose processes share data keys, as the primary's do


@pytest.fixture(scope="module")
def pair(make_server, kms_process):
    primary = make_server({**QUICK})
    watched = Watched(primary, kms_process)
    watched.dba.run("CREATE TABLE customer (tenant text PRIMARY KEY, sealed bytea NOT NULL)")
    standby = Standby(primary, {
        **QUICK, "cmk_encrypt.cache_ttl": "60s", "cmk_encrypt.kms_endpoint_url": kms_process.url,
    })
    yield watched, standby
    standby.destroy()


@pytest.fixture
def readers(pair):
    sessions = [Session(pair[1].connect()) for _ in range(2)]
    yield sessions
    for reader in sessions:
        reader.close()


def replay(pair):
    replayed((pair[0].server, pair[1]))


@each_eviction
def test_once_replayed_an_eviction_holds_on_a_standby(pair, readers, kms, eviction):
    primary, standby = pair
    tenant = primary.tenant()
    primary.dba.run("INSERT INTO customer VALUES (%s, cmk_encrypt(%s, %b))", tenant.name, tenant.name, CANARY)
    replay(pair)
    read(readers, tenant)
    asked = kms.calls(tenant.key_uri)
    read(readers, tenant)
    assert kms.calls(tenant.key_uri) == asked
    primary.dba.run(eviction.format(tenant))
    replay(pair)
    read(readers, tenant)
    assert kms.calls(tenant.key_uri) == asked + 1, "and both share the answer"
    kms.state(tenant.key_uri, "Disabled")
    read(readers, tenant)
    primary.dba.run(eviction.format(tenant))
    replay(pair)
    go_dark(readers, tenant)


def test_a_monitor_on_a_standby_writes_a_log_and_nothing_else(pair, kms):
    primary, standby = pair
    there = Watched(standby, kms, create=False)
    tenant, unrotated = primary.tenant(), primary.tenant(primary.key(rotates=False))
    with standby.settings(monitor_databases="postgres"):
        monitor = until(there.monitor, what="the monitor")
        there.checks(tenant, 1)
        kms.state(tenant.key_uri, "Disabled")
        revoked = f"cmk_encrypt key_state=revoked was=usable reason=key_disabled tenant={tenant} kms_code=DisabledException"
        until(lambda: there.log(tenant.name), what="the line in the log")
        there.checks(tenant)
        assert [line.partition(" request_id")[0] for line in there.log(tenant.name)] == [revoked]
        assert there.log(unrotated.name) == [f"cmk_encrypt key_warning=rotation_off tenant={unrotated} database=postgres"]
        assert there.monitor() == monitor, "nothing went wrong"
    assert there.status(tenant) == ("revoked",)
    for watched in (primary, there):
        assert watched.events(tenant) == watched.events(unrotated) == []
