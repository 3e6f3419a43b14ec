"""cmk_encrypt.wire_type = text: what drivers make of it, ciphertext, prepared statements, errors."""

import json

import psycopg
import pytest
from psycopg import pq

from support import fails, fails_with, unique
from wire import DOC, FIRST_OF_OURS, ROWS, describe, execute, of, protect, world  # noqa: F401 (fixture)


def test_a_binary_client_gets_values_of_the_protected_types(world):
    rows = world.connect().all(f"SELECT id, ssn, code, photo, doc, ARRAY[ssn] FROM {world.name} ORDER BY id")
    assert rows == [(*row, [row[1]]) for row in ROWS]


def test_cursors_too(world):
    session = world.connect()
    for hold in ("WITHOUT HOLD", "WITH HOLD"):
        session.run("BEGIN")
        session.run(f"DECLARE c SCROLL CURSOR {hold} FOR SELECT ssn, photo, doc FROM {world.name} ORDER BY ssn, id")
        if hold == "WITH HOLD":
            session.run("COMMIT")
        last = sorted(ROWS, key=lambda row: (row[1] is None, row[1]))[-1]
        assert session.all("FETCH LAST FROM c") == [(last[1], *last[3:])]
        assert session.all("FETCH BACKWARD 9 FROM c")[-1][0] == "Zoë"
        session.run("CLOSE c")
        session.connection.rollback()
    with session.connection.transaction(), session.connection.cursor("named", binary=True) as cursor:
        cursor.execute(f"SELECT doc FROM {world.name} WHERE id = %s", (1,))
        assert cursor.fetchall() == [(DOC,)]


def test_a_cursor_can_say_which_row_to_update(world):
    session = world.connect()
    with session.connection.transaction():
        session.run(f"DECLARE c CURSOR FOR SELECT ssn FROM {world.name} WHERE id = 2 FOR UPDATE")
        assert session.one("FETCH c") == "two"
        session.run(f"UPDATE {world.name} SET ssn = 'second' WHERE CURRENT OF c")
    assert session.one(f"SELECT ssn FROM {world.name} WHERE id = 2") == "second"


# Ciphertext, and what a role without a grant gets


@pytest.mark.parametrize("wire_type", ["text", "native"])
def test_ciphertext_is_armor_of_the_protected_type(world, dba, wire_type):
    session = world.connect(wire_type, "ciphertext")
    sql = f"SELECT ssn, code, convert_from(photo, 'UTF8'), doc FROM {world.name} WHERE id = 1"
    stored = dba.row(sql.replace("convert_from(photo, 'UTF8')", "photo"))
    # By hand: the native output.
    armors = [value if isinstance(value, str) else value.decode() for value in stored]
    assert all(armor.startswith("cmk1:") for armor in armors)
    if wire_type == "text":
        told = session.row(f"SELECT ssn, code, photo, doc FROM {world.name} WHERE id = 1")
        assert told == (armors[0], armors[1], armors[2].encode(), armors[3])


def test_ciphertext_comes_back_as_it_was(world, dba):
    """As an envelope where armor counts, never sealed a second time."""
    def update(session, assignments, *texts):
        """With parameters of the types that the server infers."""
        sql = f"UPDATE {world.name} SET {assignments} WHERE id = 2"
        return session.connection.pgconn.exec_params(sql.encode(), [text.encode() for text in texts])

    session = world.connect(output="ciphertext")
    envelopes = f"SELECT cmk.envelope(ssn), cmk.envelope(photo), cmk.envelope(doc) FROM {world.name} WHERE id = %s"
    before = dba.row(envelopes, 1)
    ssn, photo, doc = session.row(f"SELECT ssn, photo, doc FROM {world.name} WHERE id = 1")
    texts = [ssn, "\\x" + photo.hex(), json.dumps(doc)]
    for column, text in zip(("ssn", "photo", "doc"), texts):
        result = update(session, f"{column} = $1", text)
        assert result.error_field(pq.DiagnosticField.SQLSTATE) == b"42501", column
        assert b"reason=armor_refused" in result.error_field(pq.DiagnosticField.MESSAGE_DETAIL)
    session.run("SET cmk_encrypt.input = envelope")
    assert update(session, "ssn = $1, photo = $2, doc = $3", *texts).status == pq.ExecStatus.COMMAND_OK
    assert dba.row(envelopes, 2) == before
    session.run("SET cmk_encrypt.input = text")
    assert update(session, "ssn = $1, photo = $2, doc = $3", *texts).status == pq.ExecStatus.COMMAND_OK
    session.run("SET cmk_encrypt.output = plaintext")
    assert session.row(f"SELECT ssn, photo, doc FROM {world.name} WHERE id = 2") == (ssn, photo, doc)


def test_a_role_without_a_grant_gets_ciphertext_or_an_error(world, dba, role):
    name = role()
    dba.run(f"GRANT SELECT ON {world.name} TO {name}")
    session = world.connect(output="ciphertext", role=name)
    sql = f"SELECT ssn FROM {world.name} WHERE id = 1"
    assert session.one(sql).startswith("cmk1:")
    session.run("SET cmk_encrypt.output = plaintext")
    for statement in (sql, f"SELECT DISTINCT ssn FROM {world.name}", f"SELECT array_agg(ssn) FROM {world.name}"):
        with fails("42501", "no_grant", world.tenant) as caught:
            session.run(statement)
        assert caught.value.diag.statement_position is None
        assert session.usable()


# Statements that are prepared


def prepare(session, sql, name=b"p"):
    result = session.connection.pgconn.prepare(name, sql.encode())
    assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message.decode()


def run_prepared(session, parameters=(), name=b"p"):
    """Types and rows, or the SQLSTATE."""
    parameters = [parameter.encode() for parameter in parameters]
    result = session.connection.pgconn.exec_prepared(name, parameters)
    if result.status == pq.ExecStatus.FATAL_ERROR:
        return result.error_field(pq.DiagnosticField.SQLSTATE).decode()
    rows = [tuple(result.get_value(row, at) for at in range(result.nfields)) for row in range(result.ntuples)]
    return [(result.ftype(at), result.fmod(at)) for at in range(result.nfields)], rows


@pytest.mark.parametrize("sql, parameters", [
    ("SELECT * FROM t ORDER BY id", []),
    ("SELECT * FROM t WHERE ssn = $1 ORDER BY id", ["one"]),
    ("SELECT DISTINCT ssn, code FROM t ORDER BY ssn, code", []),
    ("UPDATE t SET ssn = $1, photo = $2, doc = $3 WHERE id = 1 RETURNING *", ["x", "\\x01", "[]"]),
])
def test_what_is_prepared_survives_protection(world, dba, sql, parameters):
    wire, native = world.connect("text"), world.connect("native")
    dba.run(f"DROP FUNCTION {world.twin}_rows(), {world.twin}_ssn(int)")
    dba.run(f"DROP VIEW {world.twin}_view")
    for session in (wire, native):
        prepare(session, of(sql, world.twin))
    before = run_prepared(wire, parameters)
    assert len(before[1]) > 0 and run_prepared(native, parameters) == before
    protect(dba, world.twin)
    assert wire.connection.pgconn.describe_prepared(b"p").status == pq.ExecStatus.COMMAND_OK
    assert run_prepared(wire, parameters) == before
    assert run_prepared(native, parameters) == "0A000"


def test_a_statement_keeps_its_description_while_its_plan_lasts(world, dba):
    sql = f"SELECT ssn FROM {world.name} WHERE id = 1"
    session = world.connect("native")
    prepare(session, sql, b"native")
    native = run_prepared(session, (), b"native")
    session.run("SET cmk_encrypt.wire_type = text")
    prepare(session, sql, b"text")
    text = run_prepared(session, (), b"text")
    assert native[1] == text[1] and native[0] != text[0]
    for setting in ("text", "native"):
        session.run(f"SET cmk_encrypt.wire_type = {setting}")
        assert run_prepared(session, (), b"native") == native
        assert run_prepared(session, (), b"text") == text
    dba.run(f"CREATE INDEX ON {world.name} (tenant_id)")
    assert run_prepared(session, (), b"native") == native
    assert run_prepared(session, (), b"text") == "0A000"
    session.connection.pgconn.exec_(b"DEALLOCATE text")
    prepare(session, sql, b"text")
    assert run_prepared(session, (), b"text") == native


def test_prepare_in_sql_is_left_alone(world):
    session = world.connect()
    session.run(f"PREPARE q AS SELECT ssn FROM {world.name} WHERE ssn = $1")
    assert session.one("SELECT parameter_types[1]::text FROM pg_prepared_statements WHERE name = 'q'") == "cmk_text"
    types, rows = execute(session, "EXECUTE q ('two')")
    assert types[0] >= FIRST_OF_OURS and rows == [(b"two",)]


# Whatever else a session may have set


def test_search_path_decides_nothing(world, dba):
    evil = unique("evil")
    dba.run(f"CREATE SCHEMA {evil}")
    dba.run(f"GRANT USAGE ON SCHEMA {evil} TO PUBLIC")
    for kind in ("text", "bytea", "jsonb"):
        dba.run(f"CREATE DOMAIN {evil}.cmk_{kind} AS {kind}")
        dba.run(f"CREATE FUNCTION {evil}.show(pg_catalog.cmk_{kind}) RETURNS {kind} LANGUAGE sql"
                f" AS 'SELECT NULL::{kind}'")
    session = world.connect()
    sql = f"SELECT ssn, photo, doc FROM public.{world.name} ORDER BY ssn, id"
    expected = describe(session, sql), session.all(sql)
    session.run(f"SET search_path = {evil}, pg_catalog, cmk")
    assert (describe(session, sql), session.all(sql)) == expected
    session.run("SET search_path = ''")
    assert (describe(session, sql), session.all(sql)) == expected


def test_row_security_holds(world, dba):
    dba.run(f"ALTER TABLE {world.name} ENABLE ROW LEVEL SECURITY")
    dba.run(f"CREATE POLICY p ON {world.name} USING (id <= current_setting('wire.last', true)::int)")
    session = world.connect()
    session.run("SET wire.last = 2")
    for sql in ("SELECT ssn FROM t ORDER BY id", "SELECT DISTINCT ssn FROM t ORDER BY ssn",
                "SELECT ssn FROM t UNION SELECT ssn FROM t ORDER BY 1", "SELECT ssn FROM t ORDER BY id OFFSET 0"):
        assert session.all(of(sql, world.name)) == [("one",), ("two",)]
    session.run("SET wire.last = 0")
    assert session.all(f"UPDATE {world.name} SET code = 'x' RETURNING ssn") == []


@pytest.mark.parametrize("sql, sqlstate", [
    ("SELECT ssn, nosuch FROM t", "42703"),
    ("SELECT ssn FROM t ORDER BY nosuch", "42703"),
    ("SELECT DISTINCT ssn FROM t ORDER BY id", "42P10"),
    ("SELECT ssn FROM t WHERE ssn = 1", "42883"),
    ("SELECT ssn FROM t GROUP BY id + 1", "42803"),
    ("SELECT ssn + $1 FROM t", "42883"),
    ("SELECT ssn FROM t WHERE id = 'x'", "22P02"),
    ("SELECT DISTINCT ssn FROM t FOR UPDATE", "0A000"),
])
def test_errors_are_the_same(world, sql, sqlstate):
    seen = []
    for wire_type in ("text", "native"):
        session = world.connect(wire_type)
        result = session.connection.pgconn.prepare(b"", of(sql, world.name).encode())
        fields = (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY,
                  pq.DiagnosticField.STATEMENT_POSITION)
        seen.append([result.error_field(field) for field in fields])
        assert session.usable()
    assert seen[0] == seen[1] and seen[0][0] == sqlstate.encode()


def test_a_failed_transaction_can_be_ended(world):
    session = world.connect()
    session.run("BEGIN")
    with fails_with("22012"):
        session.run(f"SELECT ssn, 1 / 0 FROM {world.name}")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        session.run(f"DECLARE c CURSOR FOR SELECT ssn FROM {world.name}")
    session.run("ROLLBACK")
    assert session.one(f"SELECT ssn FROM {world.name} WHERE id = 1") == "one"


def test_several_statements_in_one_message(world):
    session = world.connect()
    cursor = session.connection.execute(
        f"SELECT doc FROM {world.name} WHERE id = 1; UPDATE {world.name} SET code = 'c' WHERE id = 1 RETURNING doc;"
        f" SELECT doc FROM {world.name} WHERE id = 1", prepare=False)
    results = [cursor.fetchall()]
    while cursor.nextset():
        results.append(cursor.fetchall())
    assert results == [[(DOC,)]] * 3


def test_a_session_without_the_library_takes_the_setting(session):
    fresh = session()
    fresh.run("SET cmk_encrypt.wire_type = text")
    assert fresh.one("SELECT 1") == 1
