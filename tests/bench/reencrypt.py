"""Re-encrypting a table beside one plain UPDATE of it, and beside pgbench, all in one run. Prints a table; fails
nothing by a figure, but by a lost update.

Each ratio is of two times of this run, taken in turns, RUNS rounds: the median of the rounds' ratios, so that a slow
minute of the machine meets both sides of a ratio.
"""

import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from measure import ROWS, RUNS, Bench, head, show
from server import Server  # found by the path that `measure` sets

CLIENTS = 4
PAUSE = f", pause => {os.environ['PAUSE']}" if "PAUSE" in os.environ else ""

TABLE = f"""
CREATE TABLE {{0}} (id int PRIMARY KEY, tenant text NOT NULL, n int NOT NULL DEFAULT 0, c bytea);
INSERT INTO {{0}} SELECT i, 'acme', 0, cmk_encrypt('acme', md5(i::text) || md5((-i)::text), i::text::bytea)
  FROM generate_series(1, {ROWS}) i;
VACUUM ANALYZE {{0}};
"""
# Each row is of 64 bytes, bound to its id.
AAD = "id::text::bytea"
PLAIN = f"UPDATE {{0}} SET c = cmk_encrypt(tenant, cmk_decrypt(tenant, c, {AAD}), {AAD})"
CALL = f"CALL cmk.reencrypt('{{0}}', 'c', tenant_column => 'tenant', aad => '{AAD}'{{1}})"
LOAD = """\\set id random(1, {rows})
UPDATE load SET n = n + 1 WHERE id = :id;
"""


class Load:
    """pgbench updates rows of the table, from several clients."""

    def __init__(self, server):
        self.server = server
        self.script = Path(tempfile.mkstemp(suffix=".sql")[1])
        self.script.write_text(LOAD.format(rows=ROWS))
        self.script.chmod(0o644)

    def run(self, seconds):
        """(transactions a second, how many)"""
        done = subprocess.run(
            [Server.program("pgbench"), "-n", "-h", str(self.server.socket), "-U", "postgres", "-c", str(CLIENTS),
             "-j", "1", "-T", str(seconds), "-f", str(self.script), "postgres"],
            stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 60,
        )
        number = done.stdout.split("number of transactions actually processed: ")[1].split()[0]
        return float(done.stdout.rpartition("tps = ")[2].split()[0]), int(number)


def median(values):
    return statistics.median(values)


def alone(bench):
    """Against one UPDATE, with nothing else going on."""
    shares = {"": [], ", pause => 0": []}
    rates = []
    for _ in range(RUNS):
        bench.run("DROP TABLE IF EXISTS fresh", *statements("fresh"))
        bench.run("SELECT cmk.rotate_tenant('acme')", "CHECKPOINT")
        plain = bench.milliseconds(PLAIN.format("fresh"))
        for arguments, seen in shares.items():
            bench.run("DROP TABLE IF EXISTS fresh", *statements("fresh"))
            bench.run("SELECT cmk.rotate_tenant('acme')", "CHECKPOINT")
            took = bench.milliseconds(CALL.format("fresh", arguments))
            check(bench, "fresh")
            seen.append(plain / took * 100)
            if arguments:
                rates.append(ROWS / took * 1e3)
    bench.run("DROP TABLE fresh")
    show("cmk.reencrypt, of the speed of one plain UPDATE of the same rows", f"{median(shares['']):.0f} %", ">= 40 %")
    show("  the same without a pause between batches", f"{median(shares[', pause => 0']):.0f} %")
    show("  rows a second without a pause", f"{median(rates):,.0f}")


def beside(bench, server):
    """Against pgbench, which updates rows of the same table."""
    load, kept, speeds, updates = Load(server), [], [], 0
    bench.run(*statements("load"))
    for _ in range(RUNS):
        bench.run("VACUUM load", "CHECKPOINT")
        before, number = load.run(10)
        updates += number
        plain_table(bench)
        bench.run("SELECT cmk.rotate_tenant('acme')", "VACUUM load", "CHECKPOINT")
        plain = bench.milliseconds(PLAIN.format("fresh"))
        bench.run("DROP TABLE fresh", "CHECKPOINT")
        ended, counted = threading.Event(), []
        thread = threading.Thread(target=drive, args=(load, ended, counted))
        thread.start()
        time.sleep(1)
        took = bench.milliseconds(CALL.format("load", PAUSE))
        ended.set()
        thread.join()
        updates += sum(number for _, number in counted)
        during = counted[:-1] or counted  # the last went on after the end
        kept.append(median([tps for tps, _ in during]) / before * 100)
        speeds.append(plain / took * 100)
        check(bench, "load")
    show(f"cmk.reencrypt beside {CLIENTS} clients that update the table, of that speed", f"{median(speeds):.0f} %", ">= 40 %")
    show("  what they keep of their throughput at the default throttle", f"{median(kept):.0f} %", ">= 70 %")
    lost = updates - bench.one("SELECT sum(n) FROM load")
    show(f"  updates lost, of {updates:,}", f"{lost}", "0")
    assert lost == 0
    load.script.unlink()


def plain_table(bench):
    bench.run("DROP TABLE IF EXISTS fresh", *statements("fresh"))


def drive(load, ended, counted):
    while not ended.is_set():
        counted.append(load.run(3))


def statements(table):
    return [statement for statement in TABLE.format(table).split(";") if statement.strip()]


def check(bench, table):
    """Every value is under the newest data key, and opens to what it was."""
    states = bench.connection.execute(f"SELECT state, rows FROM cmk.data_key_usage('{table}', 'c')").fetchall()
    assert states == [("current", ROWS)], states
    wrong = bench.one(f"SELECT count(*) FROM {table} WHERE cmk_decrypt_text(tenant, c, {AAD}) <> md5(id::text) || md5((-id)::text)")
    assert wrong == 0, wrong


def main():
    server = Server({"cmk_encrypt.local_keys": "on", "cmk_encrypt.cache_ttl": "1d", "shared_buffers": "1GB",
                     "shared_preload_libraries": "cmk_encrypt", "max_wal_size": "8GB", "autovacuum": "off"})
    try:
        server.make_local_key("bench")
        with server.connect() as connection:
            bench = Bench(connection)
            bench.run("CREATE EXTENSION cmk_encrypt", "SELECT cmk.register_tenant('acme', 'local:bench')",
                      "SELECT cmk.grant_access('acme', CURRENT_USER::regrole)")
            head(f"re-encrypting {ROWS:,} rows of 64 bytes, median of {RUNS}")
            alone(bench)
            beside(bench, server)
    finally:
        server.destroy()


if __name__ == "__main__":
    main()
