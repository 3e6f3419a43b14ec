"""The load: connections that read and write all the time and know what must come back."""

import hashlib
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psycopg

from support import DETAIL, Session

IDS = 40
# What faults and owners' acts may bring about; anything else is a bug.
EXPECTED = {
    "key_disabled", "key_access_denied", "key_pending_deletion", "key_not_found", "tenant_suspended", "call_budget_spent",
    "kms_timeout", "kms_unreachable", "kms_server_error", "kms_throttled", "57014", "57P01",
}


@dataclass
class Watched:
    """A tenant, and since when its owner has kept the key from us."""

    name: str
    key_uri: str
    dark_since: float | None = None


@dataclass
class Findings:
    """What all connections saw."""

    ttl: float
    wrong: list = field(default_factory=list)
    outcomes: Counter = field(default_factory=Counter)
    # Questions asked when every copy of the data key must have been dead.
    after_the_end: int = 0
    slowest: float = 0.0


def plaintext(tenant, id):
    return hashlib.sha256(f"{tenant}:{id}".encode()).digest()


class Worker:
    """One connection, in a thread of its own. A veteran never lets go of its backend."""

    def __init__(self, server, tenants, findings, seed, veteran):
        self._server, self._tenants, self._findings = server, tenants, findings
        self._random, self.veteran = random.Random(seed), veteran
        self._stopped = threading.Event()
        self._connect()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _connect(self):
        self._session = Session(self._server.connect(options="-c statement_timeout=20s", prepare_threshold=None))
        self.pid = self._session.pid

    def stop(self):
        """False if the connection hangs."""
        self._stopped.set()
        self._thread.join(timeout=30)
        return not self._thread.is_alive()

    def close(self):
        self._session.close()

    def _run(self):
        acts = [self._read] * 12 + [self._read_all] * 2 + [self._write] * 3 + [self._reset, self._hurry, self._reconnect]
        while not self._stopped.is_set():
            self._attempt(self._random.choice(acts), self._random.choice(self._tenants))
            self._stopped.wait(self._random.uniform(0, 0.03))

    def _attempt(self, act, tenant):
        dark_since, sent = tenant.dark_since, time.monotonic()
        try:
            used_key = act(tenant)
            outcome = "good"
        except psycopg.Error as error:
            used_key = False
            detail = DETAIL.match(error.diag.message_detail or "")
            outcome = detail["reason"] if detail else error.sqlstate or type(error).__name__
            # One termination in a hundred or so loses its message on the way, with any query. A crash is in the log.
            if outcome == "OperationalError" and self._session.connection.broken:
                outcome = "57P01"
            if outcome not in EXPECTED:
                self._findings.wrong.append(f"{outcome}: {error}")
            if self._session.connection.broken:
                self._connect()
        except Exception as error:
            used_key, outcome = False, "wrong"
            self._findings.wrong.append(repr(error))
        seconds = time.monotonic() - sent
        self._findings.outcomes[outcome] += 1
        self._findings.slowest = max(self._findings.slowest, seconds)
        # Dark from before the question until after the answer, if nobody changed it in between.
        if dark_since and dark_since == tenant.dark_since and sent > dark_since + self._findings.ttl:
            self._findings.after_the_end += 1
            if used_key:
                late = sent - dark_since
                self._findings.wrong.append(f"{tenant.name}: a data key was used {late:.3f} s after the owner's act")

    # Each returns whether the tenant's data key was used.

    def _read(self, tenant):
        id = self._random.randrange(IDS)
        query = "SELECT cmk_decrypt(tenant, sealed, int4send(id)) FROM value WHERE tenant = %s AND id = %s"
        self._check(tenant, id, self._session.one(query, tenant.name, id))
        return True

    def _read_all(self, tenant):
        query = "SELECT id, cmk_decrypt(tenant, sealed, int4send(id)) FROM value WHERE tenant = %s"
        rows = self._session.all(query, tenant.name)
        if len(rows) != IDS:
            raise AssertionError(f"{len(rows)} rows")
        for id, value in rows:
            self._check(tenant, id, value)
        return True

    def _write(self, tenant):
        id = self._random.randrange(IDS)
        query = "UPDATE value SET sealed = cmk_encrypt(tenant, %b, int4send(id)) WHERE tenant = %s AND id = %s"
        self._session.run(query, plaintext(tenant.name, id), tenant.name, id)
        return True

    def _reset(self, tenant):
        self._session.connection.execute("DISCARD ALL")
        return False

    def _hurry(self, tenant):
        """Gives up after some milliseconds, wherever that finds the backend."""
        self._session.run(f"SET statement_timeout = {self._random.randrange(1, 200)}")
        try:
            return self._read(tenant)
        finally:
            if not self._session.connection.broken:
                self._session.connection.execute("SET statement_timeout = '20s'")

    def _reconnect(self, tenant):
        if not self.veteran:
            self._session.close()
            self._connect()
        return False

    def _check(self, tenant, id, value):
        if value != plaintext(tenant.name, id):
            raise AssertionError(f"another plaintext of {tenant.name}, {id}")
