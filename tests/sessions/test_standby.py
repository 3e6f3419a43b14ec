"""A hot standby: it decrypts by itself, can't change the registry, and hears of changes with the commit."""

import os
import subprocess

import pytest

from server import Server, until
from support import CANARY, Session, fails, unique


class Standby(Server):
    """A streaming replica of `primary`, made by pg_basebackup."""

    def __init__(self, primary, conf):
        self.primary = primary
        super().__init__({
            "unix_socket_directories": "", "cmk_encrypt.local_key_directory": str(primary.keys), **conf,
        })

    def _script(self, command, *arguments):
        if command == "start":
            self._copy_primary()
            # The copied configuration names the primary's socket.
            arguments = [a.replace("unix_socket_directories = ''", f"unix_socket_directories = '{self.socket}'")
                         for a in arguments]
        return super()._script(command, *arguments)

    def _copy_primary(self):
        uid, gid = self.owner()
        bindir = subprocess.check_output([os.environ["PG_CONFIG"], "--bindir"], text=True).strip()
        as_owner = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"] if os.geteuid() == 0 else []
        subprocess.run(["rm", "-rf", str(self.data)], check=True)
        subprocess.run(
            [*as_owner, f"{bindir}/pg_basebackup", "-h", str(self.primary.socket), "-U", "postgres",
             "-D", str(self.data), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"],
            check=True, cwd="/tmp", timeout=120,
        )


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


def replayed(pair):
    primary, standby = pair
    position = primary.execute("SELECT pg_current_wal_lsn()")[0][0]
    until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'")[0][0], what="replay")


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
