"""A hot standby: it decrypts by itself, can't change the registry, and hears of changes with the commit."""

import pytest
import yaml

from server import ROOT
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
        for call in ("cmk.evict(%(name)s)", "cmk.suspend_tenant(%(name)s)", "cmk.rotate_tenant(%(name)s)",
                     "cmk.register_tenant(%(name)s || '2', 'local:shared')", "cmk.remove_tenant(%(name)s)",
                     "cmk.shred_tenant(%(name)s, %(name)s, true)", "cmk.rewrap_tenant(%(name)s, 'local:shared')",
                     "cmk.confirm_rewrap(%(name)s)", "cmk.cancel_rewrap(%(name)s)"):
            with fails("25006", "read_only"):
                connection.execute(f"SELECT {call}", {"name": name})


@pytest.mark.parametrize(
    "change, sqlstate, reason",
    [("cmk.suspend_tenant(%(name)s)", "55000", "tenant_suspended"),
     ("cmk.revoke_access(%(name)s, 'reader')", "42501", "no_grant"),
     ("cmk.suspend_tenant(%(name)s), cmk.shred_tenant(%(name)s, %(name)s, true)", "55000", "tenant_shredded")],
    ids=["a suspension", "a revoked grant", "the end of a tenant"],
)
def test_a_change_reaches_a_warm_session_of_the_standby(pair, dba, reader, sealed, change, sqlstate, reason):
    name, _, envelope = sealed
    assert reader.decrypt(name, envelope) == CANARY
    dba.connection.execute(f"SELECT {change}", {"name": name})
    replayed(pair)
    with fails(sqlstate, reason, name):
        reader.decrypt(name, envelope)


def test_a_move_to_another_key_reaches_a_warm_session_of_the_standby(pair, dba, reader, sealed, kms):
    name, key, envelope = sealed
    assert reader.decrypt(name, envelope) == CANARY
    dba.run("SELECT cmk.rewrap_tenant(%s, 'local:shared')", name)
    dba.run("SELECT cmk.confirm_rewrap(%s)", name)
    replayed(pair)
    kms.state(key, "Deleted")
    calls = kms.calls(key)
    assert reader.decrypt(name, envelope) == CANARY
    assert kms.calls(key) == calls


def test_a_standby_says_what_it_knows_itself(pair, reader, sealed, kms):
    name, key, envelope = sealed
    with pair[1].connect() as connection:
        looker = Session(connection)
        queries = yaml.safe_load((ROOT / "docs" / "monitoring" / "queries.yaml").read_text())
        looker.run("SELECT cmk_try_decrypt(%s, %b)", name, envelope)
        seen = "key_state, dark_since, watched, warnings, from_history"
        assert looker.row(f"SELECT {seen} FROM cmk.status WHERE tenant = %s", name) == ("usable", None, False, None, False)
        kms.state(key, "Disabled")
        pair[0].execute(f"SELECT cmk.evict('{name}')")
        replayed(pair)
        with fails("55000", "key_disabled", name):
            looker.decrypt(name, envelope)
        seen = "key_state, dark_since = since"
        assert looker.row(f"SELECT {seen} FROM cmk.status WHERE tenant = %s", name) == ("revoked", True)
        assert looker.all("SELECT * FROM cmk.check(deep => true)") == []
        for query in queries.values():
            looker.all(query["query"])


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
