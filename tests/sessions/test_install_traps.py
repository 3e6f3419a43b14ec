"""Nothing that a superuser does with the extension runs code of the database's owner.

Nor does the owner, who may drop schemas, get the extension or a key that way.
"""

import subprocess

import pytest

from server import until
from support import CANARY, fails_with, grant, unique
from traps import (
    Traps, became_superuser, default_version, extension_file, install_script, springs_none
)
from watched import running


@pytest.fixture(scope="module")
def traps(make_server):
    """What mallory laid in the database `trapped` of a server of its own."""
    with running(make_server, monitor_databases="") as server:
        server.make_local_key("shared")
        for name in ("mallory", "clerk"):
            server.execute(f"CREATE ROLE {name} LOGIN")
        server.execute("CREATE DATABASE trapped OWNER mallory")
        with server.connect("trapped", options="-c search_path=pg_catalog") as catalog:
            traps = Traps(catalog)
        with server.connect("trapped", "mallory") as mallory:
            traps.lay(mallory)
        traps.server = server
        yield traps


@pytest.fixture
def trapped(traps):
    """Makes copies of that database. mallory owns them and chose the search_path of sessions."""
    made = []

    def make(search_path):
        name = unique("trapped")
        traps.server.execute(f"CREATE DATABASE {name} TEMPLATE trapped OWNER mallory")
        made.append(name)
        with traps.server.connect(name, "mallory") as mallory:
            mallory.execute(f"ALTER DATABASE {name} SET search_path = {search_path}")
        return name

    yield make
    traps.server.execute("ALTER ROLE mallory NOSUPERUSER")
    for name in made:
        traps.server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(
    "search_path, query",
    [
        ("public", "SELECT 1::oid = 'pg_catalog'::regnamespace"),
        ("public", "SELECT '{a}'::text[] || '{b}'::text[]"),
        ("public", "SELECT octet_length('x'::varchar)"),
        ("public", "SELECT 'x'::text::public.bait"),
        ("evil, pg_catalog", "SELECT 'a'::text = 'a'::text"),
        ("evil, pg_catalog", "SELECT now()"),
        ("evil, pg_catalog", "SELECT 'a'::text"),
        ("evil, pg_catalog", "SELECT FROM pg_class LIMIT 1"),
    ],
)
def test_a_trap_makes_a_superuser_of_who_laid_it(traps, trapped, session, search_path, query):
    dba = session(dbname=trapped(search_path), on=traps.server)
    dba.run(query)
    assert became_superuser(traps.server)
    assert dba.all("TABLE public.trapped")


def test_there_is_a_trap_for_every_operator_and_each_pair_of_types_it_takes(traps):
    laid = {*traps.operators}
    assert len(laid) > 5000
    for left, right in (("oid", "regnamespace"), ("regclass", "regclass"), ("smallint", "oid"),
                        ("name", "character varying"), ("text[]", "text[]"), ("bytea", "bytea")):
        assert {(operator, left, right) for operator in ("=", "<>", "<", ">=")} <= laid
    assert {("||", "text[]", "name"), ("~", "character varying", "text")} <= laid


@pytest.fixture
def older_version():
    """Version 0.0.0, which is nothing, and an update from it, which is the present one whole."""
    scripts = {
        "cmk_encrypt--0.0.0.sql": "SELECT 1;",
        f"cmk_encrypt--0.0.0--{default_version()}.sql": install_script(),
    }
    try:
        for name, text in scripts.items():
            extension_file(name).write_text(text)
        yield "0.0.0"
    finally:
        for name in scripts:
            extension_file(name).unlink(missing_ok=True)


@pytest.mark.parametrize("way", ["created", "updated"])
@pytest.mark.parametrize("search_path", ['"$user", public', "evil, pg_catalog, public"])
def test_nothing_that_a_superuser_does_springs_a_trap(
    traps, trapped, session, kms, older_version, search_path, way
):
    server, name = traps.server, trapped(search_path)
    dba, clerk = session(dbname=name, on=server), session("clerk", dbname=name, on=server)
    catalog = session(dbname=name, on=server, options="-c search_path=pg_catalog")
    with springs_none(server, name):
        if way == "updated":
            dba.run(f"CREATE EXTENSION cmk_encrypt VERSION '{older_version}'")
            dba.run("ALTER EXTENSION cmk_encrypt UPDATE")
        else:
            dba.run("CREATE EXTENSION cmk_encrypt")
        sealed = administer(dba, clerk, "by-file", "local:shared")
        sealed |= administer(dba, clerk, "by-kms", kms.key())
        protect(dba, "by-file")
        look_at_everything(dba, catalog)
        dump(server, name)
        watch(server, kms, name, dba)
        for user in (dba, clerk):
            for envelope, tenant in sealed.items():
                assert user.decrypt(tenant, envelope) == CANARY
        dba.run("SELECT cmk.destroy_data_keys(%s)", name)
        dba.run("DROP EXTENSION cmk_encrypt")


def administer(dba, clerk, tenant, key_uri):
    """What an administrator does for a tenant; {envelope: tenant} of values sealed on the way."""
    dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", tenant, key_uri)
    dba.run("SELECT cmk.activate_tenant(%s)", tenant)
    for role in ("clerk", "postgres"):
        grant(dba, tenant, role)
    dba.run("SELECT cmk.grant_access('*', 'clerk'::pg_catalog.regrole)")
    sealed = {user.encrypt(tenant): tenant for user in (dba, clerk)}
    for call in ("rotate_tenant", "suspend_tenant", "resume_tenant", "evict", "warm",
                 "revocation_bound"):
        dba.run(f"SELECT cmk.{call}(%s)", tenant)
    for call in ("evict_all()", "reset_stats()", "revoke_access('*', 'clerk')"):
        dba.run(f"SELECT cmk.{call}")
    for envelope in sealed:
        dba.run("SELECT * FROM cmk.inspect(%b)", envelope)
        opened = clerk.one("SELECT cmk_try_decrypt_text(%s, %b)", tenant, envelope)
        assert opened == CANARY.decode()
    return sealed | {user.encrypt(tenant): tenant for user in (dba, clerk)}


def protect(dba, tenant):
    """A table of the administrator's, from plaintext to protected and back."""
    dba.run("CREATE SCHEMA kept")
    dba.run(
        "CREATE TABLE kept.people (id pg_catalog.int4, tenant pg_catalog.text NOT NULL,"
        " ssn pg_catalog.text, scan pg_catalog.bytea, card pg_catalog.jsonb)"
    )
    insert = "INSERT INTO kept.people VALUES (1, %s, 'x', 'x', '{}')"
    dba.run(insert, tenant)
    dba.run("CREATE VIEW kept.view AS SELECT ssn, scan FROM kept.people")
    columns = {
        "ssn": "tenant_column => 'tenant', rewrite => false, views => 'recreate'",
        "scan": "tenant_expression => 'pg_catalog.lower(tenant)', views => 'recreate'",
        "card": "tenant_column => 'tenant', rewrite => true",
    }
    for column, arguments in columns.items():
        dba.run(f"SELECT cmk.protect_column('kept.people', '{column}', {arguments})")
    dba.run("CALL cmk.seal_table('kept.people')")
    dba.run(insert, tenant)
    dba.run("UPDATE kept.people SET ssn = 'y'")
    dba.run("ANALYZE kept.people")
    dba.run("SET cmk_encrypt.output = plaintext")
    for column in columns:
        assert dba.one(f"SELECT cmk.unsealed_rows('kept.people', '{column}')") == 0
        assert len(dba.all(f"SELECT {column} FROM kept.people ORDER BY {column}")) == 2
        assert len(dba.all(f"SELECT DISTINCT {column} FROM kept.people")) == 1
    dba.run("RESET cmk_encrypt.output")
    assert len(dba.all("SELECT * FROM cmk.dump_keys_needed('kept.people')")) >= len(columns)
    assert len(dba.all("SELECT problems FROM cmk.protected_columns")) == len(columns)
    for column in columns:
        dba.run(f"SELECT cmk.unprotect_column('kept.people', '{column}', views => 'recreate')")
    assert dba.all("SELECT ssn FROM kept.view") == [("y",), ("y",)]


def look_at_everything(dba, catalog):
    """`catalog` finds by name what `dba` reads."""
    relations = catalog.all(
        "SELECT relname FROM pg_class WHERE relnamespace = 'cmk'::regnamespace"
        " AND relkind IN ('r', 'v')"
    )
    assert len(relations) >= 8
    for (relation,) in relations:
        dba.all(f"SELECT * FROM cmk.{relation}")
    assert dba.all("SELECT * FROM cmk.check()") == []


def dump(server, name):
    command = [server.program("pg_dump"), f"--host={server.socket}", "--username=postgres", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    assert b"COPY cmk.data_key" in done.stdout


def watch(server, kms, name, dba):
    """The monitor, a superuser, sees a key taken away and given back."""
    arn = kms.key()
    dba.run("SELECT cmk.register_tenant('watched', %s)", arn)
    with server.settings(monitor_databases=name):
        for state in ("Disabled", "Enabled"):
            kms.state(arn, state)
            before = kms.calls(arn)
            until(lambda: kms.calls(arn) >= before + 2, what="the monitor's checks")


# What an owner may drop


def test_who_owns_the_database_and_its_schemas_drops_neither_the_extension_nor_a_key(
    server, session, role, database
):
    where, owner = database(extension=False), role()
    server.execute(f"ALTER DATABASE {where} OWNER TO {owner}")
    hers = session(owner, dbname=where)
    hers.run("CREATE SCHEMA hers")
    hers.run(f"ALTER DATABASE {where} SET search_path = hers, public")
    dba = session(dbname=where)
    dba.run("CREATE EXTENSION cmk_encrypt")
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    grant(dba, "a", "postgres")
    dba.run("SELECT cmk.rotate_tenant('a')")
    sealed = dba.encrypt("a")

    for refused in ("SCHEMA cmk", "EXTENSION cmk_encrypt", "TABLE cmk.data_key",
                    "FUNCTION pg_catalog.cmk_decrypt(text, bytea, bytea)"):
        with fails_with("42501"):
            hers.run(f"DROP {refused} CASCADE")
    schemas = hers.all(
        "SELECT nspname FROM pg_namespace JOIN pg_roles r ON r.oid = nspowner WHERE NOT rolsuper"
    )
    assert sorted(schemas) == [("hers",), ("public",)]
    for (schema,) in schemas:
        hers.run(f"DROP SCHEMA {schema} CASCADE")
    hers.run(f"DROP OWNED BY {owner} CASCADE")

    later = session(dbname=where)
    assert later.one("SELECT count(*) FROM cmk.data_key") == 2
    assert schema_of_the_extension(later) == "pg_catalog"
    for user in (dba, later):
        assert user.decrypt("a", sealed) == CANARY
        assert user.decrypt("a", user.encrypt("a")) == CANARY


def test_the_extension_goes_into_no_other_schema(session, database):
    dba = session(dbname=database(extension=False))
    dba.run("CREATE SCHEMA elsewhere")
    with fails_with("0A000"):
        dba.run("CREATE EXTENSION cmk_encrypt SCHEMA elsewhere")
    dba.run("CREATE EXTENSION cmk_encrypt")
    with fails_with("0A000"):
        dba.run("ALTER EXTENSION cmk_encrypt SET SCHEMA elsewhere")
    assert schema_of_the_extension(dba) == "pg_catalog"


def schema_of_the_extension(dba):
    return dba.one(
        "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'cmk_encrypt'"
    )
