"""What a hostile user, a careless administrator or plain bad luck must not achieve."""

import contextlib
import resource
import subprocess
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from provocations import unguarded
from support import CANARY, fails, fails_with, grant, unique, wait_for_lock

MEGABYTE = 1024 * 1024


@contextlib.contextmanager
def unharmed(server, *sessions):
    """The server and these sessions, which a crash of any backend would end, outlive the block."""
    started = server.execute("SELECT pg_postmaster_start_time()")
    postmaster = server.pid
    yield
    assert (server.pid, server.execute("SELECT pg_postmaster_start_time()")) == (postmaster, started)
    assert all(session.usable() for session in sessions)


# Arguments out of all proportion


@pytest.mark.parametrize("call", ["cmk_encrypt({}, 'x')", "cmk_decrypt({}, 'x')", "cmk_try_decrypt({}, 'x')",
                                  "cmk_encrypt_text({}, 'x')", "cmk_decrypt_text({}, 'x')"])
def test_an_overlong_tenant_name_is_refused_without_harm(server, session, role, dba, call):
    nobody = session(role())
    with unharmed(server, nobody, dba):
        # Each character would take many in an error message.
        with fails("22023", "tenant_name"):
            nobody.one(f"SELECT {call.format(f'repeat(chr(1), {220 * MEGABYTE})')}")


def test_an_additional_datum_of_100_megabytes_works(server, app, dba, local_tenant):
    tenant, aad = local_tenant(), f"repeat('x', {100 * MEGABYTE})::bytea"
    with unharmed(server, app, dba):
        envelope = app.one(f"SELECT cmk_encrypt(%s, %b, {aad})", tenant.name, CANARY)
        assert app.one(f"SELECT cmk_decrypt(%s, %b, {aad})", tenant.name, envelope) == CANARY
        with fails("39000", "not_authentic", tenant):
            app.one(f"SELECT cmk_decrypt(%s, %b, {aad} || 'x')", tenant.name, envelope)


def test_where_memory_runs_out_the_statement_fails_and_the_session_lives(server, app, dba, local_tenant):
    tenant, barrier = local_tenant(), 4712
    app.encrypt(tenant)
    dba.run("SELECT pg_advisory_lock(%s)", barrier)
    running = app.start(
        f"DO $$ DECLARE aad bytea := repeat('x', {100 * MEGABYTE})::bytea; sealed bytea; BEGIN"
        f" PERFORM pg_advisory_xact_lock({barrier}); sealed := cmk_encrypt('{tenant}', 'x', aad); END $$"
    )
    wait_for_lock(dba, app.pid)
    with unharmed(server, dba):
        with little_memory_left(server, app.pid):
            dba.run("SELECT pg_advisory_unlock(%s)", barrier)
            wait([running], timeout=20)
        with fails("53200", "out_of_memory", tenant):
            raise running.exception(timeout=0)
        assert app.decrypt(tenant, app.encrypt(tenant)) == CANARY


@contextlib.contextmanager
def little_memory_left(server, pid):
    """The backend can get 32 MB more of address space."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit_address_space(server, pid, pages * resource.getpagesize() + 32 * MEGABYTE)
    yield
    limit_address_space(server, pid, "unlimited")


def limit_address_space(server, pid, limit):
    user, group = server.owner()
    command = ["prlimit", "--pid", str(pid), f"--as={limit}:"]
    subprocess.run(command, check=True, user=user, group=group, extra_groups=[])


# Rights that were not given by cmk.grant_access

WRITES = {
    "insert tenant": "INSERT INTO cmk.tenant (tenant, key_uri) VALUES ('mine', 'local:shared')",
    "update tenant": "UPDATE cmk.tenant SET state = 'active'",
    "delete tenant": "DELETE FROM cmk.tenant",
    "insert data key": "INSERT INTO cmk.data_key (tenant, version, commitment) VALUES ('{tenant}', 9, '')",
    "update data key": "UPDATE cmk.data_key SET wrapped = 'x'",
    "delete data key": "DELETE FROM cmk.data_key",
    "insert access": "INSERT INTO cmk.access (tenant, role, encrypt, decrypt) VALUES ('{tenant}', '{role}', true, true)",
    "insert access or nothing": "INSERT INTO cmk.access (role, encrypt, decrypt) VALUES ('{role}', true, true)"
                                " ON CONFLICT DO NOTHING",
    "update access": "UPDATE cmk.access SET role = '{role}'",
    "delete access": "DELETE FROM cmk.access",
    "copy access": "COPY cmk.access (role, encrypt, decrypt) FROM '/dev/null'",
    "insert event": "INSERT INTO cmk.key_event (tenant, event) VALUES ('{tenant}', 'usable')",
    "insert home": "INSERT INTO cmk.home VALUES (1)",
    "update home": "UPDATE cmk.home SET database = 1",
}
TABLES = ("cmk.tenant", "cmk.data_key", "cmk.access", "cmk.data_key_use", "cmk.key_event", "cmk.home")


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_who_may_write_all_data_may_not_write_the_registry(session, role, app, dba, local_tenant, write):
    tenant, writer = local_tenant(), session(role())
    envelope = app.encrypt(tenant)
    dba.run(f"GRANT pg_write_all_data, pg_read_all_data, pg_read_server_files TO {writer.role}")
    rows = lambda: [dba.all(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES]  # noqa: E731
    before = rows()
    with fails("42501", "registry_write"):
        writer.connection.execute(write.format(tenant=tenant, role=writer.role))
    assert rows() == before
    with fails("42501", "no_grant", tenant):
        writer.decrypt(tenant, envelope)


def test_nor_may_it_truncate_or_alter_the_registry(session, role, dba):
    writer = session(role())
    dba.run(f"GRANT pg_write_all_data TO {writer.role}")
    for table in TABLES:
        for statement in (f"TRUNCATE {table} CASCADE", f"ALTER TABLE {table} DISABLE TRIGGER guard"):
            with fails_with("42501"):
                writer.run(statement)


@pytest.mark.parametrize("everybody", [False, True], ids=["one role", "PUBLIC"])
def test_default_privileges_give_no_right_to_the_registry(session, dba, database, everybody):
    """They change nothing: an ordinary role has what it has in a database without them."""
    name = database()
    dba.run(f'CREATE ROLE "Odd ""{name}" LOGIN')
    usual = rights(session(f'Odd "{name}', dbname=name))
    where = database(extension=False)
    owner = session(dbname=where)
    for kind in ("TABLES", "FUNCTIONS", "SCHEMAS", "SEQUENCES", "TYPES"):
        grantee = "PUBLIC" if everybody else f'"Odd ""{name}" WITH GRANT OPTION'
        owner.run(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO {grantee}")
    owner.run("CREATE EXTENSION cmk_encrypt")
    assert rights(session(f'Odd "{name}', dbname=where)) == usual
    assert ("cmk.data_key", "SELECT") not in usual and ("cmk.protected_columns", "SELECT") in usual


def rights(user):
    """What the role may do with the extension's schemas and what is in them, and with its types but row types."""
    ours = "{}::regnamespace::text IN ('cmk', 'cmk_internal')"
    found = set()
    for catalog, kind, of_ours, privileges in (
        ("pg_namespace", "schema", ours.format("oid"), "USAGE CREATE"),
        ("pg_class", "table", f"{ours.format('relnamespace')} AND relkind IN ('r', 'v')",
         "SELECT INSERT UPDATE DELETE TRUNCATE REFERENCES TRIGGER"),
        ("pg_proc", "function", ours.format("pronamespace"), "EXECUTE"),
        ("pg_type", "type", "typname IN ('grantee', 'cmk_text', 'cmk_bytea', 'cmk_jsonb')", "USAGE"),
    ):
        for privilege in privileges.split():
            for right in (privilege, f"{privilege} WITH GRANT OPTION"):
                found |= {(name, right) for (name,) in user.all(
                    f"SELECT (pg_identify_object('{catalog}'::regclass, oid, 0)).identity FROM {catalog}"
                    f" WHERE {of_ours} AND has_{kind}_privilege(oid, '{right}')")}
    return found


def test_a_grant_to_the_database_owner_leaves_a_warm_session_with_the_ownership(session, role, database):
    where, old, new = database(), role(), role()
    dba = session(dbname=where)
    dba.run(f"ALTER DATABASE {where} OWNER TO {old}")
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    grant(dba, "a", "pg_database_owner")
    before, after = session(old, dbname=where), session(new, dbname=where)
    envelope = before.encrypt("a")
    with fails("42501", "no_grant", "a"):
        after.decrypt("a", envelope)
    dba.run(f"ALTER DATABASE {where} OWNER TO {new}")
    assert after.decrypt("a", envelope) == CANARY
    with fails("42501", "no_grant", "a"):
        before.decrypt("a", envelope)


# The cache


def test_two_damaged_data_keys_of_a_tenant_cost_one_call_each(app, dba, kms, tenant):
    made = tenant()
    first = app.encrypt(made)
    dba.run("SELECT cmk.rotate_tenant(%s)", made.name)
    second = app.encrypt(made)
    with unguarded(dba):
        dba.run("UPDATE cmk.data_key SET wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1) WHERE tenant = %s",
                made.name)
    dba.run("SELECT cmk.evict(%s)", made.name)
    before = kms.calls(made.key_uri)
    assert app.one(
        "SELECT count(*) FROM generate_series(1, 1000) n WHERE cmk_try_decrypt(%s, CASE n %% 2 WHEN 0 THEN %b::bytea"
        " ELSE %b END, '', '{wrapped_key_rejected}') IS NULL", made.name, first, second,
    ) == 1000
    assert kms.calls(made.key_uri) == before + 2


def test_a_much_smaller_cache_takes_effect_on_the_next_miss_and_fast(server, session, database):
    many, where = 5000, database()
    user = session(dbname=where)
    user.run("SELECT cmk.grant_access('*', 'postgres')")
    user.run("SELECT count(cmk.register_tenant('t' || n, 'local:shared')) FROM generate_series(0, %s::int) n", many)
    with server.settings(cache_size=many + 1):
        user.run("SELECT count(cmk_encrypt('t' || n, 'x')) FROM generate_series(1, %s::int) n", many)
        assert user.one("SELECT entries FROM cmk.cache_stats") == many
        with server.settings(cache_size=2):
            began = time.monotonic()
            user.encrypt("t0")
            assert time.monotonic() - began < 0.3
            assert user.row("SELECT entries, dropped_for_room FROM cmk.cache_stats") == (2, many - 1)
            assert user.all("SELECT tenant FROM cmk.cache ORDER BY 1") == [("t0",), (f"t{many}",)]


def test_a_session_that_plays_many_roles_gets_each_ones_answer(dba, app, role, local_tenant):
    tenant, roles = local_tenant(), [role("NOLOGIN") for _ in range(80)]
    envelope, may = app.encrypt(tenant), set(roles[::2])
    for name in may:
        grant(dba, tenant, name)
    for order in (roles, roles[::-1], roles[10:30]):
        for name in order:
            dba.run(f"SET ROLE {name}")
            opened = dba.one("SELECT cmk_try_decrypt(%s, %b, '', '{no_grant}')", tenant.name, envelope)
            assert opened == (CANARY if name in may else None), name
    dba.run("RESET ROLE")
    dba.run("SELECT cmk.revoke_access(%s, %s)", tenant.name, roles[10])
    dba.run(f"SET ROLE {roles[10]}")
    with fails("42501", "no_grant", tenant):
        dba.decrypt(tenant, envelope)
    dba.run("RESET ROLE")


# Odd calls


def test_the_first_call_of_a_session_may_be_an_inspection_where_a_parallel_plan_is_cheap(session, dba, app, tenant):
    made, table = tenant(), unique("inspected")
    dba.run("SELECT cmk.grant_access(%s, 'postgres')", made.name)
    dba.run(f"CREATE TABLE {table} AS SELECT cmk_encrypt('{made}', int4send(i)) AS s FROM generate_series(1, 2000) i")
    fresh = session()
    for setting in ("min_parallel_table_scan_size", "parallel_setup_cost", "parallel_tuple_cost"):
        fresh.run(f"SET {setting} = 0")
    assert fresh.one(f"SELECT DISTINCT (cmk.inspect(s)).version FROM {table}") == 1


def test_a_local_key_has_no_role(dba):
    with fails("22023", "key_options"):
        dba.run("SELECT cmk.register_tenant('x', 'local:shared', '{\"role_arn\": \"arn:aws:iam::111122223333:role/x\"}')")
