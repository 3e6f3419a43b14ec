"""What the backends of a preloaded server share beside data keys: what is known of each tenant's key, and counters."""

import time
from datetime import timedelta

from crowd import READ
from figures import failures
from memory import find, forms
from server import until
from support import CANARY, fails

FORGIVING = "SELECT cmk_try_decrypt(tenant, sealed, forgive => '{key_disabled}') FROM customer WHERE tenant = %s"


# What is known of a tenant's key


def test_a_revocation_that_one_backend_sees_purges_all_at_once(drill, users, kms):
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    for user in users:
        assert user.one(READ, tenant.name) == CANARY
    drill.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        users[0].encrypt(tenant)  # under the new data key, which nobody has
    for user in users[1:]:
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)
        assert not find(user.pid, needles)
    assert not find(drill.server.pid, needles, shared=True)


def test_a_revoked_key_costs_one_call_an_interval_whoever_asks(drill, users, kms):
    with drill.server.settings(failure_ttl="1s"):
        tenant = drill.tenant()
        kms.state(tenant.key_uri, "Disabled")
        began = time.monotonic()
        while time.monotonic() < began + 4:
            for user in users:
                assert user.one(FORGIVING, tenant.name) is None
        refused = failures(kms, tenant)
        assert 3 <= len(refused) <= 6
        assert min(b - a for a, b in zip(refused, refused[1:])) >= 0.74


def test_an_unreachable_key_is_asked_less_and_less(drill, users, kms):
    forgiving = FORGIVING.replace("key_disabled", "kms_server_error")
    with drill.server.settings(failure_ttl="100ms", kms_max_attempts=1):
        tenant = drill.tenant()
        with kms.fault("status", arn=tenant.key_uri):
            began = time.monotonic()
            while time.monotonic() < began + 4:
                assert users[0].one(forgiving, tenant.name) is None
        refused = failures(kms, tenant)
        gaps = [b - a for a, b in zip(refused, refused[1:])]
        # 100 ms twice, then twice, four times and eight times as long, each give or take a quarter.
        assert all(0.07 <= gap <= 0.2 for gap in gaps[:2]) and all(0.59 <= gap <= 1.1 for gap in gaps[5:]), gaps


def test_the_budget_of_one_tenant_is_not_that_of_another(drill, users, kms):
    with drill.server.settings(tenant_call_budget=10, failure_ttl="0"):
        spender, other = drill.tenant(), drill.tenant()
        before = kms.calls(spender.key_uri)
        kms.state(spender.key_uri, "Disabled")
        forgiving = FORGIVING.replace("disabled", "disabled,call_budget_spent")
        for user in users * 10:
            assert user.one(forgiving, spender.name) is None
        assert kms.calls(spender.key_uri) - before <= 10
        with fails("53000", "call_budget_spent", spender):
            users[0].one(READ, spender.name)
        assert drill.status(spender, "refused")[0] >= 1
        assert users[0].one(READ, other.name) == CANARY


# Status


def test_counters_survive_the_backend_that_counted(drill, session):
    tenant = drill.tenant()
    before = drill.status(tenant, "hits, misses, kms_calls")
    user = session(dbname="postgres", on=drill.server)
    for _ in range(10):
        assert user.one(READ, tenant.name) == CANARY
    user.close()
    until(lambda: drill.status(tenant, "hits")[0] == before[0] + 9, what="the hits")
    assert drill.status(tenant, "misses, kms_calls, server_wide") == (before[1] + 1, before[2] + 1, True)


def test_status_says_what_is_wrong_since_when_and_when_it_was_over(drill, users, kms):
    tenant = drill.tenant()
    assert users[0].one(READ, tenant.name) == CANARY
    assert drill.status(tenant, "key_state, reason") == ("usable", None)
    kms.state(tenant.key_uri, "Disabled")
    drill.evict(tenant)
    with fails("55000", "key_disabled", tenant):
        users[0].one(READ, tenant.name)
    columns = "key_state, reason, now() - since < '5 s', last_failure >= last_success, kms_failures"
    assert drill.status(tenant, columns) == ("revoked", "key_disabled", True, True, 1)
    kms.state(tenant.key_uri, "Enabled")
    drill.evict(tenant)
    assert users[1].one(READ, tenant.name) == CANARY
    assert drill.status(tenant, "key_state, reason, last_success > last_failure") == ("usable", None, True)


def test_the_bound_counts_the_processes_that_hold_a_copy(drill, users):
    def bound(columns="holders"):
        return drill.dba.row(f"SELECT {columns} FROM cmk.revocation_bound(%s)", tenant.name)

    with drill.server.settings(cache_ttl="3s"):
        tenant = drill.tenant()
        until(lambda: bound()[0] == 0, what="the end of the session that wrote")
        for count, user in enumerate(users, 1):
            assert user.one(READ, tenant.name) == CANARY
            assert bound()[0] == count
        dark_within, worst_case, server_wide = bound("dark_within, worst_case, server_wide")
        assert timedelta(seconds=2) < dark_within <= worst_case == timedelta(seconds=3) and server_wide
        users[0].close()
        until(lambda: bound()[0] == len(users) - 1, what="one holder less")
        until(lambda: bound()[0] == 0, timeout=4, what="no holder, though nobody asks")


def test_warm_fetches_before_it_is_needed(drill, session, kms):
    first, second = drill.tenant(), drill.tenant()
    user = session(dbname="postgres", on=drill.server)
    assert user.one("SELECT cmk.warm(%s, %s)", first.name, second.name) == 2
    with kms.fault("hang"):
        assert user.one(READ, first.name) == user.one(READ, second.name) == CANARY
