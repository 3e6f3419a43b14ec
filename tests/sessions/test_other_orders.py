"""Partitions and children whose columns have other numbers than their parent's keep every value."""

import psycopg
import pytest

from columns import dba, opened  # noqa: F401 (fixtures)
from searching import world  # noqa: F401 (fixture)
from support import unique

VALUES = {1: None, 2: "078-05-1120", 3: "536-90-4399", 4: ""}


def partition_of_a_table_that_lost_a_column(name, type):
    return [
        f"CREATE TABLE {name} (legacy int, id int, tenant text NOT NULL, v {type}, note text) PARTITION BY LIST (tenant)",
        f"ALTER TABLE {name} DROP COLUMN legacy",
        f"CREATE TABLE {name}_a PARTITION OF {name} FOR VALUES IN ('acme')",
    ]


def attached_partition(name, type):
    return [
        f"CREATE TABLE {name} (id int, tenant text NOT NULL, v {type}, note text) PARTITION BY LIST (tenant)",
        f"CREATE TABLE {name}_a (note text, v {type}, tenant text NOT NULL, id int)",
        f"ALTER TABLE {name} ATTACH PARTITION {name}_a FOR VALUES IN ('acme')",
    ]


def child(name, type):
    return [
        f"CREATE TABLE {name} (id int, tenant text NOT NULL, v {type}, note text)",
        f"CREATE TABLE {name}_a (more int, note text, v {type}, id int, tenant text NOT NULL)",
        f"ALTER TABLE {name}_a INHERIT {name}",
    ]


def as_type(value, type):
    return value if value is None or type != "jsonb" else f'"{value}"'


@pytest.fixture(params=[partition_of_a_table_that_lost_a_column, attached_partition, child])
def make(request, dba):
    made = []

    def make(type):
        name = unique("orders")
        made.append(name)
        for statement in request.param(name, type):
            dba.run(statement)
        into = f"{name}_a" if request.param is child else name
        for id, value in VALUES.items():
            dba.run(f"INSERT INTO {into} (id, tenant, v, note) VALUES (%s, 'acme', %s::text::{type}, %s)", id,
                    as_type(value, type), None if id % 2 else "note")
        return name

    yield make
    for name in made:
        dba.run(f"DROP TABLE {name} CASCADE")


def values(dba, name, type):
    dba.run("SET cmk_encrypt.output = plaintext")
    cast = "v #>> '{}'" if type == "jsonb" else "convert_from(v, 'utf8')" if type == "bytea" else "v::text"
    return dict(dba.all(f"SELECT id, {cast} FROM {name}"))


@pytest.mark.parametrize("type", ["text", "varchar(20)", "jsonb", "bytea"])
@pytest.mark.parametrize("tenant", ["tenant_column => 'tenant'", "tenant_expression => 'lower(tenant)'"])
def test_a_rewrite_keeps_every_value(dba, make, type, tenant):
    name = make(type)
    dba.run(f"SELECT cmk.protect_column('{name}', 'v', {tenant}, rewrite => true)")
    assert values(dba, name, type) == VALUES
    assert dba.one(f"SELECT count(*) FROM {name} WHERE NOT cmk.is_sealed(v)") == 0
    assert dba.one(f"SELECT array_agg(id ORDER BY id) FROM {name} WHERE v IS NULL") == [1]


@pytest.mark.parametrize("searchable", ["true", "false"])
def test_so_does_a_rewrite_that_changes_how_values_are_found(dba, make, searchable):
    name = make("text")
    before = {"true": "false", "false": "true"}[searchable]
    dba.run(f"SELECT cmk.protect_column('{name}', 'v', tenant_column => 'tenant', rewrite => false, searchable => {before})")
    dba.run(f"UPDATE {name} SET v = v || '' WHERE id = 3")
    for (index,) in dba.all("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass", name):
        dba.run(f"DROP INDEX {index}")
    dba.run(f"SELECT cmk.protect_column('{name}', 'v', searchable => {searchable}, rewrite => true)")
    assert values(dba, name, "text") == VALUES
    if searchable == "false":
        dba.run(f"SELECT cmk.unprotect_column('{name}', 'v')")
    assert values(dba, name, "text") == VALUES


@pytest.mark.parametrize("test", ["note IS NULL", "note IS NOT NULL", "note ISNULL", "(id > 2) IS TRUE", "(id > 2) IS NOT UNKNOWN"])
def test_an_expression_that_alter_table_would_get_wrong_is_refused(dba, make, test):
    name = make("text")
    protect = f"SELECT cmk.protect_column('{name}', 'v', tenant_expression => $$CASE WHEN {test} THEN 'acme' ELSE 'bolt' END$$"
    for rewrite in ("", ", rewrite => true"):
        with pytest.raises(psycopg.Error, match="not_protectable|cannot be protected|ALTER TABLE gets wrong") as refused:
            dba.run(f"{protect}{rewrite})")
        assert "IS DISTINCT FROM" in refused.value.diag.message_detail
    dba.run(f"{protect}, rewrite => false)")
    dba.run(f"CALL cmk.seal_table('{name}')")
    assert values(dba, name, "text") == VALUES
    whose = dict(dba.all(f"SELECT id, cmk.sealed_for(v) FROM {name}"))
    plain = dict(dba.all(f"SELECT id, CASE WHEN {test} THEN 'acme' ELSE 'bolt' END FROM {name}"))
    assert {id: of for id, of in whose.items() if of} == {id: of for id, of in plain.items() if VALUES[id] is not None}
