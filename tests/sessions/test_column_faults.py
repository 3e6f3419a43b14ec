"""Protected columns in odd places: hostile search paths, odd names, very wide tables, restricted operations."""

import threading

import psycopg
import pytest

from columns import (  # noqa: F401 (fixtures)
    ROWS, TRIGGER, app, dba, envelopes, opened, plain, protect, quoted, reader, tags, unchanged, world,
)
from dumps import client, run_script
from support import fails, fails_with, unique

# search_path

TRAP = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'P0T00'; END $$"


@pytest.fixture(scope="module")
def hostile(world):
    """A schema with objects of our names and of those that ours use."""
    dba = world.dba
    dba.run("CREATE SCHEMA hostile")
    dba.run("CREATE DOMAIN hostile.cmk_text AS text CHECK (VALUE IS NULL)")
    dba.run("CREATE DOMAIN hostile.cmk_bytea AS bytea")
    dba.run("CREATE TABLE hostile.tenant (tenant text)")
    for signature in ("sealed(text, text, text, text) RETURNS bool", "seal() RETURNS trigger",
                      "seals(text, text) RETURNS bool",
                      "lower(pg_catalog.cmk_text) RETURNS text", "length(pg_catalog.cmk_text) RETURNS int",
                      "text(pg_catalog.cmk_text) RETURNS text", "has(text, pg_catalog.cmk_text) RETURNS bool"):
        dba.run(f"CREATE FUNCTION hostile.{signature} {TRAP}")
    for operator, left, right in (("=", "text", "text"), ("<", "text", "text"), ("||", "text", "text"),
                                  ("=", "oid", "oid"), ("=", "bytea", "bytea")):
        name = unique("trap")
        returns = "text" if operator == "||" else "bool"
        dba.run(f"CREATE FUNCTION hostile.{name}({left}, {right}) RETURNS {returns} {TRAP}")
        dba.run(f"CREATE OPERATOR hostile.{operator} (FUNCTION = hostile.{name}, LEFTARG = {left}, RIGHTARG = {right})")
    dba.run("GRANT ALL ON SCHEMA hostile TO PUBLIC")
    return "hostile, pg_temp, pg_catalog, public"


def everything_works(world, session, table):
    """Writes, reads and the registry's own queries, under whatever search path the session has."""
    with session.counts(seals=2):
        session.run(f"INSERT INTO public.{table} VALUES (1, 'acme', 'x', NULL), (2, 'bolt', 'y', NULL)")
    with session.counts(1, 1):
        session.run(f"UPDATE public.{table} SET tenant_id = 'bolt' WHERE id OPERATOR(pg_catalog.=) 1")
    session.copy_in(f"COPY public.{table} FROM STDIN", "3\tacme\tz\t\\N\n")
    session.run("SET cmk_encrypt.output = plaintext")
    assert session.all(f"SELECT ssn FROM public.{table} ORDER BY ssn DESC") == [("z",), ("y",), ("x",)]
    assert session.all(f"SELECT id FROM public.{table} WHERE ssn OPERATOR(pg_catalog.=) 'y'") == [(2,)]
    grouped = session.all(f"SELECT ssn, pg_catalog.count(*) FROM public.{table} GROUP BY ssn ORDER BY ssn")
    assert grouped == [("x", 1), ("y", 1), ("z", 1)]
    assert session.one(f"SELECT cmk.try_text(ssn) FROM public.{table} WHERE id OPERATOR(pg_catalog.=) 3") == "z"
    with fails("42704", "unknown_tenant", "nosuch"):
        session.run(f"INSERT INTO public.{table} VALUES (9, 'nosuch', 'x', NULL)")
    world.dba.run(f"TRUNCATE public.{table}")


def test_an_empty_search_path(world):
    table = world.make(unique("u"))
    session = world.connect("app")
    session.run("SET search_path = ''")
    everything_works(world, session, table)
    assert session.one("SELECT 'x'::cmk_text = 'x'") is True


def test_hostile_objects_on_the_search_path_are_never_called(world, hostile):
    table = world.make(unique("u"))
    session = world.connect("app")
    session.run("CREATE TEMP TABLE data_key (tenant text)")
    session.run(f"SET search_path = {hostile}")
    with fails_with("P0T00"):
        session.run("SELECT 'a'::text = 'a'::text")
    everything_works(world, session, table)


def test_a_session_that_starts_with_a_hostile_path(world, server, hostile):
    table = world.make(unique("u"))
    server.execute(f"ALTER ROLE {world.roles['app']} SET search_path = {hostile}")
    try:
        everything_works(world, world.connect("app"), table)
    finally:
        server.execute(f"ALTER ROLE {world.roles['app']} RESET search_path")


# Names

NAMES = [
    "S S N", 'sch"ön', "o'brien", "日本語", "x" * 63, "select", "$1", "a.b", "Ünïcödé-" + "ü" * 20, "new", "%s",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_tables_schemas_and_columns(world, server, database, dba, app, reader, name):
    schema, table = unique("s"), f"{quoted(name)}"
    dba.run(f"CREATE SCHEMA {schema}")
    dba.run(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    tenant = quoted(("t" + name)[:20])
    dba.run(f"CREATE TABLE {schema}.{table} (id int, {tenant} text, {quoted(name)} text)")
    label = f"{name}.{name}"
    check, text = quoted(f"cmk_sealed_{name}"), label.replace("'", "''")
    dba.run(
        f"ALTER TABLE {schema}.{table} ALTER {quoted(name)} TYPE cmk_text,"
        f" ADD CONSTRAINT {check} CHECK (cmk.sealed({quoted(name)}, '{text}', {tenant}, NULL))"
    )
    dba.run(
        f'CREATE TRIGGER "{TRIGGER}" BEFORE INSERT OR UPDATE ON {schema}.{table} FOR EACH ROW'
        f" WHEN (cmk.seals('{text}', new.{tenant}) OR true) EXECUTE FUNCTION cmk.seal()"
    )
    dba.run(f'ALTER TABLE {schema}.{table} ENABLE ALWAYS TRIGGER "{TRIGGER}"')
    dba.run(f"GRANT ALL ON {schema}.{table} TO PUBLIC")
    with app.counts(seals=1):
        app.run(f"INSERT INTO {schema}.{table} VALUES (1, 'acme', 'x')")
    envelope = dba.one(f"SELECT cmk.envelope({quoted(name)}) FROM {schema}.{table}")
    assert envelope[18:34] == tags("acme", label)
    assert reader.one(f"SELECT {quoted(name)} FROM {schema}.{table} WHERE {quoted(name)} = 'x'") == "x"
    dba.run(f'ALTER TABLE {schema}.{table} DISABLE TRIGGER "{TRIGGER}"')
    with fails("23514", "not_sealed") as failure:
        app.run(f"INSERT INTO {schema}.{table} VALUES (2, 'acme', 'secret')")
    assert "secret" not in str(failure.value)
    dba.run(f'ALTER TABLE {schema}.{table} ENABLE ALWAYS TRIGGER "{TRIGGER}"')
    target = database(extension=False)
    run_script(server, target, client(server, "pg_dump", "-n", schema, "-n", "cmk", "-e", "cmk_encrypt", world.dbname))
    restored = psycopg.connect(host=str(server.socket), user="postgres", dbname=target, autocommit=True)
    with restored:
        rows = restored.execute(f"SELECT cmk.envelope({quoted(name)}) FROM {schema}.{table}").fetchall()
    assert rows == [(envelope,)]


# Wide tables, many columns, many rows in a statement


def test_a_table_of_1600_columns(world, dba, app, reader):
    table = unique("wide")
    others = ", ".join(f"c{n} bool" for n in range(1597))
    dba.run(f"CREATE TABLE {table} (id int, tenant_id text, ssn text, {others})")
    protect(dba, table, "ssn")
    dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    app.run(f"INSERT INTO {table} (id, tenant_id, ssn, c1596) VALUES (1, 'acme', 'x', true)")
    with app.counts(1, 1):
        app.run(f"UPDATE {table} SET tenant_id = 'bolt', c0 = c1596")
    assert reader.row(f"SELECT ssn, c0, c1596 FROM {table} WHERE ssn = 'x'") == ("x", True, True)


def test_a_table_of_50_protected_columns(world, dba, app, reader):
    table, count = unique("many"), 50
    names = [f"c{n}" for n in range(count)]
    dba.run(f"CREATE TABLE {table} (id int, tenant_id text, {', '.join(f'{name} text' for name in names)})")
    protect(dba, table, *names)
    dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    with app.counts(seals=count):
        app.run(f"INSERT INTO {table} VALUES (1, 'acme', {', '.join(map(repr, names))})")
    assert reader.row(f"SELECT {', '.join(names)} FROM {table}") == tuple(names)
    with app.counts(seals=count, opens=count):
        app.run(f"UPDATE {table} SET tenant_id = 'bolt'")


def test_large_values(world, app, reader):
    table = world.make(unique("u"))
    value = "ä" * 5_000_000
    with app.counts(seals=1):
        app.run(f"INSERT INTO {table} VALUES (1, 'acme', %s, NULL)", value)
    assert reader.one(f"SELECT ssn FROM {table}") == value
    with app.counts():
        app.run(f"UPDATE {table} SET id = 2")
    assert reader.one(f"SELECT count(*) FROM {table} WHERE ssn = %s AND length(ssn) = 5000000", value) == 1


# Things that are lost


def test_what_was_sealed_stays_readable_without_its_check_and_trigger(world, dba, app, reader):
    table = world.make(unique("u"), ROWS)
    before = plain(reader, table)
    dba.run(f'ALTER TABLE {table} DROP CONSTRAINT cmk_sealed_ssn, DROP CONSTRAINT cmk_sealed_note')
    dba.run(f'DROP TRIGGER "{TRIGGER}" ON {table}')
    assert plain(reader, table) == before
    assert len(app.all(f"TABLE {table}")) == len(ROWS)


def test_the_extension_is_not_dropped_with_the_columns_by_accident(world, dba):
    world.make(unique("u"))
    with fails_with("2BP01"):
        dba.run("DROP EXTENSION cmk_encrypt")


def test_a_check_lost_or_changed_while_sessions_write(world, dba, app):
    """The plan of columns follows changes that other sessions make."""
    table = world.make(unique("u"), ROWS[:1])
    app.run(f"INSERT INTO {table} VALUES (20, 'acme', 'x', NULL)")
    dba.run(f"ALTER TABLE {table} DROP CONSTRAINT cmk_sealed_ssn")
    with fails("55000", "protection_lost"):
        app.run(f"INSERT INTO {table} VALUES (21, 'acme', 'x', NULL)")
    dba.run(f"ALTER TABLE {table} ADD CONSTRAINT cmk_sealed_ssn CHECK (cmk.sealed(ssn, 'other.label',"
            " tenant_id, NULL)) NOT VALID")
    with app.counts(seals=1):
        app.run(f"INSERT INTO {table} VALUES (22, 'acme', 'x', NULL)")
    assert envelopes(dba, table)[22][26:34] == tags("acme", "other.label")[8:]


# Restricted operations, concurrency, cancellation


def test_an_index_expression_or_rule_cannot_open_in_a_restricted_operation(world, dba, reader):
    table = world.make(unique("u"), ROWS[:2])
    function = unique("f")
    dba.run(f"CREATE FUNCTION {function}(cmk_text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN"
            " $1::text; END'")
    for sql in (f"CREATE INDEX ON {table} ({function}(ssn))",
                f"CREATE MATERIALIZED VIEW {function}_m AS SELECT {function}(ssn) FROM {table}"):
        with fails("42501", "security_restricted_operation"):
            dba.run(sql)


def test_sessions_that_write_the_same_rows_at_once(world, dba):
    table = world.make(unique("u"), [(id, "acme", str(id), None) for id in range(20)])
    sessions, failures = [world.connect("app") for _ in range(6)], []

    def work(session, number):
        try:
            for turn in range(20):
                tenant = ("acme", "bolt")[(turn + number) % 2]
                session.run(f"UPDATE {table} SET ssn = '{number}-{turn}', tenant_id = '{tenant}' WHERE id = {turn % 4}")
                session.run(f"INSERT INTO {table} VALUES ({turn}, 'acme', 'up', NULL) ON CONFLICT (id)"
                            f" DO UPDATE SET ssn = excluded.ssn || left({table}.ssn, 9)")
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(session, number)) for number, session in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = dba.all(f"SELECT id, tenant_id, cmk.envelope(ssn), ssn::text FROM {table}")
    assert len(rows) == 20 and all(text for *_, text in rows)
    assert all(envelope[18:34] == tags(tenant, f"{table}.ssn") for _, tenant, envelope, _ in rows)


def test_a_cancelled_write_leaves_the_session_and_the_table_as_they_were(world, dba, app):
    table = world.make(unique("u"), ROWS)
    app.run("SET statement_timeout = '30ms'")
    with unchanged(dba, table):
        for sql in (f"INSERT INTO {table} SELECT n, 'acme', repeat('x', 1000), NULL"
                    " FROM generate_series(100, 10000000) n",
                    f"UPDATE {table} SET ssn = 'x' WHERE ssn IS NOT NULL AND pg_sleep(0.01) IS NOT NULL"):
            with fails_with("57014"):
                app.run(sql)
    app.run("SET statement_timeout = 0")
    with app.counts(1, 1):
        app.run(f"UPDATE {table} SET ssn = ssn || '!' WHERE id = 1")
