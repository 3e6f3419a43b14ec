"""cmk.check(): what it finds beyond the registry's rows, each provoked, and mended by what it says.

What a restore leaves behind is in test_restore.py; copies are in test_copied_database.py.
"""

import pytest
from psycopg.types.json import Jsonb

from protected import make_table
from server import until
from support import Session, Tenant, grant, unique
from watched import running


@pytest.fixture
def dba(session, database):
    return session(dbname=database())


@pytest.fixture
def acme(dba):
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
    grant(dba, "acme", "postgres")
    dba.run("SET cmk_encrypt.output = plaintext")
    return Tenant("acme", "local:shared")


@pytest.fixture
def table(dba, acme):
    made = make_table(dba, [acme])
    made.protect(tenant_column="tenant_id")
    assert found(dba) == found(dba, deep=True) == []
    return made


def found(dba, deep=False):
    return [problem for problem, in dba.all("SELECT problem FROM cmk.check(deep => %s)", deep)]


def row(dba, deep=False):
    return dba.row("SELECT problem, tenant, detail, fix FROM cmk.check(deep => %s)", deep)


# Protected columns


@pytest.mark.parametrize("how", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_a_sealing_trigger_that_does_not_always_fire_is_found_and_mended(dba, table, how):
    dba.run(f'ALTER TABLE {table} {how} TRIGGER "~cmk_seal"')
    problem, tenant, detail, fix = row(dba)
    assert (problem, tenant) == ("column_unguarded", None)
    assert f"trigger_not_always: public.{table}" in detail
    dba.run(fix)
    assert found(dba) == []


@pytest.mark.parametrize("sql", ['DROP TRIGGER "~cmk_seal" ON {t}', "ALTER TABLE {t} DROP CONSTRAINT cmk_sealed_ssn"])
def test_a_missing_guard_of_a_column_is_found_and_mended_as_the_detail_says(dba, table, sql):
    dba.run(sql.format(t=table))
    problem, _, detail, fix = row(dba)
    assert (problem, fix) == ("column_unguarded", None)
    assert "_missing: public." in detail and "cmk.protect_column()" in detail
    table.protect(tenant_column="tenant_id")
    # While there was no constraint, plaintext may have got in.
    dba.run(f"CALL cmk.seal_table('{table}')")
    fixes = [fix for problem, fix in dba.all("SELECT problem, fix FROM cmk.check()") if problem == "column_unfinished"]
    assert found(dba) == ["column_unfinished"] * len(fixes)
    for fix in fixes:
        dba.run(fix)
    assert found(dba) == []


def test_a_temporary_copy_of_protected_rows_is_no_problem_and_keeps_nobody_from_looking(dba, table, session):
    other = session(dbname=dba.connection.info.dbname)
    other.run(f"CREATE TEMP TABLE passing AS SELECT * FROM {table}")
    assert found(other) == found(dba, deep=True) == []
    assert {name for name, in dba.all('SELECT DISTINCT "table"::text FROM cmk.dump_keys_needed()')} == {str(table)}
    dba.run(f"CREATE TABLE kept AS SELECT * FROM {table}")
    assert found(dba) == ["column_unguarded"] * 2, "without trigger and CHECK"


# Data keys of sealed values


def test_a_data_key_that_values_need_and_the_registry_lacks_is_found_by_the_deep_look(dba, table, acme):
    other = unique("other")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", other)
    grant(dba, other, "postgres")
    dba.run(f"INSERT INTO {table} (id, tenant_id, ssn) VALUES (-1, %s, 'x')", other)
    lost, = dba.row("SELECT dek_id FROM cmk.data_key WHERE tenant = %s", other)
    dba.run("SELECT cmk.rotate_tenant(%s)", other)
    destroy = "UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE tenant = %s AND version = %s"
    dba.run(destroy, other, 1)
    problem, tenant, detail, fix = row(dba, deep=True)
    assert (problem, tenant, fix) == ("data_key_destroyed", other, None)
    assert f"1 values in column ssn of table public.{table} need data key 1" in detail
    # As a restore of one table into a database with another registry leaves it.
    dba.run(destroy, other, 2)
    for registry in ("tenant", "data_key"):
        dba.run(f"DELETE FROM cmk.{registry} WHERE tenant = %s", other)
    dba.run("DELETE FROM cmk.access WHERE tenant = %s", other)
    problem, tenant, detail, fix = row(dba, deep=True)
    assert (problem, tenant, fix) == ("data_key_lost", None, None)
    assert f"1 values or tokens in column ssn of table public.{table} need the data key with id {lost.hex()}" in detail
    assert found(dba) == [], "reading every value is for who asks"


# The registry


def test_a_data_key_of_another_key_than_the_tenants_is_found(dba, server, acme):
    path = server.make_local_key("elsewhere")
    dba.run("UPDATE cmk.tenant SET key_uri = 'local:elsewhere' WHERE tenant = 'acme'")
    problem, tenant, detail, fix = row(dba)
    assert (problem, tenant, fix) == ("wrapped_by_another_key", "acme", None)
    assert "data key 1 was wrapped by local:shared, but the tenant's key is local:elsewhere" in detail
    path.unlink()


def test_a_publication_with_a_part_of_the_registry_is_found_and_mended(dba, acme):
    dba.run("CREATE PUBLICATION part FOR TABLE cmk.tenant, cmk.access")
    problem, _, detail, fix = row(dba)
    assert problem == "registry_published_in_part"
    assert "publication part sends cmk.access, cmk.tenant, but not cmk.data_key" in detail
    dba.run(fix)
    assert found(dba) == []
    dba.run("CREATE PUBLICATION everything FOR ALL TABLES")
    assert found(dba) == []


# The server


def test_a_monitor_that_is_configured_and_cannot_run_is_found(make_server, kms_process):
    server = make_server({"cmk_encrypt.monitor_databases": "other, postgres"})
    with server.connect() as connection:
        dba = Session(connection)
        dba.run("CREATE EXTENSION cmk_encrypt")
        problem, _, detail, _ = row(dba)
        assert problem == "monitor_not_running" and "the library is not preloaded" in detail


def test_a_server_without_room_for_workers_is_found(make_server, kms_process):
    with running(make_server, monitor_databases="postgres") as server:
        with server.connect() as connection:
            Session(connection).run("CREATE EXTENSION cmk_encrypt")
            until(lambda: found(Session(connection)) == [], what="a monitor at work")
            connection.execute("ALTER SYSTEM SET max_worker_processes = 0")
        server.restart()
        with server.connect() as connection:
            wanted = ["monitor_not_running", "keyring_worker_not_running"]
            until(lambda: found(Session(connection)) == wanted, what="no worker")


def test_a_bound_that_the_settings_cannot_keep_is_found(dba, server, acme, kms):
    with server.settings(cache_ttl="2min", promised_bound="1min"):
        problem, tenant, detail, fix = row(dba)
        assert (problem, tenant, fix) == ("bound_too_long", None, None)
        assert detail.startswith("values can be opened for 00:02:00 after a revocation")
    with server.settings(cache_ttl="2min", promised_bound="5min"):
        assert found(dba) == []
        dba.run("SELECT cmk.register_tenant('role', %s, %s)", kms.key(),
                Jsonb({"role_arn": kms.role("external-1"), "external_id": "external-1"}))
        problem, tenant, detail, _ = row(dba)
        assert (problem, tenant) == ("bound_too_long", "role")
        assert detail.startswith("values can be opened for 00:17:00") and "assumed role" in detail
    assert found(dba) == [], "nothing was promised"


def test_a_setting_that_the_server_did_not_take_is_found(dba, server, acme):
    conf = server.data / "postgresql.auto.conf"
    before = conf.read_text()
    try:
        conf.write_text(before + "cmk_encrypt.cache_ttl = '1 fortnight'\n")
        problem, tenant, detail, fix = row(dba)
        assert (problem, tenant, fix) == ("setting_not_in_force", None, None)
        assert "cmk_encrypt.cache_ttl in " in detail
    finally:
        conf.write_text(before)
    assert found(dba) == []


def test_a_check_is_never_compiled(dba):
    """Its estimated cost is far above what PostgreSQL compiles from, which takes seconds; a minute later it is asked again."""
    assert "jit=off" in dba.one("SELECT proconfig FROM pg_proc WHERE oid = 'cmk.check(boolean)'::regprocedure")
