"""What the drills measure: asserted by the tests, printed by tests/bench/drills.py."""

import asyncio
import math
import time
from dataclasses import dataclass

import psycopg

from crowd import DECRYPTED, READ, Bystanders, Readers, percentile
from memory import find, forms, is_zero
from server import until
from support import Session, fails, fails_with

CROWD = 50


@dataclass(frozen=True)
class ColdStart:
    calls: int
    # From the question to the last connection's answer.
    seconds: float


def measure_cold_start(drill, connections=200, rows=100, kms_millis=50):
    """So many connections decrypt rows of one tenant at once, which none of them has a data key of."""
    tenant = drill.tenant()
    before = drill.kms.calls(tenant.key_uri)
    query = "SELECT count(cmk_decrypt(tenant, sealed)) FROM customer, generate_series(1, %s) WHERE tenant = %s"
    with drill.kms.fault("delay", arn=tenant.key_uri, millis=kms_millis):
        seconds = asyncio.run(ask_at_once(drill.server, connections, query, (rows, tenant.name), (rows,)))
    return ColdStart(drill.kms.calls(tenant.key_uri) - before, seconds)


# Brings the catalogs and the extension; cold are the keys.
WARM_UP = "SELECT count(*), count(cmk_try_decrypt('', '')) FROM customer WHERE tenant = ''"


async def ask_at_once(server, count, query, parameters, expected, warm_up=WARM_UP):
    """Seconds until the last of so many connections has the answer."""
    connections = [await psycopg.AsyncConnection.connect(server.conninfo(), autocommit=True) for _ in range(count)]
    try:
        for connection in connections:
            await connection.execute(warm_up)

        async def ask(connection):
            cursor = await connection.execute(query, parameters)
            assert await cursor.fetchone() == expected
            return time.monotonic()

        began = time.monotonic()
        return max(await asyncio.gather(*map(ask, connections))) - began
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


@dataclass(frozen=True)
class Revocation:
    # From the owner's act to the sending of the last query that got a value.
    dark_after: float
    # What the readers were told from one TTL after the act on, and how long the slowest of all answers took.
    outcomes: dict
    slowest: float
    # From the owner's taking it back to every reader's reading again.
    back_after: float
    # Unwraps asked for the dead tenant, the seconds they are spread over, and the least time between two.
    calls: int
    span: float
    least_gap: float
    # Seconds, of the other tenant's queries.
    p99_before: float
    p99_during: float


def measure_revocation(drill, revoke, restore, ttl=5, failure_ttl=1, before=3, dark=2):
    """An owner takes the key away while 50 warm connections read its tenant and 50 others read another one.
    `revoke` and `restore` are given the key's ARN."""
    dying, living = drill.tenant(), drill.tenant()
    with drill.server.settings(cache_ttl=f"{ttl}s", failure_ttl=f"{failure_ttl}s"):
        bystanders = Bystanders(drill.server, living, seconds=2 + before + ttl + dark, count=CROWD)
        with Readers(drill.server, dying, CROWD) as readers:
            until(lambda: readers.all_read(0), what="warm readers")
            time.sleep(1 + before)  # the span measured
            revoke(dying.key_uri)
            revoked, revoked_wall = time.monotonic(), time.time()
            time.sleep(ttl + dark)  # the span measured
            ending = time.monotonic()
            restore(dying.key_uri)
            restored = time.monotonic()
            until(lambda: readers.all_read(restored), timeout=20, what="readers that read again")
            back = time.monotonic()
        latencies = bystanders.latencies()
    failed = failures(drill.kms, dying)
    in_the_dark = [a for a in readers.answers if a.received <= ending and a.outcome == DECRYPTED]
    return Revocation(
        dark_after=max(a.sent for a in in_the_dark) - revoked,
        outcomes=dict(readers.outcomes(revoked + ttl, ending)),
        slowest=readers.slowest(revoked),
        back_after=back - restored,
        calls=len(failed),
        span=failed[-1] - failed[0],
        least_gap=min((b - a for a, b in zip(failed, failed[1:])), default=math.inf),
        p99_before=percentile(latencies, 99, revoked_wall - before, revoked_wall),
        p99_during=percentile(latencies, 99, revoked_wall, revoked_wall + ttl),
    )


# The outcome of the call by which a verification finds out that the encryption context is bound.
WRONG_CONTEXT = "InvalidCiphertextException"


def failures(kms, tenant):
    """When KMS refused to unwrap for the tenant: seconds, by the clock of the fake KMS."""
    log = kms.log(tenant.key_uri)
    return [e["at_ms"] / 1e3 for e in log if e["operation"] == "Decrypt" and e["outcome"] not in ("Success", WRONG_CONTEXT)]


def measure_outage(drill, gate, seconds, count=30):
    """What warm readers see of an outage of KMS that is shorter than the TTL, and a moment after it."""
    # Refreshing ahead begins after two seconds, so that the outage is met again and again.
    with drill.server.settings(kms_endpoint_url=gate.url, cache_ttl="300s", cache_soft_ttl="2s", failure_ttl="500ms"):
        with Readers(drill.server, drill.tenant(), count) as readers:
            until(lambda: readers.all_read(0), what="warm readers")
            with gate.down():
                time.sleep(seconds)  # the span measured
                restored = time.monotonic()
            until(lambda: readers.all_read(restored), what="readers that read on")
    return readers


def measure_hang(drill, operation_timeout):
    """How long a cold query takes to fail, and how long to be cancelled, while KMS hangs: seconds."""
    tenant = drill.tenant()
    user = Session(drill.server.connect())
    with drill.kms.fault("hang", arn=tenant.key_uri):
        with drill.server.settings(kms_operation_timeout=f"{operation_timeout}s", kms_attempt_timeout="60s"):
            began = time.monotonic()
            with fails("58000", "kms_timeout", tenant):
                user.one(READ, tenant.name)
            failed = time.monotonic() - began
        with drill.server.settings(kms_operation_timeout="60s", kms_attempt_timeout="60s"):
            drill.evict(tenant)
            before = drill.kms.calls(tenant.key_uri)
            running = user.start(READ, tenant.name)
            until(lambda: drill.kms.calls(tenant.key_uri) > before, what="the call to KMS")
            began = time.monotonic()
            drill.dba.run("SELECT pg_cancel_backend(%s)", user.pid)
            with fails_with("57014"):
                running.result(timeout=5)
            cancelled = time.monotonic() - began
    user.close()
    return failed, cancelled


def measure_idle(drill, ttl, count=20):
    """By how much the copy of an idle session outlives its deadline, at most: seconds, by the caller's clock."""
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    with drill.server.settings(cache_ttl=f"{ttl}s"):
        sessions = [Session(drill.server.connect()) for _ in range(count)]
        deadlines = {}
        for session in sessions:
            session.one(READ, tenant.name)
            deadlines[session] = time.monotonic() + ttl
        copies = {session: find(session.pid, needles) for session in sessions}
        assert all(copies.values()), "the search doesn't find the keys that the backends must hold"
        late = []
        while copies:
            for session in [s for s, found in copies.items() if is_zero(s.pid, found)]:
                late.append(time.monotonic() - deadlines[session])
                del copies[session]
            time.sleep(0.001)
        for session in sessions:
            session.close()
    return max(late)
