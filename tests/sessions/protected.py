"""What tests of protected columns share: tables of plaintext, and calls of the functions."""

import secrets
from dataclasses import dataclass

from support import fails, unique

# Not the CANARY that test_security.py looks for: these tables do hold plaintext, for a time.
SECRET = f"plain-{secrets.token_hex(12)}-"


@dataclass
class Table:
    """A table of the session's role, in whatever schema comes first for it."""

    session: object
    name: str

    def __str__(self):
        return self.name

    def protect(self, column="ssn", **arguments):
        """cmk.protect_column(), which returns a sentence."""
        named = "".join(f", {name} => %s" for name in arguments)
        return self.session.one(f"SELECT cmk.protect_column(%s, %s{named})", self.name, column, *arguments.values())

    def unprotect(self, column="ssn", **arguments):
        named = "".join(f", {name} => %s" for name in arguments)
        return self.session.one(f"SELECT cmk.unprotect_column(%s, %s{named})", self.name, column, *arguments.values())

    def seal(self, **arguments):
        named = "".join(f", {name} => %s" for name in arguments)
        self.session.run(f"CALL cmk.seal_table(%s{named})", self.name, *arguments.values())

    def obstacles(self, call=None, **arguments):
        """What cmk.protect_column() refuses to go past, line by line."""
        with fails("42809", "not_protectable") as caught:
            (call or self.protect)(**arguments)
        first, *lines = caught.value.diag.message_detail.splitlines()
        assert first == f"reason=not_protectable obstacles={len(lines)}"
        return lines

    def type_of(self, column="ssn"):
        return self.session.one(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            self.name, column,
        )

    def file(self):
        return self.session.one("SELECT pg_relation_filenode(%s)", self.name)

    def checks(self):
        """{name: (definition, validated)} of the CHECK constraints."""
        rows = self.session.all(
            "SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype = 'c'",
            self.name,
        )
        return {name: (definition, validated) for name, definition, validated in rows}

    def triggers(self):
        """{name: how it is enabled} of the triggers."""
        return dict(self.session.all(
            "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s::regclass"
            # In PostgreSQL 14 a partition's clone of a trigger is internal.
            " AND (NOT tgisinternal OR tgparentid <> 0)", self.name
        ))

    def unsealed(self, column="ssn"):
        return self.session.one("SELECT cmk.unsealed_rows(%s, %s)", self.name, column)

    def problems(self, column="ssn"):
        return self.session.one(
            'SELECT problems FROM cmk.protected_columns WHERE "table" = %s::regclass AND "column" = %s',
            self.name, column,
        )

    def values(self, column="ssn"):
        """All plaintexts, in order of the ids."""
        return [value for (value,) in self.session.all(f"SELECT {column}::text FROM {self.name} ORDER BY id")]


def make_table(session, tenants, rows=20, columns="ssn text"):
    """A table of `rows` rows, whose tenants take turns; ssn tells the row."""
    table = Table(session, unique("users"))
    session.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant_id text NOT NULL, {columns})")
    session.run(
        f"INSERT INTO {table} (id, tenant_id, ssn)"
        " SELECT n, (%s::text[])[1 + n %% %s], %s || n FROM generate_series(1, %s) n",
        [str(tenant) for tenant in tenants], len(tenants), SECRET, rows,
    )
    return table


def protected(owner, tenants, rows=2000, **arguments):
    """A table protected online, whose values are all plaintext still. 2000 rows are some 20 blocks."""
    table = make_table(owner, tenants, rows, **arguments)
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert table.unsealed() == rows
    return table


def plaintexts(rows=20):
    return [f"{SECRET}{n}" for n in range(1, rows + 1)]


def file_of(server, session, relation):
    """The bytes of a relation on disk."""
    session.run("CHECKPOINT")
    return (server.data / session.one("SELECT pg_relation_filepath(%s::regclass)", str(relation))).read_bytes()


def hear(session):
    """A list that fills with what the server says beside its answers: severity, message, detail, hint."""
    heard = []
    session.connection.add_notice_handler(
        lambda it: heard.append((it.severity_nonlocalized, it.message_primary, it.message_detail, it.message_hint)))
    return heard
