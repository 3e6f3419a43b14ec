"""A parallel restore of a database whose tenants are in the middle of something: each goes on, or is refused by name."""

import contextlib

import psycopg
import pytest

from dumps import client
from reencryption import Envelopes, make_envelopes, plain
from server import until
from support import CANARY, Session, fails

MEMBERS = ("moving", "half_proven", "reencrypting", "suspended", "shredded", "pending")


@pytest.fixture
def restored(server, session, database, kms, tmp_path):
    """The dump of such a database, taken while a re-encryption runs, restored: a session there, what each tenant had
    sealed, the table of the run, and the key that one tenant moves to."""
    for name in ("here", "there"):
        if not (server.keys / f"{name}.key").exists():
            server.make_local_key(name)
    source = database()
    dba, sealed, target = session(dbname=source), {}, kms.key()
    dba.run("SELECT cmk.grant_access('*', 'postgres')")
    for tenant in MEMBERS:
        dba.run("SELECT cmk.register_tenant(%s, 'local:here', activate => %s)", tenant, tenant != "pending")
        if tenant != "pending":
            sealed[tenant] = [dba.encrypt(tenant)]
            dba.run("SELECT cmk.rotate_tenant(%s)", tenant)
            sealed[tenant].append(dba.encrypt(tenant))
    table = make_envelopes(dba, ["reencrypting"], rows=1000)
    dba.run("SELECT cmk.rotate_tenant('reencrypting')")
    assert dba.row("SELECT data_keys, remaining FROM cmk.rewrap_tenant('moving', 'local:there')") == (2, 0)
    # Of this one the second data key could not be proven.
    with kms.fault_after(1, "status", arn=target, operation="Decrypt", status=400, code="IncorrectKeyException"):
        progress = dba.row("SELECT rewrapped, remaining FROM cmk.rewrap_tenant('half_proven', %s)", target)
    assert progress == (1, 1)
    for tenant in ("suspended", "shredded"):
        dba.run("SELECT cmk.suspend_tenant(%s)", tenant)
    dba.run("SELECT cmk.shred_tenant('shredded', 'shredded', immediately => true)")

    worker, archive = Session(server.connect(source)), tmp_path / "archive"
    done = worker.start(*Envelopes(worker, table.name).call(batch=50, pause=200))
    until(lambda: dba.one(f"SELECT count(*) FROM cmk.data_key_usage('{table}', 'c')") == 2, what="a first batch")
    client(server, "pg_dump", "-Fd", "-j2", "-f", archive, source)
    worker_is_alive = not done.done()
    dba.run("SELECT pg_terminate_backend(%s)", worker.pid)
    with contextlib.suppress(psycopg.Error):
        done.result(timeout=20)
    assert worker_is_alive
    name = database(extension=False)
    client(server, "pg_restore", "--exit-on-error", "-j4", "-d", name, archive)
    there = session(dbname=name)
    assert there.all("SELECT problem, tenant FROM cmk.check()") == []
    assert {status for (status,) in there.all("SELECT status FROM cmk.verify_audit()")} == {"ok"}
    return there, sealed, Envelopes(there, table.name), target


def opens(session, tenant, sealed):
    return [session.decrypt(tenant, envelope) for envelope in sealed[tenant]] == [CANARY] * 2


def test_each_tenant_goes_on_where_it_was(restored):
    there, sealed, table, target = restored

    # Proven wrappings came along: the move is confirmed, or given up.
    assert opens(there, "moving", sealed)
    assert there.one("SELECT cmk.confirm_rewrap('moving')") == 2
    assert there.one("SELECT key_uri FROM cmk.tenant WHERE tenant = 'moving'") == "local:there"
    assert opens(there, "moving", sealed)

    # What was proven is not proven again, what was not is refused by name until it is.
    with fails("55000", "rewrap_incomplete", "half_proven"):
        there.run("SELECT cmk.confirm_rewrap('half_proven')")
    assert there.row("SELECT rewrapped, remaining FROM cmk.rewrap_tenant('half_proven', %s)", target) == (2, 0)
    assert there.one("SELECT cmk.confirm_rewrap('half_proven')") == 2
    assert opens(there, "half_proven", sealed)

    # The run is not known here, and what it left is done.
    assert there.all("SELECT * FROM cmk.reencrypt_progress") == []
    assert 0 < table.usage()["reencrypting", 3] < 1000
    table.reencrypt()
    assert (table.usage(), table.opened()) == ({("reencrypting", 3): 1000}, plain(1000))

    with fails("55000", "tenant_suspended", "suspended"):
        there.encrypt("suspended")
    with fails("55000", "shred_too_soon", "suspended"):
        there.run("SELECT cmk.shred_tenant('suspended', 'suspended')")
    there.run("SELECT cmk.resume_tenant('suspended')")
    assert opens(there, "suspended", sealed)

    with fails("55000", "tenant_shredded", "shredded"):
        there.decrypt("shredded", sealed["shredded"][0])
    for call in ("resume_tenant('shredded')", "rotate_tenant('shredded')"):
        with fails("55000", "tenant_state_conflict", "shredded"):
            there.run(f"SELECT cmk.{call}")
    with fails("42710", "tenant_exists", "shredded"):
        there.run("SELECT cmk.register_tenant('shredded', 'local:here')")
    there.run("SELECT cmk.remove_tenant('shredded')")
    there.run("SELECT cmk.activate_tenant('pending')")
    assert there.decrypt("pending", there.encrypt("pending")) == CANARY

    # The trail goes on in a chain of this database's own.
    assert {status for (status,) in there.all("SELECT status FROM cmk.verify_audit()")} == {"ok"}
    assert there.one("SELECT count(DISTINCT origin) FROM cmk.audit_event WHERE tenant = 'moving'") == 2
    assert there.all("SELECT problem, tenant FROM cmk.check()") == []


def test_a_move_can_be_given_up_there(restored):
    there, sealed, *_ = restored
    for tenant in ("moving", "half_proven"):
        assert there.one("SELECT cmk.cancel_rewrap(%s)", tenant) is True
        assert there.one("SELECT count(next_wrapped) FROM cmk.data_key WHERE tenant = %s", tenant) == 0
        assert opens(there, tenant, sealed)
        with fails("55000", "no_rewrap", tenant):
            there.run("SELECT cmk.confirm_rewrap(%s)", tenant)
    assert {status for (status,) in there.all("SELECT status FROM cmk.verify_audit()")} == {"ok"}
