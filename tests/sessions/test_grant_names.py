"""A grant belongs to a role: under whatever name, in whatever server, and to nobody else."""

import psycopg
import pytest
from psycopg import sql

from dumps import client, copy
from server import until
from support import CANARY, check_failure, fails, grant, unique

NAMES = ("svc@proj.iam", "App-User", "123", "UPPER", "two words", 'half"quoted')
# Whom a careless reading of those names would reach.
DECOYS = ("svc", "app-user", "app", "upper", "two", "half")


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def named(server):
    """Makes login roles of these names, which may be gone or renamed when the test ends."""
    made = []

    def make(*names):
        for name in names:
            server.execute(f"CREATE ROLE {quoted(name)} LOGIN")
            made.append(server.execute(f"SELECT '{quoted(name)}'::regrole::oid")[0][0])
        return made[-1]

    yield make
    left = sql.SQL("SELECT rolname FROM pg_roles WHERE oid = ANY ({})").format(made)
    for (name,) in server.execute(left):
        server.execute(f"DROP ROLE {quoted(name)}")


@pytest.fixture
def dba(session, database):
    """A superuser in a database where tenant acme has a key."""
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
    return dba


@pytest.fixture
def restored(server, session, dba, database, tmp_path):
    """Dumps a database, `dba`'s unless told otherwise, and restores it; a superuser there."""

    def make(source=dba):
        target = database(extension=False)
        copy(server, where(source), target, tmp_path / target)
        return session(dbname=target)

    return make


def where(dba):
    return dba.connection.info.dbname


def grants(dba):
    return sorted(dba.all("SELECT role::text, encrypt, decrypt FROM cmk.access"))


def may(dba, name):
    """Whether the role of this name uses acme's key."""
    dba.run(f"SET ROLE {quoted(name)}")
    allowed = allows(lambda: dba.decrypt("acme", dba.encrypt("acme")))
    dba.run("RESET ROLE")
    return allowed


def allows(use):
    try:
        use()
    except psycopg.errors.InsufficientPrivilege as error:
        check_failure(error, "42501", "no_grant", "acme")
        return False
    return True


def rename(dba, old, new):
    dba.run(f"ALTER ROLE {quoted(old)} RENAME TO {quoted(new)}")


# Who is meant


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [str, quoted], ids=["bare", "quoted"])
def test_a_name_reaches_exactly_the_role_that_has_it(dba, named, name, form):
    named(*NAMES, *DECOYS)
    grant(dba, "acme", form(name))
    assert grants(dba) == [(name, True, True)]
    assert [role for role in (*NAMES, *DECOYS) if may(dba, role)] == [name]
    dba.run("SELECT cmk.revoke_access('acme', %s, encrypt => false)", form(name))
    assert grants(dba) == [(name, True, False)]
    dba.run("SELECT cmk.revoke_access('acme', %s)", form(name))
    assert grants(dba) == [] and not may(dba, name)


def test_a_name_that_no_role_has_exactly_is_read_as_an_identifier(dba, named):
    named("plain", "Plain")
    for given, meant in (("PLAIN", "plain"), ("Plain", "Plain"), ('"Plain"', "Plain")):
        grant(dba, "acme", given)
        assert grants(dba) == [(meant, True, True)], given
        dba.run("SELECT cmk.revoke_access('acme', %s)", given)
    with fails("42704", "unknown_role"):
        grant(dba, "acme", '"PLAIN"')


NOBODY = ("''", "' '", "'-'", "'0'", "'10'", "'public'", "'none'", "'\"'", "'\"open'", "'a\"b'",
          "'a.b'", "'postgres, postgres'", "'-'::regrole", "4294967295::oid::regrole")


@pytest.mark.parametrize("given", NOBODY)
@pytest.mark.parametrize("function", ["grant_access", "revoke_access"])
def test_what_is_no_role_reaches_nobody(dba, given, function):
    with fails("42704", "unknown_role"):
        dba.run(f"SELECT cmk.{function}('acme', {given})")
    assert grants(dba) == []


def test_the_number_of_a_role_is_not_its_name(dba, named, restored):
    victim = unique("victim")
    number = str(named(victim))
    for form in (number, quoted(number)):
        with fails("42704", "unknown_role"):
            grant(dba, "acme", form)
    named(number)
    grant(dba, "acme", number)
    assert grants(dba) == [(number, True, True)]
    for holder in (dba, restored()):
        assert may(holder, number) and not may(holder, victim)


@pytest.mark.parametrize("role", ["current_user::regrole", "current_user", "'postgres'::varchar"])
def test_a_role_is_also_given_as_regrole_or_another_kind_of_text(dba, role):
    dba.run(f"SELECT cmk.grant_access('acme', {role})")
    assert grants(dba) == [("postgres", True, True)] and may(dba, "postgres")
    dba.run(f"SELECT cmk.revoke_access('acme', {role})")
    assert grants(dba) == []


# The name changes


@pytest.fixture
def pair(dba, named):
    """Two roles with a right each."""
    one, other = "Pair One", "pair@two"
    named(one, other)
    grant(dba, "acme", one, encrypt=False)
    grant(dba, "acme", other, decrypt=False)
    return one, other


def test_a_grant_follows_a_role_that_is_renamed(server, session, dba, pair, restored):
    one, other = pair
    sealed = session(other, dbname=where(dba)).encrypt("acme")
    user = session(one, dbname=where(dba))
    assert user.decrypt("acme", sealed) == CANARY
    rename(dba, one, "Pair One Renamed")
    assert user.decrypt("acme", sealed) == CANARY
    assert grants(dba) == sorted([("Pair One Renamed", False, True), (other, True, False)])
    dump = client(server, "pg_dump", where(dba)).decode()
    assert "\tPair One Renamed\t" in dump and "\tPair One\t" not in dump
    there = restored()
    assert grants(there) == grants(dba)
    assert session("Pair One Renamed", dbname=where(there)).decrypt("acme", sealed) == CANARY


def test_grants_follow_two_roles_that_swap_names(session, dba, pair, restored):
    one, other = pair
    rename(dba, one, "between")
    rename(dba, other, one)
    rename(dba, "between", other)
    expected = sorted([(other, False, True), (one, True, False)])
    assert grants(dba) == expected
    for place in (dba, restored()):
        name = where(place)
        assert grants(place) == expected
        sealed = session(one, dbname=name).encrypt("acme")
        assert session(other, dbname=name).decrypt("acme", sealed) == CANARY
        with fails("42501", "no_grant", "acme"):
            session(one, dbname=name).decrypt("acme", sealed)


def test_a_new_role_of_a_dropped_ones_name_inherits_nothing(session, dba, named, restored):
    named("leaver", "stayer")
    grant(dba, "acme", "stayer")
    for tenant in ("acme", "*"):
        grant(dba, tenant, "leaver")
    dba.run("DROP ROLE leaver")
    named("leaver")
    for holder in (dba, restored()):
        assert not may(holder, "leaver") and may(holder, "stayer")
    grant(dba, "acme", "leaver", decrypt=False)
    assert session("leaver", dbname=where(dba)).encrypt("acme")


# The role is missing


THREE = ("kept", "gone-1", "gone-2")


@pytest.fixture
def bereft(server, session, dba, named, database, tmp_path):
    """A database restored where two of three roles were missing; they are here again, as others."""
    named(*THREE)
    for name in THREE:
        grant(dba, "acme", name)
    grant(dba, "*", "gone-1")
    archive, target = tmp_path / "archive", database(extension=False)
    client(server, "pg_dump", "-Fc", "-f", archive, where(dba))
    dba.run('DROP ROLE "gone-1", "gone-2"')
    client(server, "pg_restore", "--exit-on-error", "-d", target, archive)
    named("gone-1", "gone-2")
    return session(dbname=target)


def reported(dba):
    text = str(dba.all("SELECT * FROM cmk.check()"))
    return [name for name in THREE if name in text]


def test_a_missing_roles_grant_is_reported_and_gives_a_newcomer_nothing(bereft):
    assert reported(bereft) == ["gone-1", "gone-2"]
    assert [name for name in THREE if may(bereft, name)] == ["kept"]


def test_it_gives_a_newcomer_nothing_after_another_dump_either(bereft, restored):
    again = restored(bereft)
    assert [name for name in THREE if may(again, name)] == ["kept"]


def test_a_missing_roles_grant_can_be_given_again(bereft):
    grant(bereft, "acme", "gone-1")
    grant(bereft, "*", "gone-1")
    assert may(bereft, "gone-1") and not may(bereft, "gone-2")
    assert reported(bereft) == ["gone-2"]
    bereft.run("SELECT cmk.revoke_access('acme', 'gone-2')")
    assert reported(bereft) == []


# Replication between servers


@pytest.fixture(scope="module")
def servers(make_server):
    """Two servers with the same roles under swapped numbers, and one that only the first has."""
    publisher, subscriber = make_server({"wal_level": "logical"}), make_server()
    for server, names in ((publisher, ("Ada-1", "bob@x")), (subscriber, ("bob@x", "Ada-1"))):
        server.make_local_key("shared")
        for name in names:
            server.execute(f'CREATE ROLE "{name}" LOGIN')
    numbers = {server.execute("SELECT min(oid) FROM pg_roles WHERE oid >= 16384")[0]
               for server in (publisher, subscriber)}
    assert len(numbers) == 1
    publisher.execute("CREATE ROLE absent LOGIN")
    return publisher, subscriber


@pytest.mark.parametrize("binary", ["false", "true"], ids=["text", "binary"])
def test_replicated_grants_and_revokes_reach_the_role_of_that_name(servers, session, binary):
    name = unique("grants")
    for server in servers:
        server.execute(f"CREATE DATABASE {name}")
        server.execute("CREATE EXTENSION cmk_encrypt", name)
        server.execute("SELECT cmk.register_tenant('acme', 'local:shared')", name)
    there, here = (session(dbname=name, on=server) for server in servers)
    users = [session(role, dbname=name, on=servers[1]) for role in ("Ada-1", "bob@x")]
    grant(here, "acme", "postgres")
    sealed = here.encrypt("acme")
    here.run("SELECT cmk.revoke_access('acme', 'postgres')")
    grant(there, "acme", "Ada-1")
    there.run("CREATE PUBLICATION p FOR TABLE cmk.access")
    source = f"'host={servers[0].socket} dbname={name} user=postgres'"
    options = f"PUBLICATION p WITH (binary = {binary})"
    here.run(f"CREATE SUBSCRIPTION {name} CONNECTION {source} {options}")

    def arrive(*expected):
        until(lambda: grants(here) == sorted(expected), what=f"the grants {expected}")
        for user in users:
            rights = [row[1:] for row in expected if row[0] == user.role] or [(False, False)]
            uses = (lambda: user.encrypt("acme"), lambda: user.decrypt("acme", sealed))
            assert [tuple(map(allows, uses))] == rights, user.role

    arrive(("Ada-1", True, True))
    there.run("SELECT cmk.revoke_access('acme', 'Ada-1', encrypt => false)")
    arrive(("Ada-1", True, False))
    grant(there, "acme", "absent")
    grant(there, "*", "bob@x", encrypt=False)
    arrive(("Ada-1", True, False), ("absent", True, True), ("bob@x", False, True))
    there.run("SELECT cmk.revoke_access('acme', 'Ada-1'), cmk.revoke_access('*', 'bob@x')")
    arrive(("absent", True, True))
    assert "absent" in str(here.all("SELECT * FROM cmk.check()"))
    here.run(f"DROP SUBSCRIPTION {name}")
