"""Unique token indexes: one value once per tenant, for every statement that may write, and what hangs on them."""

import psycopg
import pytest

from columns import app, dba, is_armor, opened, plain, protect, reader  # noqa: F401 (fixtures)
from searching import by_index, ids, world  # noqa: F401 (fixtures)
from support import fails_with, unique

NAMES = "id int PRIMARY KEY, tenant_id text NOT NULL, ssn text NOT NULL, note text"
INDEXES = {"of the value": "UNIQUE {name} (ssn cmk_token_ops)",
           "of tenant and value": "UNIQUE {name} (tenant_id, ssn cmk_token_ops)"}
SECRET = "unique-secret@example.com"


@pytest.fixture(params=INDEXES.values(), ids=INDEXES)
def table(request, world):
    """The same value for two tenants, and others."""
    rows = [(1, "acme", SECRET, "a"), (2, "bolt", SECRET, "b"), (3, "acme", "other", "c")]
    return world.searchable(unique("u"), rows, shape=NAMES, index=request.param)


DUPLICATES = {
    "insert": "INSERT INTO {t} VALUES (9, 'acme', '{s}', 'x')",
    "insert of a query": "INSERT INTO {t} SELECT 9, tenant_id, ssn, note FROM {t} WHERE id = 1",
    "two rows of one insert": "INSERT INTO {t} VALUES (8, 'acme', 'twice', 'x'), (9, 'acme', 'twice', 'y')",
    "update of the value": "UPDATE {t} SET ssn = '{s}' WHERE id = 3",
    "update of the tenant": "UPDATE {t} SET tenant_id = 'acme' WHERE id = 2",
    "update of all": "UPDATE {t} SET ssn = 'same' WHERE tenant_id = 'acme'",
}


@pytest.mark.parametrize("sql", DUPLICATES.values(), ids=DUPLICATES)
def test_a_value_is_unique_per_tenant_and_the_error_shows_ciphertext(world, reader, table, sql):
    log = world.server.log.stat().st_size
    with fails_with("23505") as failure:
        reader.run(sql.format(t=table, s=SECRET))
    detail = failure.value.diag.message_detail
    shown = detail.partition(")=(")[2].partition(")")[0].split(", ")
    assert is_armor(shown[-1]) and SECRET not in f"{failure.value} {detail}"
    assert failure.value.diag.constraint_name == f"{table}_ssn"
    logged = world.server.log.read_bytes()[log:].decode()
    assert "duplicate key" in logged and SECRET not in logged.partition("STATEMENT:")[0]
    assert reader.usable() and plain(reader, table) == {1: SECRET, 2: SECRET, 3: "other"}


def test_what_is_no_duplicate_is_written(reader, table):
    reader.run(f"INSERT INTO {table} VALUES (4, 'bolt', 'other', 'd'), (5, 'bolt', upper('other'), 'e')")
    reader.run(f"UPDATE {table} SET ssn = ssn || ''")  # sealed anew: the same tokens
    reader.run(f"UPDATE {table} SET note = note || '!', ssn = ssn")
    reader.run(f"UPDATE {table} SET tenant_id = 'bolt' WHERE id = 1 AND false")
    reader.run(f"DELETE FROM {table} WHERE ssn = '{SECRET}' AND tenant_id = 'acme'")
    reader.run(f"INSERT INTO {table} VALUES (6, 'acme', '{SECRET}', 'again')")
    assert plain(reader, table) == {2: SECRET, 3: "other", 4: "other", 5: "OTHER", 6: SECRET}


def test_copy_refuses_a_duplicate(reader, table):
    with fails_with("23505"):
        reader.copy_in(f"COPY {table} FROM STDIN", "7\tacme\tnew\tx\n", f"8\tacme\t{SECRET}\tx\n")
    assert reader.one(f"SELECT count(*) FROM {table}") == 3


def test_building_the_index_finds_duplicates_and_needs_no_key(world, dba, table):
    dba.run(f"DROP INDEX {table}_ssn")
    dba.run(f"INSERT INTO {table} VALUES (9, 'acme', '{SECRET}', 'x')")
    with dba.counts(), fails_with("23505") as failure:
        dba.run(f"CREATE UNIQUE INDEX {table}_again ON {table} (tenant_id, ssn cmk_token_ops)")
    assert SECRET not in f"{failure.value} {failure.value.diag.message_detail}"


# ON CONFLICT

UPSERTS = {
    "do nothing": ("DO NOTHING", "a"), "do update": ("DO UPDATE SET note = excluded.note", "new"),
    "do update of the value": ("DO UPDATE SET ssn = excluded.ssn, note = {t}.note || excluded.note", "anew"),
    "do update where": ("DO UPDATE SET note = 'new' WHERE {t}.ssn = excluded.ssn", "new"),
    "do update where not": ("DO UPDATE SET note = 'new' WHERE {t}.ssn <> excluded.ssn", "a"),
    "do update by value": (f"DO UPDATE SET note = 'new' WHERE {{t}}.ssn = '{SECRET}'", "new"),
}


@pytest.mark.parametrize("action, note", UPSERTS.values(), ids=UPSERTS)
@pytest.mark.parametrize("form", ["literal", "parameter", "query"])
def test_on_conflict_finds_the_row(reader, table, action, note, form):
    columns = "tenant_id, ssn" if "tenant_id" in reader.one("SELECT pg_get_indexdef(%s::regclass)", f"{table}_ssn") \
        else "ssn"
    clause = f"ON CONFLICT ({columns}) {action.format(t=table)}"

    def run(*row):
        if form == "parameter":
            return reader.run(f"INSERT INTO {table} VALUES (%s, %s, %s, 'new') {clause}", *row)
        values = "VALUES ({}, '{}', '{}', 'new')" if form == "literal" else "SELECT {}, '{}', '{}'::text, 'new'"
        return reader.run(f"INSERT INTO {table} {values.format(*row)} {clause}")

    for attempt in range(2):
        run(10 + attempt, "acme", SECRET)
        assert reader.one(f"SELECT note FROM {table} WHERE id = 1").startswith(note)
        if note == "anew":
            assert reader.one(f"SELECT note FROM {table} WHERE id = 1") == "a" + "new" * (attempt + 1)
    run(20, "bolt", "other")
    assert plain(reader, table) == {1: SECRET, 2: SECRET, 3: "other", 20: "other"}


def test_on_conflict_without_the_columns_does_nothing_for_any_of_them(reader, table):
    reader.run(f"INSERT INTO {table} VALUES (10, 'acme', '{SECRET}', 'x') ON CONFLICT DO NOTHING")
    assert reader.one(f"SELECT count(*) FROM {table}") == 3


def test_on_conflict_twice_for_one_row_is_refused_as_on_text(reader, table):
    columns = "tenant_id, ssn" if "tenant_id" in reader.one("SELECT pg_get_indexdef(%s::regclass)", f"{table}_ssn") \
        else "ssn"
    with fails_with("21000"):
        reader.run(f"INSERT INTO {table} VALUES (8, 'acme', 'twice', 'x'), (9, 'acme', 'twice', 'y')"
                   f" ON CONFLICT ({columns}) DO UPDATE SET note = excluded.note")


def test_merge_finds_the_row(dba, reader, table):
    if reader.connection.info.server_version < 150000:
        pytest.skip("MERGE came with 15")
    merge = (f"MERGE INTO {table} t USING (VALUES (10, 'acme', '{SECRET}'), (11, 'bolt', 'new')) AS s (id, tenant, ssn)"
             " ON t.tenant_id = s.tenant AND t.ssn = s.ssn WHEN MATCHED THEN UPDATE SET note = 'merged', ssn = s.ssn"
             " WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.tenant, s.ssn, 'inserted')")
    for _ in range(2):
        reader.run(merge)
    assert plain(reader, table, "ssn, note") == {
        1: (SECRET, "merged"), 2: (SECRET, "b"), 3: ("other", "c"), 11: ("new", "merged"),
    }
    dba.run(f"INSERT INTO {table} SELECT n, 'acme', 'filler ' || n, 'n' FROM generate_series(100, 3000) n")
    dba.run(f"ANALYZE {table}")
    by_index(reader, merge)


def test_two_sessions_that_insert_one_value_wait_for_each_other(world, table):
    first, second = world.connect("app"), world.connect("app")
    first.run("BEGIN")
    first.run(f"INSERT INTO {table} VALUES (10, 'acme', 'new', 'x')")
    waiting = second.start(f"INSERT INTO {table} VALUES (11, 'acme', 'new', 'x') RETURNING id")
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.3)
    first.run("COMMIT")
    with fails_with("23505"):
        waiting.result(timeout=20)


# Foreign keys


@pytest.fixture
def family(world, dba):
    """Two tables whose columns have one label: a child's value must be its tenant's parent's."""
    parent, child = unique("parent"), unique("child")
    world.searchable(parent, [(1, "acme", SECRET, "a"), (2, "bolt", "other", "b")], shape=NAMES,
                     index=INDEXES["of the value"], label=f"{parent}.ssn")
    world.searchable(child, label=f"{parent}.ssn")
    return parent, child


@pytest.fixture
def keyed(dba, family):
    parent, child = family
    dba.run(f"ALTER TABLE {child} ADD CONSTRAINT f FOREIGN KEY (ssn) REFERENCES {parent} (ssn)"
            " ON UPDATE CASCADE ON DELETE SET NULL")
    return family


def test_a_foreign_key_holds_between_columns_of_one_label(world, app, reader, keyed):
    parent, child = keyed
    app.run(f"INSERT INTO {child} VALUES (1, 'acme', '{SECRET}', 'x'), (2, 'bolt', 'other', 'x'),"
            " (3, 'acme', NULL, 'x')")
    log = world.server.log.stat().st_size
    for tenant, value in (("acme", "absent-secret"), ("bolt", SECRET), ("acme", "other")):
        with fails_with("23503") as failure:
            app.run(f"INSERT INTO {child} VALUES (%s, %s, %s, 'x')", 9, tenant, value)
        assert value not in f"{failure.value} {failure.value.diag.message_detail}"
    assert "absent-secret" not in world.server.log.read_bytes()[log:].decode()
    reader.run(f"UPDATE {parent} SET ssn = 'changed' WHERE id = 1")
    assert plain(reader, child) == {1: "changed", 2: "other", 3: None}
    reader.run(f"DELETE FROM {parent} WHERE id = 2")
    assert plain(reader, child) == {1: "changed", 2: None, 3: None}


def test_a_foreign_key_of_tenant_and_value(world, dba, app, family):
    parent, child = family
    dba.run(f"CREATE UNIQUE INDEX ON {parent} (tenant_id, ssn cmk_token_ops)")
    dba.run(f"ALTER TABLE {child} ADD FOREIGN KEY (tenant_id, ssn) REFERENCES {parent} (tenant_id, ssn)")
    app.run(f"INSERT INTO {child} VALUES (1, 'acme', '{SECRET}', 'x')")
    with fails_with("23503"):
        app.run(f"INSERT INTO {child} VALUES (2, 'bolt', '{SECRET}', 'x')")
    with fails_with("23503"):
        app.run(f"DELETE FROM {parent} WHERE ssn = '{SECRET}'")


def test_a_foreign_key_between_two_labels_finds_nothing_and_lets_nothing_in(world, dba, app, family):
    parent, _ = family
    child = world.searchable(unique("stranger"))
    dba.run(f"ALTER TABLE {child} ADD FOREIGN KEY (ssn) REFERENCES {parent} (ssn)")
    with pytest.raises(psycopg.Error) as failure:
        app.run(f"INSERT INTO {child} VALUES (1, 'acme', '{SECRET}', 'x')")
    assert failure.value.sqlstate == "23503"


def test_values_of_another_tenant_with_one_unique_index_over_a_sealed_and_an_unsealed_row(world, dba, reader):
    """A half-sealed table: the index holds what is not sealed yet as it is, and tells only sealed values apart."""
    table = unique("half")
    dba.run(f"CREATE TABLE {table} ({NAMES})")
    dba.run(f"INSERT INTO {table} VALUES (1, 'acme', '{SECRET}', 'a'), (2, 'acme', 'other', 'b')")
    protect(dba, table, "ssn", searchable=True, rewrite=False)
    dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    dba.run(f"CALL cmk.seal_table('{table}')")
    dba.run(f"CREATE UNIQUE INDEX {table}_ssn ON {table} (ssn cmk_token_ops)")
    with fails_with("23505"):
        reader.run(f"INSERT INTO {table} VALUES (3, 'acme', '{SECRET}', 'c')")
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn = '{SECRET}'") == [1]
