"""What converts a value by its output function: in a DELETE's conditions, and by casts to other types of text."""

import psycopg
import pytest

from columns import dba, opened  # noqa: F401 (fixtures)
from searching import world  # noqa: F401 (fixture)
from support import unique

CONDITIONS = [
    "concat(first, ' ', last) <> 'Ada Lovelace'", "format('%s', first) = 'Ada'", "concat_ws('-', first, last) = 'Ada-Lovelace'",
    "to_jsonb(k) ->> 'first' = 'Ada'", "row_to_json(k) ->> 'last' <> 'Turing'", "array_to_string(ARRAY[first], ',') = 'Alan'",
    "code::char(3) <> 'abc'", "code::name = 'abc'", "prefs::varchar = '{\"a\": 1}'", "first::varchar(2) = 'Al'",
    "json_build_array(first) ->> 0 = 'Ada'", "first = 'Ada' AND concat(last) = 'Lovelace'",
]


@pytest.fixture(scope="module")
def tables(world):
    """A protected table and its twin."""
    dba, made = world.connect(), []
    for name in (unique("k"), unique("k_text")):
        dba.run(f"CREATE TABLE {name} (id int PRIMARY KEY, tenant text NOT NULL, first text, last text, code text, prefs jsonb,"
                " data bytea)")
        dba.run(f"""INSERT INTO {name} VALUES (1, 'acme', 'Ada', 'Lovelace', 'abc', '{{"a": 1}}', 'x'),"""
                f""" (2, 'acme', 'Alan', 'Turing', 'xyz', '{{"a": 2}}', 'y'), (3, 'acme', NULL, NULL, NULL, NULL, NULL)""")
        made.append(name)
    for column in ("first", "last", "code", "prefs", "data"):
        dba.run(f"SELECT cmk.protect_column('{made[0]}', '{column}', tenant_column => 'tenant')")
    yield made
    for name in made:
        dba.run(f"DROP TABLE {name} CASCADE")


@pytest.fixture
def reader(world):
    session = world.connect()
    session.run("SET cmk_encrypt.output = plaintext")
    session.run("BEGIN")
    yield session
    session.run("ROLLBACK")


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("returning", ["", "RETURNING id, concat(first)"])
def test_a_delete_deletes_what_a_select_finds(tables, reader, condition, returning):
    left = []
    for name in tables:
        rows = reader.all(f"DELETE FROM {name} AS k WHERE {condition} {returning}") if returning else reader.run(
            f"DELETE FROM {name} AS k WHERE {condition}").rowcount
        left.append((rows, reader.all(f"SELECT id FROM {name} ORDER BY id")))
    assert left[0] == left[1]


def test_a_delete_whose_rows_are_stored_stores_ciphertext(tables, reader):
    reader.run("CREATE TEMP TABLE kept (row text)")
    reader.run(f"WITH gone AS (DELETE FROM {tables[0]} AS k RETURNING to_jsonb(k) AS row)"
               " INSERT INTO kept SELECT row::text FROM gone")
    kept = reader.all("SELECT row FROM kept")
    assert len(kept) == 3 and "Ada" not in str(kept) and "cmk1:" in str(kept)


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
def test_what_a_trigger_of_a_delete_notes_is_ciphertext(tables, reader, when):
    reader.run("CREATE TABLE noted (old text)")
    reader.run("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
               " $$ DECLARE row text := to_jsonb(OLD); BEGIN INSERT INTO noted VALUES (row || concat(OLD.first)); RETURN OLD; END $$")
    reader.run(f"CREATE TRIGGER note {when} DELETE ON {tables[0]} FOR EACH ROW EXECUTE FUNCTION note()")
    reader.run(f"DELETE FROM {tables[0]} WHERE concat(first) = 'Ada'")
    noted = reader.all("SELECT old FROM noted")
    assert len(noted) == 1 and "Ada" not in str(noted) and "cmk1:" in str(noted)


@pytest.mark.parametrize(("cast", "type"), [
    ("code::char(5)", "char(5)"), ("code::char(2)", "char(2)"), ("code::name", "name"), ("prefs::varchar", "varchar"),
    ("data::varchar", "varchar"), ("code", "char(10)"), ("code", "name"), ("prefs", "varchar"), ("code", "varchar(9)"),
])
def test_a_cast_opens_wherever_it_stands(tables, reader, cast, type):
    reader.run("SET cmk_encrypt.output = ciphertext")
    reader.run("SET bytea_output = hex")
    stored = []
    for name in tables:
        reader.run(f"CREATE TEMP TABLE copy (value {type})")
        reader.run(f"INSERT INTO copy SELECT {cast} FROM {name} ORDER BY id")
        stored.append(reader.all("SELECT value::text FROM copy"))
        reader.run("DROP TABLE copy")
    assert stored[0] == stored[1]


def test_a_char_loses_its_blanks(tables, reader):
    for name in tables:
        reader.run(f"UPDATE {name} SET first = 'q '::char(4), last = 'r'::char(3) WHERE id = 2")
        assert reader.all(f"SELECT '[' || first || ']', '[' || last || ']', first = 'q' FROM {name} WHERE id = 2") == [
            ("[q]", "[r]", True)]


def problems(dba, name, column):
    return dba.one('SELECT problems FROM cmk.protected_columns WHERE "table" = %s::regclass AND "column" = %s',
                   name, column)


def test_a_constraint_that_a_dump_would_check_is_a_problem(world, tables):
    dba, name = world.connect(), tables[0]
    dba.run(f"ALTER TABLE {name} ADD CONSTRAINT looks CHECK (first LIKE 'A%%')")
    assert problems(dba, name, "first") == [f"check_validated: looks on public.{name}"]
    assert "looks" in str(dba.all("SELECT detail FROM cmk.check()"))
    dba.run(f"ALTER TABLE {name} DROP CONSTRAINT looks")
    dba.run(f"ALTER TABLE {name} ADD CONSTRAINT looks CHECK (first LIKE 'A%%') NOT VALID")
    assert problems(dba, name, "first") == []
    dba.run(f"ALTER TABLE {name} DROP CONSTRAINT looks")


def test_a_generated_column_that_stores_plaintext_is_a_problem(world, tables):
    dba, name = world.connect(), tables[0]
    try:
        dba.run(f"ALTER TABLE {name} ADD stored text GENERATED ALWAYS AS (code) STORED")
    except psycopg.errors.InvalidObjectDefinition:
        # Later versions of PostgreSQL see that the cast is not immutable.
        assert dba.connection.info.server_version >= 160000
        return
    assert problems(dba, name, "code") == [f"plaintext_generated: public.{name}.stored"]
    dba.run(f"ALTER TABLE {name} DROP stored")
    assert problems(dba, name, "code") == []
