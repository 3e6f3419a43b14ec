"""cmk_encrypt.wire_type = text concerns what goes to clients: nothing that is stored, or read inside."""

import pytest
from psycopg import pq

from support import unique
from wire import describe, world  # noqa: F401 (fixture)

KIND = "SELECT ssn INTO r FROM {name} WHERE id = 1; kind := pg_typeof(r.ssn)::text"


def test_bodies_of_functions_are_left_alone(world, dba):
    """Also where they run while the client's statement is planned."""
    session = world.connect()
    for volatility in ("VOLATILE", "STABLE", "IMMUTABLE"):
        function = unique("kind")
        dba.run(f"CREATE FUNCTION {function}() RETURNS text LANGUAGE plpgsql {volatility} AS"
                f" 'DECLARE r record; kind text; BEGIN {KIND.format(name=world.name)}; RETURN kind; END'")
        assert session.one(f"SELECT {function}()") == "cmk_text"
        assert session.one(f"SELECT count(*) FROM {world.name} WHERE code = {function}()") == 0
    assert session.one(f"SELECT pg_typeof(ssn)::text FROM {world.name}_rows() WHERE id = 1") == "cmk_text"
    session.run(f"DO 'DECLARE r record; kind text; BEGIN {KIND.format(name=world.name)};"
                " IF kind <> ''cmk_text'' THEN RAISE ''%'', kind; END IF; END'")


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"])
@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_triggers_are_left_alone_also_at_commit(world, dba, when, protocol):
    log = unique("log")
    dba.run(f"CREATE TABLE {log} (kind text, copy text)")
    dba.run(f"GRANT ALL ON {log} TO PUBLIC")
    dba.run(f"CREATE FUNCTION {log}() RETURNS trigger LANGUAGE plpgsql AS 'DECLARE r record; kind text;"
            f" BEGIN {KIND.format(name=world.name)}; INSERT INTO {log} SELECT kind, cmk.show(new.ssn);"
            " RETURN NULL; END'")
    dba.run(f"CREATE CONSTRAINT TRIGGER later AFTER UPDATE ON {world.name} DEFERRABLE INITIALLY {when}"
            f" FOR EACH ROW EXECUTE FUNCTION {log}()")
    session = world.connect()
    update = f"UPDATE {world.name} SET code = 'new' WHERE id = 1"
    pgconn = session.connection.pgconn
    result = pgconn.exec_(update.encode()) if protocol == "simple" else pgconn.exec_params(update.encode(), [])
    assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message.decode()
    kind, copy = dba.row(f"TABLE {log}")
    assert kind == "cmk_text" and copy.startswith("cmk1:")


def test_what_is_stored_is_of_our_types_and_ciphertext(world, dba):
    session = world.connect(role=dba.role)
    made = unique("made")
    session.run(f"CREATE VIEW {made}_v AS SELECT ssn, array_agg(doc) AS docs FROM {world.name} GROUP BY ssn")
    session.run(f"CREATE TABLE {made}_a AS SELECT ssn, photo FROM {world.name}")
    session.run(f"SELECT ssn, photo INTO {made}_i FROM {world.name}")
    session.run(f"CREATE MATERIALIZED VIEW {made}_m AS SELECT ssn, photo FROM {world.name}")
    session.run(f"CREATE TABLE {made}_e AS TABLE {made}_a WITH NO DATA")
    session.run(f"INSERT INTO {made}_e SELECT ssn, photo FROM {world.name}")
    kinds = dba.all("SELECT DISTINCT atttypid::regtype::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
                    " WHERE relname LIKE %s AND attnum > 0 ORDER BY 1", f"{made}%")
    assert kinds == [("cmk_bytea",), ("cmk_jsonb[]",), ("cmk_text",)]
    assert "show" not in dba.one("SELECT pg_get_viewdef(%s::regclass)", f"{made}_v")
    for name in "aime":
        sealed = f"SELECT bool_and(cmk.is_sealed(ssn)) AND bool_and(cmk.is_sealed(photo)) FROM {made}_{name}"
        assert dba.one(sealed) is True
    with session.connection.cursor() as cursor, cursor.copy(f"COPY (SELECT ssn FROM {made}_a) TO STDOUT") as copy:
        copied = b"".join(bytes(block) for block in copy)
    assert copied.startswith(b"cmk1:") and b"one" not in copied.splitlines()


def test_show_by_hand_opens_nothing_that_is_stored(world, dba):
    """It goes by the rule of the types' output."""
    session = world.connect(role=dba.role)
    shown = f"SELECT cmk.show(ssn) AS ssn FROM {world.name} WHERE id = 1"
    assert session.one(shown) == "one"
    made = unique("made")
    session.run(f"CREATE TABLE {made} AS {shown}")
    session.run(f"INSERT INTO {made} {shown}")
    session.run(f"INSERT INTO {made} WITH q AS MATERIALIZED ({shown}) SELECT * FROM q RETURNING ssn")
    session.run(f"CREATE VIEW {made}_v AS {shown}")
    session.run(f"INSERT INTO {made} TABLE {made}_v")
    assert session.one(f"TABLE {made}_v") == "one"
    copied = dba.all(f"TABLE {made}")
    assert len(copied) == 4 and all(ssn.startswith("cmk1:") for (ssn,) in copied)


@pytest.mark.parametrize("setting", ["row_security = off", "application_name = pg_dump"])
def test_a_dump_reads_what_it_reads_without_the_hook(world, dba, setting):
    session = world.connect(role=dba.role)
    session.run(f"SET {setting}")
    sql = f"SELECT * FROM {world.name}"
    assert describe(session, sql) == describe(world.connect("native"), sql)


def test_explain_opens_nothing(world):
    session = world.connect()
    opens = "SELECT opens FROM cmk.column_stats()"
    before = session.one(opens)
    for options in ("VERBOSE", "ANALYZE"):
        plan = session.all(f"EXPLAIN ({options}) SELECT ssn FROM {world.name} ORDER BY id")
        assert not any("show" in line for (line,) in plan)
    assert session.one(opens) == before


# What it costs


def test_only_rows_that_are_sent_are_opened(world):
    session = world.connect()
    opens = "SELECT opens FROM cmk.column_stats()"
    for clause in ("OFFSET 3 LIMIT 1", "LIMIT 1", "OFFSET 4"):
        before = session.one(opens)
        session.run(f"SELECT ssn FROM {world.name} ORDER BY id {clause}")
        assert session.one(opens) - before <= 1, clause


def test_a_sort_holds_no_plaintext(world):
    session = world.connect()
    session.run("SET enable_indexscan = off")
    plan = session.one(f"EXPLAIN (VERBOSE, FORMAT JSON) SELECT cmk.show(ssn) FROM {world.name} ORDER BY id")[0]["Plan"]
    assert any("show" in column for column in plan["Output"])
    assert plan["Node Type"] != "Sort" and plan["Plans"][0]["Node Type"] == "Sort"
    assert not any("show" in column for column in plan["Plans"][0]["Output"])
