"""A private PostgreSQL server, run by scripts/server.sh as an unprivileged OS user."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg.pq import TransactionStatus

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "server.sh"

# Obviously not credentials. Set because the SDK's default chain wants some; the fake KMS logs the id.
# A test's own environment adds to this one; None there leaves a variable out.
AMBIENT_ACCESS_KEY_ID = "AKIAFAKEAMBIENT00000"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": AMBIENT_ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "RUST_BACKTRACE": "1",  # a backtrace must not reach a client even so
}


def until(condition, timeout=10.0, what="condition"):
    """The first true answer of `condition`, asked every few milliseconds; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.01)


class Server:
    def __init__(self, conf=None, env=None):
        self.sessions = []
        self._generation = 10_001
        self.dir = Path(self._script("create"))
        self.socket = self.dir / "socket"
        self.data = self.dir / "data"
        self.keys = self.dir / "keys"
        self.log = self.dir / "log"
        arguments = []
        for name, value in {"max_connections": "150", "max_prepared_transactions": "10", **(conf or {})}.items():
            arguments += ["--conf", f"{name} = '{value}'"]
        for name, value in {**ENVIRONMENT, **(env or {})}.items():
            if value is not None:
                arguments += ["--env", f"{name}={value}"]
        try:
            self._script("start", *arguments)
        except BaseException:
            self.destroy()
            raise

    def _script(self, command, *arguments):
        target = () if command == "create" else (str(self.dir),)
        done = subprocess.run(
            ["bash", str(SCRIPT), command, *target, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True, timeout=120,
        )
        return done.stdout.strip()

    @staticmethod
    def program(name):
        """A program of the PostgreSQL that the servers run."""
        bindir = subprocess.run([os.environ["PG_CONFIG"], "--bindir"], stdout=subprocess.PIPE, text=True, check=True)
        return str(Path(bindir.stdout.strip(), name))

    @property
    def pid(self):
        return int(self._script("pid"))

    def children(self):
        """{process id: title} of the processes that the postmaster has started and are alive."""
        found, postmaster = {}, str(self.pid)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just gone
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
                if parent == postmaster and state != "Z":
                    title = (stat.parent / "cmdline").read_bytes().rstrip(b"\0 ").decode()
                    found[int(stat.parent.name)] = title.removeprefix("postgres: ")
        return found

    def make_local_key(self, name):
        self._script("key", name)
        return self.keys / f"{name}.key"

    def stop(self, mode="fast"):
        self._script("stop", mode)

    def restart(self, mode="fast"):
        self._script("restart", mode)

    def destroy(self):
        self._script("destroy")

    def owner(self):
        """User and group ids of the OS user that the server runs as."""
        status = self.data.stat()
        return status.st_uid, status.st_gid

    def connect(self, dbname="postgres", user="postgres", **options):
        options.setdefault("options", "-c statement_timeout=60s")
        return psycopg.connect(
            host=str(self.socket), user=user, dbname=dbname, autocommit=True, connect_timeout=10, **options
        )

    def conninfo(self):
        """For clients that `connect` can't serve."""
        return f"host={self.socket} user=postgres dbname=postgres connect_timeout=10 options='-c statement_timeout=60s'"

    def execute(self, sql, dbname="postgres"):
        with self.connect(dbname) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else None

    @contextlib.contextmanager
    def settings(self, **values):
        """Settings of the extension, written without their prefix, changed server-wide during the block."""
        names = {f"cmk_encrypt.{name}": value for name, value in values.items()}
        try:
            self.reload(*(f"SET {name} = '{value}'" for name, value in names.items()))
            yield
        finally:
            self.reload(*(f"RESET {name}" for name in names))

    def reload(self, *changes):
        """ALTER SYSTEM, then a reload that new and idle open sessions are known to have seen."""
        self._generation += 2
        with self.connect() as connection:
            connection.execute("LOAD 'cmk_encrypt'")  # defines its settings
            for change in (*changes, f"SET log_rotation_size = {self._generation}"):
                connection.execute(f"ALTER SYSTEM {change}")
            connection.execute("SELECT pg_reload_conf()")
        # A harmless setting serves as the mark. Odd, so that it always shows in kB.
        seen = f"{self._generation}kB"
        until(lambda: self.execute("SHOW log_rotation_size") == [(seen,)], what="reload in new sessions")
        for session in self.open_sessions():
            until(lambda: session.one("SHOW log_rotation_size") == seen, what="reload in an open session")

    def open_sessions(self):
        quiet = (TransactionStatus.IDLE, TransactionStatus.INTRANS)
        return [s for s in self.sessions if s.connection.info.transaction_status in quiet]
