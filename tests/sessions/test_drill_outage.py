"""KMS is down, in all the ways there are: warm tenants read on until the hard TTL and not a moment longer, cold ones
fail soon and clearly, and all read again once KMS is back."""

import contextlib
import time
from collections import Counter

import pytest

from crowd import DECRYPTED, READ, Readers
from figures import measure_hang, measure_outage
from server import until
from support import CANARY, fails_with

TTL = 3.0
FAILURE_TTL = 0.3
OPERATION_TIMEOUT = 1.0
REFRESH_WAIT = 0.1
# For what a busy machine of two processors does in between.
SLACK = 0.4

# What the fake KMS does to the calls for a tenant, and the reason that SQL gives.
FAULTS = {
    "hung": ({"kind": "hang"}, "kms_timeout"),
    "resetting": ({"kind": "reset"}, "kms_unreachable"),
    "failing": ({"kind": "status", "status": 500, "code": "KMSInternalException"}, "kms_server_error"),
    "throttling": ({"kind": "throttle"}, "kms_throttled"),
    "garbage": ({"kind": "garbage"}, "kms_server_error"),
}


@pytest.fixture
def impatient(either_drill):
    """A server with short times all round."""
    with either_drill.server.settings(
        cache_ttl=f"{TTL}s", failure_ttl=f"{FAILURE_TTL}s", refresh_wait=f"{REFRESH_WAIT}s",
        kms_operation_timeout=f"{OPERATION_TIMEOUT}s", kms_attempt_timeout="0.5s", kms_max_attempts=2,
    ):
        yield either_drill


def live_through(drill, down, reasons):
    """Eight warm readers of each tenant in `reasons` read on while the block `down` is entered, until their data
    keys have died, and beyond, and again once it is left."""
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        crowds = {tenant: stack.enter_context(Readers(drill.server, tenant, count=8)) for tenant in reasons}
        until(lambda: all(readers.all_read(0) for readers in crowds.values()), what="warm readers")
        with down:
            cut = time.monotonic()
            time.sleep(TTL + 1.5)  # the span measured
            restored = time.monotonic()
        for readers in crowds.values():
            # The circuit breaker pauses for eight times the failure TTL at most, give or take a quarter.
            until(lambda: readers.all_read(restored), timeout=FAILURE_TTL * 8 * 1.25 + OPERATION_TIMEOUT + SLACK)
    for tenant, readers in crowds.items():
        check(readers, began, cut, restored, reasons[tenant])
        check_log(drill, tenant, reasons[tenant])


def check(readers, began, cut, restored, reason):
    early = Counter(a.outcome for a in readers.answers if a.received < began + TTL and a.outcome != DECRYPTED)
    assert not early, f"failed while the data key was good: {early}"
    late = readers.outcomes(cut + TTL, restored)
    assert set(late) == {reason}, late
    values = [a.seconds for a in readers.answers if a.outcome == DECRYPTED and cut < a.sent and a.received < restored]
    assert max(values) <= REFRESH_WAIT + SLACK, "a refresh ahead of need delays nobody longer"
    assert readers.slowest(cut) <= OPERATION_TIMEOUT + SLACK


def check_log(drill, tenant, reason):
    """One line when the key goes and one when it comes back, not one a row: for the server, or for each backend."""
    lines = [line for line in drill.server.log.read_text().splitlines()
             if "key_state=" in line and f"tenant={tenant} " in f"{line} "]
    lost = [line for line in lines if f"was=usable reason={reason} " in line]
    found = [line for line in lines if "key_state=usable" in line]
    most = 1 if drill.preloaded else 8
    assert 1 <= len(lost) <= most and 1 <= len(found) <= most and len(lines) == len(lost) + len(found), lines


def test_answers_that_fail(impatient):
    tenants = {fault: impatient.tenant() for fault in FAULTS}

    @contextlib.contextmanager
    def down():
        with contextlib.ExitStack() as faults:
            for fault, tenant in tenants.items():
                faults.enter_context(impatient.kms.fault(arn=tenant.key_uri, **FAULTS[fault][0]))
            yield

    live_through(impatient, down(), {tenant: FAULTS[fault][1] for fault, tenant in tenants.items()})


def test_a_port_that_refuses(impatient, gate):
    with impatient.server.settings(kms_endpoint_url=gate.url):
        live_through(impatient, gate.down(), {impatient.tenant(): "kms_unreachable"})


def test_names_that_resolve_slowly(impatient, gate, shim):
    @contextlib.contextmanager
    def down():
        gate.shut()  # an open connection asks for no name
        gate.open()
        with shim.slow_names(5000):
            yield

    with impatient.server.settings(kms_endpoint_url=f"http://localhost:{gate.port}"):
        live_through(impatient, down(), {impatient.tenant(): "kms_timeout"})


def test_shorter_than_the_ttl_it_fails_no_query_of_a_warm_tenant(either_drill, gate):
    readers = measure_outage(either_drill, gate, seconds=10)
    assert set(readers.outcomes()) == {DECRYPTED}
    assert readers.slowest() < REFRESH_WAIT + SLACK


def test_a_hung_kms_fails_a_cold_query_within_the_operation_timeout_and_can_be_cancelled(either_drill):
    failed, cancelled = measure_hang(either_drill, OPERATION_TIMEOUT)
    assert OPERATION_TIMEOUT <= failed <= OPERATION_TIMEOUT + 0.5
    assert cancelled <= 0.5


def test_a_hung_refresh_can_be_cancelled_too(either_drill, session):
    drill = either_drill
    tenant = drill.tenant()
    user, dba = (session(dbname="postgres", on=drill.server) for _ in range(2))
    with drill.server.settings(cache_ttl="60s", cache_soft_ttl="500ms", refresh_wait="30s",
                               kms_operation_timeout="30s", kms_attempt_timeout="30s"):
        assert user.one(READ, tenant.name) == CANARY
        before = drill.kms.calls(tenant.key_uri)
        with drill.kms.fault("hang", arn=tenant.key_uri):
            running = user.start("SELECT count(cmk_decrypt(tenant, sealed)) FROM customer, generate_series(1, 1000) a,"
                                 f" generate_series(1, 1000) b, generate_series(1, 1000) c WHERE tenant = '{tenant}'")
            until(lambda: drill.kms.calls(tenant.key_uri) > before, what="the refresh")
            began = time.monotonic()
            dba.run("SELECT pg_cancel_backend(%s)", user.pid)
            with fails_with("57014"):
                running.result(timeout=5)
            assert time.monotonic() - began <= 0.5
        assert user.one(READ, tenant.name) == CANARY, "the data key still serves"
