"""Whose index key a search takes: of the tenant that the statement names, else of the setting, else of the grants."""

import pytest

from columns import SHAPE, app, dba, opened, protect, reader  # noqa: F401 (fixtures)
from searching import ACME, BOLT, MANY, by_index, ids, world  # noqa: F401 (fixtures)
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


# Views, row-level security, partitions


POLICY = "tenant_id = current_setting('my.tenant')"
VIEWS = {
    "of the table": "SELECT * FROM {t}", "of a tenant": f"SELECT * FROM {{t}} WHERE {POLICY}",
    "of some columns": f"SELECT ssn, id AS id, tenant_id AS whose FROM {{t}} WHERE {POLICY}",
    "of a view": f"SELECT * FROM (SELECT * FROM {{t}}) q WHERE {POLICY}",
    "a union": f"SELECT * FROM {{t}} WHERE {POLICY} UNION ALL SELECT * FROM {{t}} WHERE {POLICY} AND id < 0",
}


@pytest.mark.parametrize("options", ["", "WITH (security_barrier)", "WITH (security_invoker)"])
@pytest.mark.parametrize("body", VIEWS.values(), ids=VIEWS)
def test_a_view_is_searched_by_index(world, dba, user, many, body, options):
    if "invoker" in options and dba.connection.info.server_version < 150000:
        pytest.skip("security_invoker came with 15")
    view = unique("view")
    dba.run(f"CREATE VIEW {view} {options} AS {body.format(t=many)}")
    dba.run(f"GRANT ALL ON {view} TO PUBLIC")
    sql = f"SELECT id FROM {view} WHERE ssn = 'value 7'"
    user.run(f"PREPARE p AS {sql}")
    for tenant, id in (("acme", ACME(7)), ("bolt", BOLT(7))) * 4:
        user.run(f"SET my.tenant = '{tenant}'")
        user.run(f"SET cmk_encrypt.tenant = '{tenant}'")
        for found in by_index(user, sql):
            assert POLICY not in body or "cmk.probes(" not in found, found
        assert ids(user, sql) == ids(user, "EXECUTE p") == [id]


@pytest.fixture(scope="module")
def secured(world):
    table = world.many("secured")
    world.dba.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    world.dba.run(f"CREATE POLICY p ON {table} USING ({POLICY})")
    return table


@pytest.mark.parametrize("condition", ["ssn = 'value 7'", "ssn IN ('value 7', 'absent')", "'value 7'::text = ssn",
                                       "ssn = ANY ('{value 7}'::varchar[])", "ssn = 'value 7' AND note <> 'x'"])
def test_row_level_security_names_the_tenant_and_the_index_is_used(world, secured, condition):
    """Though nothing else may look at a row before its policy has."""
    session = world.reader()
    session.run(f"PREPARE p AS SELECT id FROM {secured} WHERE {condition}")
    for tenant, id in (("acme", ACME(7)), ("bolt", BOLT(7))) * 4:
        session.run(f"SET my.tenant = '{tenant}'")
        for found in by_index(session, f"SELECT id FROM {secured} WHERE {condition}"):
            assert "my.tenant" in found and "cmk.probes(" not in found, found
        assert ids(session, "EXECUTE p") == [id]
    session.run("SET my.tenant = dark")
    with fails("55000", "key_disabled", "dark"):
        session.run("EXECUTE p")


@pytest.fixture(scope="module")
def parted(world):
    """By tenant; the partition of bolt has its columns in another order. And a child by inheritance."""
    dba = world.dba
    dba.run(f"CREATE TABLE parted ({SHAPE.replace(' PRIMARY KEY', '')}) PARTITION BY LIST (tenant_id)")
    dba.run("CREATE TABLE parted_acme PARTITION OF parted FOR VALUES IN ('acme')")
    dba.run("CREATE TABLE parted_bolt (note text, ssn text, dropped int, tenant_id text, id int)")
    dba.run("ALTER TABLE parted_bolt DROP dropped")
    dba.run("ALTER TABLE parted ATTACH PARTITION parted_bolt FOR VALUES IN ('bolt')")
    protect(dba, "parted", "ssn", searchable=True)
    dba.run("CREATE INDEX ON parted (ssn cmk_token_ops)")
    dba.run("GRANT ALL ON parted TO PUBLIC")
    dba.run("INSERT INTO parted SELECT n, (ARRAY['acme', 'bolt'])[1 + n % 2], 'value ' || n / 2, 'n'"
            f" FROM generate_series(1, {MANY}) n")
    dba.run("ANALYZE parted")
    return "parted"


def test_partitions_are_searched_by_their_indexes(user, parted):
    sql = f"SELECT id FROM {parted} WHERE ssn = 'value 7'"
    assert len(by_index(user, sql)) == 2
    assert ids(user, sql) == [ACME(7), BOLT(7)]
    assert len(by_index(user, f"{sql} AND tenant_id = 'bolt'")) == 1
    assert ids(user, f"{sql} AND tenant_id = 'bolt'") == [BOLT(7)]
    user.run(f"PREPARE p(text, text) AS SELECT id FROM {parted} WHERE ssn = $2 AND tenant_id = $1")
    for _ in range(8):
        assert ids(user, "EXECUTE p('acme', 'value 9')") == [ACME(9)]
    moved = f"UPDATE {parted} SET tenant_id = 'acme' WHERE tenant_id = 'bolt' AND ssn = 'value 7' RETURNING id"
    with user.connection.transaction(force_rollback=True):
        assert ids(user, moved) == [BOLT(7)]
        assert ids(user, f"{sql} AND tenant_id = 'acme'") == [ACME(7), BOLT(7)]


def test_an_inheritance_child_is_searched_with_its_parent(world, dba, user):
    table = world.searchable(unique("parent"), [(1, "acme", "x", "n")])
    dba.run(f"CREATE TABLE {table}_child () INHERITS ({table})")
    protect(dba, table, "ssn", searchable=True)
    dba.run(f"CREATE INDEX ON {table}_child (ssn cmk_token_ops)")
    dba.run(f"INSERT INTO {table}_child VALUES (2, 'bolt', 'x', 'n')")
    user.run("SET enable_seqscan = off")
    sql = f"SELECT id FROM {table} WHERE ssn = 'x'"
    assert len(by_index(user, sql)) == 2
    assert ids(user, sql) == [1, 2]


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
