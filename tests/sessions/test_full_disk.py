"""A disk that fills up in the middle of an act: what was not done is not half done, and the next call goes on."""

import contextlib

import psycopg
import pytest

from disk import Disk
from reencryption import Envelopes, make_envelopes, plain
from server import until
from support import CANARY, Session, fails_with, unique
from test_seal_table_interrupted import reconnected
from watched import QUICK

DISK_FULL = "53100"


@pytest.fixture(scope="module")
def small(make_server):
    disk = Disk()
    conf = {**QUICK, "cmk_encrypt.monitor_databases": "postgres", "cmk_encrypt.rotate_after": "0", "autovacuum": "off"}
    server = make_server(conf, disk.env)
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    server.execute("SELECT cmk.grant_access('*', 'postgres')")
    yield server, disk
    server.stop("immediate")
    disk.close()


@pytest.fixture
def dba(small, session):
    return session(dbname="postgres", on=small[0])


def make_tenant(dba):
    name = unique("tenant")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    return name


def registry(dba, tenant):
    tables = ("tenant", "data_key", "access", "audit_event", "audit_chain")
    return [dba.all(f"SELECT t::text FROM cmk.{table} t WHERE tenant = %s ORDER BY 1", tenant) for table in tables]


def is_whole(dba, tenant):
    assert dba.all("SELECT status FROM cmk.verify_audit(%s)", tenant) == [("ok",)]
    assert dba.all("SELECT problem FROM cmk.check() WHERE tenant = %s", tenant) == []
    return dba.decrypt(tenant, dba.encrypt(tenant)) == CANARY


def tables_of(server):
    return server.data / "base"


# What grows the registry or the trail, again and again
ACTS = {
    "rotate": "SELECT cmk.rotate_tenant('{}')",
    "evict": "SELECT cmk.evict('{}')",
    "suspend and resume": "SELECT cmk.suspend_tenant('{0}'), cmk.resume_tenant('{0}')",
}


@pytest.mark.parametrize("act", ACTS)
def test_an_act_is_done_with_its_event_or_not_at_all(small, dba, act):
    server, disk = small
    tenant, call = make_tenant(dba), ACTS[act]
    envelope = dba.encrypt(tenant)
    with disk.full(tables_of(server)):
        with fails_with(DISK_FULL):
            for _ in range(400):
                before = registry(dba, tenant)
                dba.run(call.format(tenant))
        assert registry(dba, tenant) == before
        assert dba.decrypt(tenant, envelope) == CANARY
        assert dba.all("SELECT status FROM cmk.verify_audit(%s)", tenant) == [("ok",)]
    dba.run(call.format(tenant))
    assert registry(dba, tenant) != before
    assert is_whole(dba, tenant) and dba.decrypt(tenant, envelope) == CANARY


def test_a_tenant_is_shredded_or_not(small, dba):
    server, disk = small
    tenant = make_tenant(dba)
    envelope = dba.encrypt(tenant)
    for _ in range(40):
        dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant)
    before = registry(dba, tenant)
    shred = "SELECT cmk.shred_tenant(%s, %s, immediately => true)"
    with disk.full(tables_of(server)):
        # New versions of so many rows need room.
        with fails_with(DISK_FULL):
            dba.run(shred, tenant, tenant)
        assert registry(dba, tenant) == before
    assert len(dba.one(shred, tenant, tenant)["data_keys"]) == 41
    assert dba.one("SELECT count(wrapped) FROM cmk.data_key WHERE tenant = %s", tenant) == 0
    assert dba.one("SELECT cmk_try_decrypt(%s, %b, '', '{tenant_shredded}')", tenant, envelope) is None


def test_re_encryption_stops_and_goes_on(small, dba):
    server, disk = small
    tenant = make_tenant(dba)
    table = make_envelopes(dba, [tenant], rows=3000)
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
    with disk.full(tables_of(server)):
        with fails_with(DISK_FULL):
            table.reencrypt(batch=200)
        assert table.opened() == plain(3000)
        assert dba.all("SELECT FROM cmk_internal.reencrypt_locks()") == []
    assert table.usage().get((tenant, 2), 0) < 3000
    state = dba.all('SELECT state, last_error FROM cmk.reencrypt_progress WHERE "table" = %s::regclass', table.name)
    assert state in ([], [("interrupted", None)], [("failed", "sqlstate=53100")]), state
    table.reencrypt()
    assert (table.usage(), table.opened()) == ({(tenant, 2): 3000}, plain(3000))
    assert is_whole(dba, tenant)


def test_the_monitor_goes_on_watching_and_rotates_later(small, dba):
    server, disk = small
    tenant = make_tenant(dba)
    dba.run("SELECT cmk.alter_tenant_rotation(%s, '1 day')", tenant)
    with disk.full(tables_of(server)):
        # Until the trail's last block, or that of the data keys, is full.
        with contextlib.suppress(psycopg.errors.DiskFull):
            while True:
                dba.run("SELECT cmk.evict(%s)", tenant)
        dba.run("UPDATE cmk.data_key SET created_at = created_at - interval '2 days' WHERE tenant = %s", tenant)
        until(lambda: "cmk_encrypt monitor: \"could not extend file" in server.log.read_text(), 20, "the monitor's trouble")
        assert dba.one("SELECT count(*) FROM cmk.data_key WHERE tenant = %s", tenant) == 1
    until(lambda: dba.one("SELECT count(*) FROM cmk.data_key WHERE tenant = %s", tenant) == 2, 20, "the rotation")
    assert is_whole(dba, tenant)


def test_a_full_disk_of_the_log_of_changes_ends_the_server_and_loses_nothing(small, dba):
    """PostgreSQL stops when it cannot write WAL. It starts once there is room."""
    server, disk = small
    tenant = make_tenant(dba)
    envelope = dba.encrypt(tenant)
    table = make_envelopes(dba, [tenant], rows=3000)
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
    worker = Session(server.connect())
    done = worker.start(*Envelopes(worker, table.name).call(batch=100, pause=5))
    until(lambda: dba.one(f"SELECT count(*) FROM cmk.data_key_usage('{table}', 'c')") == 2, what="a first batch")
    acts = 0
    with disk.full(server.data / "pg_wal"):
        with pytest.raises(psycopg.OperationalError):
            while acts < 200:
                dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
                acts += 1
                dba.run("SELECT pg_switch_wal()")
        with pytest.raises(psycopg.Error):
            done.result(timeout=20)
    # It may have come up by itself in time.
    if not reconnected(server):
        server.restart("immediate")
    back = until(lambda: reconnected(server), 30, "the recovery")
    versions = back.one("SELECT max(version) FROM cmk.data_key WHERE tenant = %s", tenant)
    # What was answered is there, and at most one more, of which nobody heard.
    assert versions - 2 in (acts, acts + 1)
    assert is_whole(back, tenant) and back.decrypt(tenant, envelope) == CANARY
    table = Envelopes(back, table.name)
    assert table.opened() == plain(3000)
    table.reencrypt()
    assert (table.usage(), table.opened()) == ({(tenant, versions): 3000}, plain(3000))
    back.close()
