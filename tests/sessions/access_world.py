"""A database where every role of access_control.py tries, and what becomes of it."""

from dataclasses import dataclass

import psycopg
import pytest

from access_control import ROLES
from support import DETAIL, Session, grant, unique


@dataclass(frozen=True)
class World:
    """A database with the extension, a tenant `a` and a session of each role."""

    dba: Session
    users: dict


@pytest.fixture(scope="module")
def world(server):
    where = unique("db")
    server.execute(f"CREATE DATABASE {where}")
    dba = Session(server.connect(where))
    dba.run("CREATE EXTENSION cmk_encrypt")
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    # Where they may make what refers to objects of ours.
    dba.run("CREATE SCHEMA outside")
    dba.run("GRANT ALL ON SCHEMA outside TO PUBLIC")
    dba.run("CREATE FUNCTION outside.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    names = {role: unique(role) for role in ROLES}
    for role, name in names.items():
        dba.run(f"CREATE ROLE {name} LOGIN {'SUPERUSER' if role == 'superuser' else ''}")
    dba.run(f"GRANT USAGE ON SCHEMA cmk TO {names['guest']}")
    dba.run(f"GRANT pg_monitor TO {names['monitor']}")
    dba.run(f"GRANT pg_read_all_data TO {names['reader']}")
    dba.run(f"GRANT pg_write_all_data TO {names['writer']}")
    dba.run(f"ALTER DATABASE {where} OWNER TO {names['owner']}")
    grant(dba, "a", names["application"])
    users = {role: Session(server.connect(where, name)) for role, name in names.items()}
    yield World(dba, users)
    for session in (dba, *users.values()):
        session.close()
    server.execute(f"DROP DATABASE {where} WITH (FORCE)")


@pytest.fixture(params=ROLES)
def user(request, world):
    """Each role in turn: its name here, and what becomes of a statement that it tries."""
    return request.param, lambda sql: outcome(world.users[request.param], sql)


REFUSALS = {"no_grant", "registry_write", "keys_would_be_lost"}


def outcome(session, sql):
    """`denied` by PostgreSQL, the reason of a refusal of ours, or `yes`: as far as rights go, it may. Is undone."""
    try:
        with session.connection.transaction(force_rollback=True):
            session.connection.execute(sql)
    except psycopg.Error as error:
        ours = DETAIL.match(error.diag.message_detail or "")
        if ours:
            return ours["reason"] if ours["reason"] in REFUSALS else "yes"
        if error.sqlstate[:2] in ("22", "23"):  # it was let in, and has no such value
            return "yes"
        return "denied" if error.sqlstate == "42501" else repr(error)
    return "yes"


def may(role, who):
    return "yes" if role in who | {"superuser"} else "denied"


def members(dba, catalog, columns):
    """What the extension consists of in a catalog, sorted."""
    return dba.all(
        f"SELECT {columns} FROM pg_depend JOIN {catalog} c ON c.oid = objid"
        f" WHERE classid = '{catalog}'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'"
        " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cmk_encrypt') ORDER BY 1"
    )


def identities(dba):
    """(kind, identity) of every object of the extension, as DROP takes them."""
    return dba.all(
        "SELECT i.type, i.identity FROM pg_depend, pg_identify_object(classid, objid, 0) i"
        " WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'"
        " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cmk_encrypt')"
        # PostgreSQL 18 lists arrays and row types too, which go with what they belong to.
        " AND NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = objid"
        " AND (t.typrelid <> 0 OR t.typcategory = 'A')))"
    )
