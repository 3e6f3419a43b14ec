"""A hot standby: it decrypts by itself, can't change the registry, and hears of changes with the commit."""

import pytest

from standby import Standby, replayed
from support import CANARY, Session, fails, unique


@pytest.fixture(scope="module")
def pair(make_server, kms_process):
    primary = make_server()
    primary.make_local_key("shared")
    primary.execute("CREATE EXTENSION cmk_encrypt")
    primary.execute("CREATE ROLE reader LOGIN")
    standby = Standby(primary, {
        "cmk_encrypt.local_keys": "on",
        "cmk_encrypt.kms_endpoint_url": kms_process.url,
        "cmk_encrypt.sts_endpoint_url": kms_process.url,
    })
    yield primary, standby
    standby.destroy()


@pytest.fixture
def dba(pair):
    session = Session(pair[0].connect())
    yield session
    session.close()


@pytest.fixture
def reader(pair):
    session = Session(pair[1].connect(user="reader"))
    yield session
    session.close()


@pytest.fixture
def sealed(pair, dba, kms):
    """A tenant under a KMS key that `reader` may use, and an envelope of its, both replayed on the standby."""
    name, key = unique("tenant"), kms.key()
    dba.run("SELECT cmk.register_tenant(%s, %s)", name, key)
    dba.run("SELECT cmk.grant_access(%s, 'postgres'), cmk.grant_access(%s, 'reader')", name, name)
    replayed(pair)
    return name, key, dba.encrypt(name)


def test_a_standby_decrypts_with_one_call_of_its_own(reader, sealed, kms):
    name, key, envelope = sealed
    before = kms.calls(key)
    assert [reader.decrypt(name, envelope) for _ in range(3)] == [CANARY] * 3
    assert kms.calls(key) == before + 1


def test_a_standby_changes_nothing(pair, sealed):
    name = sealed[0]
    with pair[1].connect() as connection:
        for call in ("cmk.evict(%s)", "cmk.suspend_tenant(%s)", "cmk.rotate_tenant(%s)", "cmk.register_tenant(%s || '2', 'local:shared')"):
            with fails("25006", "read_only"):
                connection.execute(f"SELECT {call}", (name,))


@pytest.mark.parametrize(
    "change, sqlstate, reason",
    [("cmk.suspend_tenant(%s)", "55000", "tenant_suspended"), ("cmk.revoke_access(%s, 'reader')", "42501", "no_grant")],
    ids=["a suspension", "a revoked grant"],
)
def test_a_change_reaches_a_warm_session_of_the_standby(pair, dba, reader, sealed, change, sqlstate, reason):
    name, _, envelope = sealed
    assert reader.decrypt(name, envelope) == CANARY
    dba.run(f"SELECT {change}", name)
    replayed(pair)
    with fails(sqlstate, reason, name):
        reader.decrypt(name, envelope)


def test_an_eviction_makes_the_standby_ask_kms_again(pair, dba, reader, sealed, kms):
    name, key, envelope = sealed
    assert reader.decrypt(name, envelope) == CANARY
    kms.state(key, "Disabled")
    assert reader.decrypt(name, envelope) == CANARY
    dba.run("SELECT cmk.evict(%s)", name)
    replayed(pair)
    with fails("55000", "key_disabled", name):
        reader.decrypt(name, envelope)


def test_a_promoted_standby_takes_changes(pair, dba, sealed):
    name = sealed[0]
    pair[1].execute("SELECT pg_promote()")
    assert pair[1].execute(f"SELECT cmk.rotate_tenant('{name}')") == [(2,)]
