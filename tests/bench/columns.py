"""Protected columns beside text columns and pgcrypto, all in one run. Prints a table; fails nothing by a figure.

Each figure is a ratio of two times of this run, the best of RUNS, taken in turns so that a slow minute of the
machine meets both.
"""

import subprocess
import tempfile
import threading
import time
from pathlib import Path

from measure import ROWS, RUNS, Bench, head, ratio, show
from server import Server  # found by the path that `measure` sets

SORTED = min(ROWS, 200_000)

# Two hashes, 64 characters, of which no two rows have the same.
VALUE = "md5(i::text) || md5((-i)::text)"

TABLES = f"""
CREATE EXTENSION cmk_encrypt;
CREATE EXTENSION pgcrypto;
SELECT cmk.register_tenant('acme', 'local:bench');
SELECT cmk.grant_access('acme', CURRENT_USER::regrole);

CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';

CREATE TABLE clear (id int, tenant text NOT NULL, n int, v text);
CREATE TABLE clear_trigger (LIKE clear);
CREATE TRIGGER nothing BEFORE INSERT OR UPDATE ON clear_trigger FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TABLE protected (LIKE clear);
CREATE TABLE online (LIKE clear);
CREATE TABLE envelopes (id int, tenant text NOT NULL, n int, v bytea);

-- The usual way with pgcrypto: a table of ciphertext behind a view with INSTEAD OF triggers.
CREATE TABLE pgcrypto_table (id int, tenant text NOT NULL, n int, v bytea);
CREATE VIEW pgcrypto_view AS
    SELECT id, tenant, n, pgp_sym_decrypt(v, 'not a secret') AS v FROM pgcrypto_table;
CREATE FUNCTION pgcrypto_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgcrypto_table VALUES (new.id, new.tenant, new.n, pgp_sym_encrypt(new.v, 'not a secret', 's2k-mode=0'));
    RETURN new;
END $$;
CREATE TRIGGER pgcrypto_insert INSTEAD OF INSERT ON pgcrypto_view FOR EACH ROW EXECUTE FUNCTION pgcrypto_insert();
"""


def write(bench, file):
    tables = ["protected", "clear_trigger", "clear", "pgcrypto_view"]
    copies = [f"COPY {table} FROM '{file}'" for table in tables]
    clears = [f"TRUNCATE {table.replace('view', 'table')}" for table in tables]
    protected, trigger, clear, pgcrypto = bench.best(copies, [clears])
    ratio("COPY into a protected column, against text with an empty PL/pgSQL trigger", protected, trigger, 1.6)
    show("  the same, against text without any trigger", f"{protected / clear:.2f} x")
    show("  pgcrypto in a view with an INSTEAD OF trigger, against the same", f"{pgcrypto / clear:.2f} x")
    show("  rows a second", f"{ROWS / protected * 1e3:,.0f}")


def read(bench):
    bench.run("INSERT INTO envelopes SELECT id, tenant, n, cmk_encrypt(tenant, v) FROM clear", "VACUUM ANALYZE")
    protected, function, pgcrypto = bench.best([
        "SELECT sum(length(v::text)) FROM protected",
        "SELECT sum(length(cmk_decrypt_text(tenant, v))) FROM envelopes",
        f"SELECT sum(length(v)) FROM (SELECT v FROM pgcrypto_view LIMIT {ROWS // 10}) AS part",
    ])
    ratio("SELECT of the decrypted column, against cmk_decrypt_text", protected, function, 1.25)
    show("  pgcrypto in a view, against cmk_decrypt_text", f"{pgcrypto * 10 / function:.2f} x")


def update(bench):
    tables = ["protected", "clear", "clear_trigger"]
    updates = [f"UPDATE {table} SET n = n + 1" for table in tables]
    protected, clear, trigger = bench.best(updates, [[f"VACUUM {table}" for table in tables]])
    ratio("UPDATE of another column of the row, against text", protected, clear, 1.15)
    show("  the same, against text with an empty PL/pgSQL trigger", f"{protected / trigger:.2f} x")


def sort(bench):
    bench.run(
        f"CREATE TABLE few AS SELECT v FROM protected LIMIT {SORTED}",
        f"CREATE TABLE few_clear AS SELECT v FROM clear LIMIT {SORTED}",
        "VACUUM ANALYZE few, few_clear", "SET max_parallel_workers_per_gather = 0",
    )
    for memory in ("64MB", "4MB"):
        bench.run(f"SET work_mem = '{memory}'")
        protected, clear, opened = bench.best([
            "SELECT count(*) FROM (SELECT v FROM few ORDER BY v OFFSET 0) AS sorted",
            "SELECT count(*) FROM (SELECT v FROM few_clear ORDER BY v OFFSET 0) AS sorted",
            "SELECT sum(length(v::text)) FROM few",
        ])
        what = f"ORDER BY, {SORTED:,} rows, work_mem {memory}, against text and its decryption"
        ratio(what, protected, clear + opened, 2)


def sizes(bench):
    for table in ("clear", "protected"):
        size = bench.one(f"SELECT avg(pg_column_size(v)) FROM {table}")
        show(f"Stored bytes of a value of 64 characters in {table}", f"{size:.0f}")


def online(bench, server, file):
    """Protects a full table under load, and watches the load."""
    bench.run(
        f"COPY online FROM '{file}'", "CREATE INDEX ON online (id)", "VACUUM ANALYZE online",
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int)",
        "INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 10000) i",
    )
    script = Path(tempfile.mkstemp(suffix=".sql")[1])
    script.write_text(
        "\\set id random(1, 10000)\n"
        "UPDATE accounts SET balance = balance + 1 WHERE id = :id;\n"
        f"\\set row random(1, {ROWS})\n"
        "SELECT n FROM online WHERE id = :row;\n"
        "UPDATE online SET n = n + 1 WHERE id = :row;\n"
    )
    script.chmod(0o644)

    def load(seconds):
        done = subprocess.run(
            [Server.program("pgbench"), "-n", "-h", str(server.socket), "-U", "postgres", "-c", "4", "-j", "1",
             "-T", str(seconds), "-f", str(script), "postgres"],
            stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 60,
        )
        return float(done.stdout.rpartition("tps = ")[2].split()[0])

    alone = load(10)
    locked = bench.milliseconds("SELECT cmk.protect_column('online', 'v', tenant_column => 'tenant', rewrite => false)")
    show("protect_column on a full table, milliseconds in all", f"{locked:.0f}", "<= 100")
    beside = []
    thread = threading.Thread(target=lambda: beside.append(load(10)))
    thread.start()
    time.sleep(0.5)
    started = time.perf_counter()
    bench.run("CALL cmk.seal_table('online')")
    seconds = time.perf_counter() - started
    thread.join()
    show("seal_table beside pgbench, rows a second", f"{ROWS / seconds:,.0f}")
    share = beside[0] / alone * 100
    show(f"  what pgbench keeps of its throughput (sealing took {seconds:.0f} s of its 10)", f"{share:.0f} %", ">= 70 %")
    script.unlink()


def main():
    server = Server({"cmk_encrypt.local_keys": "on", "cmk_encrypt.cache_ttl": "1d", "shared_buffers": "1GB",
                     "shared_preload_libraries": "cmk_encrypt", "max_wal_size": "8GB", "autovacuum": "off"})
    try:
        server.make_local_key("bench")
        with server.connect() as connection:
            bench, file = Bench(connection), server.data / "bench.copy"
            for statement in TABLES.split(";\n\n"):
                bench.run(statement)
            bench.run("SELECT cmk.protect_column('protected', 'v', tenant_column => 'tenant')",
                      f"COPY (SELECT i, 'acme', i % 100, {VALUE} FROM generate_series(1, {ROWS}) i) TO '{file}'")
            head(f"protected columns, {ROWS:,} rows, best of {RUNS}")
            write(bench, file)
            read(bench)
            update(bench)
            sort(bench)
            sizes(bench)
            online(bench, server, file)
    finally:
        server.destroy()


if __name__ == "__main__":
    main()
