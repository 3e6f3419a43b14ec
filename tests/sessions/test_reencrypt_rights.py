"""What runs with the extension owner's rights runs nothing of the owners of tables: no view, cast or expression of theirs."""

import psycopg
import pytest

from support import grant, unique

EVIL = "BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', session_user); RETURN"
NOTE = "SELECT cmk_internal.reencrypt_note(%s::regclass, 1::int2, %s, '{}')"


@pytest.fixture
def eve(owner):
    """A role of no rights, which owns a schema."""
    schema = owner.role
    owner.run(f"CREATE FUNCTION {schema}.bytes() RETURNS bytea LANGUAGE plpgsql AS $$ {EVIL} '\\x00'; END $$")
    owner.run(f"CREATE FUNCTION {schema}.number(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ {EVIL} $1; END $$")
    owner.run("CREATE TYPE pair AS (a int)")
    owner.run(f"CREATE FUNCTION {schema}.cast(pair) RETURNS bytea LANGUAGE plpgsql AS $$ {EVIL} '\\x00'; END $$")
    owner.run(f"CREATE CAST (pair AS bytea) WITH FUNCTION {schema}.cast(pair) AS IMPLICIT")
    return owner


def is_superuser(dba, session):
    return dba.one("SELECT rolsuper FROM pg_roles WHERE rolname = %s", session.role)


def begin(eve, name):
    eve.run("SELECT cmk_internal.reencrypt_begin(%s::regclass, 1::int2)", name)


@pytest.mark.parametrize("made", [
    "CREATE VIEW {0} AS SELECT bytes() AS c",
    "CREATE TABLE {0} (c pair); INSERT INTO {0} VALUES (ROW(1)::pair)",
    "CREATE TABLE {0} (c text); INSERT INTO {0} VALUES ('x')",
])
@pytest.mark.parametrize("state", ["starting", "done"])
def test_only_tables_with_envelopes_are_counted(eve, dba, made, state):
    name = unique("thing")
    for statement in made.format(name).split("; "):
        eve.run(statement)
    begin(eve, name)
    with pytest.raises(psycopg.Error) as refused:
        eve.run(NOTE, name, state)
    assert refused.value.sqlstate == "42809" and not is_superuser(dba, eve)


def test_a_column_that_changes_its_type_meanwhile_is_not_counted(eve, dba):
    name = unique("thing")
    eve.run(f"CREATE TABLE {name} (c bytea)")
    eve.run(f"INSERT INTO {name} VALUES ('x')")
    begin(eve, name)
    eve.run(f"ALTER TABLE {name} ALTER c TYPE pair USING ROW(1)::pair")
    with pytest.raises(psycopg.Error) as refused:
        eve.run(NOTE, name, "done")
    assert refused.value.sqlstate == "42809" and not is_superuser(dba, eve)


def test_expressions_of_indexes_and_constraints_are_not_run(eve, dba, local_tenant):
    acme, name = local_tenant(), unique("thing")
    grant(dba, acme, eve.role)
    eve.run(f"CREATE TABLE {name} (c bytea, id int, tenant text)")
    eve.run(f"CREATE TABLE {name}_2 (id int, tenant text NOT NULL, ssn text)")
    eve.run(f"SELECT cmk.protect_column('{name}_2', 'ssn', tenant_column => 'tenant')")
    eve.run(f"INSERT INTO {name}_2 VALUES (1, %s, 'x')", acme.name)
    for table in (name, f"{name}_2"):
        # Harmless while the table's owner makes them, and not afterwards.
        eve.run("CREATE OR REPLACE FUNCTION number(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1; END $$")
        eve.run(f"CREATE INDEX ON {table} ((id + number(1)))")
        eve.run(f"CREATE INDEX ON {table} (id) WHERE id > number(1)")
        eve.run(f"ALTER TABLE {table} ADD CHECK (id > number(-5))")
        eve.run(f"CREATE OR REPLACE FUNCTION number(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ {EVIL} $1; END $$")
    begin(eve, name)
    for state in ("starting", "done"):
        eve.run(NOTE, name, state)
    assert not is_superuser(dba, eve)
    dba.all("SELECT * FROM cmk.check(deep => true)")
    dba.all("SELECT * FROM cmk.dump_keys_needed()")
    assert not is_superuser(dba, eve)


def test_an_envelope_does_not_tell_whose_it_is_to_whom_holds_no_grant(app, session, role, local_tenant):
    """Whoever may read a bytea column may call what re-encryption is made of."""
    made, nobody = local_tenant(), session(role())
    sealed = app.encrypt(made)
    assert nobody.one("SELECT cmk_internal.renewal_problem(%b::bytea, ''::bytea)", sealed) == "no_grant"
    with pytest.raises(psycopg.Error) as refused:
        nobody.run("SELECT cmk_internal.renewed(%b::bytea, ''::bytea)", sealed)
    diagnostics = refused.value.diag
    told = f"{diagnostics.message_primary} {diagnostics.message_detail} {diagnostics.message_hint}"
    assert "reason=no_grant" in told and made.name not in told
    named = nobody.one("SELECT cmk_internal.renewal_problem(%b::bytea, ''::bytea, %s)", sealed, made.name)
    assert named == f"no_grant\n{made.name}"
