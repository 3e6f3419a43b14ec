"""Protection under any name, after every rename, in every schema, and through a dump."""

import pytest

from dumps import client, run_script
from protected import SECRET, Table, make_table, plaintexts
from support import fails, fails_with, grant, unique

NAMES = [
    'with "quotes" and \'more\'', "with spaces", "Größe·東京", "UPPER", "select", "back\\slash", "new", "x" * 63,
    "é" * 31, "semi;colon", "$1", "100%",
]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_kinds(dba, owner, local_tenant, name):
    tenant, schema = local_tenant(), unique("schema")
    dba.run(f"CREATE SCHEMA {schema} AUTHORIZATION {owner.role}")
    label = quoted(name)
    table = Table(owner, f"{schema}.{label}")
    other = quoted(("t" + name)[:30])
    owner.run(f"CREATE TABLE {table} (id int, {other} text NOT NULL, {label} text, CHECK ({label} <> ''))")
    owner.run(f"INSERT INTO {table} SELECT n, '{tenant}', '{SECRET}' || n FROM generate_series(1, 10) n")
    owner.run(f"CREATE VIEW {schema}.{quoted('v' + name[:30])} AS SELECT {label} FROM {table}")
    table.protect(name, tenant_column=("t" + name)[:30], views="recreate", rewrite=False)
    table.seal()
    assert (table.unsealed(name), table.values(label)) == (0, plaintexts(10))
    owner.run(f"UPDATE {table} SET {label} = 'x' WHERE id = 10")
    assert table.values(label)[-1] == "x"
    with fails_with("23514"):
        owner.run(f"UPDATE {table} SET {label} = ''")
    table.unprotect(name, views="recreate")
    assert table.type_of(name) == "text"


def test_every_rename_is_followed(dba, owner, local_tenant, role):
    table, schema = make_table(owner, [local_tenant()]), unique("schema")
    table.protect(tenant_column="tenant_id", label="fixed")
    dba.run(f"CREATE SCHEMA {schema} AUTHORIZATION {owner.role}")
    for sql in (
        "ALTER TABLE {} RENAME ssn TO number", "ALTER TABLE {} RENAME tenant_id TO customer",
        "ALTER TABLE {} RENAME CONSTRAINT cmk_sealed_ssn TO other",
    ):
        owner.run(sql.format(table))
    owner.run(f"ALTER TABLE {table} SET SCHEMA {schema}")
    owner.run(f"ALTER TABLE {schema}.{table} RENAME TO persons")
    moved = Table(owner, f"{schema}.persons")
    owner.run(f"UPDATE {moved} SET number = 'x' WHERE id = 1")
    assert moved.values("number") == ["x", *plaintexts()[1:]]
    assert (moved.unsealed("number"), moved.problems("number")) == (0, [])
    assert owner.row('SELECT label, tenant FROM cmk.protected_columns WHERE "table" = %s::regclass', moved.name) == (
        "fixed", "customer",
    )
    new_owner = role()
    dba.run(f"ALTER TABLE {moved} OWNER TO {new_owner}")
    dba.run(f"GRANT ALL ON {moved} TO {owner.role}")
    owner.run(f"UPDATE {moved} SET number = 'y' WHERE id = 1")
    assert moved.values("number")[0] == "y"


def test_two_tables_of_one_name_do_not_share_a_label(dba, owner, local_tenant):
    tenant, schemas = local_tenant(), [unique("schema"), unique("schema")]
    for schema in schemas:
        dba.run(f"CREATE SCHEMA {schema} AUTHORIZATION {owner.role}")
        owner.run(f"CREATE TABLE {schema}.accounts_{tenant} (tenant_id text NOT NULL, ssn text)")
        Table(owner, f"{schema}.accounts_{tenant}").protect(tenant_column="tenant_id")
    assert {label for (label,) in owner.all("SELECT label FROM cmk.protected_columns WHERE owner = %s", owner.role)} == {
        f"accounts_{tenant}.ssn", f"{schemas[1]}.accounts_{tenant}.ssn",
    }


def test_postgresql_guards_the_tenant_column(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    table.protect(tenant_column="tenant_id")
    with fails_with("2BP01"):
        owner.run(f"ALTER TABLE {table} DROP COLUMN tenant_id")
    owner.run(f"ALTER TABLE {table} DROP COLUMN tenant_id CASCADE")
    with fails("55000", "protection_lost"):
        owner.run(f'CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION cmk.seal()')
        owner.run(f"INSERT INTO {table} VALUES (100, 'plain')")
    assert table.values() == plaintexts()


def test_a_table_of_1600_columns(owner, local_tenant):
    tenant = local_tenant()
    table = Table(owner, unique("wide"))
    more = ", ".join(f"c{n} int" for n in range(1596))
    owner.run(f"CREATE TABLE {table} (id int, tenant_id text NOT NULL, {more}, ssn text, note text)")
    owner.run(f"INSERT INTO {table} (id, tenant_id, ssn, note) VALUES (1, %s, 'a', 'b')", tenant.name)
    table.protect(tenant_column="tenant_id", rewrite=False)
    table.protect("note", tenant_column="tenant_id", rewrite=True)
    table.seal()
    owner.run(f"INSERT INTO {table} (id, tenant_id, ssn, note) VALUES (2, %s, 'c', 'd')", tenant.name)
    assert (table.values(), table.values("note")) == (["a", "c"], ["b", "d"])
    assert (table.unsealed(), table.unsealed("note")) == (0, 0)


def test_a_temporary_table(owner, local_tenant):
    tenant = local_tenant()
    table = Table(owner, unique("temp"))
    owner.run(f"CREATE TEMPORARY TABLE {table} (id int, tenant_id text NOT NULL, ssn text)")
    owner.run(f"INSERT INTO {table} VALUES (1, %s, %s)", tenant.name, SECRET)
    table.protect(tenant_column="tenant_id", rewrite=False)
    table.seal()
    assert (table.unsealed(), table.values()) == (0, [SECRET])
    table.unprotect()
    assert table.values() == [SECRET]


def test_an_empty_search_path(owner, local_tenant):
    made = make_table(owner, [local_tenant()])
    owner.run("SET search_path = ''")
    table = Table(owner, f"{owner.role}.{made}")
    table.protect(tenant_column="tenant_id", rewrite=False)
    table.seal()
    owner.run(f"UPDATE {table} SET ssn = 'x' WHERE id = 1")
    assert (table.unsealed(), table.values()) == (0, ["x", *plaintexts()[1:]])
    table.unprotect()
    assert table.values() == ["x", *plaintexts()[1:]]


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_dump_keeps_constraint_trigger_and_comment(server, session, role, database, form, validated):
    source, target, name = database(), database(extension=False), role()
    dba = session(dbname=source)
    tenant = unique("tenant")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant)
    grant(dba, tenant, name)
    grant(dba, tenant, "postgres")
    dba.run(f"CREATE SCHEMA AUTHORIZATION {name}")
    user = session(name, dbname=source)
    user.run("SET cmk_encrypt.output = plaintext")
    table = make_table(user, [tenant])
    table.protect(tenant_column="tenant_id", rewrite=validated)
    if form == "plain":
        dump = client(server, "pg_dump", source)
        assert validated == (SECRET.encode() not in dump)
        run_script(server, target, dump)
    else:
        client(server, "pg_restore", "--exit-on-error", "-d", target, input=client(server, "pg_dump", "-Fc", source))
    restored = session(name, dbname=target)
    restored.run("SET cmk_encrypt.output = plaintext")
    there = Table(restored, table.name)
    assert (there.checks(), there.triggers()) == (table.checks(), {"~cmk_seal": "A"})
    assert there.values() == plaintexts()
    if not validated:
        there.seal()
    assert there.unsealed() == 0
    there.unprotect()
    assert (there.type_of(), there.values()) == ("text", plaintexts())
