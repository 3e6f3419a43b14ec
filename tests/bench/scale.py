"""What grows with the number of tenants on one preloaded server, and what stays as it is. Prints tables; fails nothing by
a figure.

    scale.py [costs] [calls] [views] [memory] [monitor]

All of it by default. TENANTS in the environment says how many there are (10000), each with a key of its own in the fake
KMS, over HTTP; SPAN how many seconds calls are watched before and during each kind of act (10), LIMIT how many seconds a
monitor's round may take (180).

Warm calls are those of four sessions that have all tenants at hand, 1000 a second in all, of a tenant drawn anew for each:
so most calls are the first ones of their tenant since the last act, which is the worst that an act can do to others.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from measure import RUNS, Bench, head, show
from crowd import Bystanders, percentile  # found by the path that `measure` sets, as what follows
from fake_kms import FakeKms
from server import Server, until
from tenants import REGISTER, run
from watched import MONITOR

TENANTS = int(os.environ.get("TENANTS", "10000"))
SPAN = int(os.environ.get("SPAN", "10"))
LIMIT = int(os.environ.get("LIMIT", "180"))
SIZES = [size for size in (100, 1000) if size < TENANTS] + [TENANTS]
READERS, RATE = 4, 1000
# Calls of as many tenants make a sample, and an act is done so often.
SAMPLE, ACTS = 50, 10
HANGING, ANSWER = 10, 50

CONF = {
    "shared_preload_libraries": "cmk_encrypt", "max_worker_processes": "16", "shared_buffers": "256MB",
    "cmk_encrypt.cache_ttl": "1h", "cmk_encrypt.cache_size": str(2 * TENANTS),
    "cmk_encrypt.shared_keyring_size": str(min(65536, 2 * TENANTS + 1024)), "cmk_encrypt.tenant_call_budget": "0",
}
# First all tenants, then one after the other.
READ = f"""\\if :cold
SELECT count(cmk_decrypt(tenant, sealed)) FROM customer;
\\set cold 0
\\else
\\set n random(0, {TENANTS - 1})
SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE n = :n;
\\endif
"""


def on_processor(pid):
    """Milliseconds that a process has run so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


class World:
    """A server, tenants t0, t1, … with a value each in the table customer, and others to do something to."""

    def __init__(self, kms):
        self.kms, self.server, self.count, self.victims = kms, Server({
            **CONF, "cmk_encrypt.kms_endpoint_url": kms.url, "cmk_encrypt.sts_endpoint_url": kms.url}), 0, 0
        self.dba, self.probe = Bench(self.server.connect(options="")), Bench(self.server.connect(options=""))
        self.dba.run("CREATE EXTENSION cmk_encrypt", "SELECT cmk.grant_access('*', 'postgres')", "CREATE ROLE app",
                     "CREATE TABLE customer (n int PRIMARY KEY, tenant text NOT NULL, sealed bytea NOT NULL)",
                     "CREATE TABLE victim (LIKE customer INCLUDING ALL, key_uri text)")

    def grow(self, count):
        """Until there are so many tenants."""
        run(self.server, REGISTER, [(f"t{n}", self.kms.key()) for n in range(self.count, count)], READERS)
        self.dba.run(f"INSERT INTO customer SELECT n, 't' || n, cmk_encrypt('t' || n, 'x') FROM generate_series({self.count}, {count - 1}) n",
                     "VACUUM ANALYZE")
        self.count = count

    def add_victims(self, count):
        """Tenants that no process has a data key of. Returns the number of the first."""
        first, self.victims = self.victims, self.victims + count
        for n in range(first, self.victims):
            uri = self.kms.key()
            self.dba.connection.execute(REGISTER, (f"v{n}", uri))
            self.dba.connection.execute("INSERT INTO victim VALUES (%s, %s, cmk_encrypt(%s, 'x'), %s)", (n, f"v{n}", f"v{n}", uri))
            self.dba.run(f"SELECT cmk.evict('v{n}')")
        return first

    def revoke(self, n):
        """The owner disables a tenant's key, and KMS is asked."""
        self.kms.state(self.dba.one("SELECT key_uri FROM victim WHERE n = %s", n), "Disabled")

        def ask():
            with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
                self.probe.run(f"SELECT cmk_decrypt(tenant, sealed) FROM victim WHERE n = {n}")
                raise AssertionError("the key was to be revoked")

        return ask

    def evict(self, n):
        return lambda: self.dba.run(f"SELECT cmk.evict('v{n}')")

    def change(self, n):
        return lambda: self.dba.run(f"SELECT cmk.grant_access('v{n}', 'app')")

    ACTS = {"a key revoked": revoke, "a tenant evicted": evict, "a registry change": change}


def costs(world):
    """Of single acts, and of the first call of each tenant in each session that comes after one."""
    head("µs of a processor that a call takes, ms of an act as the client sees it")
    for size in SIZES:
        world.grow(size)
        first = world.add_victims(ACTS * len(world.ACTS))
        world.probe.run("SELECT count(cmk_decrypt(tenant, sealed)) FROM customer")
        with world.server.connect(options="") as connection:
            user, pid = Bench(connection), connection.info.backend_pid

            def one_call(expression="cmk_decrypt(tenant, sealed)", start=0, times=1):
                before = on_processor(pid)
                user.run(f"SELECT count({expression}) FROM generate_series(1, {times}), customer WHERE n >= {start} AND n < {start + SAMPLE}")
                return (on_processor(pid) - before) / SAMPLE / times * 1e3

            user.run(f"SELECT count(cmk_decrypt(tenant, sealed)) FROM customer WHERE n < {size - SAMPLE}")
            miss = one_call(start=size - SAMPLE)
            warm, bare = (min(one_call(of, times=100) for _ in range(5)) for of in ("cmk_decrypt(tenant, sealed)", "sealed"))
            show(f"{size:,} tenants: a warm call, µs", f"{warm - bare:.2f}")
            show("  a miss, with the data key at hand in shared memory, µs", f"{miss:.0f}", "O(1)")
            for nth, (what, act) in enumerate(world.ACTS.items()):
                took, after = [], []
                for n in range(first + nth * ACTS, first + (nth + 1) * ACTS):
                    took.append(world.dba.milliseconds(act(world, n)))
                    one_call(start=SAMPLE)  # takes in what is not of the tenant: catalogs, the tables of the registry
                    after.append(one_call())
                show(f"  {what}, ms; then the next call of another tenant, µs",
                     f"{statistics.median(took):.2f}; {statistics.median(after):.1f}", "O(1)")


def calls(world):
    """Warm calls while something is done to one tenant a second."""
    world.grow(TENANTS)
    first = world.add_victims(SPAN * len(world.ACTS))
    settle, spans = 5 + TENANTS // 500, []
    bystanders = Bystanders(world.server, None, settle + 2 * SPAN * len(world.ACTS) + 2, READERS, RATE, READ, ["cold=1"])
    time.sleep(settle)
    for act in world.ACTS.values():
        before = time.time()
        time.sleep(SPAN)
        during = time.time()
        for n in range(first, first + SPAN):
            began = time.monotonic()
            act(world, n)()
            time.sleep(max(0, 1 - (time.monotonic() - began)))
        first += SPAN
        spans.append((before, during, time.time()))
    latencies = bystanders.latencies()
    head(f"{RATE} warm calls a second of {TENANTS:,} tenants in {READERS} sessions, ms as the client sees it")
    for what, (before, during, end) in zip(world.ACTS, spans):
        p50, p99 = ([percentile(latencies, share, *span) * 1e3 for span in ((before, during), (during, end))] for share in (50, 99))
        show(f"half of them are done after, before and with {what} a second", f"{p50[0]:.3f} {p50[1]:.3f}")
        show("  99 of 100", f"{p99[0]:.3f} {p99[1]:.3f}")
        show("  the latter as a ratio", f"{p99[1] / p99[0]:.2f} x", "<= 1.2 x")


def views(world, when="no monitor"):
    world.grow(TENANTS)
    head(f"{TENANTS:,} tenants, {when}: ms, best of {RUNS}; of them on a processor")
    pid = world.dba.connection.info.backend_pid
    for query in ("SELECT * FROM cmk.status", "SELECT * FROM cmk.tenants", "SELECT * FROM cmk.check()", "SELECT * FROM cmk.server",
                  "SELECT * FROM cmk.status WHERE tenant = 't1'", "SELECT * FROM cmk.tenants WHERE tenant = 't1'"):
        times = []
        for _ in range(RUNS):
            before = on_processor(pid)
            times.append((world.dba.milliseconds(query), on_processor(pid) - before))
        show(query, f"{min(times)[0]:.1f}; {min(used for _, used in times):.1f}", "< 100")


def written_kilobytes(pid):
    """Memory that this process alone has written, locked pages included, which may lie in a file that nobody else has."""
    kilobytes, secret = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            secret = "secretmem" in line
        elif name == "Private_Dirty:" and not secret or name == "Rss:" and secret:
            kilobytes += int(values[0])
    return kilobytes


def shared_bytes(size):
    """What a postmaster shares with its children, with room for so many tenants."""
    server = Server({**CONF, "cmk_encrypt.shared_keyring_size": str(size)})
    try:
        maps = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
        bounds = (line.split()[0].split("-") for line in maps if " rw-s " in line)
        return sum(int(end, 16) - int(start, 16) for start, end in bounds)
    finally:
        server.destroy()


def memory(world):
    world.grow(TENANTS)
    head(f"bytes a tenant, of {TENANTS:,}")
    show("shared memory, by cmk_encrypt.shared_keyring_size", f"{(shared_bytes(65536) - shared_bytes(1024)) / 64512:.0f}")
    with world.server.connect(options="") as connection:
        user, pid = Bench(connection), connection.info.backend_pid
        user.run(f"SELECT count(cmk_decrypt(tenant, sealed)) FROM customer WHERE n < {SAMPLE}", "SELECT count(sealed) FROM customer")
        before = written_kilobytes(pid)
        user.run("SELECT count(cmk_decrypt(tenant, sealed)) FROM customer")
        show("of a session that has its data key cached", f"{(written_kilobytes(pid) - before) * 1024 / (TENANTS - SAMPLE):.0f}")
    tables = world.dba.connection.execute(
        "SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c WHERE c.relnamespace = 'cmk'::regnamespace"
        " AND c.relkind = 'r' AND pg_total_relation_size(c.oid) > %s ORDER BY 2 DESC", (20 * TENANTS,)).fetchall()
    for table, size in tables:
        show(f"of cmk.{table} on disk, indexes included", f"{size / world.dba.one('SELECT count(*) FROM cmk.tenant'):.0f}")


@contextlib.contextmanager
def slow(kms, hanging):
    """KMS answers late, and for some keys not at all."""
    for fault in (*({"kind": "hang", "arn": arn} for arn in hanging), {"kind": "delay", "millis": ANSWER}):
        kms._call("POST", "/_control/fault", fault)
    try:
        yield
    finally:
        kms.clear_faults()


def monitor_of(world, dbname):
    found = world.server.execute(f"SELECT pid FROM pg_stat_activity WHERE {MONITOR} AND datname = '{dbname}'")
    return found[0][0] if found else None


def monitor(world):
    world.grow(TENANTS)
    world.server.execute("CREATE DATABASE empty")
    world.server.execute("CREATE EXTENSION cmk_encrypt", "empty")
    head(f"a monitor of {TENANTS:,} tenants")
    with world.server.settings(monitor_databases="postgres, empty", monitor_interval="1d"):
        pids = [until(lambda: monitor_of(world, dbname), what="the monitors") for dbname in ("postgres", "empty")]
        time.sleep(5)  # until it has taken all of them in
        used = []
        for changes in range(2):
            before = on_processor(pids[0])
            for n in range(5):
                if changes:
                    world.dba.run(f"UPDATE cmk.tenant SET changed_at = now() WHERE tenant = 't{n}'")
                time.sleep(1)
            used.append((on_processor(pids[0]) - before) / 5000 * 100)
        show("% of a processor: nothing happens; one tenant a second changes", f"{used[0]:.2f}; {used[1]:.2f}")
        written = [written_kilobytes(pid) for pid in pids]
        show("its memory, bytes a tenant", f"{(written[0] - written[1]) * 1024 / TENANTS:.0f}")
        views(world, "a monitor")
    keys = dict(world.dba.connection.execute("SELECT key_uri, tenant FROM cmk.tenant WHERE tenant LIKE 't%'").fetchall())
    hanging = list(keys)[:HANGING]
    with slow(world.kms, hanging):
        world.kms._call("DELETE", "/_control/log")
        began = time.time()
        with world.server.settings(monitor_databases="postgres", monitor_interval="1s", monitor_budget="1000000"):
            left = TENANTS
            while left and time.time() < began + LIMIT:
                time.sleep(5)
                asked = world.kms.counters()["by_key"]
                left = sum("Decrypt" not in asked.get(arn, {}) for arn in keys if arn not in hanging)
            world.server.reload("SET cmk_encrypt.monitor_databases = ''")
        asked = {}
        for entry in world.kms.log():
            if entry["operation"] == "Decrypt" and entry["key_arn"] not in hanging:
                asked.setdefault(entry["key_arn"], entry["at_ms"] / 1e3 - began)
    show(f"KMS takes {ANSWER} ms, {HANGING} keys hang: tenants asked about, of {TENANTS - HANGING:,}", f"{len(asked):,}")
    show("  the last of them after, s", f"{max(asked.values(), default=0):.0f}", "<= 60")


PARTS = (costs, calls, views, memory, monitor)


def main():
    parts = [part for part in PARTS if part.__name__ in (sys.argv[1:] or [part.__name__])]
    with tempfile.TemporaryDirectory() as directory:
        kms = FakeKms(Path(directory))
        world = World(kms)
        try:
            for part in parts:
                part(world)
        finally:
            world.server.destroy()
            kms.close()


if __name__ == "__main__":
    main()
