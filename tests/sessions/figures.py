"""What the drills measure: asserted by the tests, printed by tests/bench/drills.py."""

import asyncio
import math
import time
from dataclasses import dataclass

import psycopg

from crowd import DECRYPTED, Bystanders, Readers, percentile
from server import until

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


async def ask_at_once(server, count, query, parameters, expected):
    """Seconds until the last of so many connections has the answer."""
    connections = [await psycopg.AsyncConnection.connect(server.conninfo(), autocommit=True) for _ in range(count)]
    try:
        for connection in connections:
            # The catalogs and the extension; cold are the keys.
            await connection.execute("SELECT count(*), count(cmk_try_decrypt('', '')) FROM customer WHERE tenant = ''")

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
            restore(dying.key_uri)
            restored = time.monotonic()
            until(lambda: readers.all_read(restored), timeout=20, what="readers that read again")
            back = time.monotonic()
        latencies = bystanders.latencies()
    failed = failures(drill.kms, dying)
    in_the_dark = [a for a in readers.answers if a.sent <= restored and a.outcome == DECRYPTED]
    return Revocation(
        dark_after=max(a.sent for a in in_the_dark) - revoked,
        outcomes=dict(readers.outcomes(revoked + ttl, restored)),
        slowest=readers.slowest(revoked),
        back_after=back - restored,
        calls=len(failed),
        span=failed[-1] - failed[0],
        least_gap=min((b - a for a, b in zip(failed, failed[1:])), default=math.inf),
        p99_before=percentile(latencies, 99, revoked_wall - before, revoked_wall),
        p99_during=percentile(latencies, 99, revoked_wall, revoked_wall + ttl),
    )


def failures(kms, tenant):
    """When KMS refused to unwrap for the tenant: seconds, by the clock of the fake KMS."""
    log = kms.log(tenant.key_uri)
    return [e["at_ms"] / 1e3 for e in log if e["operation"] == "Decrypt" and e["outcome"] != "Success"]
