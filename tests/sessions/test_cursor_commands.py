"""Cursors that run a command or triggers when they are fetched from, and functions that run as their owner."""

import pytest

from cursors import FETCHES, LEAK, TEXT, says_nothing
from cursors import scene  # noqa: F401 (fixture)
from support import fails, unique

# A procedure that says what it reads, and a trigger function that does.
SAYS = [LEAK,
        "CREATE PROCEDURE pg_temp.says(INOUT v text) LANGUAGE plpgsql AS $$ BEGIN"
        " SELECT pg_temp.leak({opens}) INTO v {source} LIMIT 1; END $$",
        "CREATE TEMP TABLE rows (n int)",
        "CREATE FUNCTION pg_temp.fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_temp.leak({opens}) {source} LIMIT 1; RETURN NULL; END $$",
        "CREATE TRIGGER fires AFTER INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION pg_temp.fired()"]


def opens_by_plpgsql(query):
    return ["CREATE FUNCTION pg_temp.opens() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE"
            f" c refcursor := 'stolen'; BEGIN OPEN c FOR {query}; RETURN c; END $$",
            "SELECT pg_temp.opens()"]


COMMANDS = {
    "CALL": opens_by_plpgsql("EXECUTE $q$ CALL pg_temp.says('') $q$"),
    "EXPLAIN ANALYZE of a query": opens_by_plpgsql(
        "EXECUTE $q$ EXPLAIN ANALYZE SELECT pg_temp.leak({opens}) {source} $q$"),
    "EXPLAIN ANALYZE of an INSERT": opens_by_plpgsql(
        "EXECUTE $q$ EXPLAIN ANALYZE INSERT INTO rows VALUES (1) $q$"),
    "INSERT RETURNING": opens_by_plpgsql("INSERT INTO rows VALUES (1) RETURNING n::text"),
    "WITH INSERT": opens_by_plpgsql(
        "WITH w AS (INSERT INTO rows VALUES (1) RETURNING n) SELECT n::text FROM w"),
    "EXECUTE": ["PREPARE ready AS SELECT pg_temp.leak({opens}) {source}",
                *opens_by_plpgsql("EXECUTE $q$ EXECUTE ready $q$")],
}


@pytest.mark.parametrize("declares", COMMANDS.values(), ids=list(COMMANDS))
@pytest.mark.parametrize("fetches", FETCHES.values(), ids=list(FETCHES))
def test_a_nobodys_command_reads_nothing_when_a_granted_role_fetches_from_it(scene, declares, fetches):
    function, nobody = scene.function(fetches, "c refcursor"), scene.connect(scene.nobody)
    for statement in SAYS:
        nobody.run(scene.sql(statement))
    nobody.run("BEGIN")
    for statement in declares:
        nobody.run(scene.sql(statement))
    with fails("42501", "no_grant", scene.tenant), says_nothing(nobody):
        nobody.one(f"SELECT {function}('stolen')")
    assert nobody.usable()


@pytest.mark.parametrize("declares", COMMANDS.values(), ids=list(COMMANDS))
def test_a_granted_roles_own_command_reads(scene, declares):
    owner = scene.connect(scene.owner)
    for statement in SAYS:
        owner.run(scene.sql(statement))
    heard = []
    owner.connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    owner.run("BEGIN")
    for statement in declares:
        owner.run(scene.sql(statement))
    owner.all("FETCH ALL stolen")
    assert TEXT in heard


# From clients that send a query's text alone (psql), and from commands that run a query of their own

READS = {
    "query": ("plpgsql", "DECLARE v text; BEGIN SELECT {scene.opens} INTO v {scene.source} LIMIT 1; RETURN v; END"),
    "expression": ("plpgsql", "DECLARE s bytea; BEGIN SELECT sealed INTO s {scene.source} LIMIT 1;"
                              " RETURN cmk_decrypt_text('{scene.tenant}', s); END"),
    "dynamic": ("plpgsql", "DECLARE v text; BEGIN EXECUTE $q${scene.reads} LIMIT 1$q$ INTO v; RETURN v; END"),
    "SQL function": ("sql", "{scene.reads} LIMIT 1"),
    "cursor": ("plpgsql", "DECLARE v text; k CURSOR FOR {scene.reads}; BEGIN OPEN k; FETCH k INTO v; RETURN v; END"),
    "call": ("plpgsql", "DECLARE v text := ''; BEGIN CALL {procedure}(v); RETURN v; END"),
}
CALLS = {
    "simple query": ["SELECT {function}()"],
    "several in one": ["SELECT 1; SELECT {function}()"],
    "DO": ["CREATE TEMP TABLE t (v text)", "DO $$ BEGIN INSERT INTO t SELECT {function}(); END $$", "TABLE t"],
    "EXECUTE": ["PREPARE p AS SELECT {function}()", "EXECUTE p"],
    "cursor": ["BEGIN", "DECLARE c CURSOR FOR SELECT {function}()", "FETCH c"],
    "CREATE TABLE AS": ["CREATE TEMP TABLE t AS SELECT {function}() AS v", "TABLE t"],
    "INSERT": ["CREATE TEMP TABLE t (v text)", "INSERT INTO t VALUES ({function}()) RETURNING v"],
    "COPY": ["COPY (SELECT {function}()) TO STDOUT"],
    "EXPLAIN": ["EXPLAIN (ANALYZE, COSTS OFF) SELECT {function}()", "SELECT {function}()"],
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("reads", READS.values(), ids=list(READS))
def test_a_granted_roles_function_reads_for_whoever_calls_it_in_any_way(scene, reads, calls):
    language, body = reads
    procedure = unique("says")
    scene.dba_runs(f"CREATE PROCEDURE {procedure}(INOUT v text) LANGUAGE plpgsql AS"
                   f" $$ BEGIN v := ({scene.reads} LIMIT 1); END $$")
    function = scene.function(body.replace("{procedure}", procedure), language=language)
    nobody = scene.connect(scene.nobody)
    *before, last = [call.replace("{function}", function) for call in calls]
    if calls is CALLS["EXECUTE"]:
        # Not preloaded, the library can't tell this from a cursor over EXECUTE, so it refuses the call that loads it.
        with fails("42501", "no_grant", scene.tenant):
            nobody.one(scene.reads)
    # Without parameters psycopg sends the text alone, as psql does.
    for statement in before:
        nobody.connection.execute(statement)
    if last.startswith("COPY"):
        with nobody.connection.cursor().copy(last) as copy:
            assert bytes(next(iter(copy))).decode() == f"{TEXT}\n"
    else:
        cursor = nobody.connection.execute(last)
        while cursor.nextset():
            pass
        assert cursor.fetchone()[0] == TEXT
