"""What access_control.py says of every object of the extension, tried as everybody.

An object that is in none of its tables fails the first test.
"""

import re

import psycopg
import pytest

from access_control import (
    ANYBODY, APPLICATION_FUNCTIONS, CASTS, EVENT_TRIGGERS, FUNCTIONS, GUARDED, INTERNAL_FUNCTIONS, KINDS, LEAKPROOF,
    NEEDS_GRANT, NEEDS_TABLE, NOBODY, NOT_CALLED, NOT_WRITTEN, OPENS, OPERATOR_CLASSES, OPERATORS, OVERLOADS, ROW_TYPES,
    SCHEMAS, TABLES, TOKEN_CLASSES, TOKEN_OPERATORS, TRIGGER_FUNCTIONS, TYPE_FUNCTIONS, TYPES, UNPINNED, VIEWS, WRITES,
)
from access_world import identities, may, members, outcome
from access_world import calls, user, world  # noqa: F401 (fixtures)

# How each function runs.
RUNS = {
    "pg_catalog": APPLICATION_FUNCTIONS
    | {name.format(kind=kind): runs for name, runs in TYPE_FUNCTIONS.items() for kind in KINDS},
    "cmk": {name: runs for name, (_, runs) in FUNCTIONS.items()},
    "cmk_internal": {name: runs for runs, names in INTERNAL_FUNCTIONS.items() for name in names},
}
OPENING = {name.format(kind=kind) for name in OPENS for kind in KINDS}


# The tables are complete


def test_the_tables_name_every_object_of_the_extension_and_no_other(world):
    listed = {
        *(("procedure" if name in ("seal_table", "reencrypt") else "function", f"{schema}.{name}")
          for schema, names in RUNS.items() for name in names),
        *(("table", f"cmk.{name}") for name in TABLES),
        *(("view", f"cmk.{name}") for name in VIEWS),
        *(("type", name) for name in TYPES),
        *(("cast", f"({source} AS {target})") for source, target in CASTS),
        *(("operator", f"pg_catalog.{name}(pg_catalog.{left},pg_catalog.{right})") for left, name, right in (*OPERATORS, *TOKEN_OPERATORS)),
        *((kind, name) for kind in ("operator class", "operator family")
          for name in (*OPERATOR_CLASSES, *TOKEN_CLASSES)),
        *(("schema", name) for name in SCHEMAS),
        *(("event trigger", name) for name in EVENT_TRIGGERS),
    }
    there = {
        (kind, identity.split("(")[0].replace('"', "") if kind in ("function", "procedure") else identity)
        for kind, identity in identities(world.dba)
    }
    # PostgreSQL 17 and later name `json` as it is written.
    there = {(kind, re.sub(r"(\(|AS )json\b", r"\1pg_catalog.json", identity)) for kind, identity in there}
    assert there == listed


# Functions


def test_functions_of_cmk_are_called_by_whom_the_table_says(user, world, calls):
    role, _ = user
    wanted, seen = {}, {}
    for function in [it for it in calls if it.schema == "cmk"]:
        wanted[function.call] = may(role, FUNCTIONS[function.name][0])
        if wanted[function.call] == "yes":
            wanted[function.call] = further(role, function)
        seen[function.call] = called(world, role, function)
    assert seen == wanted


def test_internal_functions_do_for_anybody_what_their_caller_may_do(user, world, calls):
    role, _ = user
    ours = [it for it in calls if it.schema == "cmk_internal"]
    wanted = {function.call: further(role, function) for function in ours}
    assert {function.call: called(world, role, function) for function in ours} == wanted


def further(role, function):
    """What becomes of a call by who has the right to call the function."""
    if function.name == "dump_keys" and role == "reader":
        return "yes"
    if function.name in NEEDS_TABLE and role != "superuser":
        return NEEDS_TABLE[function.name]
    return "no_grant" if function.name in NEEDS_GRANT and role != "application" else "yes"


def called(world, role, function):
    """What becomes of a call, or the privilege for it."""
    session = world.users[role]
    if function.name in TRIGGER_FUNCTIONS:
        session.run("CREATE TEMP TABLE IF NOT EXISTS own ()")
        return outcome(session, f"CREATE TRIGGER t AFTER INSERT ON own EXECUTE FUNCTION cmk.{function.name}()")
    if function.name not in NOT_CALLED and NOT_WRITTEN.isdisjoint(function.types):
        return outcome(session, function.call)
    has_privilege = world.dba.one("SELECT has_function_privilege(%s, %s::oid, 'EXECUTE')", session.role, function.oid)
    return "yes" if has_privilege else "denied"


def test_functions_of_protected_types_answer_everybody_and_open_for_who_has_a_grant(user, world, calls):
    role, _ = user
    ours = [it for it in calls if it.schema == "pg_catalog" and it.name not in APPLICATION_FUNCTIONS]
    wanted = {it.call: "no_grant" if it.name in OPENING and role != "application" else "yes" for it in ours}
    assert {it.call: called(world, role, it) for it in ours} == wanted


def for_applications(calls):
    return [it.call for it in calls if it.schema == "pg_catalog" and it.name in APPLICATION_FUNCTIONS]


def test_functions_for_applications_answer_everybody_and_serve_who_has_a_grant(user, calls):
    role, tries = user
    ours = for_applications(calls)
    wanted = "yes" if role == "application" else "no_grant"
    assert {call: tries(call) for call in ours} == dict.fromkeys(ours, wanted)


def test_who_has_no_grant_learns_nothing_of_a_tenants_state(user, world, calls):
    role, tries = user
    if role == "application":
        return
    ours = for_applications(calls) + [it.call for it in calls if it.name in OPENING | {"seal_value", "try_text"}]
    world.dba.run("SELECT cmk.suspend_tenant('a')")
    suspended = {call: tries(call) for call in ours}
    world.dba.run("SELECT cmk.resume_tenant('a')")
    assert suspended == dict.fromkeys(ours, "no_grant")


PINNED = "search_path=pg_catalog, pg_temp"


def test_functions_run_as_the_table_says(world):
    rows = members(
        world.dba, "pg_proc",
        "oid::regprocedure::text, pronamespace::regnamespace::text, proname::text, provolatile::text, proparallel::text,"
        " prosecdef, proisstrict, proconfig, proleakproof",
    )
    classes = {"v": "volatile", "s": "stable", "i": "immutable"}, {"r": "restricted", "u": "unsafe", "s": "safe"}
    wanted, seen = {}, {}
    for signature, schema, name, volatility, parallel, is_definer, is_strict, settings, is_leakproof in rows:
        words = [classes[0][volatility], classes[1][parallel], "owner" if is_definer else "caller"]
        # Whatever else is set with it
        is_pinned = PINNED in (settings or ())
        words += ["strict"] * is_strict + ["pinned"] * (is_pinned and not is_definer)
        wanted[signature] = OVERLOADS.get(signature, RUNS[schema][name])
        seen[signature] = " ".join(words)
        assert is_pinned or ((settings is None or name in UNPINNED) and not is_definer), signature
        assert is_leakproof is not LEAKPROOF.isdisjoint({name, signature.removeprefix("cmk.")}), signature
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
    for statement in ("CREATE TABLE outside.t (c {})", "CREATE TABLE outside.t (c {}[])",
                      "CREATE DOMAIN outside.d AS {}",
                      "CREATE FUNCTION outside.f({}) RETURNS int LANGUAGE sql AS 'SELECT 1'"):
        assert tries(statement.format(name)) == may(role, TYPES[name]), statement


@pytest.mark.parametrize("name", ROW_TYPES)
def test_row_types_are_used_by_whoever_gets_into_the_schema(user, name):
    role, tries = user
    assert tries(f"CREATE TABLE outside.t (c {name})") == may(role, SCHEMAS[name.split(".")[0]])


def literal(world, kind):
    """A value of a type: of protected columns', a sealed one."""
    name = kind.removeprefix("pg_catalog.")
    return f"'{world.sealed[name][0] if name in world.sealed else '{}'}'::{kind}"


@pytest.mark.parametrize("source, target", CASTS)
def test_casts_are_used_by_whom_the_table_says(user, world, source, target):
    role, tries = user
    wanted = may(role, CASTS[source, target])
    if source.startswith("pg_catalog.cmk") and role != "application":
        wanted = "no_grant"
    assert tries(f"SELECT CAST({literal(world, source)} AS {target})") == wanted


@pytest.mark.parametrize("left, name, right", OPERATORS)
def test_operators_answer_who_has_a_grant(user, world, left, name, right):
    role, tries = user
    values = [f"'{world.sealed[kind][place] if kind in world.sealed else '{}'}'::{kind}"
              for place, kind in enumerate((left, right))]
    assert tries(f"SELECT {values[0]} {name} {values[1]}") == ("yes" if role == "application" else "no_grant")


@pytest.mark.parametrize("name", OPERATOR_CLASSES)
def test_operator_classes_sort_and_hash_for_who_has_a_grant_and_index_for_nobody(user, world, name):
    role, tries = user
    kind = name.split("_")[2]
    name, method = name.split(" USING ")
    use = "ORDER BY v" if method == "btree" else "GROUP BY v"
    first, second = (f"('{value}'::cmk_{kind})" for value in world.sealed[f"cmk_{kind}"])
    assert tries(f"SELECT FROM (VALUES {first}, {second}) x (v) {use}") == (
        "yes" if role == "application" else "no_grant")
    table = f"CREATE TABLE outside.mine (c cmk_{kind})"
    index = f"CREATE INDEX ON outside.mine USING {method} (c {name})"
    assert tries(f"DO $$ BEGIN {table}; {index}; END $$") == "index_refused"


@pytest.mark.parametrize("left, name, right", TOKEN_OPERATORS)
def test_operators_on_tokens_answer_everybody(user, world, left, name, right):
    values = [f"'{world.sealed[kind][place]}'::{kind}" for place, kind in enumerate((left, right))]
    assert user[1](f"SELECT {values[0]} {name} {values[1]}") == "yes"


@pytest.mark.parametrize("name", TOKEN_CLASSES)
def test_tokens_are_indexed_by_everybody(user, name):
    index = f"CREATE INDEX ON outside.mine (c {name.split()[0]})"
    assert user[1](f"DO $$ BEGIN CREATE TABLE outside.mine (c cmk_text); {index}; END $$") == "yes"


# Protected columns


@pytest.mark.parametrize("statement, who", [
    ("SELECT ssn FROM outside.people", ANYBODY),  # the ciphertext
    ("SELECT ssn::text FROM outside.people", {"application"}),
    ("SELECT FROM outside.people WHERE ssn = 'y'", {"application"}),
    ("INSERT INTO outside.people VALUES (2, 'a', 'y')", {"application"}),
    ("INSERT INTO outside.people VALUES (2, 'a', NULL)", ANYBODY),
    ("UPDATE outside.people SET ssn = 'y'", {"application"}),
    ("UPDATE outside.people SET id = 2", ANYBODY),
    ("UPDATE outside.people SET tenant = 'b'", NOBODY),  # nobody may seal for b
    ("DELETE FROM outside.people", ANYBODY),
])
def test_protected_columns_are_opened_and_sealed_by_who_has_a_grant(user, statement, who):
    role, tries = user
    assert tries(statement) == ("yes" if role in who else "no_grant")


def test_plaintext_is_printed_for_who_has_a_grant(user, world):
    role, _ = user
    with world.users[role].connection.transaction(force_rollback=True):
        world.users[role].run("SET LOCAL cmk_encrypt.output = plaintext")
        wanted = "yes" if role == "application" else "no_grant"
        assert outcome(world.users[role], "SELECT ssn FROM outside.people") == wanted


def test_who_owns_a_table_protects_it_and_seals_what_is_there_with_a_grant(user, world):
    role, tries = user
    owner = world.users[role]
    owner.run("CREATE TABLE outside.mine (id int, tenant text NOT NULL, ssn text)")
    owner.run("INSERT INTO outside.mine VALUES (1, 'a', 'x')")
    owner.run("SELECT cmk.protect_column('outside.mine', 'ssn', 'tenant')")
    owner.run("CALL cmk.seal_table('outside.mine')")
    assert owner.one("SELECT cmk.unsealed_rows('outside.mine', 'ssn')") == (0 if role == "application" else 1)
    # The plaintext that is left is no secret to the owner.
    assert tries("SELECT cmk.unprotect_column('outside.mine', 'ssn')") == "yes"
    owner.run("DROP TABLE outside.mine")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schema_is_entered_by_whom_the_table_says_and_built_in_by_nobody(user, schema):
    role, tries = user
    inside = {"cmk": "cmk.tenant", "cmk_internal": "cmk_internal.column_change"}[schema]
    assert tries(f"SELECT '{inside}'::regclass") == may(role, SCHEMAS[schema])
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
    "DROP EXTENSION cmk_encrypt CASCADE", "ALTER EXTENSION cmk_encrypt UPDATE", "COMMENT ON EXTENSION cmk_encrypt IS 'mine'",
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
        "SELECT DISTINCT grantee = 0 OR pg_get_userbyid(grantee) IN ('pg_monitor', 'pg_read_all_data'),"
        " is_grantable FROM pg_namespace n CROSS JOIN LATERAL (SELECT relacl, relowner FROM pg_class"
        "   WHERE relnamespace = n.oid UNION ALL SELECT proacl, proowner FROM pg_proc WHERE pronamespace = n.oid"
        "   UNION ALL SELECT typacl, typowner FROM pg_type WHERE typnamespace = n.oid UNION ALL SELECT nspacl, nspowner)"
        " acls (acl, owner) CROSS JOIN aclexplode(acl) WHERE nspname IN ('cmk', 'cmk_internal') AND grantee <> owner")
    assert holders == [(True, False)]
    assert world.dba.all("SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
                         " WHERE relnamespace = 'cmk'::regnamespace AND attacl IS NOT NULL") == []


def test_guards_fire_whatever_wrote(world):
    assert members(world.dba, "pg_event_trigger", "evtname::text, evtenabled::text") == [
        (name, "A") for name in sorted(EVENT_TRIGGERS)]
    triggers = world.dba.all("SELECT DISTINCT relname::text, tgenabled::text FROM pg_trigger JOIN pg_class c"
                             " ON c.oid = tgrelid WHERE relnamespace = 'cmk'::regnamespace AND NOT tgisinternal")
    assert sorted(triggers) == [(table, "A") for table in sorted(TABLES)]
