"""A key in a far Region: KMS takes longer than a query may wait for a renewal ahead of need.

Preloaded, a renewer asks KMS, and no query waits. Else a query waits once for each renewal, and the log says so.
"""

import time

import pytest

from drill import Drill
from server import until
from support import CANARY

SOFT, TTL = 1.0, 2.0
FAR = 150  # ms; a query may wait for 100
ROUND = 0.02
CONF = {"cmk_encrypt.cache_ttl": f"{TTL}s", "cmk_encrypt.cache_soft_ttl": f"{SOFT}s", "cmk_encrypt.refresh_wait": "100ms"}
READ = "SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = %s"
RENEWER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'cmk_encrypt renewer'"


def far(drill, tenant):
    return drill.kms.fault("delay", arn=tenant.key_uri, operation="Decrypt", millis=FAR)


def read_for(user, tenant, seconds):
    """The durations of reads one after the other."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        assert user.one(READ, tenant.name) == CANARY
        took.append(time.monotonic() - began)
        time.sleep(ROUND)
    return took


def waits_logged(drill):
    return [line for line in drill.server.log.read_text().splitlines() if "cmk_encrypt refresh_wait=" in line]


@pytest.fixture
def far_drill(make_server, kms, request):
    preload = {"shared_preload_libraries": "cmk_encrypt"} if request.param else {}
    drill = Drill(make_server({**CONF, **preload}), kms, request.param)
    yield drill
    drill.server.stop("immediate")


@pytest.mark.parametrize("far_drill", [True], ids=["preloaded"], indirect=True)
def test_no_query_waits_for_a_far_region_where_the_library_is_preloaded(far_drill, session):
    tenant, others = far_drill.tenant(), far_drill.tenant()
    user = session(dbname="postgres", on=far_drill.server)
    with far(far_drill, tenant):
        assert user.one(READ, tenant.name) == CANARY
        asked, began = far_drill.kms.calls(tenant.key_uri), time.monotonic()
        took = read_for(user, tenant, 2 * TTL + 0.5)
        lasted = time.monotonic() - began
    assert user.one("SELECT kms_calls FROM cmk.cache_stats") == 1, "a query asked KMS ahead of need, or at the TTL"
    assert sum(seconds > FAR / 1000 for seconds in took) <= 1, sorted(took)[-5:]
    # About one for each soft TTL, give or take a tenth, and none that was given up.
    renewals = far_drill.kms.calls(tenant.key_uri) - asked
    assert 2 <= renewals <= lasted / (SOFT * 0.9) + 1, renewals
    assert far_drill.status(tenant, "kms_failures, refused, key_state") == (0, 0, "usable")
    [line] = waits_logged(far_drill)
    latency = int(line.partition("kms_latency=")[2].partition("ms")[0])
    assert "refresh_wait=100ms" in line and f"renewed_by=renewer tenant={tenant} database=postgres" in line
    assert 100 <= latency < 2000, "longer than a query may wait"
    assert len(far_drill.dba.all(RENEWER)) == 1, "it stays for the next time"
    # Whose KMS is near goes on as before.
    assert user.one(READ, others.name) == CANARY


@pytest.mark.parametrize("far_drill", [False], ids=["lazy"], indirect=True)
def test_elsewhere_one_query_waits_for_each_renewal_and_the_log_says_so(far_drill, session):
    tenant = far_drill.tenant()
    user = session(dbname="postgres", on=far_drill.server)
    with far(far_drill, tenant):
        assert user.one(READ, tenant.name) == CANARY
        asked, began = far_drill.kms.calls(tenant.key_uri), time.monotonic()
        took = read_for(user, tenant, 2 * TTL + 0.5)
        lasted = time.monotonic() - began
    renewals = far_drill.kms.calls(tenant.key_uri) - asked
    assert 2 <= renewals <= lasted / (SOFT * 0.9) + 1, f"{renewals} calls"
    assert sum(seconds > FAR / 1000 for seconds in took) <= renewals + 1, sorted(took)[-8:]
    assert user.row("SELECT kms_failures, misses FROM cmk.cache_stats") == (0, 1), "none was given up, or blocked at the TTL"
    [line] = waits_logged(far_drill)
    assert "refresh_wait=100ms" in line and f"renewed_by=query tenant={tenant} database=postgres" in line


@pytest.mark.parametrize("far_drill", [True], ids=["preloaded"], indirect=True)
def test_a_key_that_is_revoked_far_away_is_dark_at_the_next_renewal(far_drill, session):
    tenant = far_drill.tenant()
    user = session(dbname="postgres", on=far_drill.server)
    with far(far_drill, tenant):
        assert user.one(READ, tenant.name) == CANARY
        far_drill.kms.state(tenant.key_uri, "Disabled")
        dark = "SELECT cmk_try_decrypt(tenant, sealed, '', '{key_disabled}') IS NULL FROM customer WHERE tenant = %s"
        until(lambda: user.one(dark, tenant.name), SOFT * 1.1 + 1, "the end of access")
    assert far_drill.status(tenant, "key_state, reason") == ("revoked", "key_disabled")


@pytest.mark.parametrize("far_drill", [True], ids=["preloaded"], indirect=True)
def test_a_renewer_leaves_when_its_database_is_wanted(far_drill, session):
    tenant = far_drill.tenant()
    user = session(dbname="postgres", on=far_drill.server)
    with far(far_drill, tenant):
        user.one(READ, tenant.name)
        until(lambda: (user.one(READ, tenant.name), far_drill.dba.all(RENEWER))[1], 5, "a renewer")
    user.close()
    far_drill.dba.connection.close()
    with far_drill.server.connect("template1") as admin:
        admin.autocommit = True
        admin.execute("CREATE DATABASE copied TEMPLATE postgres")
        admin.execute("DROP DATABASE copied")


@pytest.mark.parametrize("far_drill", [True], ids=["preloaded"], indirect=True)
def test_a_renewer_that_cannot_connect_is_tried_more_and_more_seldom(far_drill, session):
    """Queries renew meanwhile."""
    tenant = far_drill.tenant()
    user = session(dbname="postgres", on=far_drill.server)

    def refused():
        return far_drill.server.log.read_text().count("is not currently accepting connections")

    with far(far_drill, tenant):
        user.one(READ, tenant.name)
        with far_drill.server.connect("template1") as admin:
            admin.autocommit = True
            admin.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        try:
            read_for(user, tenant, 5 * TTL)
            assert 1 <= refused() <= 4
            user.close()
            time.sleep(SOFT)  # for what was on its way
            before = refused()
            time.sleep(2 * TTL)
            assert refused() == before
        finally:
            with far_drill.server.connect("template1") as admin:
                admin.autocommit = True
                admin.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
