"""cmk_encrypt.wire_type: what clients are told of protected columns, and that nothing else changes."""

import json
from collections import namedtuple

import psycopg
import pytest
from psycopg import pq

from support import fails, fails_with, unique

TYPES = {"ssn": "text", "code": "varchar(20)", "photo": "bytea", "doc": "jsonb"}
PHOTO = b"\x00\xff\xc1 photo"
DOC = {"a": [1, "two"]}
ROWS = [
    (1, "one", "c1", PHOTO, DOC),
    (2, "two", None, None, None),
    (3, "one", "c3", b"", "text"),
    (4, None, "c4", PHOTO, None),
    (5, "Zoë", "c5", b"x", 7),
]
FIRST_OF_OURS = 16384

# t stands for the table. Each holds for a protected table as for its twin of ordinary types.
SELECTS = [
    "SELECT * FROM t ORDER BY id",
    "SELECT ssn, code, photo, doc FROM t WHERE id = 1",
    "TABLE t",
    "SELECT ssn AS a, ssn AS b FROM t ORDER BY a, id",
    "SELECT ssn FROM t ORDER BY ssn DESC NULLS LAST, id",
    "SELECT ssn FROM t ORDER BY id LIMIT 2",
    "SELECT ssn, photo FROM t ORDER BY ssn, id OFFSET 1 LIMIT 2",
    "SELECT ssn FROM t ORDER BY ssn FETCH FIRST 1 ROW WITH TIES",
    "SELECT DISTINCT ssn FROM t ORDER BY ssn",
    "SELECT DISTINCT ssn, tenant_id FROM t ORDER BY ssn OFFSET 1",
    "SELECT DISTINCT ON (ssn) ssn, id FROM t ORDER BY ssn, id",
    "SELECT ssn, count(*) FROM t GROUP BY ssn ORDER BY ssn",
    "SELECT ssn, count(*) FROM t GROUP BY ROLLUP (ssn) ORDER BY ssn, count(*)",
    "SELECT ssn FROM t GROUP BY ssn HAVING count(*) > 1",
    "SELECT ssn, row_number() OVER (PARTITION BY ssn ORDER BY id) FROM t ORDER BY ssn, 2",
    "SELECT ssn FROM t WHERE id < 3 UNION SELECT ssn FROM t WHERE id > 2 ORDER BY 1",
    "SELECT ssn FROM t UNION ALL SELECT ssn FROM t ORDER BY ssn LIMIT 3",
    "SELECT ssn, code FROM t INTERSECT SELECT ssn, code FROM t ORDER BY code",
    "SELECT ssn FROM t EXCEPT SELECT ssn FROM t WHERE id = 1",
    "WITH q AS (SELECT ssn, photo FROM t WHERE id < 3) SELECT * FROM q ORDER BY ssn",
    "WITH RECURSIVE q AS (SELECT ssn, 1 AS n FROM t WHERE id = 1 UNION ALL SELECT ssn, n + 1 FROM q WHERE n < 3)"
    " SELECT * FROM q ORDER BY n",
    "SELECT * FROM (SELECT id, ssn FROM t ORDER BY ssn LIMIT 2) q ORDER BY id",
    "SELECT (SELECT ssn FROM t WHERE id = 1), EXISTS (SELECT FROM t WHERE ssn = 'one')",
    "SELECT a.ssn, b.doc FROM t a JOIN t b ON a.ssn = b.ssn AND a.id < b.id",
    "SELECT a.id, b.ssn FROM t a LEFT JOIN t b ON b.id = a.id + 4 ORDER BY a.id",
    "SELECT ssn FROM t WHERE ssn = 'one' ORDER BY id FOR UPDATE",
    "SELECT ssn FROM t ORDER BY id OFFSET 1 LIMIT 1 FOR UPDATE SKIP LOCKED",
    "SELECT coalesce(ssn, 'none'), upper(ssn), ssn || '!' FROM t ORDER BY id",
    "SELECT CASE WHEN id = 1 THEN ssn END, nullif(ssn, 'two') FROM t ORDER BY id",
    "SELECT array_agg(ssn ORDER BY id), ARRAY[min(code)] FROM t",
    "SELECT ARRAY[code, code], ARRAY[NULL, ssn] FROM t ORDER BY id",
    "SELECT array_agg(photo ORDER BY id), array_agg(doc ORDER BY id) FROM t",
    "SELECT ARRAY[[ssn, ssn], [ssn, ssn]], ARRAY[ssn]::varchar[] FROM t WHERE id = 1",
    "SELECT unnest(array_agg(ssn ORDER BY id)) FROM t",
    "SELECT min(ssn), string_agg(ssn, ',' ORDER BY id), count(DISTINCT ssn) FROM t",
    "SELECT doc -> 'a', doc ->> 'a', photo || 'x'::bytea FROM t WHERE id = 1",
    "VALUES ((SELECT ssn FROM t WHERE id = 1), 1)",
    "SELECT * FROM t_view ORDER BY id",
    "SELECT * FROM t_rows() ORDER BY id",
    "SELECT t_ssn(1) AS a, t_ssn(2) AS b FROM t WHERE id = 1",
    "SELECT max(id) FROM t",
]
# These also take parameters.
PARAMETERS = [
    ("SELECT id FROM t WHERE ssn = $1", ["one"]),
    ("SELECT ssn FROM t WHERE ssn = $1 AND ssn = $1 AND id > $2 ORDER BY id", ["one", "0"]),
    ("SELECT ssn FROM t WHERE ssn IN ($1, $2) ORDER BY id", ["one", "two"]),
    ("SELECT ssn FROM t WHERE ssn = ANY ($1) ORDER BY id", ["{one,two}"]),
    ("SELECT ssn FROM t WHERE lower(ssn) LIKE $1 ORDER BY id", ["o%"]),
    ("SELECT ssn FROM t ORDER BY id OFFSET $1", ["3"]),
    ("SELECT $1, ssn FROM t WHERE id = 1", ["x"]),
]
WRITES = [
    ("INSERT INTO t (id, tenant_id, ssn, photo, doc) VALUES (10, '{tenant}', $1, $2, $3)",
     ["new", "\\x00c1", '{"b": 1}']),
    ("INSERT INTO t (id, tenant_id, ssn) VALUES (11, '{tenant}', $1), (12, '{tenant}', $2) RETURNING ssn, id",
     ["eleven", "twelve"]),
    ("INSERT INTO t (id, tenant_id, ssn) VALUES (1, '{tenant}', $1)"
     " ON CONFLICT (id) DO UPDATE SET ssn = EXCLUDED.ssn RETURNING *", ["upserted"]),
    ("INSERT INTO t (id, tenant_id, ssn) SELECT id + 20, tenant_id, ssn FROM t WHERE ssn = $1 RETURNING ssn", ["one"]),
    ("UPDATE t SET ssn = $1, photo = $2, doc = $3 WHERE id = $4 RETURNING ssn, photo, doc",
     ["changed", "\\x01", "[1]", "1"]),
    ("UPDATE t SET ssn = $1 FROM t AS o WHERE o.id = t.id AND o.ssn = $2 RETURNING t.ssn, o.ssn",
     ["changed", "one"]),
    ("DELETE FROM t WHERE ssn = $1 RETURNING ssn", ["two"]),
    ("WITH w AS (INSERT INTO t (id, tenant_id, ssn) VALUES (30, '{tenant}', $1) RETURNING ssn) SELECT ssn FROM w",
     ["thirty"]),
]

World = namedtuple("World", "name twin tenant app session connect")


def protect(dba, name):
    """What cmk.protect_column() does to a table."""
    for column, kind in TYPES.items():
        base, _, rest = kind.partition("(")
        ours = "cmk_" + base.replace("varchar", "text") + (f"({rest}" if rest else "")
        using = f" USING {column}::{ours}" if base in ("bytea", "jsonb") else ""
        dba.run(f"ALTER TABLE {name} ALTER {column} TYPE {ours}{using}")
    when = " AND ".join(f"cmk.seals('{name}.{column}', new.tenant_id)" for column in TYPES)
    dba.run(
        f'CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW WHEN ({when} OR true)'
        " EXECUTE FUNCTION cmk.seal()"
    )
    dba.run(f'ALTER TABLE {name} ENABLE ALWAYS TRIGGER "~cmk_seal"')
    for column in TYPES:
        dba.run(
            f"ALTER TABLE {name} ADD CONSTRAINT cmk_sealed_{column}"
            f" CHECK (cmk.sealed({column}, '{name}.{column}', tenant_id::text, NULL)) NOT VALID"
        )
    dba.run(f"UPDATE {name} SET id = id")
    for column in TYPES:
        dba.run(f"ALTER TABLE {name} VALIDATE CONSTRAINT cmk_sealed_{column}")


def make_table(dba, name, tenant, role):
    columns = ", ".join(f"{column} {kind}" for column, kind in TYPES.items())
    dba.run(f"CREATE TABLE {name} (id int PRIMARY KEY, tenant_id text, {columns})")
    for number, ssn, code, photo, doc in ROWS:
        doc = None if doc is None else json.dumps(doc)
        dba.run(f"INSERT INTO {name} VALUES (%s, %s, %s, %s, %s, %s)", number, str(tenant), ssn, code, photo, doc)
    dba.run(f"GRANT ALL ON {name} TO {role}")


def make_readers(dba, name):
    """A view and functions over a table."""
    kind = dba.one(f"SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = '{name}'::regclass"
                   " AND attname = 'ssn'")
    dba.run(f"CREATE VIEW {name}_view AS SELECT * FROM {name}")
    dba.run(f"GRANT ALL ON {name}_view TO PUBLIC")
    dba.run(f"CREATE FUNCTION {name}_rows() RETURNS SETOF {name} LANGUAGE sql STABLE AS 'SELECT * FROM {name}'")
    dba.run(f"CREATE FUNCTION {name}_ssn(int) RETURNS {kind} LANGUAGE plpgsql STABLE AS"
            f" 'BEGIN RETURN (SELECT ssn FROM {name} WHERE id = $1); END'")


@pytest.fixture
def world(dba, app, session, local_tenant):
    tenant = local_tenant(to=(app, dba))
    name = unique("wire")
    for table in (name, f"{name}_twin"):
        make_table(dba, table, tenant, app.role)
    protect(dba, name)
    for table in (name, f"{name}_twin"):
        make_readers(dba, table)

    def connect(wire_type="text", output="plaintext", role=app.role):
        opened = session(role)
        opened.run("SELECT cmk.column_stats()")  # loads the library
        opened.run(f"SET cmk_encrypt.wire_type = {wire_type}")
        opened.run(f"SET cmk_encrypt.output = {output}")
        return opened

    return World(name, f"{name}_twin", tenant, app, session, connect)


def of(sql, name, tenant=""):
    """The statement, of that table."""
    words = sql.replace("{tenant}", str(tenant)).split(" ")
    named = (name + word[1:] if word.startswith(("t_", "t.")) or word.rstrip(",)") == "t" else word for word in words)
    return " ".join(named)


def describe(session, sql):
    """What a client is told before it executes anything: columns and parameters."""
    pgconn = session.connection.pgconn
    for result in (pgconn.prepare(b"", sql.encode()), pgconn.describe_prepared(b"")):
        assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message.decode()
    columns = [(result.fname(at), result.ftype(at), result.fmod(at)) for at in range(result.nfields)]
    return columns, [result.param_type(at) for at in range(result.nparams)]


def execute(session, sql, parameters=(), binary=False):
    """Its columns' types, and its rows as they are sent."""
    parameters = [parameter.encode() for parameter in parameters]
    result = session.connection.pgconn.exec_params(sql.encode(), parameters, result_format=int(binary))
    assert result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK), result.error_message.decode()
    rows = [tuple(result.get_value(row, at) for at in range(result.nfields)) for row in range(result.ntuples)]
    return [result.ftype(at) for at in range(result.nfields)], rows


def same(rows, others, ordered):
    return rows == others if ordered else sorted(map(repr, rows)) == sorted(map(repr, others))


def oids(description):
    columns, parameters = description
    return [oid for _, oid, _ in columns] + parameters


STATEMENTS = [(sql, []) for sql in SELECTS] + PARAMETERS + WRITES


@pytest.mark.parametrize("sql, parameters", STATEMENTS)
def test_a_statement_is_described_and_answered_as_without_protection(world, sql, parameters):
    """As of a table without protection; and without the hook the rows are the same."""
    wire, native, plain = (world.connect(kind) for kind in ("text", "native", "native"))
    ours, twins = of(sql, world.name, world.tenant), of(sql, world.twin, world.tenant)
    expected = describe(plain, twins)
    assert describe(wire, ours) == expected
    seen = {}
    for session, statement in ((wire, ours), (native, ours), (plain, twins)):
        for binary in (False, True):
            session.run("BEGIN")
            seen[session, binary] = execute(session, statement, parameters, binary)
            session.run("ROLLBACK")
    ordered = "ORDER BY" in sql
    for binary in (False, True):
        assert seen[wire, binary][0] == seen[plain, binary][0]
        assert same(seen[wire, binary][1], seen[plain, binary][1], ordered)
    assert same(seen[native, False][1], seen[plain, False][1], ordered)


def test_without_the_hook_clients_are_told_our_types(world):
    """Else the test above would say nothing."""
    native = world.connect("native")
    told = {oid for sql, _ in STATEMENTS for oid in oids(describe(native, of(sql, world.name, world.tenant)))}
    ours = {oid for (oid,) in world.connect().all(
        "SELECT unnest(ARRAY['cmk_text', 'cmk_bytea', 'cmk_jsonb', 'cmk_text[]', 'cmk_bytea[]', 'cmk_jsonb[]']"
        "::regtype[])::oid")}
    assert ours <= told and min(ours) >= FIRST_OF_OURS


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


# What isn't on its way to a client


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
            f" BEGIN {KIND.format(name=world.name)}; INSERT INTO {log} SELECT kind, cmk.show(new.ssn); RETURN NULL; END'")
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


# Whatever else a session may have set


def test_search_path_decides_nothing(world, dba):
    evil = unique("evil")
    dba.run(f"CREATE SCHEMA {evil}")
    dba.run(f"GRANT USAGE ON SCHEMA {evil} TO PUBLIC")
    for kind in ("text", "bytea", "jsonb"):
        dba.run(f"CREATE DOMAIN {evil}.cmk_{kind} AS {kind}")
        dba.run(f"CREATE FUNCTION {evil}.show(pg_catalog.cmk_{kind}) RETURNS {kind} LANGUAGE sql AS 'SELECT NULL::{kind}'")
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
