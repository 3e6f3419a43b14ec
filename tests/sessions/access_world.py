"""A database where every role of access_control.py tries, and what becomes of it."""

import contextlib
from collections import namedtuple
from dataclasses import dataclass

import psycopg
import pytest

from access_control import KINDS, ROLES
from support import DETAIL, Session, grant, unique


@dataclass(frozen=True)
class World:
    """A database with the extension, tenants `a` and `b`, a session of each role, and two tables of the dba's, which
    everybody may read and write: outside.people, whose column ssn is protected, and outside.plain."""

    dba: Session
    users: dict
    # Of each type of protected columns, by its name: two sealed values of `a` as literals, with the same plaintext.
    sealed: dict


@pytest.fixture(scope="module")
def world(server):
    where = unique("db")
    server.execute(f"CREATE DATABASE {where}")
    dba = Session(server.connect(where))
    dba.run("CREATE EXTENSION cmk_encrypt")
    dba.run("SELECT cmk.register_tenant(name, 'local:shared') FROM unnest('{a, b}'::text[]) name")
    dba.run("SELECT cmk.rotate_index_key('a')")
    # Where they may make what refers to objects of ours.
    dba.run("CREATE SCHEMA outside")
    dba.run("GRANT ALL ON SCHEMA outside TO PUBLIC")
    dba.run("CREATE FUNCTION outside.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    names = {role: unique(role) for role in ROLES}
    for role, name in names.items():
        dba.run(f"CREATE ROLE {name} LOGIN {'SUPERUSER' if role == 'superuser' else ''}")
    dba.run(f"GRANT pg_monitor TO {names['monitor']}")
    dba.run(f"GRANT pg_read_all_data TO {names['reader']}")
    dba.run(f"GRANT pg_write_all_data TO {names['writer']}")
    dba.run(f"ALTER DATABASE {where} OWNER TO {names['owner']}")
    grant(dba, "a", names["application"])
    for table in ("people", "plain"):
        dba.run(f"CREATE TABLE outside.{table} (id int, tenant text NOT NULL, ssn text)")
        dba.run(f"INSERT INTO outside.{table} VALUES (1, 'a', 'x')")
        dba.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON outside.{table} TO PUBLIC")
    dba.run("SELECT cmk.protect_column('outside.people', 'ssn', 'tenant', label => 'a', rewrite => false)")
    users = {role: Session(server.connect(where, name)) for role, name in names.items()}
    for session in users.values():
        # So that literals of sealed values are taken for what they are.
        session.run("SET cmk_encrypt.input = envelope")
    users["application"].run("UPDATE outside.people SET ssn = ssn")
    dba.run("CALL cmk.seal_table('outside.people')")
    # One whose protection is not validated
    dba.run("CREATE TABLE outside.unsealed (id int, tenant text NOT NULL, ssn text)")
    dba.run("INSERT INTO outside.unsealed VALUES (1, 'a', 'x')")
    dba.run("SELECT cmk.protect_column('outside.unsealed', 'ssn', 'tenant', label => 'b', rewrite => false)")
    yield World(dba, users, sealed_values(users["application"]))
    for session in (dba, *users.values()):
        session.close()
    server.execute(f"DROP DATABASE {where} WITH (FORCE)")


@pytest.fixture(params=ROLES)
def user(request, world):
    """Each role in turn: its name here, and what becomes of a statement that it tries."""
    return request.param, lambda sql: outcome(world.users[request.param], sql)


def sealed_values(session):
    values = {"text": "x", "bytea": "x", "jsonb": "{}"}
    return {
        f"cmk_{kind}": [session.one(f"SELECT format('%s', cmk.seal_value('{values[kind]}'::{kind}, 'a', 'a'))")
                        for _ in range(2)]
        for kind in KINDS
    }


# What an argument is where none is given below. Not NULL: a strict function of a constant NULL is never called, and
# so nobody is asked. Literals of pseudo-types are bare.
VALUES = {
    "text": "a", "character varying": "a", "bytea": "a", "boolean": "true", "regrole": "-", "text[]": "{a}",
    "jsonb": "{}", "json": "{}", "xid": "3", "timestamp with time zone": "2026-01-01", "cstring": "a", "cstring[]": "{5}", "internal": "", '"any"': "a", "cmk.grantee": "a",
    "oid": "0", "smallint": "3", "integer": "1", "bigint": "0", "interval": "1s", "name": "ssn", "character": "a", "pg_node_tree": "",
    "regclass": "outside.plain", "regclass[]": "{outside.plain}", "name[]": "{ssn}", "numeric": "0",
    "cmk_text[]": "{a}", "uuid": "00000000-0000-0000-0000-000000000000",
    "cmk_internal.column_change": "(outside.plain,ssn,25,,,,,,,,,,{})",
    "cmk_internal.reencrypt_target": "(outside.plain,3,ssn,false,ssn,null,null,null,false)",
    "cmk_internal.reencrypt_target[]": "{}", "tid": "(0,1)",
}
PSEUDO_TYPES = {"cstring", "internal", '"any"'}
CONSTRAINT = "(SELECT constraint_oid FROM cmk.protections() WHERE NOT validated)"
# Where those would not do: a call that gets somewhere if its caller may.
ARGUMENTS = {
    "protect_column": "'outside.plain', 'ssn', 'tenant'",
    "unprotect_column": "'outside.people', 'ssn'",
    "seal_table": "'outside.people'",
    "seal_batch": "'outside.people'::regclass, 3::int2, 0, 1, '{}'",
    "unsealed_rows": "'outside.people', 'ssn'",
    "reencrypt": "'outside.people', 'ssn'",
    "reencrypt_begin": "'outside.people'::regclass, 3::int2",
    "reencrypt_note": "'outside.people'::regclass, 3::int2, 'running', '{}'",
    "data_key_usage": "'outside.people', 'ssn'",
    "outdated_values": "'outside.people'::regclass, 3::int2",
    "has_outdated_values": "'outside.people'::regclass, 3::int2",
    "sealed_values": "'outside.people'::regclass, 3::int2",
    "reencrypt_targets": "'outside.people', 'ssn', NULL, NULL, NULL",
    "reencrypt_obstacles": "'outside.people', 'ssn', NULL, NULL",
    "raise": "'not_protected', ''",
    "audit_column": "'outside.people', 'ssn', 'protect_column'",
    "match_cloudtrail": "'a', '[]', NULL",
    "dump_keys": "'{outside.people}'",
    "make_seal_triggers": "'{outside.plain}', '{}', 'true'",
    "note_files": "'outside.people', 3::int2, (SELECT constraint_oid FROM cmk.protections() WHERE validated)",
    "has_pending": "'outside.plain', 'true'",
    "has_tokens": "'outside.people', 'ssn', 'a'",
    "label_obstacle": "'outside.people', 'ssn', 'a'",
    "refuse": "'{}'",
    "row_expression": "'outside.plain', 'tenant'",
    "run_as": "'{postgres}', '{SELECT 1}'",
    "seal_by_tenant": "'outside.people', 3::int2, 'true', 'new.tenant', 0, 1, '{}'",
    "try_tenants": "'outside.plain', 'ssn', 'tenant', 'a', NULL, false, 1",
    "validate_sealed": CONSTRAINT,
    "write_notes": "'outside.people', 'cmk_sealed_ssn', 'ssn', 'text', '[]'",
}

Function = namedtuple("Function", "oid schema name types call")


@pytest.fixture(scope="module")
def calls(world):
    """Every function, overloads included, and a statement that calls it."""
    envelope = world.users["application"].one("SELECT '\\x' || encode(cmk_encrypt('a', 'x'), 'hex')")
    rows = members(
        world.dba, "pg_proc",
        "oid::text, pronamespace::regnamespace::text, proname::text, provariadic <> 0, prokind = 'p',"
        " ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) t)",
    )
    found = []
    for oid, schema, name, is_variadic, is_procedure, types in rows:
        values = [world.sealed[kind][place % 2] if kind in world.sealed else VALUES[kind]
                  for place, kind in enumerate(types)]
        if name.startswith(("cmk_encrypt", "cmk_decrypt", "cmk_try_decrypt")):
            values = ("a", envelope, "", "{}")  # tenant, value, aad, forgive
        elif name in ("renewed", "renewal_problem"):
            values = (envelope, "", "a")[:len(types)] if types[0] == "bytea" else (*values[:-1], None)
        elif name in ("sealed", "seal_value", "cmk_search_token", "cmk_search_tokens"):
            values[-1] = None  # no options, no normalization
        elif name in ("probe", "probes", "probes_any", "needs_sealing", "reseal"):
            values[-1] = "search"
        arguments = ["NULL" if value is None else f"'{value}'" + ("" if kind in PSEUDO_TYPES else f"::{kind}")
                     for value, kind in zip(values, types)]
        if is_variadic:
            arguments[-1] = f"VARIADIC {arguments[-1]}"
        call = f'{schema}."{name}"({ARGUMENTS.get(name, ", ".join(arguments))})'
        found.append(Function(oid, schema, name, types, f"CALL {call}" if is_procedure else f"SELECT {call}"))
    return found


REFUSALS = {
    "no_grant", "registry_write", "keys_would_be_lost", "audit_trail", "not_owner", "not_protectable", "index_refused",
    "not_reencryptable", "tenant_name_fixed",
}


def outcome(session, sql):
    """`denied` by PostgreSQL, the reason of a refusal of ours, or `yes`: as far as rights go, it may. Is undone."""
    try:
        # A procedure commits by itself.
        undone = session.connection.transaction(force_rollback=True)
        with contextlib.nullcontext() if sql.startswith("CALL") else undone:
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
