"""Data keys are not lost by the way: only who names the database destroys them."""

import psycopg
import pytest

from dumps import attempt, client
from server import until
from support import CANARY, fails, fails_with, grant, unique, wait_for_lock


class Kept:
    """A database with two data keys of tenant a, and a value under each."""

    def __init__(self, connect):
        self.connect = connect
        self.dba = connect()
        self.name = self.dba.connection.info.dbname
        self.dba.run("CREATE EXTENSION cmk_encrypt")
        self.dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
        grant(self.dba, "a", self.dba.role)
        self.envelopes = [self.dba.encrypt("a")]
        self.dba.run("SELECT cmk.rotate_tenant('a')")
        self.envelopes.append(self.dba.encrypt("a"))

    def is_whole(self):
        """Warm and new sessions open every value, and every data key is as it was made."""
        for session in (self.dba, self.connect()):
            assert [session.decrypt("a", envelope) for envelope in self.envelopes] == [CANARY] * 2
        assert self.dba.all("SELECT tenant, version, state FROM cmk.data_key ORDER BY version") == [
            ("a", 1, "retired"), ("a", 2, "current"),
        ]
        assert self.dba.all("SELECT * FROM cmk.check()") == []
        return True


@pytest.fixture
def kept(session, database):
    name = database(extension=False)
    return Kept(lambda: session(dbname=name))


# DROP EXTENSION

FUNCTION = "CREATE FUNCTION pg_temp.go() RETURNS void LANGUAGE {} AS $$ {} $$; SELECT pg_temp.go()"
DROPS = {
    "bare": "DROP EXTENSION cmk_encrypt",
    "cascade": "DROP EXTENSION IF EXISTS cmk_encrypt CASCADE",
    "plpgsql": "DROP EXTENSION plpgsql CASCADE",
    "with another": "DROP EXTENSION cmk_encrypt, plpgsql",
    "last of several": "CREATE TABLE t (); SELECT 1; DROP EXTENSION cmk_encrypt; SELECT 2",
    "in a transaction": "BEGIN; DROP EXTENSION cmk_encrypt CASCADE; COMMIT",
    "after a savepoint": "BEGIN; SAVEPOINT s; DROP EXTENSION plpgsql CASCADE; RELEASE s; COMMIT",
    "as a replica": "SET session_replication_role = replica; DROP EXTENSION cmk_encrypt CASCADE",
    "in DO": "DO $$ BEGIN DROP EXTENSION cmk_encrypt CASCADE; END $$",
    "dynamic": "DO $$ BEGIN EXECUTE 'DROP EXTENSION ' || 'cmk_' || 'encrypt'; END $$",
    "in a function": FUNCTION.format("plpgsql", "BEGIN DROP EXTENSION cmk_encrypt; END"),
    "in an SQL function": FUNCTION.format("sql", "DROP EXTENSION cmk_encrypt CASCADE"),
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=list(DROPS))
@pytest.mark.parametrize("loaded", [False, True], ids=["fresh session", "warm session"])
def test_the_extension_is_not_dropped_while_there_are_data_keys(kept, drop, loaded):
    dba = kept.connect()
    if loaded:
        assert dba.decrypt("a", kept.envelopes[0]) == CANARY
    with fails("2BP01", "keys_would_be_lost"):
        dba.connection.execute(drop)
    dba.connection.rollback()
    assert kept.is_whole()


def test_a_block_that_goes_on_after_the_refusal_has_dropped_nothing(kept):
    kept.connect().connection.execute(
        "DO $$ BEGIN DROP EXTENSION cmk_encrypt CASCADE;"
        " EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$"
    )
    assert kept.is_whole()


@pytest.mark.parametrize("of", ["cmk_encrypt", "plpgsql"])
@pytest.mark.parametrize("block", [False, True], ids=["", "in DO"])
def test_data_keys_are_not_dropped_as_somebodys_belongings(session, role, database, of, block):
    owner, name = role("LOGIN SUPERUSER"), database(extension=False)
    if of == "plpgsql":
        for change in ("DROP", "CREATE"):
            session(owner, dbname=name).run(f"{change} EXTENSION plpgsql")
    kept = Kept(lambda: session("postgres" if of == "plpgsql" else owner, dbname=name))
    drop = f"DROP OWNED BY {owner} CASCADE"
    with fails("2BP01", "keys_would_be_lost"):
        session(dbname=name).run(f"DO $$ BEGIN {drop}; END $$" if block else drop)
    assert kept.is_whole()


def test_a_schema_takes_nothing_with_it(kept):
    kept.connect().run("DROP SCHEMA public CASCADE")
    for statement in ("DROP SCHEMA cmk CASCADE", "DROP TABLE cmk.data_key CASCADE"):
        with fails_with("2BP01"):
            kept.dba.run(statement)
    assert kept.is_whole()


@pytest.mark.parametrize("options", [["--clean"], ["--clean", "--if-exists", "-1"]], ids=" ".join)
def test_a_restore_over_its_own_source_destroys_nothing(server, kept, tmp_path, options):
    archive = tmp_path / "archive"
    client(server, "pg_dump", "-Fc", "-f", archive, kept.name)
    done = attempt(server, "pg_restore", *options, "-d", kept.name, archive)
    assert done.returncode != 0
    assert b"reason=keys_would_be_lost" in done.stderr, done.stderr.decode()
    assert kept.is_whole()


def test_a_drop_that_waited_for_a_registration_sees_it(session, dba, database):
    name = database()
    first, second = session(dbname=name), session(dbname=name)
    first.run("BEGIN")
    first.run("SELECT cmk.register_tenant('a', 'local:shared'), cmk.grant_access('a', 'postgres')")
    dropping = second.start("DROP EXTENSION cmk_encrypt CASCADE")
    wait_for_lock(dba, second.pid)
    first.run("COMMIT")
    with fails("2BP01", "keys_would_be_lost"):
        raise dropping.exception(timeout=10)
    assert second.decrypt("a", first.encrypt("a")) == CANARY


def test_a_drop_under_an_old_snapshot_sees_newer_data_keys(session, database):
    name = database()
    old, new = session(dbname=name), session(dbname=name)
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old.run("SELECT count(*) FROM cmk.data_key")
    new.run("SELECT cmk.register_tenant('a', 'local:shared'), cmk.grant_access('a', 'postgres')")
    with fails("2BP01", "keys_would_be_lost"):
        old.run("DROP EXTENSION cmk_encrypt CASCADE")
    old.connection.rollback()
    assert new.decrypt("a", new.encrypt("a")) == CANARY


def test_a_guard_that_is_off_is_reported(kept):
    kept.dba.run("ALTER EVENT TRIGGER cmk_drop_guard DISABLE")
    problem, fix = kept.dba.row("SELECT problem, fix FROM cmk.check()")
    assert problem == "drop_guard_off"
    kept.dba.run(fix)
    assert kept.is_whole()
    with fails_with("2BP01"):
        kept.dba.run("DROP EVENT TRIGGER cmk_drop_guard")


# What may go


def gone(dba):
    return dba.all("SELECT FROM pg_extension WHERE extname = 'cmk_encrypt'") == []


@pytest.mark.parametrize("pending", [False, True], ids=["no tenant", "a pending tenant"])
def test_without_data_keys_the_extension_is_dropped(session, database, pending):
    dba = session(dbname=database())
    if pending:
        dba.run("SELECT cmk.register_tenant('a', 'local:shared', activate => false)")
    session(dbname=dba.connection.info.dbname).run("DROP EXTENSION cmk_encrypt")
    assert gone(dba)


def test_another_extension_and_another_owners_things_are_dropped(session, role, kept):
    other = role("LOGIN SUPERUSER")
    for drop in ("DROP EXTENSION hstore CASCADE", f"DROP OWNED BY {other} CASCADE"):
        owner = session(other, dbname=kept.name)
        owner.run("CREATE EXTENSION hstore")
        with fails("2BP01", "keys_would_be_lost"):
            owner.run("DROP EXTENSION hstore, cmk_encrypt")
        owner.run(drop)
        assert owner.all("SELECT FROM pg_extension WHERE extname = 'hstore'") == []
        assert kept.is_whole()


DESTROY = "SELECT cmk.destroy_data_keys(current_database())"


def test_who_names_the_database_destroys_its_data_keys_and_drops_the_extension(kept):
    assert kept.dba.one(DESTROY) == 2
    with pytest.raises(psycopg.Error):
        kept.dba.decrypt("a", kept.envelopes[0])
    kept.dba.run("DROP EXTENSION cmk_encrypt")
    assert gone(kept.dba)


@pytest.mark.parametrize("script", [
    f"BEGIN; {DESTROY}; DROP EXTENSION cmk_encrypt; COMMIT",
    "DO $$ BEGIN PERFORM cmk.destroy_data_keys(current_database());"
    " DROP EXTENSION cmk_encrypt CASCADE; END $$",
], ids=["transaction", "DO"])
def test_both_may_be_one_transaction(kept, script):
    kept.connect().connection.execute(script)
    assert gone(kept.dba)


def test_destruction_undone_destroyed_nothing(kept):
    with kept.dba.connection.transaction(force_rollback=True):
        assert kept.dba.one(DESTROY) == 2
    with kept.dba.connection.transaction():
        with kept.dba.connection.transaction(force_rollback=True):
            assert kept.dba.one(DESTROY) == 2
    assert kept.is_whole()


@pytest.mark.parametrize("name", ["'postgres'", "''", "'nowhere'", "upper(current_database())",
                                  "current_database() || ' '", "NULL"])
def test_the_name_of_another_database_destroys_nothing(kept, name):
    with pytest.raises(psycopg.Error) as caught:
        kept.dba.run(f"SELECT cmk.destroy_data_keys({name})")
    assert caught.value.sqlstate == ("22004" if name == "NULL" else "22023"), repr(caught.value)
    assert kept.is_whole()


def test_nobody_destroys_data_keys_without_being_allowed_to(session, role, kept):
    nobody = session(role(), dbname=kept.name)
    kept.dba.run(f"ALTER DATABASE {kept.name} OWNER TO {nobody.role}")
    with fails_with("42501"):
        nobody.run(DESTROY)
    assert kept.is_whole()


# The rows

WRITES = {
    "truncate data keys": "TRUNCATE cmk.data_key",
    "truncate tenants": "TRUNCATE cmk.tenant",
    "truncate both": "TRUNCATE cmk.data_key, cmk.tenant CASCADE",
    "delete data keys": "DELETE FROM cmk.data_key",
    "delete a retired data key": "DELETE FROM cmk.data_key WHERE state = 'retired'",
    "delete tenants": "DELETE FROM cmk.tenant",
    "data key's version": "UPDATE cmk.data_key SET version = version + 10",
    "commitment": "UPDATE cmk.data_key SET commitment = sha256(commitment)",
    "wrapped data key": "UPDATE cmk.data_key SET wrapped = 'x'",
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("as_role", ["origin", "replica"])
def test_a_superuser_does_not_lose_data_keys_by_writing_tables(kept, write, as_role):
    dba = kept.connect()
    dba.run(f"SET session_replication_role = {as_role}")
    with fails("2BP01", "keys_would_be_lost"):
        dba.run(write)
    assert kept.is_whole()


RENAMES = {
    "tenant": "UPDATE cmk.tenant SET tenant = 'b' WHERE tenant = 'a'",
    "all tenants": "UPDATE cmk.tenant SET tenant = tenant || '-eu'",
    "data keys": "UPDATE cmk.data_key SET tenant = 'b'",
}


@pytest.mark.parametrize("rename", RENAMES.values(), ids=list(RENAMES))
@pytest.mark.parametrize("as_role", ["origin", "replica"])
def test_a_tenant_is_not_renamed_by_hand(kept, rename, as_role):
    dba = kept.connect()
    dba.run(f"SET session_replication_role = {as_role}")
    with fails("2BP01", "tenant_name_fixed", "a"):
        dba.run(rename)
    # Nor before it has a data key: the owner's policy names it already.
    dba.run("SELECT cmk.register_tenant('c', 'local:shared', activate => false)")
    with fails("2BP01", "tenant_name_fixed", "c"):
        dba.run("UPDATE cmk.tenant SET tenant = 'd' WHERE tenant = 'c'")
    dba.run("UPDATE cmk.tenant SET tenant = 'c' WHERE tenant = 'c'")
    dba.run("DELETE FROM cmk.tenant WHERE tenant = 'c'")
    assert kept.is_whole()


def test_a_data_key_may_be_destroyed_by_hand_and_a_tenant_without_any_be_deleted(kept):
    kept.dba.run("UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE version = 1")
    with pytest.raises(psycopg.Error):
        kept.connect().decrypt("a", kept.envelopes[0])
    assert kept.connect().decrypt("a", kept.envelopes[1]) == CANARY
    kept.dba.run("SELECT cmk.register_tenant('b', 'local:shared', activate => false)")
    kept.dba.run("DELETE FROM cmk.tenant WHERE tenant = 'b'")
    assert kept.dba.all("SELECT tenant FROM cmk.tenant") == [("a",)]


@pytest.fixture(scope="module")
def logical(make_server):
    server = make_server({"wal_level": "logical"})
    server.make_local_key("shared")
    return server


PUBLISHED = {
    "data_key": "tenant text, version int, purpose text, state text, commitment bytea, wrapped bytea, wrapped_by text",
    "tenant": "tenant text, state text, key_uri text",
}


@pytest.mark.parametrize("table", PUBLISHED)
def test_a_replicated_truncate_destroys_nothing(logical, session, table):
    here, there, slot = (unique(name) for name in ("publisher", "subscriber", "slot"))
    for name in (here, there):
        logical.execute(f"CREATE DATABASE {name}")
    kept = Kept(lambda: session(dbname=there, on=logical))
    other = session(dbname=here, on=logical)
    other.run("CREATE SCHEMA cmk")
    other.run(f"CREATE TABLE cmk.{table} ({PUBLISHED[table]})")
    other.run(f"CREATE PUBLICATION p FOR TABLE cmk.{table}")
    other.run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    kept.dba.run(
        f"CREATE SUBSCRIPTION {slot} CONNECTION 'host={logical.socket} dbname={here} user=postgres'"
        f" PUBLICATION p WITH (create_slot = false, slot_name = {slot}, copy_data = false)"
    )
    refused = lambda: logical.log.read_text().count("reason=keys_would_be_lost")  # noqa: E731
    before = refused()
    other.run(f"TRUNCATE cmk.{table}")
    try:
        until(lambda: refused() > before, 20, "the refusal")
        assert kept.is_whole()
    finally:
        kept.dba.run(f"ALTER SUBSCRIPTION {slot} DISABLE")
