"""The monitor is a superuser in databases that others own: they can neither use it nor switch it off."""

import time

import pytest

from server import until
from support import fails
from watched import Watched, running

REVOKED = ("revoked", "usable", "key_disabled")

ESCALATE = """
    CREATE FUNCTION {name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE 'ALTER ROLE owner SUPERUSER';
        {rest}
    EXCEPTION WHEN insufficient_privilege THEN
        {rest}
    END $$"""


@pytest.fixture
def theirs(make_server, kms):
    """A database that `owner`, an ordinary role, owns; not watched yet."""
    with running(make_server, monitor_databases="") as server:
        server.execute("CREATE ROLE owner LOGIN")
        server.execute("CREATE DATABASE theirs OWNER owner")
        yield Watched(server, kms, "theirs")


def nobody_became_superuser(server):
    return server.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'") == [(False,)]


def test_an_operator_of_the_owner_is_not_run(theirs, kms):
    body = "RETURN a OPERATOR(pg_catalog.=) b;"
    with theirs.server.connect("theirs", "owner") as owner:
        owner.execute("CREATE SCHEMA evil")
        owner.execute(ESCALATE.format(name="evil.equal", arguments="a text, b text", result="boolean", rest=body))
        owner.execute("CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.equal)")
        owner.execute("ALTER DATABASE theirs SET search_path = evil, pg_catalog")
    with theirs.server.settings(monitor_databases="theirs"):
        tenant = theirs.tenant(theirs.key(rotates=False))
        theirs.checks(tenant, 1)
        kms.state(tenant.key_uri, "Disabled")
        until(lambda: len(theirs.events(tenant)) == 2, what="a warning and a revocation")
    assert nobody_became_superuser(theirs.server)


def test_tables_that_only_look_like_ours_are_not_touched(theirs):
    """After DROP EXTENSION the owner may make a schema of that name."""
    theirs.dba.run("DROP EXTENSION cmk_encrypt")
    with theirs.server.connect("theirs", "owner") as owner:
        owner.execute("CREATE SCHEMA cmk")
        owner.execute("CREATE TABLE cmk.touched (at timestamptz)")
        body = "INSERT INTO cmk.touched VALUES (clock_timestamp()); RETURN true;"
        owner.execute(ESCALATE.format(name="cmk.run", arguments="", result="boolean", rest=body))
        owner.execute("CREATE VIEW cmk.tenant AS SELECT 'x'::text AS tenant, 'active'::text AS state WHERE cmk.run()")
        for table in ("data_key", "access", "key_event"):
            owner.execute(f"CREATE TABLE cmk.{table} (tenant text)")
        with theirs.server.settings(monitor_databases="theirs"):
            until(theirs.monitor, what="the monitor")
            # It looks for the extension every three seconds.
            owner.execute("SELECT pg_sleep(4)")
        assert owner.execute("TABLE cmk.touched").fetchall() == []
    assert nobody_became_superuser(theirs.server)


def test_a_trigger_of_the_owner_is_not_run(theirs, kms):
    theirs.dba.run("GRANT ALL ON SCHEMA cmk TO owner")
    theirs.dba.run("GRANT ALL ON ALL TABLES IN SCHEMA cmk TO owner")
    with theirs.server.connect("theirs", "owner") as owner:
        owner.execute("CREATE SCHEMA evil")
        owner.execute(ESCALATE.format(name="evil.run", arguments="", result="trigger", rest="RETURN NEW;"))
        owner.execute("CREATE TRIGGER run AFTER INSERT ON cmk.key_event FOR EACH ROW EXECUTE FUNCTION evil.run()")
    with theirs.server.settings(monitor_databases="theirs"):
        tenant = theirs.tenant()
        theirs.checks(tenant, 1)
        kms.state(tenant.key_uri, "Disabled")
        theirs.says(tenant, REVOKED)
    assert nobody_became_superuser(theirs.server)


def test_it_waits_for_nobody_who_locks_a_table(theirs):
    # While it waited for DROP EXTENSION, the name could become another table's.
    with theirs.server.settings(monitor_databases="theirs"), theirs.server.connect("theirs") as locks:
        monitor = until(theirs.monitor, what="the monitor")
        locks.execute("BEGIN")
        locks.execute("LOCK TABLE cmk.tenant")
        for n in range(20):
            theirs.server.execute(f"ALTER DATABASE theirs CONNECTION LIMIT {100 + n}")  # has it read the list again
            waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted" % monitor
            assert theirs.server.execute(waits) == [(0,)]
            time.sleep(0.1)
        locks.execute("COMMIT")
        theirs.checks(theirs.tenant(), 1)
        assert theirs.monitor() == monitor


def test_a_writer_of_any_table_can_forge_no_event(theirs):
    theirs.server.execute("GRANT pg_write_all_data TO owner")
    with theirs.server.connect("theirs", "owner") as owner:
        with fails("42501", "registry_write"):
            owner.execute("INSERT INTO cmk.key_event (tenant, event) VALUES ('x', 'rotation_off')")
        with fails("42501", "registry_write"):
            owner.execute("DELETE FROM cmk.key_event")


@pytest.mark.parametrize("setting", ["role = 'owner'", "session_authorization = 'owner'", "default_transaction_read_only = on"])
def test_no_setting_of_the_database_switches_it_off(theirs, kms, setting):
    theirs.server.execute(f"ALTER DATABASE theirs SET {setting}")
    with theirs.server.settings(monitor_databases="theirs"):
        tenant = theirs.tenant()
        theirs.checks(tenant, 1)
        kms.state(tenant.key_uri, "Disabled")
        theirs.says(tenant, REVOKED)
