"""Triggers and rules of somebody else on the registry's tables, and what cmk.check() makes of odd rows."""

import psycopg
import pytest

from support import CANARY, fails, grant


@pytest.fixture
def registry(session, database):
    """The DBA's session in a database with an active, a suspended and a pending tenant."""
    dba = session(dbname=database())
    for tenant in ("active", "suspended", "pending"):
        dba.run(f"SELECT cmk.register_tenant('{tenant}', 'local:shared', activate => {tenant != 'pending'})")
    grant(dba, "active", "postgres")
    dba.run("SELECT cmk.suspend_tenant('suspended')")
    return dba


CHANGES = {
    "register": ("tenant", "cmk.register_tenant('new', 'local:shared')"),
    "register pending": ("tenant", "cmk.register_tenant('new', 'local:shared', activate => false)"),
    "activate": ("tenant", "cmk.activate_tenant('pending')"),
    "activate without a data key": ("data_key", "cmk.activate_tenant('pending')"),
    "rotate": ("data_key", "cmk.rotate_tenant('active')"),
    "rotate without counting": ("tenant", "cmk.rotate_tenant('active')"),
    "suspend": ("tenant", "cmk.suspend_tenant('active')"),
    "resume": ("tenant", "cmk.resume_tenant('suspended')"),
    "evict": ("tenant", "cmk.evict('active')"),
    "evict all": ("tenant", "cmk.evict_all()"),
    "grant": ("access", "cmk.grant_access('active', 'pg_monitor')"),
    "revoke": ("access", "cmk.revoke_access('active', 'postgres')"),
    "revoke a part": ("access", "cmk.revoke_access('active', 'postgres', encrypt => false)"),
}
SWALLOW = ("CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS"
           " 'BEGIN RETURN NULL; END'")


@pytest.mark.parametrize("table, change", CHANGES.values(), ids=list(CHANGES))
def test_a_change_that_a_trigger_swallows_is_no_success(registry, table, change):
    if table == "data_key":
        # Else the swallowed UPDATE leaves two current data keys, which PostgreSQL itself refuses.
        events = "INSERT"
    else:
        events = "INSERT OR UPDATE OR DELETE"
    registry.run(SWALLOW)
    registry.run(f"CREATE TRIGGER swallows BEFORE {events} ON cmk.{table}"
                 " FOR EACH ROW EXECUTE FUNCTION public.swallow()")
    before = state(registry)
    with fails("42501", "registry_write"):
        registry.run(f"SELECT {change}")
    assert state(registry) == before
    registry.run(f"DROP TRIGGER swallows ON cmk.{table}")
    registry.run(f"SELECT {change}")
    assert state(registry) != before


@pytest.mark.parametrize("change", ["suspend_tenant('active')", "resume_tenant('suspended')", "evict('active')"])
def test_nor_is_one_that_a_rule_does(registry, change):
    registry.run("CREATE RULE swallows AS ON UPDATE TO cmk.tenant DO INSTEAD NOTHING")
    with fails("42501", "registry_write"):
        registry.run(f"SELECT cmk.{change}")


def state(dba):
    return [dba.all(f"SELECT t::text FROM cmk.{table} t ORDER BY 1") for table in ("tenant", "data_key", "access")]


def test_an_error_of_a_trigger_carries_no_backtrace(make_server):
    server = make_server(env={"RUST_BACKTRACE": "1", "RUST_LIB_BACKTRACE": "full"})
    with server.connect("postgres") as connection:
        connection.execute("CREATE EXTENSION cmk_encrypt")
        connection.execute("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
                           " $$ BEGIN RAISE EXCEPTION 'not today'; END $$")
        connection.execute("CREATE TRIGGER refuses BEFORE INSERT ON cmk.tenant"
                           " FOR EACH ROW EXECUTE FUNCTION public.refuse()")
        with pytest.raises(psycopg.errors.RaiseException) as caught:
            connection.execute("SELECT cmk.register_tenant('acme', 'local:shared', activate => false)")
        assert caught.value.diag.message_primary == "not today"
        assert caught.value.diag.message_detail is None
        assert ".rs" not in str(caught.value)
        connection.execute("CREATE TABLE env (name text)")
        connection.execute("COPY env FROM PROGRAM 'printenv RUST_LIB_BACKTRACE'")
        assert connection.execute("TABLE env").fetchall() == [("full",)], "the environment is as before"


# cmk.check()


def test_check_counts_missing_data_keys_instead_of_going_through_them(registry):
    registry.run("UPDATE cmk.tenant SET last_version = 2147483647 WHERE tenant = 'active'")
    registry.run("SET statement_timeout = '5s'")
    problem, tenant, detail = registry.row("SELECT problem, tenant, detail FROM cmk.check()")
    assert (problem, tenant) == ("data_keys_missing", "active")
    assert "lacks 2147483646 of 2147483647 data keys" in detail


@pytest.mark.parametrize("destroyed, fix", [
    ((), "UPDATE cmk.data_key SET state = 'current' WHERE (tenant, version) = ('active', 2)"),
    ((2,), "UPDATE cmk.data_key SET state = 'current' WHERE (tenant, version) = ('active', 1)"),
    ((1, 2), "SELECT cmk.rotate_tenant('active')"),
])
def test_the_fix_of_no_current_data_key_takes_none_that_is_destroyed(registry, destroyed, fix):
    registry.run("SELECT cmk.rotate_tenant('active')")
    registry.run("UPDATE cmk.data_key SET state = 'retired' WHERE tenant = 'active'")
    for version in destroyed:
        registry.run("UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL"
                     f" WHERE (tenant, version) = ('active', {version})")
    assert registry.row("SELECT problem, tenant, fix FROM cmk.check()") == ("no_current_data_key", "active", fix)
    registry.run(fix)
    assert registry.all("SELECT * FROM cmk.check()") == []
    assert registry.decrypt("active", registry.encrypt("active")) == CANARY
