"""Output when statements nest, fail in the middle and are caught, and in other encodings."""

import psycopg
import pytest

from columns import app, armor, dba, envelopes, opened, plain, reader, world  # noqa: F401 (fixtures)
from support import fails_with, unique

SECRET, ARMOR = "s3cret", "cmk1:"


@pytest.fixture(scope="module")
def t(world):
    return world.make("t", [(1, "acme", SECRET, None)])


@pytest.fixture
def sink(world, dba, reader):
    """A table that takes what is stored; the reader's session has loaded the library."""
    name = unique("sink")
    dba.run(f"CREATE TABLE {name} (n int GENERATED ALWAYS AS IDENTITY, v text CHECK (v <> 'refused'))")
    dba.run(f"GRANT ALL ON {name} TO PUBLIC")
    reader.stats()
    return name


def shows(reader):
    """The session reads plaintext as before."""
    seen = {reader.one("SELECT ssn FROM t"), reader.one("SELECT format('%s', ssn) FROM t"),
            reader.one("UPDATE t SET id = id RETURNING ssn")}
    return seen == {SECRET}


def stored(world, sink):
    rows = [v for (v,) in world.connect().all(f"SELECT v FROM {sink} ORDER BY n")]
    assert rows and all(ARMOR in v and SECRET not in v for v in rows), rows
    return len(rows)


# Statements that fail in the middle

FAILING = {
    "an insert": "INSERT INTO {sink} (v) SELECT 'refused' FROM t",
    "a returning": "INSERT INTO {sink} (v) VALUES ('x') RETURNING (1 / 0)",
    "a copy out": "COPY (SELECT 1 / (id - 1) FROM t) TO STDOUT",
    "a copy in": "COPY {sink} (v) FROM STDIN",
    "create table as": "CREATE TABLE {sink}_2 AS SELECT 1 / (id - 1), ssn FROM t",
    "a do block": "DO $$ BEGIN UPDATE t SET id = id; PERFORM 1 / 0; END $$",
    "an after trigger": "INSERT INTO {sink} (v) VALUES ('after')",
    "explain analyze": "EXPLAIN ANALYZE INSERT INTO {sink} (v) VALUES ('refused')",
    "a function": "SELECT {sink}_f('refused')",
    "a cte": "WITH i AS (INSERT INTO {sink} (v) VALUES ('refused') RETURNING v) SELECT * FROM i",
    "a prepared statement": "EXECUTE p('refused')",
    "a select": "SELECT 1 / (id - 1), ssn FROM t",
}


def fails_in(session, sql):
    with pytest.raises(psycopg.Error):
        if sql.startswith("COPY") and "STDIN" in sql:
            session.copy_in(sql, "refused\n")
        elif sql.startswith("COPY"):
            session.copy_out(sql)
        else:
            session.run(sql)


@pytest.fixture
def staged(dba, reader, sink):
    dba.run(f"CREATE FUNCTION {sink}_f(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
            f" INSERT INTO {sink} (v) VALUES (v); RETURN 'done'; END $$")
    dba.run(f"CREATE FUNCTION {sink}_g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 / 0; RETURN"
            " NEW; END $$")
    dba.run(f"CREATE TRIGGER g AFTER INSERT ON {sink} FOR EACH ROW WHEN (NEW.v = 'after')"
            f" EXECUTE FUNCTION {sink}_g()")
    reader.run(f"PREPARE p AS INSERT INTO {sink} (v) VALUES ($1)")
    return sink


@pytest.mark.parametrize("sql", FAILING.values(), ids=FAILING)
def test_after_a_failure_the_session_reads_as_before(world, t, reader, staged, sql):
    for _ in range(3):
        fails_in(reader, sql.format(sink=staged))
        assert shows(reader)
        with reader.connection.transaction(force_rollback=True):
            with pytest.raises(psycopg.Error), reader.connection.transaction():
                fails_in(reader, sql.format(sink=staged))
                reader.run("SELECT 1")  # the transaction is aborted: so this raises
            assert shows(reader)
    reader.run(f"INSERT INTO {staged} (v) SELECT format('%s', ssn) FROM t")
    assert stored(world, staged) == 1
    assert reader.copy_out("COPY (SELECT format('%s', ssn) FROM t) TO STDOUT").startswith(ARMOR.encode())


def test_a_failure_caught_in_a_function_changes_neither_what_it_shows_nor_what_it_stores(world, t, reader, staged):
    reader.run(
        f"CREATE FUNCTION {staged}_c() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN"
        "   FOR n IN 1..3 LOOP"
        f"    BEGIN INSERT INTO {staged} (v) VALUES ('refused'); EXCEPTION WHEN check_violation THEN NULL; END;"
        f"    BEGIN PERFORM {staged}_f('after'); EXCEPTION WHEN division_by_zero THEN NULL; END;"
        "     RETURN QUERY SELECT format('%s', ssn) FROM t;"
        f"    INSERT INTO {staged} (v) SELECT format('%s', ssn) FROM t;"
        "   END LOOP; END $$"
    )
    assert reader.all(f"SELECT {staged}_c()") == [(SECRET,)] * 3
    assert stored(world, staged) == 3 and shows(reader)


def test_a_cancelled_statement_changes_nothing_either(world, t, reader, staged):
    reader.run("SET statement_timeout = '50ms'")
    for sql in (f"INSERT INTO {staged} (v) SELECT pg_sleep(1)::text", "COPY (SELECT pg_sleep(1)) TO STDOUT",
                "CREATE TABLE never AS SELECT pg_sleep(1)::text AS v"):
        with fails_with("57014"):
            reader.copy_out(sql) if sql.startswith("COPY") else reader.run(sql)
        assert shows(reader)


# What runs below a statement

BELOW = {
    "an after trigger": "CREATE TRIGGER x AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {sink}_a()",
    "a deferred trigger": "CREATE CONSTRAINT TRIGGER x AFTER INSERT ON {t} DEFERRABLE INITIALLY DEFERRED"
                          " FOR EACH ROW EXECUTE FUNCTION {sink}_a()",
    "a trigger with a condition": "CREATE TRIGGER x AFTER INSERT ON {t} FOR EACH ROW"
                                  " WHEN (NEW.ssn IS NOT NULL) EXECUTE FUNCTION {sink}_a()",
    "a statement trigger": "CREATE TRIGGER x AFTER INSERT ON {t} REFERENCING NEW TABLE AS rows"
                           " FOR EACH STATEMENT EXECUTE FUNCTION {sink}_s()",
    "a rule": "CREATE RULE x AS ON INSERT TO {t} DO ALSO INSERT INTO {sink} (v)"
              " SELECT format('%s', ssn) FROM {t} WHERE id = NEW.id",
}


@pytest.mark.parametrize("sql", BELOW.values(), ids=BELOW)
def test_what_a_statement_sets_off_stores_ciphertext(world, t, dba, reader, sink, sql):
    table = world.make(unique("u"))
    dba.run(f"CREATE FUNCTION {sink}_a() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" INSERT INTO {sink} (v) VALUES (format('%s', NEW.ssn)), (to_jsonb(NEW)::text), (NEW::text);"
            " RETURN NULL; END $$")
    dba.run(f"CREATE FUNCTION {sink}_s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" INSERT INTO {sink} (v) SELECT format('%s', ssn) FROM rows; RETURN NULL; END $$")
    dba.run(sql.format(t=table, sink=sink))
    dba.run(f"CREATE FUNCTION {sink}_i(n int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
            f" INSERT INTO {table} VALUES (n, 'acme', '{SECRET}', NULL); RETURN 'done'; END $$")
    insert = f"INSERT INTO {table} VALUES (%s, 'acme', '{SECRET}', NULL)"
    reader.run(insert, 1)
    if "rule" not in sql.lower().split()[1]:
        reader.one(f"{insert} RETURNING ssn", 2)
        reader.one(f"WITH i AS ({insert} RETURNING ssn) SELECT ssn FROM i", 3)
    reader.one(f"SELECT {sink}_i(4)")
    with reader.connection.transaction():
        reader.one(f"SELECT {sink}_i(5)")
    reader.copy_in(f"COPY {table} FROM STDIN", f"6\tacme\t{SECRET}\t\\N\n")
    assert stored(world, sink) >= 3 and shows(reader)


def test_a_plaintext_that_a_function_keeps_in_a_variable_is_its_own_to_store(world, t, reader, sink):
    """Documented: what format() gives a function that the client called, it was given for the client."""
    reader.run(f"CREATE FUNCTION {sink}_v() RETURNS text LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN"
               " SELECT format('%s', ssn) INTO s FROM t; RETURN s; END $$")
    assert reader.one(f"SELECT {sink}_v()") == SECRET
    reader.run(f"INSERT INTO {sink} (v) SELECT {sink}_v()")
    reader.run(f"UPDATE {sink} SET v = {sink}_v()")
    assert stored(world, sink) == 1


LOOPS = {
    "over a query": "FOR r IN SELECT format('%s', ssn) AS f, t FROM t LOOP {body} END LOOP",
    "over a cursor": "FOR r IN c LOOP {body} END LOOP",
    "of fetches": "OPEN c; FETCH c INTO r; {body} CLOSE c",
    "over text": "FOR r IN EXECUTE 'SELECT format(''%s'', ssn) AS f, t FROM t' LOOP {body} END LOOP",
}


@pytest.mark.parametrize("call", [False, True], ids=["do", "call"])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_outside_of_a_query_stores_and_says_ciphertext(world, t, reader, sink, loop, call):
    body = f"INSERT INTO {sink} (v) VALUES (r.f), (r.t::text); RAISE NOTICE 'saw % %', r.f, r.t;"
    block = ("DECLARE r record; c CURSOR FOR SELECT format('%s', ssn) AS f, t FROM t; BEGIN"
             f" {loop.format(body=body)}; END")
    heard = []
    reader.connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    if call:
        reader.run(f"CREATE PROCEDURE {sink}_p() LANGUAGE plpgsql AS $$ {block} $$")
        reader.run(f"CALL {sink}_p()")
    else:
        reader.run(f"DO $$ {block} $$")
    assert stored(world, sink) == 2 and shows(reader)
    assert len(heard) == 1 and SECRET not in heard[0]


def test_a_procedure_that_commits_and_gives_something_back(world, t, reader, sink):
    reader.run(f"CREATE PROCEDURE {sink}_p(INOUT v cmk_text) LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
               " FOR n IN 1..2 LOOP FOR r IN SELECT format('%s', ssn) AS f FROM t LOOP"
               f" INSERT INTO {sink} (v) VALUES (r.f); END LOOP; COMMIT; END LOOP; SELECT ssn INTO v FROM t; END $$")
    assert reader.one(f"CALL {sink}_p(NULL)") == SECRET
    assert stored(world, sink) == 2 and shows(reader)


# Encodings


@pytest.mark.parametrize("encoding, name", [("latin1", "LATIN1"), ("utf8", "UTF8"), ("cp1252", "WIN1252")])
def test_other_encodings_of_the_client(world, reader, encoding, name):
    table, value = world.make(unique("u")), "Zoë Müller"
    session = world.connect("app", output="plaintext")
    session.run(f"SET client_encoding = {name}")
    session.run(f"INSERT INTO {table} VALUES (1, 'acme', '{value}', NULL)")
    session.run(f"INSERT INTO {table} VALUES (2, 'acme', %s, NULL)", value)
    session.run(f"INSERT INTO {table} VALUES (3, 'acme', %b, NULL)", value)
    assert set(plain(reader, table).values()) == {value}
    for binary in (False, True):
        result = session.connection.execute(f"SELECT ssn FROM {table} WHERE ssn = '{value}'", binary=binary)
        assert result.pgresult.get_value(0, 0) == value.encode(encoding)
    if encoding == "latin1":
        reader.run(f"UPDATE {table} SET ssn = '東京' WHERE id = 1")
        with fails_with("22P05") as failure:
            session.run(f"SELECT ssn FROM {table}")
        assert "東京" not in str(failure.value)
    armored = world.connect("app")
    armored.run(f"SET client_encoding = {name}")
    assert armored.one(f"SELECT ssn FROM {table} WHERE id = 2") == armor(envelopes(world.dba, table)[2])


def test_the_rotation_of_data_keys_changes_no_stored_value(world, dba, app, reader):
    table = world.make(unique("u"), [(1, "bolt", "old", None)])
    before = envelopes(dba, table)
    dba.run("SELECT cmk.rotate_tenant('bolt')")
    with app.counts(seals=1):
        app.run(f"UPDATE {table} SET note = NULL")
        app.run(f"INSERT INTO {table} VALUES (2, 'bolt', 'new', NULL)")
    after = envelopes(dba, table)
    assert after[1] == before[1] and after[2][2:18] != after[1][2:18]
    assert plain(reader, table) == {1: "old", 2: "new"}
    assert reader.all(f"SELECT id FROM {table} WHERE ssn IN ('old', 'new') ORDER BY ssn") == [(2,), (1,)]
