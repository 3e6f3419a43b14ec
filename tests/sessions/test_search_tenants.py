"""Whose index key a search takes: of the tenant that the statement names, else of the setting, else of the grants."""

import pytest

from columns import SHAPE, dba, opened  # noqa: F401 (fixtures)
from searching import ACME, BOLT, by_index, ids, world  # noqa: F401 (fixtures)
from support import fails, grant, unique

MODES = ["auto", "force_custom_plan", "force_generic_plan"]


@pytest.fixture(scope="module")
def many(world):
    return world.many("many")


@pytest.fixture
def user(world):
    """With grants for acme, bolt, `dark`, and others whose values nobody can read."""
    return world.reader()


# The setting


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("declared", ["", "(text)", "(varchar)"])
def test_a_prepared_statement_follows_the_setting_from_execution_to_execution(world, user, many, mode, declared):
    ro = world.reader("ro")
    for session in (user, ro):
        session.run(f"SET plan_cache_mode = {mode}")
        session.run(f"PREPARE p{declared} AS SELECT id FROM {many} WHERE ssn = $1")
    for _ in range(4):
        for tenant, id in (("acme", ACME(7)), ("bolt", BOLT(7))):
            user.run(f"SET cmk_encrypt.tenant = '{tenant}'")
            by_index(user, "EXECUTE p('value 7')")
            assert ids(user, "EXECUTE p('value 7')") == [id]
        for tenant, sqlstate, reason in (("nosuch", "42704", "unknown_tenant"), ("dark", "55000", "key_disabled"),
                                         ("paused", "55000", "tenant_suspended")):
            user.run(f"SET cmk_encrypt.tenant = '{tenant}'")
            by_index(user, "EXECUTE p('value 7')")
            with fails(sqlstate, reason, tenant):
                user.run("EXECUTE p('value 7')")
        ro.run("SET cmk_encrypt.tenant = acme")
        assert ids(ro, "EXECUTE p('value 7')") == [ACME(7)]
        ro.run("SET cmk_encrypt.tenant = bolt")
        with fails("42501", "no_grant", "bolt"):
            ro.run("EXECUTE p('value 7')")


@pytest.mark.parametrize("mode", MODES)
def test_a_prepared_statement_follows_a_parameter_for_the_tenant(world, user, many, mode):
    ro = world.reader("ro")
    for session in (user, ro):
        session.run(f"SET plan_cache_mode = {mode}")
        session.run(f"PREPARE p(text, text) AS SELECT id FROM {many} WHERE tenant_id = $1 AND ssn = $2")
        session.run("SET cmk_encrypt.tenant = bolt")  # which does not count
    for _ in range(4):
        for tenant, id in (("acme", ACME(7)), ("bolt", BOLT(7))):
            by_index(user, f"EXECUTE p('{tenant}', 'value 7')")
            assert ids(user, f"EXECUTE p('{tenant}', 'value 7')") == [id]
        for tenant, sqlstate, reason in (("nosuch", "42704", "unknown_tenant"), ("dark", "55000", "key_disabled")):
            with fails(sqlstate, reason, tenant):
                user.run(f"EXECUTE p('{tenant}', 'value 7')")
        assert ids(ro, "EXECUTE p('acme', 'value 7')") == [ACME(7)]
        with fails("42501", "no_grant", "bolt"):
            ro.run("EXECUTE p('bolt', 'value 7')")
    assert ids(user, "EXECUTE p(NULL, 'value 7')") == []


def test_with_set_local_the_setting_ends_with_the_transaction(user, many):
    with user.connection.transaction():
        user.run("SET LOCAL cmk_encrypt.tenant = acme")
        assert ids(user, f"SELECT id FROM {many} WHERE ssn = 'value 7'") == [ACME(7)]
    assert ids(user, f"SELECT id FROM {many} WHERE ssn = 'value 7' AND tenant_id <> 'dark'") == [ACME(7), BOLT(7)]


def test_the_setting_counts_for_each_row_as_it_is_then(user, many):
    sql = (f"SELECT set_config('cmk_encrypt.tenant', tenant_id, false), ssn = 'value 7' FROM {many}"
           f" WHERE id IN ({ACME(7)}, {BOLT(7)}) ORDER BY id")
    assert user.all(sql) == [("acme", True), ("bolt", True)]
    user.run("SET cmk_encrypt.tenant = acme")
    assert user.all(f"SELECT ssn = 'value 7' FROM {many} WHERE id IN ({ACME(7)}, {BOLT(7)}) ORDER BY id") == [
        (True,), (False,)]


def test_what_a_cursor_found_out_is_not_for_another_role(world, server, user, many):
    other = unique("other")
    server.execute(f"CREATE ROLE {other}")
    server.execute(f"GRANT {other} TO {world.roles['app']}")
    for seen in ("id, ssn = 'value 7'", "id, ssn IN ('value 7', 'x')"):
        with user.connection.transaction(force_rollback=True):
            user.run(f"DECLARE c CURSOR FOR SELECT {seen} FROM {many} WHERE id IN ({ACME(7)}, {BOLT(7)}) ORDER BY id")
            assert user.all("FETCH 1 FROM c") == [(ACME(7), True)]
            user.run(f"SET LOCAL ROLE {other}")
            with fails("42501", "no_grant"):
                user.run("FETCH 1 FROM c")


# A restriction beside it

TENANTS = {
    "int": ("7", "int", "{n}"), "bigint": ("-9000000000", "bigint", "{n}"), "smallint": ("8", "smallint", "{n}"),
    "uuid": ("7d0e8a3c-3d4f-4c1e-9b1a-5f0d8a1b2c3d", "uuid", "'{n}'"), "text": ("Kundin 2", "text", "'{n}'"),
    "varchar": ("Kundin 1", "varchar(20)", "'{n}'"), "enum": ("red", "colour", "'{n}'"),
}
BESIDE = {
    "a constant": "tenant_id = {n} AND ssn = 'x'", "reversed": "{n} = tenant_id AND 'x' = ssn",
    "a parameter": "tenant_id = $1 AND ssn = 'x'", "a parameter, reversed": "ssn = 'x' AND $1 = tenant_id",
    "a cast": "tenant_id = CAST({n} AS {type}) AND ssn = 'x'", "in of one": "tenant_id IN ({n}) AND ssn = 'x'",
    "a sub-select": "tenant_id = (SELECT CAST({n} AS {type})) AND ssn = 'x'",
    "in a list": "tenant_id = {n} AND ssn IN ('x', 'y')",
}


@pytest.fixture(scope="module")
def colour(world):
    world.dba.run("CREATE TYPE colour AS ENUM ('red', 'green')")


@pytest.fixture(scope="module")
def kinds(world, colour):
    """{kind: a table whose tenant column is of it}. All have a row of the tenant, and one without a tenant."""
    made = {}
    for kind, (name, type_, _) in TENANTS.items():
        world.tenant(name, "app")
        made[kind] = world.searchable(unique("kind"), shape=SHAPE.replace("tenant_id text", f"tenant_id {type_}"))
        world.dba.run(f"INSERT INTO {made[kind]} VALUES (1, %s, 'x', 'n'), (2, NULL, NULL, NULL), (3, %s, 'z', 'n')",
                      name, name)
    return made


@pytest.mark.parametrize("condition", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("kind", TENANTS)
def test_a_restriction_on_the_tenant_column_names_the_tenant_whatever_the_setting(user, kinds, kind, condition):
    name, type_, literal = TENANTS[kind]
    where = condition.format(n=literal.format(n=name), type=type_)
    user.run("SET enable_seqscan = off; SET cmk_encrypt.tenant = bolt")
    for mode in MODES:
        user.run(f"SET plan_cache_mode = {mode}")
        declared = f"({type_})" if "$1" in where else ""
        user.run(f"PREPARE p{declared} AS SELECT id FROM {kinds[kind]} WHERE {where}")
        execute = f"EXECUTE p({literal.format(n=name)})" if declared else "EXECUTE p"
        for found in by_index(user, execute):
            assert "cmk.probe" in found and "cmk.probes(" not in found, found
        assert ids(user, execute) == [1]
        user.run("DEALLOCATE p")


NOT_NAMED = {
    "another value's tenant": "note = 'acme' AND ssn = 'value 7'",
    "an inequality": "tenant_id > 'a' AND ssn = 'value 7'",
    "a list": "tenant_id IN ('acme', 'bolt') AND ssn = 'value 7'",
    "or": "(tenant_id = 'acme' OR id > 0) AND ssn = 'value 7'", "not": "NOT tenant_id = 'acme' AND ssn = 'value 7'",
    "an expression of it": "upper(tenant_id) = 'ACME' AND ssn = 'value 7'",
    "only one side of an or": "tenant_id = 'acme' AND ssn = 'value 7' OR ssn = 'value 8'",
    "a pair of lists": "(tenant_id, ssn) IN (('acme', 'value 7'), ('bolt', 'value 8'))",
}


@pytest.mark.parametrize("condition", NOT_NAMED.values(), ids=NOT_NAMED)
def test_what_does_not_name_one_tenant_gives_what_it_gives_on_text(user, many, condition):
    sql = f"SELECT id FROM {{t}} WHERE ({condition}) AND tenant_id <> 'dark'"
    assert ids(user, sql.format(t=many)) == ids(user, sql.format(t=f"{many}_text"))


def test_an_equality_that_takes_different_names_for_equal_names_no_tenant(world, dba, user, many):
    if not dba.one("SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'"):
        pytest.skip("PostgreSQL is built without ICU")
    dba.run("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    sql = f"SELECT id FROM {many} WHERE tenant_id COLLATE loose = 'ACME' AND ssn = 'value 7'"
    assert ids(user, sql) == [ACME(7)]


def test_two_tenants_at_once_are_none(user, many):
    assert ids(user, f"SELECT id FROM {many} WHERE tenant_id = 'acme' AND tenant_id = 'bolt' AND ssn = 'value 7'") == []


def test_what_an_update_returns_is_of_the_tenant_that_the_row_has_then(user, many):
    """The condition on the tenant is about the row before."""
    sql = "UPDATE {t} SET tenant_id = 'bolt' WHERE tenant_id = 'acme' AND ssn = 'value 11' RETURNING id, ssn = 'value 11'"
    for table in (many, f"{many}_text"):
        with user.connection.transaction(force_rollback=True):
            assert user.all(sql.format(t=table)) == [(ACME(11), True)]


def test_a_value_compared_beside_an_outer_join_is_compared_for_each_row(user, many):
    sql = ("SELECT a.id, b.ssn = 'value 7' FROM {t} a LEFT JOIN {t} b ON b.id = a.id + 1 AND b.tenant_id = 'acme'"
           " WHERE a.ssn = 'value 7' AND a.tenant_id <> 'dark' ORDER BY a.id")
    assert user.all(sql.format(t=many)) == user.all(sql.format(t=f"{many}_text"))


def test_a_tenant_from_a_parent_row_is_searched_by_setting_and_grants(world, dba, user):
    """There is no column to restrict."""
    orders, of = unique("orders"), unique("tenant_of")
    dba.run(f"CREATE TABLE {orders} (id int PRIMARY KEY, tenant_id text)")
    dba.run(f"INSERT INTO {orders} VALUES (1, 'acme'), (2, 'bolt')")
    dba.run(f"CREATE FUNCTION {of}(int) RETURNS text STABLE LANGUAGE sql AS 'SELECT tenant_id FROM public.{orders}"
            " WHERE id = $1'")
    table = world.searchable(unique("items"), shape="id int PRIMARY KEY, order_id int, ssn text, note text",
                             tenant=f"public.{of}(order_id)")
    dba.run(f"INSERT INTO {table} VALUES (1, 1, 'x', 'n'), (2, 2, 'x', 'n')")
    user.run("SET enable_seqscan = off")
    sql = f"SELECT id FROM {table} WHERE ssn = 'x'"
    by_index(user, sql)
    assert ids(user, sql) == [1, 2]
    user.run("SET cmk_encrypt.tenant = bolt")
    assert ids(user, sql) == [2]


# The grants


def crowd(world, role, count):
    """Grants this role so many tenants, of which it had none."""
    for number in range(count):
        name = f"crowd {number}"
        if not world.dba.one("SELECT count(*) FROM cmk.tenant WHERE tenant = %s", name):
            world.tenant(name)
        grant(world.dba, name, role)


@pytest.mark.parametrize("every", [False, True], ids=["one by one", "all at once"])
def test_more_than_64_tenants_must_be_narrowed(world, server, dba, many, every):
    role = unique("role")
    server.execute(f"CREATE ROLE {role} LOGIN")
    grant(dba, "acme", role)
    crowd(world, role, 63)
    session = world.reader(role)
    sql = f"SELECT id FROM {many} WHERE ssn = 'value 7'"
    by_index(session, sql)
    assert ids(session, sql) == [ACME(7)]
    if every:
        grant(dba, "*", role)
    else:
        world.tenant("crowd 63")
        grant(dba, "crowd 63", role)
    with fails("22023", "too_many_tenants") as failure:
        session.run(sql)
    assert "cmk_encrypt.tenant" in failure.value.diag.message_hint
    assert ids(session, f"{sql} AND tenant_id = 'acme'") == [ACME(7)]
    session.run("SET cmk_encrypt.tenant = acme")
    assert ids(session, sql) == [ACME(7)]


def test_a_new_grant_and_a_revoked_one_count_from_the_next_execution(world, server, dba, many):
    role = unique("role")
    server.execute(f"CREATE ROLE {role} LOGIN")
    session = world.reader(role)
    session.run(f"PREPARE p AS SELECT id FROM {many} WHERE ssn = 'value 7'")
    with fails("42501", "no_grant"):
        session.run("EXECUTE p")
    for tenant, id in (("acme", ACME(7)), ("bolt", BOLT(7))):
        grant(dba, tenant, role)
        assert id in ids(session, "EXECUTE p")
    dba.run("SELECT cmk.revoke_access('acme', %s)", role)
    assert ids(session, "EXECUTE p") == [BOLT(7)]
