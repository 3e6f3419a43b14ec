"""cmk.protect_column() names everything that is in the way, at once and before it takes any lock."""

import pytest

from protected import Table, make_table
from support import fails, unique

# What is there, with {t} for the table and {n} for a name of one's own, and the line that names it.
# {t} and {n} stand with their schema in the lines.
ONLY_SEARCHABLE = "contains it: drop it, or make the column searchable"
USES = {
    "index": ("CREATE INDEX {n} ON {t} (ssn)", f"index {{n}} {ONLY_SEARCHABLE}"),
    "hash index": ("CREATE INDEX {n} ON {t} USING hash (ssn)", f"index {{n}} {ONLY_SEARCHABLE}"),
    "second column": ("CREATE INDEX {n} ON {t} (tenant_id, ssn)", f"index {{n}} {ONLY_SEARCHABLE}"),
    "unique index": ("CREATE UNIQUE INDEX {n} ON {t} (ssn)", f"unique index {{n}} {ONLY_SEARCHABLE}"),
    "unique constraint": ("ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (ssn)", f"unique index {{n}} {ONLY_SEARCHABLE}"),
    "primary key": (
        "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ADD CONSTRAINT {n} PRIMARY KEY (ssn)", "primary key {n} contains it: no primary key can",
    ),
    "exclusion constraint": (
        "ALTER TABLE {t} ADD CONSTRAINT {n} EXCLUDE USING btree (ssn WITH =)", "exclusion constraint {n} contains it: no exclusion constraint can",
    ),
    "expression": ("CREATE INDEX {n} ON {t} (lower(ssn))", "index {n} uses it in an expression or in WHERE"),
    "partial": ("CREATE INDEX {n} ON {t} (id) WHERE ssn IS NOT NULL", "index {n} uses it in an expression or in WHERE"),
    "partial, included": (
        "CREATE INDEX {n} ON {t} (id) INCLUDE (ssn) WHERE ssn > ''", "index {n} uses it in an expression or in WHERE",
    ),
    "foreign key": (
        "CREATE TABLE {n} (ssn text PRIMARY KEY); INSERT INTO {n} SELECT ssn FROM {t};"
        " ALTER TABLE {t} ADD CONSTRAINT {n} FOREIGN KEY (ssn) REFERENCES {n}",
        "foreign key {bare} of {t} contains it",
    ),
    "generated column": (
        "ALTER TABLE {t} ADD upper text GENERATED ALWAYS AS (upper(ssn)) STORED", "generated column upper of {t} uses it",
    ),
    "view": ("CREATE VIEW {n} AS SELECT ssn FROM {t}", "view {n} uses it"),
    "view that only tests it": ("CREATE VIEW {n} AS SELECT id FROM {t} WHERE ssn > ''", "view {n} uses it"),
    "materialized view": ("CREATE MATERIALIZED VIEW {n} AS SELECT ssn FROM {t}", "materialized view {n} uses it"),
    "rule": (
        "CREATE TABLE {n} (ssn text); CREATE RULE noted AS ON INSERT TO {n} DO ALSO UPDATE {t} SET ssn = new.ssn",
        "rule noted on {n} uses it",
    ),
    "policy": ("CREATE POLICY mine ON {t} USING (ssn <> '')", "policy mine on {t} uses it"),
    "policy elsewhere": (
        "CREATE TABLE {n} (ssn text); CREATE POLICY known ON {n} USING (EXISTS (SELECT FROM {t} t WHERE t.ssn = {n}.ssn))",
        "policy known on {n} uses it",
    ),
    "trigger when": (
        "CREATE TRIGGER watch BEFORE UPDATE ON {t} FOR EACH ROW WHEN (new.ssn > '') EXECUTE FUNCTION"
        " suppress_redundant_updates_trigger()",
        "trigger watch on {t} names it in UPDATE OF or WHEN",
    ),
    "trigger update of": (
        "CREATE TRIGGER watch BEFORE UPDATE OF ssn ON {t} FOR EACH ROW EXECUTE FUNCTION"
        " suppress_redundant_updates_trigger()",
        "trigger watch on {t} names it in UPDATE OF or WHEN",
    ),
    "row type": ("CREATE TABLE {n} (row {t})", "{n} has a column of the row type of {t}"),
    "array of the row type in a composite type": (
        "CREATE TYPE {n}_type AS (rows {t}[]); CREATE TABLE {n} (x {n}_type)", "{n} has a column of the row type of {t}",
    ),
    "extended statistics": ("CREATE STATISTICS {n} ON ssn, tenant_id FROM {t}", "statistics object {n} uses it"),
    "expression in statistics": ("CREATE STATISTICS {n} ON (lower(ssn)) FROM {t}", "statistics object {n} uses it"),
    "function in SQL": (
        "CREATE FUNCTION {n}() RETURNS text RETURN (SELECT max(ssn) FROM {t})", "function {n}() uses it",
    ),
    "column of the tenant": (
        "ALTER TABLE {t} ADD other text; SELECT cmk.protect_column('{t}', 'other', 'ssn')",
        "it tells the tenant of other protected columns of {t}",
    ),
}


def lay(owner, table, sql, line, name=None):
    name = name or unique("thing")
    for statement in sql.format(t=table, n=name).split(";"):
        owner.run(statement)
    full = {"t": f"{owner.role}.{table}", "n": f"{owner.role}.{name}", "bare": name}
    return line.format(**full)


@pytest.mark.parametrize("case", USES)
def test_each_use_is_named(owner, local_tenant, case):
    table = make_table(owner, [local_tenant()], rows=3)
    line = lay(owner, table, *USES[case])
    assert table.obstacles(tenant_column="tenant_id") == [line]
    assert table.type_of() == "text"


def test_a_publication_that_filters_by_it_is_named(dba, owner, local_tenant):
    if dba.connection.info.server_version < 150000:
        pytest.skip("publications have no filters")
    table, publication = make_table(owner, [local_tenant()]), unique("pub")
    dba.run(f"CREATE PUBLICATION {publication} FOR TABLE {owner.role}.{table} (id, tenant_id) WHERE (ssn <> '')")
    try:
        assert table.obstacles(tenant_column="tenant_id") == [
            f"publication of table {owner.role}.{table} in publication {publication} uses it"
        ]
    finally:
        dba.run(f"DROP PUBLICATION {publication}")


def test_everything_is_named_at_once_in_the_table_and_its_children(owner, local_tenant):
    table = make_table(owner, [local_tenant()], rows=3)
    child = Table(owner, unique("child"))
    apart = {"primary key", "column of the tenant", "trigger when", "row type", "array of the row type in a composite type"}
    lines = [lay(owner, table, *use) for case, use in USES.items() if case not in apart]
    owner.run(f"CREATE TABLE {child} () INHERITS ({table})")
    lines.append(lay(owner, child, *USES["index"]))
    lines.append(lay(owner, child, *USES["view"]))
    # The child has a column of its own for the generated one.
    lines.append(f"generated column upper of {owner.role}.{child} uses it")
    owner.run(f"CREATE TABLE {table}_ref (ssn text REFERENCES {table} (ssn))")
    lines.append(f"foreign key {table}_ref_ssn_fkey of {owner.role}.{table}_ref refers to it")
    assert sorted(set(table.obstacles(tenant_column="tenant_id"))) == sorted(set(lines))


def test_obstacles_are_told_while_somebody_else_has_the_table(session, owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    line = lay(owner, table, *USES["index"])
    other = session(owner.role)
    other.run("BEGIN")
    other.run(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    owner.run("SET lock_timeout = '1s'")
    assert table.obstacles(tenant_column="tenant_id") == [line]
    other.run("ROLLBACK")


@pytest.mark.parametrize(
    "columns,column,line",
    [
        ("x int", "x", "its type is integer: of what can be protected, text is nearest"),
        ("x text[]", "x", "its type is text[]: of what can be protected, text is nearest"),
        ("x timestamptz", "x", "its type is timestamp with time zone: of what can be protected, text is nearest"),
        ("y text, x text GENERATED ALWAYS AS (lower(y)) STORED", "x", "it is a generated column"),
        ("x int GENERATED ALWAYS AS IDENTITY", "x", "it is an identity column"),
        ("x text", "y", "there is no column y in {t}"),
        ("x text", "ctid", "there is no column ctid in {t}"),
        ("x text", "X", 'there is no column "X" in {t}'),
        ("x char(3)", "x", "its type character(3) needs rewrite => true, which locks the table while it is rewritten"),
    ],
)
def test_a_column_that_is_none_to_protect(owner, columns, column, line):
    table = Table(owner, unique("users"))
    owner.run(f"CREATE TABLE {table} (id int, {columns})")
    assert table.obstacles(column=column) == [line.format(t=f"{owner.role}.{table}")]


def test_a_domain(owner):
    table, name = Table(owner, unique("users")), unique("thing")
    owner.run(f"CREATE DOMAIN {name} AS text CHECK (VALUE <> '')")
    owner.run(f"CREATE TABLE {table} (x {name})")
    assert table.obstacles(column="x") == [
        f"its type {owner.role}.{name} is a domain: change it to the type beneath, with the checks on the column"
    ]


def test_a_collation_that_is_not_deterministic(owner):
    if owner.one("SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'") == 0:
        pytest.skip("a server without ICU")
    table, name = Table(owner, unique("users")), unique("thing")
    owner.run(f"CREATE COLLATION {name} (provider = icu, locale = 'und', deterministic = false)")
    owner.run(f"CREATE TABLE {table} (x text COLLATE {name})")
    assert table.obstacles(column="x") == ["its collation is not deterministic"]


def test_relations_that_are_no_tables_of_users(dba, owner):
    name = unique("thing")
    owner.run(f"CREATE VIEW {name} AS SELECT 'x'::text AS ssn")
    owner.run(f"CREATE MATERIALIZED VIEW {name}_m AS SELECT 'x'::text AS ssn")
    for relation in (name, f"{name}_m"):
        assert Table(owner, relation).obstacles() == [f"{owner.role}.{relation} is not a table"]
    for relation in ("cmk.tenant", "pg_catalog.pg_description"):
        shown = relation.removeprefix("pg_catalog.")
        assert Table(dba, relation).obstacles(column="description") == [f"{shown} belongs to the system, or to cmk_encrypt"]


def test_partitions_partition_keys_and_foreign_tables(dba, owner):
    name = unique("parts")
    owner.run(f"CREATE TABLE {name} (id int, k text, e text, v text) PARTITION BY RANGE (k, lower(e))")
    owner.run(f"CREATE TABLE {name}_1 PARTITION OF {name} DEFAULT")
    for column in ("k", "e"):
        assert Table(owner, name).obstacles(column=column) == [f"{owner.role}.{name} is partitioned by it"]
    assert Table(owner, f"{name}_1").obstacles(column="v") == [
        f"{owner.role}.{name}_1 inherits the column: do it in the parent, {owner.role}.{name}"
    ]
    dba.run(f"CREATE FOREIGN DATA WRAPPER {name}")
    dba.run(f"CREATE SERVER {name} FOREIGN DATA WRAPPER {name}")
    dba.run(f"GRANT USAGE ON FOREIGN SERVER {name} TO {owner.role}")
    owner.run(f"CREATE TABLE {name}_l (id int, v text) PARTITION BY LIST (id)")
    owner.run(f"CREATE FOREIGN TABLE {name}_f PARTITION OF {name}_l DEFAULT SERVER {name}")
    assert Table(owner, f"{name}_l").obstacles(column="v") == [
        f"partition or child {owner.role}.{name}_f is a foreign table"
    ]


def test_a_child_of_two_parents(owner):
    name = unique("family")
    owner.run(f"CREATE TABLE {name}_a (ssn text)")
    owner.run(f"CREATE TABLE {name}_b (ssn text)")
    owner.run(f"CREATE TABLE {name}_c () INHERITS ({name}_a, {name}_b)")
    assert Table(owner, f"{name}_a").obstacles() == [
        f"{owner.role}.{name}_c inherits the column from {owner.role}.{name}_b, too"
    ]


@pytest.mark.parametrize(
    "arguments,line",
    [
        ({"tenant_column": "nobody"}, "there is no tenant column nobody"),
        ({"tenant_column": "ssn"}, "the tenant column is the column itself"),
        ({"tenant_column": "sealed"}, "the tenant column sealed is protected"),
        ({"tenant_column": "made"}, "the tenant column made is generated after the value is sealed"),
        ({"tenant_column": "born"}, "the tenant column born is of type date, which names no tenant"),
        ({"tenant_column": "tenant_id", "tenant_expression": "tenant_id"},
         "tenant_column and tenant_expression are both given"),
        ({"tenant_expression": "nothing(id)"}, "tenant_expression: function nothing(integer) does not exist"),
        ({"tenant_expression": "(SELECT 'x')"}, "tenant_expression: cannot use subquery in check constraint"),
        ({"tenant_expression": "id); DROP TABLE x; --"}, 'tenant_expression: syntax error at or near ";"'),
        ({"label": ""}, "the label is empty"),
        ({"label": "taken"}, "the label 'taken' is that of column sealed, too"),
        ({"views": "drop"}, "views can be refuse or recreate"),
    ],
)
def test_arguments_that_make_no_sense(owner, local_tenant, arguments, line):
    columns = "ssn text, sealed text, made text GENERATED ALWAYS AS (id::text) STORED, born date"
    table = make_table(owner, [local_tenant()], rows=0, columns=columns)
    table.protect("sealed", tenant_column="tenant_id", label="taken")
    assert table.obstacles(**arguments) == [line]


@pytest.mark.parametrize("argument", ["table", "column"])
def test_a_null_is_an_error(owner, argument):
    values = {"table": None, "column": "x"} if argument == "table" else {"table": "pg_class", "column": None}
    for call in ("protect_column(%s, %s)", "unprotect_column(%s, %s)", "unsealed_rows(%s, %s)"):
        with fails("22004", "null_argument") as caught:
            owner.run(f"SELECT cmk.{call}", values["table"], values["column"])
        assert f"argument={argument}" in caught.value.diag.message_detail
