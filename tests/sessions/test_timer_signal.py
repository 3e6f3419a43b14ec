"""The expiry timer takes a signal that nobody else in the process has, or says that there is none."""

import time
from pathlib import Path

import pytest

from crowd import READ
from drill import Drill
from memory import find, forms, is_zero
from server import until
from support import CANARY, fails

TTL = 1.5
SIGRTMIN = 34


def caught(pid):
    """The real-time signals that a process handles, counted from SIGRTMIN."""
    line, = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    mask = int(line.split()[1], 16)
    return {signal - SIGRTMIN for signal in range(SIGRTMIN, 65) if mask >> (signal - 1) & 1}


@pytest.fixture
def drill(make_server, kms, shim):
    """A drill on a server in which somebody else handles signals."""

    def make(taken):
        server = make_server({"cmk_encrypt.cache_ttl": f"{int(TTL * 1000)}ms"}, env={**shim.env, "CMK_TAKEN_SIGNALS": taken})
        return Drill(server, kms, preloaded=False)

    return make


@pytest.mark.parametrize("taken", ["8,8", "0,20", "8,30", "0,29"])
def test_a_signal_of_somebody_else_is_left_alone(drill, session, taken):
    drill = drill(taken)
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    user = session(dbname="postgres", on=drill.server)
    user.one("SELECT 1")
    others = caught(user.pid)
    assert user.one(READ, tenant.name) == CANARY
    ours = caught(user.pid) - others
    assert len(ours) == 1, "one signal, which was free"
    assert user.one("SELECT expiry_timer FROM cmk.cache_stats")
    found = find(user.pid, needles)
    assert found
    until(lambda: is_zero(user.pid, found), timeout=TTL + 1, what="the end of the copy")


def test_without_a_free_signal_it_says_so_and_keys_die_when_they_are_asked_for(drill, session):
    drill = drill("0,30")
    tenant = drill.tenant()
    user = session(dbname="postgres", on=drill.server)
    assert user.one(READ, tenant.name) == CANARY
    assert user.one("SELECT expiry_timer FROM cmk.cache_stats") is False
    assert "cmk_encrypt cannot make a timer" in (drill.server.dir / "log").read_text()
    drill.kms.state(tenant.key_uri, "Disabled")
    time.sleep(TTL)
    with fails("55000", "key_disabled", tenant.name):
        user.one(READ, tenant.name)


def test_a_signal_that_somebody_takes_later_is_given_up_and_every_key_dies_on_time(make_server, kms, shim, session):
    # By name, so that a call resolves it: the shim takes the signal then.
    url = kms.url.replace("127.0.0.1", "localhost")
    conf = {"cmk_encrypt.cache_ttl": "3s", "cmk_encrypt.kms_endpoint_url": url, "cmk_encrypt.cache_soft_ttl": "3s"}
    drill = Drill(make_server(conf, env=shim.env), kms, preloaded=False)
    early, late = drill.tenant(), drill.tenant()
    needles = forms(drill.dek(early))
    user = session(dbname="postgres", on=drill.server)
    user.one("SELECT 1")
    others = caught(user.pid)
    assert user.one(READ, early.name) == CANARY
    began = time.monotonic()
    ours, = caught(user.pid) - others
    found = find(user.pid, needles)
    assert found
    time.sleep(1)
    with shim.take_signal(ours):
        assert user.one(READ, late.name) == CANARY
    assert len(caught(user.pid) - others) == 2, "another one, beside what was taken"
    until(lambda: is_zero(user.pid, found), timeout=4, what="the end of the first copy")
    assert time.monotonic() - began < 3 + 0.5, "with the first timer, not with the second"
    time.sleep(2)
    assert user.usable(), "nobody got a signal that was not his"
