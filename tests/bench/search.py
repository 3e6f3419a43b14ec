"""Searching a protected column beside an indexed text column, in one run. Prints a table; fails nothing by a figure.

Each figure is a ratio of two times of this run, the best of RUNS, taken in turns. A look-up is timed twice: as a client
sees it, prepared and one by one, and in the server alone, in a loop of PL/pgSQL.

    search.py [ROWS]
"""

import asyncio
import hashlib
import itertools
import random
import sys
import tempfile
from pathlib import Path

from measure import ROWS, RUNS, Bench, head, ratio, show
from fake_kms import FakeKms  # found by the path that `measure` sets, as what follows
from figures import ask_at_once
from server import Server

LARGEST = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
SIZES = sorted({10_000, 100_000, LARGEST})
TENANTS = 10
LOOK_UPS = 4000
UPSERTS = 10_000
CONNECTIONS = 50
PLANS = {"custom": "force_custom_plan", "generic": "force_generic_plan"}

# Row i is of tenant i % TENANTS. Values are in no order, as names are: an index on text has no advantage by that.
ROWS_OF_TEXT = (f"SELECT i, 'tenant' || mod(i, {TENANTS}), mod(i, 100), substr(md5(i::text), 1, 16) || '@example.com'"
                " FROM generate_series(%s, %s) i")
TABLE = "CREATE TABLE {} (id int, tenant text NOT NULL, n int NOT NULL, email text NOT NULL)"
PROTECT = "SELECT cmk.protect_column('{}', 'email', tenant_column => 'tenant', searchable => true)"

BY_TENANT = "SELECT n FROM {} WHERE tenant = %s AND email = %s"
BY_VALUE = "SELECT n FROM {} WHERE email = %s"
ANY_OF = "SELECT sum(n) FROM {} WHERE tenant = %s AND email = ANY (%s)"
ONE_OF = "SELECT sum(n) FROM {} WHERE tenant = %s AND email IN ("
UPSERT = "INSERT INTO {} VALUES ({}) ON CONFLICT (tenant, email) DO UPDATE SET n = excluded.n"

LOOP = """
CREATE FUNCTION find_{0}(tenants text[], wanted text[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    whose text; what text; got int; hits int := 0;
BEGIN
    FOR i IN 1 .. cardinality(wanted) LOOP
        whose := tenants[i];
        what := wanted[i];
        SELECT n INTO got FROM {0} WHERE tenant = whose AND email = what;
        IF FOUND THEN hits := hits + 1; END IF;
    END LOOP;
    RETURN hits;
END $$"""


def tenant(row):
    return f"tenant{row % TENANTS}"


def email(row):
    return hashlib.md5(str(row).encode()).hexdigest()[:16] + "@example.com"


def make_tables(bench, size):
    """Two tables of so many rows, the first of text and the second protected, without indexes."""
    clear, protected = f"clear_{size}", f"protected_{size}"
    # It makes an index, which is of no use here yet.
    bench.run(*(TABLE.format(table) for table in (clear, protected)), PROTECT.format(protected),
              f"DROP INDEX {protected}_email_idx")
    bench.connection.execute(f"INSERT INTO {clear} " + ROWS_OF_TEXT % (0, size - 1))
    bench.run(f"INSERT INTO {protected} SELECT * FROM {clear}", LOOP.format(clear), LOOP.format(protected))
    return clear, protected


def make_indexes(bench, tables):
    for table, operators in zip(tables, ("", "cmk_token_ops")):
        bench.run(f"CREATE INDEX {table}_email ON {table} (email {operators})", f"VACUUM ANALYZE {table}")


def assert_indexed(bench, query, parameters, operator):
    plan = "\n".join(line for (line,) in bench.connection.execute("EXPLAIN " + query, parameters))
    assert "Index Cond" in plan and operator in plan and "Seq Scan" not in plan, plan


def client(bench, query, table, parameters):
    """Executes a prepared query for each of the parameters, and sees to it that all find something."""
    query, connection = query.format(table), bench.connection
    assert all(connection.execute(query, given, prepare=True).fetchone()[0] is not None for given in parameters[:100])
    assert_indexed(bench, query, parameters[0], "===" if table.startswith("protected") else "=")

    def run():
        for given in parameters:
            connection.execute(query, given, prepare=True)

    return run


def server_loop(bench, table, rows):
    parameters = [tenant(row) for row in rows], [email(row) for row in rows]

    def run():
        assert bench.one(f"SELECT find_{table}(%s, %s)", *parameters) == len(rows)

    return run


def look_ups(bench, tables, size):
    """The same look-ups in tables of one size, by each kind of plan and of client."""
    rows = random.Random(size).choices(range(size), k=LOOK_UPS)
    parameters = [(tenant(row), email(row)) for row in rows]
    for plans, mode in PLANS.items():
        bench.run(f"SET plan_cache_mode = {mode}")
        clear, protected = bench.best([client(bench, BY_TENANT, table, parameters) for table in tables])
        ratio(f"= by index, {size:,} rows, {plans} plans, as a client sees it", protected, clear, 1.3)
        show("  microseconds of one, of which text takes",
             f"{protected / LOOK_UPS * 1e3:.1f}", f"{clear / LOOK_UPS * 1e3:.1f}")
        clear, protected = bench.best([server_loop(bench, table, rows) for table in tables])
        ratio("  in the server alone", protected, clear)
        show("  microseconds of one, of which text takes",
             f"{protected / LOOK_UPS * 1e3:.1f}", f"{clear / LOOK_UPS * 1e3:.1f}")
    bench.run("RESET plan_cache_mode")


def generic_plans(bench, table):
    """Whether PostgreSQL chooses the generic plan by itself, as it does for text."""
    bench.run(f"PREPARE chosen (text, text) AS {BY_TENANT.format(table).replace('%s', '$1', 1).replace('%s', '$2')}")
    for row in range(20):
        bench.run(f"EXECUTE chosen ('{tenant(row)}', '{email(row)}')")
    chosen = bench.one("SELECT generic_plans FROM pg_prepared_statements WHERE name = 'chosen'")
    show("Of 20 executions with plan_cache_mode = auto, those with a generic plan", chosen, 15)


def without_the_tenant(bench, tables, size):
    """Whose tenant, if the query doesn't say so: the setting's, or all ten that the role has a grant for."""
    rows = random.Random(size + 1).choices(range(0, size, TENANTS), k=LOOK_UPS)
    parameters = [(email(row),) for row in rows]
    bench.run(f"SET cmk_encrypt.tenant = '{tenant(0)}'")
    clear, protected = bench.best([client(bench, BY_VALUE, table, parameters) for table in tables])
    ratio(f"= by index, {size:,} rows, the tenant from cmk_encrypt.tenant", protected, clear, 1.3)
    bench.run("RESET cmk_encrypt.tenant")
    clear, protected = bench.best([client(bench, BY_VALUE, table, parameters) for table in tables])
    ratio(f"  in the tenants of {TENANTS} grants", protected, clear)


def lists(bench, tables, size):
    """A hundred values in one query."""
    chance = random.Random(size + 2)
    wanted = [[email(TENANTS * chance.randrange(size // TENANTS)) for _ in range(100)] for _ in range(LOOK_UPS // 20)]
    query = ONE_OF + ", ".join(["%s"] * 100) + ")"
    for plans, mode in PLANS.items():
        bench.run(f"SET plan_cache_mode = {mode}")
        given = [(tenant(0), emails) for emails in wanted]
        clear, protected = bench.best([client(bench, ANY_OF, table, given) for table in tables])
        ratio(f"= ANY of 100, {size:,} rows, {plans} plans", protected, clear, 1.5)
        given = [(tenant(0), *emails) for emails in wanted]
        clear, protected = bench.best([client(bench, query, table, given) for table in tables])
        ratio(f"IN of 100, {size:,} rows, {plans} plans", protected, clear, 1.5)
    bench.run("RESET plan_cache_mode")


def upserts(bench, tables, size):
    """Half of the rows are there. Each turn takes other rows, and the tables' index is unique."""
    bench.run(
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
        f"CREATE TRIGGER nothing BEFORE INSERT OR UPDATE ON {tables[1]} FOR EACH ROW EXECUTE FUNCTION nothing()",
    )
    turns = {table: itertools.count() for table in tables}

    def of(table):
        """Rows of this table's next turn."""
        turn = next(turns[table])
        old, new = turn * UPSERTS // 2 % (size - UPSERTS), size + turn * UPSERTS // 2
        return [*range(old, old + UPSERTS // 2), *range(new, new + UPSERTS // 2)]

    def at_once(table):
        def run():
            rows = of(table)
            halves = ((rows[0], rows[UPSERTS // 2 - 1]), (rows[UPSERTS // 2], rows[-1]))
            rows = " UNION ALL ".join(ROWS_OF_TEXT % half for half in halves)
            bench.run(UPSERT.format(table, "").replace("VALUES ()", rows))

        return run

    def one_by_one(table):
        query, connection = UPSERT.format(table, "%s, %s, %s, %s"), bench.connection

        def run():
            with connection.transaction():
                for row in of(table):
                    connection.execute(query, (row, tenant(row), row % 100, email(row)), prepare=True)

        return run

    for how, upsert in (("one by one, prepared", one_by_one), ("in one statement", at_once)):
        clear, trigger, protected = bench.best([upsert(table) for table in tables])
        ratio(f"INSERT ... ON CONFLICT DO UPDATE, {how}", protected, clear, 1.6)
        ratio("  against text with an empty PL/pgSQL trigger", protected, trigger)


def builds(bench, tables, size):
    collation = bench.one("SELECT datcollate FROM pg_database WHERE datname = current_database()")
    names = [f"{table}_built" for table in tables]
    operators = ["", "cmk_token_ops"]
    creates = [f"CREATE INDEX {name} ON {table} (email {operator})"
               for name, table, operator in zip(names, tables, operators)]
    clear, protected = bench.best(creates, [[f"DROP INDEX IF EXISTS {name}" for name in names]])
    ratio(f"CREATE INDEX, {size:,} rows, against text in collation {collation}", protected, clear, 2)
    creates[0] = creates[0].replace("email ", 'email COLLATE "C"')
    clear, protected = bench.best(creates, [[f"DROP INDEX IF EXISTS {name}" for name in names]])
    ratio('  against text in collation "C"', protected, clear)
    for what, relation in (
        ("text", names[0]), ("cmk_token_ops", names[1]),
        ("the table of text", tables[0]), ("the protected table", tables[1]),
    ):
        show(f"Megabytes of {what}", f"{bench.one('SELECT pg_relation_size(%s)', relation) / 1e6:.0f}")


def guesses(bench, table):
    """How fast somebody with a grant tries values."""
    token, scan = bench.best([f"SELECT count(cmk_search_token(tenant, email, 'x')) FROM {table}",
                              f"SELECT count(tenant || email) FROM {table}"])
    rows = bench.one(f"SELECT count(*) FROM {table}")
    show("cmk_search_token, nanoseconds a value", f"{(token - scan) / rows * 1e6:.0f}")


def cold(bench, server, kms):
    """Connections that look up a value of one tenant at once, none of which has its index key."""
    arn = kms.key()
    bench.connection.execute("SELECT cmk.register_tenant('cold', %s)", (arn,))
    bench.run("SELECT cmk.grant_access('cold', CURRENT_USER::regrole)", TABLE.format("protected_cold"),
              PROTECT.format("protected_cold"), "INSERT INTO protected_cold VALUES (0, 'cold', 7, 'user0@example.com')",
              "SELECT cmk.evict('cold')")
    before = kms.calls(arn)
    with kms.fault("delay", arn=arn, millis=50):
        seconds = asyncio.run(ask_at_once(
            server, CONNECTIONS, BY_TENANT.format("protected_cold"), ("cold", "user0@example.com"), (7,),
            warm_up="SELECT n FROM protected_cold WHERE tenant = 'tenant0' AND email = 'nobody'",
        ))
    show(f"{CONNECTIONS} cold connections look up a value, KMS takes 50 ms: KMS calls", kms.calls(arn) - before, 1)
    show("  the last has its answer after", f"{seconds:.2f} s")
    before = kms.calls(arn)
    bench.run("SELECT cmk.evict('cold')", "EXPLAIN SELECT n FROM protected_cold WHERE tenant = 'cold' AND email = 'x'")
    show("  KMS calls for a plan", kms.calls(arn) - before, 0)


def main():
    with tempfile.TemporaryDirectory() as directory:
        kms = FakeKms(Path(directory))
        server = Server({
            "cmk_encrypt.local_keys": "on", "cmk_encrypt.kms_endpoint_url": kms.url, "cmk_encrypt.cache_ttl": "1d",
            "shared_buffers": "1GB", "shared_preload_libraries": "cmk_encrypt", "max_wal_size": "8GB",
            "autovacuum": "off",
        })
        try:
            server.make_local_key("bench")
            with server.connect(options="") as connection:
                measure(Bench(connection), server, kms)
        finally:
            server.destroy()
            kms.close()


def measure(bench, server, kms):
    bench.run("CREATE EXTENSION cmk_encrypt")
    for name in map(tenant, range(TENANTS)):
        bench.run(f"SELECT cmk.register_tenant('{name}', 'local:bench')",
                  f"SELECT cmk.grant_access('{name}', CURRENT_USER::regrole)")
    head(f"searching, up to {LARGEST:,} rows of {TENANTS} tenants, best of {RUNS}")
    for size in SIZES:
        tables = make_tables(bench, size)
        make_indexes(bench, tables)
        look_ups(bench, tables, size)
    generic_plans(bench, tables[1])
    without_the_tenant(bench, tables, size)
    lists(bench, tables, size)
    builds(bench, tables, size)
    clear, protected = tables
    trigger = f"{clear}_trigger"
    bench.run(f"CREATE TABLE {trigger} AS SELECT * FROM {clear}", *(f"DROP INDEX {t}_email, {t}_built" for t in tables))
    for table, operators in ((clear, ""), (trigger, ""), (protected, "cmk_token_ops")):
        bench.run(f"CREATE UNIQUE INDEX ON {table} (tenant, email {operators})", f"VACUUM ANALYZE {table}")
    upserts(bench, (clear, trigger, protected), size)
    guesses(bench, clear)
    cold(bench, server, kms)


if __name__ == "__main__":
    main()
