"""A move to another key that is ended at any step loses nothing, and the next call goes on; nobody notices the swap."""

import contextlib
import os
import signal
import threading

import psycopg
import pytest

from rewrap import Moving
from server import until
from support import CANARY, Session, Tenant, fails, unique
from test_seal_table_interrupted import is_gone, reconnected

KEYS = Moving.KEYS
# Where a call hangs when it is ended: in which of the two functions, in which operation, after how many of them.
STEPS = [("begin", operation, done) for operation in ("ReEncrypt", "Decrypt") for done in (0, 2)]
STEPS += [("confirm", "Decrypt", done) for done in (0, KEYS - 1)]


@pytest.fixture
def tenants(kms):
    """Makes tenants that `dba` moves and `app` reads."""

    def make(dba, app):
        tenant = Tenant(unique("tenant"), kms.key())
        dba.run("SELECT cmk.register_tenant(%s, %s)", tenant.name, tenant.key_uri)
        dba.run("SELECT cmk.grant_access(%s, %s)", tenant.name, app.role)
        return Moving.make(dba, app, tenant)

    return make


def hang(kms, tenant, new, step, worker):
    """Has a call hang at this step, in the session `worker`; a future of how it ended."""
    function, operation, done = step
    if function == "confirm":
        tenant.begin(new)
        call = f"SELECT cmk.confirm_rewrap('{tenant.name}')"
    else:
        call = f"SELECT cmk.rewrap_tenant('{tenant.name}', '{new}')"
    before = len(kms.log())
    faults = kms.fault_after(done, "hang", operation=operation)
    faults.__enter__()
    running = worker.start(call)
    until(lambda: any(entry["outcome"] == "pending" for entry in kms.log()[before:]), what="the call that hangs")
    return running, faults


def moves_to_the_end(kms, tenant, new):
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert tenant.confirm() == KEYS
    kms.state(tenant.key_uri, "Disabled")
    assert tenant.opens() and tenant.key() == (new, [new], 0)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: " ".join(map(str, step)))
@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_cancelled_or_terminated_at_any_step_it_goes_on(session, dba, app, kms, tenants, step, end):
    tenant, new, worker = tenants(dba, app), kms.key(), session()
    before = tenant.registry()
    running, faults = hang(kms, tenant, new, step, worker)
    if step[0] == "confirm":
        before = tenant.registry()
    dba.run(f"SELECT {end}(%s)", worker.pid)
    with pytest.raises(psycopg.Error):
        running.result(timeout=20)
    faults.__exit__(None, None, None)
    until(lambda: dba.one("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND relation IS NOT NULL)", worker.pid),
          what="the end of the transaction")
    assert tenant.registry() == before and tenant.opens()
    moves_to_the_end(kms, tenant, new)


@pytest.fixture(scope="module")
def fragile(make_server):
    """A server whose processes may be killed."""
    server = make_server()
    server.execute("CREATE EXTENSION cmk_encrypt")
    return server


@pytest.mark.parametrize("step", STEPS, ids=lambda step: " ".join(map(str, step)))
def test_after_a_crash_at_any_step_it_goes_on(fragile, kms, tenants, step):
    dba, worker = Session(fragile.connect()), Session(fragile.connect())
    tenant, new = tenants(dba, dba), kms.key()
    before = tenant.registry()
    running, faults = hang(kms, tenant, new, step, worker)
    if step[0] == "confirm":
        before = tenant.registry()
    if step[2]:
        os.kill(worker.pid, signal.SIGKILL)
    else:
        fragile.restart("immediate")
    with contextlib.suppress(psycopg.Error):
        running.result(timeout=20)
    faults.__exit__(None, None, None)
    until(lambda: dba.connection.broken or is_gone(dba), what="the crash")
    dba = until(lambda: reconnected(fragile), timeout=30, what="the recovery")
    tenant = Moving(tenant.name, tenant.key_uri, dba, dba, tenant.envelopes)
    assert tenant.registry() == before and tenant.opens()
    moves_to_the_end(kms, tenant, new)


def test_of_two_at_once_one_is_refused_by_name(session, dba, app, kms, tenants):
    tenant, new, worker = tenants(dba, app), kms.key(), session()
    running, faults = hang(kms, tenant, new, ("begin", "Decrypt", 1), worker)
    for call in (f"rewrap_tenant('{tenant.name}', '{new}')", f"confirm_rewrap('{tenant.name}')",
                 f"cancel_rewrap('{tenant.name}')", f"rotate_tenant('{tenant.name}')"):
        with fails("55P03", "tenant_busy", tenant):
            dba.run(f"SELECT cmk.{call}")
    # Readers do not wait for it.
    assert tenant.opens()
    faults.__exit__(None, None, None)
    running.result(timeout=20)
    moves_to_the_end(kms, tenant, new)


class Readers:
    """Sessions that read and write a tenant's values all the time, and note what must not be."""

    def __init__(self, tenant, sessions):
        self.faults, self.done = [], [0] * len(sessions)
        self._tenant, self._stop = tenant, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each) for each in enumerate(sessions)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.beat()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number, session):
        while not self._stop.is_set():
            try:
                envelope = self._tenant.envelopes[self.done[number] % len(self._tenant.envelopes)]
                for each in (envelope, session.encrypt(self._tenant)):
                    assert session.decrypt(self._tenant, each) == CANARY
            except Exception as fault:
                self.faults.append(fault)
                return
            self.done[number] += 1

    def beat(self, times=10):
        """Returns once each session has done its work so many more times, and nothing was wrong."""
        before = list(self.done)
        until(lambda: self.faults or all(now >= then + times for now, then in zip(self.done, before, strict=True)),
              30, "the readers")
        assert self.faults == [], self.faults[:3]


def test_nobody_notices_the_swap_and_then_nobody_asks_the_old_key(either_drill, session, kms, tenants):
    drill = either_drill
    on = {"dbname": "postgres", "on": drill.server}
    dba, sessions = session(**on), [session(**on) for _ in range(8)]
    tenant, new = tenants(dba, sessions[0]), kms.key()
    with Readers(tenant, sessions) as readers:
        for target in (new, "local:shared", new):
            if target == "local:shared" and not (drill.server.keys / "shared.key").exists():
                drill.server.make_local_key("shared")
            assert tenant.begin(target) == (KEYS, KEYS, 0, None)
            readers.beat()
            assert tenant.confirm() == KEYS
            readers.beat()
        asked = kms.calls(tenant.key_uri)
        # The owner takes back what it gave. It has no say any more.
        kms.state(tenant.key_uri, "Deleted")
        dba.run("SELECT cmk.evict(%s)", tenant.name)
        readers.beat()
        assert kms.calls(tenant.key_uri) == asked


def test_the_new_key_has_the_revocation_bound_of_any_key(either_drill, session, kms, tenants):
    drill = either_drill
    on = {"dbname": "postgres", "on": drill.server}
    dba, user = session(**on), session(**on)
    tenant, new = tenants(dba, user), kms.key()
    with drill.server.settings(cache_ttl="1s", failure_ttl="200ms"):
        tenant.begin(new)
        tenant.confirm()
        assert tenant.opens(user)
        kms.state(new, "Disabled")

        def dark():
            try:
                tenant.opens(user)
            except psycopg.Error as error:
                return error

        error = until(dark, timeout=2, what="the end of the data keys")
        with fails("55000", "key_disabled", tenant):
            raise error
