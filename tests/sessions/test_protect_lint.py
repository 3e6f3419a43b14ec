"""cmk.protected_columns: what is protected, and each way in which protection can go bad."""

import pytest

from column import armor
from protected import Table, make_table
from support import fails, fails_with, unique


@pytest.fixture
def table(owner, local_tenant):
    made = make_table(owner, [local_tenant()])
    made.protect(tenant_column="tenant_id")
    assert made.problems() == []
    return made


def test_a_protected_column_is_described(owner, table):
    assert owner.row('SELECT owner, "table"::text, "column", type, label, tenant, options, trigger, validated, problems'
                     ' FROM cmk.protected_columns WHERE "table" = %s::regclass', table.name) == (
        owner.role, table.name, "ssn", "cmk_text", f"{table}.ssn", "tenant_id", None, "always", True, [],
    )


@pytest.mark.parametrize(
    "sql,problems,trigger",
    [
        ('ALTER TABLE {t} DISABLE TRIGGER "~cmk_seal"', ["trigger_not_always: {f}"], "disabled"),
        ('ALTER TABLE {t} ENABLE TRIGGER "~cmk_seal"', ["trigger_not_always: {f}"], "origin"),
        ('ALTER TABLE {t} ENABLE REPLICA TRIGGER "~cmk_seal"', ["trigger_not_always: {f}"], "replica"),
        ('DROP TRIGGER "~cmk_seal" ON {t}', ["trigger_missing: {f}"], "missing"),
        (
            'CREATE OR REPLACE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION cmk.seal()',
            ["trigger_not_always: {f}", "trigger_without_column: {f}"], "origin",
        ),
        (
            'CREATE OR REPLACE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW'
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            ["trigger_missing: {f}"], "missing",
        ),
        ("ALTER TABLE {t} DROP CONSTRAINT cmk_sealed_ssn", ["constraint_missing: {f}"], "always"),
        ("ALTER TABLE {t} DROP COLUMN tenant_id CASCADE", ["constraint_missing: {f}", "trigger_missing: {f}"], "missing"),
        ("ALTER TABLE {t} ALTER ssn SET DEFAULT 'unknown'", ["plaintext_default: {f}"], "always"),
        ("ALTER TABLE {t} ALTER ssn SET DEFAULT gen_random_uuid()::text", [], "always"),
        ("CREATE STATISTICS {n} (ndistinct) ON ssn, tenant_id FROM {t}", ["extended_statistics: {s}.{n}"], "always"),
        ("CREATE MATERIALIZED VIEW {n} AS SELECT ssn FROM {t}", ["materialized_view: {s}.{n}"], "always"),
        (
            "CREATE VIEW {n}_v AS SELECT ssn FROM {t}; CREATE MATERIALIZED VIEW {n} AS SELECT ssn FROM {n}_v",
            ["materialized_view: {s}.{n}"], "always",
        ),
        ("CREATE TABLE {n} () INHERITS ({t})", ["trigger_missing: {s}.{n}"], "always"),
    ],
)
def test_each_problem_is_named(owner, table, sql, problems, trigger):
    names = {"t": table, "n": unique("thing"), "s": owner.role, "f": f"{owner.role}.{table}"}
    for statement in sql.format(**names).split(";"):
        owner.run(statement)
    assert table.problems() == [problem.format(**names) for problem in problems]
    assert owner.one('SELECT trigger FROM cmk.protected_columns WHERE "table" = %s::regclass', table.name) == trigger


def test_an_index_that_includes_the_column_is_named_until_it_is_made_again(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    owner.run(f"CREATE INDEX {table}_inc ON {table} (id) INCLUDE (ssn)")
    table.protect(tenant_column="tenant_id", rewrite=True)
    # A rewrite makes the indexes again, too.
    assert table.problems() == []


def test_copies_without_protection_are_named(owner, table):
    copy, like = Table(owner, unique("copy")), Table(owner, unique("like"))
    owner.run(f"CREATE TABLE {copy} AS SELECT * FROM {table}")
    owner.run(f"CREATE TABLE {like} (LIKE {table} INCLUDING ALL)")
    full = f"{owner.role}.{copy}"
    assert copy.problems() == [f"constraint_missing: {full}", f"trigger_missing: {full}"]
    assert like.problems() == [f"trigger_missing: {owner.role}.{like}"]
    with fails("23514", "not_sealed"):
        owner.run(f"INSERT INTO {like} SELECT 1, 'x', 'plain'")
    # The copies can be protected, under the label that their values have.
    copy.protect(tenant_column="tenant_id", label=f"{table}.ssn")
    copy.seal()
    like.protect()
    assert copy.checks()["cmk_sealed_ssn"][1] is True
    # What is in a copy of ciphertext, nobody can tell: it counts as a place where plaintext was.
    assert (copy.problems(), like.problems()) == ([f"remnants: {full}"], [])


def test_partitions_are_part_of_their_table(owner, local_tenant):
    name, tenant = unique("parts"), local_tenant()
    owner.run(f"CREATE TABLE {name} (id int, tenant_id text NOT NULL, ssn text) PARTITION BY RANGE (id)")
    for number in (1, 2):
        owner.run(f"CREATE TABLE {name}_{number} PARTITION OF {name} FOR VALUES FROM ({number}0) TO ({number + 1}0)")
    owner.run(f"INSERT INTO {name} VALUES (10, %s, 'x'), (20, %s, 'x')", tenant.name, tenant.name)
    table = Table(owner, name)
    table.protect(tenant_column="tenant_id")
    owner.run(f'ALTER TABLE {name}_2 DISABLE TRIGGER "~cmk_seal"')
    assert table.problems() == [f"trigger_not_always: {owner.role}.{name}_2"]
    assert owner.one("SELECT count(*) FROM cmk.protected_columns WHERE owner = %s", owner.role) == 1
    table.protect()
    assert table.problems() == []


def test_everybody_sees_what_is_protected_and_nobody_needs_a_key(session, role, dba, owner, table):
    stranger = session(role())
    rows = stranger.all("SELECT label FROM cmk.protected_columns WHERE owner = %s", owner.role)
    assert rows == [(f"{table}.ssn",)]
    opened = owner.row("SELECT opens FROM cmk.column_stats()")
    table.problems()
    assert table.unsealed() == 0
    assert owner.row("SELECT opens FROM cmk.column_stats()") == opened


def test_unsealed_rows_of_what_is_not_protected(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    with fails("42704", "not_protected") as caught:
        table.unsealed()
    assert f"table={owner.role}.{table} column=ssn" in caught.value.diag.message_detail


def test_the_keys_that_a_dump_needs(dba, owner, local_tenant):
    first, second = local_tenant(), local_tenant()
    table = make_table(owner, [first, second, second], rows=30)
    table.protect(tenant_column="tenant_id")
    dba.run("SELECT cmk.rotate_tenant(%s)", first.name)
    owner.run(f"UPDATE {table} SET ssn = 'newer' WHERE id = 3")
    full = f"{owner.role}.{table}"
    needed = f"SELECT tenant, version, state, \"table\"::text, column_name, \"values\" FROM cmk.dump_keys_needed('{full}')"
    assert dba.all(needed) == sorted([
        (first.name, 1, "retired", full, "ssn", 9), (first.name, 2, "current", full, "ssn", 1),
        (second.name, 1, "current", full, "ssn", 20),
    ])
    assert set(dba.all(needed)) <= set(dba.all(needed.replace(f"'{full}'", "")))
    # A data key that the registry lacks is named by its id alone.
    envelope = owner.one(f"SELECT cmk.envelope(ssn) FROM {table} WHERE id = 1")
    foreign = armor(envelope[:2] + bytes(16) + envelope[18:])
    dba.run("SET cmk_encrypt.input = envelope")
    dba.run(f"INSERT INTO {full} VALUES (31, %s, %s)", second.name, foreign)
    assert dba.all(f'SELECT tenant, version, dek_id, "values" FROM cmk.dump_keys_needed(\'{full}\') WHERE tenant IS NULL') == [
        (None, None, bytes(16), 1)
    ]
    with fails_with("42501"):
        owner.run(needed)
