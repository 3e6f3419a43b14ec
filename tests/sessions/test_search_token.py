"""cmk_search_token(): the token that a searchable column would store, for an index of an application's own."""

import pytest

from columns import dba, envelopes, opened, reader  # noqa: F401 (fixtures)
from searching import ids, index_key, index_keys, nodes, token, tokens, world  # noqa: F401 (fixtures)
from support import fails, fails_with, grant, unique

VALUES = ["", "x", "Anna@Example.COM", "日本語 🔐", "long " * 400, "cmk1:AAAA"]
LABEL = "patient.email"


@pytest.fixture
def app(world):
    return world.connect("app")


def test_it_is_the_documented_hash_under_the_tenants_index_key(world, dba, app):
    key, id = index_key(world, "acme"), index_keys(dba, "acme")["current"]
    for value in VALUES:
        assert app.one("SELECT cmk_search_token('acme', %s, %s)", value, LABEL) == id + token(key, LABEL, value)


@pytest.mark.parametrize("normalize, value, normalized", [
    (None, "Anna 1", "Anna 1"), ("lower", "Anna 1", "anna 1"), ("digits", "Anna 1", "1"), ("alnum", "Anna-1 ", "anna1"),
])
def test_it_normalizes_as_a_column_does(world, dba, app, normalize, value, normalized):
    key, id = index_key(world, "acme"), index_keys(dba, "acme")["current"]
    seen = app.one("SELECT cmk_search_token('acme', %s, %s, %s)", value, LABEL, normalize)
    assert seen == id + token(key, LABEL, normalized)
    table = world.make(unique("n"), [(1, "acme", value, "n")], columns=("ssn",), label=LABEL, searchable=True,
                       normalization=normalize)
    assert seen == b"".join(tokens(envelopes(dba, table)[1])[0])


def test_it_is_the_token_of_the_columns_envelopes(world, dba, app):
    table = world.make(unique("t"), [(n, ("acme", "bolt")[n % 2], value, "n") for n, value in enumerate(VALUES)],
                       columns=("ssn",), searchable=True)
    assert dba.one(f"SELECT count(*) FROM {table}") == len(VALUES)
    for id, tenant, value in world.reader().all(f"SELECT id, tenant_id, ssn FROM {table}"):
        stored = tokens(envelopes(dba, table)[id])
        assert b"".join(stored[0]) == app.one("SELECT cmk_search_token(%s, %s, %s)", tenant, value, f"{table}.ssn")


def test_tenant_label_and_value_each_change_it(app):
    calls = [("acme", "x", "a"), ("bolt", "x", "a"), ("acme", "y", "a"), ("acme", "x", "b")]
    seen = [app.one("SELECT cmk_search_token(%s, %s, %s)", *call) for call in calls]
    assert len(set(seen)) == 4 and {len(one) for one in seen} == {20}
    assert seen[0] == app.one("SELECT cmk_search_token('acme', 'x', 'a')")


@pytest.mark.parametrize("right", ["encrypt", "decrypt"])
def test_either_right_is_enough(world, server, dba, right):
    role = unique("role")
    server.execute(f"CREATE ROLE {role} LOGIN")
    session = world.connect(role)
    call = "SELECT cmk_search_token('acme', 'x', 'a')"
    with fails("42501", "no_grant", "acme"):
        session.run(call)
    other = "decrypt" if right == "encrypt" else "encrypt"
    grant(dba, "acme", role, **{other: False})
    assert len(session.one(call)) == 20
    with fails("42501", "no_grant", "bolt"):
        session.run(call.replace("acme", "bolt"))


def test_an_unknown_suspended_or_dark_tenant_is_an_error(app):
    for tenant, sqlstate, reason in (("nosuch", "42704", "unknown_tenant"), ("dark", "55000", "key_disabled"),
                                     ("paused", "55000", "tenant_suspended")):
        for function in ("cmk_search_token", "cmk_search_tokens"):
            with fails(sqlstate, reason, tenant):
                app.run(f"SELECT {function}(%s, 'x', 'a')", tenant)


def test_a_tenant_without_an_index_key_is_an_error(dba, app):
    dba.run("SELECT cmk.resume_tenant('late')")
    try:
        with fails("55000", "no_index_key", "late"):
            app.run("SELECT cmk_search_token('late', 'x', 'a')")
    finally:
        dba.run("SELECT cmk.suspend_tenant('late')")


def test_null_gives_null_for_a_value_and_is_refused_for_the_rest(app):
    assert app.one("SELECT cmk_search_token('acme', NULL, 'a')") is None
    for arguments in ("NULL, 'x', 'a'", "'acme', 'x', NULL"):
        with fails("22004", "null_argument"):
            app.run(f"SELECT cmk_search_token({arguments})")
    with fails("22023", "column_options"):
        app.run("SELECT cmk_search_token('acme', 'x', 'a', 'whatever')")


# An index of one's own


@pytest.fixture
def own(world, dba):
    """A table of the functions: ciphertext and token, with an index."""
    table = unique("own")
    dba.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant text, email bytea, email_token bytea)")
    dba.run(f"INSERT INTO {table} SELECT n, 'acme', cmk_encrypt_text('acme', 'user ' || n),"
            f" cmk_search_token('acme', 'user ' || n, '{LABEL}') FROM generate_series(1, 5000) n")
    dba.run(f"CREATE UNIQUE INDEX ON {table} (email_token)")
    dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    dba.run(f"ANALYZE {table}")
    return table


def test_an_index_of_ones_own_finds_the_row(app, own):
    sql = f"SELECT id FROM {own} WHERE email_token = (SELECT cmk_search_token('acme', %s, '{LABEL}'))"
    assert ids(app, sql, "user 77") == [77]
    assert ids(app, sql, "nobody") == []
    assert "Index Cond" in str(nodes(app, sql, "user 77"))
    with fails_with("23505"):
        app.run(f"INSERT INTO {own} VALUES (0, 'acme', 'x', cmk_search_token('acme', 'user 5', '{LABEL}'))")


def test_every_key_that_may_be_in_the_table_is_asked_for(world, app, own):
    several = (f"SELECT id FROM {own} WHERE email_token ="
               f" ANY ((SELECT cmk_search_tokens('acme', %s, '{LABEL}'))::bytea[])")
    assert ids(app, several, "user 77") == [77]
    assert "Index Cond" in str(nodes(app, several, "user 77"))
    assert app.one(f"SELECT cmk_search_tokens('acme', 'x', '{LABEL}')") == [
        app.one(f"SELECT cmk_search_token('acme', 'x', '{LABEL}')")]


def test_after_a_rotation_both_keys_tokens_are_given(world, dba):
    tenant = world.tenant(unique("rotated"))
    old = dba.one("SELECT cmk_search_token(%s, 'x', 'a')", tenant)
    dba.run("SELECT cmk.rotate_index_key(%s)", tenant)
    # The next key's token is in no row yet that was not written with both.
    assert dba.one("SELECT cmk_search_token(%s, 'x', 'a')", tenant) == old
    assert dba.one("SELECT cmk.finish_index_rotation(%s)", tenant) is True
    new = dba.one("SELECT cmk_search_token(%s, 'x', 'a')", tenant)
    assert new[:4] == index_keys(dba, tenant)["current"] and new != old
    assert sorted(dba.one("SELECT cmk_search_tokens(%s, 'x', 'a')", tenant)) == sorted([old, new])


def test_in_a_sub_select_it_costs_no_call_to_kms_while_planning(world, own):
    """STABLE, it would otherwise be computed for the planner's estimates."""
    arn = world.kms.key()
    tenant = world.tenant(unique("far"), "app", key=arn)
    world.dba.run("SELECT cmk.evict(%s)", tenant)
    session = world.connect("app")
    before = world.kms.calls(arn)
    sql = f"SELECT id FROM {own} WHERE email_token = (SELECT cmk_search_token('{tenant}', 'x', '{LABEL}'))"
    for _ in range(3):
        session.run(f"EXPLAIN {sql}")
    assert world.kms.calls(arn) == before
    assert ids(session, sql) == []
    assert world.kms.calls(arn) == before + 1


def test_it_opens_and_seals_nothing(app):
    with app.counts():
        app.run("SELECT cmk_search_token('acme', 'x', 'a'), cmk_search_tokens('acme', 'x', 'a')")


def test_its_volatility_and_rights_are_as_documented(dba):
    assert dba.all("SELECT DISTINCT provolatile::text, proleakproof, pronamespace::regnamespace::text FROM pg_proc"
                   " WHERE proname IN ('cmk_search_token', 'cmk_search_tokens')") == [("s", False, "pg_catalog")]
