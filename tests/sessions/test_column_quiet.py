"""Planning, maintenance and statistics open no value and ask no KMS; readers without the right or the key."""

import pytest

from columns import ROWS, TRIGGER, app, armor, dba, envelopes, opened, reader, world  # noqa: F401 (fixtures)
from protected import hear
from support import fails, fails_with, flip, unique

MANY = 2000


@pytest.fixture(scope="module")
def many(world):
    """Values of which one is common, so that statistics of a text column would hold it."""
    name = world.make("many")
    world.dba.run(f"INSERT INTO {name} SELECT n, 'acme', CASE n % 3 WHEN 0 THEN 'common value' ELSE 'value '"
                  " || n END, 'n'"
                  f" FROM generate_series(1, {MANY}) n")
    return name


QUIET = {
    "analyze": ["ANALYZE {t}", "ANALYZE {t} (ssn)", "VACUUM ANALYZE {t}"],
    "vacuum": ["VACUUM {t}", "VACUUM FULL {t}", "CLUSTER {t} USING {t}_pkey"],
    "indexes": ["CREATE INDEX {t}_i ON {t} (tenant_id) INCLUDE (ssn)",
                "CREATE INDEX {t}_n ON {t} (id) WHERE ssn IS NOT NULL",
                "REINDEX TABLE {t}", "DROP INDEX {t}_i, {t}_n"],
    "constraints": ["ALTER TABLE {t} ADD CONSTRAINT c CHECK (cmk.is_sealed(ssn) OR ssn IS NULL) NOT VALID",
                    "ALTER TABLE {t} VALIDATE CONSTRAINT c", "ALTER TABLE {t} DROP CONSTRAINT c",
                    "ALTER TABLE {t} ALTER id TYPE bigint"],
    "prepare": ["PREPARE {t}_p AS SELECT * FROM {t} WHERE ssn = $1 ORDER BY ssn", "EXPLAIN EXECUTE {t}_p('value 7')",
                "PREPARE {t}_u AS UPDATE {t} SET ssn = $1 WHERE ssn = $2", "EXPLAIN EXECUTE {t}_u('a', 'b')"],
    "counting": ["SELECT count(*), count(ssn) FROM {t}", "SELECT id FROM {t} WHERE ssn IS NULL",
                 "SELECT bool_and(cmk.is_sealed(ssn)) FROM {t}"],
    "copies": ["CREATE TEMP TABLE {t}_c AS TABLE {t}", "DROP TABLE {t}_c", "SELECT length(cmk.envelope(ssn)) FROM {t}"],
    "deletes": ["BEGIN", "DELETE FROM {t} WHERE id > 1", "ROLLBACK"],
}
EXPLAINED = [
    "SELECT * FROM {t} WHERE ssn = 'value 7'", "SELECT * FROM {t} WHERE 'value 7' = ssn",
    "SELECT * FROM {t} WHERE ssn <> 'x'", "SELECT * FROM {t} WHERE ssn IN ('a', 'b')",
    "SELECT * FROM {t} WHERE ssn = ANY ('{{a,b,c,d,e,f,g,h,i,j}}')",
    "SELECT * FROM {t} WHERE ssn < 'x' AND lower(ssn) LIKE 'a%'",
    "SELECT * FROM {t} WHERE ssn = 'x'::text OR note = 'y'::varchar",
    "SELECT ssn, count(*) FROM {t} GROUP BY ssn ORDER BY ssn", "SELECT DISTINCT ssn FROM {t}",
    "SELECT * FROM {t} a JOIN {t} b ON a.ssn = b.ssn", "SELECT * FROM {t} WHERE ssn IN (SELECT note FROM {t})",
    "SELECT rank() OVER (ORDER BY ssn) FROM {t}", "SELECT max(ssn) FROM {t}",
    "INSERT INTO {t} VALUES (-1, 'acme', 'x')", "UPDATE {t} SET ssn = upper(ssn) WHERE ssn = 'x'",
    "DELETE FROM {t} WHERE ssn = 'x'",
]


@pytest.mark.parametrize("statements", QUIET.values(), ids=QUIET)
def test_maintenance_opens_nothing(world, many, statements):
    dba = world.connect(output="plaintext")
    before = world.kms.counters()
    with dba.counts():
        for sql in statements:
            dba.run(sql.format(t=many))
    assert world.kms.counters() == before


@pytest.mark.parametrize("table", ["many", "given.dim"])
@pytest.mark.parametrize("options", ["", "(VERBOSE, COSTS)"])
def test_planning_opens_nothing_even_where_the_key_is_dark(world, many, table, options):
    for session in (world.reader(), world.reader("nobody")):
        before = world.kms.counters()
        with session.counts():
            for sql in EXPLAINED:
                session.run(f"EXPLAIN {options} {sql.format(t=table)}")
        assert world.kms.counters() == before


def test_statistics_hold_no_value(world, dba, many):
    dba.run(f"ANALYZE {many}")
    values, commons, bounds, nulls, width, distinct = dba.row(
        "SELECT count(most_common_vals) + count(histogram_bounds) + count(most_common_elems) + count(correlation),"
        " max(most_common_vals::text), max(histogram_bounds::text), max(null_frac), max(avg_width), max(n_distinct)"
        " FROM pg_stats WHERE tablename = %s AND attname = 'ssn'", many,
    )
    assert (values, commons, bounds) == (0, None, None)
    assert nulls == 0 and 74 < width < 130 and distinct == -1
    for table in ("pg_statistic", "pg_statistic_ext_data"):
        assert dba.all(f"SELECT FROM {table} s WHERE s::text LIKE '%common value%'") == []


def test_extended_statistics_store_nothing_either(world, dba, many):
    name = unique("stat")
    dba.run(f"CREATE STATISTICS {name} (mcv, dependencies, ndistinct) ON ssn, note FROM {many}")
    try:
        with dba.counts():
            dba.run(f"ANALYZE {many}")
        assert dba.one("SELECT count(*) FROM pg_stats_ext WHERE statistics_name = %s AND most_common_vals IS NOT NULL",
                       name) == 0
    finally:
        dba.run(f"DROP STATISTICS {name}")
    dba.run(f"ANALYZE {many}")


# Indexes


@pytest.mark.parametrize("sql", [
    "CREATE INDEX ON {t} (ssn)", "CREATE UNIQUE INDEX ON {t} (ssn)", "CREATE INDEX ON {t} USING hash (ssn)",
    "CREATE INDEX ON {t} (tenant_id, ssn)", "ALTER TABLE {t} ADD UNIQUE (ssn)",
    "ALTER TABLE {t} ADD UNIQUE (tenant_id, ssn)",
    "CREATE TABLE {t}_r (s cmk_text PRIMARY KEY)",
    "CREATE INDEX CONCURRENTLY ON {t} (ssn)",
    "CREATE INDEX ON {t} (ssn DESC NULLS LAST) WHERE id > 5",
])
def test_no_index_is_built_in_the_order_of_the_plaintext(dba, many, sql):
    with fails("42809", "index_refused"):
        dba.run(sql.format(t=many))


@pytest.mark.parametrize("sql", ["CREATE INDEX ON {t} (lower(ssn))", "CREATE INDEX ON {t} (id) WHERE ssn = 'x'",
                                 "ALTER TABLE {t} ADD g text GENERATED ALWAYS AS (ssn || 'x') STORED"])
def test_an_expression_that_opens_is_not_immutable(dba, many, sql):
    with fails_with("42P17"):
        dba.run(sql.format(t=many))


# Parallel workers


def test_parallel_workers_give_the_same_rows(world, many):
    for output, start in (("plaintext", "value "), ("ciphertext", "cmk1:")):
        session = world.connect("app", output=output)
        session.stats()  # loads the library
        force = "debug_parallel_query" if session.connection.info.server_version >= 160000 else "force_parallel_mode"
        for setting in (f"{force} = on", "parallel_setup_cost = 0", "parallel_tuple_cost = 0",
                        "min_parallel_table_scan_size = 0",
                        "max_parallel_workers_per_gather = 2"):
            session.run(f"SET {setting}")
        for select in ("ssn", "format('%s', ssn)", "concat(ssn, '')", "to_jsonb(ssn) #>> '{}'"):
            assert session.one(f"SELECT {select} FROM {many} WHERE id = 7").startswith(start), select
            assert len(session.all(f"SELECT {select} FROM {many}")) == MANY
        assert session.one(f"SELECT count(*) FROM {many} WHERE ssn = 'common value'") == MANY // 3
        assert session.one(f"SELECT count(DISTINCT ssn) FROM {many}") == MANY - MANY // 3 + 1
        exported = session.copy_out(f"COPY (SELECT format('%s', ssn) FROM {many}) TO STDOUT").splitlines()
        assert len(exported) == MANY and all(line.startswith(b"cmk1:") for line in exported)


def test_a_parallel_query_may_be_the_first_statement_of_a_session_that_preloads_the_library(world, server, many):
    force = "debug_parallel_query" if world.dba.connection.info.server_version >= 160000 else "force_parallel_mode"
    server.execute(f"ALTER ROLE {world.roles['app']} SET {force} = on")
    try:
        with fails("F0000", "loaded_too_late"):
            world.connect("app").run(f"SELECT ssn FROM {many} WHERE id = 7")
        server.execute(f"ALTER ROLE {world.roles['app']} SET session_preload_libraries = cmk_encrypt")
        assert world.connect("app").one(f"SELECT ssn FROM {many} WHERE id = 7").startswith("cmk1:")
    finally:
        server.execute(f"ALTER ROLE {world.roles['app']} RESET ALL")


# Who lacks the right, or the key


def test_a_role_without_a_grant(world, many):
    nobody = world.connect("nobody")
    before = world.kms.counters()
    assert nobody.one(f"SELECT ssn FROM {many} WHERE id = 7").startswith("cmk1:")
    assert len(nobody.all(f"TABLE {many}")) == MANY
    with fails("42501", "no_grant"):  # for any tenant, whatever rows there are
        nobody.run(f"SELECT id FROM {many} WHERE ssn = 'x'")
    for sql in ("SELECT ssn::text FROM {t}", "SELECT id FROM {t} ORDER BY ssn",
                "SELECT ssn, count(*) FROM {t} GROUP BY ssn", "UPDATE {t} SET ssn = 'x' WHERE id = 7",
                "SELECT lower(ssn) FROM {t}"):
        with fails("42501", "no_grant", "acme"):
            nobody.run(sql.format(t=many))
    nobody.run(f"UPDATE {many} SET id = id WHERE id = 7")
    nobody.run("SET cmk_encrypt.output = plaintext")
    for sql in ("SELECT ssn FROM {t}", "UPDATE {t} SET id = id WHERE id = 7 RETURNING ssn",
                "SELECT to_jsonb(t) FROM {t} t"):
        with fails("42501", "no_grant", "acme"):
            nobody.run(sql.format(t=many))
    assert nobody.usable() and world.kms.counters() == before


def test_rows_of_a_dark_tenant(world, app, reader):
    assert len(app.all("TABLE given.dim")) == 2
    assert reader.all("SELECT ssn FROM given.dim WHERE tenant_id = 'acme'") == [("of acme",)]
    heard = hear(reader)
    assert reader.all("SELECT id FROM given.dim WHERE ssn = 'of acme'") == [(1,)]
    assert [severity for severity, *_ in heard] == ["WARNING"]
    assert heard[0][2].startswith("reason=key_disabled tenant=dark ")
    for sql in ("SELECT ssn FROM given.dim", "SELECT ssn::text FROM given.dim",
                "SELECT id FROM given.dim WHERE tenant_id = 'dark' AND ssn = 'x'",
                "SELECT id FROM given.dim ORDER BY ssn"):
        with fails("55000", "key_disabled", "dark"):
            reader.run(sql)
    app.run("UPDATE given.dim SET id = id")
    app.copy_out("COPY given.dim TO STDOUT")


def test_each_role_sees_its_own_after_set_role_and_in_definer_functions(world, server, dba, many):
    name, sql = unique("guest"), f"SELECT ssn FROM {many} WHERE id = 7"
    server.execute(f"CREATE ROLE {name} LOGIN NOINHERIT IN ROLE {world.roles['app']}")
    dba.run(f"CREATE FUNCTION {name}_f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT ssn::text FROM"
            f" {many} WHERE id = 7'")
    guest = world.reader(name)
    for _ in range(2):
        with fails("42501", "no_grant", "acme"):
            guest.run(sql)
        assert guest.one(f"SELECT {name}_f()") == "value 7"
        guest.run(f"SET ROLE {world.roles['app']}")
        assert guest.one(sql) == "value 7"
        guest.run("RESET ROLE")


def test_a_revoked_grant_closes_an_open_session(world, server, dba, many):
    role = unique("soon")
    server.execute(f"CREATE ROLE {role} LOGIN")
    dba.run("SELECT cmk.grant_access('acme', %s)", role)
    user = world.connect(role, output="plaintext")
    sql = f"SELECT ssn FROM {many} WHERE id = 7 AND ssn = 'value 7'"
    assert user.one(sql) == "value 7"
    dba.run("SELECT cmk.revoke_access('acme', %s)", role)
    with fails("42501", "no_grant"):
        user.run(sql)
    with fails("42501", "no_grant", "acme"):
        user.run(sql.replace(" AND ", " AND tenant_id = 'acme' AND "))


# One bad value


def test_try_text_gives_null_for_a_value_that_cannot_be_opened(world, dba, reader):
    table = world.make(unique("bad"), ROWS[:3])
    bad = armor(flip(envelopes(dba, table)[1], 8 * 70))
    dba.run(f'ALTER TABLE {table} DISABLE TRIGGER "{TRIGGER}"')
    dba.run("SET cmk_encrypt.input = envelope")
    dba.run(f"UPDATE {table} SET ssn = '{bad}' WHERE id = 1")
    dba.run(f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "{TRIGGER}"')
    with fails("39000", "not_authentic", "acme"):
        reader.run(f"SELECT ssn FROM {table}")
    assert reader.all(f"SELECT cmk.try_text(ssn) FROM {table} ORDER BY id") == [(None,), ("222",), ("222",)]
    assert reader.one("SELECT cmk.try_text(NULL)") is None
    with fails("42501", "no_grant", "bolt"):
        world.reader("ro").run(f"SELECT cmk.try_text(ssn) FROM {table} WHERE id = 2")
    with fails("55000", "key_disabled", "dark"):
        reader.run("SELECT cmk.try_text(ssn) FROM given.dim")
