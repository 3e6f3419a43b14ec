"""A physical backup (pg_basebackup) that is started elsewhere: it is the same server once more, with what was true
when it was taken. What it may do, its own AWS credentials decide, and so the keys' owners."""

import os
import subprocess

import pytest

from server import AMBIENT_ACCESS_KEY_ID, Server, until
from support import CANARY, Session, fails, grant, unique

ELSEWHERE = "AKIAFAKEELSEWHERE000"
PRELOADED = {"shared_preload_libraries": "cmk_encrypt"}


class Copy(Server):
    """What pg_basebackup copies of `original`, started as a server of its own."""

    def __init__(self, original, conf, env):
        self.original = original
        super().__init__({"unix_socket_directories": "", **conf}, env)

    def _script(self, command, *arguments):
        if command == "start":
            uid, gid = self.owner()
            as_owner = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"] if os.geteuid() == 0 else []
            subprocess.run(["rm", "-rf", str(self.data)], check=True)
            subprocess.run(
                [*as_owner, self.program("pg_basebackup"), "-h", str(self.original.socket), "-U", "postgres",
                 "-D", str(self.data), "--checkpoint=fast", "--no-sync"], check=True, cwd="/tmp", timeout=120,
            )
            # The copied configuration names the original's socket.
            arguments = [a.replace("unix_socket_directories = ''", f"unix_socket_directories = '{self.socket}'")
                         for a in arguments]
        return super()._script(command, *arguments)


@pytest.fixture(scope="module")
def estate(make_server, kms_process):
    """The original, its tenants, and copies of it: of one moment, by different means."""
    original = make_server(PRELOADED)
    original.make_local_key("shared")
    original.execute("CREATE DATABASE estate")
    role = unique("app")
    original.execute(f"CREATE ROLE {role} LOGIN")
    key = kms_process.key()
    with original.connect("estate") as connection:
        dba = Session(connection)
        dba.run("CREATE EXTENSION cmk_encrypt")
        dba.run("CREATE TABLE sealed (tenant text, value bytea)")
        dba.run(f"GRANT ALL ON sealed TO {role}")
        for tenant, uri in (("acme", key), ("local", "local:shared"), ("leaver", kms_process.key())):
            dba.run("SELECT cmk.register_tenant(%s, %s)", tenant, uri)
            grant(dba, tenant, role)
            grant(dba, tenant, "postgres")
            dba.run("INSERT INTO sealed VALUES (%s, cmk_encrypt(%s, %b))", tenant, tenant, CANARY)
    urls = {f"cmk_encrypt.{service}_endpoint_url": kms_process.url for service in ("kms", "sts")}
    conf = {**PRELOADED, **urls, "cmk_encrypt.local_keys": "on", "cmk_encrypt.monitor_databases": ""}
    copies = []

    def copy(access_key=AMBIENT_ACCESS_KEY_ID, **more):
        copies.append(Copy(original, {**conf, **more}, {"AWS_ACCESS_KEY_ID": access_key}))
        return copies[-1]

    copy.original, copy.role, copy.key = original, role, key
    yield copy
    for made in copies:
        made.destroy()


@pytest.fixture
def opens(estate):
    """What a server's application reads of a tenant, in a new session."""

    def opens(server, tenant):
        with server.connect("estate", estate.role) as connection:
            return Session(connection).one("SELECT cmk_decrypt(tenant, value) FROM sealed WHERE tenant = %s", tenant)

    return opens


@pytest.fixture(scope="module")
def copied(estate):
    """A copy with the credentials of the original, and without its key files. What happened to the original since."""
    copy = estate(**{"cmk_encrypt.local_key_directory": "/nonexistent"})
    with estate.original.connect("estate") as connection:
        dba = Session(connection)
        dba.run("SELECT cmk.suspend_tenant('leaver')")
        dba.run("SELECT cmk.shred_tenant('leaver', confirm => 'leaver', immediately => true)")
        dba.run("SELECT cmk.rotate_tenant('acme')")
    return copy


def test_the_copy_opens_what_its_credentials_may(copied, opens):
    assert opens(copied, "acme") == CANARY
    with fails("55000", "key_not_found", "local"):
        opens(copied, "local")
    assert copied.execute("SELECT problem FROM cmk.check(deep => true)", "estate") == []
    assert copied.execute("SELECT server_wide, tenants FROM (SELECT server_wide, count(*) AS tenants FROM cmk.status"
                          " GROUP BY 1) s", "estate") == [(True, 3)]


def test_the_copy_brings_back_what_was_taken_back_since(estate, copied, opens):
    """Data keys that were shredded meanwhile, too: only the key's owner has the last word."""
    with fails("55000", "tenant_shredded", "leaver"):
        opens(estate.original, "leaver")
    assert opens(copied, "leaver") == CANARY


def test_both_trails_verify_and_go_on_apart(estate, copied):
    def trail(server):
        chains = server.execute("SELECT DISTINCT status FROM cmk.verify_audit()", "estate")
        assert chains == [("ok",)]
        return dict(server.execute("SELECT number, hash FROM cmk.audit_event WHERE tenant = 'acme'", "estate"))

    copied.execute("SELECT cmk.suspend_tenant('acme'), cmk.resume_tenant('acme')", "estate")
    here, there = trail(estate.original), trail(copied)
    origin = "SELECT DISTINCT origin FROM cmk.audit_event"
    assert estate.original.execute(origin, "estate") == copied.execute(origin, "estate")
    common = [number for number in here if here[number] == there.get(number)]
    # What came after the backup has the same numbers and other hashes: who compares sees that there are two.
    assert common and max(common) < max(here) and max(common) < max(there)
    assert here[max(common) + 1] != there[max(common) + 1]


def test_a_copy_whose_credentials_may_nothing_is_dark_and_the_original_is_not(estate, opens, kms):
    kms.principals(estate.key, [AMBIENT_ACCESS_KEY_ID])
    try:
        copy = estate(ELSEWHERE)
        with fails("55000", "key_access_denied", "acme"):
            opens(copy, "acme")
        assert opens(estate.original, "acme") == CANARY
    finally:
        kms.principals(estate.key, None)


def test_the_monitor_of_a_copy_writes_into_the_copy(estate, kms):
    before = estate.original.execute("SELECT count(*) FROM cmk.key_event", "estate")
    kms.principals(estate.key, [AMBIENT_ACCESS_KEY_ID])
    try:
        copy = estate(ELSEWHERE, **{"cmk_encrypt.monitor_databases": "estate", "cmk_encrypt.monitor_interval": "1s"})
        events = "SELECT tenant FROM cmk.key_event WHERE event = 'revoked' AND tenant = 'acme'"
        until(lambda: copy.execute(events, "estate") == [("acme",)], 20, "the copy's monitor")
    finally:
        kms.principals(estate.key, None)
    assert estate.original.execute("SELECT count(*) FROM cmk.key_event", "estate") == before
