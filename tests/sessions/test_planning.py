"""Planning opens no value and asks no KMS; what is planned opens no more values than it has to."""

import pytest

from support import fails, unique
from test_overloads import functions  # noqa: F401 (fixture)

# Of functions that the planner would run with the arguments that it knows, each with what it returns.
CALLS = {
    "cmk_decrypt": "cmk_decrypt('{t}', {value})",
    "cmk_decrypt with a varchar": "cmk_decrypt('{t}'::varchar, {value}::bytea)",
    "cmk_decrypt with aad": "cmk_decrypt('{t}', {value}, '')",
    "cmk_decrypt_text": "cmk_decrypt_text('{t}', {value})",
    "cmk_try_decrypt": "cmk_try_decrypt('{t}', {value})",
    "cmk_try_decrypt_text": "cmk_try_decrypt_text('{t}', {value}, '', '{{not_authentic}}')",
    "nested": "cmk_decrypt_text('{t}', cmk_try_decrypt('{t}', {value}))",
    "in an expression": "lower(cmk_decrypt_text('{t}', {value}) || 'x')",
}
# Where it can stand: c is a column of the same type with statistics. {call} stands for the call.
PLACES = {
    "=": "SELECT * FROM plain WHERE c = {call}",
    "<": "SELECT * FROM plain WHERE c < {call}",
    "IN": "SELECT * FROM plain WHERE c IN ({call}, {call})",
    "BETWEEN": "SELECT * FROM plain WHERE c BETWEEN {call} AND {call}",
    "OR": "SELECT * FROM plain WHERE c = {call} OR c IS NULL",
    "join": "SELECT * FROM plain a JOIN plain b ON a.c = b.c WHERE a.c = {call}",
    "sub-select": "SELECT * FROM (SELECT {call} AS d) s JOIN plain ON c = s.d",
    "function in FROM": "SELECT * FROM generate_series(1, length({call})) n",
    "LIMIT": "SELECT * FROM plain LIMIT length({call})",
    "partitions": "SELECT * FROM parted WHERE c = {call}",
    "UPDATE": "UPDATE plain SET n = n WHERE c = {call}",
    "UNION": "SELECT * FROM (SELECT c FROM plain UNION ALL SELECT {call}) u WHERE c = {call}",
}


@pytest.fixture(scope="module")
def planned():
    """The drills, each with tables that have statistics."""

    def prepare(drill):
        if not getattr(drill, "is_planned", False):
            for kind in ("bytea", "text"):
                drill.dba.run(f"CREATE SCHEMA p_{kind} CREATE TABLE plain (n int, c {kind})"
                              f" CREATE TABLE parted (c {kind}) PARTITION BY LIST (c)")
                drill.dba.run(f"CREATE TABLE p_{kind}.one PARTITION OF p_{kind}.parted FOR VALUES IN ('a')")
                drill.dba.run(f"CREATE TABLE p_{kind}.others PARTITION OF p_{kind}.parted DEFAULT")
                drill.dba.run(f"INSERT INTO p_{kind}.plain SELECT n, (n % 7)::text::{kind} FROM generate_series(1, 500) n")
                drill.dba.run(f"ANALYZE p_{kind}.plain")
                drill.dba.run(f"CREATE INDEX ON p_{kind}.plain (c)")
            drill.is_planned = True
        return drill

    return prepare


class Planned:
    """A tenant with a value, and new sessions that know nothing of it."""

    def __init__(self, drill, tenant):
        self.drill, self.tenant = drill, tenant
        self.sealed = drill.dba.one("SELECT cmk_encrypt_text(%s, '5')", tenant.name)
        drill.evict(tenant)

    def call(self, call):
        return call.format(t=self.tenant, value=f"'\\x{self.sealed.hex()}'")


@pytest.fixture
def value(either_drill, planned):
    return Planned(planned(either_drill), either_drill.tenant())


def kind_of(call):
    return "bytea" if call.startswith(("cmk_decrypt(", "cmk_try_decrypt(")) else "text"


@pytest.mark.parametrize("place", ["=", "IN", "LIMIT"])
@pytest.mark.parametrize("call", CALLS)
def test_explain_runs_none_of_the_functions(value, session, place, call):
    drill = value.drill
    user = session(dbname="postgres", on=drill.server)
    user.run(f"SET search_path = p_{kind_of(CALLS[call])}")
    before = drill.kms.counters()
    user.run("EXPLAIN " + PLACES[place].replace("{call}", value.call(CALLS[call])))
    assert drill.kms.counters() == before


@pytest.mark.parametrize("place", PLACES)
def test_explain_runs_nothing_wherever_it_stands(value, session, place):
    drill = value.drill
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text")
    before = drill.kms.counters()
    sql = PLACES[place].replace("{call}", value.call(CALLS["cmk_decrypt_text"]))
    for options in ("", "(VERBOSE)"):
        user.run(f"EXPLAIN {options} {sql}")
    assert drill.kms.counters() == before
    user.run(sql)
    assert drill.kms.counters() != before, "executed, it does"


@pytest.mark.parametrize("place", [place for place in PLACES if place not in ("LIMIT", "UPDATE", "function in FROM")])
def test_the_rows_are_those_of_the_plaintext(value, session, place):
    user = session(dbname="postgres", on=value.drill.server)
    user.run("SET search_path = p_text")
    user.run("INSERT INTO parted VALUES ('5'), ('a')")
    try:
        opened = PLACES[place].replace("{call}", value.call(CALLS["cmk_decrypt_text"]))
        assert sorted(user.all(opened), key=repr) == sorted(user.all(PLACES[place].replace("{call}", "'5'::text")), key=repr)
    finally:
        user.run("TRUNCATE parted")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
def test_prepared_statements_are_planned_without_a_key(value, session, mode):
    """Also where the driver prepares: with parameters, whose values a custom plan is made for."""
    drill = value.drill
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text")
    user.run(f"SET plan_cache_mode = {mode}")
    before = drill.kms.counters()
    user.run("PREPARE p(text, bytea) AS SELECT count(*) FROM plain WHERE c = cmk_decrypt_text($1, $2)")
    given = f"'{value.tenant}', '\\x{value.sealed.hex()}'"
    for _ in range(7):
        user.run(f"EXPLAIN EXECUTE p({given})")
    assert drill.kms.counters() == before
    for _ in range(7):
        assert user.one(f"EXECUTE p({given})") == user.one("SELECT count(*) FROM plain WHERE c = '5'")
    assert drill.kms.counters()["total"] == before["total"] + 1


def test_a_statement_that_a_function_plans_is_planned_without_a_key(value, session):
    drill = value.drill
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text")
    # The statement is planned for these values, and does not come to the call.
    user.run("CREATE FUNCTION pg_temp.f(t text, v bytea) RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
             " RETURN (SELECT n FROM plain WHERE c = cmk_decrypt_text(t, v) LIMIT 0); END $$")
    before = drill.kms.counters()
    for _ in range(7):
        assert user.one("SELECT pg_temp.f(%s, %b)", value.tenant.name, value.sealed) is None
    assert drill.kms.counters() == before


def test_planning_raises_nothing_of_ours(value, session):
    """For a tenant whose key is away, for one that nobody knows, for what is no envelope."""
    drill = value.drill
    drill.kms.state(value.tenant.key_uri, "Disabled")
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text")
    for tenant, sealed in ((value.tenant, value.sealed), ("nosuch", value.sealed), (value.tenant, b"garbage")):
        user.run(f"EXPLAIN SELECT * FROM plain WHERE c = cmk_decrypt_text('{tenant}', '\\x{sealed.hex()}')")
    with fails("55000", "key_disabled", value.tenant):
        user.run(f"SELECT * FROM plain WHERE c = cmk_decrypt_text('{value.tenant}', '\\x{value.sealed.hex()}')")


def test_a_wrapper_in_sql_and_a_view_are_planned_without_a_key(value, session):
    drill = value.drill
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text")
    user.run("CREATE FUNCTION pg_temp.opened(v bytea) RETURNS text STABLE LANGUAGE sql AS"
             f" $$ SELECT cmk_decrypt_text('{value.tenant}', v) $$")
    user.run(f"CREATE TEMP VIEW v AS SELECT n FROM plain WHERE c = {value.call(CALLS['cmk_decrypt_text'])}")
    before = drill.kms.counters()
    user.run(f"EXPLAIN SELECT * FROM plain WHERE c = pg_temp.opened('\\x{value.sealed.hex()}')")
    user.run("EXPLAIN SELECT * FROM v")
    assert drill.kms.counters() == before
    assert user.one("SELECT count(*) FROM v") == user.one("SELECT count(*) FROM plain WHERE c = '5'")


def test_a_token_is_made_when_the_query_runs_and_finds_by_an_index(value, session):
    drill, tenant = value.drill, value.tenant
    drill.dba.run("SELECT cmk.rotate_index_key(%s)", tenant.name)
    table = unique("own")
    drill.dba.run(f"CREATE TABLE {table} (id int, token bytea)")
    drill.dba.run(f"INSERT INTO {table} SELECT n, cmk_search_token(%s, n::text, 'l') FROM generate_series(1, 3000) n",
                  tenant.name)
    drill.dba.run(f"CREATE INDEX ON {table} (token)")
    drill.dba.run(f"ANALYZE {table}")
    drill.evict(tenant)
    user = session(dbname="postgres", on=drill.server)
    before = drill.kms.counters()
    one = f"SELECT id FROM {table} WHERE token = cmk_search_token('{tenant}', '77', 'l')"
    several = f"SELECT id FROM {table} WHERE token = ANY (cmk_search_tokens('{tenant}'::varchar, '77', 'l'))"
    for sql in (one, several):
        assert "Index Cond" in "\n".join(line for (line,) in user.all(f"EXPLAIN {sql}"))
    assert drill.kms.counters() == before
    assert user.one(one) == user.one(several) == 77


def test_casts_and_comparisons_of_sealed_values_are_planned_without_a_key(value, session):
    """Values of protected columns that stand in a statement: of a restore, of a variable, of a parameter."""
    drill, tenant = value.drill, value.tenant
    table = unique("person")
    drill.dba.run(f"CREATE TABLE {table} (tenant text, t text, b bytea, j jsonb)")
    for column in "tbj":
        drill.dba.run("SELECT cmk.protect_column(%s, %s, tenant_column => 'tenant')", table, column)
    drill.dba.run(f"INSERT INTO {table} VALUES (%s, '5', '5', '5')", tenant.name)
    armor = drill.dba.row(f"SELECT concat(t), concat(b), concat(j) FROM {table}")
    assert all(one.startswith("cmk1:") for one in armor), armor
    drill.evict(tenant)
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text, public")
    user.run("SET cmk_encrypt.input = envelope" if drill.preloaded else "SELECT cmk.column_stats()")
    user.run("SET cmk_encrypt.input = envelope")
    t, b, j = (f"'{text}'::cmk_{kind}" for text, kind in zip(armor, ("text", "bytea", "jsonb")))
    statements = [
        f"SELECT count(*) FROM plain WHERE c = {t}", f"SELECT count(*) FROM plain WHERE {t} = c",
        f"SELECT count(*) FROM plain WHERE c = {t}::text", f"SELECT count(*) FROM plain WHERE c = {t}::varchar",
        f"SELECT count(*) FROM plain WHERE c = cmk.try_text({t})", f"SELECT count(*) FROM plain WHERE c::text = {j}::text",
        f"SELECT count(*) FROM plain WHERE c::bytea = {b}::bytea", f"SELECT count(*) FROM plain WHERE c::jsonb = {j}::jsonb",
        f"SELECT count(*) FROM plain WHERE ({t} = '5') = (c = '5')", f"SELECT count(*) FROM plain WHERE c = '5' AND {t} = {t}",
    ]
    before = drill.kms.counters()
    for sql in statements:
        user.run(f"EXPLAIN {sql}")
    assert drill.kms.counters() == before
    expected = user.one("SELECT count(*) FROM plain WHERE c = '5'")
    assert [user.one(sql) for sql in statements[:8]] == [expected] * 8
    assert user.one(statements[8]) == expected


def test_an_explain_that_fails_leaves_nothing_behind(value, session):
    """What EXPLAIN does not run, nothing after it may take for not run."""
    drill = value.drill
    user = session(dbname="postgres", on=drill.server)
    user.run("SET search_path = p_text")
    user.run("CREATE FUNCTION pg_temp.fails() RETURNS text STABLE LANGUAGE plpgsql AS"
             " $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    user.run("CREATE FUNCTION pg_temp.f(t text, v bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
             " BEGIN EXECUTE 'EXPLAIN SELECT * FROM parted WHERE c = pg_temp.fails() || n.x FROM (SELECT 1 x) n';"
             " EXCEPTION WHEN OTHERS THEN NULL; END;"
             " BEGIN EXECUTE 'EXPLAIN SELECT * FROM parted WHERE c = (SELECT pg_temp.fails()) AND c = pg_temp.fails()';"
             " EXCEPTION WHEN OTHERS THEN NULL; END;"
             " RETURN cmk_decrypt_text(t, v); END $$")
    assert user.one("SELECT pg_temp.f(%s, %b)", value.tenant.name, value.sealed) == "5"
    assert user.one(f"SELECT {value.call(CALLS['cmk_decrypt_text'])}") == "5"


# Costs


def test_what_opens_a_value_costs_more_than_a_filter_in_plpgsql(functions, dba):  # noqa: F811
    costs = {name: {function["procost"] for function in overloads} for name, overloads in functions.items()}
    assert costs == {name: {200} for name in functions}
    for support, expected in (("cmk_internal.defer", 200), ("cmk.search_support", 100)):
        supported = dba.all("SELECT procost FROM pg_proc WHERE prosupport = %s::regproc", support)
        assert len(supported) > 5 and {cost for (cost,) in supported} == {expected}, support


@pytest.fixture
def mixed(dba, app, local_tenant):
    """Rows of two tenants, of which `app` may use one; and one row whose value is no envelope."""
    mine, theirs = local_tenant(to=(app, dba)), local_tenant(to=(dba,))
    table = unique("mixed")
    dba.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant text, c bytea, x int)")
    for tenant, first in ((mine, 1), (theirs, 501)):
        dba.run(f"INSERT INTO {table} SELECT n, %s, cmk_encrypt_text(%s, 'value ' || n), -n"
                f" FROM generate_series({first}, {first} + 499) n", tenant.name, tenant.name)
    dba.run(f"INSERT INTO {table} VALUES (250000, %s, 'garbage', 0)", mine.name)
    dba.run(f"ANALYZE {table}")
    dba.run(f"GRANT SELECT ON {table} TO {app.role}")
    return table, mine, theirs


@pytest.mark.parametrize("function", ["cmk_decrypt", "cmk_decrypt_text"])
@pytest.mark.parametrize("order", ["id", "x DESC NULLS LAST, id", "lower(tenant), id"])
def test_a_page_opens_its_own_rows_only(app, mixed, function, order):
    table, mine, _ = mixed
    sql = (f"SELECT id, {function}('{mine}', c) FROM {table} WHERE lower(tenant) = '{mine}' AND x <> 0"
           f" ORDER BY {order} LIMIT 10")
    assert len(app.all(sql)) == 10
    # Also where the garbage is among what is sorted.
    page = app.all(f"SELECT id, {function}('{mine}', c) FROM {table} WHERE tenant = '{mine}' ORDER BY {order} LIMIT 10"
                   .replace("x DESC", "x"))
    assert len(page) == 10
    plan = "\n".join(line for (line,) in app.all(f"EXPLAIN (VERBOSE, COSTS OFF) {sql}"))
    assert "Sort" not in plan or plan.index(f"{function}(") < plan.index("Sort"), plan


@pytest.mark.parametrize("condition", [
    "tenant IN ('{mine}', 'nosuch')", "tenant = '{mine}'", "lower(tenant) = '{mine}'", "upper(lower(tenant)) = upper('{mine}')",
    "tenant = ANY (ARRAY['{mine}'])", "tenant LIKE '{mine}'", "tenant ~ '^{mine}$'", "is_mine(tenant)", "NOT (tenant <> '{mine}')",
    "id < 501", "substr(tenant, 1) || 'x' = '{mine}x'",
])
def test_cheap_conditions_come_first(dba, app, mixed, condition):
    """Whatever stands first in the statement: a value of another tenant is none of the role's, nor opens for this one."""
    table, mine, _ = mixed
    condition = condition.format(mine=mine)
    if "is_mine" in condition:
        app.run("CREATE FUNCTION pg_temp.is_mine(t text) RETURNS bool LANGUAGE plpgsql AS"
                f" $$ BEGIN RETURN t = '{mine}'; END $$")
        condition = f"pg_temp.{condition}"
    for opened in ("cmk_decrypt_text('{mine}', c) = 'value 7'", "cmk_decrypt('{mine}', c) = 'value 7'",
                   "cmk_decrypt_text(tenant::varchar, c) = 'value 7'"):
        sql = f"SELECT id FROM {table} WHERE {opened.format(mine=mine)} AND {condition} AND id < 250000"
        assert app.all(sql) == [(7,)]


def test_a_page_of_a_protected_column_opens_its_own_rows_only(dba, app, local_tenant):
    tenant, table = local_tenant(to=(app, dba)), unique("page")
    dba.run(f"CREATE TABLE {table} (id int, tenant text, ssn text, photo bytea, doc jsonb)")
    for column in ("ssn", "photo", "doc"):
        dba.run("SELECT cmk.protect_column(%s, %s, tenant_column => 'tenant')", table, column)
    dba.run(f"INSERT INTO {table} SELECT n, %s, 'v', 'v', '1' FROM generate_series(1, 300) n", tenant.name)
    dba.run(f"GRANT SELECT ON {table} TO {app.role}")
    for cast in ("ssn::text", "ssn::varchar", "photo::bytea", "doc::jsonb", "doc ->> 'a'", "lower(ssn)", "cmk.try_text(ssn)"):
        before = app.one("SELECT opens FROM cmk.column_stats()")
        assert len(app.all(f"SELECT id, {cast} FROM {table} ORDER BY id DESC LIMIT 10")) == 10
        assert app.one("SELECT opens FROM cmk.column_stats()") - before == 10, cast
