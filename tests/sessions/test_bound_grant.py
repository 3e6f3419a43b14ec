"""A grant bound to the session: of all tenants that it names, only that of `cmk_encrypt.tenant` may be used."""

import contextlib

import psycopg
import pytest

from columns import dba, envelopes, opened  # noqa: F401 (fixtures)
from protected import Table
from searching import ACME, BOLT, by_index, ids, world  # noqa: F401 (fixtures)
from support import fails, unique

TENANTS = ("acme", "bolt")


@pytest.fixture
def bound(world):
    """A pooled application: a role that may do everything for every tenant, one at a time."""
    name = unique("pooled")
    world.roles["pooled"] = name
    world.server.execute(f"CREATE ROLE {name} LOGIN")
    world.dba.run("SELECT cmk.grant_access('*', %s, bound => true)", name)
    yield world.reader("pooled")
    world.dba.run("SELECT cmk.revoke_access('*', %s)", name)


@contextlib.contextmanager
def serving(session, tenant):
    """One transaction for a tenant, as a pooled application has it."""
    session.run("BEGIN")
    session.run("SELECT set_config('cmk_encrypt.tenant', %s, true)", tenant)
    try:
        yield
    except psycopg.Error:
        session.run("ROLLBACK")
        raise
    session.run("COMMIT")


@pytest.fixture(scope="module")
def table(world):
    """The rows 1 and 2 of acme, 3 and 4 of bolt."""
    rows = [(1, "acme", "one", None), (2, "acme", "two", None), (3, "bolt", "one", None), (4, "bolt", "two", None)]
    return world.make("bound_t", rows)


@pytest.fixture(scope="module")
def many(world):
    return world.many("bound_many")


@pytest.fixture(scope="module")
def envelope(world):
    """Of acme."""
    return world.dba.one("SELECT cmk_encrypt('acme', 'x')")


# Each door: what it does for acme

FUNCTIONS = {
    "encrypt text": "SELECT length(cmk_encrypt('acme', 'x'))",
    "encrypt bytea": "SELECT length(cmk_encrypt('acme', '\\x41'::bytea, 'aad'))",
    "decrypt": "SELECT cmk_decrypt('acme', %(envelope)s)",
    "decrypt text": "SELECT cmk_decrypt_text('acme', %(envelope)s)",
    "try decrypt": "SELECT cmk_try_decrypt('acme', %(envelope)s)",
    "try decrypt text": "SELECT cmk_try_decrypt_text('acme', %(envelope)s)",
    "search tokens": "SELECT count(cmk_search_token('acme', 'x', 'label'))",
    "warm": "SELECT cmk.warm('acme')",
    "renew": "SELECT length(cmk_internal.renewed(%(envelope)s::bytea, ''::bytea, 'acme'))",
    "renew, tenant of the envelope": "SELECT length(cmk_internal.renewed(%(envelope)s::bytea, ''::bytea))",
    "insert": "INSERT INTO {scratch} VALUES (1, 'acme', 'x') RETURNING id",
    "update": "UPDATE {table} SET ssn = 'changed' WHERE id = 1 RETURNING id",
    "read": "SELECT ssn FROM {table} WHERE id = 1",
    "cast": "SELECT ssn::text FROM {table} WHERE id = 1",
    "compare with plaintext": "SELECT id FROM {table} WHERE tenant_id = 'acme' AND ssn = 'one'",
    "compare rows": "SELECT count(*) FROM {table} a JOIN {table} b ON a.ssn < b.ssn WHERE a.id = 1 AND b.id = 2",
    "sort": "SELECT id FROM {table} WHERE tenant_id = 'acme' ORDER BY ssn",
    "group": "SELECT count(*) FROM {table} WHERE tenant_id = 'acme' GROUP BY ssn",
    "token index, tenant named": "SELECT id FROM {many} WHERE tenant_id = 'acme' AND ssn = 'value 7'",
    "token index, several": "SELECT id FROM {many} WHERE tenant_id = 'acme' AND ssn IN ('value 7', 'value 8')",
    "insert what is searchable": "INSERT INTO {many} VALUES (-9, 'acme', 'x', 'y') RETURNING id",
    "take another's envelope": "INSERT INTO {scratch} SELECT 1, 'bolt', ssn FROM {table} WHERE id = 1 RETURNING id",
}


@pytest.mark.parametrize("door", FUNCTIONS)
def test_every_door_is_shut_unless_the_session_names_the_tenant(world, bound, table, many, envelope, door):
    scratch = world.make(unique("scratch"))
    world.dba.run("GRANT USAGE ON SCHEMA cmk, cmk_internal TO PUBLIC")
    world.dba.run(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cmk TO {bound.role}")
    sql = FUNCTIONS[door].format(table=table, many=many, scratch=scratch)
    arguments = [{"envelope": envelope}] if "%(" in sql else []
    # The envelope belongs to acme, where the row is bolt's.
    refused = ("", "bolt", "acme ", "ACME") if "bolt" not in sql else ("", "bolt", "acme")
    for named in refused:
        with fails("42501", "tenant_mismatch") as caught, serving(bound, named):
            bound.connection.execute(sql, *arguments).fetchall()
        told = {"": "cause=unset", "acme ": 'session_tenant="acme "'}.get(named, f"session_tenant={named}")
        assert caught.value.diag.message_detail.endswith(told)
    if "bolt" not in sql:
        with serving(bound, "acme"):
            assert len(bound.connection.execute(sql, *arguments).fetchall()) > 0
            bound.run("ROLLBACK AND CHAIN")
    # Whoever isn't bound may, whatever the session says.
    app = world.reader()
    app.run("SET cmk_encrypt.tenant = bolt")
    if door not in ("warm", "renew, tenant of the envelope", "renew", "read"):
        app.run("BEGIN")
        app.connection.execute(sql, *arguments).fetchall()
        app.run("ROLLBACK")


def test_a_mismatch_asks_kms_nothing_and_is_not_forgiven(world, bound, kms, envelope):
    before = kms.total()
    with fails("42501", "tenant_mismatch", "dark"), serving(bound, "acme"):
        bound.one("SELECT cmk_try_decrypt_text('dark', %b)", envelope)
    assert kms.total() == before


def test_of_several_tenants_in_one_statement_those_of_others_fail(bound, table):
    with serving(bound, "acme"):
        assert bound.all(f"SELECT id, ssn FROM {table} WHERE tenant_id = 'acme' ORDER BY id") == [(1, "one"), (2, "two")]
    for sql in (f"SELECT id, ssn FROM {table} ORDER BY id", f"SELECT count(*) FROM {table} GROUP BY ssn::text",
                f"SELECT cmk_encrypt(tenant_id, 'x') FROM {table}",
                f"INSERT INTO {table} SELECT id + 10, tenant_id, 'x' FROM {table}"):
        with fails("42501", "tenant_mismatch", "bolt"), serving(bound, "acme"):
            bound.run(sql)
    assert bound.one(f"SELECT count(*) FROM {table}") == 4


def test_a_search_finds_the_sessions_tenant_only(bound, many):
    for tenant, id in (("acme", ACME(7)), ("bolt", BOLT(7))):
        with serving(bound, tenant):
            sql = f"SELECT id FROM {many} WHERE ssn = 'value 7'"
            by_index(bound, sql)
            assert ids(bound, sql) == [id]
            bound.run("SET LOCAL enable_indexscan = off")
            bound.run("SET LOCAL enable_bitmapscan = off")
            assert ids(bound, sql) == [id]
    # Without one, rows would be missing without a word.
    for scan in ("on", "off"):
        bound.run(f"SET enable_indexscan = {scan}")
        bound.run(f"SET enable_bitmapscan = {scan}")
        with fails("42501", "tenant_mismatch"):
            bound.all(f"SELECT id FROM {many} WHERE ssn = 'value 7'")


def test_a_search_by_grants_alone_where_some_are_bound(world, dba, bound, many):
    """One that isn't bound, for one tenant, leaves the others out of reach: that is an error, too."""
    sql = f"SELECT id FROM {many} WHERE ssn = 'value 7' ORDER BY id"
    dba.run("SELECT cmk.grant_access('acme', %s)", bound.role)
    with fails("42501", "tenant_mismatch"):
        bound.all(sql)
    # One for all makes the bound one meaningless, as cmk.check() says.
    group = unique("group")
    world.server.execute(f"CREATE ROLE {group}")
    dba.run(f"GRANT {group} TO {bound.role}")
    dba.run("SELECT cmk.grant_access('*', %s)", group)
    assert bound.all(sql) == [(ACME(7),), (BOLT(7),)]
    problems = dba.all("SELECT detail, fix FROM cmk.check() WHERE problem = 'bound_grant_without_effect'")
    assert [fix for detail, fix in problems if bound.role in detail] == [f"SELECT cmk.revoke_access('*', '{group}')"]
    for _, fix in problems:
        dba.run(fix)
    assert not dba.one("SELECT count(*) FROM cmk.check() WHERE problem = 'bound_grant_without_effect'")
    dba.run("SELECT cmk.revoke_access('acme', %s)", bound.role)
    with fails("42501", "tenant_mismatch"):
        bound.all(sql)


def test_a_statement_follows_the_setting_while_it_runs(bound, table):
    """A function changes the setting between two rows; a cursor is fetched from afterwards."""
    bound.run(
        "CREATE FUNCTION pg_temp.serve(tenant text) RETURNS text VOLATILE LANGUAGE sql"
        " AS $$SELECT pg_catalog.set_config('cmk_encrypt.tenant', $1, true)$$"
    )
    sql = (f"SELECT id, pg_temp.serve(CASE WHEN id < %s THEN 'acme' ELSE 'bolt' END), cmk_decrypt_text(tenant_id, e)"
           f" FROM (SELECT id, tenant_id, cmk_encrypt(tenant_id, 'x') AS e FROM {table} WHERE id = ANY (%s)"
           " ORDER BY id) t")
    sql = sql.replace("cmk_encrypt(tenant_id, 'x')", "(SELECT cmk_encrypt(tenant_id, 'x') FROM"
                      " pg_temp.serve(tenant_id))")
    with serving(bound, ""):
        assert [row[2] for row in bound.all(sql, 3, [1, 2, 3, 4])] == ["x"] * 4
    with fails("42501", "tenant_mismatch", "acme"), serving(bound, ""):
        bound.all(sql, 2, [1, 2, 3, 4])
    bound.run("BEGIN")
    bound.run("SET LOCAL cmk_encrypt.tenant = acme")
    bound.run(f"DECLARE c CURSOR FOR SELECT ssn::text FROM {table} WHERE tenant_id = 'acme' AND ssn > '' ORDER BY id")
    assert bound.all("FETCH 1 FROM c") == [("one",)]
    bound.run("SET LOCAL cmk_encrypt.tenant = bolt")
    with fails("42501", "tenant_mismatch", "acme"):
        bound.all("FETCH 1 FROM c")
    bound.run("ROLLBACK")


def test_a_comparison_keeps_no_answer_for_another_tenant(bound, many):
    """Tokens of a search are kept from row to row, but not beyond the setting that allowed them."""
    for setting in ("enable_indexscan", "enable_bitmapscan"):
        bound.run(f"SET {setting} = off")
    bound.run("BEGIN")
    bound.run("SET LOCAL cmk_encrypt.tenant = acme")
    bound.run(f"DECLARE c CURSOR FOR SELECT id FROM {many} WHERE tenant_id = 'acme' AND ssn IN ('value 7', 'value 9')")
    assert bound.all("FETCH 1 FROM c") == [(ACME(7),)]
    bound.run("SET LOCAL cmk_encrypt.tenant = bolt")
    with fails("42501", "tenant_mismatch", "acme"):
        bound.all("FETCH 1 FROM c")
    bound.run("ROLLBACK")


# The pool


def test_what_a_pool_does_between_clients_leaves_no_tenant_behind(bound, envelope):
    def refused(tenant="acme"):
        with fails("42501", "tenant_mismatch", tenant):
            bound.one("SELECT cmk_decrypt_text(%s, %b)", tenant, envelope)

    with serving(bound, "acme"):
        assert bound.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"
    refused()
    for clear in ("RESET cmk_encrypt.tenant", "RESET ALL", "DISCARD ALL"):
        bound.run("SET cmk_encrypt.tenant = acme")
        assert bound.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"
        bound.run(clear)
        refused()
    # What is rolled back to a savepoint counts no longer.
    bound.run("BEGIN")
    bound.run("SET LOCAL cmk_encrypt.tenant = bolt")
    bound.run("SAVEPOINT s")
    bound.run("SET LOCAL cmk_encrypt.tenant = acme")
    assert bound.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"
    bound.run("ROLLBACK TO s")
    refused()
    bound.run("ROLLBACK")


def test_a_prepared_statement_of_the_pool(bound, table):
    bound.run(f"PREPARE p AS SELECT ssn FROM {table} WHERE id = $1")
    for _ in range(7):
        for tenant, id, other in (("acme", 1, 3), ("bolt", 3, 1)):
            with serving(bound, tenant):
                assert bound.one(f"EXECUTE p({id})") == "one"
            with fails("42501", "tenant_mismatch"), serving(bound, tenant):
                bound.one(f"EXECUTE p({other})")


# Who is bound


def test_a_second_grant_frees_the_role_and_an_assumed_role_has_its_own(world, dba, bound, envelope):
    read = ("SELECT cmk_decrypt_text('acme', %b)", envelope)
    other = unique("other")
    world.server.execute(f"CREATE ROLE {other}")
    dba.run("SELECT cmk.grant_access('acme', %s)", other)
    with fails("42501", "tenant_mismatch"):
        bound.one(*read)
    dba.run(f"GRANT {other} TO {bound.role}")
    assert bound.one(*read) == "x"
    dba.run(f"REVOKE {other} FROM {bound.role}")
    with fails("42501", "tenant_mismatch"):
        bound.one(*read)
    # Without inheriting, it takes SET ROLE.
    dba.run(f"ALTER ROLE {bound.role} NOINHERIT")
    dba.run(f"GRANT {other} TO {bound.role}")
    with fails("42501", "tenant_mismatch"):
        bound.one(*read)
    bound.run(f"SET ROLE {other}")
    assert bound.one(*read) == "x"
    bound.run("RESET ROLE")
    # A function of somebody who may, and a view, which runs its functions as the caller.
    owner = world.roles["app"]
    dba.run(f"CREATE FUNCTION given.peek(bytea) RETURNS text LANGUAGE sql SECURITY DEFINER AS"
            " $$SELECT pg_catalog.cmk_decrypt_text('acme', $1)$$")
    dba.run(f"ALTER FUNCTION given.peek(bytea) OWNER TO {owner}")
    dba.run("CREATE TABLE given.sealed AS SELECT cmk_encrypt('acme', 'x') AS e")
    dba.run("CREATE VIEW given.peeking AS SELECT cmk_decrypt_text('acme', e) AS clear FROM given.sealed")
    dba.run(f"GRANT SELECT ON given.peeking TO {bound.role}")
    assert bound.one("SELECT given.peek(%b)", envelope) == "x"
    with fails("42501", "tenant_mismatch"):
        bound.one("SELECT clear FROM given.peeking")
    # A function with a setting of its own is for that tenant.
    bound.run("CREATE FUNCTION pg_temp.of_acme(bytea) RETURNS text LANGUAGE sql SET cmk_encrypt.tenant = 'acme' AS"
              " $$SELECT pg_catalog.cmk_decrypt_text('acme', $1)$$")
    assert bound.one("SELECT pg_temp.of_acme(%b)", envelope) == "x"
    with fails("42501", "tenant_mismatch"):
        bound.one(*read)
    dba.run("DROP VIEW given.peeking")
    dba.run("DROP TABLE given.sealed")
    dba.run("DROP FUNCTION given.peek")


def test_a_member_of_a_bound_role_is_bound(world, dba, bound, envelope):
    member = unique("member")
    world.server.execute(f"CREATE ROLE {member} LOGIN IN ROLE {bound.role}")
    session = world.connect(member)
    with fails("42501", "tenant_mismatch"):
        session.one("SELECT cmk_decrypt_text('acme', %b)", envelope)
    session.run("SET cmk_encrypt.tenant = acme")
    assert session.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"


def test_a_superuser_with_a_bound_grant_is_bound_and_can_free_itself(world, dba, bound, envelope):
    dba.run(f"ALTER ROLE {bound.role} SUPERUSER")
    with fails("42501", "tenant_mismatch"):
        bound.one("SELECT cmk_decrypt_text('acme', %b)", envelope)
    bound.run(f"SET ROLE {world.roles['app']}")
    assert bound.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"


def test_a_cursor_that_a_bound_role_declared_stays_bound(world, dba, bound, table, envelope):
    """A function of a role that isn't bound fetches from it."""
    dba.run("CREATE FUNCTION given.drain(c refcursor) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS"
            " $$DECLARE t text; BEGIN FETCH c INTO t; RETURN t; END$$")
    dba.run(f"ALTER FUNCTION given.drain(refcursor) OWNER TO {world.roles['app']}")
    for named, works in (("acme", True), ("bolt", False), ("", False)):
        bound.run("BEGIN")
        bound.run("SELECT set_config('cmk_encrypt.tenant', %s, true)", named)
        bound.run(f"DECLARE c CURSOR FOR SELECT ssn::text FROM {table} WHERE id = 1")
        if works:
            assert bound.one("SELECT given.drain('c')") == "one"
        else:
            with fails("42501", "tenant_mismatch", "acme"):
                bound.one("SELECT given.drain('c')")
        bound.run("ROLLBACK")
    dba.run("DROP FUNCTION given.drain")


# Granting


def test_a_grant_is_bound_freed_and_bound_again(world, dba, envelope):
    role = unique("role")
    world.server.execute(f"CREATE ROLE {role} LOGIN")
    session = world.connect(role)

    def change(arguments, expected):
        dba.run(f"SELECT cmk.grant_access('acme', '{role}'{arguments})")
        found = dba.row("SELECT encrypt, decrypt, bound FROM cmk.access WHERE role::text = %s", role)
        assert found == expected
        if found[2] or not found[1]:
            with fails("42501", "tenant_mismatch" if found[1] else "no_grant"):
                session.one("SELECT cmk_decrypt_text('acme', %b)", envelope)
        else:
            assert session.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"
        return dba.row("SELECT before, after FROM cmk.audit_event WHERE act = 'grant_access' AND tenant = 'acme'"
                       " ORDER BY number DESC LIMIT 1")

    change(", decrypt => false, bound => true", (True, False, True))
    # What a later call doesn't mention stays: a script that is run again frees nobody.
    change("", (True, True, True))
    before, after = change(", bound => false", (True, True, False))
    assert (before["bound"], after["bound"]) == (True, False)
    change("", (True, True, False))
    change(", bound => true", (True, True, True))
    dba.run(f"SELECT cmk.revoke_access('acme', '{role}', decrypt => false)")
    assert dba.row("SELECT encrypt, decrypt, bound FROM cmk.access WHERE role::text = %s", role) == (False, True, True)
    report = dba.one("SELECT cmk.audit_report('acme')")
    assert [grant["bound"] for grant in report["grants"] if grant["role"] == role] == [True]
    dba.run(f"SELECT cmk.revoke_access('acme', '{role}')")
    with fails("42501", "no_grant"):
        session.one("SELECT cmk_decrypt_text('acme', %b)", envelope)


def test_a_grant_that_becomes_bound_reaches_warm_sessions(world, dba, envelope):
    role = unique("role")
    world.server.execute(f"CREATE ROLE {role} LOGIN")
    dba.run("SELECT cmk.grant_access('acme', %s)", role)
    session = world.connect(role)
    assert session.one("SELECT cmk_decrypt_text('acme', %b)", envelope) == "x"
    dba.run("SELECT cmk.grant_access('acme', %s, bound => true)", role)
    with fails("42501", "tenant_mismatch"):
        session.one("SELECT cmk_decrypt_text('acme', %b)", envelope)


# What works on whole tables


def test_work_on_a_whole_table_does_the_sessions_tenant(world, dba, bound):
    """cmk.reencrypt leaves the values of others, and says why; the table is the role's own."""
    dba.run(f"GRANT CREATE ON SCHEMA public TO {bound.role}")
    table = Table(bound, unique("own"))
    bound.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant_id text, ssn text)")
    table.protect(tenant_column="tenant_id")
    for id, tenant in ((1, "acme"), (2, "bolt")):
        with serving(bound, tenant):
            bound.run(f"INSERT INTO {table} VALUES ({id}, '{tenant}', 'x')")
    before = envelopes(dba, table.name)
    for tenant in TENANTS:
        dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
    bound.run("SET cmk_encrypt.tenant = acme")
    assert bound.one(f"SELECT cmk.sealed_for(ssn) FROM {table} WHERE id = 1") == "acme"
    assert bound.one(f"SELECT cmk.sealed_for(ssn) FROM {table} WHERE id = 2") == "bolt"  # its name is no secret
    bound.run("CALL cmk.reencrypt(%s, 'ssn', pause => 0)", table.name)
    after = envelopes(dba, table.name)
    assert after[1] != before[1] and after[2] == before[2]
    left = dba.all('SELECT key, reason FROM cmk.reencrypt_failures WHERE "table" = %s::regclass', table.name)
    assert left == [({"tenant": "bolt"}, "tenant_mismatch")]
    bound.run("SET cmk_encrypt.tenant = bolt")
    bound.run("CALL cmk.reencrypt(%s, 'ssn', pause => 0, only_tenant => 'bolt')", table.name)
    assert envelopes(dba, table.name)[2] != before[2]
    bound.run("RESET cmk_encrypt.tenant")
    bound.run(f"DROP TABLE {table}")
