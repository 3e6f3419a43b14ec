"""What a search asks of KMS, what it opens, and what it tells about rows that nobody may see."""

import secrets

import psycopg
import pytest

from columns import dba, opened, reader  # noqa: F401 (fixtures)
from protected import hear
from searching import SCANS, by_index, ids, scanning, world  # noqa: F401 (fixtures)
from support import fails, grant, unique
from test_search_plans import SEARCHES

CANARY = f"canary-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def many(world):
    return world.many("many")


# Planning

PREPARED = [f"PREPARE p{declared} AS SELECT * FROM {{t}} WHERE {condition}"
            for declared in ("", "(text)", "(varchar)")
            for condition in ("ssn = $1", "ssn IN ($1, 'y')", "tenant_id = $1 AND ssn = 'x'",
                              "tenant_id = 'dark' AND ssn = $1")]


@pytest.mark.parametrize("role", ["app", "nobody"])
@pytest.mark.parametrize("tenant", ["", "acme", "dark", "nosuch"])
def test_planning_asks_for_no_key_and_opens_nothing(world, many, role, tenant):
    session = world.reader(role)
    session.run("SELECT set_config('cmk_encrypt.tenant', %s, false)", tenant)
    before = world.kms.counters()
    with session.counts():
        for sql in SEARCHES.values():
            for options in ("", "(VERBOSE, COSTS)"):
                session.run(f"EXPLAIN {options} {sql.format(t=many)}")
            session.run(f"EXPLAIN {sql.format(t=many)}".replace("acme", "dark"))
        for sql in PREPARED:
            for mode in ("force_custom_plan", "force_generic_plan"):
                session.run(f"SET plan_cache_mode = {mode}")
                session.run(sql.format(t=many))
                session.run("EXPLAIN EXECUTE p('dark')")
                session.run("DEALLOCATE p")
    assert world.kms.counters() == before


# Keys


@pytest.fixture
def far(world, kms_process):
    """A tenant whose key is in KMS, and a table with values of its."""
    arn = world.kms.key()
    tenant = world.tenant(unique("far"), "app", key=arn)
    rows = [(1, tenant, "x", "n"), (2, tenant, "y", "n"), (3, "acme", "x", "n")]
    table = world.searchable(unique("far"), rows)
    world.dba.run("SELECT cmk.evict(%s)", tenant)
    return table, tenant, arn


def test_a_cold_search_asks_kms_once_for_the_index_key_and_opens_nothing(world, far):
    table, tenant, arn = far
    session = world.connect("app")
    session.run("SET enable_seqscan = off")
    before = world.kms.calls(arn)
    with session.counts():
        for sql in (f"SELECT id FROM {table} WHERE tenant_id = '{tenant}' AND ssn = 'x'",
                    f"SELECT id FROM {table} WHERE tenant_id = '{tenant}' AND ssn IN ('x', 'absent')"):
            by_index(session, sql)
            for _ in range(3):
                assert ids(session, sql) == [1]
        session.run("SELECT set_config('cmk_encrypt.tenant', %s, false)", tenant)
        assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'x'") == [1]
    assert world.kms.calls(arn) == before + 1
    with scanning(session, "seq scan"), session.counts():
        assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'x'") == [1]
    assert world.kms.calls(arn) == before + 1
    session.run("SET cmk_encrypt.output = plaintext")
    assert session.one(f"SELECT ssn FROM {table} WHERE ssn = 'x'") == "x"
    assert world.kms.calls(arn) == before + 2


def test_a_search_of_another_tenant_asks_nothing_for_this_one(world, far):
    table, _, arn = far
    session, before = world.connect("app"), world.kms.calls(arn)
    assert ids(session, f"SELECT id FROM {table} WHERE tenant_id = 'acme' AND ssn = 'x'") == [3]
    session.run("SET cmk_encrypt.tenant = acme")
    for kind in SCANS:
        with scanning(session, kind):
            assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'x'") == [3]
    assert world.kms.calls(arn) == before


@pytest.mark.parametrize("scan", SCANS)
def test_by_grants_a_tenant_whose_key_is_revoked_is_left_out_with_one_warning(world, far, scan):
    table, tenant, arn = far
    role = unique("role")
    world.server.execute(f"CREATE ROLE {role} LOGIN")
    for name in (tenant, "acme"):
        grant(world.dba, name, role)
    session = world.connect(role)
    heard = hear(session)
    world.kms.state(arn, "Disabled")
    with scanning(session, scan):
        for condition in ("ssn = 'x'", "ssn IN ('x', 'y')"):
            heard.clear()
            assert ids(session, f"SELECT id FROM {table} WHERE {condition}") == [3]
            assert [(severity, detail.partition(" ")[0]) for severity, _, detail, _ in heard] == [
                ("WARNING", "reason=key_disabled")]
        heard.clear()
        with fails("55000", "key_disabled", tenant):
            session.run(f"SELECT id FROM {table} WHERE tenant_id = '{tenant}' AND ssn = 'x'")
        assert heard == []


@pytest.mark.parametrize("scan", SCANS)
def test_by_grants_a_tenant_without_an_index_key_is_neither_asked_for_nor_mentioned(world, far, scan):
    table, arn, role, pending = far[0], world.kms.key(), unique("role"), unique("pending")
    world.server.execute(f"CREATE ROLE {role} LOGIN")
    world.dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", pending, arn)
    for name in (pending, "late", "acme"):
        grant(world.dba, name, role)
    session = world.connect(role)
    heard = hear(session)
    with scanning(session, scan):
        assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'x'") == [3]
    assert (heard, world.kms.calls(arn)) == ([], 0)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("fault, sqlstate", [({"kind": "status", "status": 500}, "58000"),
                                             ({"kind": "throttle"}, "53000")], ids=["fails", "throttles"])
def test_by_grants_a_kms_that_fails_is_an_error_and_never_an_empty_result(world, far, scan, fault, sqlstate):
    table, _, arn = far
    session = world.connect("app")
    with scanning(session, scan), world.kms.fault(arn=arn, **fault):
        with pytest.raises(psycopg.Error) as failure:
            session.run(f"SELECT id FROM {table} WHERE ssn = 'x'")
        assert failure.value.sqlstate == sqlstate


def test_the_index_key_goes_dark_with_the_tenants_key(world, far):
    table, tenant, arn = far
    session = world.connect("app")
    sql = f"SELECT id FROM {table} WHERE tenant_id = '{tenant}' AND ssn = 'x'"
    assert ids(session, sql) == [1]
    world.kms.state(arn, "Disabled")
    world.dba.run("SELECT cmk.evict(%s)", tenant)
    with fails("55000", "key_disabled", tenant):
        session.run(sql)
    world.dba.run("SELECT cmk.suspend_tenant(%s)", tenant)
    with fails("55000", "tenant_suspended", tenant):
        session.run(sql)


# Hidden rows


@pytest.fixture
def secured(world, far):
    """Everybody sees the rows of the tenant that they say they are; the value is there for others only."""
    table, tenant, arn = far
    world.dba.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    world.dba.run(f"CREATE POLICY p ON {table} USING (tenant_id = current_setting('my.tenant'))")
    return table, tenant, arn


HIDDEN = ["ssn = '{v}'", "'{v}' = ssn", "ssn IN ('{v}', 'z')", "ssn = ANY ('{{{v}}}')",
          "ssn = '{v}'::text OR ssn = 'z'", "id IN (SELECT id FROM {t} WHERE ssn = '{v}')", "EXISTS (SELECT FROM {t} o WHERE o.ssn = '{v}')"]


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("condition", HIDDEN)
def test_row_security_lets_nothing_be_known_of_a_value_that_another_tenant_has(world, secured, scan, condition):
    table, tenant, arn = secured
    world.dba.run(f"INSERT INTO {table} VALUES (9, %s, '{CANARY}', 'n')", tenant)
    world.dba.run("SELECT cmk.evict(%s)", tenant)
    session = world.reader("ro")
    session.run("SET my.tenant = acme")
    calls, seen = world.kms.counters(), []
    for value in (CANARY, "nobody-has-it"):
        with scanning(session, scan):
            sql = f"SELECT id FROM {table} WHERE {condition.format(v=value, t=table)}"
            with session.counts():
                seen.append((ids(session, sql), [line.replace(value, "") for (line,) in
                                                 session.all(f"EXPLAIN (ANALYZE, TIMING off, SUMMARY off) {sql}")
                                                 if "Buffers" not in line and "Removed" not in line]))
    assert seen[0] == seen[1] and seen[0][0] == []
    assert world.kms.counters() == calls


@pytest.mark.parametrize("scan", SCANS)
def test_row_security_hides_rows_that_do_not_open(world, secured, scan):
    """Of a tenant whose key is away, or damaged: a search that may not see them does not fail at them."""
    table, tenant, arn = secured
    world.kms.state(arn, "Disabled")
    session = world.reader("ro")
    session.run("SET my.tenant = acme")
    with scanning(session, scan), session.counts():
        assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'x'") == [3]
        assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'absent'") == []
    with fails("42501", "no_grant", tenant):
        session.run("SET my.tenant = '" + tenant + "'")
        session.run(f"SELECT id FROM {table} WHERE ssn = 'x'")


def test_a_unique_value_of_another_tenant_is_no_conflict(world, secured):
    table, tenant, _ = secured
    world.dba.run(f"CREATE UNIQUE INDEX ON {table} (ssn cmk_token_ops)")
    session = world.reader("ro")
    session.run("SET my.tenant = acme")
    session.run(f"INSERT INTO {table} VALUES (7, 'acme', 'y', 'n')")  # which is there for the other
    assert ids(session, f"SELECT id FROM {table} WHERE ssn = 'y'") == [7]


def test_equality_is_leakproof_and_what_opens_is_not(dba):
    rows = dict(dba.all(
        "SELECT oprcode::regproc::text || oprleft::regtype || oprright::regtype, proleakproof FROM pg_operator o"
        " JOIN pg_proc p ON p.oid = oprcode WHERE oprname IN ('=', '===')"
        " AND 'cmk_text'::regtype IN (oprleft, oprright)"))
    assert rows and all(rows.values())
    assert dba.all("SELECT DISTINCT proname::text FROM pg_proc WHERE proleakproof AND proname IN ('cmk_text_lt',"
                   " 'cmk_text_hash', 'cmk_text_cmp', 'text', 'try_text') AND 'cmk_text'::regtype = ANY (proargtypes)"
                   ) == []
