"""A data key in a backend's memory: once, in locked pages, and gone when it is no longer needed."""

import pytest

from memory import find, flags_at, forms
from server import until
from support import CANARY, Tenant, fails, grant, unique
from tls_proxy import TlsProxy


@pytest.fixture
def secret(tenant, kms, dba):
    """A tenant and its raw data key, which the test gets from the tenant's KMS, not from the backend."""
    made = tenant()
    wrapped = dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s", made.name)
    return made, kms.decrypt(made.key_uri, wrapped, made.context)


def test_a_cached_data_key_lies_in_locked_undumpable_pages_only(app, secret):
    tenant, dek = secret
    app.encrypt(tenant)
    found = find(app.pid, forms(dek))
    assert found, "the search doesn't find the key that the backend must hold"
    for address in found:
        assert {"lo", "dd", "dc"} <= flags_at(app.pid, address), f"{address:#x}"


def test_an_evicted_data_key_leaves_nothing_in_memory(app, dba, secret):
    tenant, dek = secret
    envelope = app.encrypt(tenant)
    assert app.decrypt(tenant, envelope)
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    until(lambda: not app.all("SELECT FROM pg_sleep(0) WHERE cmk_try_decrypt(%s, %b, '', '{tenant_suspended}') IS NOT NULL",
                              tenant.name, envelope))
    assert find(app.pid, forms(dek)) == []


# Over HTTPS


@pytest.fixture(scope="module")
def https(kms_process):
    proxy = TlsProxy(kms_process.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def https_server(make_server, https, shim):
    environment = {**shim.env, "SSL_CERT_FILE": str(https.authority)}
    server = make_server({"cmk_encrypt.kms_endpoint_url": https.url}, environment)
    server.execute("CREATE EXTENSION cmk_encrypt")
    return server


def test_nor_does_tls_leave_a_data_key_in_ordinary_memory(https, https_server, session, kms):
    dba, user = (session(dbname="postgres", on=https_server) for _ in range(2))
    tenant = Tenant(unique("tenant"), kms.key())
    dba.run("SELECT cmk.register_tenant(%s, %s)", tenant.name, tenant.key_uri)
    grant(dba, tenant, user.role)
    dek = kms.decrypt(tenant.key_uri, dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s", tenant.name),
                      tenant.context)
    before = https.requests
    assert user.decrypt(tenant, user.encrypt(tenant)) == CANARY
    assert https.requests == before + 1, "the call went another way"
    found = find(user.pid, forms(dek))
    assert found, "the search doesn't find the key that the backend must hold"
    for address in found:
        assert {"lo", "dd", "dc"} <= flags_at(user.pid, address), f"{address:#x}"
    # The session that registered the tenant made the round trip, and has no use for the key.
    assert find(dba.pid, forms(dek)) == []

    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "tenant_suspended", tenant):
        user.encrypt(tenant)
    assert find(user.pid, forms(dek)) == []
