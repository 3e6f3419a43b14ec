"""cmk.warm fetches what a transaction will need, so that it does not wait for KMS with its locks held."""

import pytest

from drill import Drill
from support import CANARY, fails, fails_with, grant, unique


@pytest.fixture(scope="module")
def shared(make_server, kms_process):
    return Drill(make_server({"shared_preload_libraries": "cmk_encrypt"}), kms_process, preloaded=True)


@pytest.fixture(scope="module")
def private(make_server, kms_process):
    return Drill(make_server(), kms_process, preloaded=False)


@pytest.fixture(params=["shared", "private"])
def drill(request, kms):
    return request.getfixturevalue(request.param)


@pytest.fixture
def user(drill, session):
    """A role that may warm, and may use what it is granted."""
    name = unique("role")
    drill.dba.run(f"CREATE ROLE {name} LOGIN")
    drill.dba.run(f"GRANT EXECUTE ON FUNCTION cmk.warm(text[]) TO {name}")
    return session(name, "postgres", on=drill.server)


def tenant_of(drill, user, versions=1):
    """A tenant that `user` may use, and a value under each of its data keys."""
    tenant = drill.tenant()
    grant(drill.dba, tenant, user.role)
    envelopes = [drill.dba.encrypt(tenant)]
    for _ in range(versions - 1):
        drill.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        envelopes.append(drill.dba.encrypt(tenant))
    drill.evict(tenant)
    return tenant, envelopes


def test_what_was_warmed_works_while_kms_hangs(drill, user, kms):
    (one, of_one), (other, of_other) = tenant_of(drill, user, versions=3), tenant_of(drill, user)
    assert user.one("SELECT cmk.warm(%s, %s)", one.name, other.name) == 4
    asked = kms.total()
    with kms.fault("hang"):
        for tenant, envelopes in ((one, of_one), (other, of_other)):
            assert [user.decrypt(tenant, envelope) for envelope in envelopes] == [CANARY] * len(envelopes)
            assert user.encrypt(tenant)
    assert kms.total() == asked


def test_what_is_warm_costs_no_call(drill, user, kms):
    tenant, _ = tenant_of(drill, user, versions=2)
    asked = kms.calls(tenant.key_uri)
    assert user.one("SELECT cmk.warm(%s)", tenant.name) == 2
    assert kms.calls(tenant.key_uri) == asked + 2
    for _ in range(3):
        assert user.one("SELECT cmk.warm(%s, %s)", tenant.name, tenant.name) == 2, "each data key once"
    assert kms.calls(tenant.key_uri) == asked + 2


def test_one_session_warms_all_that_share(shared, session, kms):
    tenant = shared.tenant()
    envelope = shared.dba.encrypt(tenant)
    shared.evict(tenant)
    assert shared.dba.one("SELECT cmk.warm(%s)", tenant.name) == 1
    other = session(dbname="postgres", on=shared.server)
    with kms.fault("hang", arn=tenant.key_uri):
        assert other.decrypt(tenant, envelope) == CANARY


def test_warming_is_refused_as_decrypting_would_be(drill, user, kms):
    tenant, _ = tenant_of(drill, user)
    other = drill.tenant()
    asked = kms.calls(other.key_uri)
    with fails("42501", "no_grant", other):
        user.one("SELECT cmk.warm(%s)", other.name)
    assert kms.calls(other.key_uri) == asked
    with fails("42704", "unknown_tenant", "nobody"):
        user.one("SELECT cmk.warm('nobody')")
    with fails("22004", "null_argument"):
        user.one("SELECT cmk.warm(%s, NULL)", tenant.name)
    with fails("22004", "null_argument"):
        user.one("SELECT cmk.warm(VARIADIC NULL)")
    drill.dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "tenant_suspended", tenant):
        user.one("SELECT cmk.warm(%s)", tenant.name)


def test_a_role_that_may_only_encrypt_may_warm(drill, user):
    tenant = drill.tenant()
    grant(drill.dba, tenant, user.role, decrypt=False)
    assert user.one("SELECT cmk.warm(%s)", tenant.name) == 1
    with fails("42501", "no_grant", tenant):
        user.one("SELECT cmk_decrypt(%s, cmk_encrypt(%s, 'x'))", tenant.name, tenant.name)


def test_warming_a_pending_tenant_says_so(drill, kms):
    name = unique("tenant")
    drill.dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", name, kms.key())
    with fails("55000", "tenant_pending", name):
        drill.dba.one("SELECT cmk.warm(%s)", name)


def test_warming_a_revoked_key_fails_before_the_transaction_has_locks(drill, user, kms):
    tenant, _ = tenant_of(drill, user)
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        user.one("SELECT cmk.warm(%s)", tenant.name)


def test_warming_nothing_is_nothing(drill):
    assert drill.dba.one("SELECT cmk.warm(VARIADIC '{}')") == 0


def test_warming_is_not_for_everybody(drill, session):
    name = unique("role")
    drill.dba.run(f"CREATE ROLE {name} LOGIN")
    with fails_with("42501"):
        session(name, "postgres", on=drill.server).run("SELECT cmk.warm('x')")
