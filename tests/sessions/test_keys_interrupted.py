"""Data keys that are destroyed, or made by the monitor, while a process is killed or the server stops: nothing is half
done, and the next call goes on."""

import contextlib
import os
import signal

import psycopg
import pytest

from reencryption import Envelopes, make_envelopes, rotate
from server import until
from support import CANARY, Session, fails
from test_rotation_automatic import age, alter, versions
from test_seal_table_interrupted import is_gone, reconnected
from watched import Watched, running

# Each wants the tenant in a state of its own.
ACTS = {
    "shred": "SELECT cmk.shred_tenant('{0}', '{0}', immediately => true)",
    "remove": "SELECT cmk.remove_tenant('{0}')",
    "retire": "SELECT cmk.retire_keys('{0}', 'there is nothing else')",
}
# Where it is when the crash comes. Only the last is on disk.
STEPS = ("waits for a row of a data key", "waits for the trail", "is not committed", "waits for a standby")
ENDS = ("kill", "immediate")
CASES = [(act, step, end) for act in ("shred", "remove") for step, end in zip(STEPS, ENDS * 2)]
# It is a transaction of its own, which waits for those that are open.
CASES += [("retire", step, end) for step in ("waits for a transaction", "waits for a standby") for end in ENDS]


@pytest.fixture(scope="module")
def fragile(make_server):
    """A server whose processes may be killed."""
    server = make_server({"shared_preload_libraries": "cmk_encrypt"})
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    server.execute("SELECT cmk.grant_access('*', 'postgres')")
    return server


class Place:
    """A tenant of that server, and who acts on it."""

    def __init__(self, server, act, name):
        self.server, self.act, self.name = server, act, name
        self.connect()
        for tenant in (name, twin(name)):
            self.dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant)
        self.old = self.dba.encrypt(name)
        self.dba.run("SELECT cmk.rotate_tenant(%s)", name)
        if act != "retire":
            self.dba.run("SELECT cmk.suspend_tenant(%s)", name)
        if act == "remove":
            self.dba.run(ACTS["shred"].format(name))
        self.call = ACTS[act].format(name)
        self.before = self.registry()

    def connect(self):
        self.dba = until(lambda: reconnected(self.server), timeout=30, what="the recovery")

    def registry(self):
        tables = ("tenant", "data_key", "access", "audit_event")
        return [self.dba.all(f"SELECT t::text FROM cmk.{table} t WHERE tenant = %s ORDER BY 1", self.name) for table in tables]

    def crash(self, end, worker, done):
        if end == "kill":
            os.kill(worker.pid, signal.SIGKILL)
        else:
            self.server.restart("immediate")
        with contextlib.suppress(psycopg.Error):
            done.result(timeout=20)
        until(lambda: self.dba.connection.broken or is_gone(self.dba), what="the crash")
        self.connect()

    def is_done(self):
        """What the act leaves; the trail says so once."""
        assert self.dba.all("SELECT status FROM cmk.verify_audit(%s)", self.name) == [("ok",)]
        assert self.dba.one("SELECT count(*) FROM cmk.audit_event WHERE tenant = %s AND act = %s", self.name, {
            "shred": "shred_tenant", "remove": "remove_tenant", "retire": "retire_keys"}[self.act]) == 1
        assert self.dba.all("SELECT problem FROM cmk.check() WHERE tenant = %s", self.name) == []
        if self.act == "retire":
            assert self.dba.all("SELECT state, wrapped IS NULL FROM cmk.data_key WHERE tenant = %s ORDER BY version",
                                self.name) == [("destroyed", True), ("current", False)]
            with fails("55000", "tenant_shredded", self.name):
                self.dba.decrypt(self.name, self.old)
            assert self.dba.decrypt(self.name, self.dba.encrypt(self.name)) == CANARY
        else:
            reason = ("55000", "tenant_shredded") if self.act == "shred" else ("42704", "unknown_tenant")
            with fails(*reason, self.name):
                self.dba.decrypt(self.name, self.old)
            assert self.dba.one("SELECT count(wrapped) FROM cmk.data_key WHERE tenant = %s", self.name) == 0
        return True


def bucket(name):
    """Which of the trail's locks a tenant's events take (src/pg/audit/write.rs)."""
    total = 0
    for byte in name.encode():
        total = (total * 31 + byte) % 256
    return total % 64


def twin(name):
    """Another tenant, whose events take the same lock."""
    return next(other for other in (f"{name}_{n}" for n in range(10_000, 20_000)) if bucket(other) == bucket(name))


@contextlib.contextmanager
def standby_away(server):
    """Commits wait for a synchronous standby that is not there."""
    try:
        server.reload("SET synchronous_standby_names = 'nobody'")
        yield
    finally:
        server.reload("RESET synchronous_standby_names")


@pytest.mark.parametrize("act, step, end", CASES, ids=lambda part: part.replace(" ", "-"))
def test_after_a_crash_it_is_done_or_not_begun(fragile, act, step, end):
    place = Place(fragile, act, f"{act} {step} {end}".replace(" ", "_"))
    worker, other = (Session(fragile.connect()) for _ in range(2))
    waits = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s AND wait_event IS NOT NULL"
    with contextlib.ExitStack() as stack:
        if step == "waits for a row of a data key":
            other.run("BEGIN")
            other.run("SELECT FROM cmk.data_key WHERE tenant = %s AND version = 1 FOR UPDATE", place.name)
            done = worker.start(place.call)
            until(lambda: place.dba.all(waits, worker.pid) == [("transactionid",)], what="the wait for the row")
        elif step == "waits for a transaction":
            other.run("BEGIN")
            other.run("SELECT txid_current()")
            done = worker.start(place.call)
            until(lambda: place.dba.all(waits, worker.pid) == [("virtualxid",)], what="the wait for others")
        elif step == "is not committed":
            worker.run("BEGIN")
            worker.run(place.call)
            done = worker.start("SELECT pg_sleep(30)")
        else:
            stack.enter_context(standby_away(fragile))
            if step == "waits for the trail":
                # Its commit has the trail's lock, and waits.
                blocking = other.start("SELECT cmk.evict(%s)", twin(place.name))
                until(lambda: place.dba.all(waits, other.pid) == [("SyncRep",)], what="the other's commit")
                done = worker.start(place.call)
                until(lambda: ("object",) in place.dba.all(waits, worker.pid), what="the wait for the trail")
            else:
                done = worker.start(place.call)
                until(lambda: place.dba.all(waits, worker.pid) == [("SyncRep",)], what="its commit")
        place.crash(end, worker, done)
        if step == "waits for the trail":
            with contextlib.suppress(psycopg.Error):
                blocking.result(timeout=20)
    if step == "waits for a standby":
        assert place.is_done()
        if act != "retire":
            reason = ("55000", "tenant_state_conflict") if act == "shred" else ("42704", "unknown_tenant")
            with fails(*reason, place.name):
                place.dba.run(place.call)
    else:
        assert place.registry() == place.before
        place.dba.run(place.call)
        assert place.is_done()


def test_a_tenant_that_is_shredded_during_its_re_encryption(fragile):
    """What is left of it is told by name; the others are done; and the trail is whole."""
    dba = until(lambda: reconnected(fragile), timeout=30, what="a connection")
    for name in ("leaving", "staying"):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    table = make_envelopes(dba, ["leaving", "staying"], rows=1000)
    rotate(dba, "leaving", "staying")
    worker = Session(fragile.connect())
    done = worker.start(*Envelopes(worker, table.name).call(batch=50, pause=100))
    until(lambda: dba.one(f"SELECT count(*) FROM cmk.data_key_usage('{table}', 'c')") == 4, what="a first batch")
    dba.run("SELECT cmk.suspend_tenant('leaving')")
    certificate = dba.one(ACTS["shred"].format("leaving"))
    assert [key["version"] for key in certificate["data_keys"]] == [1, 2]
    dba.run("SELECT pg_cancel_backend(%s)", worker.pid)
    with contextlib.suppress(psycopg.Error):
        done.result(timeout=30)
    table.reencrypt()
    usage = table.usage()
    assert usage["staying", 2] == 500 and ("staying", 1) not in usage
    assert usage["leaving", 1] + usage["leaving", 2] == 500
    assert table.failures() == [({"tenant": "leaving"}, "tenant_shredded")]
    assert table.progress("state, rows_left") == ("incomplete", 500)
    opened = dba.all(f"SELECT count(*) FROM {table} WHERE tenant_id = 'staying' AND cmk_decrypt_text(tenant_id, c, {table.AAD}) = 'value-' || id")
    assert opened == [(500,)]
    # Nobody brings it back, nor what it had.
    with fails("55000", "tenant_shredded", "leaving"):
        dba.all(f"SELECT cmk_decrypt(tenant_id, c, {table.AAD}) FROM {table} WHERE tenant_id = 'leaving'")
    dba.run("SELECT cmk.remove_tenant('leaving')")
    table.reencrypt(only_tenant="staying")
    assert dba.all("SELECT DISTINCT status FROM cmk.verify_audit()") == [("ok",)]
    assert dba.all("SELECT problem, tenant FROM cmk.check() WHERE tenant IN ('leaving', 'staying')") == []
    dba.run(f"DROP TABLE {table}")
    dba.close()


# The monitor


@pytest.fixture(scope="module")
def monitored(make_server, kms_process):
    with running(make_server, monitor_databases="postgres", rotate_after="0", rotate_after_values="0",
                 kms_operation_timeout="30s", kms_attempt_timeout="20s") as server:
        yield Watched(server, kms_process)


MAKE = "GenerateDataKeyWithoutPlaintext"
ROTATION_STEPS = [(step, end) for step in (MAKE, "Decrypt", "waits for the trail") for end in ("kill", "immediate")]


@pytest.mark.parametrize("step, end", ROTATION_STEPS, ids=lambda part: part.replace(" ", "-"))
def test_a_rotation_of_the_monitor_that_crashes_is_done_again(monitored, kms, step, end):
    watched = monitored
    watched.dba = until(lambda: reconnected(watched.server), timeout=30, what="a connection")
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    watched.dba.run("SELECT cmk.register_tenant(%s, 'local:shared', activate => false)", twin(tenant.name))
    made = kms.calls(tenant.key_uri, MAKE)
    alter(watched, tenant, "rotate_after => '1 day'")
    monitor = until(watched.monitor, what="the monitor")
    with contextlib.ExitStack() as stack:
        if step == "waits for the trail":
            other = Session(watched.server.connect())
            stack.enter_context(standby_away(watched.server))
            blocking = other.start("SELECT cmk.evict(%s)", twin(tenant.name))
            until(lambda: waits_for(watched, other.pid) == "SyncRep", what="the other's commit")
            watched.dba.run("SET synchronous_commit = off")
            age(watched, tenant, "2 days")
            until(lambda: waits_for(watched, monitor) == "object", 20, "the monitor's commit")
        elif step == MAKE:
            stack.enter_context(kms.fault("hang", arn=tenant.key_uri, operation=MAKE))
            age(watched, tenant, "2 days")
            until(lambda: kms.calls(tenant.key_uri, MAKE) > made, what="the call that hangs")
        else:
            # Slow to make it, so that the call which proves it is the one that hangs.
            stack.enter_context(kms.fault("delay", arn=tenant.key_uri, operation=MAKE, millis=1000))
            age(watched, tenant, "2 days")
            until(lambda: kms.calls(tenant.key_uri, MAKE) > made, what="the slow call")
            asked = kms.calls(tenant.key_uri)
            stack.enter_context(kms.fault("hang", arn=tenant.key_uri, operation="Decrypt"))
            until(lambda: kms.calls(tenant.key_uri) > asked, what="the call that hangs")
        if end == "kill":
            os.kill(monitor, signal.SIGKILL)
        else:
            watched.server.restart("immediate")
        until(lambda: watched.dba.connection.broken or is_gone(watched.dba), what="the crash")
        watched.dba = until(lambda: reconnected(watched.server), timeout=30, what="the recovery")
        # The next monitor may have been as quick as this.
        assert versions(watched, tenant) in ([(1, "current")], [(1, "retired"), (2, "current")])
        if step == "waits for the trail":
            with contextlib.suppress(psycopg.Error):
                blocking.result(timeout=20)
    # By itself, once there is a monitor again.
    until(lambda: versions(watched, tenant) == [(1, "retired"), (2, "current")], 30, "the rotation")
    assert watched.dba.decrypt(tenant, envelope) == CANARY
    assert watched.dba.decrypt(tenant, watched.dba.encrypt(tenant)) == CANARY
    acts = watched.dba.all("SELECT act FROM cmk.audit_event WHERE tenant = %s ORDER BY number", tenant.name)
    assert acts == [("register_tenant",), ("alter_tenant_rotation",), ("rotate_tenant",)]
    assert watched.dba.all("SELECT status FROM cmk.verify_audit(%s)", tenant.name) == [("ok",)]


def waits_for(watched, pid):
    return watched.dba.one("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", pid)


def test_a_commit_that_waits_for_another_says_for_whom_and_the_monitor_does_not_wait(monitored, kms):
    watched = monitored
    watched.dba = until(lambda: reconnected(watched.server), timeout=30, what="a connection")
    tenant, other, third = watched.tenant(), Session(watched.server.connect()), Session(watched.server.connect())
    first, second = twin(tenant.name), twin(twin(tenant.name))
    for name in (first, second):
        watched.dba.run("SELECT cmk.register_tenant(%s, 'local:shared', activate => false)", name)
    heard = []
    third.connection.add_notice_handler(lambda notice: heard.append((notice.message_primary, notice.message_detail)))
    with standby_away(watched.server):
        blocking = other.start("SELECT cmk.evict(%s)", first)
        until(lambda: waits_for(watched, other.pid) == "SyncRep", what="the other's commit")
        waiting = third.start("SELECT cmk.evict(%s)", second)
        until(lambda: heard, what="the warning")
        assert heard == [("this commit waits for another that writes to the audit trail",
                          f"reason=registry_locked blocked_by={other.pid}")]
        # The monitor leaves the rotation for later, and goes on watching.
        alter_quietly(watched, tenant)
        until(lambda: "lock timeout" in watched.server.log.read_text(), 20, "the monitor's giving up")
        watched.checks(tenant)
    for done in (blocking, waiting):
        done.result(timeout=20)


def alter_quietly(watched, tenant):
    """Due by age, without an event, whose commit would wait, too."""
    watched.dba.run("SET synchronous_commit = off")
    watched.dba.run("UPDATE cmk.tenant SET rotate_after = '1 day' WHERE tenant = %s", tenant.name)
    age(watched, tenant, "2 days")
