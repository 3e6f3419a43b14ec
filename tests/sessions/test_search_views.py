"""Search through views, row-level security, partitions and children: by index, and for the tenant that they name."""

import pytest

from columns import SHAPE, dba, opened, protect  # noqa: F401 (fixtures)
from searching import ACME, BOLT, MANY, by_index, ids, world  # noqa: F401 (fixtures)
from support import fails, unique

POLICY = "tenant_id = current_setting('my.tenant')"


@pytest.fixture(scope="module")
def many(world):
    return world.many("many")


@pytest.fixture
def user(world):
    """With grants for acme, bolt, `dark`, and others whose values nobody can read."""
    return world.reader()


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
