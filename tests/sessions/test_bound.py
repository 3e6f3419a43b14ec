"""Who holds a copy of a data key, and when the last one dies: cmk.revocation_bound and cmk.status.holders."""

import time
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from crowd import READ
from drill import Drill
from memory import find, forms
from server import until
from support import CANARY, Tenant, fails, unique
from test_status import connect, drill, either, private, shared, status  # noqa: F401 (fixtures)


def holders(drill, tenant, count, timeout=1.0):
    """Both views say so."""
    def agreed():
        bound = drill.dba.one("SELECT holders FROM cmk.revocation_bound(%s)", tenant.name)
        return (count, count) == (*status(drill.dba, tenant, "holders"), bound)

    until(agreed, timeout, f"{count} holders")


def test_holders_are_the_processes_with_a_copy(drill, connect, kms):
    tenant = drill.tenant()
    holders(drill, tenant, 0)
    users = [connect(drill) for _ in range(3)]
    for count, user in enumerate(users, 1):
        assert user.one(READ, tenant.name) == CANARY
        holders(drill, tenant, count)
    # A second data key makes no second holder.
    drill.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    for user in users:
        user.encrypt(tenant)
        assert user.one(READ, tenant.name) == CANARY
        assert user.one("SELECT count(*) FROM cmk.cache WHERE tenant = %s", tenant.name) == 2
    holders(drill, tenant, 3)
    users[0].close()
    holders(drill, tenant, 2)
    # Who looks again after an eviction drops its copy, and gets no other.
    kms.state(tenant.key_uri, "Disabled")
    drill.evict(tenant)
    for left, user in ((1, users[1]), (0, users[2])):
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)
        holders(drill, tenant, left)


def test_expiry_leaves_no_holder_though_nobody_asks(drill, connect):
    with drill.server.settings(cache_ttl="1s"):
        tenant = drill.tenant()
        users = [connect(drill) for _ in range(3)]
        for user in users:
            assert user.one(READ, tenant.name) == CANARY
        holders(drill, tenant, 3)
        holders(drill, tenant, 0, timeout=1.5)


def test_a_session_without_shared_memory_counts_itself(private, connect):
    tenant, user = private.tenant(), connect(private)
    assert status(user, tenant, "holders") == (0,)
    assert user.one(READ, tenant.name) == CANARY
    assert status(user, tenant, "holders") == (1,)
    assert status(connect(private), tenant, "holders") == (0,)


# The bound


def bound(session, tenant, columns="dark_within, copies_until - clock_timestamp(), holders, worst_case, server_wide"):
    return session.row(f"SELECT {columns} FROM cmk.revocation_bound(%s)", tenant.name)


def test_after_the_bound_no_process_holds_the_key_though_nobody_asks(drill, connect):
    ttl = timedelta(seconds=3)
    with drill.server.settings(cache_ttl="3s"):
        tenant = drill.tenant()
        needles = forms(drill.dek(tenant))
        users = [connect(drill) for _ in range(3)]
        for user in users:
            assert user.one(READ, tenant.name) == CANARY
            time.sleep(0.2)
        dark_within, left, count, worst_case, wide = bound(drill.dba, tenant)
        asked = time.monotonic()
        assert timedelta(0) < dark_within <= ttl and abs(left - dark_within) < timedelta(milliseconds=50)
        assert (count, worst_case, wide) == (3, ttl, True)
        for user in users:
            assert find(user.pid, needles), "the search doesn't find the key that the backend must hold"
        assert find(drill.dba.pid, needles, shared=True), "nor that which all share"
        time.sleep(max(0, asked + dark_within.total_seconds() + 0.1 - time.monotonic()))
        assert find(drill.dba.pid, needles, shared=True) == []
        for pid in [*(user.pid for user in users), *server_processes(drill.server)]:
            assert find(pid, needles) == [], f"process {pid}"
        assert bound(drill.dba, tenant, "dark_within, holders") == (timedelta(0), 0)


def server_processes(server):
    found = server.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    return [server.pid] + [pid for pid, in found]


def test_without_shared_memory_the_bound_is_the_ttl(private, connect):
    tenant, user = private.tenant(), connect(private)
    ttl = timedelta(seconds=299)
    for _ in range(2):
        dark_within, left, count, worst_case, wide = bound(user, tenant)
        assert (dark_within, count, worst_case, wide) == (ttl, None, ttl, False), "nothing is known of other sessions"
        assert abs(left - ttl) < timedelta(milliseconds=50)
        user.one(READ, tenant.name)


def test_an_assumed_role_makes_the_worst_case_a_quarter_of_an_hour_worse(either, kms):
    arn = kms.role("external-1")
    tenant = Tenant(unique("tenant"), kms.key())
    options = Jsonb({"role_arn": arn, "external_id": "external-1"})
    either.dba.run("SELECT cmk.register_tenant(%s, %s, %s)", tenant.name, tenant.key_uri, options)
    assert bound(either.dba, tenant, "worst_case") == (timedelta(seconds=299, minutes=15),)


@pytest.mark.parametrize(
    "argument, sqlstate, reason",
    [("'nobody'", "42704", "unknown_tenant"), ("'*'", "22023", "tenant_name"), ("''", "22023", "tenant_name"), ("NULL", "22004", "null_argument")],
)
def test_an_unknown_tenant_has_no_bound(either, argument, sqlstate, reason):
    with fails(sqlstate, reason):
        either.dba.all(f"SELECT * FROM cmk.revocation_bound({argument})")


def test_a_session_without_shared_memory_holds_nothing_that_expired(make_server, kms, session):
    drill = Drill(make_server(), kms, preloaded=False)
    with drill.server.settings(cache_ttl="1s"):
        tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
        assert user.one(READ, tenant.name) == CANARY
        time.sleep(1.1)
        assert user.one("SELECT holders FROM cmk.status WHERE tenant = %s", tenant.name) == 0


def test_a_copy_is_in_the_bound_though_there_are_more_tenants_than_records(make_server, kms, session):
    conf = {"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.shared_keyring_size": "16"}
    drill = Drill(make_server(conf), kms, preloaded=True)
    first, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    assert user.one(READ, first.name) == CANARY
    for _ in range(40):
        drill.tenant()
    dark_within = drill.dba.one("SELECT dark_within FROM cmk.revocation_bound(%s)", first.name)
    assert dark_within > timedelta(seconds=60), "what is not known counts as the TTL"
