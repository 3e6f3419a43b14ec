"""Plaintext is printed only with `cmk_encrypt.output = plaintext`, and then only on its way to the client."""

import contextlib

import pytest

from columns import app, dba, envelopes, opened, reader, unarmor, world  # noqa: F401 (fixtures)
from support import fails, fails_with, unique

SECRET = "s3cret"
ARMOR = "cmk1:"


@pytest.fixture(scope="module")
def t(world):
    """One row, and what the cases below call."""
    name = world.make("t", [(1, "acme", SECRET, None)])
    dba = world.dba
    dba.run(f"CREATE FUNCTION rows_of() RETURNS SETOF {name} LANGUAGE sql AS 'SELECT * FROM {name}'")
    dba.run(f"CREATE FUNCTION loop_of() RETURNS SETOF {name} LANGUAGE plpgsql AS"
            f" 'BEGIN RETURN QUERY SELECT * FROM {name}; END'")
    dba.run(f"CREATE PROCEDURE give(INOUT v cmk_text) LANGUAGE plpgsql AS 'BEGIN SELECT ssn INTO v FROM {name}; END'")
    dba.run("CREATE FUNCTION noted(v cmk_text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'saw %',"
            " v; RETURN 1; END $$")
    return name


@pytest.fixture
def sink(dba):
    """A table that takes what a statement stores."""
    name = unique("sink")
    dba.run(f"CREATE TABLE {name} (n int GENERATED ALWAYS AS IDENTITY, v text, j jsonb, c cmk_text)")
    dba.run(f"GRANT ALL ON {name} TO PUBLIC")
    return name


def printed(session, sql):
    """All that a statement's rows hold, as one string."""
    return " ".join(str(value) for row in session.all(sql) for value in row)


# What goes to the client

SHOWN = {
    "select": "SELECT ssn FROM t", "table": "TABLE t", "cte": "WITH c AS MATERIALIZED (SELECT ssn FROM t) TABLE c",
    "set operation": "SELECT ssn FROM t UNION ALL SELECT ssn FROM t", "values": "VALUES ((SELECT ssn FROM t))",
    "update returning": "UPDATE t SET id = id RETURNING ssn",
    "update returning all": "UPDATE t SET ssn = ssn RETURNING *",
    "update returning format": "UPDATE t SET id = id RETURNING id, ssn, tenant_id",
    "cte over dml": "WITH c AS (UPDATE t SET id = id RETURNING ssn) SELECT ssn FROM c",
    "select for update": "SELECT ssn FROM t FOR UPDATE", "rows of a function": "SELECT * FROM rows_of()",
    "rows of plpgsql": "SELECT ssn FROM loop_of()", "procedure": "CALL give(NULL)",
    "row": "SELECT t FROM t", "row as text": "SELECT t::text FROM t", "array": "SELECT array_agg(ssn) FROM t",
    "row_to_json": "SELECT row_to_json(t) FROM t", "to_jsonb": "SELECT to_jsonb(t) FROM t",
    "to_json": "SELECT to_json(ssn) FROM t",
    "json_agg": "SELECT json_agg(t) FROM t", "format": "SELECT format('%s', ssn) FROM t",
    "concat": "SELECT concat(ssn, '') FROM t",
    "cast": "SELECT ssn::text FROM t",
    "tuple": "SELECT ROW(ssn, 1) FROM t",
}


@pytest.mark.parametrize("sql", SHOWN.values(), ids=SHOWN)
def test_the_client_gets_plaintext_if_it_wants_it(world, t, reader, sql):
    assert SECRET in printed(reader, sql) and ARMOR not in printed(reader, sql)


@pytest.mark.parametrize("sql", [s for name, s in SHOWN.items() if name != "cast"],
                         ids=[n for n in SHOWN if n != "cast"])
def test_the_client_gets_ciphertext_otherwise(world, t, app, sql):
    with app.counts():
        seen = printed(app, sql)
    assert ARMOR in seen and SECRET not in seen


@pytest.mark.parametrize("binary", [False, True])
def test_both_formats_of_the_protocol(world, t, app, reader, binary):
    sql = "SELECT ssn FROM t"
    seen = {}
    for client in (app, reader):
        seen[client] = client.connection.execute(sql, binary=binary).pgresult.get_value(0, 0).decode()
    assert seen[reader] == SECRET
    assert unarmor(seen[app]) == envelopes(world.dba, t)[1]


def test_cursors_send_plaintext(world, t, reader):
    with reader.connection.transaction():
        reader.run("DECLARE c CURSOR FOR SELECT ssn FROM t")
        reader.run("DECLARE h CURSOR WITH HOLD FOR SELECT ssn, format('%s', id) FROM t")
        assert reader.one("FETCH c") == SECRET
    assert reader.row("FETCH h") == (SECRET, "1")
    reader.run("PREPARE p AS SELECT ssn FROM t")
    assert [reader.one("EXECUTE p") for _ in range(7)] == [SECRET] * 7
    reader.run("PREPARE u AS UPDATE t SET id = id RETURNING ssn")
    assert reader.one("EXECUTE u") == SECRET


def test_the_first_statement_of_a_session_follows_the_roles_setting(world, server, t):
    server.execute(f"ALTER ROLE {world.roles['app']} IN DATABASE {world.dbname} SET cmk_encrypt.output = plaintext")
    try:
        for sql in SHOWN.values():
            assert SECRET in printed(world.connect("app"), sql), sql
        for sql in ("COPY t (ssn) TO STDOUT", "COPY (SELECT format('%s', ssn) FROM t) TO STDOUT"):
            assert world.connect("app").copy_out(sql).startswith(ARMOR.encode())
    finally:
        server.execute(f"ALTER ROLE {world.roles['app']} IN DATABASE {world.dbname} RESET ALL")


def test_values_of_the_setting(app):
    app.stats()  # loads the library
    for wrong in ("nonsense", "", "on"):
        with fails_with("22023"):
            app.run(f"SET cmk_encrypt.output = '{wrong}'")
    assert app.one("SHOW cmk_encrypt.output") == "ciphertext"


# What is stored or exported

STORED = {
    "insert": "INSERT INTO {sink} (v, j) SELECT format('%s', ssn), to_jsonb(t) FROM t",
    "insert of values": "INSERT INTO {sink} (v) VALUES ((SELECT concat(ssn, '') FROM t))",
    "insert of the value": "INSERT INTO {sink} (c) SELECT ssn FROM t",
    "update": "INSERT INTO {sink} (v) VALUES ('x'); UPDATE {sink} SET v = (SELECT concat(ssn, '') FROM t), j ="
              " (SELECT to_jsonb(t) FROM t)",
    "delete and cte": "WITH c AS (SELECT concat(ssn, '') AS s FROM t), i AS (INSERT INTO {sink} (v) SELECT s"
                      " FROM c RETURNING 1) SELECT count(*) FROM i",
    "plpgsql": "DO $$ DECLARE s text; BEGIN SELECT format('%s', ssn) INTO s FROM t; INSERT INTO {sink} (v)"
               " VALUES (s); END $$",
    "rows as text": "INSERT INTO {sink} (v) SELECT t::text FROM t",
    "aggregates": "INSERT INTO {sink} (v, j) SELECT array_agg(ssn)::text, jsonb_agg(t) FROM t",
    "create table as": "DROP TABLE {sink}; CREATE TABLE {sink} AS SELECT format('%s', ssn) AS v, ssn AS c,"
                       " to_jsonb(t) AS j FROM t",
    "select into": "DROP TABLE {sink}; SELECT concat(ssn, '') AS v, ssn AS c, to_jsonb(t) AS j INTO {sink} FROM t",
    "prepared create table as": "PREPARE q AS SELECT format('%s', ssn) AS v, ssn AS c, NULL::jsonb AS j FROM"
                                " t; DROP TABLE {sink};"
                                " CREATE TABLE {sink} AS EXECUTE q",
    "explain analyze": "EXPLAIN ANALYZE INSERT INTO {sink} (v) SELECT format('%s', ssn) FROM t",
}


@pytest.mark.parametrize("sql", STORED.values(), ids=STORED)
def test_what_a_statement_stores_is_ciphertext(world, t, sink, dba, sql):
    dba.run("SET cmk_encrypt.output = plaintext")
    with dba.counts():
        for part in [sql.format(sink=sink)] if "$$" in sql else sql.format(sink=sink).split("; "):
            dba.run(part)
    seen = printed(world.connect(), f"SELECT v, j, c FROM {sink}")
    assert ARMOR in seen and SECRET not in seen


def test_merge_stores_ciphertext(world, t, sink, reader):
    if reader.connection.info.server_version < 150000:
        pytest.skip("MERGE came with 15")
    reader.run(f"MERGE INTO {sink} USING t ON false WHEN NOT MATCHED THEN INSERT (v) VALUES (format('%s', t.ssn))")
    assert reader.one(f"SELECT v FROM {sink}").startswith(ARMOR)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "first statement"])
def test_a_function_called_by_select_that_stores_what_it_formats(world, t, sink, loaded):
    reader = world.reader()
    reader.run(f"CREATE FUNCTION {sink}_f() RETURNS text LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN"
               f" INSERT INTO {sink} (v) SELECT format('%s', ssn) FROM t; RETURN 'done'; END $$")
    if loaded:
        reader.stats()
    assert reader.one(f"SELECT {sink}_f()") == "done"
    assert reader.one(f"SELECT v FROM {sink}").startswith(ARMOR)


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
def test_an_audit_trigger_stores_ciphertext(world, sink, dba, reader, when):
    table = world.make(unique("audited"))
    dba.run(f"CREATE FUNCTION {table}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" INSERT INTO {sink} (v, j) VALUES (NEW::text, to_jsonb(NEW)); RETURN NEW; END $$")
    dba.run(f'CREATE TRIGGER "~z_audit" {when} INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_f()')
    reader.run(f"INSERT INTO {table} VALUES (1, 'acme', '{SECRET}', NULL)")
    reader.one(f"WITH c AS (UPDATE {table} SET id = 2 RETURNING ssn) SELECT ssn FROM c")
    reader.one(f"UPDATE {table} SET id = 3 RETURNING ssn")
    seen = printed(world.connect(), f"SELECT v, j FROM {sink}")
    assert seen.count(ARMOR) == 6 and SECRET not in seen


@pytest.mark.parametrize("sql", [
    "COPY t TO STDOUT", "COPY t (ssn) TO STDOUT (FORMAT csv)", "COPY (SELECT ssn FROM t) TO STDOUT",
    "COPY (SELECT format('%s', ssn), to_jsonb(t), t::text FROM t) TO STDOUT",
    "COPY (UPDATE t SET id = id RETURNING ssn) TO STDOUT",
    "COPY t TO STDOUT (FORMAT binary)", "COPY (SELECT * FROM rows_of()) TO STDOUT",
])
def test_copy_exports_ciphertext(world, t, reader, sql):
    with reader.counts():
        seen = reader.copy_out(sql).decode(errors="replace")
    assert ARMOR in seen and SECRET not in seen


def test_a_cast_opens_where_it_is_asked_to_or_implied(world, t, sink, reader):
    reader.run(f"INSERT INTO {sink} (v) SELECT ssn::text FROM t")
    assert reader.one(f"SELECT v FROM {sink}") == SECRET
    reader.run(f"UPDATE {sink} SET v = quote_literal(ssn) FROM t")
    assert reader.one(f"SELECT v FROM {sink}") == f"'{SECRET}'"
    assert reader.copy_out("COPY (SELECT ssn::text FROM t) TO STDOUT") == f"{SECRET}\n".encode()


def test_a_materialized_view_holds_ciphertext_or_fails(world, t, dba):
    name = unique("mat")
    dba.run("SET cmk_encrypt.output = plaintext")
    dba.run(f"CREATE MATERIALIZED VIEW {name} AS SELECT format('%s', ssn) AS v, ssn FROM t")
    dba.run(f"REFRESH MATERIALIZED VIEW {name}")
    assert dba.one(f"SELECT v FROM {name}").startswith(ARMOR)
    assert dba.one(f"SELECT ssn FROM {name}") == SECRET
    for query in ("SELECT ssn::text FROM t", "SELECT lower(ssn) FROM t",
                  "SELECT ssn FROM t UNION ALL SELECT 'x'::cmk_text ORDER BY 1"):
        dba.run(f"CREATE MATERIALIZED VIEW {name}_2 AS {query} WITH NO DATA")
        with fails("42501", "security_restricted_operation"):
            dba.run(f"REFRESH MATERIALIZED VIEW {name}_2")
        dba.run(f"DROP MATERIALIZED VIEW {name}_2")


# Messages


@contextlib.contextmanager
def notices(session):
    heard = []
    listen = lambda diag: heard.append(f"{diag.message_primary} {diag.message_detail} {diag.context}")  # noqa: E731
    session.connection.add_notice_handler(listen)
    yield heard
    session.connection.remove_notice_handler(listen)


def test_notices(world, t, reader):
    with notices(reader) as heard:
        reader.run("DO $$ DECLARE v cmk_text; BEGIN SELECT ssn INTO v FROM t; RAISE NOTICE 'saw %', v; END $$")
        assert len(heard) == 1 and ARMOR in heard[0] and SECRET not in heard[0]
        reader.run("SELECT noted(ssn) FROM t")  # runs as part of what the client reads
        assert len(heard) == 2 and SECRET in heard[1]


FAILURES = {
    "check": ("CHECK (extra < 5)", "(2, 'acme', '{s}', NULL, 9)", "23514"),
    "not null": ("NOT NULL", "(2, 'acme', '{s}', NULL, NULL)", "23502"),
    "unique": ("UNIQUE", "(2, 'acme', '{s}', NULL, 1)", "23505"),
    "primary key": ("", "(1, 'acme', '{s}', NULL, 2)", "23505"),
    "foreign key": ("REFERENCES {t}_ids", "(2, 'acme', '{s}', NULL, 99)", "23503"),
}


@pytest.mark.parametrize("constraint, values, sqlstate", FAILURES.values(), ids=FAILURES)
def test_failed_constraints_print_ciphertext(world, dba, reader, constraint, values, sqlstate):
    table = world.make(unique("failing"))
    dba.run(f"ALTER TABLE {table} ADD extra int")
    dba.run(f"INSERT INTO {table} VALUES (1, 'acme', '{SECRET}', NULL, 1)")
    if "REFERENCES" in constraint:
        dba.run(f"CREATE TABLE {table}_ids AS SELECT 1 AS id")
        dba.run(f"ALTER TABLE {table}_ids ADD PRIMARY KEY (id)")
        dba.run(f"ALTER TABLE {table} ADD FOREIGN KEY (extra) {constraint.format(t=table)}")
    elif constraint == "NOT NULL":
        dba.run(f"ALTER TABLE {table} ALTER extra SET NOT NULL")
    elif constraint:
        dba.run(f"ALTER TABLE {table} ADD {constraint if 'CHECK' in constraint else constraint + ' (extra)'}")
    insert = f"INSERT INTO {table} VALUES {values.format(s=SECRET)}"
    reader.run(f"CREATE FUNCTION {table}_f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN {insert}; RETURN 1; END $f$")
    for sql in (insert, f"{insert} RETURNING ssn", f"WITH i AS ({insert} RETURNING ssn) SELECT * FROM i",
                f"SELECT {table}_f()"):
        with fails_with(sqlstate) as failure:
            reader.run(sql)
        diag = failure.value.diag
        assert SECRET not in f"{diag.message_primary} {diag.message_detail}"
