"""What the tests of cmk_encrypt.wire_type share: a protected table with a twin that has no protection,
and what the server tells a client about a statement."""

import json
from collections import namedtuple

import pytest
from psycopg import pq

from support import unique

TYPES = {"ssn": "text", "code": "varchar(20)", "photo": "bytea", "doc": "jsonb"}
PHOTO = b"\x00\xff\xc1 photo"
DOC = {"a": [1, "two"]}
ROWS = [
    (1, "one", "c1", PHOTO, DOC),
    (2, "two", None, None, None),
    (3, "one", "c3", b"", "text"),
    (4, None, "c4", PHOTO, None),
    (5, "Zoë", "c5", b"x", 7),
]
FIRST_OF_OURS = 16384

World = namedtuple("World", "name twin tenant connect")


def protect(dba, name):
    """What cmk.protect_column() does to a table."""
    for column, kind in TYPES.items():
        base, _, rest = kind.partition("(")
        ours = "cmk_" + base.replace("varchar", "text") + (f"({rest}" if rest else "")
        using = f" USING {column}::{ours}" if base in ("bytea", "jsonb") else ""
        dba.run(f"ALTER TABLE {name} ALTER {column} TYPE {ours}{using}")
    when = " AND ".join(f"cmk.seals('{name}.{column}', new.tenant_id)" for column in TYPES)
    dba.run(
        f'CREATE TRIGGER "~cmk_seal" BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW WHEN ({when} OR true)'
        " EXECUTE FUNCTION cmk.seal()"
    )
    dba.run(f'ALTER TABLE {name} ENABLE ALWAYS TRIGGER "~cmk_seal"')
    for column in TYPES:
        dba.run(
            f"ALTER TABLE {name} ADD CONSTRAINT cmk_sealed_{column}"
            f" CHECK (cmk.sealed({column}, '{name}.{column}', tenant_id::text, NULL)) NOT VALID"
        )
    dba.run(f"UPDATE {name} SET id = id")
    for column in TYPES:
        dba.run(f"ALTER TABLE {name} VALIDATE CONSTRAINT cmk_sealed_{column}")


def make_table(dba, name, tenant, role):
    columns = ", ".join(f"{column} {kind}" for column, kind in TYPES.items())
    dba.run(f"CREATE TABLE {name} (id int PRIMARY KEY, tenant_id text, {columns})")
    for number, ssn, code, photo, doc in ROWS:
        doc = None if doc is None else json.dumps(doc)
        dba.run(f"INSERT INTO {name} VALUES (%s, %s, %s, %s, %s, %s)", number, str(tenant), ssn, code, photo, doc)
    dba.run(f"GRANT ALL ON {name} TO {role}")


def make_readers(dba, name):
    """A view and functions over a table."""
    kind = dba.one(f"SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = '{name}'::regclass"
                   " AND attname = 'ssn'")
    dba.run(f"CREATE VIEW {name}_view AS SELECT * FROM {name}")
    dba.run(f"GRANT ALL ON {name}_view TO PUBLIC")
    dba.run(f"CREATE FUNCTION {name}_rows() RETURNS SETOF {name} LANGUAGE sql STABLE AS 'SELECT * FROM {name}'")
    dba.run(f"CREATE FUNCTION {name}_ssn(int) RETURNS {kind} LANGUAGE plpgsql STABLE AS"
            f" 'BEGIN RETURN (SELECT ssn FROM {name} WHERE id = $1); END'")


@pytest.fixture
def world(dba, app, session, local_tenant):
    tenant = local_tenant(to=(app, dba))
    name = unique("wire")
    for table in (name, f"{name}_twin"):
        make_table(dba, table, tenant, app.role)
    protect(dba, name)
    for table in (name, f"{name}_twin"):
        make_readers(dba, table)

    def connect(wire_type="text", output="plaintext", role=app.role):
        opened = session(role)
        opened.run("SELECT cmk.column_stats()")  # loads the library
        opened.run(f"SET cmk_encrypt.wire_type = {wire_type}")
        opened.run(f"SET cmk_encrypt.output = {output}")
        return opened

    return World(name, f"{name}_twin", tenant, connect)


def of(sql, name, tenant=""):
    """The statement, of that table."""
    words = sql.replace("{tenant}", str(tenant)).split(" ")
    named = (name + word[1:] if word.startswith(("t_", "t.")) or word.rstrip(",)") == "t" else word for word in words)
    return " ".join(named)


def describe(session, sql):
    """What a client is told before it executes anything: columns and parameters."""
    pgconn = session.connection.pgconn
    for result in (pgconn.prepare(b"", sql.encode()), pgconn.describe_prepared(b"")):
        assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message.decode()
    columns = [(result.fname(at), result.ftype(at), result.fmod(at)) for at in range(result.nfields)]
    return columns, [result.param_type(at) for at in range(result.nparams)]


def execute(session, sql, parameters=(), binary=False):
    """Its columns' types, and its rows as they are sent."""
    parameters = [parameter.encode() for parameter in parameters]
    result = session.connection.pgconn.exec_params(sql.encode(), parameters, result_format=int(binary))
    assert result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK), result.error_message.decode()
    rows = [tuple(result.get_value(row, at) for at in range(result.nfields)) for row in range(result.ntuples)]
    return [result.ftype(at) for at in range(result.nfields)], rows


def same(rows, others, ordered):
    return rows == others if ordered else sorted(map(repr, rows)) == sorted(map(repr, others))


def oids(description):
    columns, parameters = description
    return [oid for _, oid, _ in columns] + parameters
