"""An application's call reaches our functions, whatever the database's owner lays beside them.

PostgreSQL takes the function that fits the types of a call best, wherever on the search_path it is.
"""

from itertools import product

import pytest
from psycopg import pq

from dumps import client
from support import CANARY, fails_with, grant

NAMES = {
    "cmk_encrypt": ("bytea", "text", "varchar"),
    "cmk_encrypt_text": ("text", "varchar"),
    "cmk_encrypt_nested": ("bytea", "text", "varchar"),
    "cmk_decrypt": ("bytea",),
    "cmk_decrypt_text": ("bytea",),
    "cmk_try_decrypt": ("bytea",),
    "cmk_try_decrypt_text": ("bytea",),
}
WITH_AND_WITHOUT_AAD = ((), ("bytea",))


class Theirs:
    """A database of somebody else's with tenant `a`, and a session that may use it."""

    def __init__(self, session, role, dbname):
        dba, owner, user = session(dbname=dbname), role(), role()
        dba.run(f"ALTER DATABASE {dbname} OWNER TO {owner}")
        dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
        grant(dba, "a", user)
        self.owner = session(owner, dbname=dbname)
        self.owner.run("CREATE TABLE public.called (what text)")
        self.owner.run("GRANT INSERT ON public.called TO PUBLIC")
        self.app = session(user, dbname=dbname, options='-c search_path="$user",public')

    def lay(self, schema, further):
        """Functions of our names, for each tenant and value type and these further arguments."""
        self.owner.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        self.owner.run(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
        types = product(NAMES, ("text", "varchar"), ("bytea", "text", "varchar"), further)
        for name, tenant, value, rest in types:
            signature = f"{schema}.{name}({', '.join((tenant, value, *rest))})"
            result = "text" if name.endswith("decrypt_text") else "bytea"
            self.owner.run(
                f"CREATE FUNCTION {signature} RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN"
                f" INSERT INTO public.called VALUES ('{signature}'); RETURN NULL; END $$"
            )

    def called(self):
        return [what for (what,) in self.owner.all("SELECT DISTINCT what FROM public.called")]


@pytest.fixture
def theirs(session, role, database):
    return Theirs(session, role, database())


# Ways to write the tenant `a` and the value.
TENANTS = ("t_text", "t_varchar", "'a'::text", "'a'::varchar", "'a'::varchar(9)", "'a'")
TEXTS = ("v_text", "v_varchar", "'value'::text", "'value'::varchar(9)", "'value'")
BYTES = ("v_bytea", "'value'::bytea")


def seal(app, aad, prefix=""):
    """Makes a table of values sealed by calls written in every way."""
    app.run(
        "CREATE TEMP TABLE columns AS SELECT 'a'::text AS t_text, 'a'::varchar(9) AS t_varchar,"
        " 'value'::text AS v_text, 'value'::varchar(9) AS v_varchar, 'value'::bytea AS v_bytea"
    )
    app.run("CREATE TEMP TABLE sealed (value bytea)")
    calls = [*product(["cmk_encrypt", "cmk_encrypt_nested"], TENANTS, TEXTS + BYTES),
             *product(["cmk_encrypt_text"], TENANTS, TEXTS)]
    for name, tenant, value in calls:
        app.run(f"INSERT INTO sealed SELECT {prefix}{name}({tenant}, {value}{aad}) FROM columns")


def answers(app, aad, prefix=""):
    """What calls written in every way make of that table."""
    found = set()
    for name, tenant in product(NAMES, TENANTS):
        if "decrypt" in name:
            opened = f"{prefix}{name}({tenant}, value{aad})"
            found |= {*app.all(f"SELECT {opened} FROM columns, sealed")}
    return found


@pytest.mark.parametrize("aad", ["", ", 'aad'::bytea", ", 'aad'"])
def test_calls_with_columns_casts_and_literals_reach_ours(theirs, aad):
    theirs.lay("public", WITH_AND_WITHOUT_AAD)
    seal(theirs.app, aad)
    assert answers(theirs.app, aad) == {("value",), (b"value",)}
    assert theirs.called() == []


@pytest.mark.parametrize("aad", [(), (b"aad",)])
@pytest.mark.parametrize("tenant", ["%s", "%b", "%s::varchar"])
def test_calls_with_parameters_reach_ours(theirs, tenant, aad):
    theirs.lay("public", WITH_AND_WITHOUT_AAD)
    app, rest = theirs.app, ", %s" * len(aad)
    for name, value, as_text in (
        ("cmk_encrypt", CANARY, "%s"), ("cmk_encrypt", CANARY.decode(), "%s"),
        ("cmk_encrypt", CANARY.decode(), "%b"), ("cmk_encrypt_text", CANARY.decode(), "%s"),
    ):
        sealed = app.one(f"SELECT {name}({tenant}, {as_text}{rest})", "a", value, *aad)
        for open_ in NAMES:
            if "decrypt" in open_:
                opened = app.one(f"SELECT {open_}({tenant}, %b{rest})", "a", sealed, *aad)
                assert opened == (CANARY.decode() if open_.endswith("_text") else CANARY)
    assert theirs.called() == []


@pytest.mark.parametrize("name", [name for name in NAMES if "decrypt" in name])
def test_a_ciphertext_without_a_type_reaches_ours(theirs, name):
    """As a driver sends it that leaves the types of parameters to the server."""
    theirs.lay("public", WITH_AND_WITHOUT_AAD)
    sealed = theirs.app.encrypt("a")
    opened = theirs.app.one(f"SELECT {name}('a', '\\x{sealed.hex()}')")
    assert theirs.called() == []
    assert opened == (CANARY.decode() if name.endswith("_text") else CANARY)


@pytest.mark.parametrize("name", NAMES)
def test_an_aad_without_a_type_reaches_ours(theirs, name):
    theirs.lay("public", (("text",), ("varchar",)))
    sealed = theirs.app.encrypt("a", CANARY, b"aad")
    value = "'value'" if "encrypt" in name else f"'\\x{sealed.hex()}'::bytea"
    assert theirs.app.one(f"SELECT {name}('a', {value}, 'aad')") is not None
    assert theirs.called() == []


@pytest.mark.parametrize("name", ["cmk_try_decrypt", "cmk_try_decrypt_text"])
def test_a_list_of_reasons_without_a_type_reaches_ours(theirs, name):
    theirs.lay("public", (("bytea", "text"), ("bytea", "varchar")))
    sealed = theirs.app.encrypt("a")
    opened = theirs.app.one(f"SELECT {name}('a', %b, ''::bytea, '{{no_grant}}')", sealed)
    assert theirs.called() == []
    assert opened is not None


@pytest.mark.parametrize("aad", ["", ", 'aad'::bytea", ", 'aad'"])
def test_qualified_calls_reach_ours_wherever_the_search_path_leads(theirs, aad):
    theirs.lay("evil", (*WITH_AND_WITHOUT_AAD, ("text",), ("varchar",)))
    theirs.app.run("SET search_path = evil, pg_catalog")
    theirs.app.one("SELECT cmk_encrypt('a', 'value')")
    assert len(theirs.called()) == 1, "what is not qualified is caught"
    theirs.owner.run("TRUNCATE public.called")
    seal(theirs.app, aad, "pg_catalog.")
    assert answers(theirs.app, aad, "pg_catalog.") == {("value",), (b"value",)}
    sealed = theirs.app.one("SELECT encode(value, 'hex') FROM sealed LIMIT 1")
    for name in NAMES:
        if "decrypt" in name:
            theirs.app.one(f"SELECT pg_catalog.{name}('a', '\\x{sealed}'{aad})")
    assert theirs.called() == []


# What a value without a type is: the text that it shows

TRICKY = [r"\x41", r"\101", r"\x", r"a\\b", "'", r"\xdeadbeef", "{1,2}", "cmk0:x", r"\t", "NULL", "true", "5", r"\X41"]
UNKNOWN, TEXT, VARCHAR = 705, 25, 1043


@pytest.mark.parametrize("function", ["cmk_encrypt", "cmk_encrypt_text", "cmk_encrypt_nested"])
@pytest.mark.parametrize("value", TRICKY)
def test_an_untyped_value_is_sealed_as_the_text_that_it_shows(app, local_tenant, function, value):
    """As a literal; as a parameter without a type, or with one of a text, in text and in binary form; prepared."""
    tenant, written = local_tenant(), value.replace("'", "''")

    def sent(oid, is_binary):
        sql = f"SELECT {function}('{tenant}', $1)".encode()
        result = app.connection.pgconn.exec_params(sql, [value.encode()], [oid], [int(is_binary)], 1)
        assert result.status == pq.ExecStatus.TUPLES_OK, result.error_message
        return result.get_value(0, 0)

    escaped = written.replace("\\", "\\\\")
    literals = (f"'{written}'", f"E'{escaped}'", f"$q${value}$q$", f"'{written}'::text", f"'{written}'::varchar(99)")
    sealed = [app.one(f"SELECT {function}('{tenant}', {literal})") for literal in literals]
    sealed += [sent(oid, is_binary) for oid in (0, UNKNOWN, TEXT, VARCHAR) for is_binary in (False, True)]
    app.run(f"PREPARE p AS SELECT {function}('{tenant}', $1)")
    sealed.append(app.one(f"EXECUTE p('{written}')"))
    app.run("DEALLOCATE p")
    assert {app.decrypt(tenant, envelope) for envelope in sealed} == {value.encode()}


@pytest.mark.parametrize("cast", [r"'\x41'::bytea", r"bytea '\x41'", r"CAST('\x41' AS bytea)", "decode('41', 'hex')"])
def test_bytes_are_sealed_where_the_type_is_written(app, local_tenant, cast):
    tenant = local_tenant()
    for function in ("cmk_encrypt", "cmk_encrypt_nested"):
        assert app.decrypt(tenant, app.one(f"SELECT {function}('{tenant}', {cast})")) == b"A"


@pytest.mark.parametrize("value", ["5", "true", "now()", "'{}'::jsonb", "ARRAY['a']", "1.5"])
def test_what_is_neither_text_nor_bytes_is_an_error_of_postgresql(app, local_tenant, value):
    with fails_with("42883"):
        app.run(f"SELECT cmk_encrypt('{local_tenant()}', {value})")


def test_psql_variables_and_literals_are_text(server, dba, local_tenant):
    tenant = local_tenant(to=(dba,))
    script = "\n".join([
        r"\set v '\\x41'",
        f"SELECT convert_from(cmk_decrypt('{tenant}', cmk_encrypt('{tenant}', :'v')), 'UTF8');",
        rf"SELECT cmk_decrypt_text('{tenant}', cmk_encrypt('{tenant}', '\x41'));",
    ])
    assert client(server, "psql", "-AtqX", "-d", "sessions", input=script.encode()).split() == [rb"\x41", rb"\x41"]


# The set of ours


@pytest.fixture
def functions(dba):
    """{name: rows of pg_proc, as dictionaries} of the functions for applications."""
    columns = ("proname", "types", "provolatile", "proparallel", "procost", "proisstrict", "result",
               "proargnames", "pronargdefaults", "defaults", "proleakproof", "prosecdef", "comment")
    rows = dba.all(
        "SELECT proname::text, ARRAY(SELECT t::regtype::text FROM unnest(proargtypes) t),"
        " provolatile::text, proparallel::text, procost, proisstrict, prorettype::regtype::text,"
        " proargnames, pronargdefaults, pg_get_expr(proargdefaults, 0), proleakproof, prosecdef,"
        " obj_description(oid, 'pg_proc')"
        " FROM pg_proc WHERE proname ~ '^cmk_.*crypt' AND pronamespace = 'pg_catalog'::regnamespace"
    )
    found = {}
    for row in rows:
        found.setdefault(row[0], []).append(dict(zip(columns, row)))
    return found


def test_each_function_takes_every_combination_of_types(functions):
    written = {"varchar": "character varying"}
    for name, values in NAMES.items():
        types = {tuple(function["types"][:2]) for function in functions[name]}
        wanted = {("text", value) for value in values} | {("varchar", value) for value in values}
        assert types >= {tuple(written.get(t, t) for t in pair) for pair in wanted}, name
    assert {*functions} == {*NAMES}


def test_overloads_of_one_name_differ_in_the_types_of_their_arguments_only(functions):
    for name, overloads in functions.items():
        # An argument that takes text in place of its own type has no default: a call that leaves it out has one meaning.
        varying = {"types", "comment", "pronargdefaults", "defaults"}
        for column in overloads[0].keys() - varying:
            values = {str(function[column]) for function in overloads}
            assert len(values) == 1, f"{name}: {column} {values}"


def test_each_overload_has_a_comment(functions):
    for name, overloads in functions.items():
        assert all(function["comment"] for function in overloads), name


def test_all_are_strict_about_nothing_and_leakproof_never(functions):
    for overloads in functions.values():
        for function in overloads:
            assert not function["proisstrict"] and not function["proleakproof"], function
