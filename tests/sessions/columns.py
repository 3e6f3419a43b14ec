"""What tests of protected columns share: a database of their own with tenants and roles, protected
tables and their twins of plain text, clients that count, and the format of columns' envelopes."""

import base64
import contextlib
import hashlib

import pytest
from psycopg.types.string import StrDumper, StrDumperUnknown, StrDumperVarchar

from support import Session, grant, unique

# id, tenant, ssn, note: of two tenants, with duplicates across both, NULL, '' and what sorts oddly.
ROWS = [
    (1, "acme", "111", "a"), (2, "bolt", "222", "b"), (3, "acme", "222", "c"), (4, "acme", None, "d"),
    (5, "bolt", "", None), (6, "acme", "Zoë", "zoe"), (7, "bolt", "10", "222"), (8, "acme", "9", "9"),
    (9, "bolt", "222", "b"), (10, "acme", "abc", "ABC"), (11, "bolt", "ABC", "abc"), (12, "acme", "x%y_z", "%"),
]
SHAPE = "id int PRIMARY KEY, tenant_id text, ssn text, note text"
TRIGGER = "~cmk_seal"


class Unknown(str):
    """A parameter whose type the server infers, as most drivers send strings."""


class Text(str):
    """A parameter declared as text."""


class Varchar(str):
    """A parameter declared as varchar, as JDBC sends strings."""


class Client(Session):
    """A session that gets its results as text, as most drivers do."""

    def __init__(self, connection):
        super().__init__(connection)
        for kind, dumper in ((Unknown, StrDumperUnknown), (Text, StrDumper), (Varchar, StrDumperVarchar)):
            connection.adapters.register_dumper(kind, dumper)

    def run(self, sql, *params):
        return self.connection.execute(sql, params or None)

    def stats(self):
        """How many values this session has sealed and opened."""
        return self.row("SELECT seals, opens FROM cmk.column_stats()")

    @contextlib.contextmanager
    def counts(self, seals=0, opens=0):
        """The block seals and opens exactly so many values."""
        before = self.stats()
        yield
        after = self.stats()
        seen = tuple(b - a for a, b in zip(before, after))
        assert seen == (seals, opens), f"{seen[0]} seals and {seen[1]} opens"

    def copy_in(self, sql, *lines):
        with self.connection.cursor() as cursor, cursor.copy(sql) as copy:
            for line in lines:
                copy.write(line)

    def copy_out(self, sql):
        with self.connection.cursor() as cursor, cursor.copy(sql) as copy:
            return b"".join(bytes(block) for block in copy)


class World:
    """A database with the tenants acme and bolt, the suspended `paused`, and `dark`, whose key is disabled.

    Its roles: `app` has both grants for all tenants, `ro` for acme only, `nobody` none. The superuser has
    them all, and so has `super`, another, which `app` may become."""

    def __init__(self, server, kms, extension=True):
        self.server, self.kms, self.dbname = server, kms, unique("columns")
        self._sessions = []
        server.execute(f"CREATE DATABASE {self.dbname}")
        self.dba = self.connect()
        self.roles = {}
        for name in ("app", "ro", "nobody", "super"):
            self.roles[name] = unique(name)
            server.execute(f"CREATE ROLE {self.roles[name]} LOGIN")
        server.execute(f"ALTER ROLE {self.roles['super']} SUPERUSER")
        server.execute(f"GRANT {self.roles['super']} TO {self.roles['app']}")
        if extension:
            self.dba.run("CREATE EXTENSION cmk_encrypt")
            self._register()

    def _register(self):
        self.dark_key = self.kms.key()
        for tenant in ("acme", "bolt", "paused", "dark"):
            uri = self.dark_key if tenant == "dark" else "local:shared"
            self.dba.run("SELECT cmk.register_tenant(%s, %s)", tenant, uri)
            for role in (self.roles["app"], self.roles["super"], "postgres"):
                grant(self.dba, tenant, role)
        grant(self.dba, "acme", self.roles["ro"])
        # That of ICU, where PostgreSQL is built with it
        icu = self.dba.one("SELECT count(*) > 0 FROM pg_collation WHERE collname = 'und-x-icu'")
        self.dba.run(f"CREATE COLLATION other FROM \"{'und-x-icu' if icu else 'POSIX'}\"")
        self.dba.run("CREATE SCHEMA given")
        self.dba.run("GRANT ALL ON SCHEMA given, public TO PUBLIC")
        self.make("given.u", [(1, "acme", "of acme", None), (2, "dark", "of dark", None)])
        self.dba.run("SELECT cmk.suspend_tenant('paused')")
        self.dba.run("ALTER TABLE given.u RENAME TO dim")
        self.kms.state(self.dark_key, "Disabled")
        self.dba.run("SELECT cmk.evict('dark')")

    def connect(self, role="postgres", **settings):
        """A new session; names of our roles stand for the roles."""
        client = Client(self.server.connect(self.dbname, getattr(self, "roles", {}).get(role, role)))
        self._sessions.append(client)
        self.server.sessions.append(client)
        for name, value in settings.items():
            client.run(f"SELECT set_config('cmk_encrypt.{name}', '{value}', false)")
        return client

    def reader(self, role="app"):
        return self.connect(role, output="plaintext")

    def make(self, name, rows=(), shape=SHAPE, columns=("ssn", "note"), tenant="tenant_id", **options):
        """A table with protected columns, open to everybody, with these rows in it."""
        self.dba.run(f"CREATE TABLE {name} ({shape})")
        protect(self.dba, name, *columns, tenant=tenant, **options)
        self.dba.run(f"GRANT ALL ON {name} TO PUBLIC")
        self.fill(name, rows)
        return name

    def fill(self, name, rows):
        for row in rows:
            self.dba.run(f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(row))})", *row)

    def twins(self, name, rows=tuple(ROWS), **options):
        """A protected table and its twin of plain text, which is called NAME_text, with the same rows."""
        self.make(name, rows, **options)
        self.dba.run(f"CREATE TABLE {name}_text ({options.get('shape', SHAPE)})")
        self.dba.run(f"GRANT ALL ON {name}_text TO PUBLIC")
        self.fill(f"{name}_text", rows)
        return name, f"{name}_text"

    @contextlib.contextmanager
    def sessions(self):
        """Closes the sessions that the block opens."""
        before = len(self._sessions)
        try:
            yield
        finally:
            self.disconnect(before)

    def disconnect(self, first=0):
        """Closes all sessions but the first so many."""
        for client in self._sessions[first:]:
            self.server.sessions.remove(client)
            client.close()
        del self._sessions[first:]

    def close(self):
        self.disconnect()
        self.server.execute(f"DROP DATABASE {self.dbname} WITH (FORCE)")


def protect(dba, table, *columns, tenant="tenant_id", label=None, rewrite=None, **search):
    """Protects columns of a table. `tenant` is a column, an expression of the row, or None: the setting.

    The label of a column is TABLE.COLUMN unless given, without the schema, as the tests expect it. `search` is
    what makes the columns searchable."""
    name = table.rpartition(".")[2]
    source = {} if tenant is None else {"tenant_expression" if "(" in tenant else "tenant_column": tenant}
    for column in columns:
        arguments = {"label": label or f"{name}.{column}", "rewrite": rewrite, **source, **search}
        named = "".join(f", {argument} => %s" for argument in arguments)
        dba.run(f"SELECT cmk.protect_column(%s, %s{named})", table, column, *arguments.values())


def seal(dba, table, *labels, tenant):
    """The trigger alone, as inheritance children need it."""
    when = " AND ".join(f"cmk.seals('{label}', {tenant or 'NULL'})" for label in labels)
    dba.run(
        f'CREATE TRIGGER "{TRIGGER}" BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN ({when} OR true)'
        " EXECUTE FUNCTION cmk.seal()"
    )
    dba.run(f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "{TRIGGER}"')


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


# The format, as docs/envelope.md has it


def armor(envelope):
    checked = envelope + hashlib.sha256(b"cmk_encrypt/v1/armor" + envelope).digest()[:4]
    return "cmk1:" + base64.b64encode(checked).decode().rstrip("=")


def unarmor(text):
    body = text.removeprefix("cmk1:")
    assert body != text, text
    checked = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    assert armor(checked[:-4]) == text
    return checked[:-4]


def is_armor(text):
    return text.startswith("cmk1:") and bool(unarmor(text))


def tags(tenant, label):
    """What stands in an envelope's header for its tenant and its column."""
    kinds = (("tenant", tenant), ("column", label))
    return b"".join(hashlib.sha256(f"cmk_encrypt/v1/{kind}{value}".encode()).digest()[:8] for kind, value in kinds)


def envelopes(dba, table, column="ssn"):
    """{id: bytes as they are stored}"""
    rows = dba.all(f"SELECT id, cmk.envelope({quoted(column)}) FROM {table} ORDER BY id")
    return dict(rows)


def plain(reader, table, columns="ssn"):
    """{id: plaintext}, or of several columns."""
    rows = reader.all(f"SELECT id, {columns} FROM {table} ORDER BY id")
    return {row[0]: row[1] if len(row) == 2 else row[1:] for row in rows}


@contextlib.contextmanager
def unchanged(dba, table, columns=("ssn",)):
    """The block leaves each stored byte of the table as it was."""
    stored = ", ".join(f"cmk.envelope({column}), {column} IS NULL" for column in columns)
    select = f"SELECT id, tenant_id, {stored} FROM {table} ORDER BY id"
    before = dba.all(select)
    yield
    assert dba.all(select) == before


# Fixtures, to be imported by the modules that use them


@pytest.fixture(scope="module")
def world(server, kms_process):
    world = World(server, kms_process)
    yield world
    world.close()


@pytest.fixture(autouse=True)
def opened(world):
    """No test keeps its sessions, whoever opened them."""
    with world.sessions():
        yield


@pytest.fixture
def dba(world, opened):
    """A superuser's session, with nothing left over from another test."""
    return world.connect()


@pytest.fixture
def app(world, opened):
    """The application, which has all grants. It reads ciphertext, and so opens nothing by reading."""
    return world.connect("app")


@pytest.fixture
def reader(world, opened):
    """The application in a session with plaintext output."""
    return world.reader()
