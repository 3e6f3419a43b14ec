"""cmk.reencrypt() among others, and interrupted: killed, cancelled, without KMS, on changing tables."""

import contextlib
import os
import signal
import threading
import time

import psycopg
import pytest

from dumps import client
from protected import hear
from reencryption import Envelopes, make_envelopes, plain, rotate
from server import until
from standby import Standby
from support import Session, fails, fails_with


def running(session, table, **arguments):
    return session.start(*Envelopes(session, table.name).call(**arguments))


def finish(done):
    with contextlib.suppress(psycopg.ProgrammingError):  # CALL returns no rows
        done.result(timeout=60)


# Of a run that goes on until somebody ends it.
SLOW = {"batch": 50, "pause": 200}


def until_some_are_done(observer, table):
    until(lambda: observer.one(f"SELECT count(*) FROM cmk.data_key_usage('{table}', 'c')") == 2, what="a first batch")


def test_it_goes_on_after_its_session_was_ended_at_any_point(session, dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=3000)
    [version] = rotate(dba, tenant)
    for attempt in range(20):
        worker = session(owner.role)
        done = running(worker, table, batch=100)
        time.sleep(0.003 * attempt)
        dba.run("SELECT pg_terminate_backend(%s)", worker.pid)
        with contextlib.suppress(psycopg.Error):
            done.result(timeout=20)
    until(lambda: not dba.all("SELECT FROM cmk_internal.reencrypt_locks()"), what="the locks' release")
    assert table.opened() == plain(3000)
    table.reencrypt()
    assert (table.usage(), table.opened()) == ({(tenant.name, version): 3000}, plain(3000))


@pytest.fixture(scope="module")
def own_server(make_server):
    server = make_server({"max_prepared_transactions": "2"})
    server.make_local_key("shared")
    with server.connect() as admin:
        admin.execute("CREATE EXTENSION cmk_encrypt")
        admin.execute("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.grant_access('acme', 'postgres')")
    return server


def reconnected(server):
    with contextlib.suppress(psycopg.OperationalError):
        return Session(server.connect())


@pytest.mark.parametrize("how", ["kill", "immediate"])
def test_it_goes_on_after_the_server_crashed_at_any_point(own_server, how):
    left = []
    for number in range(3):
        admin = Session(own_server.connect())
        table = make_envelopes(admin, ["acme"], rows=3000)
        version = admin.one("SELECT cmk.rotate_tenant('acme')")
        worker = Session(own_server.connect())
        # At some moment near its beginning, and in its middle.
        done = running(worker, table, **(SLOW if number == 2 else {"batch": 100, "pause": 1}))
        if number == 2:
            until_some_are_done(admin, table)
            # A batch does not wait for the disk. This commit does, for all before it.
            admin.run("SELECT pg_logical_emit_message(true, '', '')")
        else:
            time.sleep(0.02 + 0.04 * number)
        if how == "kill":
            os.kill(worker.pid, signal.SIGKILL)
        else:
            own_server.restart("immediate")
        with contextlib.suppress(psycopg.Error):
            done.result(timeout=20)
        # The postmaster ends all others of a crashed one.
        until(lambda session=admin: session.connection.broken or is_gone(session), what="the crash")
        back = until(lambda: reconnected(own_server), timeout=30, what="the server's recovery")
        table = Envelopes(back, table.name)
        left.append(table.usage().get(("acme", version), 0))
        state = back.all('SELECT state FROM cmk.reencrypt_progress WHERE "table" = %s::regclass', table.name)
        assert state in ([], [("interrupted",)], [("done",)]), state
        assert table.opened() == plain(3000)
        table.reencrypt()
        assert (table.usage(), table.opened()) == ({("acme", version): 3000}, plain(3000))
        back.close()
    assert 0 < left[2] < 3000, left


def is_gone(session):
    try:
        session.run("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


@pytest.mark.parametrize("by", ["cancel", "statement_timeout"])
def test_it_can_be_cancelled_and_goes_on(session, dba, owner, local_tenant, by):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=1000)
    [version] = rotate(dba, tenant)
    worker = session(owner.role)
    worker.run(f"SET statement_timeout = '{'400ms' if by == 'statement_timeout' else '0'}'")
    done = running(worker, table, **SLOW)
    if by == "cancel":
        until_some_are_done(owner, table)
        assert owner.one('SELECT state FROM cmk.reencrypt_progress WHERE "table" = %s::regclass', table.name) == "running"
        dba.run("SELECT pg_cancel_backend(%s)", worker.pid)
    with fails_with("57014"):
        done.result(timeout=20)
    # The session lives, and does not keep the lock.
    assert worker.usable()
    assert table.progress("state, pid") == ("interrupted", None)
    assert 0 < table.usage()[(tenant.name, version)] < 1000
    table.reencrypt()
    assert (table.usage(), table.opened()) == ({(tenant.name, version): 1000}, plain(1000))


def test_a_second_run_of_a_column_is_refused_by_name(session, dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=1000)
    [version] = rotate(dba, tenant)
    worker = session(owner.role)
    done = running(worker, table, **SLOW)
    until_some_are_done(owner, table)
    with fails("55P03", "reencrypt_running"):
        table.reencrypt()
    dba.run("SELECT pg_cancel_backend(%s)", worker.pid)
    with fails_with("57014"):
        done.result(timeout=20)
    table.reencrypt()
    assert table.usage() == {(tenant.name, version): 1000}


def test_no_update_of_others_is_lost(session, dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=2000, more=", n int NOT NULL DEFAULT 0")
    rotate(dba, tenant)
    stop, writers, failures, written = threading.Event(), [session(owner.role) for _ in range(2)], [], [{}, {}]

    def write(writer, number):
        """Each row has one writer: so it is known what it must hold."""
        try:
            for n in range(1, 100_000):
                if stop.is_set():
                    return
                row = 1 + (n * 14 + number) % 2000
                if n % 2:
                    writer.run(f"UPDATE {table} SET n = n + 1 WHERE id = %s", row)
                else:
                    writer.run(f"UPDATE {table} SET n = n + 1, c = cmk_encrypt(tenant_id, %s, id::text::bytea) WHERE id = %s",
                               f"new-{n}", row)
                    written[number][row] = f"new-{n}"
                written[number][row, "n"] = written[number].get((row, "n"), 0) + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=it) for it in zip(writers, range(2), strict=True)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            table.reencrypt(batch=100, pause=1)
            rotate(dba, tenant)
        table.reencrypt(batch=100)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    known = {**written[0], **written[1]}
    assert table.opened() == plain(2000) | {row: value for row, value in known.items() if isinstance(row, int)}
    counts = dict(owner.all(f"SELECT id, n FROM {table} WHERE n > 0"))
    assert counts == {row[0]: count for row, count in known.items() if isinstance(row, tuple)}
    assert sum(counts.values()) > 200


def test_rows_that_somebody_holds_hold_nobody_up(session, dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=500)
    [version] = rotate(dba, tenant)
    other = session(owner.role)
    other.run("BEGIN")
    other.run(f"UPDATE {table} SET c = cmk_encrypt(tenant_id, 'theirs', id::text::bytea) WHERE id IN (3, 300)")
    heard = hear(owner)
    table.reencrypt(batch=100)
    assert table.progress() == ("incomplete", 498, 2, 2)
    assert any("held by somebody else" in (hint or "") for _, _, _, hint in heard)
    other.run("COMMIT")
    table.reencrypt()
    assert (table.progress()[:2], table.usage()) == (("done", 0), {(tenant.name, version): 500})
    assert table.opened() == plain(500) | {3: "theirs", 300: "theirs"}


def test_a_deadlock_costs_nobody_else_anything(session, dba, owner, local_tenant):
    """Two rows, locked by others in the opposite order of the table."""
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=2)
    rotate(dba, tenant)
    other = session(owner.role)
    for _ in range(5):
        other.run("BEGIN")
        other.run(f"UPDATE {table} SET tenant_id = tenant_id WHERE id = 2")
        done = running(owner, table)
        time.sleep(0.05)
        other.run(f"UPDATE {table} SET tenant_id = tenant_id WHERE id = 1")
        other.run("COMMIT")
        finish(done)
        rotate(dba, tenant)
    assert table.opened() == plain(2)


def test_a_tenant_that_rotates_meanwhile_ends_under_its_newest_data_key(session, dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=2000)
    rotate(dba, tenant)
    worker = session(owner.role)
    done = running(worker, table, batch=100, pause=3)
    until_some_are_done(owner, table)
    [version] = rotate(dba, tenant)
    finish(done)
    assert (table.usage(), table.opened()) == ({(tenant.name, version): 2000}, plain(2000))


def test_kms_failing_in_the_middle_stops_one_tenant_and_not_the_run(session, dba, owner, tenant, local_tenant, kms):
    away, there = tenant(), local_tenant()
    table = make_envelopes(owner, [away, there], rows=400)
    old = dba.one("SELECT min(version) FROM cmk.data_key WHERE tenant = %s", away.name)
    new, version = rotate(dba, away, there)
    worker = session(owner.role)
    done = running(worker, table, batch=50, pause=20)
    until(lambda: len(table.usage()) == 4, what="a first batch")
    kms.state(away.key_uri, "Disabled")
    dba.run("SELECT cmk.evict(%s)", away.name)
    finish(done)
    usage = table.usage()
    assert usage.pop((there.name, version)) == 200
    assert 0 < usage[(away.name, old)] < 200 and sum(usage.values()) == 200
    assert table.failures() == [({"tenant": away.name}, "key_disabled")]
    assert table.progress("state, rows_left") == ("incomplete", usage[(away.name, old)])
    kms.state(away.key_uri, "Enabled")
    dba.run("SELECT cmk.evict(%s)", away.name)
    table.reencrypt()
    assert table.usage() == {(away.name, new): 200, (there.name, version): 200}


@pytest.mark.parametrize("change", ["DROP TABLE {}", "ALTER TABLE {} DROP COLUMN c", "ALTER TABLE {} ALTER c TYPE text USING 'x'"])
def test_a_table_that_changes_meanwhile_ends_the_run_with_an_error(session, dba, owner, local_tenant, change):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=1000)
    rotate(dba, tenant)
    worker = session(owner.role)
    done = running(worker, table, batch=50, pause=20)
    until_some_are_done(owner, table)
    owner.run(change.format(table))
    with pytest.raises(psycopg.Error) as caught:
        done.result(timeout=20)
    assert caught.value.sqlstate in ("42P01", "42703", "42883", "42601"), repr(caught.value)
    assert worker.usable()
    assert not dba.all("SELECT FROM cmk_internal.reencrypt_locks()")
    if "TABLE {} ALTER" in change:
        state, error = table.progress("state, last_error")
        assert (state, bool(error)) == ("failed", True)


def test_a_read_only_session_and_a_standby_are_refused_by_name(own_server, request):
    admin = Session(own_server.connect())
    table = make_envelopes(admin, ["acme"], rows=5)
    admin.run("SELECT cmk.rotate_tenant('acme')")
    admin.run("SET default_transaction_read_only = on")
    with fails("25006", "read_only"):
        table.reencrypt()
    standby = Standby(own_server, {"cmk_encrypt.local_keys": "on"})
    request.addfinalizer(standby.destroy)
    with standby.connect() as connection:
        there = Envelopes(Session(connection), table.name)
        with fails("25006", "read_only"):
            there.reencrypt()
        # What needs no write works there.
        assert sum(there.usage().values()) == 5
    admin.close()


def test_a_restored_database_goes_on_where_the_dumped_one_was(session, own_server, tmp_path, request):
    admin = Session(own_server.connect())
    table = make_envelopes(admin, ["acme"], rows=1000)
    version = admin.one("SELECT cmk.rotate_tenant('acme')")
    worker = Session(own_server.connect())
    done = running(worker, table, **SLOW)
    until_some_are_done(admin, table)
    client(own_server, "pg_dump", "-Fc", "-f", tmp_path / "half.dump", "postgres")
    admin.run("SELECT pg_terminate_backend(%s)", worker.pid)
    with contextlib.suppress(psycopg.Error):
        done.result(timeout=20)
    own_server.execute("CREATE DATABASE half")
    request.addfinalizer(lambda: own_server.execute("DROP DATABASE half WITH (FORCE)"))
    client(own_server, "pg_restore", "--exit-on-error", "-j4", "-d", "half", tmp_path / "half.dump")
    with own_server.connect("half") as connection:
        restored = Envelopes(Session(connection), table.name)
        assert 0 < restored.usage()[("acme", version)] < 1000
        assert restored.session.all("SELECT FROM cmk.reencrypt_progress") == []
        assert restored.session.all("SELECT problem FROM cmk.check()") == []
        restored.reencrypt()
        assert (restored.usage(), restored.opened()) == ({("acme", version): 1000}, plain(1000))
    admin.close()
