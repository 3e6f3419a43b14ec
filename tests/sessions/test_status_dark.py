"""cmk.status says since when a tenant is dark, also after activation, a restart and an outage, and who would warn."""

import time
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from crowd import READ
from drill import Drill
from server import until
from support import CANARY, Tenant, fails, unique
from test_status import connect, drill, either, now, private, shared, status  # noqa: F401 (fixtures)
from watched import Watched, import_material, running

NOTHING = timedelta(0)


def dark_within(session, tenant):
    return session.one("SELECT dark_within FROM cmk.revocation_bound(%s)", tenant.name)


# Of a tenant's key


def test_a_tenant_is_dark_from_the_refusal_on_and_light_again_when_kms_unwraps(either, connect, kms):
    tenant, user = either.tenant(), connect(either)
    assert user.one(READ, tenant.name) == CANARY
    assert status(user, tenant, "dark_since") == (None,)
    kms.state(tenant.key_uri, "Disabled")
    either.evict(tenant)
    begin = now(user)
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    assert status(user, tenant, f"dark_since BETWEEN '{begin}' AND clock_timestamp(), dark_since = since") == (True, True)
    kms.state(tenant.key_uri, "Enabled")
    until(lambda: user.one("SELECT cmk_try_decrypt(tenant, sealed, '', '{key_disabled}') IS NOT NULL"
                           " FROM customer WHERE tenant = %s", tenant.name), what="the key")
    assert status(user, tenant, "dark_since") == (None,)


def test_an_outage_is_dark_only_when_the_last_copy_is_gone(drill, connect, kms):
    with drill.server.settings(cache_ttl="2s"):
        tenant, user = drill.tenant(), connect(drill)
        assert user.one(READ, tenant.name) == CANARY
        warm_until = user.one("SELECT copies_until FROM cmk.revocation_bound(%s)", tenant.name)
        with kms.fault("status", arn=tenant.key_uri, status=500):
            # The soft TTL comes first: somebody is refused while the copy serves.
            until(lambda: (user.one(READ, tenant.name), status(user, tenant, "key_state"))[1] == ("unreachable",),
                  what="a refused refresh")
            assert status(user, tenant, "dark_since") == (None,), "what is at hand serves"
            until(lambda: status(user, tenant, "dark_since") != (None,), 4, "the end of the last copy")
            dark, since = status(user, tenant, "dark_since, since")
            assert abs(dark - warm_until) < timedelta(milliseconds=50) and since < dark
            with fails("58000", "kms_server_error", tenant):
                user.one(READ, tenant.name)


@pytest.mark.parametrize("state", ["suspended", "pending", "shredded"])
def test_a_state_of_the_tenant_leaves_no_bound(either, connect, state):
    tenant, user = Tenant(unique("tenant"), either.kms.key()), connect(either)
    user.run("SELECT cmk.register_tenant(%s, %s, activate => %s)", tenant.name, tenant.key_uri, state != "pending")
    begin = now(user)
    if state != "pending":
        user.encrypt(tenant)
        user.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    if state == "shredded":
        user.run("UPDATE cmk.tenant SET state = 'shredded' WHERE tenant = %s", tenant.name)
    assert dark_within(user, tenant) == NOTHING
    dark = status(user, tenant, f"dark_since BETWEEN '{begin}' AND clock_timestamp()")
    assert dark == ((None,) if state == "pending" else (True,)), "a pending tenant has no values"
    if state == "suspended":
        user.run("SELECT cmk.resume_tenant(%s)", tenant.name)
        assert status(user, tenant, "dark_since") == (None,)


def test_a_revoked_tenant_has_no_bound_though_a_sleeping_session_has_a_copy(drill, connect, kms):
    tenant, sleeper, user = drill.tenant(), connect(drill), connect(drill)
    assert sleeper.one(READ, tenant.name) == CANARY
    assert NOTHING < dark_within(user, tenant)
    kms.state(tenant.key_uri, "Disabled")
    # The sleeper keeps its copy until it looks.
    drill.dba.run("SELECT cmk.evict(%s)", tenant.name)
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    bound = "dark_within, copies_until > clock_timestamp(), holders, worst_case"
    assert user.row(f"SELECT {bound} FROM cmk.revocation_bound(%s)", tenant.name) == (
        NOTHING, True, 1, timedelta(seconds=299))
    with fails("55000", "key_disabled", tenant):
        sleeper.one(READ, tenant.name)


def test_what_one_session_knows_is_no_bound_for_others(private, connect, kms):
    tenant, user = private.tenant(), connect(private)
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    assert dark_within(user, tenant) == timedelta(seconds=299)


# After activation


def test_what_was_refused_while_a_tenant_was_pending_is_past_when_it_is_active(either, connect, kms):
    """Also if it became active in a transaction whose other changes keep the news of KMS to itself."""
    tenant, user = Tenant(unique("tenant"), either.kms.key()), connect(either)
    user.run("SELECT cmk.register_tenant(%s, %s, activate => false)", tenant.name, tenant.key_uri)
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        user.run("SELECT cmk.activate_tenant(%s)", tenant.name)
    assert status(user, tenant, "tenant_state, key_state, reason, dark_since") == (
        "pending", "revoked", "key_disabled", None)
    kms.state(tenant.key_uri, "Enabled")
    time.sleep(0.25)  # the failure is remembered
    with user.connection.transaction():
        user.run("SELECT cmk.suspend_tenant(%s)", either.tenant().name)
        user.run("SELECT cmk.activate_tenant(%s)", tenant.name)
    assert status(user, tenant, "tenant_state, reason, dark_since") == ("active", None, None)
    assert status(connect(either), tenant, "coalesce(key_state, 'usable'), reason, since, dark_since") == (
        "usable", None, None, None)


def test_what_is_known_of_a_key_says_nothing_of_the_next_one(either, connect, kms):
    role = kms.role("external-1")
    tenant, user = Tenant(unique("tenant"), either.kms.key()), connect(either)
    user.run("SELECT cmk.register_tenant(%s, %s, activate => false)", tenant.name, tenant.key_uri)
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        user.run("SELECT cmk.activate_tenant(%s)", tenant.name)
    user.run("SELECT cmk.alter_tenant_options(%s, %s)", tenant.name, Jsonb({"role_arn": role, "external_id": "external-1"}))
    assert status(user, tenant, "key_state, reason, since") == (None, None, None)


def test_the_worst_case_is_each_tenants(either, connect, kms):
    role = kms.role("external-1")
    plain, assumed = either.tenant(), Tenant(unique("tenant"), either.kms.key())
    either.dba.run("SELECT cmk.register_tenant(%s, %s, %s)", assumed.name, assumed.key_uri,
                   Jsonb({"role_arn": role, "external_id": "external-1"}))
    user = connect(either)
    assert status(user, plain, "worst_case") == (timedelta(seconds=299),)
    assert status(user, assumed, "worst_case") == (timedelta(seconds=299, minutes=15),)


# With a monitor


@pytest.fixture(scope="module")
def watched_server(make_server, kms_process):
    with running(make_server, monitor_databases="postgres") as server:
        yield Watched(server, kms_process)


@pytest.fixture
def watched(watched_server, kms):
    return watched_server


def test_whether_somebody_watches_is_known(watched, either, connect):
    until(lambda: watched.dba.one("SELECT watched FROM cmk.server"), what="the monitor")
    facts = "preloaded, keyring_worker, monitor_configured, watched"
    assert watched.dba.row(f"SELECT {facts} FROM cmk.server") == (True, True, True, True)
    assert watched.status(watched.tenant(), "watched") == (True,)
    unwatched = connect(either)
    assert unwatched.row(f"SELECT {facts} FROM cmk.server") == (either.preloaded, either.preloaded, False, False)
    assert status(unwatched, either.tenant(), "watched, warnings") == (False, None)


def test_warnings_are_those_of_now_and_unknown_where_the_owner_shows_none(watched, kms):
    hidden = watched.key(rotates=False)
    kms.deny(hidden, operations=["DescribeKey"])
    soon = watched.key()
    import_material(kms, soon, int(time.time()) + 86_400)
    wanted = {
        watched.tenant(): [], watched.tenant(soon): ["key_material_expires"],
        watched.tenant(watched.key(rotates=False)): ["rotation_off"],
    }
    secretive = watched.tenant(hidden)
    for tenant, warnings in wanted.items():
        until(lambda: watched.status(tenant, "warnings") == (warnings,), what=f"{warnings}")
    until(lambda: kms.calls(hidden, "DescribeKey"), what="a refusal")
    watched.checks(secretive, 1)
    assert watched.status(secretive, "warnings") == (None,)


def test_a_monitor_that_is_not_wanted_any_more_watches_nothing(watched):
    tenant = watched.tenant()
    watched.checks(tenant)
    with watched.server.settings(monitor_databases=""):
        until(lambda: not watched.dba.one("SELECT watched FROM cmk.server"), what="the end of the monitor")
        assert watched.status(tenant, "watched, warnings") == (False, None)
    until(lambda: watched.dba.one("SELECT watched FROM cmk.server"), what="the monitor")


def test_a_restart_makes_nobody_younger_and_nobody_light(make_server, kms):
    with running(make_server, monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        gone, fine, removed = (watched.tenant() for _ in range(3))
        for tenant in (gone, fine, removed):
            watched.checks(tenant, 1)
        for tenant in (gone, removed):
            kms.state(tenant.key_uri, "Disabled")
            watched.says(tenant, ("revoked", "usable", "key_disabled"))
        since, dark = watched.status(gone, "since, dark_since")
        watched.dba.run("UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE tenant = %s", removed.name)
        for table in ("tenant", "data_key"):
            watched.dba.run(f"DELETE FROM cmk.{table} WHERE tenant = %s", removed.name)
        known = "key_state, reason, since, dark_since, from_history"
        unknown = (None, None, None, None, False)
        namesake = watched.tenant(name=removed.name)
        with kms.fault("hang"):
            server.restart()
            watched.connect()
            assert watched.status(gone, known) == ("revoked", "key_disabled", since, dark, True)
            assert watched.status(fine, known) == unknown
            # What befell another tenant of that name, before this one was registered, is not its own.
            assert watched.status(namesake, known) == unknown
        until(lambda: watched.status(gone, "from_history") == (False,), 15, "an answer of KMS")
        assert watched.status(gone, known) == ("revoked", "key_disabled", since, dark, False)
        kms.state(gone.key_uri, "Enabled")
        until(lambda: watched.status(gone) == ("usable",), what="the key")
        assert watched.status(gone, "dark_since") == (None,)


# Totals


def test_totals_of_the_server_never_fall(drill, connect):
    total = lambda: drill.dba.row("SELECT hits, misses, kms_calls FROM cmk.server")  # noqa: E731
    tenant, user, before = drill.tenant(), connect(drill), total()
    for _ in range(5):
        user.one(READ, tenant.name)
    user.close()
    until(lambda: total()[0] >= before[0] + 4, what="the hits")
    after = total()
    drill.dba.run("SELECT cmk.reset_stats()")
    assert status(drill.dba, tenant, "hits, misses, kms_calls") == (0, 0, 0)
    assert total() >= after > before


def test_a_cache_that_is_too_small_shows_for_the_whole_server(make_server, kms, session):
    drill = Drill(make_server({"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.cache_size": "2"}), kms, preloaded=True)
    tenants = [drill.tenant() for _ in range(5)]
    assert drill.dba.one("SELECT dropped_for_room FROM cmk.server") >= 0
    before = drill.dba.one("SELECT dropped_for_room FROM cmk.server")
    user = session(dbname="postgres", on=drill.server)
    for tenant in tenants:
        user.one(READ, tenant.name)
    user.close()
    until(lambda: drill.dba.one("SELECT dropped_for_room FROM cmk.server") == before + 3, what="the session's end")


# Views over views


@pytest.fixture
def reader(drill, session):
    """A role that was granted views over those of schema cmk, made by an owner who may read these, and no more."""
    owner, reader = unique("owner"), unique("reader")
    drill.server.execute(
        f"CREATE ROLE {owner} LOGIN; CREATE ROLE {reader} LOGIN; CREATE SCHEMA {owner} AUTHORIZATION {owner};"
        f"GRANT pg_monitor TO {owner}; GRANT USAGE ON SCHEMA {owner} TO {reader}")
    yield session(owner, "postgres", on=drill.server), session(reader, "postgres", on=drill.server)
    drill.server.execute(f"DROP OWNED BY {owner}, {reader} CASCADE; DROP ROLE {owner}, {reader}")


def test_a_view_over_each_view_of_ours_works_for_who_was_granted_that_one_only(drill, reader):
    owner, user = reader
    tenant = drill.tenant()
    user.run("SELECT cmk_try_decrypt('nobody', NULL)")
    views = [name for name, in drill.dba.all("SELECT viewname::text FROM pg_views WHERE schemaname = 'cmk' ORDER BY 1")]
    assert {"status", "server", "cache", "cache_stats", "tenants"} <= set(views)
    for view in views:
        owner.run(f"CREATE VIEW {owner.role}.{view} AS SELECT * FROM cmk.{view}")
        owner.run(f"GRANT SELECT ON {owner.role}.{view} TO {user.role}")
        assert len(user.all(f"SELECT * FROM {owner.role}.{view}")) == len(owner.all(f"SELECT * FROM cmk.{view}")), view
    seen = user.all(f"SELECT tenant_state FROM {owner.role}.status WHERE tenant = %s", tenant.name)
    assert seen == [("active",)]


@pytest.mark.parametrize("function", ["key_status('{}', '', '', 0, {})", "server_facts({})", "backend_cache({})", "backend_cache_stats({})"])
def test_what_the_views_are_made_of_answers_nobody_else(drill, reader, function):
    _, user = reader
    tenant = drill.tenant()
    word = drill.dba.one("SELECT pass::text FROM cmk.home")
    fill = lambda pass_: function.format(tenant, pass_) if function.count("{}") == 2 else function.format(pass_)  # noqa: E731
    drill.dba.one(READ, tenant.name)
    for guess in ("gen_random_uuid()", "'00000000-0000-0000-0000-000000000000'", "NULL"):
        assert user.all(f"SELECT * FROM cmk.{fill(guess)}") == []
        assert drill.dba.all(f"SELECT * FROM cmk.{fill(guess)}") == []
    assert drill.dba.all(f"SELECT * FROM cmk.{fill(repr(word))}") != []
