"""More assumed roles than a backend once kept clients for: a session each, and no more."""

import time

import pytest

from support import CANARY, Tenant, grant, unique

ROLES = 70


@pytest.fixture
def assuming(app, dba, kms):
    """Makes a tenant whose key lets in a role of its own alone; `app` may use it."""

    def make():
        role, arn = kms.role("external-7"), kms.key()
        kms.principals(arn, [role])
        made = Tenant(unique("tenant"), arn)
        dba.run(
            "SELECT cmk.register_tenant(%s, %s, jsonb_build_object("
            "'role_arn', %s::text, 'external_id', %s::text))",
            made.name, made.key_uri, role, "external-7",
        )
        grant(dba, made, app.role)
        return made

    return make


@pytest.fixture
def read_in_turn(app, kms):
    """Reads a value of each tenant, asking KMS each time; how many roles that assumed."""

    def read(sealed):
        time.sleep(1.1)  # until no data key is left
        sessions, asked = kms.total("AssumeRole"), kms.total()
        for tenant, envelope in sealed:
            assert app.decrypt(tenant, envelope) == CANARY
        assert kms.total() - asked == len(sealed)
        return kms.total("AssumeRole") - sessions

    return read


def test_many_roles_in_turn_cost_a_session_each(server, app, kms, assuming, read_in_turn):
    tenants = [assuming() for _ in range(ROLES)]
    with server.settings(cache_ttl="1s", cache_soft_ttl="1s"):
        before = kms.total("AssumeRole")
        sealed = [(tenant, app.encrypt(tenant)) for tenant in tenants]
        assert kms.total("AssumeRole") - before == ROLES
        assert [read_in_turn(sealed) for _ in range(2)] == [0, 0]


def test_the_number_of_clients_is_a_setting(server, app, assuming, read_in_turn):
    tenants = [assuming() for _ in range(3)]
    with server.settings(cache_ttl="1s", cache_soft_ttl="1s", kms_clients="2"):
        sealed = [(tenant, app.encrypt(tenant)) for tenant in tenants]
        assert read_in_turn(sealed) == 3
        assert read_in_turn(sealed[1:]) == 0
