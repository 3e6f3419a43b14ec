"""Rights at the edges: roles that are gone, cursors that start late, queries that end in errors, backup roles."""

import psycopg
import pytest

from dumps import client
from support import CANARY, fails, fails_with, grant, unique


@pytest.fixture
def world(drill, session):
    """On a preloaded server: a granted role, one without a grant, sealed rows, a function of the former that fetches."""
    dba, tenant = drill.dba, drill.tenant()
    granted, nobody, schema = unique("role"), unique("role"), unique("edge")
    for name in (granted, nobody):
        dba.run(f"CREATE ROLE {name} LOGIN")
    grant(dba, tenant, granted)
    dba.run(f"CREATE SCHEMA {schema} AUTHORIZATION {granted}")
    dba.run(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {nobody}")
    reader = session(granted, dbname="postgres", on=drill.server)
    reader.run(f"CREATE TABLE {schema}.t (id int, v bytea)")
    reader.run(f"INSERT INTO {schema}.t SELECT i, cmk_encrypt(%s, 'seen') FROM generate_series(1, 3) i", tenant.name)
    reader.run(f"GRANT ALL ON {schema}.t TO PUBLIC")
    reader.run(
        f"CREATE FUNCTION {schema}.fetch_it(c refcursor) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$ DECLARE v text; BEGIN FETCH c INTO v; RETURN v; END $$"
    )
    opens, stranger = f"cmk_decrypt_text('{tenant}', v)", session(nobody, dbname="postgres", on=drill.server)
    yield schema, tenant, reader, stranger, opens
    stranger.connection.rollback()
    dba.run(f"DROP SCHEMA {schema} CASCADE")


LATE = {
    "execute": ["PREPARE p AS SELECT {opens} FROM {schema}.t",
                "DO $$ DECLARE c refcursor := 'c'; BEGIN OPEN c FOR EXECUTE 'execute p'; END $$"],
    "returning": ["DO $$ DECLARE c refcursor := 'c'; BEGIN OPEN c FOR EXECUTE"
                  " 'UPDATE {schema}.t SET id = id RETURNING ' || $q${opens}$q$; END $$"],
    "with dml": ["DO $$ DECLARE c refcursor := 'c'; BEGIN OPEN c FOR EXECUTE"
                 " 'WITH x AS (UPDATE {schema}.t SET id = id RETURNING v) SELECT ' || $q${opens}$q$ || ' FROM x';"
                 " END $$"],
    "an expression": ["CREATE FUNCTION pg_temp.g(v bytea) RETURNS text LANGUAGE plpgsql AS"
                      " $$ BEGIN RETURN {opens}; END $$",
                      "DECLARE c CURSOR FOR SELECT pg_temp.g(v) FROM {schema}.t"],
    "an SQL function": ["CREATE FUNCTION pg_temp.g() RETURNS SETOF text LANGUAGE sql AS"
                        " $$ SELECT {opens} FROM {schema}.t $$",
                        "DECLARE c CURSOR FOR SELECT pg_temp.g()"],
}


@pytest.mark.parametrize("declares", LATE.values(), ids=list(LATE))
def test_a_nobodys_cursor_opens_nothing_whenever_it_starts(world, declares):
    schema, tenant, _, nobody, opens = world
    nobody.run("BEGIN")
    for statement in declares:
        nobody.run(statement.format(schema=schema, opens=opens))
    with fails("42501", "no_grant", tenant):
        nobody.one(f"SELECT {schema}.fetch_it('c')")
    assert nobody.usable()


def test_a_query_that_failed_under_another_role_leaves_the_session_its_rights(drill, world):
    schema, tenant, reader, nobody, opens = world
    drill.dba.run(f"GRANT {reader.role} TO {nobody.role}")
    for name in ("c1", "c2"):
        nobody.run("BEGIN")
        nobody.run(f"SET LOCAL ROLE {nobody.role}")
        nobody.run(f"DECLARE {name} CURSOR FOR SELECT 1 / (id - 1) FROM {schema}.t")
        nobody.run(f"SET LOCAL ROLE {reader.role}")
        with fails_with("22012"):
            nobody.run(f"FETCH {name}")
        nobody.run("ROLLBACK")
        nobody.run(f"SET ROLE {reader.role}")
        assert nobody.all(f"SELECT {opens} FROM {schema}.t") == [("seen",)] * 3
        nobody.run("RESET ROLE")


def test_errors_of_everybodys_queries_keep_what_clients_read_of_them(app, dba, local_tenant):
    table = unique("t")
    dba.run(f"CREATE TABLE {table} (id int CONSTRAINT {table}_positive CHECK (id > 0))")
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    app.encrypt(local_tenant())  # the library is loaded, and its hooks with it
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        app.run(f"INSERT INTO {table} SELECT 0")
    diag = caught.value.diag
    assert (diag.constraint_name, diag.table_name) == (f"{table}_positive", table)
    assert diag.message_detail == "Failing row contains (0)."
    dba.run(f"DROP TABLE {table}")


def test_a_session_whose_role_is_dropped_reads_no_more(dba, session, local_tenant):
    name, tenant = unique("leaver"), local_tenant(to=())
    dba.run(f"CREATE ROLE {name} LOGIN")
    grant(dba, tenant, name)
    leaver = session(name)
    sealed = leaver.encrypt(tenant)
    assert leaver.decrypt(tenant, sealed) == CANARY
    dba.run(f"DROP ROLE {name}")
    with fails("42501", "no_grant", tenant):
        leaver.decrypt(tenant, sealed)
    assert (f"{name} (dropped)",) in dba.all("SELECT role::text FROM cmk.access WHERE tenant = %s", tenant.name)
    dba.run("SELECT cmk.revoke_access(%s, %s)", tenant.name, name)
    assert not dba.all("SELECT FROM cmk.access WHERE tenant = %s", tenant.name)


def test_a_revocation_from_nobody_darkens_nobody(drill, session, kms):
    tenant, name = drill.tenant(), unique("gone")
    drill.dba.run(f"CREATE ROLE {name}")
    grant(drill.dba, tenant, name)
    drill.dba.run(f"DROP ROLE {name}")
    user = session(dbname="postgres", on=drill.server)
    grant(drill.dba, tenant, user.role)
    sealed = user.encrypt(tenant)
    locker = session(dbname="postgres", on=drill.server)
    locker.run("BEGIN")
    locker.run("LOCK TABLE cmk.access IN SHARE ROW EXCLUSIVE MODE")
    running = drill.dba.start("SELECT cmk.revoke_access(%s, %s)", tenant.name, name)
    assert user.decrypt(tenant, sealed) == CANARY
    locker.run("ROLLBACK")
    running.result(timeout=5)
    assert user.decrypt(tenant, sealed) == CANARY


def test_a_suspension_waits_for_a_resumption_that_is_about_to_commit(dba, session, app, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    keeper = session()
    keeper.run("BEGIN")
    keeper.run("SELECT cmk.resume_tenant(%s)", tenant.name)
    running = dba.start("SELECT cmk.suspend_tenant(%s)", tenant.name)
    assert not running.done()
    keeper.run("COMMIT")
    running.result(timeout=5)
    with fails("55000", "tenant_suspended", tenant):
        app.encrypt(tenant)


def test_who_may_read_all_data_can_dump(server, dba, role, database, session):
    backup, where = role("LOGIN"), database()
    dba.run(f"GRANT pg_read_all_data TO {backup}")
    owner = session(dbname=where)
    owner.run("SELECT cmk.register_tenant('a', 'local:shared')")
    grant(owner, "a", "postgres")
    dump = client(server, "pg_dump", "--username", backup, where)
    assert b"COPY cmk.data_key" in dump and b"postgres" in dump


def test_a_cascade_from_somebodys_object_spares_the_data_keys(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    dba.run("CREATE SCHEMA junk")
    dba.run("CREATE TABLE junk.base ()")
    dba.run("ALTER TABLE cmk.data_key INHERIT junk.base")
    for statement in ("DROP TABLE junk.base CASCADE", "DROP SCHEMA junk CASCADE",
                      "ALTER TABLE cmk.data_key DROP COLUMN wrapped CASCADE"):
        with fails("2BP01", "keys_would_be_lost"):
            dba.run(statement)
    assert dba.one("SELECT count(*) FROM cmk.data_key") == 1
