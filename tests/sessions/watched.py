"""A preloaded server with monitors, and what they say: events, notifications and lines in the log."""

import contextlib
import json

from server import until
from support import Session, Tenant, unique

# Short, so that a few seconds show what takes minutes. The failure TTL must be well below the interval.
QUICK = {
    "shared_preload_libraries": "cmk_encrypt",
    "max_worker_processes": "16",
    "cmk_encrypt.cache_ttl": "20s",
    "cmk_encrypt.failure_ttl": "200ms",
    "cmk_encrypt.monitor_interval": "1s",
    "cmk_encrypt.monitor_budget": "100000",
    "cmk_encrypt.kms_max_attempts": "1",
}

@contextlib.contextmanager
def running(make_server, **conf):
    """A server with these settings of the extension; stopped afterwards, so that its monitors leave KMS alone."""
    server = make_server({**QUICK, **{f"cmk_encrypt.{name}": value for name, value in conf.items()}})
    try:
        yield server
    finally:
        server.stop("immediate")


MONITOR = "backend_type = 'cmk_encrypt monitor'"


class Watched:
    """One database of a server. Speaks to it as superuser, who may use every tenant."""

    def __init__(self, server, kms, dbname="postgres", create=True):
        self.server, self.kms, self.dbname = server, kms, dbname
        self.connect()
        if create:
            self.dba.run("CREATE EXTENSION cmk_encrypt")
            self.dba.run("SELECT cmk.grant_access('*', 'postgres')")

    def connect(self):
        """Anew after a restart."""
        self.dba = Session(self.server.connect(self.dbname))

    def key(self, rotates=True):
        arn = self.kms.key()
        if rotates:
            rotate(self.kms, arn)
        return arn

    def tenant(self, key_uri=None, name=None):
        """A tenant with nothing to warn of, unless its key has it."""
        made = Tenant(name or unique("tenant"), key_uri or self.key())
        self.dba.run("SELECT cmk.register_tenant(%s, %s)", made.name, made.key_uri)
        return made

    def monitor(self):
        """The process id of this database's monitor; None if there is none."""
        found = self.dba.all(f"SELECT pid FROM pg_stat_activity WHERE {MONITOR} AND datname = %s", self.dbname)
        assert len(found) <= 1, "more than one monitor"
        return found[0][0] if found else None

    def events(self, tenant):
        """[(event, was, reason)], oldest first."""
        return self.dba.all("SELECT event, was, reason FROM cmk.key_event WHERE tenant = %s ORDER BY at", tenant.name)

    def says(self, tenant, *events, timeout=8.0):
        """Returns once exactly these events of the tenant have been written down."""
        wanted = list(events)

        def said():
            found = self.events(tenant)
            assert found == wanted[: len(found)], found
            return len(found) == len(wanted)

        until(said, timeout, f"the events {wanted}")

    def checks(self, tenant, count=2, timeout=8.0):
        """Returns once the monitor has asked KMS `count` more times, and so had time to say what it has to say."""
        before = self.kms.calls(tenant.key_uri)
        until(lambda: self.kms.calls(tenant.key_uri) >= before + count, timeout, "the monitor's checks")

    def log(self, about=""):
        """The extension's lines in the server log that hold `about`, without the prefix; those for programs aside."""
        lines = [line.partition("LOG:  ")[2] for line in self.server.log.read_text().splitlines()]
        ours = [line for line in lines if line.startswith("cmk_encrypt ") and about in line]
        return [line for line in ours if not line.startswith(("cmk_encrypt audit=", "cmk_encrypt kms="))]

    def status(self, tenant, columns="key_state"):
        return self.dba.row(f"SELECT {columns} FROM cmk.status WHERE tenant = %s", tenant.name)

    @contextlib.contextmanager
    def listening(self):
        """Yields a function that returns what has been heard of a tenant so far."""
        heard = []
        with self.server.connect(self.dbname) as connection:
            connection.execute("LISTEN cmk_key_events")

            def heard_of(tenant):
                connection.execute("SELECT 1")
                heard.extend(json.loads(n.payload) for n in connection.notifies(timeout=0))
                # Anyone may listen, so a notification says of nobody what happened.
                assert all(payload.keys() == {"id", "event"} for payload in heard)
                rows = self.dba.all("SELECT id::text, event, tenant, was, reason, info FROM cmk.key_event WHERE tenant = %s", tenant.name)
                events = {id: dict(zip(("event", "tenant", "was", "reason", "info"), row)) for id, *row in rows}
                told = [events[payload["id"]] for payload in heard if payload["id"] in events]
                return [{name: value for name, value in event.items() if value is not None} for event in told]

            yield heard_of


def rotate(kms, arn, how="EnableKeyRotation"):
    """Has KMS rotate the key by itself; or at once, by RotateKeyOnDemand."""
    region = arn.split(":")[3]
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": f"TrentService.{how}",
        "Authorization": f"AWS4-HMAC-SHA256 Credential=AKIAFAKEOWNER0000000/20260101/{region}/kms/"
        "aws4_request, SignedHeaders=host, Signature=0",
    }
    kms._call("POST", "/", {"KeyId": arn}, headers)


def schedule_deletion(kms, arn, date):
    kms._call("POST", "/_control/key_state", {"arn": arn, "state": "PendingDeletion", "deletion_date": date})


def import_material(kms, arn, valid_to):
    kms._call("POST", "/_control/key_material", {"arn": arn, "valid_to": valid_to})
