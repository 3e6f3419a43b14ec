"""As test_identity.py, for tenants whose role we assume: who may assume it, and for how long."""

import pytest

from crowd import READ
from identity import EXTERNAL_ID, NEW, OLD, STRANGER
from identity import all_are_denied, all_read_on, grow_old, reads_on, soon
from identity import client_as, connect, preloaded, site, sites, warmed  # noqa: F401 (fixtures)
from server import until
from support import CANARY

NEVER = "9999-12-31T23:59:59Z"
MINUTE = 60


def assumed(kms, since=0):
    """The calls of AssumeRole, but for the first `since`."""
    return [entry for entry in kms.log() if entry["operation"] == "AssumeRole"][since:]


@pytest.mark.parametrize("how", ["no longer trusted", "no longer known"])
def test_a_role_is_assumed_by_the_rotated_identity(site, client_as, connect, kms, how):
    tenant, role = site.assuming([OLD])
    users = [client_as(site) for _ in range(2)]
    for user in users:
        site.evict(tenant)
        assert user.one(READ, tenant.name) == CANARY
    grow_old()
    site.become(NEW)
    kms.trust(role, EXTERNAL_ID, [NEW])
    with kms.access_keys(*([NEW] if how == "no longer known" else [OLD, NEW])):
        kms.end_sessions(role)
        before = len(assumed(kms))
        all_read_on(site, [*users, connect(site)], tenant)
        soon(lambda: site.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name), tenant)
    calls = assumed(kms, before)
    refused = [entry for entry in calls if entry["outcome"] != "Success"]
    assert {entry["access_key_id"] for entry in refused} <= {OLD}
    assert len(refused) <= len(users) + 1 and len(calls) - len(refused) <= len(users) + 2
    site.never_revoked(tenant)


def test_a_withdrawn_trust_is_a_revocation_after_one_more_question(site, warmed, kms):
    tenant, role = site.assuming()
    with warmed(tenant) as users:
        kms.trust(role, EXTERNAL_ID, [STRANGER])
        kms.end_sessions(role)
        before, asked = len(assumed(kms)), len(kms.log(tenant.key_uri))
        error = all_are_denied(users, tenant)
        assert " cause=assume_role kms_code=AccessDenied " in error.diag.message_detail
        calls = assumed(kms, before)
        assert {entry["outcome"] for entry in calls} == {"AccessDenied"} and len(calls) <= 2
        # With the session that had ended, at most.
        assert len(kms.log(tenant.key_uri)[asked:]) <= 1
        kms.trust(role, EXTERNAL_ID, None)


# How long a session is believed


@pytest.fixture
def reading(site, connect, kms):
    """A session with an STS session that has no end, as STS told it; data keys die every second."""
    tenant, role = site.assuming()
    user = connect(site)
    with site.server.settings(cache_ttl="1s", cache_soft_ttl="1s"):
        with kms.fault("expires", arn=role, expiration=NEVER):
            assert user.one(READ, tenant.name) == CANARY
        grow_old()
        yield site, user, tenant, role


def reads_anew(kms, user, tenant):
    """It reads all the while, until it has asked KMS again with success."""
    before = len(kms.log(tenant.key_uri))

    def asked():
        reads_on(user, tenant)
        return any(e["outcome"] == "Success" for e in kms.log(tenant.key_uri)[before:])

    until(asked, what="another call")
    return kms.log(tenant.key_uri)[before:]


def test_a_session_that_sts_ended_is_replaced(reading, kms):
    site, user, tenant, role = reading
    before = len(assumed(kms))
    assert kms.end_sessions(role) >= 1
    log = reads_anew(kms, user, tenant)
    assert [entry["outcome"] for entry in log] == ["ExpiredTokenException", "Success"]
    reads_anew(kms, user, tenant)
    assert [entry["outcome"] for entry in assumed(kms, before)] == ["Success"]
    site.never_revoked(tenant)


@pytest.mark.parametrize("minutes, sessions", [(10, 0), (16, 1)])
def test_a_session_is_believed_for_15_minutes_whatever_sts_told(
    reading, kms, shim, minutes, sessions
):
    _, user, tenant, _ = reading
    before = len(assumed(kms))
    with shim.clock_ahead(minutes * MINUTE):
        log = reads_anew(kms, user, tenant)
        assert {entry["outcome"] for entry in log} == {"Success"}
        assert len(assumed(kms, before)) == sessions
