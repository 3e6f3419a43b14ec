"""What access_control.py says of every object of the extension, tried as everybody.

An object that is in none of its tables fails the first test.
"""

import psycopg
import pytest

from access_control import (
    APPLICATION_FUNCTIONS, CASTS, EVENT_TRIGGERS, FUNCTIONS, GUARDED, NEEDS_GRANT, NOBODY, NOT_CALLED, ROW_TYPES, SCHEMAS,
    TABLES, TRIGGER_FUNCTIONS, TYPES, VIEWS, WRITES,
)
from access_world import identities, may, members, outcome
from access_world import user, world  # noqa: F401 (fixtures)


# The tables are complete


def test_the_tables_name_every_object_of_the_extension_and_no_other(world):
    listed = {
        *(("function", f"pg_catalog.{name}") for name in APPLICATION_FUNCTIONS),
        *(("function", f"cmk.{name}") for name in FUNCTIONS),
        *(("table", f"cmk.{name}") for name in TABLES),
        *(("view", f"cmk.{name}") for name in VIEWS),
        *(("type", f"cmk.{name}") for name in TYPES),
        *(("cast", f"(cmk.{source} AS pg_catalog.{target})") for source, target in CASTS),
        *(("schema", name) for name in SCHEMAS),
        *(("event trigger", name) for name in EVENT_TRIGGERS),
    }
    there = {
        (kind, identity.split("(")[0].replace('"', "") if kind == "function" else identity)
        for kind, identity in identities(world.dba)
    }
    assert there == listed


# Functions


# Not NULL: a strict function of a constant NULL is never called, and so nobody is asked.
VALUES = {
    "text": "a", "character varying": "a", "bytea": "a", "boolean": "true", "regrole": "-", "text[]": "{a}",
    "jsonb": "{}", "cstring": "a", "internal": "", "cmk.grantee": "a",
}
# Who isn't in the schema can't name its type, and nobody the pseudo-types.
BARE = {"cmk.grantee", "cstring", "internal"}


@pytest.fixture(scope="module")
def calls(world):
    """(schema, name, a call) of every function, overloads included."""
    envelope = world.users["application"].one("SELECT '\\x' || encode(cmk_encrypt('a', 'x'), 'hex')")
    rows = members(
        world.dba, "pg_proc",
        "oid::regprocedure::text, pronamespace::regnamespace::text, proname::text, provariadic <> 0,"
        " ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) t)",
    )
    found = []
    for _, schema, name, is_variadic, types in rows:
        # For applications: tenant, value, aad, forgive.
        values = ("a", envelope, "", "{}") if schema == "pg_catalog" else [VALUES[kind] for kind in types]
        arguments = [f"'{value}'" + ("" if kind in BARE else f"::{kind}") for value, kind in zip(values, types)]
        if is_variadic:
            arguments[-1] = f"VARIADIC {arguments[-1]}"
        found.append((schema, name, f'SELECT {schema}."{name}"({", ".join(arguments)})'))
    return found


def test_administration_is_called_by_whom_the_table_says(user, world, calls):
    role, tries = user
    wanted, seen = {}, {}
    for _, name, call in [entry for entry in calls if entry[0] == "cmk"]:
        who, _ = FUNCTIONS[name]
        wanted[call] = may(role, who)
        if name in NOT_CALLED:
            seen[call] = "yes" if world.dba.one(
                "SELECT has_function_privilege(%s, oid, 'EXECUTE') FROM pg_proc WHERE proname = %s",
                world.users[role].role, name) else "denied"
        elif name in TRIGGER_FUNCTIONS:
            world.users[role].run("CREATE TEMP TABLE IF NOT EXISTS own ()")
            seen[call] = tries(f"CREATE TRIGGER t AFTER INSERT ON own EXECUTE FUNCTION cmk.{name}()")
        else:
            seen[call] = tries(call)
            if name in NEEDS_GRANT and wanted[call] == "yes":
                wanted[call] = "no_grant"
    assert seen == wanted


def test_functions_for_applications_answer_everybody_and_serve_who_has_a_grant(user, calls):
    role, tries = user
    ours = [call for schema, name, call in calls if schema == "pg_catalog"]
    wanted = "yes" if role == "application" else "no_grant"
    assert {call: tries(call) for call in ours} == dict.fromkeys(ours, wanted)


def test_who_has_no_grant_learns_nothing_of_a_tenants_state(user, world, calls):
    role, tries = user
    if role == "application":
        return
    ours = [call for schema, name, call in calls if schema == "pg_catalog"]
    world.dba.run("SELECT cmk.suspend_tenant('a')")
    suspended = {call: tries(call) for call in ours}
    world.dba.run("SELECT cmk.resume_tenant('a')")
    assert suspended == dict.fromkeys(ours, "no_grant")


PINNED = ["search_path=pg_catalog, pg_temp"]


def test_functions_run_as_the_table_says(world):
    rows = members(
        world.dba, "pg_proc",
        "oid::regprocedure::text, proname::text, provolatile::text, proparallel::text, prosecdef, proisstrict,"
        " proconfig, proleakproof",
    )
    classes = {"v": "volatile", "s": "stable", "i": "immutable"}, {"r": "restricted", "u": "unsafe", "s": "safe"}
    listed = APPLICATION_FUNCTIONS | {name: runs for name, (_, runs) in FUNCTIONS.items()}
    wanted, seen = {}, {}
    for signature, name, volatility, parallel, is_definer, is_strict, settings, is_leakproof in rows:
        words = [classes[0][volatility], classes[1][parallel], "owner" if is_definer else "caller"]
        words += ["strict"] * is_strict + ["pinned"] * (settings == PINNED and not is_definer)
        wanted[signature], seen[signature] = listed[name], " ".join(words)
        assert settings == PINNED or (settings is None and not is_definer), signature
        assert not is_leakproof, signature
    assert seen == wanted


def test_sql_functions_without_a_search_path_of_their_own_are_inlined(world):
    rows = members(
        world.dba, "pg_proc",
        "format('%I.%I', pronamespace::regnamespace, proname), ARRAY(SELECT format_type(t, NULL)"
        " FROM unnest(proargtypes) t), prosrc, proconfig, prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql')",
    )
    inlined = [(name, types) for name, types, _, settings, is_sql in rows if is_sql and settings is None]
    assert len(inlined) > 40
    for name, types in inlined:
        columns = ", ".join(f"NULL::{kind} AS a{number}" for number, kind in enumerate(types))
        arguments = ", ".join(f"a{number}" for number in range(len(types)))
        plan = world.dba.all(f"EXPLAIN (VERBOSE, COSTS OFF) SELECT {name}({arguments}) FROM (SELECT {columns} OFFSET 0) x")
        # Its body alone casts an argument.
        assert "::" in str(plan).split("Subquery Scan")[1].split("->")[0], (name, types, plan)


# Tables and views


@pytest.mark.parametrize("relation", [*TABLES, *VIEWS])
def test_tables_and_views_are_read_by_whom_the_table_says(user, relation):
    role, tries = user
    wanted = may(role, {**TABLES, **VIEWS}[relation])
    for statement in ("SELECT * FROM {}", "SELECT count(*) FROM {}"):
        assert tries(statement.format(f"cmk.{relation}")) == wanted, statement


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_changed_by_whom_the_table_says(user, world, table):
    role, tries = user
    columns = world.dba.all(
        "SELECT attname::text, format_type(atttypid, NULL), attnum = ANY (conkey) FROM pg_attribute"
        " LEFT JOIN pg_constraint ON conrelid = attrelid AND contype = 'p'"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum", f"cmk.{table}")
    key = {column: kind for column, kind, is_key in columns if is_key}
    words = {"table": f"cmk.{table}", "column": columns[0][0], "columns": ", ".join(key),
             "key": ", ".join(f"{column} {kind}" for column, kind in key.items())}
    wanted, seen = {}, {}
    for change, others in WRITES.items():
        if "{key}" in change and not key:
            continue
        superuser = GUARDED.get((change, table), "yes")
        wanted[change] = superuser if role == "superuser" else others.get(role, "denied")
        seen[change] = tries(change.format(**words))
    assert seen == wanted


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_changed_by_nobody(world, view):
    for user in world.users.values():
        for change in (f"INSERT INTO cmk.{view} DEFAULT VALUES", f"DELETE FROM cmk.{view}"):
            with pytest.raises(psycopg.Error) as caught:
                user.run(change)
            # Not that kind of view, or denied.
            assert caught.value.sqlstate in ("55000", "42501"), change


def test_no_row_is_hidden_by_a_policy(world):
    """Rights are the table's, so that a dump is whole."""
    assert set(members(world.dba, "pg_class", "relrowsecurity, relforcerowsecurity")) == {(False, False)}


# Types, casts, the schema, and objects as a whole


@pytest.mark.parametrize("name", TYPES)
def test_types_are_used_by_whom_the_table_says(user, name):
    role, tries = user
    for statement in ("CREATE TABLE outside.t (c cmk.{})", "CREATE TABLE outside.t (c cmk.{}[])",
                      "CREATE DOMAIN outside.d AS cmk.{}",
                      "CREATE FUNCTION outside.f(cmk.{}) RETURNS int LANGUAGE sql AS 'SELECT 1'"):
        assert tries(statement.format(name)) == may(role, TYPES[name]), statement


@pytest.mark.parametrize("name", ROW_TYPES)
def test_row_types_are_used_by_whoever_gets_into_the_schema(user, name):
    role, tries = user
    assert tries(f"CREATE TABLE outside.t (c cmk.{name})") == may(role, SCHEMAS["cmk"])


@pytest.mark.parametrize("source, target", CASTS)
def test_casts_are_used_by_whom_the_table_says(user, source, target):
    role, tries = user
    assert tries(f"SELECT CAST('a'::cmk.{source} AS {target})") == may(role, CASTS[source, target])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schema_is_entered_by_whom_the_table_says_and_built_in_by_nobody(user, schema):
    role, tries = user
    assert tries(f"SELECT '{schema}.tenant'::regclass") == may(role, SCHEMAS[schema])
    for statement in ("CREATE TABLE {}.mine ()", "CREATE VIEW {}.mine AS SELECT 1",
                      "CREATE FUNCTION {}.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                      "ALTER TABLE outside.theirs SET SCHEMA {}"):
        if "outside.theirs" in statement:
            statement = f"DO $$ BEGIN CREATE TABLE outside.theirs (); {statement}; END $$"
        assert tries(statement.format(schema)) == may(role, NOBODY), statement


def test_no_object_is_dropped_or_described_anew(user, world):
    """By nobody because it isn't theirs, by a superuser because it is the extension's."""
    role, _ = user
    for kind, identity in identities(world.dba):
        with pytest.raises(psycopg.Error) as caught:
            world.users[role].run(f"DROP {kind} {identity} CASCADE")
        assert caught.value.sqlstate == ("2BP01" if role == "superuser" else "42501"), (kind, identity)
        assert outcome(world.users[role], f"COMMENT ON {kind} {identity} IS 'mine'") == may(role, NOBODY)


@pytest.mark.parametrize("statement", [
    "DROP EXTENSION cmk_encrypt", "ALTER EXTENSION cmk_encrypt UPDATE", "COMMENT ON EXTENSION cmk_encrypt IS 'mine'",
    "ALTER EXTENSION cmk_encrypt DROP TABLE cmk.access", "ALTER EVENT TRIGGER cmk_drop_guard DISABLE",
    "ALTER SCHEMA cmk RENAME TO mine", "CREATE PUBLICATION p FOR TABLE cmk.access",
])
def test_the_extension_is_its_owners(user, statement):
    role, tries = user
    wanted = "keys_would_be_lost" if role == "superuser" and statement.startswith("DROP EXT") else may(role, NOBODY)
    assert tries(statement) == wanted


# What the catalogs say, for rights that nobody of these has. ALTER DEFAULT PRIVILEGES adds none: test_hardening.py.


def test_no_right_can_be_passed_on_and_none_is_anybody_elses(world):
    holders = world.dba.all(
        "SELECT DISTINCT grantee = 0 OR pg_get_userbyid(grantee) IN ('pg_monitor', 'pg_read_all_data', %s),"
        " is_grantable FROM pg_namespace n CROSS JOIN LATERAL (SELECT relacl, relowner FROM pg_class"
        "   WHERE relnamespace = n.oid UNION ALL SELECT proacl, proowner FROM pg_proc WHERE pronamespace = n.oid"
        "   UNION ALL SELECT typacl, typowner FROM pg_type WHERE typnamespace = n.oid UNION ALL SELECT nspacl, nspowner)"
        " acls (acl, owner) CROSS JOIN aclexplode(acl) WHERE nspname = 'cmk' AND grantee <> owner",
        world.users["guest"].role)
    assert holders == [(True, False)]
    assert world.dba.all("SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
                         " WHERE relnamespace = 'cmk'::regnamespace AND attacl IS NOT NULL") == []


def test_guards_fire_whatever_wrote(world):
    assert members(world.dba, "pg_event_trigger", "evtname::text, evtenabled::text") == [
        (name, "A") for name in sorted(EVENT_TRIGGERS)]
    triggers = world.dba.all("SELECT DISTINCT relname::text, tgenabled::text FROM pg_trigger JOIN pg_class c"
                             " ON c.oid = tgrelid WHERE relnamespace = 'cmk'::regnamespace AND NOT tgisinternal")
    assert sorted(triggers) == [(table, "A") for table in sorted(TABLES)]
