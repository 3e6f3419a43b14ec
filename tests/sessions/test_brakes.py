"""The brakes: in effect before they wait, telling whom they wait for, lifted by a rollback."""

import contextlib
import re

import pytest

from server import until
from support import CANARY, fails, fails_with, grant, unique

BRAKES = {
    "suspend": "SELECT cmk.suspend_tenant('{tenant}')",
    "revoke": "SELECT cmk.revoke_access('{tenant}', '{user}')",
    "evict": "SELECT cmk.evict('{tenant}')",
    "evict_all": "SELECT cmk.evict_all()",
}
CHANGES = BRAKES | {
    "grant": "SELECT cmk.grant_access('{tenant}', '{user}')",
    "rotate": "SELECT cmk.rotate_tenant('{tenant}')",
    "register": "SELECT cmk.register_tenant('{tenant}-2', 'local:none', activate => false)",
}
# What a warm session hears of them. An eviction makes it ask KMS.
REFUSALS = {"suspend": ("55000", "tenant_suspended"), "revoke": ("42501", "no_grant")}
ROW = "SELECT FROM {table} WHERE tenant = '{tenant}' FOR UPDATE"
LOCKS = {"row": ROW, "table": "LOCK TABLE {table}"}
# Where each brake has to wait.
TABLES = dict.fromkeys(BRAKES, "cmk.tenant") | {"revoke": "cmk.access"}
WAITS = [(brake, lock) for brake in BRAKES for lock in LOCKS]
# A revocation looks for the tenant, and may delete the grant.
WAITS += [("revoke", ROW.replace("UPDATE", "KEY SHARE"))]
each_wait = pytest.mark.parametrize("brake, lock", WAITS)
each_brake = pytest.mark.parametrize("brake", BRAKES)
each_refusal = pytest.mark.parametrize("brake", REFUSALS)
TRY = "SELECT cmk_try_decrypt(%s, %b, '', %s)"


def heard(session):
    """A list that every notice to the session is added to."""
    said = []
    keep = lambda d: said.append(f"{d.severity_nonlocalized} {d.message_detail}")  # noqa: E731
    session.connection.add_notice_handler(keep)
    return said


class Scene:
    """A tenant that a warm session reads, two DBAs, and a role that may lock every table."""

    def __init__(self, drill, session):
        self.drill, self.kms, self._session = drill, drill.kms, session
        self.dba, self.other_dba = self.connect(), self.connect()
        self.user, self.locker = self.connect(unique("user")), self.connect(unique("locker"))
        self.dba.run(f"GRANT pg_read_all_data, pg_write_all_data TO {self.locker.role}")
        if self.dba.connection.info.server_version >= 170000:
            self.dba.run(f"GRANT pg_maintain TO {self.locker.role}")
        self.tenant, self.sealed = self.sealed_tenant()
        self.asked = self.kms.calls(self.tenant.key_uri)
        self.warnings = {dba: heard(dba) for dba in (self.dba, self.other_dba)}

    def connect(self, role="postgres"):
        if role != "postgres":
            self.dba.run(f"CREATE ROLE {role} LOGIN")
        options = "-c statement_timeout=5s"  # a reader that waits for a lock fails soon
        return self._session(role, dbname="postgres", on=self.drill.server, options=options)

    def sealed_tenant(self):
        """A tenant and a value of it that the user has read."""
        tenant = self.drill.tenant()
        grant(self.dba, tenant, self.user.role)
        sealed = self.dba.one("SELECT sealed FROM customer WHERE tenant = %s", tenant.name)
        assert self.user.decrypt(tenant, sealed) == CANARY
        return tenant, sealed

    def sql(self, text):
        return text.format(tenant=self.tenant, user=self.user.role)

    def begin(self, brake, dba=None):
        """Starts the brake's statement; it waits, and the warm session has felt it already."""
        running = (dba or self.dba).start(self.sql(BRAKES[brake]))
        if self.drill.preloaded:
            until(lambda: self.felt(brake), 3, f"{brake}, in the warm session")
        assert not running.done(), running.exception()
        return running

    def brake_after_waiting(self, brake):
        with self.locked(brake):
            running = self.begin(brake)
        running.result(timeout=5)

    def felt(self, brake):
        if brake in REFUSALS:
            return self.user.one(TRY, self.tenant.name, self.sealed, [REFUSALS[brake][1]]) is None
        assert self.user.decrypt(self.tenant, self.sealed) == CANARY
        return self.kms.calls(self.tenant.key_uri) > self.asked

    def is_stopped(self, brake):
        """Asserts that the warm session gets nothing, or that it asks KMS."""
        if brake not in REFUSALS:
            self.kms.state(self.tenant.key_uri, "Disabled")
        with fails(*REFUSALS.get(brake, ("55000", "key_disabled")), self.tenant):
            self.user.decrypt(self.tenant, self.sealed)
        return True

    def reads(self):
        return self.user.decrypt(self.tenant, self.sealed) == CANARY

    def warned_of(self, name, dba=None):
        """Returns once a warning has named who holds the lock."""
        said = self.warnings[dba or self.dba]
        until(lambda: said, what="a warning")
        assert {"WARNING", name} <= set(re.findall(r"\w+", said[0])), said

    @contextlib.contextmanager
    def locked(self, brake, lock="row", prepared=False):
        """Somebody holds what the brake needs; yields the name of who it is."""
        gid = unique("gid")
        self.locker.run("BEGIN")
        lock = LOCKS.get(lock, lock)
        self.locker.run(lock.format(table=TABLES[brake], tenant=self.tenant))
        if prepared:
            self.locker.run(f"PREPARE TRANSACTION '{gid}'")
        try:
            yield gid if prepared else str(self.locker.pid)
        finally:
            self.locker.run(f"ROLLBACK PREPARED '{gid}'" if prepared else "ROLLBACK")


@pytest.fixture
def scene(drill, session):
    return Scene(drill, session)


@pytest.mark.parametrize("prepared", [False, True], ids=["a session's", "a prepared transaction's"])
@each_wait
def test_a_brake_works_at_once_names_whom_it_waits_for_and_stays(scene, brake, lock, prepared):
    with scene.locked(brake, lock, prepared) as holder:
        running = scene.begin(brake)
        scene.warned_of(holder)
        assert not running.done(), "it goes on waiting"
        if brake not in REFUSALS:
            scene.kms.state(scene.tenant.key_uri, "Disabled")  # so that it must ask after commit
    running.result(timeout=5)
    assert scene.is_stopped(brake)


@each_brake
def test_a_brake_that_waits_leaves_everybody_else_alone(scene, brake):
    tenant, sealed = scene.sealed_tenant()
    asked = scene.kms.calls(tenant.key_uri)
    with scene.locked(brake):
        running = scene.begin(brake)
        assert scene.user.decrypt(tenant, sealed) == CANARY
        assert brake == "evict_all" or scene.kms.calls(tenant.key_uri) == asked
    running.result(timeout=5)
    assert scene.user.decrypt(tenant, sealed) == CANARY


@pytest.mark.parametrize("kept", ["the right to decrypt", "a grant for every tenant"])
def test_a_revocation_that_waits_takes_what_it_names_and_no_more(scene, kept):
    every = kept == "a grant for every tenant"
    if every:
        grant(scene.dba, "*", scene.user.role)
    assert scene.user.encrypt(scene.tenant)
    with scene.locked("revoke") as holder:
        revoke = f"SELECT cmk.revoke_access(%s, %s, decrypt => {every})"
        running = scene.dba.start(revoke, scene.tenant.name, scene.user.role)
        scene.warned_of(holder)
        with contextlib.nullcontext() if every else fails("42501", "no_grant", scene.tenant):
            assert scene.user.encrypt(scene.tenant)
        assert scene.reads()
    running.result(timeout=5)
    assert scene.reads()


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
@each_refusal
def test_a_brake_that_ends_while_it_waits_is_lifted(scene, brake, end):
    with scene.locked(brake) as holder:
        running = scene.begin(brake)
        scene.warned_of(holder)
        assert scene.other_dba.one(f"SELECT {end}(%s)", scene.dba.pid)
        failure = running.exception(timeout=5)
        assert failure.sqlstate == ("57014" if "cancel" in end else "57P01"), repr(failure)
        until(lambda: not scene.felt(brake), 3, "the tenant's return")
    assert scene.reads()


@each_refusal
def test_where_nobody_is_in_the_way_a_brake_takes_effect_at_commit(scene, brake):
    for end in ("ROLLBACK", "COMMIT"):
        scene.dba.run("BEGIN")
        scene.dba.run(scene.sql(BRAKES[brake]))
        assert not scene.warnings[scene.dba]
        assert scene.reads(), "before commit"
        scene.dba.run(end)
        assert scene.reads() if end == "ROLLBACK" else scene.is_stopped(brake)


@pytest.mark.parametrize("depth", [0, 1, 2])
@each_refusal
def test_a_brake_that_waited_goes_and_stays_with_its_subtransaction(scene, brake, depth):
    for undo in (True, False):
        scene.dba.run("BEGIN")
        for level in range(depth):
            scene.dba.run(f"SAVEPOINT level_{level}")
        scene.brake_after_waiting(brake)
        for level in range(1, depth):
            scene.dba.run(f"RELEASE level_{level}")
        assert scene.is_stopped(brake), "before commit"
        if depth:
            scene.dba.run(f"{'ROLLBACK TO' if undo else 'RELEASE'} level_0")
            assert scene.reads() if undo else scene.is_stopped(brake)
        scene.dba.run("ROLLBACK" if undo and not depth else "COMMIT")
        assert scene.reads() if undo else scene.is_stopped(brake)


def test_a_suspension_that_waited_leaves_no_gap_at_commit(scene):
    scene.user.run("""CREATE FUNCTION pg_temp.reads_again(t text, s bytea) RETURNS int
        LANGUAGE plpgsql AS $$ DECLARE refused int := 0; again int := 0; BEGIN
        WHILE clock_timestamp() < now() + '0.7 s' LOOP
            IF cmk_try_decrypt(t, s, '', '{tenant_suspended}') IS NULL THEN refused := 1;
            ELSE again := again + refused; END IF;
        END LOOP; RETURN again / refused; END $$""")
    call = f"SELECT pg_temp.reads_again('{scene.tenant}', '\\x{scene.sealed.hex()}')"
    active = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"
    for _ in range(5):
        # Tables, so that the commit has much to tell the others, and takes its time.
        scene.dba.run("BEGIN")
        scene.dba.run("DO $$ BEGIN FOR i IN 1..250 LOOP"
                      " EXECUTE format('CREATE TEMP TABLE t%s (a int)', i); END LOOP; END $$")
        with scene.locked("suspend"):
            suspending, reading = scene.begin("suspend"), scene.user.start(call)
            until(lambda: scene.other_dba.one(active, scene.user.pid), what="the reader")
        suspending.result(timeout=5)
        scene.dba.run("COMMIT")
        assert reading.result(timeout=5) == [(0,)]
        scene.dba.run("DISCARD TEMP")
        scene.dba.run("SELECT cmk.resume_tenant(%s)", scene.tenant.name)


@pytest.mark.parametrize("first", ["ROLLBACK", "COMMIT"])
def test_of_two_suspensions_at_once_one_is_enough(scene, first):
    scene.dba.run("BEGIN")
    scene.dba.run(scene.sql(BRAKES["suspend"]))
    second = scene.begin("suspend", scene.other_dba)
    scene.warned_of(str(scene.dba.pid), scene.other_dba)
    scene.dba.run(first)
    if first == "COMMIT":
        with fails("55000", "tenant_state_conflict", scene.tenant):
            second.result(timeout=5)
    else:
        assert scene.felt("suspend"), "the second is in effect, whether it has the lock yet or not"
        second.result(timeout=5)
    assert scene.is_stopped("suspend")


@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
@each_wait
def test_without_preloading_a_brake_warns_waits_and_holds_from_commit_on(
    lazy_drill, kms, session, brake, lock, cancelled
):
    scene = Scene(lazy_drill, session)
    with scene.locked(brake, lock) as holder:
        running = scene.begin(brake)
        scene.warned_of(holder)
        assert not running.done()
        if cancelled:
            scene.other_dba.run("SELECT pg_cancel_backend(%s)", scene.dba.pid)
            with fails_with("57014"):
                running.result(timeout=5)
    if not cancelled:
        running.result(timeout=5)
    assert scene.reads() if cancelled else scene.is_stopped(brake)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_registry_cannot_be_prepared_and_leaves_no_lock(scene, change):
    scene.dba.run("BEGIN")
    scene.dba.run(scene.sql(CHANGES[change]))
    with fails("55000", "cannot_prepare"):
        scene.dba.run("PREPARE TRANSACTION 'a change'")
    scene.dba.connection.rollback()
    for table in ("cmk.tenant", "cmk.data_key", "cmk.access"):
        scene.other_dba.run(f"SELECT FROM {table} FOR UPDATE NOWAIT")
    assert scene.reads()


@each_refusal
def test_a_brake_survives_a_crash_though_commits_are_asynchronous(make_server, brake):
    server = make_server({"synchronous_commit": "off", "wal_writer_delay": "10s"})
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    server.execute("CREATE ROLE reader LOGIN")
    for name in ("first", "second", "third"):
        server.execute(f"SELECT cmk.register_tenant('{name}', 'local:shared')")
        server.execute(f"SELECT cmk.grant_access('{name}', 'reader')")
        server.execute("CHECKPOINT")
        server.execute(BRAKES[brake].format(tenant=name, user="reader"))
        server.restart("immediate")
        with fails(*REFUSALS[brake], name), server.connect(user="reader") as reader:
            reader.execute("SELECT cmk_encrypt(%s, 'x')", [name])
