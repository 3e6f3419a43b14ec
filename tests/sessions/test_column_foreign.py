"""Protected columns through postgres_fdw, and of temporary, unlogged and inherited foreign tables."""

import pytest

from columns import ROWS, SHAPE, app, dba, opened, plain, protect, reader, world  # noqa: F401 (fixtures)
from support import fails, unique


@pytest.fixture(scope="module")
def far(world):
    """The table `u`, and the same once more as the foreign table `f` with columns of text."""
    world.make("u", ROWS)
    dba, app = world.dba, world.roles["app"]
    dba.run("CREATE EXTENSION postgres_fdw")
    dba.run(f"CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{world.server.socket}',"
            f" dbname '{world.dbname}')")
    dba.run(f"CREATE USER MAPPING FOR PUBLIC SERVER loop OPTIONS (user '{app}', password_required 'false')")
    dba.run("CREATE FOREIGN TABLE f (id int, tenant_id text, ssn text, note text) SERVER loop OPTIONS (table_name 'u')")
    dba.run("CREATE FOREIGN TABLE typed (id int, tenant_id text, ssn cmk_text, note cmk_text) SERVER loop"
            " OPTIONS (table_name 'u')")
    dba.run("GRANT ALL ON f, typed TO PUBLIC")
    return "f"


@pytest.fixture
def remote_plaintext(world, server):
    server.execute(f"ALTER ROLE {world.roles['app']} IN DATABASE {world.dbname} SET cmk_encrypt.output = plaintext")
    yield
    server.execute(f"ALTER ROLE {world.roles['app']} IN DATABASE {world.dbname} RESET ALL")


def test_a_foreign_column_of_text_is_read_and_searched_remotely(world, far, remote_plaintext):
    dba = world.connect()
    assert plain(dba, far, "tenant_id, ssn, note") == {row[0]: row[1:] for row in ROWS}
    sql = f"SELECT id FROM {far} WHERE ssn = '222' ORDER BY id"
    assert dba.all(sql) == [(2,), (3,), (9,)]
    plan = " ".join(line for (line,) in dba.all(f"EXPLAIN (VERBOSE, COSTS off) {sql}"))
    assert "ssn = '222'" in plan.partition("Remote SQL")[2]


def test_a_foreign_column_of_text_gives_armor_where_the_remote_role_reads_ciphertext(world, far):
    dba = world.connect()
    assert all(ssn is None or ssn.startswith("cmk1:") for ssn in plain(dba, far).values())


def test_writes_through_a_foreign_table_are_sealed_there(world, far, reader):
    dba = world.connect()
    dba.run(f"INSERT INTO {far} VALUES (50, 'acme', 'far', NULL), (51, 'bolt', 'away', 'n')")
    dba.run(f"UPDATE {far} SET ssn = 'further' WHERE id = 50")
    assert {id: ssn for id, ssn in plain(reader, "u").items() if id >= 50} == {50: "further", 51: "away"}
    assert dba.one("SELECT count(*) FROM u WHERE NOT cmk.is_sealed(ssn)") == 0
    with fails("42704", "unknown_tenant", "nosuch"):
        dba.run(f"INSERT INTO {far} VALUES (52, 'nosuch', 'x', NULL)")
    dba.run(f"DELETE FROM {far} WHERE id >= 50")


def test_armor_that_came_back_as_text_is_not_stored_as_a_value(world, far):
    """Read in ciphertext through the wrapper, and written into the table again."""
    app = world.connect("app")
    with fails("42501", "armor_refused"):
        app.run(f"INSERT INTO u SELECT id + 100, tenant_id, ssn, note FROM {far} WHERE id = 1")


def test_a_foreign_column_of_the_type_gives_envelopes_to_who_asks_for_them(world, far, reader):
    assert world.connect().all("SELECT id FROM typed WHERE ssn = '222'") == []  # what came is armor, as text
    dba = world.connect(input="envelope")
    assert dba.all("SELECT id FROM typed WHERE ssn = '222' ORDER BY id") == [(2,), (3,), (9,)]
    dba.run("INSERT INTO u SELECT id + 200, tenant_id, ssn, note FROM typed")
    copied = {id - 200: ssn for id, ssn in plain(reader, "u").items() if id > 200}
    assert copied == {row[0]: row[2] for row in ROWS}
    dba.run("DELETE FROM u WHERE id > 200")


@pytest.mark.parametrize("kind", ["TEMP", "UNLOGGED"])
def test_temporary_and_unlogged_tables(world, kind):
    session = world.connect()
    name = unique("t")
    session.run(f"CREATE {kind} TABLE {name} ({SHAPE})")
    protect(session, name, "ssn", "note")
    with session.counts(seals=1):
        session.run(f"INSERT INTO {name} VALUES (1, 'acme', 'x', NULL)")
    session.run("SET cmk_encrypt.output = plaintext")
    assert session.one(f"SELECT ssn FROM {name} WHERE ssn = 'x'") == "x"
