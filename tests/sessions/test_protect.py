"""cmk.protect_column(): what becomes of the column, of the table, and of those who use it."""

import psycopg
import pytest

from protected import SECRET, Table, file_of, hear, make_table, plaintexts
from support import fails, fails_with, unique


def test_the_online_way_keeps_the_file_and_seals_what_comes_later(owner, local_tenant):
    table = make_table(owner, [local_tenant(), local_tenant()])
    before = table.file()
    said = table.protect(tenant_column="tenant_id", rewrite=False)
    assert "CALL cmk.seal_table(" in said
    assert (table.file(), table.type_of()) == (before, "cmk_text")
    assert table.checks()["cmk_sealed_ssn"][1] is False
    assert table.triggers() == {"~cmk_seal": "A"}
    owner.run(f"UPDATE {table} SET ssn = 'new' WHERE id = 1")
    owner.run(f"INSERT INTO {table} SELECT 21, tenant_id, 'newer' FROM {table} WHERE id = 1")
    assert table.unsealed() == 19
    assert table.values() == ["new", *plaintexts()[1:], "newer"]


def test_a_rewrite_leaves_no_plaintext_in_the_table_and_validates(server, dba, owner, local_tenant):
    table = make_table(owner, [local_tenant()], rows=500)
    assert SECRET.encode() in file_of(server, dba, f"{owner.role}.{table}")
    before = table.file()
    said = table.protect(tenant_column="tenant_id", rewrite=True)
    assert "all its values are sealed" in said
    assert table.file() != before
    assert SECRET.encode() not in file_of(server, dba, f"{owner.role}.{table}")
    assert table.checks()["cmk_sealed_ssn"][1] is True
    assert (table.unsealed(), table.values()) == (0, plaintexts(500))
    assert table.problems() == []


def test_a_small_table_is_rewritten_unless_told_otherwise(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    assert "all its values are sealed" in table.protect(tenant_column="tenant_id")
    assert table.unsealed() == 0


def test_a_table_of_more_than_10_megabytes_is_not_rewritten_unless_told_so(owner, local_tenant):
    table = make_table(owner, [local_tenant()], rows=1)
    owner.run(f"ALTER TABLE {table} ADD filler text")
    owner.run(f"ALTER TABLE {table} ALTER filler SET STORAGE EXTERNAL")
    owner.run(f"UPDATE {table} SET filler = repeat('x', 11000000)")
    before = table.file()
    assert "CALL cmk.seal_table(" in table.protect(tenant_column="tenant_id")
    assert table.file() == before


def test_a_small_table_with_a_dark_tenant_is_protected_online(dba, owner, local_tenant):
    bright, dark = local_tenant(), local_tenant()
    table = make_table(owner, [bright, dark])
    dba.run("SELECT cmk.suspend_tenant(%s)", str(dark))
    heard = hear(owner)
    assert "CALL cmk.seal_table(" in table.protect(tenant_column="tenant_id")
    assert ("NOTICE", f"reason=tenant_suspended tenant={dark}") in [(said[0], said[2]) for said in heard]
    # Whoever insists is refused, before anything happened.
    other = make_table(owner, [bright, dark])
    with fails("55000", "tenant_suspended", dark):
        other.protect(tenant_column="tenant_id", rewrite=True)
    assert other.type_of() == "text"


def test_an_empty_table_is_valid_at_once(owner, local_tenant):
    table, heard = make_table(owner, [local_tenant()], rows=0), hear(owner)
    table.protect(tenant_column="tenant_id")
    assert not any("plaintext" in message for _, message, _, _ in heard)
    assert table.checks()["cmk_sealed_ssn"][1] is True
    table.seal()
    assert table.problems() == []


def test_a_length_stays_and_is_enforced_in_characters(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant], rows=0, columns="ssn varchar(20)")
    insert = f"INSERT INTO {table} VALUES (%s, %s, %s)"
    owner.run(insert, 0, tenant.name, "old")
    before = table.file()
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert (table.type_of(), table.file()) == ("cmk_text(20)", before)
    owner.run(insert, 1, tenant.name, "é" * 20)
    with fails("22001", "too_long"):
        owner.run(insert, 2, tenant.name, "é" * 21)
    owner.run(f"ALTER TABLE {table} ALTER ssn TYPE cmk_text(50)")
    owner.run(insert, 2, tenant.name, "é" * 50)
    assert (table.file(), table.values()) == (before, ["old", "é" * 20, "é" * 50])


def test_collation_default_and_not_null_stay(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant], columns="""ssn text COLLATE "C" NOT NULL DEFAULT 'none'""")
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert owner.row(
        "SELECT l.collname, a.attnotnull, a.atthasdef FROM pg_attribute a JOIN pg_collation l ON l.oid = attcollation"
        " WHERE attrelid = %s::regclass AND attname = 'ssn'", table.name,
    ) == ("C", True, True)
    owner.run(f"INSERT INTO {table} (id, tenant_id) VALUES (21, %s)", tenant.name)
    assert (table.values()[-1], table.unsealed()) == ("none", 20)
    with fails_with("23502"):
        owner.run(f"INSERT INTO {table} VALUES (22, %s, NULL)", tenant.name)


def test_users_checks_are_kept_without_a_scan(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant], columns="ssn text CONSTRAINT longer CHECK (length(ssn) > 3)")
    owner.run(f"COMMENT ON CONSTRAINT longer ON {table} IS 'why'")
    # One that an old row breaks: nobody looks at old rows.
    owner.run(f"ALTER TABLE {table} ADD CONSTRAINT odd CHECK (ssn <> %s) NOT VALID" % ("'" + plaintexts()[0] + "'"))
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert {name: valid for name, (_, valid) in table.checks().items()} == {
        "longer": False, "odd": False, "cmk_sealed_ssn": False,
    }
    assert owner.one(
        "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conrelid = %s::regclass"
        " AND conname = 'longer'", table.name) == "why"
    with fails_with("23514"):
        owner.run(f"UPDATE {table} SET ssn = 'abc' WHERE id = 2")


@pytest.mark.parametrize("column,value", [("bytea", b"\xc1\x02secret"), ("jsonb", {"a": [1]}), ("json", {"a": [1]})])
def test_other_types_are_rewritten(owner, local_tenant, column, value):
    tenant = local_tenant()
    table = Table(owner, unique("users"))
    owner.run(f"CREATE TABLE {table} (id int, tenant_id text NOT NULL, ssn {column})")
    given = value if column == "bytea" else psycopg.types.json.Jsonb(value)
    for row in (1, 2):
        owner.run(f"INSERT INTO {table} VALUES (%s, %s, %s)", row, tenant.name, given)
    assert f"its type {column} needs rewrite => true, which locks the table while it is rewritten" in table.obstacles(tenant_column="tenant_id", rewrite=False)
    table.protect(tenant_column="tenant_id")
    plain = "bytea" if column == "bytea" else "jsonb"
    assert table.type_of() == f"cmk_{plain}"
    assert table.unsealed() == 0
    assert owner.all(f"SELECT ssn::{plain} FROM {table}") == [(value,), (value,)]
    table.unprotect()
    assert table.type_of() == column
    assert owner.all(f"SELECT ssn FROM {table}") == [(value,), (value,)]


def test_a_blank_padded_column_needs_a_rewrite(owner, local_tenant):
    table = Table(owner, unique("users"))
    owner.run(f"CREATE TABLE {table} (id int, tenant_id text NOT NULL, ssn char(5))")
    owner.run(f"INSERT INTO {table} VALUES (1, %s, 'ab')", local_tenant().name)
    assert table.obstacles(tenant_column="tenant_id") == ["its type character(5) needs rewrite => true, which locks the table while it is rewritten"]
    table.protect(tenant_column="tenant_id", rewrite=True)
    assert (table.type_of(), table.values()) == ("cmk_text(5)", ["ab"])
    table.unprotect()
    assert table.type_of() == "character(5)"


def test_several_columns_share_one_trigger(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant], columns="ssn text, note text DEFAULT 'n', other_tenant text")
    other = local_tenant()
    owner.run(f"UPDATE {table} SET other_tenant = %s", other.name)
    table.protect(tenant_column="tenant_id")
    table.protect("note", tenant_column="other_tenant")
    assert table.triggers() == {"~cmk_seal": "A"}
    owner.run(f"UPDATE {table} SET ssn = 's', note = 't'")
    assert (set(table.values()), set(table.values("note"))) == ({"s"}, {"t"})
    assert owner.all('SELECT "column", label, tenant FROM cmk.protected_columns WHERE "table" = %s::regclass ORDER BY 1',
                     table.name) == [
        ("note", f"{table}.note", "other_tenant"), ("ssn", f"{table}.ssn", "tenant_id"),
    ]
    # The second goes, the first stays protected.
    table.unprotect("note")
    owner.run(f"UPDATE {table} SET ssn = 'again', note = 'plain'")
    assert (table.unsealed(), table.problems(), set(table.values())) == (0, [], {"again"})


def test_the_tenant_can_come_from_the_setting(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant])
    with fails("55000", "tenant_unset"):
        table.protect(rewrite=True)
    owner.run(f"SET cmk_encrypt.tenant = '{tenant}'")
    table.protect(rewrite=True)
    owner.run(f"INSERT INTO {table} VALUES (21, 'whoever', 'x')")
    assert (table.unsealed(), table.values()) == (0, [*plaintexts(), "x"])
    owner.run("RESET cmk_encrypt.tenant")
    with fails("55000", "tenant_unset"):
        owner.run(f"INSERT INTO {table} VALUES (22, 'whoever', 'x')")


@pytest.mark.parametrize("rewrite", [True, False])
def test_the_tenant_can_be_a_function_of_the_row(dba, owner, local_tenant, rewrite):
    first, second = local_tenant(), local_tenant()
    parents, function = Table(owner, unique("orders")), unique("tenant_of")
    owner.run(f"CREATE TABLE {parents} (id int PRIMARY KEY, tenant_id text)")
    owner.run(f"INSERT INTO {parents} VALUES (0, %s), (1, %s)", first.name, second.name)
    owner.run(f"CREATE FUNCTION {function}(int) RETURNS text LANGUAGE sql STABLE"
              f" AS 'SELECT tenant_id FROM {owner.role}.{parents} WHERE id = $1'")
    table = make_table(owner, [first], columns="ssn text, order_id int")
    owner.run(f"UPDATE {table} SET order_id = id % 2")
    table.protect(tenant_expression=f"{owner.role}.{function}(order_id)", rewrite=rewrite)
    table.seal()
    assert (table.unsealed(), table.values()) == (0, plaintexts())
    assert table.checks()["cmk_sealed_ssn"][1] is True
    owner.run(f"INSERT INTO {table} VALUES (21, '', 'x', 1)")
    assert table.values()[-1] == "x"
    # Of whom a value is, the row's parent says, and not tenant_id.
    assert dict(dba.all(f"SELECT tenant, \"values\" FROM cmk.dump_keys_needed('{owner.role}.{table}')")) == {
        first.name: 10, second.name: 11,
    }
    assert f"{function}(new.order_id)" in owner.one(
        'SELECT tenant FROM cmk.protected_columns WHERE "table" = %s::regclass', table.name)


def test_partitions_and_children_have_the_trigger(owner, local_tenant):
    tenant = local_tenant()
    name = unique("parts")
    owner.run(f"CREATE TABLE {name} (id int, tenant_id text NOT NULL, ssn text) PARTITION BY RANGE (id)")
    owner.run(f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (0) TO (10)")
    owner.run(f"CREATE TABLE {name}_2 (ssn text, junk int, tenant_id text NOT NULL, id int)")
    owner.run(f"ALTER TABLE {name}_2 DROP junk")
    owner.run(f"ALTER TABLE {name} ATTACH PARTITION {name}_2 FOR VALUES FROM (10) TO (30)")
    owner.run(f"INSERT INTO {name} SELECT n, %s, %s || n FROM generate_series(1, 20) n", tenant.name, SECRET)
    table = Table(owner, name)
    table.protect(tenant_column="tenant_id", rewrite=False)
    table.seal()
    assert (table.unsealed(), table.values()) == (0, plaintexts())
    owner.run(f"CREATE TABLE {name}_3 PARTITION OF {name} FOR VALUES FROM (30) TO (40)")
    for suffix in ("", "_1", "_2", "_3"):
        assert Table(owner, name + suffix).triggers() == {"~cmk_seal": "A"}, suffix
    owner.run(f"INSERT INTO {name}_3 VALUES (30, %s, 'late')", tenant.name)
    assert (table.unsealed(), table.values()[-1]) == (0, "late")
    assert {problem.split(":")[0] for problem in table.problems()} <= {"remnants"}
    # What leaves the table loses its clone of the trigger, and fails closed until it is protected.
    owner.run(f"ALTER TABLE {name} DETACH PARTITION {name}_1")
    left = Table(owner, f"{name}_1")
    assert left.problems() == [f"remnants: {owner.role}.{left}", f"trigger_missing: {owner.role}.{left}"]
    with fails("23514", "not_sealed"):
        owner.run(f"INSERT INTO {left} VALUES (1, %s, 'x')", tenant.name)
    left.protect()
    owner.run(f"INSERT INTO {left} VALUES (1, %s, 'x')", tenant.name)
    assert left.unsealed() == 0
    table.unprotect()
    assert (table.type_of(), table.triggers()) == ("text", {})


def test_inheritance_children_have_the_trigger(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant], columns="ssn text CHECK (ssn <> '')")
    child = Table(owner, table.name + "_child")
    owner.run(f"CREATE TABLE {child} (more int, CHECK (ssn <> 'no')) INHERITS ({table})")
    owner.run(f"INSERT INTO {child} VALUES (21, %s, %s)", tenant.name, SECRET + "21")
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert child.triggers() == {"~cmk_seal": "A"}
    owner.run(f"INSERT INTO {child} VALUES (22, %s, %s)", tenant.name, SECRET + "22")
    table.seal()
    assert (table.unsealed(), table.values()) == (0, plaintexts(22))
    for broken in ("''", "'no'"):
        with fails_with("23514"):
            owner.run(f"UPDATE {child} SET ssn = {broken}")


def test_a_lost_trigger_is_made_again(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant])
    table.protect(tenant_column="tenant_id")
    assert table.obstacles(tenant_column="tenant_id") == ["it is protected already"]
    owner.run(f'DROP TRIGGER "~cmk_seal" ON {table}')
    with fails("23514", "not_sealed"):
        owner.run(f"UPDATE {table} SET ssn = 'x'")
    table.protect()
    owner.run(f"UPDATE {table} SET ssn = 'x'")
    assert (table.problems(), table.checks()["cmk_sealed_ssn"][1]) == ([], True)


def test_a_lost_constraint_is_made_again_under_the_old_label(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    table.protect(tenant_column="tenant_id", label="users.ssn")
    owner.run(f"ALTER TABLE {table} DROP CONSTRAINT cmk_sealed_ssn")
    with fails("55000", "protection_lost"):
        owner.run(f"UPDATE {table} SET ssn = 'x'")
    table.protect(tenant_column="tenant_id", label="users.ssn")
    table.seal()
    assert table.checks()["cmk_sealed_ssn"][1] is True
    assert table.values() == plaintexts()


def test_only_the_owner_protects(session, dba, owner, local_tenant, role):
    table = make_table(owner, [local_tenant()])
    stranger = session(role())
    dba.run(f"GRANT USAGE ON SCHEMA {owner.role} TO {stranger.role}")
    dba.run(f"GRANT ALL ON {owner.role}.{table} TO {stranger.role}")
    theirs = Table(stranger, f"{owner.role}.{table}")
    assert theirs.obstacles(tenant_column="tenant_id") == [f"you do not own {owner.role}.{table}"]
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert theirs.obstacles(theirs.unprotect) == [f"you do not own {owner.role}.{table}"]
    assert theirs.obstacles(theirs.seal) == [f"you do not own {owner.role}.{table}"]
