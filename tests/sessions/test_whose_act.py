"""What an owner of a key does is a revocation, what fails by itself an outage: in each way that AWS has of saying it."""

import time

import pytest

from server import until
from support import CANARY, fails
from watched import Watched, import_material, running

READ = "SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = %s"
# What a custom key store does: SQLSTATE, reason and state that follow.
OWNERS = {
    "denied": "key_access_denied",
    "key_not_found": "key_not_found",
    "key_not_enabled": "key_disabled",
    "key_unfit": "key_invalid_state",
}
OUTAGES = ["unauthenticated", "no_answer", "unreachable", "unhealthy", "bad_answer", "disconnected"]


@pytest.fixture
def warm(drill, session):
    """A tenant under a key of an origin, and a session that has read its value."""

    def make(**key):
        tenant = drill.tenant(drill.kms.key(**key))
        user = session(dbname="postgres", on=drill.server)
        assert user.one(READ, tenant.name) == CANARY
        return tenant, user

    return make


def test_what_the_owner_of_an_external_key_store_decides_is_a_revocation(drill, session, warm):
    tenant, user = warm(origin="EXTERNAL_KEY_STORE")
    other = session(dbname="postgres", on=drill.server)
    for trouble, reason in OWNERS.items():
        drill.kms.trouble(tenant.key_uri, trouble)
        drill.evict(tenant)
        with fails("55000", reason, tenant) as failed:
            user.one(READ, tenant.name)
        assert f"key_store={trouble}" in failed.value.diag.message_detail
        assert drill.status(tenant, "key_state, reason") == ("revoked", reason)
        with fails("55000", reason, tenant):
            other.one(READ, tenant.name)
        drill.kms.trouble(tenant.key_uri, None)
        until(lambda: drill.dba.one("SELECT cmk_try_decrypt(tenant, sealed, '', %s) FROM customer WHERE tenant = %s",
                                    [reason], tenant.name) == CANARY, what="the key")
        assert drill.status(tenant, "key_state") == ("usable",)


@pytest.mark.parametrize("origin", ["EXTERNAL_KEY_STORE", "AWS_CLOUDHSM"])
def test_what_fails_on_the_way_to_a_custom_key_store_is_an_outage(drill, session, warm, origin):
    tenant, user = warm(origin=origin)
    cold = session(dbname="postgres", on=drill.server)
    with drill.server.settings(failure_ttl="50ms", kms_max_attempts=1):
        for trouble in OUTAGES if origin == "EXTERNAL_KEY_STORE" else ["disconnected"]:
            drill.kms.trouble(tenant.key_uri, trouble)
            # KMS is asked, whatever is at hand.
            drill.dba.run("SELECT cmk.verify_tenant(%s)", tenant.name)
            with fails("58000", "kms_server_error", tenant) as failed:
                cold.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
            assert f"key_store={trouble}" in failed.value.diag.message_detail
            assert drill.status(tenant, "key_state, reason") == ("unreachable", "kms_server_error")
            assert user.one(READ, tenant.name) == CANARY, "what is at hand serves"
            time.sleep(0.1 * 8)  # the failure is remembered, up to eight times as long
    drill.kms.trouble(tenant.key_uri, None)
    cold.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    assert drill.status(tenant, "key_state") == ("usable",)


def test_imported_material_that_is_gone_is_a_revocation_and_works_when_it_is_back(drill, warm):
    tenant, user = warm()
    import_material(drill.kms, tenant.key_uri, None)
    drill.kms.state(tenant.key_uri, "PendingImport")
    drill.evict(tenant)
    with fails("55000", "key_invalid_state", tenant):
        user.one(READ, tenant.name)
    drill.kms.state(tenant.key_uri, "Enabled")
    until(lambda: user.one("SELECT cmk_try_decrypt(tenant, sealed, '', '{key_invalid_state}') FROM customer"
                           " WHERE tenant = %s", tenant.name) == CANARY, what="the material")


def test_a_replica_is_revoked_for_itself(drill, warm):
    tenant, user = warm(multi_region=True)
    twin = drill.tenant(drill.kms.replica(tenant.key_uri))
    drill.kms.state(tenant.key_uri, "PendingReplicaDeletion")
    for each in (tenant, twin):
        drill.evict(each)
    with fails("55000", "key_pending_deletion", tenant):
        user.one(READ, tenant.name)
    assert user.one(READ, twin.name) == CANARY


@pytest.mark.parametrize("principals, policy", [([], "key_policy")])
def test_which_policy_denied_is_told(drill, warm, principals, policy):
    tenant, user = warm()
    drill.kms.principals(tenant.key_uri, principals)
    drill.evict(tenant)
    with fails("55000", "key_access_denied", tenant) as failed:
        user.one(READ, tenant.name)
    assert f"denied_by={policy}" in failed.value.diag.message_detail


def test_keys_that_kms_cannot_rotate_are_no_reason_to_warn_and_a_primary_that_goes_is(make_server, kms):
    with running(make_server, monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        external, cluster, imported = (watched.tenant(kms.key(origin=origin))
                                       for origin in ("EXTERNAL_KEY_STORE", "AWS_CLOUDHSM", "AWS_KMS"))
        import_material(kms, imported.key_uri, None)
        primary = watched.tenant(kms.key(multi_region=True))
        kms.replica(primary.key_uri)
        plain = watched.tenant(watched.key(rotates=False))
        until(lambda: ("rotation_off", None, None) in watched.events(plain), what="the warning of a key that could rotate")
        kms.state(primary.key_uri, "PendingReplicaDeletion")
        until(lambda: ("deletion_scheduled", None, None) in watched.events(primary), what="the warning")
        for tenant in (external, cluster, imported):
            watched.checks(tenant)
            assert watched.events(tenant) == []
        assert watched.status(primary, "key_state, reason") == ("revoked", "key_pending_deletion")
        seen = watched.dba.one("SELECT seen FROM cmk.verify_tenant(%s) WHERE check_name = 'deletion'", primary.name)
        assert seen == "scheduled when its replicas are gone"
