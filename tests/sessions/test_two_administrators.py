"""Two administrators who change one tenant at the same time: one waits for the other or is refused by name."""

import contextlib
import random
import threading

import psycopg
import pytest

from server import until
from support import CANARY, Session, check_failure, unique

# What changes a tenant. Of each: the call, and the state that it wants the tenant in.
ACTS = {
    "rotate": ("SELECT cmk.rotate_tenant('{t}')", "active"),
    "rewrap": ("SELECT cmk.rewrap_tenant('{t}', 'local:other')", "active"),
    "confirm": ("SELECT cmk.confirm_rewrap('{t}')", "moving"),
    "cancel": ("SELECT cmk.cancel_rewrap('{t}')", "moving"),
    "retire": ("SELECT cmk.retire_keys('{t}', 'there is nothing else')", "active"),
    "suspend": ("SELECT cmk.suspend_tenant('{t}')", "active"),
    "resume": ("SELECT cmk.resume_tenant('{t}')", "suspended"),
    "shred": ("SELECT cmk.shred_tenant('{t}', '{t}', immediately => true)", "suspended"),
    "remove": ("SELECT cmk.remove_tenant('{t}')", "shredded"),
    "revoke": ("SELECT cmk.revoke_access('{t}', '{r}')", "active"),
    "grant": ("SELECT cmk.grant_access('{t}', '{r}')", "active"),
    "evict": ("SELECT cmk.evict('{t}')", "active"),
    "rotate index": ("SELECT cmk.rotate_index_key('{t}')", "active"),
    "alter": ("SELECT cmk.alter_tenant_rotation('{t}', '1 day')", "active"),
}

# Why an act may be refused because of the other, with its SQLSTATE.
REFUSALS = {
    "tenant_busy": "55P03", "tenant_state_conflict": "55000", "unknown_tenant": "42704", "no_rewrap": "55000",
    "rewrap_incomplete": "55000", "rewrap_target": "22023", "index_rotation_open": "55000",
}


def outcome(done):
    """None, or the reason of a refusal that names the other's act. Anything else fails the test."""
    try:
        done()
    except psycopg.Error as error:
        reasons = [reason for reason in REFUSALS if f"reason={reason} " in f"{error.diag.message_detail} "]
        assert reasons, f"{error!r} DETAIL {error.diag.message_detail}"
        check_failure(error, REFUSALS[reasons[0]], reasons[0])
        return reasons[0]


class World:
    def __init__(self, server, session, dbname):
        self.dba, self.one, self.other = (session(dbname=dbname) for _ in range(3))
        self.role = unique("role")
        server.execute(f"CREATE ROLE {self.role}")
        self.connect = lambda: session(dbname=dbname)

    def tenant(self, state):
        """Has two data keys, of which the older is retired and needed by nothing."""
        name = unique("tenant")
        self.dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
        self.dba.run("SELECT cmk.rotate_tenant(%s), cmk.grant_access(%s, %s)", name, name, self.role)
        if state == "moving":
            self.dba.run("SELECT cmk.rewrap_tenant(%s, 'local:other')", name)
        if state in ("suspended", "shredded"):
            self.dba.run("SELECT cmk.suspend_tenant(%s)", name)
        if state == "shredded":
            self.dba.run("SELECT cmk.shred_tenant(%s, %s, immediately => true)", name, name)
        return name

    def call(self, act, tenant):
        return ACTS[act][0].format(t=tenant, r=self.role)

    def is_sound(self, tenant):
        """The registry is whole, and so is the trail; and an active tenant is in use."""
        assert self.dba.all("SELECT problem FROM cmk.check() WHERE tenant = %s", tenant) == []
        assert self.dba.all("SELECT status FROM cmk.verify_audit(%s)", tenant) == [("ok",)]
        states = self.dba.all("SELECT state FROM cmk.tenant WHERE tenant = %s", tenant)
        keys = "SELECT count(*) FROM cmk.data_key WHERE tenant = %s AND purpose = 'values' AND state = 'current'"
        assert self.dba.one(keys, tenant) == (states in ([("active",)], [("suspended",)]))
        if states == [("active",)]:
            self.dba.run("SELECT cmk.grant_access(%s, 'postgres')", tenant)
            assert self.dba.decrypt(tenant, self.dba.encrypt(tenant)) == CANARY


@pytest.fixture(scope="module")
def world(server, database_of_module, session_of_module):
    if not (server.keys / "other.key").exists():
        server.make_local_key("other")
    return World(server, session_of_module, database_of_module)


@pytest.fixture(scope="module")
def database_of_module(server):
    name = unique("db")
    server.execute(f"CREATE DATABASE {name}")
    server.execute("CREATE EXTENSION cmk_encrypt", name)
    yield name
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def session_of_module(server):
    opened = []

    def connect(dbname):
        opened.append(Session(server.connect(dbname)))
        return opened[-1]

    yield connect
    for session in opened:
        session.close()


def is_blocked(world, session):
    return world.dba.one("SELECT cardinality(pg_blocking_pids(%s)) > 0", session.pid)


@pytest.mark.parametrize("first", ACTS)
def test_whoever_comes_second_waits_or_is_refused_by_name(world, first):
    for second in ACTS:
        tenant = world.tenant(ACTS[first][1])
        if first == "retire":
            # It is a transaction of its own. It waits for one that is open, and the other comes meanwhile.
            world.dba.run("BEGIN")
            world.dba.run("SELECT txid_current()")
            doing = world.one.start(world.call(first, tenant))
            observer = world.connect()
            until(lambda: observer.one("SELECT cardinality(pg_blocking_pids(%s)) > 0", world.one.pid), what="the wait")
            outcome(lambda: world.other.run(world.call(second, tenant)))
            world.dba.run("COMMIT")
            outcome(lambda: doing.result(timeout=20))
            observer.close()
        else:
            world.one.run("BEGIN")
            world.one.run(world.call(first, tenant))
            doing = world.other.start(world.call(second, tenant))
            until(lambda: doing.done() or is_blocked(world, world.other), what=f"{second} after {first}")
            world.one.run("COMMIT")
            outcome(lambda: doing.result(timeout=20))
        world.is_sound(tenant)


def test_any_number_of_them_at_random(world):
    """Nobody sees a deadlock, nor an error without a name; and what is left is whole."""
    tenant, faults, stop = world.tenant("active"), [], threading.Event()
    done = dict.fromkeys(ACTS, 0)

    def work(number):
        draw, session = random.Random(number), world.connect()
        try:
            while not stop.is_set():
                act = draw.choice([act for act in ACTS if act not in ("shred", "remove")])
                if outcome(lambda: session.run(world.call(act, tenant))) is None:
                    done[act] += 1
                if act in ("revoke", "grant"):
                    half = draw.choice(["encrypt", "decrypt"])
                    session.run(f"SELECT cmk.revoke_access(%s, %s, {half} => false)", tenant, world.role)
        except BaseException as fault:
            faults.append(fault)
            stop.set()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(AssertionError):
        until(lambda: stop.is_set() or all(done[act] > 0 for act in done if act not in ("shred", "remove")), 10)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == [], faults[:2]
    assert all(done[act] for act in done if act not in ("shred", "remove")), done
    world.is_sound(tenant)


def test_two_who_take_back_a_half_each_take_back_all(world):
    for halves in (("encrypt", "decrypt"), ("decrypt", "encrypt")):
        tenant = world.tenant("active")
        take = "SELECT cmk.revoke_access(%s, %s, {} => false)"
        world.one.run("BEGIN")
        world.one.run(take.format(halves[0]), tenant, world.role)
        doing = world.other.start(take.format(halves[1]), tenant, world.role)
        until(lambda: is_blocked(world, world.other), what="the wait")
        world.one.run("COMMIT")
        doing.result(timeout=20)
        assert world.dba.all("SELECT role FROM cmk.access WHERE tenant = %s", tenant) == []
        told = world.dba.all("SELECT before->>'encrypt', before->>'decrypt', after->>'encrypt', after->>'decrypt'"
                             " FROM cmk.audit_event WHERE tenant = %s AND act = 'revoke_access' ORDER BY number", tenant)
        # The trail says what there was, not what there was before the other.
        kept = [str(half == halves[0]).lower() for half in ("encrypt", "decrypt")]
        assert told == [("true", "true", *kept), (*kept, "false", "false")]


def test_a_grant_that_comes_meanwhile_stays_whole_or_goes(world):
    tenant = world.tenant("active")
    world.dba.run("SELECT cmk.revoke_access(%s, %s)", tenant, world.role)
    world.one.run("BEGIN")
    world.one.run("SELECT cmk.grant_access(%s, %s)", tenant, world.role)
    doing = world.other.start("SELECT cmk.grant_access(%s, %s, decrypt => false)", tenant, world.role)
    until(lambda: is_blocked(world, world.other), what="the wait")
    world.one.run("COMMIT")
    doing.result(timeout=20)
    assert world.dba.all("SELECT encrypt, decrypt FROM cmk.access WHERE tenant = %s", tenant) == [(True, True)]
    last = world.dba.one("SELECT after::text FROM cmk.audit_event WHERE tenant = %s ORDER BY number DESC LIMIT 1", tenant)
    assert '"decrypt":true' in last.replace(" ", "")


def test_two_who_evict_everybody_take_turns(server, database, session):
    """Each locks the rows of all tenants, those first that nobody holds."""
    name = database()
    one, other, holder = (session(dbname=name) for _ in range(3))
    one.run("INSERT INTO cmk.tenant (tenant, key_uri) SELECT 'tenant ' || n, 'local:shared' FROM generate_series(1, 10000) n")
    for _ in range(3):
        # The first has half of the rows when it gets at the others, and then the second comes.
        holder.run("BEGIN")
        holder.run("SELECT FROM cmk.tenant ORDER BY ctid LIMIT 5000 FOR UPDATE")
        first = one.start("SELECT cmk.evict_all()")
        until(lambda: holder.one("SELECT cardinality(pg_blocking_pids(%s)) > 0", one.pid), what="the wait")
        holder.run("COMMIT")
        second = other.start("SELECT cmk.evict_all()")
        for done in (first, second):
            done.result(timeout=30)
    assert holder.one("SELECT count(*) FROM cmk.audit_event WHERE act = 'evict_all'") == 6


def test_evicting_everybody_goes_past_a_tenant_that_is_being_removed(server, database, session):
    name = database()
    one, other, observer = (session(dbname=name) for _ in range(3))
    for tenant in ("here", "gone"):
        one.run("SELECT cmk.register_tenant(%s, 'local:shared', activate => false)", tenant)
    one.run("BEGIN")
    one.run("SELECT cmk.remove_tenant('gone')")
    doing = other.start("SELECT cmk.evict_all()")
    until(lambda: observer.one("SELECT cardinality(pg_blocking_pids(%s)) > 0", other.pid), what="the wait")
    one.run("COMMIT")
    doing.result(timeout=20)
    assert observer.all("SELECT tenant FROM cmk.tenant") == [("here",)]
