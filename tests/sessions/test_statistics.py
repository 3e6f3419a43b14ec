"""ANALYZE, by hand and by autovacuum, of tables with expressions that open values: nothing is opened or stored, and
the statistics of the table are made."""

import pytest

from server import until
from support import fails, grant, unique

EXPRESSIONS = {
    "cmk_decrypt": "cmk_decrypt('{t}', sealed)",
    "cmk_decrypt_text": "cmk_decrypt_text('{t}', sealed)",
    "cmk_try_decrypt": "cmk_try_decrypt('{t}', sealed)",
    "cmk_try_decrypt_text": "cmk_try_decrypt_text('{t}', sealed, forgive => '{{not_an_envelope}}')",
    "in an expression": "lower(cmk_decrypt_text('{t}', sealed))",
    "a cast of the result": "length(cmk_decrypt_text('{t}', sealed))",
    "a wrapper": "opened(sealed)",
    "a cast of a protected column": "ssn::text",
    "what takes text": "lower(ssn)",
    "varchar": "ssn::varchar",
    "bytea": "photo::bytea",
    "jsonb": "doc::jsonb",
    "a field": "doc ->> 'a'",
    "try_text": "cmk.try_text(ssn)",
}
SECRET = "common plaintext"


def make(dba, tenant):
    table = unique("patient")
    dba.run(f"CREATE TABLE {table} (id int, tenant text, sealed bytea, ssn text, photo bytea, doc jsonb)")
    for column in ("ssn", "photo", "doc"):
        dba.run("SELECT cmk.protect_column(%s, %s, tenant_column => 'tenant')", table, column)
    dba.run(f"INSERT INTO {table} SELECT n, '{tenant}', cmk_encrypt_text('{tenant}', '{SECRET}'), '{SECRET}', '{SECRET}',"
            f" '{{\"a\": \"{SECRET}\"}}' FROM generate_series(1, 300) n")
    # Nothing that opens, among what does
    dba.run(f"INSERT INTO {table} VALUES (0, '{tenant}', 'garbage')")
    return table


@pytest.fixture
def patient(dba, local_tenant):
    tenant = local_tenant(to=(dba,))
    return tenant, make(dba, tenant)


def stored_anywhere(dba):
    digits = SECRET.encode().hex()
    return [name for name in ("pg_statistic", "pg_statistic_ext_data")
            if dba.all(f"SELECT FROM {name} s WHERE s::text LIKE '%%{SECRET}%%' OR s::text LIKE '%%{digits}%%'")]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_that_opens_values_leaves_the_statistics_of_its_table(dba, patient, expression):
    tenant, table = patient
    of = EXPRESSIONS[expression].format(t=tenant).replace("opened(", f"{table}_opened(")
    dba.run(f"CREATE FUNCTION {table}_opened(v bytea) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
            f" $$ BEGIN RETURN cmk_decrypt_text('{tenant}', v); END $$")
    dba.run(f"CREATE STATISTICS {table}_s ON ({of}) FROM {table}")
    before = dba.one("SELECT opens FROM cmk.column_stats()")
    dba.run(f"ANALYZE {table}")
    assert dba.one("SELECT opens FROM cmk.column_stats()") == before
    assert dba.one("SELECT count(*) FROM pg_stats WHERE tablename = %s", table) == 6
    assert dba.one("SELECT n_distinct FROM pg_stats WHERE tablename = %s AND attname = 'id'", table) == -1
    assert dba.one("SELECT null_frac FROM pg_stats_ext_exprs WHERE statistics_name = %s", f"{table}_s") == 1
    assert stored_anywhere(dba) == []
    dba.run(f"DROP TABLE {table}")


def test_a_tenant_whose_key_is_away_or_who_is_suspended_changes_nothing(dba, tenant, kms):
    made = tenant(to=(dba,))
    table = make(dba, made)
    dba.run(f"CREATE STATISTICS {table}_s ON (cmk_decrypt_text('{made}', sealed)), (ssn::text) FROM {table}")
    kms.state(made.key_uri, "Disabled")
    dba.run("SELECT cmk.evict(%s)", made.name)
    calls = kms.counters()
    dba.run(f"ANALYZE {table}")
    dba.run("SELECT cmk.suspend_tenant(%s)", made.name)
    dba.run(f"VACUUM (ANALYZE) {table}")
    assert kms.counters() == calls
    assert dba.one("SELECT count(*) FROM pg_stats WHERE tablename = %s", table) == 6
    dba.run(f"DROP TABLE {table}")


@pytest.mark.parametrize("kinds", ["mcv", "ndistinct", "dependencies", "mcv, ndistinct, dependencies"])
@pytest.mark.parametrize("column", ["ssn", "photo", "doc"])
def test_a_statistics_object_of_a_protected_column_is_left_out_with_a_warning(dba, patient, kinds, column):
    _, table = patient
    dba.run(f"CREATE STATISTICS {table}_s ({kinds}) ON id, {column} FROM {table}")
    heard = []
    dba.connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    dba.run(f"ANALYZE {table}")
    assert heard == [
        f'statistics object "public.{table}_s" could not be computed for relation "public.{table}"']
    assert {name for (name,) in dba.all("SELECT attname FROM pg_stats WHERE tablename = %s", table)} >= {
        "id", "tenant", "sealed"}
    assert stored_anywhere(dba) == []
    dba.run(f"DROP STATISTICS {table}_s")
    dba.run(f"ANALYZE {table}")
    assert dba.one("SELECT count(*) FROM pg_stats WHERE tablename = %s", table) == 6
    dba.run(f"DROP TABLE {table}")


@pytest.mark.parametrize("opens", ["cmk_decrypt_text('{t}', sealed)", "ssn::text", "photo::bytea"])
def test_what_would_store_the_plaintext_is_refused_as_before(dba, patient, opens):
    tenant, table = patient
    dba.run(f"DELETE FROM {table} WHERE id = 0")
    dba.run(f"CREATE MATERIALIZED VIEW {table}_m AS SELECT {opens.format(t=tenant)} AS v FROM {table} WITH NO DATA")
    with fails("42501", "security_restricted_operation"):
        dba.run(f"REFRESH MATERIALIZED VIEW {table}_m")
    dba.run(f"CREATE FUNCTION {table}_f(r {table}) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
            f" $$ BEGIN RETURN (SELECT {opens.format(t=tenant)} FROM (SELECT r.*) s); END $$")
    with fails("42501", "security_restricted_operation"):
        dba.run(f"CREATE INDEX ON {table} ({table}_f({table}.*))")
    dba.run(f"DROP TABLE {table} CASCADE")


def test_autovacuum_analyzes_such_a_table(make_server, session):
    """Also where nobody tells what a process is doing."""
    server = make_server({"autovacuum_naptime": "1s", "track_activities": "off"})
    server.make_local_key("auto")
    dba = session(dbname="postgres", on=server)
    dba.run("CREATE EXTENSION cmk_encrypt")
    dba.run("SELECT cmk.register_tenant('acme', 'local:auto')")
    grant(dba, "acme", "postgres")
    table = make(dba, "acme")
    dba.run(f"CREATE STATISTICS {table}_s ON (cmk_decrypt_text('acme', sealed)), (ssn::text) FROM {table}")
    dba.run(f"ALTER TABLE {table} SET (autovacuum_analyze_threshold = 1)")
    dba.run(f"INSERT INTO {table} SELECT n, 'acme' FROM generate_series(1, 300) n")
    until(lambda: dba.one("SELECT last_autoanalyze FROM pg_stat_user_tables WHERE relname = %s", table), 20,
          "autovacuum's ANALYZE")
    assert dba.one("SELECT count(*) FROM pg_stats WHERE tablename = %s", table) == 6
    assert "security_restricted_operation" not in server.log.read_text()
    server.stop("immediate")
