"""A session that sleeps does not keep a data key: its copy is zeroed at the deadline, by no one's asking."""

import time

import pytest

from crowd import READ
from memory import find, forms, is_zero
from server import until
from support import CANARY, fails_with

TTL = 1.5
# How long after its deadline a copy may be found, by an observer that shares the processor. A timer of the kernel sees to it.
LATE = 0.3


@pytest.fixture
def short_ttl(either_drill):
    with either_drill.server.settings(cache_ttl=f"{int(TTL * 1000)}ms"):
        yield either_drill


@pytest.mark.parametrize("state", ["idle", "in a transaction", "in a failed transaction", "in a cursor", "asleep"])
def test_a_sleeping_sessions_copy_dies_on_time(short_ttl, session, state):
    drill = short_ttl
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    user = session(dbname="postgres", on=drill.server)
    began = time.monotonic()
    if state in ("in a transaction", "in a failed transaction", "in a cursor"):
        user.run("BEGIN")
    if state == "in a cursor":
        user.run(f"DECLARE c CURSOR FOR SELECT cmk_decrypt(tenant, sealed) FROM customer, generate_series(1, 10)"
                 f" WHERE tenant = '{tenant}'")
        assert user.one("FETCH c") == CANARY
    else:
        assert user.one(READ, tenant.name) == CANARY
    ended = time.monotonic()
    if state == "in a failed transaction":
        with fails_with("22012"):
            user.run("SELECT 1 / 0")
    asleep = user.start("SELECT pg_sleep(2.5)") if state == "asleep" else None
    found = find(user.pid, needles)
    assert found, "the search doesn't find the key that the backend must hold"
    until(lambda: is_zero(user.pid, found), timeout=TTL + 1, what="the end of the copy")
    gone = time.monotonic()
    assert not find(user.pid, needles)
    assert began + TTL <= gone + 0.02, "not before its time"
    assert gone <= ended + TTL + LATE
    if asleep:
        assert not asleep.done(), "the sleep went on"
        asleep.result(timeout=10)
    user.connection.rollback()
    assert user.one(READ, tenant.name) == CANARY, "and the session works"
