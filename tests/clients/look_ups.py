"""Look-ups in a searchable column: the same indexes in both databases, and the plans in the protected one.

A program names each look-up before it: by a statement SELECT 'look-up: NAME', or by a comment within the statement.
The check of that name is what it found. The server log has the plans. A name that begins with "also: " is one of a
look-up that no token index serves, which has to find the same nevertheless.
"""

import contextlib
import re

from twins import HERE

INDEX = "customer_by_ssn"
STATEMENTS = HERE / "look_ups.tsv"

PLAN = re.compile(r"plan:\n\tQuery Text: (.*(?:\n\t.*)*)")
NAME = re.compile(r"look-up: ([^'*\n]+?) *(?:'|\*/)")
BY_TOKEN = re.compile(rf"Index Cond: .*===|Conflict Arbiter Indexes: {INDEX}")


def populate(shop, **others):
    """Two thousand numbers, even ones of acme, odd ones of globex; `others` are further columns and what is in them."""
    names, expressions = ("".join(f", {part}" for part in parts) for parts in (others, others.values()))
    for database in (shop.plain, shop.protected):
        with database.connect() as connection:
            # Two rows of one number, which a unique index would not take
            connection.execute("DELETE FROM customer WHERE tenant_id = 'globex' AND number = 3 AND ssn LIKE '078-%'")
            connection.execute(
                f"INSERT INTO customer (tenant_id, number, ssn, note{names})"
                " SELECT (ARRAY['acme', 'globex'])[1 + n % 2], n, '900-00-' || n, 'note ' || n"
                f"{expressions} FROM generate_series(1000, 2999) n"
            )


def make_searchable(shop, wire_type=None, **how):
    """Protects the columns, with ssn searchable and indexed, and has the plans of that database written into the log.

    The indexes are those that both databases have. Where the table is not rewritten, the DBA makes them again.
    """
    indexes = {f"UNIQUE INDEX {INDEX}": "tenant_id, ssn", f"INDEX {INDEX}_alone": "ssn"}
    for database in (shop.plain, shop.protected):
        for index, columns in indexes.items():
            database.dba(f"CREATE {index} ON customer ({columns})")
    shop.protect(wire_type, searchable=["ssn"], **how)
    if how.get("rewrite") is False:
        for index, columns in indexes.items():
            shop.protected.dba(f"CREATE {index} ON customer ({columns} cmk_token_ops)")
    for database in (shop.plain, shop.protected):
        database.dba("VACUUM ANALYZE customer")
    log_plans(shop.protected)


def log_plans(database):
    settings = {"session_preload_libraries": "cmk_encrypt, auto_explain", "auto_explain.log_min_duration": 0}
    for name, value in settings.items():
        database.dba(f"ALTER ROLE {database.role} IN DATABASE {database.name} SET {name} = {value}")


@contextlib.contextmanager
def plans(server):
    """{name of a look-up: its plans} of what runs in the block, known when it has ended."""
    before, found, name = server.log.stat().st_size, {}, None
    yield found
    text = server.log.read_bytes()[before:].decode()
    for plan in PLAN.findall(text):
        if named := NAME.search(plan):
            name = named[1]
        found.setdefault(name, []).append(plan)


def search(shop, server, step, at_least=10, **how):
    """Runs a step of look-ups in both databases. The protected one used its token index for all that it can serve."""
    with plans(server) as planned:
        checks = shop.both(step, at_least, **how)
    for name in checks:
        if not name.startswith("also: "):
            together = "\n".join(planned[name])
            assert BY_TOKEN.search(together) and "Seq Scan on customer" not in together, f"{name}:\n{together}"
    return checks
