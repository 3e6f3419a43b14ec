"""Search by equality finds its rows in the token index, however a statement asks, and whoever is the tenant."""

import pytest

from columns import Text, Unknown, Varchar, opened  # noqa: F401 (fixtures)
from searching import ACME, BOLT, by_index, conditions, ids, nodes, world  # noqa: F401 (fixtures)
from support import grant, unique
from test_column_statements import outcome

TWENTY = ", ".join(f"'value {n}'" for n in range(20))

# How a statement may ask. All give on text what they give here.
SEARCHES = {
    "a literal": "SELECT id FROM {t} WHERE ssn = 'value 7'",
    "a literal of text": "SELECT id FROM {t} WHERE ssn = 'value 7'::text",
    "a literal of varchar": "SELECT id FROM {t} WHERE ssn = 'value 7'::varchar(20)",
    "reversed": "SELECT id FROM {t} WHERE 'value 7' = ssn",
    "reversed, varchar": "SELECT id FROM {t} WHERE 'value 7'::varchar = ssn",
    "an expression": "SELECT id FROM {t} WHERE ssn = 'value ' || 7",
    "in of 2": "SELECT id FROM {t} WHERE ssn IN ('value 7', 'value 9')",
    "in of 20": f"SELECT id FROM {{t}} WHERE ssn IN ({TWENTY})",
    "in of 20 of varchar": f"SELECT id FROM {{t}} WHERE ssn = ANY (ARRAY[{TWENTY}]::varchar[])",
    "in with null": "SELECT id FROM {t} WHERE ssn IN ('value 7', NULL)",
    "any of a literal": "SELECT id FROM {t} WHERE ssn = ANY ('{{value 7,value 9}}')",
    "any of text[]": "SELECT id FROM {t} WHERE ssn = ANY ('{{value 7,value 9}}'::text[])",
    "any of an array of expressions": "SELECT id FROM {t} WHERE ssn = ANY (ARRAY['value ' || 7, lower('VALUE 9')])",
    "or": "SELECT id FROM {t} WHERE ssn = 'value 7' OR ssn = 'value 9'",
    "or with another column": "SELECT id FROM {t} WHERE ssn = 'value 7' OR id = 3",
    "and": "SELECT id FROM {t} WHERE ssn = 'value 7' AND note <> 'x' AND length(note) > 2",
    "and with another value": "SELECT id FROM {t} WHERE ssn = 'value 7' AND ssn = 'value 8'",
    "sub-select of the value": "SELECT id FROM {t} WHERE ssn = (SELECT 'value 7'::text)",
    "sub-select of the row": "SELECT id FROM {t} WHERE id IN (SELECT id FROM {t} WHERE ssn = 'value 7')",
    "correlated sub-select": "SELECT n, (SELECT min(id) FROM {t} WHERE ssn = 'value ' || n)"
                             " FROM generate_series(1, 3) n",
    "exists": "SELECT 1 WHERE EXISTS (SELECT FROM {t} WHERE ssn = 'value 7')",
    "lateral": "SELECT n, l.id FROM generate_series(1, 3) n, "
               " LATERAL (SELECT id FROM {t} WHERE tenant_id = 'acme' AND ssn = 'value ' || n) l",
    "with": "WITH c AS (SELECT * FROM {t}) SELECT id FROM c WHERE ssn = 'value 7'",
    "inside a materialized with": "WITH c AS MATERIALIZED (SELECT * FROM {t} WHERE ssn = 'value 7') SELECT id FROM c",
    "derived table": "SELECT id FROM (SELECT id, ssn AS s FROM {t}) q WHERE s = 'value 7'",
    "ordered and limited": "SELECT id FROM {t} WHERE ssn = 'value 7' ORDER BY note, id LIMIT 1",
    "counted": "SELECT count(*), max(id) FROM {t} WHERE ssn = 'value 7'",
    "union": "SELECT id FROM {t} WHERE ssn = 'value 7' UNION ALL SELECT id FROM {t} WHERE ssn = 'value 9'",
    "for update": "SELECT id FROM {t} WHERE ssn = 'value 7' FOR UPDATE",
    "update": "UPDATE {t} SET note = 'changed' WHERE ssn = 'value 7' RETURNING id, note",
    "update of the value": "UPDATE {t} SET ssn = 'new' WHERE ssn = 'value 7' RETURNING id",
    "delete": "DELETE FROM {t} WHERE ssn = 'value 7' RETURNING id",
    "delete of a list": f"DELETE FROM {{t}} WHERE ssn IN ({TWENTY}) RETURNING id",
    "tenant and value": "SELECT id FROM {t} WHERE tenant_id = 'acme' AND ssn = 'value 7'",
    "tenant and value, reversed": "SELECT id FROM {t} WHERE 'value 7' = ssn AND 'bolt' = tenant_id",
    "tenant and list": f"SELECT id FROM {{t}} WHERE tenant_id = 'bolt' AND ssn IN ({TWENTY})",
    "row comparison": "SELECT id FROM {t} WHERE (tenant_id, ssn) = ('acme', 'value 7')",
    "two rows": "SELECT id FROM {t} WHERE (tenant_id, ssn) IN (('acme', 'value 7'), ('bolt', 'value 9'))",
    "joined to values": "SELECT id FROM (VALUES ('acme', 'value 7'), ('bolt', 'value 9'), ('bolt', 'absent')) w (t, s)"
                        " JOIN {t} ON tenant_id = w.t AND ssn = w.s",
    "absent": "SELECT id FROM {t} WHERE ssn = 'absent'",
    "empty list": "SELECT id FROM {t} WHERE ssn = 'value 7' AND ssn = ANY ('{{value 7}}')",
}
INDEXES = {"on the value": "{name} (ssn cmk_token_ops)", "on tenant and value": "{name} (tenant_id, ssn cmk_token_ops)"}
DECLARED = {"unknown": "", "text": "(text)", "varchar": "(varchar)", "its own type": "(cmk_text)"}
MODES = ["force_custom_plan", "force_generic_plan"]


@pytest.fixture(scope="module")
def many(world):
    return world.many("many")


@pytest.fixture(scope="module")
def pairs(world):
    """As `many`, with the index on (tenant_id, ssn)."""
    return world.many("pairs", index=INDEXES["on tenant and value"])


@pytest.fixture(scope="module")
def both(world):
    """A role with grants for acme and bolt, and so none for `dark`."""
    role = unique("both")
    world.server.execute(f"CREATE ROLE {role} LOGIN")
    for tenant in ("acme", "bolt"):
        grant(world.dba, tenant, role)
    return role


@pytest.fixture
def user(world, both):
    return world.reader(both)


@pytest.mark.parametrize("sql", SEARCHES.values(), ids=SEARCHES)
def test_a_search_finds_by_index_what_it_finds_on_text(user, many, sql):
    by_index(user, sql.format(t=many))
    twin = sql.format(t=f"{many}_text")
    if sql.startswith(("UPDATE", "DELETE")):
        twin = twin.replace(" WHERE ", " WHERE tenant_id <> 'dark' AND ")
    else:
        twin = sql.format(t="visible")
        user.run(f"CREATE TEMP VIEW visible AS SELECT * FROM {many}_text WHERE tenant_id <> 'dark'")
    assert outcome(user, sql.format(t=many)) == outcome(user, twin.replace(" FOR UPDATE", ""))


@pytest.mark.parametrize("sql", [sql for name, sql in SEARCHES.items() if "tenant" in name or name == "row comparison"])
def test_an_index_that_begins_with_the_tenant_serves_a_search_with_the_tenant(user, pairs, sql):
    for condition in by_index(user, sql.format(t=pairs)):
        assert "tenant_id = " in condition and "cmk.probe" in condition, condition
        assert "cmk.probes(" not in condition, condition
    assert outcome(user, sql.format(t=pairs)) == outcome(user, sql.format(t=f"{pairs}_text"))


# Parameters


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
@pytest.mark.parametrize("condition", ["ssn = $1", "$1 = ssn", "ssn IN ($1, 'value 9')", "ssn = $1 OR ssn = 'x'",
                                       "tenant_id = 'acme' AND ssn = $1"])
def test_a_parameter_uses_the_index_in_custom_and_generic_plans(user, many, mode, declared, condition):
    user.run(f"SET plan_cache_mode = {mode}")
    user.run(f"PREPARE p{declared} AS SELECT id FROM {many} WHERE {condition}")
    for k in (7, 8, 9):
        by_index(user, f"EXECUTE p('value {k}')")
        expected = [ACME(k)] if "acme" in condition else [ACME(k), BOLT(k)]
        if "'value 9'" in condition:
            expected = sorted({*expected, ACME(9), BOLT(9)})
        assert ids(user, f"EXECUTE p('value {k}')") == expected
    assert ids(user, "EXECUTE p(NULL)") == ([ACME(9), BOLT(9)] if "'value 9'" in condition else [])
    user.run("DEALLOCATE p")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("declared", ["", "(text[])", "(varchar[])", "(cmk_text[])"])
@pytest.mark.parametrize("tenant", ["", "tenant_id = 'acme' AND "])
def test_a_parameter_of_a_list_uses_the_index_in_custom_and_generic_plans(user, many, mode, declared, tenant):
    user.run(f"SET plan_cache_mode = {mode}")
    user.run(f"PREPARE p{declared} AS SELECT id FROM {many} WHERE {tenant}ssn = ANY ($1)")
    for count in (1, 3, 30, 300):
        given = "'{" + ",".join(f"value {k}" for k in range(1, count + 1)) + ",NULL}'"
        by_index(user, f"EXECUTE p({given})")
        found = ids(user, f"EXECUTE p({given})")
        expected = [id for k in range(1, count + 1) for id in ((ACME(k),) if tenant else (ACME(k), BOLT(k)))]
        assert found == sorted(expected)
    for given in ("'{}'", "NULL", "'{NULL}'"):
        assert ids(user, f"EXECUTE p({given})") == []
    user.run("DEALLOCATE p")


@pytest.mark.parametrize("kind", [Unknown, Text, Varchar])
@pytest.mark.parametrize("tenant", [False, True], ids=["value", "tenant and value"])
def test_a_statement_that_a_driver_prepared_gets_a_generic_plan(user, many, kind, tenant):
    where = "tenant_id = %s AND ssn = %s" if tenant else "ssn = %s"
    sql = f"SELECT id FROM {many} WHERE {where}"
    for k in range(1, 13):
        given = (kind(f"value {k}"),)
        rows = user.connection.execute(sql, ("acme", *given) if tenant else given, prepare=True).fetchall()
        assert sorted(rows) == ([(ACME(k),)] if tenant else [(ACME(k),), (BOLT(k),)])
    custom, generic = user.row("SELECT sum(custom_plans), sum(generic_plans) FROM pg_prepared_statements"
                               " WHERE statement LIKE 'SELECT id FROM %'")
    assert (custom, generic) == (5, 7)


def test_what_searches_in_a_function_uses_the_index(user, many):
    name = unique("f")
    user.run(f"CREATE FUNCTION pg_temp.{name}(v text) RETURNS SETOF int LANGUAGE plpgsql AS"
             f" 'BEGIN RETURN QUERY SELECT id FROM {many} WHERE ssn = v; END'")
    for k in range(1, 9):
        scanned = "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relname = %s"
        with user.connection.transaction():
            assert ids(user, f"SELECT pg_temp.{name}('value {k}')") == [ACME(k), BOLT(k)]
            assert user.one(scanned, many) >= 1
            assert user.one(scanned.replace("idx_scan", "seq_scan"), many) == 0


def test_a_value_that_is_read_from_another_row_is_looked_up(user, many):
    """Sealed against sealed: by the row's own token, whose bytes are known only when the scan starts."""
    sql = (f"SELECT b.id FROM {many} a JOIN {many} b ON b.tenant_id = a.tenant_id AND b.ssn = a.ssn"
           " WHERE a.ssn = 'value 7' AND a.tenant_id = 'acme'")
    assert ids(user, sql) == [ACME(7)]
    user.run("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off")
    assert len(by_index(user, sql)) == 2
    assert ids(user, sql) == [ACME(7)]


def test_a_join_without_the_tenant_is_right_without_an_index(user, many):
    sql = "SELECT a.id, b.id FROM {t} a JOIN {t} b ON b.ssn = a.ssn WHERE a.ssn IN ('value 7', 'value 8')" \
          " AND b.id < 100 AND a.tenant_id <> 'dark' AND b.tenant_id <> 'dark'"
    assert outcome(user, sql.format(t=many)) == outcome(user, sql.format(t=f"{many}_text"))


def test_each_outer_row_of_a_nested_loop_is_a_probe_of_its_own(user, many):
    name = unique("outer")
    user.run(f"CREATE TEMP TABLE {name} (t text, s text)")
    user.run(f"INSERT INTO {name} SELECT (ARRAY['acme', 'bolt'])[1 + n % 2], 'value ' || n"
             " FROM generate_series(1, 50) n")
    user.run(f"ANALYZE {name}")
    sql = f"SELECT m.id FROM {name} w JOIN {many} m ON m.tenant_id = w.t AND m.ssn = w.s"
    plan = nodes(user, sql)
    assert "Nested Loop" in [node["Node Type"] for node in plan] and conditions(plan), plan
    assert ids(user, sql) == sorted(BOLT(n) if n % 2 else ACME(n) for n in range(1, 51))
    left = f"SELECT count(m.id) FROM {name} w LEFT JOIN {many} m ON m.tenant_id = w.t AND m.ssn = w.s || w.s"
    assert user.one(left) == 0
