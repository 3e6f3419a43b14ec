"""Protected columns of partitions, inheritance children, copies of tables, and after changes of the schema."""

import pytest

from columns import (  # noqa: F401 (fixtures)
    ROWS, SHAPE, TRIGGER, app, dba, envelopes, opened, plain, protect, reader, seal, tags, unchanged, world,
)
from support import fails, fails_with, unique


@pytest.fixture
def u(world):
    return world.make(unique("u"), [(n, tenant, ssn, None) for n, tenant, ssn, _ in ROWS[:6]])


# Partitions


@pytest.fixture
def parted(world, dba):
    """Partitioned by tenant; the partition of bolt has its columns in another order, and one dropped."""
    p = unique("p")
    dba.run(f"CREATE TABLE {p} (id int, tenant_id text, ssn text, note text) PARTITION BY LIST (tenant_id)")
    dba.run(f"CREATE TABLE {p}_acme PARTITION OF {p} FOR VALUES IN ('acme')")
    dba.run(f"CREATE TABLE {p}_bolt (note text, gone int, ssn text, tenant_id text, id int)")
    dba.run(f"ALTER TABLE {p}_bolt DROP gone")
    dba.run(f"ALTER TABLE {p} ATTACH PARTITION {p}_bolt FOR VALUES IN ('bolt')")
    protect(dba, p, "ssn", "note")
    dba.run(f"GRANT ALL ON {p}, {p}_acme, {p}_bolt TO PUBLIC")
    return p


def test_rows_are_sealed_on_their_way_to_a_partition_and_directly(app, dba, reader, parted):
    with app.counts(seals=6):
        app.run(f"INSERT INTO {parted} VALUES (1, 'acme', 'a', 'n'), (2, 'bolt', 'b', 'm')")
        app.run(f"INSERT INTO {parted}_bolt (id, tenant_id, ssn) VALUES (3, 'bolt', 'c')")
        app.copy_in(f"COPY {parted} FROM STDIN", "4\tbolt\td\t\\N\n")
    assert plain(reader, parted, "ssn, note") == {1: ("a", "n"), 2: ("b", "m"), 3: ("c", None), 4: ("d", None)}
    assert envelopes(dba, parted, "note")[2][26:34] == tags("bolt", f"{parted}.note")[8:]


def test_a_row_that_moves_between_partitions_is_sealed_once(app, reader, parted):
    app.run(f"INSERT INTO {parted} VALUES (1, 'acme', 'a', NULL)")
    with app.counts(seals=1, opens=1):
        app.run(f"UPDATE {parted} SET tenant_id = 'bolt'")
    with app.counts(seals=1):
        app.run(f"UPDATE {parted} SET tenant_id = 'acme', ssn = 'b'")
    assert reader.all(f"SELECT tableoid::regclass::text, ssn FROM {parted}") == [(f"{parted}_acme", "b")]


def test_a_partition_made_later_seals_too_also_in_replica_mode(dba, reader, parted):
    dba.run(f"CREATE TABLE {parted}_rest PARTITION OF {parted} DEFAULT")
    dba.run("SET session_replication_role = replica")
    for table in (parted, f"{parted}_acme", f"{parted}_bolt"):
        tenant = table.rpartition("_")[2] if table != parted else "acme"
        with dba.counts(seals=1):
            dba.run(f"INSERT INTO {table} (id, tenant_id, ssn) VALUES (1, '{tenant}', 'x')")
    assert dba.one(
        "SELECT count(*) FROM pg_trigger WHERE tgname = %s AND tgenabled = 'A'"
        " AND tgrelid IN (SELECT relid FROM pg_partition_tree(%s))", TRIGGER, parted,
    ) == 4


def test_a_detached_partition_keeps_its_check(dba, app, parted):
    dba.run(f"ALTER TABLE {parted} DETACH PARTITION {parted}_acme")
    with fails("23514", "not_sealed"):
        app.run(f"INSERT INTO {parted}_acme VALUES (1, 'acme', 'x', NULL)")


# Inheritance


def test_an_inheritance_child_without_the_trigger_is_closed_and_with_it_seals(world, dba, app, reader, u):
    child = unique("child")
    dba.run(f"CREATE TABLE {child} (extra text) INHERITS ({u})")
    dba.run(f"GRANT ALL ON {child} TO PUBLIC")
    insert = f"INSERT INTO {child} (id, tenant_id, ssn, extra) VALUES (30, 'acme', 'of the child', 'e')"
    with fails("23514", "not_sealed"):
        app.run(insert)
    seal(dba, child, f"{u}.ssn", f"{u}.note", tenant="new.tenant_id")
    with app.counts(seals=1):
        app.run(insert)
    assert plain(reader, u)[30] == "of the child"
    with app.counts(seals=6, opens=6):
        app.run(f"UPDATE {u} SET ssn = ssn || '!'")
    assert plain(reader, child) == {30: "of the child!"}


# Copies of tables


def test_a_table_made_like_it_takes_no_plaintext(dba, app, u):
    like = unique("like")
    dba.run(f"CREATE TABLE {like} (LIKE {u} INCLUDING ALL)")
    dba.run(f"GRANT ALL ON {like} TO PUBLIC")
    with fails("23514", "not_sealed"):
        app.run(f"INSERT INTO {like} VALUES (1, 'acme', 'x')")
    with app.counts():
        app.run(f"INSERT INTO {like} SELECT * FROM {u}")
    assert envelopes(dba, like) == envelopes(dba, u)


@pytest.mark.parametrize("sql", ["CREATE TABLE {copy} AS TABLE {u}", "SELECT * INTO {copy} FROM {u}"])
def test_a_copy_by_query_holds_ciphertext(world, dba, reader, u, sql):
    copy = unique("copy")
    with reader.counts():
        reader.run(sql.format(copy=copy, u=u))
    assert envelopes(dba, copy) == envelopes(dba, u)
    assert plain(reader, copy) == plain(reader, u)


def test_a_column_of_the_type_without_protection_fails_on_its_first_write(dba, app, u):
    dba.run(f"ALTER TABLE {u} ADD bare cmk_text")
    with unchanged(dba, u), fails("55000", "protection_lost"):
        app.run(f"INSERT INTO {u} (id, tenant_id, bare) VALUES (20, 'acme', 'x')")


# Changes of the schema


def works(app, reader, table, tenant="tenant_id", ssn="ssn"):
    """Writes seal and reads open."""
    with app.counts(seals=1):
        app.run(f"INSERT INTO {table} (id, {tenant}, {ssn}) VALUES (90, 'acme', 'after')")
    with app.counts(seals=1, opens=1):
        app.run(f"UPDATE {table} SET {tenant} = 'bolt' WHERE id = 90")
    return plain(reader, table, ssn)[90] == "after"


def test_writes_go_on_after_renames(world, dba, app, reader, u):
    schema, table = unique("schema"), unique("renamed")
    app.run(f"INSERT INTO {u} VALUES (80, 'acme', 'x')")  # the plan of columns is now cached
    dba.run(f"CREATE SCHEMA {schema}")
    dba.run(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    for change in (f"{u} RENAME ssn TO social", f"{u} RENAME tenant_id TO customer", f"{u} RENAME TO {table}",
                   f"{table} OWNER TO {world.roles['app']}", f"{table} SET SCHEMA {schema}"):
        dba.run(f"ALTER TABLE {change}")
    assert works(app, reader, f"{schema}.{table}", "customer", "social")
    # What was sealed before is of the same column still: the label is fixed.
    with app.counts():
        app.run(f"UPDATE {schema}.{table} SET social = social")


def test_writes_go_on_after_columns_come_and_go(dba, app, reader, u):
    app.run(f"INSERT INTO {u} VALUES (80, 'acme', 'x')")
    for change in ("ADD early int", "DROP note", "ADD late text DEFAULT 'z'", "DROP early"):
        dba.run(f"ALTER TABLE {u} {change}")
    assert works(app, reader, u)


def test_the_tenant_column_is_not_dropped_by_accident(dba, app, reader, u):
    with fails_with("2BP01"):
        dba.run(f"ALTER TABLE {u} DROP tenant_id")
    assert works(app, reader, u)


def test_without_its_check_a_column_takes_no_writes(dba, app, u):
    dba.run(f"ALTER TABLE {u} DROP CONSTRAINT cmk_sealed_ssn")
    with unchanged(dba, u):
        for sql in ("INSERT INTO {u} VALUES (20, 'acme', 'x')", "UPDATE {u} SET ssn = 'x' WHERE id = 1"):
            with fails("55000", "protection_lost"):
                app.run(sql.format(u=u))


# Lengths


@pytest.fixture
def short(world):
    return world.make(unique("short"), shape=SHAPE.replace("ssn text", "ssn varchar(5)"))


def test_a_length_is_that_of_the_plaintext_in_characters(dba, app, reader, short):
    assert dba.one(f"SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
                   f" WHERE attrelid = '{short}'::regclass AND attname = 'ssn'") == "cmk_text(5)"
    for id, value in enumerate(("12345", "ééééé", "🗝🗝🗝🗝🗝", "", None)):
        app.run(f"INSERT INTO {short} VALUES (%s, 'acme', %s)", id, value)
    assert list(plain(reader, short).values()) == ["12345", "ééééé", "🗝🗝🗝🗝🗝", "", None]
    for value in ("123456", "éééééé", "x" * 1000):
        for sql in (f"INSERT INTO {short} VALUES (9, 'acme', %s)", f"UPDATE {short} SET ssn = %s WHERE id = 1",
                    f"INSERT INTO {short} VALUES (9, 'acme', %s::text)"):
            with fails("22001", "too_long"):
                app.run(sql, value)
    with fails("22001", "too_long"):
        app.copy_in(f"COPY {short} FROM STDIN", "9\tacme\t123456\t\\N\n")


def test_a_sealed_value_from_elsewhere_must_fit_too(app, u, short):
    with fails("22001", "too_long"):
        app.run(f"INSERT INTO {short} SELECT id, tenant_id, (ssn || '456')::text FROM {u} WHERE id = 1")
    app.run(f"UPDATE {u} SET ssn = '123456' WHERE id = 1")
    with fails("22001", "too_long"):
        app.run(f"INSERT INTO {short} SELECT id, tenant_id, ssn FROM {u} WHERE id = 1")


def test_blanks_beyond_the_length_are_cut_as_varchar_cuts_them(app, reader, short):
    app.run(f"INSERT INTO {short} VALUES (1, 'acme', '12345   ')")
    app.run(f"INSERT INTO {short} VALUES (2, 'acme', '123     ')")
    assert plain(reader, short) == {1: "12345", 2: "123  "}


def test_a_length_changes_without_a_rewrite(dba, app, short):
    app.run(f"INSERT INTO {short} VALUES (1, 'acme', '12345')")
    file = f"SELECT pg_relation_filenode('{short}')"
    before = dba.one(file)
    dba.run(f"ALTER TABLE {short} ALTER ssn TYPE cmk_text(9)")
    app.run(f"INSERT INTO {short} VALUES (2, 'acme', '123456789')")
    with fails("22001", "too_long"):
        app.run(f"INSERT INTO {short} VALUES (3, 'acme', '1234567890')")
    assert dba.one(file) == before
