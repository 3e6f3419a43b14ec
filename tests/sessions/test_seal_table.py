"""cmk.seal_table(): old values are sealed in batches, and what cannot be sealed is passed over."""

import time

import pytest

from protected import SECRET, Table, file_of, hear, make_table, plaintexts, protected
from support import fails, fails_with, grant, unique


def test_all_values_are_sealed_and_the_constraint_is_valid(owner, local_tenant):
    table = protected(owner, [local_tenant(), local_tenant()])
    heard = hear(owner)
    before = table.file()
    table.seal(batch_blocks=3, pause=0)
    assert (table.unsealed(), table.values()) == (0, plaintexts(2000))
    assert table.checks()["cmk_sealed_ssn"][1] is True
    assert table.file() == before
    assert f"2000 rows of {owner.role}.{table} sealed" in [message for _, message, _, _ in heard]
    # Once more there is nothing to do.
    heard.clear()
    table.seal()
    assert f"0 rows of {owner.role}.{table} sealed" in [message for _, message, _, _ in heard]


def test_it_tells_where_plaintext_is_left_and_how_to_remove_it(server, dba, owner, local_tenant):
    table = make_table(owner, [local_tenant()], rows=300)
    owner.run(f"CREATE INDEX {table}_inc ON {table} (id) INCLUDE (ssn)")
    table.protect(tenant_column="tenant_id", rewrite=False)
    heard = hear(owner)
    table.seal()
    told = [(message, hint) for _, message, _, hint in heard if "plaintext may be left" in message]
    assert len(told) == 1
    message, hint = told[0]
    relation = f"{owner.role}.{table}"
    assert f"the files of {relation}, {relation}_inc," in message
    statements = [f"VACUUM FULL {relation};", f"REINDEX INDEX CONCURRENTLY {relation}_inc;",
                  "VACUUM FULL pg_catalog.pg_statistic;"]
    assert [statement for statement in statements if statement not in hint] == []
    assert SECRET.encode() in file_of(server, dba, relation)
    assert SECRET.encode() in file_of(server, dba, f"{relation}_inc")
    assert table.problems() == [f"plaintext_in_index: {relation}_inc", f"remnants: {relation}"]
    owner.run(f"REINDEX INDEX CONCURRENTLY {table}_inc")
    assert table.problems() == [f"remnants: {relation}"]
    assert SECRET.encode() not in file_of(server, dba, f"{relation}_inc")
    owner.run(f"VACUUM FULL {table}")
    assert table.problems() == []
    assert SECRET.encode() not in file_of(server, dba, relation)


def test_plaintext_that_vacuum_full_took_along_is_noted_again(owner, local_tenant):
    table = protected(owner, [local_tenant()])
    owner.run(f"VACUUM FULL {table}")
    assert table.problems() == [f"not_validated: {owner.role}.{table}"]
    table.seal()
    assert table.problems() == [f"remnants: {owner.role}.{table}"]


@pytest.fixture
def touched(dba, owner, local_tenant):
    """A table whose trigger notes each update, and what there is of its rows but the value."""
    tenant = local_tenant()
    table = make_table(owner, [tenant], columns="ssn text, updated_at timestamptz, note text")
    owner.run(f"UPDATE {table} SET updated_at = '2000-01-01', note = 'n' || id")
    function = unique("touch")
    owner.run(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql"
              " AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END'")
    owner.run(f"CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()")
    table.protect(tenant_column="tenant_id", rewrite=False)
    grant(dba, tenant, "postgres")
    return table, lambda: owner.all(f"SELECT id, tenant_id, updated_at, note FROM {table} ORDER BY id")


def test_for_a_superuser_users_triggers_do_not_fire_and_nothing_else_changes(dba, owner, touched):
    table, others = touched
    before, heard = others(), hear(dba)
    Table(dba, f"{owner.role}.{table}").seal()
    assert others() == before
    assert (table.unsealed(), table.values()) == (0, plaintexts())
    assert not any("triggers fire" in message for _, message, _, _ in heard)


def test_for_others_users_triggers_fire_and_that_is_said(owner, touched):
    table, others = touched
    before, heard = others(), hear(owner)
    table.seal()
    assert f"triggers fire while values are sealed: touch on {owner.role}.{table}" in [said[1] for said in heard]
    assert others() != before
    assert (table.unsealed(), table.values()) == (0, plaintexts())


@pytest.fixture
def mixed(dba, owner, local_tenant):
    """A half of the rows belongs to tenants whose values cannot be sealed."""
    good, suspended, unknown, forbidden = local_tenant(), local_tenant(), unique("unknown"), local_tenant(to=())
    table = protected(owner, [good, suspended, good, unknown, good, forbidden, good, good], rows=2000)
    dba.run("SELECT cmk.suspend_tenant(%s)", str(suspended))
    return table, good, suspended, unknown, forbidden


def test_tenants_that_cannot_be_sealed_are_passed_over_and_reported(dba, owner, mixed):
    table, good, suspended, unknown, forbidden = mixed
    heard = hear(owner)
    table.seal(batch_blocks=3, pause=0)
    assert table.unsealed() == 750
    assert owner.all(f"SELECT DISTINCT tenant_id FROM {table} WHERE cmk.is_sealed(ssn)") == [(str(good),)]
    warnings = {message for severity, message, _, _ in heard if severity == "WARNING"}
    for tenant, reason in ((suspended, "tenant_suspended"), (unknown, "unknown_tenant"), (forbidden, "no_grant")):
        assert any(f'values of tenant "{tenant}" are not sealed' in said and f"reason={reason}" in said for said in warnings)
    assert "values of 3 tenants are not sealed, and the constraint is not validated" in warnings
    assert table.checks()["cmk_sealed_ssn"][1] is False
    assert SECRET not in str(heard)
    # All that they lacked is there now: the next call ends it.
    dba.run("SELECT cmk.resume_tenant(%s)", str(suspended))
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", unknown)
    grant(dba, unknown, owner.role)
    grant(dba, forbidden, owner.role)
    table.seal(pause=0)
    assert (table.unsealed(), table.values()) == (0, plaintexts(2000))
    assert table.checks()["cmk_sealed_ssn"][1] is True


def test_rows_without_a_tenant_are_passed_over_and_reported(owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant], rows=100)
    owner.run(f"ALTER TABLE {table} ALTER tenant_id DROP NOT NULL")
    owner.run(f"UPDATE {table} SET tenant_id = NULL WHERE id <= 10")
    heard = hear(owner)
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert f"tenant column tenant_id of {owner.role}.{table} may be null" in [message for _, message, _, _ in heard]
    table.seal()
    assert table.unsealed() == 10
    assert any("values of tenant NULL are not sealed" in message for _, message, _, _ in heard)


def test_a_row_that_breaks_a_rule_of_the_table_keeps_only_its_tenants_batch_back(owner, local_tenant):
    tenant, other = local_tenant(), local_tenant()
    table = make_table(owner, [tenant, other], rows=2000)
    owner.run(f"ALTER TABLE {table} ADD CHECK (id <> 2) NOT VALID")
    table.protect(tenant_column="tenant_id", rewrite=False)
    heard = hear(owner)
    table.seal(batch_blocks=2, pause=0)
    assert 0 < table.unsealed() < 500
    assert any(f'values of tenant "{tenant}" are not sealed' in message for _, message, _, _ in heard)
    owner.run(f"DELETE FROM {table} WHERE id = 2")
    table.seal(pause=0)
    assert table.unsealed() == 0


def test_values_sealed_for_something_else_are_reported(owner, local_tenant):
    tenant = local_tenant()
    table, other = make_table(owner, [tenant]), make_table(owner, [tenant])
    table.protect(tenant_column="tenant_id", label="second")
    other.protect(tenant_column="tenant_id", label="first")
    owner.run(f"ALTER TABLE {table} DROP CONSTRAINT cmk_sealed_ssn")
    owner.run(f'ALTER TABLE {table} DISABLE TRIGGER "~cmk_seal"')
    owner.run(f"INSERT INTO {table} SELECT id + 1000000, tenant_id, ssn FROM {other} LIMIT 1")
    table.protect(tenant_column="tenant_id")
    heard = hear(owner)
    table.seal()
    assert ("WARNING", "reason=foreign_envelope column=second") in [(said[0], said[2]) for said in heard]
    assert table.checks()["cmk_sealed_ssn"][1] is False


def test_it_rests_in_proportion_to_its_work(owner, local_tenant):
    tenant, took = local_tenant(), {}
    for pause in (0, 30):
        table = protected(owner, [tenant])
        began = time.monotonic()
        table.seal(batch_blocks=4, pause=pause)
        took[pause] = time.monotonic() - began
    assert took[30] > 2 * took[0], took


def test_it_cannot_run_inside_a_transaction(owner, local_tenant):
    table = protected(owner, [local_tenant()], rows=10)
    owner.run("BEGIN")
    with fails_with("2D000"):
        table.seal()
    owner.run("ROLLBACK")
    assert table.unsealed() == 10


def test_what_is_not_protected_is_refused(owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    full = f"{owner.role}.{table}"
    assert table.obstacles(table.seal) == [f"no column of {full} is protected"]
    table.protect(tenant_column="tenant_id", rewrite=False)
    owner.run(f'DROP TRIGGER "~cmk_seal" ON {table}')
    assert table.obstacles(table.seal) == [
        f"the trigger of {full} does not seal column ssn: call cmk.protect_column() again"
    ]
    with fails("22004", "null_argument"):
        owner.run("CALL cmk.seal_table(NULL)")


def test_row_level_security_that_binds_the_owner_is_refused(owner, local_tenant):
    table = protected(owner, [local_tenant()], rows=10)
    owner.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    assert table.obstacles(table.seal) == [f"row-level security hides rows of {owner.role}.{table} from you:"
                                           " have a superuser call this, or a role with BYPASSRLS"]
    with fails_with("42501"):
        table.unsealed()
    owner.run(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    table.seal()
    assert table.unsealed() == 0


def test_a_hostile_search_path_changes_nothing(owner, local_tenant):
    table = protected(owner, [local_tenant()], rows=100)
    # All that a careless procedure might call.
    for sql in (
        "CREATE FUNCTION format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$SELECT 'DROP TABLE x'$$",
        "CREATE FUNCTION pg_sleep(float8) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$trapped$$; END'",
        "CREATE FUNCTION less(int8, int8) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$trapped$$; END'",
        "CREATE OPERATOR < (FUNCTION = less, LEFTARG = int8, RIGHTARG = int8)",
        "CREATE FUNCTION plus(int8, int8) RETURNS int8 LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$trapped$$; END'",
        "CREATE OPERATOR + (FUNCTION = plus, LEFTARG = int8, RIGHTARG = int8)",
    ):
        owner.run(sql)
    owner.run(f"SET search_path = {owner.role}, pg_catalog")
    table.seal()
    owner.run("SET search_path = ''")
    full = Table(owner, f"{owner.role}.{table}")
    full.seal()
    assert full.unsealed() == 0
    assert full.problems() == [f"remnants: {full}"]
