"""cmk.unprotect_column(): the way back, without a loss."""

import pytest

from protected import Table, make_table, plaintexts
from support import fails, fails_with, unique


@pytest.mark.parametrize("before", ["text", "character varying(40)", "character varying"])
@pytest.mark.parametrize("sealed", [True, False])
def test_everything_is_as_it_was(owner, local_tenant, before, sealed):
    columns = f"""ssn {before} COLLATE "C" NOT NULL DEFAULT 'it''s none' CONSTRAINT longer CHECK (length(ssn) > 3)"""
    table = make_table(owner, [local_tenant(), local_tenant()], columns=columns)
    owner.run(f"COMMENT ON COLUMN {table}.ssn IS 'number'")
    looks = """
        SELECT format_type(atttypid, atttypmod), attcollation::regcollation::text, attnotnull,
               col_description(attrelid, attnum), (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                                                     WHERE adrelid = attrelid AND adnum = attnum),
               (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = attrelid AND conname = 'longer')
          FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'ssn'"""
    was = owner.row(looks, table.name)
    table.protect(tenant_column="tenant_id", rewrite=sealed)
    owner.run(f"UPDATE {table} SET ssn = ssn || '!' WHERE id = 1")
    said = table.unprotect()
    assert said.endswith(f"holds plaintext again, in a column of type {before}")
    now = owner.row(looks, table.name)
    # Old rows were not looked at, so PostgreSQL does not vouch for them.
    assert now == (*was[:5], was[5] + " NOT VALID")
    assert table.triggers() == {}
    assert table.values() == [plaintexts()[0] + "!", *plaintexts()[1:]]
    # Nothing of ours is left that would keep the extension from going.
    assert owner.all(
        "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend d WHERE refobjid IN (SELECT objid FROM pg_depend"
        " JOIN pg_extension e ON refclassid = 'pg_extension'::regclass AND refobjid = e.oid"
        " WHERE deptype = 'e' AND extname = 'cmk_encrypt')"
        " AND (objid = %s::regclass OR objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = %s::regclass)"
        "      OR objid IN (SELECT oid FROM pg_constraint WHERE conrelid = %s::regclass))",
        table.name, table.name, table.name,
    ) == []


def test_if_a_value_cannot_be_opened_nothing_has_happened(dba, owner, local_tenant):
    bright, dark = local_tenant(), local_tenant()
    table = make_table(owner, [bright, dark])
    table.protect(tenant_column="tenant_id")
    dba.run("SELECT cmk.suspend_tenant(%s)", str(dark))
    with fails("55000", "tenant_suspended", dark):
        table.unprotect()
    assert (table.type_of(), table.problems()) == ("cmk_text", [])
    dba.run("SELECT cmk.resume_tenant(%s)", str(dark))
    assert table.values() == plaintexts()


def test_what_is_in_the_way_is_named_at_once(owner, local_tenant):
    table, name = make_table(owner, [local_tenant()]), unique("thing")
    table.protect(tenant_column="tenant_id")
    owner.run(f"CREATE VIEW {name} AS SELECT ssn FROM {table}")
    owner.run(f"CREATE STATISTICS {name} ON ssn, id FROM {table}")
    assert table.obstacles(table.unprotect) == [
        f"statistics object {owner.role}.{name} uses it", f"view {owner.role}.{name} uses it",
    ]
    assert table.obstacles(table.unprotect, views="perhaps")[0] == "views can be refuse or recreate"


def test_what_is_not_protected_is_refused(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    with fails("42704", "not_protected") as caught:
        table.unprotect()
    assert f"table={owner.role}.{table} column=ssn" in caught.value.diag.message_detail


def test_a_copy_that_was_never_protected_can_be_opened_too(owner, local_tenant):
    table, copy = make_table(owner, [local_tenant()]), unique("copy")
    table.protect(tenant_column="tenant_id")
    owner.run(f"CREATE TABLE {copy} AS SELECT * FROM {table}")
    opened = Table(owner, copy)
    opened.unprotect()
    assert (opened.type_of(), opened.values()) == ("text", plaintexts())


def test_it_waits_for_its_lock_politely(session, owner, local_tenant):
    table, reader = make_table(owner, [local_tenant()]), session(owner.role)
    table.protect(tenant_column="tenant_id")
    reader.run("BEGIN")
    reader.run(f"SELECT FROM {table}")
    with fails_with("55P03"):
        table.unprotect(lock_timeout="50ms", lock_attempts=2)
    assert table.type_of() == "cmk_text"
    reader.run("COMMIT")
    table.unprotect()
