"""Whoever asks KMS for all the others dies, is cancelled or stops; then the whole server."""

import contextlib
import os
import signal
import time
from concurrent.futures import wait

import psycopg
import pytest

from crowd import READ
from memory import find, forms
from server import until
from support import CANARY, check_failure, fails_with

WAITERS = 20
OPERATION_TIMEOUT = 2.0


@pytest.fixture
def patient(either_drill):
    """Calls that hang hang for good, as far as these tests are concerned."""
    with either_drill.server.settings(kms_attempt_timeout="60s", kms_operation_timeout="60s"):
        yield either_drill


@pytest.fixture
def call_in_progress(session, kms):
    """Starts sessions that want the same data key while KMS hangs: one asks, the others wait for it (or ask too,
    where nothing is shared). Gives the first session, the first answer to come and the others'."""

    def start(drill, tenant):
        first, *others = (session(dbname="postgres", on=drill.server) for _ in range(1 + WAITERS))
        before = kms.calls(tenant.key_uri)
        asked = first.start(READ, tenant.name)
        until(lambda: kms.calls(tenant.key_uri) == before + 1, what="the first call to KMS")
        waiting = [other.start(READ, tenant.name) for other in others]
        calls = before + 1 if drill.preloaded else before + 1 + WAITERS
        until(lambda: waits(drill, others) == WAITERS and kms.calls(tenant.key_uri) == calls, what="the others' wait")
        return first, asked, waiting

    return start


def waits(drill, sessions):
    """How many of them wait for KMS or for another's call."""
    return drill.server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND pid = ANY ("
        f"'{{{','.join(str(s.pid) for s in sessions)}}}')"
    )[0][0]


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_the_others_survive_the_end_of_the_one_that_asks(patient, call_in_progress, kms, end):
    tenant = patient.tenant()
    with kms.fault("hang", arn=tenant.key_uri):
        first, asked, waiting = call_in_progress(patient, tenant)
        calls = kms.calls(tenant.key_uri)
        patient.dba.run(f"SELECT {end}(%s)", first.pid)
        with fails_with("57014" if end == "pg_cancel_backend" else "57P01"):
            asked.result(timeout=5)
        if patient.preloaded:
            until(lambda: kms.calls(tenant.key_uri) == calls + 1, timeout=1, what="another's taking over")
        assert not wait(waiting, timeout=0).done
    assert [future.result(timeout=5) for future in waiting] == [[(CANARY,)]] * WAITERS
    if patient.preloaded:
        assert kms.calls(tenant.key_uri) == calls + 1


def test_a_waiter_can_be_cancelled_and_the_others_wait_on(patient, call_in_progress, session, kms):
    tenant = patient.tenant()
    with kms.fault("hang", arn=tenant.key_uri):
        _, asked, waiting = call_in_progress(patient, tenant)
        impatient = session(dbname="postgres", on=patient.server)
        impatient.run("SET statement_timeout = '300ms'")
        began = time.monotonic()
        with fails_with("57014"):
            impatient.one(READ, tenant.name)
        assert time.monotonic() - began < 0.3 + 0.5
        assert not wait([asked, *waiting], timeout=0).done
    assert [future.result(timeout=5) for future in (asked, *waiting)] == [[(CANARY,)]] * (1 + WAITERS)


def test_one_that_is_stopped_holds_the_others_no_longer_than_a_call_may_last(drill, call_in_progress, kms):
    with drill.server.settings(kms_attempt_timeout=f"{OPERATION_TIMEOUT}s", kms_operation_timeout=f"{OPERATION_TIMEOUT}s"):
        tenant = drill.tenant()
        with kms.fault("hang", arn=tenant.key_uri):
            first, asked, waiting = call_in_progress(drill, tenant)
            began = time.monotonic()
            os.kill(first.pid, signal.SIGSTOP)
        try:
            assert [future.result(timeout=10) for future in waiting] == [[(CANARY,)]] * WAITERS
            assert time.monotonic() - began < OPERATION_TIMEOUT + 1 + 0.5
        finally:
            os.kill(first.pid, signal.SIGCONT)
        # Its own time is over, and whether the answer or that is seen first is luck.
        if error := asked.exception(timeout=5):
            check_failure(error, "58000", "kms_timeout", tenant)


# The whole server


@pytest.fixture(scope="module", params=["preloaded", "lazy"])
def mortal(request, make_drill):
    """A server of its own: what is done to it ends every session of it."""
    return make_drill(preloaded=request.param == "preloaded", **{"cmk_encrypt.kms_attempt_timeout": "60s",
                                                                 "cmk_encrypt.kms_operation_timeout": "60s"})


@pytest.fixture(params=["killed in the middle of a call", "killed while idle", "server stopped at once"])
def death(request, mortal, call_in_progress, session, kms):
    """Ends the server, with a warm session or with sessions that wait for KMS; gives the tenant and the clients'
    errors."""
    mortal.reconnect()
    tenant = mortal.tenant()
    if request.param == "killed while idle":
        first = session(dbname="postgres", on=mortal.server)
        assert first.one(READ, tenant.name) == CANARY
        running, hung = [], contextlib.nullcontext()
    else:
        hung = kms.fault("hang", arn=tenant.key_uri)
    with hung:
        if request.param != "killed while idle":
            first, asked, waiting = call_in_progress(mortal, tenant)
            running = [asked, *waiting]
        began = time.monotonic()
        if request.param == "server stopped at once":
            mortal.server.restart("immediate")
        else:
            os.kill(first.pid, signal.SIGKILL)
        for future in running:
            assert isinstance(future.exception(timeout=10), psycopg.OperationalError)
        until(lambda: answers(mortal.server), timeout=20, what="the server's recovery")
    assert time.monotonic() - began < 10
    mortal.reconnect()
    return mortal, tenant


def answers(server):
    with contextlib.suppress(psycopg.OperationalError):
        return server.execute("SELECT 1") == [(1,)]


def test_the_server_recovers_and_reads(death, session, kms):
    drill, tenant = death
    before = kms.calls(tenant.key_uri)
    users = [session(dbname="postgres", on=drill.server) for _ in range(5)]
    asked = [user.start(READ, tenant.name) for user in users]
    assert [future.result(timeout=10) for future in asked] == [[(CANARY,)]] * 5
    assert kms.calls(tenant.key_uri) == before + (1 if drill.preloaded else 5)


def test_nothing_of_a_data_key_is_left_of_before(death):
    drill, tenant = death
    dek = drill.dek(tenant)
    for pid in (drill.server.pid, drill.dba.pid):
        assert not find(pid, forms(dek)) and not find(pid, forms(dek), shared=True)
