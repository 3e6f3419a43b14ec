"""A grant or a policy that has not spread yet: KMS says yes and no in turn for minutes."""

import time

import psycopg
import pytest

from server import until
from support import CANARY, Tenant, fails, unique
from watched import Watched, running

DENIED = {"kind": "status", "status": 400, "code": "AccessDeniedException"}
FLIPS = 30
READ = "SELECT cmk_try_decrypt(%s, %b, '', '{key_access_denied}')"


@pytest.fixture(scope="module")
def watched_server(make_server, kms_process):
    with running(make_server, monitor_databases="postgres", failure_ttl="20ms") as server:
        yield Watched(server, kms_process)


@pytest.fixture
def watched(watched_server, kms):
    return watched_server


def test_an_activation_says_not_yet_and_works_later(watched, kms):
    tenant = Tenant(unique("tenant"), watched.key())
    kms.principals(tenant.key_uri, [])
    watched.dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", tenant.name, tenant.key_uri)
    for _ in range(3):
        with fails("55000", "key_access_denied", tenant) as failed:
            watched.dba.run("SELECT cmk.activate_tenant(%s)", tenant.name)
        assert "not in force everywhere yet: AWS needs up to five minutes" in failed.value.diag.message_hint
        assert watched.status(tenant, "tenant_state, dark_since") == ("pending", None)
    # It has spread to some of KMS: the data key is made, and can't be unwrapped.
    kms.principals(tenant.key_uri, None)
    kms.deny(tenant.key_uri, operations=["Decrypt"])
    with fails("55000", "key_access_denied", tenant):
        watched.dba.run("SELECT cmk.activate_tenant(%s)", tenant.name)
    assert watched.dba.all("SELECT FROM cmk.data_key WHERE tenant = %s", tenant.name) == []
    kms.deny(tenant.key_uri, deny=False)
    assert watched.dba.one("SELECT cmk.activate_tenant(%s)", tenant.name) == "active"
    assert watched.dba.one(READ, tenant.name, watched.dba.encrypt(tenant)) is not None
    assert watched.status(tenant, "key_state") == ("usable",)


def test_flapping_makes_no_storm_and_ends_in_what_is_true(watched, kms):
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    darkest = 0.0
    with watched.listening() as heard_of:
        for flip in range(FLIPS):
            kms.deny(tenant.key_uri, deny=flip % 2 == 0)
            watched.dba.run("SELECT cmk.evict(%s)", tenant.name)
            began = time.monotonic()
            if flip % 2 == 0:
                assert watched.dba.one(READ, tenant.name, envelope) is None
            else:
                until(lambda: watched.dba.one(READ, tenant.name, envelope) == CANARY, what="a yes")
                darkest = max(darkest, time.monotonic() - began)
        # The last answer was yes. What is told catches up, and until then the state is right.
        assert watched.status(tenant, "key_state") == ("usable",)
        watched.checks(tenant, 3)
        events, heard = watched.events(tenant), heard_of(tenant)
    lines = [line for line in watched.log(tenant.name) if "key_state=" in line]
    assert 2 <= len(lines) <= 8, lines
    assert 2 <= len(events) <= 8 and len(heard) == len(events), events
    assert [line.split("key_state=")[1].split()[0] for line in lines[:2]] == ["revoked", "usable"], "the first are told at once"
    assert darkest < 1.0, "a refusal was remembered for 20 ms"


def test_of_two_tenants_the_one_that_flaps_silences_only_itself(watched, kms):
    flapping, other = watched.tenant(), watched.tenant()
    envelope = watched.dba.encrypt(flapping)
    for flip in range(12):
        kms.deny(flapping.key_uri, deny=flip % 2 == 0)
        watched.dba.run("SELECT cmk.evict(%s)", flapping.name)
        watched.dba.run(READ, flapping.name, envelope)
        time.sleep(0.03)
    kms.state(other.key_uri, "Disabled")
    watched.says(other, ("revoked", "usable", "key_disabled"))


def test_a_dark_tenant_is_asked_again_after_the_failure_ttl(preloaded_drill, session, kms):
    """And not later, however often KMS said no before: a revoked key has no circuit breaker that stretches."""
    drill = preloaded_drill
    tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    with drill.server.settings(failure_ttl="400ms"):
        for _ in range(4):
            with kms.fault(arn=tenant.key_uri, operation="Decrypt", times=None, **DENIED):
                drill.evict(tenant)
                with pytest.raises(psycopg.Error):
                    user.one("SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = %s", tenant.name)
            began = time.monotonic()
            until(lambda: user.one("SELECT cmk_try_decrypt(tenant, sealed, '', '{key_access_denied}') FROM customer"
                                   " WHERE tenant = %s", tenant.name) == CANARY, 3, "the end of the dark")
            assert time.monotonic() - began < 0.4 * 1.25 + 0.4
