"""What tests of dumps share: the client programs, a filled database, and what must come back."""

import os
import subprocess

import pytest

from provocations import shred
from server import Server
from support import CANARY, Tenant, grant

# Every value that `filled` sealed, as `open_all` counts them.
SEALED = [("here", 200), ("there", 200)]

# A grantee is compared by its name: the number behind it may differ.
REGISTRY = {
    "tenant": "SELECT t::text FROM cmk.tenant t",
    "data_key": "SELECT k::text FROM cmk.data_key k",
    "access": "SELECT tenant, role::text, encrypt, decrypt, bound FROM cmk.access",
    "data_key_use": "SELECT u::text FROM cmk.data_key_use u",
    "key_event": "SELECT e::text FROM cmk.key_event e",
    "audit_event": "SELECT e::text FROM cmk.audit_event e",
    "audit_chain": "SELECT c::text FROM cmk.audit_chain c",
}


def attempt(server, program, *arguments, **options):
    """Runs a client program of PostgreSQL as superuser; what came of it, even if it failed."""
    environment = {**os.environ, "PGHOST": str(server.socket), "PGUSER": "postgres"}
    return subprocess.run(
        [Server.program(program), *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **options,
    )


def client(server, program, *arguments, **options):
    """The same for one that must not fail; its output."""
    done = attempt(server, program, *arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def run_script(server, target, script, *options):
    """Plays a plain dump; the first error ends it."""
    client(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", *options, "-d", target, input=script)


@pytest.fixture
def filled(session, role, database, kms):
    """A database with tenants in every state; two have two data keys and many values each."""
    dba, user = session(dbname=database()), role()
    dba.run("CREATE TABLE patient (id int, tenant text, sealed bytea)")
    dba.run(f"GRANT ALL ON patient TO {user}")
    for name, uri in (("here", "local:shared"), ("there", kms.key())):
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, uri)
        grant(dba, name, user)
        grant(dba, name, "postgres")
        for half in range(2):
            dba.run(
                "INSERT INTO patient SELECT n, %s, cmk_encrypt_text(%s, 'ssn-' || n, 'aad')"
                " FROM generate_series(%s::int, %s) n",
                name, name, 100 * half, 100 * half + 99,
            )
            if half == 0:
                dba.run("SELECT cmk.rotate_tenant(%s)", name)
        dba.run("INSERT INTO cmk.key_event (tenant, event) VALUES (%s, 'usable')", name)
        dba.run("INSERT INTO cmk.data_key_use (tenant, version, sealed) VALUES (%s, 2, 100)", name)
    for name in ("pending", "suspended", "shredded"):
        activate = name != "pending"
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared', activate => %s)", name, activate)
    dba.run("SELECT cmk.suspend_tenant('suspended')")
    shred(dba, Tenant("shredded", "local:shared"))
    # On its way to another key, and with a data key that was made meanwhile
    dba.run("SELECT cmk.register_tenant('moving', 'local:shared')")
    dba.run("SELECT cmk.rewrap_tenant('moving', %s)", kms.key())
    dba.run("SELECT cmk.rotate_tenant('moving')")
    grant(dba, "suspended", user, decrypt=False)
    grant(dba, "*", role("NOLOGIN"), encrypt=False)
    return dba, user


def open_all(user):
    return user.all(
        "SELECT tenant, count(*) FROM patient"
        " WHERE cmk_decrypt_text(tenant, sealed, 'aad') = 'ssn-' || id"
        " GROUP BY tenant ORDER BY tenant"
    )


def registry(dba):
    """The rows of each table of the registry, in an order that shows no difference by itself."""
    return {table: sorted(dba.all(query), key=repr) for table, query in REGISTRY.items()}


def problems(dba):
    """What cmk.check() finds: [(problem, tenant)]."""
    return dba.all("SELECT problem, tenant FROM cmk.check()")


def copy(server, source, target, archive):
    """A dump of `source` in the file `archive`, restored into `target`."""
    client(server, "pg_dump", "-Fc", "-f", archive, source)
    client(server, "pg_restore", "--exit-on-error", "-d", target, archive)


# Fixtures of tests that restore what `filled` holds


@pytest.fixture
def source(filled):
    return filled[0].connection.info.dbname


@pytest.fixture
def take(server, source, tmp_path):
    """Dumps the filled database into a new file."""

    def make(*options):
        archive = tmp_path / f"archive{len(list(tmp_path.iterdir()))}"
        client(server, "pg_dump", *(options or ["-Fc"]), "-f", archive, source)
        return archive

    return make


@pytest.fixture
def restore(server):
    def run(target, archive, *options):
        client(server, "pg_restore", "--exit-on-error", *options, "-d", target, archive)

    return run


@pytest.fixture
def complete(session, filled):
    """Asserts that a database has all that the filled one has; a session there."""
    dba, user = filled

    def check(target, found=()):
        restored = session(dbname=target)
        assert registry(restored) == registry(dba)
        assert open_all(session(user, dbname=target)) == SEALED
        assert problems(restored) == list(found)
        assert restored.all("SELECT DISTINCT status FROM cmk.verify_audit()") == [("ok",)]
        return restored

    return check


def contents(server, archive):
    """The archive's table of contents, one entry a line."""
    return client(server, "pg_restore", "--list", archive).decode().splitlines()


def data_of(entries, table):
    (entry,) = [entry for entry in entries if f" TABLE DATA cmk {table} " in entry]
    return entry


def reordered(entries, order):
    """The entries with the data of these tables in this order, where the first of them was."""
    moved = [data_of(entries, table) for table in order]
    first = min(entries.index(entry) for entry in moved)
    rest = [entry for entry in entries if entry not in moved]
    return [*rest[:first], *moved, *rest[first:]]


@pytest.fixture
def restore_list(restore, tmp_path):
    """Restores these entries of an archive, in this order."""

    def run(target, archive, entries, *options):
        listed = tmp_path / "list"
        listed.write_text("\n".join(entries) + "\n")
        restore(target, archive, "--use-list", listed, *options)

    return run


@pytest.fixture
def occupied(session, filled, database):
    """Makes databases with a tenant of their own: the name, and what asserts that all is there."""

    def make(tenant):
        dba = session(dbname=database())
        where = dba.connection.info.dbname
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant)
        grant(dba, tenant, filled[1])
        user = session(filled[1], dbname=where)
        envelopes = [user.encrypt(tenant)]
        dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
        envelopes.append(user.encrypt(tenant))
        before = registry(dba)

        def keeps_all():
            after = registry(dba)
            for table, rows in before.items():
                assert set(rows) <= set(after[table]), table
            for reader in (user, session(filled[1], dbname=where)):
                assert [reader.decrypt(tenant, envelope) for envelope in envelopes] == [CANARY] * 2
            return True

        return where, keeps_all

    return make
