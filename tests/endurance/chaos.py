"""What goes wrong: owners who take keys away, a KMS that fails, administrators who interfere."""

import contextlib
import threading
import time
from collections import Counter

import psycopg

FAULTS = [
    {"kind": "hang"}, {"kind": "reset"}, {"kind": "throttle"}, {"kind": "garbage"}, {"kind": "delay", "millis": 300},
    {"kind": "status", "status": 500, "code": "KMSInternalException"},
]
# Not Deleted: what the fake KMS deletes can be enabled again, what AWS deletes can't.
STATES = ["Disabled", "PendingDeletion"]


class Chaos:
    """Does one thing after another until it is stopped, and then puts everything right."""

    def __init__(self, server, kms, tenants, workers, random):
        self._server, self._kms, self._tenants, self._workers, self._random = server, kms, tenants, workers, random
        self.done = Counter()
        self.failure = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self):
        self._stopped.set()
        self._thread.join(timeout=60)
        if self.failure:
            raise self.failure

    def _run(self):
        try:
            with self._server.connect() as self._dba:
                while not self._stopped.is_set():
                    act = self._random.choice(self._acts())
                    self.done[act.__name__.strip("_")] += 1
                    act()
                    self._stopped.wait(self._random.uniform(0, 0.5))
        except BaseException as failure:
            self.failure = failure


class Owners(Chaos):
    """Take their keys away and give them back."""

    def _acts(self):
        return [self._take_key_away]

    def _take_key_away(self):
        """For long enough, most times, that every copy of the data key must have died."""
        tenant = self._random.choice(self._tenants)
        state = self._random.choice([*STATES, None])
        if state:
            self._kms.state(tenant.key_uri, state)
        else:
            self._kms.deny(tenant.key_uri)
        tenant.dark_since = time.monotonic()
        self._stopped.wait(self._random.uniform(0.5, 8))
        tenant.dark_since = None
        self._kms.deny(tenant.key_uri, False)
        self._kms.state(tenant.key_uri, "Enabled")


class Others(Chaos):
    """A KMS that fails, and administrators; now and then while an owner's act should be seen."""

    def _acts(self):
        return [self._fail] * 6 + [
            self._evict, self._evict_all, self._rotate, self._suspend, self._warm, self._cancel, self._terminate,
            self._reload,
        ]

    def _fail(self):
        """KMS fails for one tenant, or for all."""
        tenant = self._random.choice([*self._tenants, None])
        with self._kms.fault(arn=tenant and tenant.key_uri, **self._random.choice(FAULTS)):
            self._stopped.wait(self._random.uniform(0.2, 5))

    def _manage(self, function):
        # KMS may fail, which is what it fails by; a worker may have been faster.
        with contextlib.suppress(psycopg.errors.OperationalError, psycopg.errors.ObjectNotInPrerequisiteState):
            self._dba.execute(f"SELECT cmk.{function}(%s)", (self._random.choice(self._tenants).name,))

    def _evict(self):
        self._manage("evict")

    def _evict_all(self):
        self._dba.execute("SELECT cmk.evict_all()")

    def _rotate(self):
        self._manage("rotate_tenant")

    def _warm(self):
        self._manage("warm")

    def _suspend(self):
        tenant = self._random.choice(self._tenants)
        self._dba.execute("SELECT cmk.suspend_tenant(%s)", (tenant.name,))
        self._stopped.wait(self._random.uniform(0, 1))
        self._dba.execute("SELECT cmk.resume_tenant(%s)", (tenant.name,))

    def _cancel(self):
        self._dba.execute("SELECT pg_cancel_backend(%s)", (self._random.choice(self._workers).pid,))

    def _terminate(self):
        victims = [worker for worker in self._workers if not worker.veteran]
        self._dba.execute("SELECT pg_terminate_backend(%s)", (self._random.choice(victims).pid,))

    def _reload(self):
        size = self._random.choice([2, 5, 1000])
        self._dba.execute(f"ALTER SYSTEM SET cmk_encrypt.cache_size = {size}")
        self._dba.execute("SELECT pg_reload_conf()")
