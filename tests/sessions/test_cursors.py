"""Whose grant counts where a cursor is run by another role than the one that declared it."""

import ctypes
from pathlib import Path

import pytest

from cursors import FETCHES, LEAK, TEXT, says_nothing
from cursors import scene  # noqa: F401 (fixture)
from support import CANARY, fails, unique

# Opens a value in an expression, for which plpgsql starts no query.
OPEN_ONE = ("CREATE FUNCTION pg_temp.open_one(t text, s bytea) RETURNS text LANGUAGE plpgsql AS"
            " $$ DECLARE v text; BEGIN v := cmk_decrypt_text(t, s); RETURN v; END $$")


# A nobody's cursor, and what a granted role's function does with it

DECLARES = {
    "declared": ["DECLARE stolen CURSOR FOR {reads}"],
    "opened by a function": [
        "CREATE FUNCTION pg_temp.opens() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE"
        " c refcursor := 'stolen'; BEGIN OPEN c FOR {reads}; RETURN c; END $$",
        "SELECT pg_temp.opens()"],
    "declared to say it aloud": [
        LEAK, "DECLARE stolen CURSOR FOR SELECT pg_temp.leak({opens}) {source}"],
}


@pytest.mark.parametrize("declares", DECLARES.values(), ids=list(DECLARES))
@pytest.mark.parametrize("fetches", FETCHES.values(), ids=list(FETCHES))
def test_a_nobodys_cursor_gives_nothing_to_a_function_of_a_granted_role(scene, declares, fetches):
    function, nobody = scene.function(fetches, "c refcursor"), scene.connect(scene.nobody)
    nobody.run("BEGIN")
    for statement in declares:
        nobody.run(scene.sql(statement))
    with fails("42501", "no_grant", scene.tenant), says_nothing(nobody):
        nobody.one(f"SELECT {function}('stolen')")
    assert nobody.usable()


def test_nor_when_the_library_is_loaded_or_the_function_reads_first(scene):
    body = "DECLARE v text; BEGIN v := ({scene.reads} LIMIT 1); FETCH c INTO v; RETURN v; END"
    nobody = scene.connect(scene.nobody)
    for function in [scene.function(body, "c refcursor") for body in (body, FETCHES["fetch into"])]:
        nobody.run("BEGIN")
        nobody.run(f"DECLARE stolen CURSOR FOR {scene.reads}")
        with fails("42501", "no_grant", scene.tenant), says_nothing(nobody):
            nobody.one(f"SELECT {function}('stolen')")
        nobody.connection.rollback()


def test_a_nobodys_cursor_with_hold_fails_at_commit(scene):
    nobody = scene.connect(scene.nobody)
    with fails("42501", "no_grant", scene.tenant):
        nobody.run(f"DECLARE stolen CURSOR WITH HOLD FOR {scene.reads}")


# A granted role's cursor


@pytest.fixture
def opened(scene):
    """The owner's session in a transaction, with a cursor that has given its first row."""
    owner = scene.connect(scene.owner)
    owner.run("BEGIN")
    owner.run(f"DECLARE mine CURSOR FOR {scene.reads}")
    assert owner.one("FETCH mine") == TEXT
    return owner


def test_a_cursor_of_a_granted_role_gives_nothing_to_the_role_that_it_becomes(scene, opened):
    opened.run(f"SET LOCAL ROLE {scene.nobody}")
    with fails("42501", "no_grant", scene.tenant), says_nothing(opened):
        opened.one("FETCH mine")


def test_a_cursor_that_a_granted_function_opened_gives_nothing_to_who_called_it(scene):
    body = "DECLARE c refcursor := 'given'; BEGIN OPEN c FOR {scene.reads}; RETURN c; END"
    function, nobody = scene.function(body, returns="refcursor"), scene.connect(scene.nobody)
    fetches = scene.function(FETCHES["fetch into"], "c refcursor")
    nobody.run("BEGIN")
    assert nobody.one(f"SELECT {fetches}({function}())") == TEXT, "another one does"
    with fails("42501", "no_grant", scene.tenant), says_nothing(nobody):
        nobody.one("FETCH given")


@pytest.mark.parametrize("brake, sqlstate, reason", [
    ("revoke_access('{scene.tenant}', '{scene.owner}')", "42501", "no_grant"),
    ("suspend_tenant('{scene.tenant}')", "55000", "tenant_suspended"),
])
def test_a_cursor_is_refused_from_the_brake_on(scene, opened, brake, sqlstate, reason):
    scene.dba_runs(f"SELECT cmk.{brake.format(scene=scene)}")
    with fails(sqlstate, reason, scene.tenant):
        opened.one("FETCH mine")


def test_a_cursor_with_hold_keeps_what_it_materialised_at_commit_whatever_is_revoked(scene, opened):
    opened.run(f"DECLARE held CURSOR WITH HOLD FOR {scene.reads}")
    opened.run("COMMIT")
    scene.dba_runs(f"SELECT cmk.revoke_access('{scene.tenant}', '{scene.owner}')")
    assert opened.all("FETCH ALL held") == [(TEXT,)] * 5


# What a granted role may do itself, and a nobody may not

KEEP = "CREATE TEMP TABLE t (v text)"
WAYS = {
    "select": ["{reads}"],
    "CTE": ["WITH w AS MATERIALIZED ({reads}) SELECT * FROM w"],
    "view": ["CREATE TEMP VIEW plain AS {reads}", "TABLE plain"],
    "SQL function": [
        "CREATE FUNCTION pg_temp.f() RETURNS SETOF text STABLE LANGUAGE sql AS $$ {reads} $$",
        "SELECT * FROM pg_temp.f()"],
    "prepared statement": ["PREPARE p AS {reads}", "EXECUTE p"],
    "cursor": ["BEGIN", "DECLARE c CURSOR FOR {reads}", "FETCH ALL c"],
    "loop": [KEEP, "DO $$ DECLARE v text; BEGIN FOR v IN {reads} LOOP INSERT INTO t VALUES (v);"
             " END LOOP; END $$", "TABLE t"],
    "loop over a cursor": [
        KEEP, "DO $$ DECLARE c CURSOR FOR {reads}; BEGIN FOR r IN c LOOP"
        " INSERT INTO t VALUES (r.cmk_decrypt_text); END LOOP; END $$", "TABLE t"],
    "expression": [OPEN_ONE, "SELECT pg_temp.open_one(tenant, sealed) {source}"],
    "DO block": [KEEP, "DO $$ BEGIN INSERT INTO t {reads}; END $$", "TABLE t"],
    "procedure": [
        KEEP, "CREATE PROCEDURE pg_temp.p(v text) LANGUAGE sql AS $$ INSERT INTO t VALUES (v) $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT tenant, sealed {source} LOOP"
        " CALL pg_temp.p(cmk_decrypt_text(r.tenant, r.sealed)); END LOOP; END $$", "TABLE t"],
    "deferred trigger": [
        KEEP, "CREATE TEMP TABLE s (tenant text, sealed bytea)",
        "CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE v text;"
        " BEGIN v := cmk_decrypt_text(NEW.tenant, NEW.sealed); INSERT INTO t VALUES (v);"
        " RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON s DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION pg_temp.f()", "BEGIN",
        "INSERT INTO s SELECT tenant, sealed {source}", "COMMIT", "TABLE t"],
    "parallel plan": [
        "SELECT set_config(name, 'on', false) FROM pg_settings"
        " WHERE name IN ('force_parallel_mode', 'debug_parallel_query')", "{reads}"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_a_granted_role_reads_in_every_way_and_a_nobody_in_none(scene, way):
    *before, last = map(scene.sql, way)
    owner, nobody = scene.connect(scene.owner), scene.connect(scene.nobody)
    for statement in before:
        owner.run(statement)
    assert set(owner.all(last)) == {(TEXT,)}
    with fails("42501", "no_grant", scene.tenant), says_nothing(nobody):
        for statement in before:
            nobody.run(statement)
        nobody.all(last)


# What a nobody may have a granted role's function do

BODIES = {
    "expression": "DECLARE v text; s bytea; BEGIN SELECT sealed INTO s {scene.source};"
                  " v := cmk_decrypt_text('{scene.tenant}', s); RETURN v; END",
    "returned expression": "DECLARE s bytea := (SELECT sealed {scene.source} LIMIT 1); BEGIN"
                           " RETURN cmk_decrypt_text('{scene.tenant}', s); END",
    "execute": "DECLARE v text; BEGIN EXECUTE $q${scene.reads}$q$ INTO v; RETURN v; END",
    "loop": "DECLARE v text; BEGIN FOR v IN {scene.reads} LOOP RETURN v; END LOOP; END",
    "cursor": "DECLARE v text; k CURSOR FOR {scene.reads}; BEGIN OPEN k; FETCH k INTO v; CLOSE k;"
              " RETURN v; END",
    "caught": "DECLARE v text; BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN"
              " {scene.reads} INTO v; END; RETURN v; END",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_a_nobody_reads_through_a_granted_roles_function(scene, body):
    function, nobody = scene.function(body), scene.connect(scene.nobody)
    assert nobody.one(f"SELECT {function}()") == TEXT
    nobody.run("BEGIN")
    nobody.run(f"DECLARE c CURSOR FOR SELECT {function}() FROM generate_series(1, 3)")
    assert nobody.all("FETCH ALL c") == [(TEXT,)] * 3, "also from a cursor of its own"


def test_and_through_one_in_sql_and_one_that_calls_another(scene):
    inner = scene.function("{scene.reads} LIMIT 1", language="sql")
    outer = scene.function(f"BEGIN RETURN {inner}(); END")
    assert scene.connect(scene.nobody).one(f"SELECT {outer}() || {inner}()") == TEXT + TEXT


@pytest.mark.parametrize("late", [False, True], ids=["at once", "deferred"])
def test_a_trigger_function_of_a_granted_role_reads_whoever_wrote_the_row(scene, late):
    table, results = unique("rows"), unique("results")
    for name, columns in ((table, "tenant text, sealed bytea"), (results, "v text")):
        scene.dba_runs(f"CREATE TABLE {name} ({columns})")
        scene.dba_runs(f"GRANT INSERT ON {name} TO {scene.nobody}, {scene.owner}")
    function = scene.function(
        "DECLARE v text; BEGIN v := cmk_decrypt_text(NEW.tenant, NEW.sealed);"
        f" INSERT INTO {results} VALUES (v), (cmk_decrypt_text(NEW.tenant, NEW.sealed));"
        " RETURN NULL; END", returns="trigger")
    kind = ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED") if late else ("", "")
    scene.dba_runs(f"CREATE {kind[0]} TRIGGER reads AFTER INSERT ON {table} {kind[1]}"
                   f" FOR EACH ROW EXECUTE FUNCTION {function}()")
    scene.connect(scene.nobody).run(f"INSERT INTO {table} SELECT tenant, sealed {scene.source}")
    assert scene.drill.dba.all(f"TABLE {results}") == [(TEXT,)] * 10


# The fast path: a function call without a query


class Argument(ctypes.Structure):
    _fields_ = [("len", ctypes.c_int), ("isint", ctypes.c_int), ("ptr", ctypes.c_char_p)]


def fast_path(session, signature, *values):
    """Calls a function by libpq's PQfn; its result, or SQLSTATE and DETAIL of its error."""
    oid = session.one("SELECT %s::regprocedure::oid", signature)
    maps = Path("/proc/self/maps").read_text().splitlines()
    libpq = ctypes.CDLL(next(line.split()[-1] for line in maps if "libpq" in line))
    libpq.PQfn.restype, libpq.PQresultErrorField.restype = ctypes.c_void_p, ctypes.c_char_p
    arguments = (Argument * len(values))(*(Argument(len(value), 0, value) for value in values))
    buffer, length = ctypes.create_string_buffer(8192), ctypes.c_int()
    out = (buffer, ctypes.byref(length), 0, arguments, len(values))
    pointer = session.connection.pgconn.pgconn_ptr
    result = ctypes.c_void_p(libpq.PQfn(ctypes.c_void_p(pointer), oid, *out))
    error = [libpq.PQresultErrorField(result, ord(field)) for field in "CD"]
    libpq.PQclear(result)
    return b" ".join(error) if any(error) else buffer.raw[: length.value]


def test_the_fast_path_reads_for_a_granted_role_and_not_for_a_nobody(scene):
    sealed = scene.drill.dba.one(f"SELECT sealed {scene.source} LIMIT 1")
    call = ("cmk_decrypt(text, bytea, bytea)", scene.tenant.name.encode(), sealed, b"")
    assert fast_path(scene.connect(scene.owner), *call) == CANARY
    refused = fast_path(scene.connect(scene.nobody), *call)
    assert refused == f"42501 reason=no_grant tenant={scene.tenant} needs=decrypt".encode()
