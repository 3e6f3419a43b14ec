"""The cache: one unwrap a tenant and backend, bounded in number and in time."""

import time

import pytest

from server import until
from support import CANARY, fails, grant

TENANTS = 1000


def stats(session, column):
    return session.one(f"SELECT {column} FROM cmk.cache_stats")


def test_many_rows_of_one_tenant_cost_one_call(app, kms, tenant):
    made = tenant()
    before = kms.calls(made.key_uri)
    assert app.one(
        "SELECT count(cmk_decrypt(%s, cmk_encrypt(%s, %b))) FROM generate_series(1, 20000)",
        made.name, made.name, CANARY,
    ) == 20_000
    assert kms.calls(made.key_uri) == before + 1


@pytest.fixture(scope="module")
def thousand(server, kms_process):
    """A database with a thousand tenants under one key; who is superuser may use them."""
    server.execute("CREATE DATABASE thousand")
    server.execute("CREATE EXTENSION cmk_encrypt", "thousand")
    arn = kms_process.key()
    registered = server.execute(
        f"SELECT count(cmk.register_tenant('t' || n, '{arn}')) FROM generate_series(1, {TENANTS}) n", "thousand"
    )
    assert registered == [(TENANTS,)]
    server.execute("SELECT cmk.grant_access('*', 'postgres')", "thousand")
    yield arn
    server.execute("DROP DATABASE thousand WITH (FORCE)")


def use(session, first, last):
    return session.one(
        "SELECT count(*) FROM generate_series(%s::int, %s) n WHERE cmk_decrypt('t' || n, cmk_encrypt('t' || n, %b)) = %b",
        first, last, CANARY, CANARY,
    )


def test_a_thousand_tenants_in_one_query_cost_a_thousand_calls_and_the_next_query_none(session, kms, thousand):
    user = session(dbname="thousand")
    before = kms.calls(thousand)
    assert use(user, 1, TENANTS) == TENANTS
    assert kms.calls(thousand) == before + TENANTS
    assert use(user, 1, TENANTS) == TENANTS
    assert kms.calls(thousand) == before + TENANTS
    assert user.row("SELECT entries, kms_calls, kms_failures, dropped_for_room FROM cmk.cache_stats") == (1000, 1000, 0, 0)
    assert user.one("SELECT count(*) FROM cmk.cache") == TENANTS


def test_a_cache_of_n_never_holds_more(server, session, kms, thousand):
    with server.settings(cache_size=10):
        user = session(dbname="thousand")
        assert stats(user, "capacity") == 10
        for n in range(1, 101):
            user.encrypt(f"t{n}")
            assert stats(user, "entries") == user.one("SELECT count(*) FROM cmk.cache") == min(n, 10)
        before = kms.calls(thousand)
        assert use(user, 91, 100) == 10, "the most recently used are the ones kept"
        assert kms.calls(thousand) == before
        assert use(user, 1, 10) == 10
        assert kms.calls(thousand) == before + 10
        assert stats(user, "dropped_for_room") == 100


def test_a_smaller_cache_size_takes_effect_in_a_warm_session(server, session, thousand):
    user = session(dbname="thousand")
    use(user, 1, 50)
    assert stats(user, "entries") == 50
    with server.settings(cache_size=5):
        use(user, 60, 60)
        assert stats(user, "entries") <= 5


def test_a_backend_stops_decrypting_within_the_ttl_of_the_owners_act(server, app, kms, tenant):
    made = tenant()
    with server.settings(cache_ttl="1s"):
        envelope = app.encrypt(made)
        kms.state(made.key_uri, "Disabled")
        began = time.monotonic()
        served = 0
        with fails("55000", "key_disabled", made):
            while time.monotonic() - began < 1.2:
                app.decrypt(made, envelope)
                served += 1
        assert served > 10, "until then the cache serves"


def test_an_outage_is_bridged_from_the_cache_until_the_ttl_and_no_longer(server, app, kms, tenant):
    made = tenant()
    with server.settings(cache_ttl="1s", kms_max_attempts=1):
        envelope = app.encrypt(made)
        began = time.monotonic()
        with kms.fault("status", status=500, code="KMSInternalException"):
            served = 0
            with fails("58000", "kms_server_error", made):
                while time.monotonic() - began < 1.2:
                    assert app.decrypt(made, envelope) == CANARY
                    served += 1
            assert served > 10
            assert time.monotonic() - began > 0.8


def test_a_shorter_ttl_applies_to_keys_that_are_cached_already(server, app, kms, tenant):
    made = tenant()
    envelope = app.encrypt(made)
    before = kms.calls(made.key_uri)
    with server.settings(cache_ttl="1s"):
        def asked_again():
            return app.decrypt(made, envelope) and kms.calls(made.key_uri) > before
        until(asked_again, timeout=2, what="a new unwrap")


def test_use_does_not_prolong_the_life_of_a_cached_key(server, app, kms, tenant):
    made = tenant()
    with server.settings(cache_ttl="1s"):
        envelope = app.encrypt(made)
        before, began = kms.calls(made.key_uri), time.monotonic()
        while time.monotonic() - began < 2.5:
            app.decrypt(made, envelope)
        # A busy machine may let the last one take long.
        seconds = time.monotonic() - began
        assert 2 <= kms.calls(made.key_uri) - before <= seconds + 1


@pytest.fixture
def two_versions(dba, app, tenant):
    """A tenant with two data keys, of which `app` has only the first in its cache."""
    made = tenant()
    first = app.encrypt(made)
    dba.run("SELECT cmk.rotate_tenant(%s)", made.name)
    grant(dba, made, "postgres")
    return made, first, dba.encrypt(made)


def test_a_revocation_seen_on_one_data_key_purges_the_others_at_once(app, kms, two_versions):
    made, first, second = two_versions
    assert app.decrypt(made, first) == CANARY
    kms.state(made.key_uri, "Disabled")
    assert app.decrypt(made, first) == CANARY, "not yet known"
    for envelope in (second, first):
        with fails("55000", "key_disabled", made):
            app.decrypt(made, envelope)


def test_an_outage_seen_on_one_data_key_leaves_the_others_in_use(server, app, kms, two_versions):
    made, first, second = two_versions
    with server.settings(kms_max_attempts=1), kms.fault("throttle", arn=made.key_uri):
        with fails("53000", "kms_throttled", made):
            app.decrypt(made, second)
        assert app.decrypt(made, first) == CANARY


def test_hits_misses_and_failures_are_counted(dba, kms, tenant):
    made = tenant()
    grant(dba, made, "postgres")
    columns = "hits, misses, kms_calls, kms_failures"
    before = dba.row(f"SELECT {columns} FROM cmk.cache_stats")
    envelope = dba.encrypt(made)
    for _ in range(5):
        dba.decrypt(made, envelope)
    kms.deny(made.key_uri)
    dba.run("SELECT cmk.evict(%s)", made.name)
    with fails("55000", "key_access_denied", made):
        dba.decrypt(made, envelope)
    after = dba.row(f"SELECT {columns} FROM cmk.cache_stats")
    assert [new - old for new, old in zip(after, before)] == [5, 2, 2, 1]


def test_the_memory_of_cached_keys_is_locked_where_the_system_allows(dba, tenant):
    made = tenant()
    grant(dba, made, "postgres")
    dba.encrypt(made)
    locked = next(
        int(line.split()[1]) for line in open(f"/proc/{dba.pid}/status") if line.startswith("VmLck:")
    )
    assert stats(dba, "memory_locked") == (locked > 0)
