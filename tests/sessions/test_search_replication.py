"""Logical replication of a searchable column: rows are found by its token index, and have the same tokens."""

import pytest

from columns import envelopes, plain, protect
from searching import SearchWorld, by_index, ids
from support import fails_with, unique
from test_column_replication import elsewhere, follows, logical, opened, subscribe  # noqa: F401 (fixtures)

SHAPE = "id int, tenant_id text NOT NULL, ssn text NOT NULL, note text"
ROWS = [(n, ("acme", "bolt")[n % 2], f"value {n}", "n") for n in range(1, 41)]
CHANGES = [
    "INSERT INTO {t} VALUES (50, 'acme', 'new', 'n'), (51, 'bolt', 'new', NULL)",
    "UPDATE {t} SET note = 'changed' WHERE ssn = 'value 7'", "UPDATE {t} SET ssn = ssn || '!' WHERE ssn = 'value 8'",
    "UPDATE {t} SET ssn = ssn || ''", "UPDATE {t} SET tenant_id = 'bolt' WHERE id = 50 AND false",
    "UPDATE {t} SET tenant_id = 'acme' WHERE ssn = 'value 9'", "DELETE FROM {t} WHERE ssn IN ('value 1', 'value 2')",
]


@pytest.fixture(scope="module")
def world(logical, kms_process):  # noqa: F811
    """The publisher, whose index keys are in the subscriber's registry, too."""
    world = SearchWorld(logical, kms_process)
    world.make("first", [(1, "acme", "x", "n")], columns=("ssn",), searchable=True)
    yield world
    world.close()


@pytest.mark.parametrize("binary", ["false", "true"], ids=["text", "binary"])
@pytest.mark.parametrize("index", ["(ssn cmk_token_ops)", "(tenant_id, ssn cmk_token_ops)"])
def test_a_token_index_is_a_replica_identity(world, elsewhere, binary, index):  # noqa: F811
    table = world.make(unique("t"), ROWS, shape=SHAPE, columns=("ssn",), searchable=True)
    elsewhere.run(f"CREATE TABLE {table} ({SHAPE})")
    protect(elsewhere, table, "ssn", searchable=True)
    for session in (world.dba, elsewhere):
        session.run(f"CREATE UNIQUE INDEX {table}_ssn ON {table} {index}")
        session.run(f"ALTER TABLE {table} REPLICA IDENTITY USING INDEX {table}_ssn")
    app = world.connect("app")
    with subscribe(world, elsewhere, table, binary=binary), elsewhere.counts():
        follows(lambda: envelopes(world.dba, table), lambda: envelopes(elsewhere, table), "the copy")
        for sql in CHANGES:
            app.run(sql.format(t=table))
            follows(lambda: envelopes(world.dba, table), lambda: envelopes(elsewhere, table), sql)
            follows(lambda: plain(world.dba, table, "note"), lambda: plain(elsewhere, table, "note"), sql)
    elsewhere.run("SET enable_seqscan = off")
    sql = f"SELECT id FROM {table} WHERE ssn = 'value 9' AND tenant_id = 'acme'"
    by_index(elsewhere, sql)
    assert ids(elsewhere, sql) == [9]
    with fails_with("23505"):
        elsewhere.run(f"INSERT INTO {table} VALUES (99, 'acme', 'value 9', 'n')")


def test_what_an_unprotected_publisher_sends_gets_tokens_of_the_subscriber(world, elsewhere):  # noqa: F811
    table = unique("t")
    world.dba.run(f"CREATE TABLE {table} ({SHAPE.replace('id int', 'id int PRIMARY KEY')})")
    world.fill(table, ROWS)
    elsewhere.run(f"CREATE TABLE {table} ({SHAPE.replace('id int', 'id int PRIMARY KEY')})")
    protect(elsewhere, table, "ssn", searchable=True)
    elsewhere.run(f"CREATE INDEX {table}_ssn ON {table} (ssn cmk_token_ops)")
    with subscribe(world, elsewhere, table):
        follows(lambda: plain(world.dba, table), lambda: plain(elsewhere, table, "ssn::text"))
        world.dba.run(f"UPDATE {table} SET ssn = 'changed' WHERE id = 7")
        follows(lambda: plain(world.dba, table), lambda: plain(elsewhere, table, "ssn::text"))
    elsewhere.run("SET enable_seqscan = off")
    by_index(elsewhere, f"SELECT id FROM {table} WHERE ssn = 'changed'")
    assert ids(elsewhere, f"SELECT id FROM {table} WHERE ssn = 'changed'") == [7]
