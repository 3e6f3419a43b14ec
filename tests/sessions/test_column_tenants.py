"""Where a protected value's tenant comes from: a column of any type, the setting, a parent row, a cascade."""

import pytest

from columns import SHAPE, app, dba, envelopes, opened, plain, reader, tags, unchanged, world  # noqa: F401 (fixtures)
from support import fails, grant, unique


# A column

KINDS = {"uuid": "7d0e8a3c-3d4f-4c1e-9b1a-5f0d8a1b2c3d", "int": "7", "bigint": "-9000000000", "varchar(20)": "Kundin 1"}


@pytest.mark.parametrize("kind, name", KINDS.items(), ids=KINDS)
def test_a_tenant_column_of_another_type(world, dba, app, reader, kind, name):
    if not dba.one("SELECT count(*) FROM cmk.tenant WHERE tenant = %s", name):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
        grant(dba, name, app.role)
    table = world.make(unique("kind"), shape=SHAPE.replace("tenant_id text", f"tenant_id {kind}"))
    with app.counts(seals=1):
        app.run(f"INSERT INTO {table} VALUES (1, %s, 'x')", name)
    assert plain(reader, table) == {1: "x"}
    assert envelopes(world.dba, table)[1][18:26] == tags(name, "")[:8]


def test_the_tenant_may_be_the_same_domain_or_enum_for_two_columns(world, dba, app, reader):
    kind = unique("kind")
    dba.run(f"CREATE TYPE {kind} AS ENUM ('bolt', 'acme')")
    table = world.make(unique("t"), shape=SHAPE.replace("tenant_id text", f"tenant_id {kind}"))
    app.run(f"INSERT INTO {table} VALUES (1, 'acme', 'x', 'y'), (2, 'bolt', 'z', NULL)")
    assert plain(reader, table, "ssn, note") == {1: ("x", "y"), 2: ("z", None)}


# The setting


@pytest.fixture
def by_setting(world):
    return world.make(unique("s"), shape="id int PRIMARY KEY, tenant_id text, ssn text, note text", tenant=None)


def test_the_tenant_of_the_setting(world, dba, app, reader, by_setting):
    with fails("55000", "tenant_unset"):
        app.run(f"INSERT INTO {by_setting} VALUES (1, NULL, 'x')")
    app.run(f"INSERT INTO {by_setting} VALUES (1, NULL, NULL)")
    for id, tenant in ((2, "acme"), (3, "bolt")):
        app.run("BEGIN")
        app.run(f"SET LOCAL cmk_encrypt.tenant = '{tenant}'")
        with app.counts(seals=1):
            app.run(f"INSERT INTO {by_setting} VALUES ({id}, NULL, 'of {tenant}')")
        app.run("COMMIT")
    assert plain(reader, by_setting) == {1: None, 2: "of acme", 3: "of bolt"}
    stored = envelopes(dba, by_setting)
    assert [stored[id][18:26] for id in (2, 3)] == [tags(name, "")[:8] for name in ("acme", "bolt")]
    for tenant, sqlstate, reason in (("nosuch", "42704", "unknown_tenant"), ("dark", "55000", "key_disabled")):
        app.run(f"SET cmk_encrypt.tenant = '{tenant}'")
        with fails(sqlstate, reason, tenant):
            app.run(f"INSERT INTO {by_setting} VALUES (9, NULL, 'x')")


def test_with_the_setting_an_update_of_another_column_leaves_the_value_alone(dba, app, by_setting):
    app.run("SET cmk_encrypt.tenant = acme")
    app.run(f"INSERT INTO {by_setting} VALUES (1, NULL, 'x')")
    before = envelopes(dba, by_setting)
    for tenant in ("acme", "bolt", "dark", ""):
        app.run(f"SET cmk_encrypt.tenant = '{tenant}'")
        with app.counts():
            app.run(f"UPDATE {by_setting} SET tenant_id = 'changed'")
    assert envelopes(dba, by_setting) == before


# A parent's row


@pytest.fixture
def family(world, dba):
    """Orders have the tenant, their items have what is protected."""
    orders, items, of = unique("orders"), unique("items"), unique("tenant_of")
    dba.run(f"CREATE TABLE {orders} (id int PRIMARY KEY, tenant_id text)")
    dba.run(f"INSERT INTO {orders} VALUES (1, 'acme'), (2, 'bolt')")
    dba.run(f"GRANT ALL ON {orders} TO PUBLIC")
    dba.run(f"CREATE FUNCTION {of}(int) RETURNS text STABLE LANGUAGE sql"
            f" AS 'SELECT tenant_id FROM public.{orders} WHERE id = $1'")
    shape = f"id int PRIMARY KEY, order_id int REFERENCES {orders}, ssn text, note text"
    return world.make(items, shape=shape, tenant=f"public.{of}(order_id)")


def test_the_tenant_of_a_parent_row(dba, app, reader, family):
    with app.counts(seals=3):
        app.run(f"INSERT INTO {family} VALUES (1, 1, 'a', 'n'), (2, 2, 'b', NULL)")
    assert plain(reader, family, "ssn, note") == {1: ("a", "n"), 2: ("b", None)}
    stored = envelopes(dba, family)
    assert [stored[id][18:26] for id in (1, 2)] == [tags(name, "")[:8] for name in ("acme", "bolt")]
    with app.counts(seals=2, opens=2):
        app.run(f"UPDATE {family} SET order_id = 2 WHERE id = 1")
    assert envelopes(dba, family)[1][18:26] == tags("bolt", "")[:8]
    with app.counts():
        app.run(f"UPDATE {family} SET id = id + 10")
    with fails("23502", "tenant_null"):
        app.run(f"INSERT INTO {family} VALUES (3, 77, 'c', NULL)")


# A foreign key's cascade


@pytest.fixture
def cascading(world, server, dba):
    """Customers, whose id is the tenant of the cases that refer to them; the cases' owner has a role of its own."""
    customers, cases, owner = unique("customers"), unique("cases"), unique("owner")
    server.execute(f"CREATE ROLE {owner} LOGIN")
    dba.run(f"CREATE TABLE {customers} (name text PRIMARY KEY)")
    dba.run(f"INSERT INTO {customers} VALUES ('acme')")
    dba.run(f"GRANT ALL ON {customers} TO PUBLIC")
    shape = SHAPE.replace("tenant_id text", f"tenant_id text REFERENCES {customers} ON UPDATE CASCADE ON"
                                            " DELETE SET NULL")
    world.make(cases, shape=shape)
    dba.run(f"INSERT INTO {cases} VALUES (1, 'acme', 'x')")
    dba.run(f"ALTER TABLE {cases} OWNER TO {owner}")
    return customers, cases, owner


def test_a_cascade_reseals_with_the_grants_of_the_tables_owner(world, dba, reader, cascading):
    customers, cases, owner = cascading
    rename = f"UPDATE {customers} SET name = 'bolt'"
    grant(dba, "acme", owner)
    with unchanged(dba, cases), fails("42501", "no_grant", "bolt"):
        world.connect("app").run(rename)
    grant(dba, "bolt", owner)
    nobody = world.connect("nobody")
    with nobody.counts(1, 1):
        nobody.run(rename)
    assert plain(reader, cases) == {1: "x"}
    assert envelopes(dba, cases)[1][18:26] == tags("bolt", "")[:8]


def test_a_cascade_to_a_tenant_that_is_not_registered_or_null_is_refused(world, dba, cascading):
    customers, cases, owner = cascading
    grant(dba, "acme", owner)
    with unchanged(dba, cases):
        with fails("42704", "unknown_tenant", "nosuch"):
            world.connect("app").run(f"UPDATE {customers} SET name = 'nosuch'")
        with fails("23502", "tenant_null"):
            world.connect("app").run(f"DELETE FROM {customers}")


# Two columns, two tenants


def test_two_columns_with_different_tenants(world, dba, app, reader):
    table = unique("two")
    dba.run(f"CREATE TABLE {table} (id int, buyer text, seller text, a text, b text)")
    dba.run(
        f"ALTER TABLE {table} ALTER a TYPE cmk_text, ALTER b TYPE cmk_text,"
        f" ADD CONSTRAINT cmk_sealed_a CHECK (cmk.sealed(a, '{table}.a', buyer, NULL)),"
        f" ADD CONSTRAINT cmk_sealed_b CHECK (cmk.sealed(b, '{table}.b', seller, NULL))"
    )
    dba.run(
        f'CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN (cmk.seals('
        f"'{table}.a', new.buyer) AND cmk.seals('{table}.b', new.seller) OR true) EXECUTE FUNCTION cmk.seal()"
    )
    dba.run(f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "~cmk_seal"')
    dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    app.run(f"INSERT INTO {table} VALUES (1, 'acme', 'bolt', 'of acme', 'of bolt')")
    assert plain(reader, table, "a, b") == {1: ("of acme", "of bolt")}
    with app.counts(1, 1):
        app.run(f"UPDATE {table} SET seller = 'acme'")
    with app.counts(2, 2):
        app.run(f"UPDATE {table} SET a = b, b = a, seller = 'bolt'")
    assert plain(reader, table, "a, b") == {1: ("of bolt", "of acme")}
    ro = world.connect("ro")
    with fails("42501", "no_grant", "bolt"):
        ro.run(f"INSERT INTO {table} VALUES (2, 'acme', 'bolt', 'x', 'y')")
    ro.run(f"INSERT INTO {table} VALUES (2, 'acme', 'bolt', 'x', NULL)")
