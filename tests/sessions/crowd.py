"""Many connections that read at a steady rate, and what they saw."""

import asyncio
import contextlib
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psycopg

from support import CANARY, DETAIL

READ = "SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = %s"
DECRYPTED = "decrypted"


@dataclass(frozen=True)
class Answer:
    reader: int
    sent: float
    received: float
    # DECRYPTED, the reason of our error, or something that must not be.
    outcome: str

    @property
    def seconds(self):
        return self.received - self.sent


class Readers:
    """Connections of which each reads a tenant's value again and again. Times are those of time.monotonic()."""

    def __init__(self, server, tenant, count=50, pause=0.1):
        self._server, self._tenant, self._count, self._pause = server, tenant, count, pause
        self.answers = []
        self.pids = []

    def __enter__(self):
        self._connected = threading.Barrier(2)
        self._stopped = False
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._connected.wait(timeout=30)
        return self

    def __exit__(self, *error):
        self._stopped = True
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "a reader hangs"
        if self._failure and error == (None, None, None):
            raise self._failure

    def _run(self):
        try:
            asyncio.run(self._read_all())
        except BaseException as failure:
            self._failure = failure

    async def _read_all(self):
        async with contextlib.AsyncExitStack() as stack:
            connections = []
            for _ in range(self._count):
                connection = await psycopg.AsyncConnection.connect(self._server.conninfo(), autocommit=True)
                connections.append(await stack.enter_async_context(connection))
            self.pids = [connection.info.backend_pid for connection in connections]
            self._connected.wait()
            await asyncio.gather(*(self._read(n, c) for n, c in enumerate(connections)))

    async def _read(self, number, connection):
        await asyncio.sleep(self._pause * number / self._count)
        while not self._stopped:
            sent = time.monotonic()
            outcome = await self._ask(connection)
            received = time.monotonic()
            self.answers.append(Answer(number, sent, received, outcome))
            await asyncio.sleep(max(0, self._pause - (received - sent)))

    async def _ask(self, connection):
        try:
            cursor = await connection.execute(READ, (str(self._tenant),), binary=True)
            return DECRYPTED if await cursor.fetchall() == [(CANARY,)] else "another plaintext"
        except psycopg.Error as error:
            detail = DETAIL.match(error.diag.message_detail or "")
            return detail["reason"] if detail else f"SQLSTATE {error.sqlstate} {error}"

    def all_read(self, since):
        """Every reader has had an answer to a question of after `since`, and the last one was a value."""
        last = {answer.reader: answer for answer in list(self.answers)}
        return len(last) == self._count and all(a.sent > since and a.outcome == DECRYPTED for a in last.values())

    def outcomes(self, since=0.0, until=float("inf")):
        """How often each outcome was the answer to a question that was asked and answered within this span."""
        return Counter(answer.outcome for answer in self.answers if since < answer.sent and answer.received < until)

    def slowest(self, since=0.0):
        return max(answer.seconds for answer in self.answers if answer.sent > since)


class Bystanders:
    """pgbench reading a tenant, or doing what a script of its own says, at a fixed rate for a set time. One failed query
    fails it."""

    def __init__(self, server, tenant, seconds, count=50, rate=500, script=None, variables=()):
        self._dir = tempfile.TemporaryDirectory()
        file = Path(self._dir.name) / "read.sql"
        file.write_text(script or f"SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = '{tenant}';\n")
        command = [
            server.program("pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={count}", f"--rate={rate}",
            f"--time={seconds}", f"--file={file}", "--log", f"--log-prefix={self._dir.name}/log",
            *(f"--define={variable}" for variable in variables),
            f"--host={server.socket}", "--username=postgres", "postgres",
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def latencies(self):
        """[(wall clock time of the answer, seconds that the query took)], once all is done."""
        output = self._process.communicate(timeout=90)[0]
        assert self._process.returncode == 0, output
        found = []
        for log in Path(self._dir.name).glob("log*"):
            for line in log.read_text().splitlines():
                # client, number, latency from schedule, script, seconds, microseconds, lag behind schedule
                _, _, latency, _, seconds, micros, lag = map(int, line.split())
                found.append((seconds + micros / 1e6, (latency - lag) / 1e6))
        self._dir.cleanup()
        return sorted(found)


def percentile(latencies, per_cent, since, until):
    """Of the queries answered in this span of the wall clock, in seconds."""
    span = sorted(seconds for at, seconds in latencies if since < at <= until)
    assert len(span) > 100, "too few queries for a percentile"
    return span[len(span) * per_cent // 100]
