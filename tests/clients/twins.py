"""One program on two databases: with plain text columns, and with the same columns protected.

A program knows nothing of encryption. It finds its database by the environment variables of libpq,
takes the name of a step as its last argument, and prints one line of JSON for each check: a name,
and what came of it. Whatever a program prints must be the same in both databases.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import unique

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
TENANTS = ("acme", "globex")
TABLE = "customer"
COLUMNS = ("ssn", "note")

# For programs that make no tables of their own.
SCHEMA = """
    DROP TABLE IF EXISTS customer;
    CREATE TABLE customer (
        id bigserial PRIMARY KEY, tenant_id text NOT NULL, number int NOT NULL, ssn varchar(20),
        note text NOT NULL DEFAULT 'nothing', UNIQUE (tenant_id, number));
    INSERT INTO customer (tenant_id, number, ssn, note) VALUES
        ('acme', 1, '536-90-4399', 'pays in cash'), ('acme', 2, NULL, 'Łódź 東京 🗝'), ('acme', 3, '', ''),
        ('globex', 1, '536-90-4399', E'line\nbreak\ttab \\ "quoted"'), ('globex', 2, '078-05-1120', 'Pays in CASH'),
        ('globex', 3, '078-05-1120', repeat('long ', 2000));
"""
STATEMENTS = HERE / "statements.tsv"
CALLS = HERE / "calls.tsv"


class Database:
    """One database of a program, and the role that owns it."""

    def __init__(self, server, role):
        self.server, self.role = server, role
        self.name = unique("twin")
        self.dba(f"CREATE DATABASE {self.name} OWNER {role}", dbname="postgres")

    def dba(self, sql, *params, dbname=None):
        with self.server.connect(dbname or self.name) as connection:
            cursor = connection.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else None

    def set(self, name, value):
        """A setting of every session of the program from now on."""
        self.dba(f"ALTER ROLE {self.role} IN DATABASE {self.name} SET {name} = '{value}'")

    def connect(self, **options):
        return self.server.connect(self.name, self.role, **options)

    def environment(self):
        return {
            **os.environ, "PGHOST": str(self.server.socket), "PGPORT": "5432",
            "PGUSER": self.role, "PGDATABASE": self.name, "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def run(self, command, **environment):
        """{check: what came of it}, as a program prints them."""
        return self.end(self.start(command, **environment))

    def start(self, command, **environment):
        return subprocess.Popen(
            list(map(str, command)), env={**self.environment(), **environment}, text=True, cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, program, before=""):
        """What a program printed, after the lines `before`, until it ended."""
        try:
            output, errors = program.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
        output = before + output
        assert program.returncode == 0, f"{program.args} in {self.name}:\n{output}\n{errors}"
        checks = [json.loads(line) for line in output.splitlines()]
        results = {check["check"]: check["result"] for check in checks}
        assert len(results) == len(checks), "two checks have one name"
        return results

    def prepare(self, wire_type=None):
        """The extension, tenants, grants, and plaintext for the program: all but the protection."""
        self.dba("CREATE EXTENSION cmk_encrypt")
        for tenant in TENANTS:
            self.dba("SELECT cmk.register_tenant(%s, 'local:shared')", tenant)
            for role in (self.role, "postgres"):  # the latter seals what is there
                self.dba("SELECT cmk.grant_access(%s, %s)", tenant, role)
        self.set("cmk_encrypt.output", "plaintext")
        if wire_type:
            self.set("session_preload_libraries", "cmk_encrypt")
            self.set("cmk_encrypt.wire_type", wire_type)

    def protect(self, rewrite=None, seal=True, searchable=()):
        for column in COLUMNS:
            self.dba(
                "SELECT cmk.protect_column(%s, %s, tenant_column => 'tenant_id', rewrite => %s, searchable => %s)",
                TABLE, column, rewrite, column in searchable,
            )  # fmt: skip
        if seal:
            self.dba("CALL cmk.seal_table(%s)", TABLE)

    def assert_sealed(self, table=TABLE, columns=COLUMNS):
        """To somebody who has not asked for plaintext, every value is ciphertext."""
        for column in columns:
            values = self.dba(f"SELECT {column}, cmk.is_sealed({column}) FROM {table} WHERE {column} IS NOT NULL")
            assert values, f"{table}.{column} is empty"
            for shown, sealed in values:
                assert sealed and shown.startswith("cmk1:"), shown

    def drop(self):
        self.dba(f"DROP DATABASE {self.name} WITH (FORCE)", dbname="postgres")


class Twins:
    """A program's two databases: `plain`, and `protected`, which is so once protect() was called."""

    def __init__(self, plain, protected, command):
        self.plain, self.protected, self.command = plain, protected, command
        self.environment = {}

    def both(self, step, at_least=1, but=(), **environment):
        """Runs a step in both databases; what it printed, which is the same, but for the checks named."""
        environment = {**self.environment, **environment}
        plain, protected = (
            database.run([*self.command, step], **environment) for database in (self.plain, self.protected)
        )
        assert len(plain) >= at_least, f"{step} has {len(plain)} checks"
        differences = {
            check: (plain.get(check), protected.get(check))
            for check in {**plain, **protected}
            if check not in but
            and (plain.get(check) != protected.get(check) or (check in plain) != (check in protected))
        }
        assert not differences, "\n".join(
            f"{check}\n  plain      {a!r}\n  protected  {b!r}" for check, (a, b) in differences.items()
        )
        return plain

    def after(self, step):
        """What a step prints where the columns are, or will be, protected."""
        return self.protected.run([*self.command, step], **self.environment)

    def calls(self, step):
        """What a step prints of calls of our functions, where nothing is protected."""
        self.protected.prepare()
        return self.protected.run([*self.command[:-1], CALLS, step], **self.environment)

    def across(self, wire_type=None):
        """What step "across" prints, in whose middle the columns are protected."""
        self.protected.prepare(wire_type)
        program = self.protected.start([*self.command, "across"], **self.environment)
        before = "".join(program.stdout.readline() for _ in range(2))
        self.protected.protect()
        program.stdin.write("\n")
        return self.protected.end(program, before)

    def fill(self):
        """The table of programs that make none, anew."""
        for database in (self.plain, self.protected):
            with database.connect() as connection:
                connection.execute(SCHEMA)

    def protect(self, wire_type=None, **how):
        """Protects the columns in one of the databases. The other one never has the extension."""
        self.protected.prepare(wire_type)
        self.protected.protect(**how)


def assert_stored_as_shown(told):
    """Of the calls, that text is what it shows, whatever it looks like, and bytes are said to be bytes."""
    assert told == {
        **dict.fromkeys(("parameter", "tenant and value", "nested", "with aad", "literal"), [["\\x41"]]),
        "not hexadecimal": [["\\xłódź \\ '"]], "bytes": [["A"]],
    }  # fmt: skip


@pytest.fixture
def twins(server):
    """Makes the two databases for a program, which is given as a command without its step."""
    with contextlib.ExitStack() as stack:

        def make(*command):
            role = unique("app")
            server.execute(f"CREATE ROLE {role} LOGIN")
            stack.callback(server.execute, f"DROP ROLE {role}")
            pair = []
            for _ in range(2):
                pair.append(Database(server, role))
                stack.callback(pair[-1].drop)
            return Twins(*pair, command)

        yield make
