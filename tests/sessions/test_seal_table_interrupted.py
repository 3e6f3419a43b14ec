"""cmk.seal_table() among others, and interrupted: killed, cancelled, waiting."""

import contextlib
import os
import re
import signal
import threading
import time

import psycopg

from protected import Table, hear, make_table, plaintexts, protected
from server import until
from support import Session, fails_with


def test_it_goes_on_after_its_session_was_ended_at_any_point(session, owner, local_tenant):
    table = protected(owner, [local_tenant(), local_tenant()], rows=3000)
    end = session("postgres")
    for attempt in range(25):
        worker = session(owner.role)
        done = worker.start(f"CALL cmk.seal_table('{table}', batch_blocks => 2)")
        time.sleep(0.003 * attempt)
        end.run("SELECT pg_terminate_backend(%s)", worker.pid)
        with contextlib.suppress(psycopg.Error):
            done.result(timeout=20)
    assert table.values() == plaintexts(3000)
    table.seal()
    assert (table.unsealed(), table.values()) == (0, plaintexts(3000))
    assert table.checks()["cmk_sealed_ssn"][1] is True


def test_it_goes_on_after_the_server_crashed_at_any_point(make_server):
    server = make_server()
    server.make_local_key("shared")
    tables = [f"users_{number}" for number in range(6)]
    with server.connect() as admin:
        admin.execute("CREATE EXTENSION cmk_encrypt")
        admin.execute("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.grant_access('acme', 'postgres')")
        for name in tables:
            table = make_table(Session(admin), ["acme"], 3000)
            admin.execute(f"ALTER TABLE {table} RENAME TO {name}")
            Table(Session(admin), name).protect(tenant_column="tenant_id", rewrite=False)
    left = []
    for number, name in enumerate(tables):
        worker, bystander = Session(server.connect()), Session(server.connect())
        done = worker.start(f"CALL cmk.seal_table('{name}', batch_blocks => 2)")
        time.sleep(0.01 + 0.02 * number)
        os.kill(worker.pid, signal.SIGKILL)
        with contextlib.suppress(psycopg.Error):
            done.result(timeout=20)
        until(lambda: bystander.connection.broken or is_gone(bystander), what="the crash")
        back = until(lambda: reconnected(server), timeout=30, what="the server's recovery")
        back.run("SET cmk_encrypt.output = plaintext")
        table = Table(back, name)
        left.append(table.unsealed())
        assert table.values() == plaintexts(3000)
        table.seal()
        assert (table.unsealed(), table.values()) == (0, plaintexts(3000))
        assert table.checks()["cmk_sealed_ssn"][1] is True
        back.close()
    assert any(0 < rows < 3000 for rows in left), left


def is_gone(session):
    try:
        session.run("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def reconnected(server, dbname="postgres"):
    with contextlib.suppress(psycopg.OperationalError):
        return Session(server.connect(dbname))


def test_it_tells_how_far_it_is_and_can_be_cancelled(session, owner, local_tenant):
    table = protected(owner, [local_tenant()])
    heard = hear(owner)
    done = owner.start(f"CALL cmk.seal_table('{table}', batch_blocks => 1, pause => 1000)")
    until(lambda: heard, timeout=30, what="a word about progress")
    message = heard[0][1]
    assert re.fullmatch(rf"ssn of ({owner.role}\.)?{table}: \d+ of \d+ blocks, \d+ rows sealed", message), message
    session().run("SELECT pg_cancel_backend(%s)", owner.pid)
    with fails_with("57014"):
        done.result(timeout=20)
    rows = int(message.split()[-3])
    assert 0 < rows <= 2000 - table.unsealed()
    table.seal()
    assert table.unsealed() == 0


def test_others_insert_and_update_meanwhile(session, owner, local_tenant):
    tenant = local_tenant()
    table = protected(owner, [tenant], rows=4000)
    stop, writers = threading.Event(), [session(owner.role) for _ in range(2)]
    failures = []

    def write(writer, number):
        try:
            for n in range(1, 100_000):
                if stop.is_set():
                    return
                writer.run(f"UPDATE {table} SET ssn = ssn || '' WHERE id = %s", 1 + (n * 7 + number) % 4000)
                writer.run(f"INSERT INTO {table} VALUES (%s, %s, 'new')", 10_000 + n * 2 + number, tenant.name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=it) for it in zip(writers, range(2), strict=True)]
    for thread in threads:
        thread.start()
    try:
        table.seal(batch_blocks=2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert table.unsealed() == 0
    assert table.checks()["cmk_sealed_ssn"][1] is True
    assert table.values()[:4000] == plaintexts(4000)


def test_a_row_that_somebody_else_holds_is_waited_for(session, owner, local_tenant):
    table = protected(owner, [local_tenant()], rows=10)
    other = session(owner.role)
    other.run("BEGIN")
    other.run(f"UPDATE {table} SET ssn = 'changed' WHERE id = 3")
    sealing = owner.start(f"CALL cmk.seal_table('{table}')")
    until(lambda: other.one("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", owner.pid) == "Lock")
    other.run("COMMIT")
    with contextlib.suppress(psycopg.ProgrammingError):  # CALL returns no rows
        sealing.result(timeout=20)
    assert (table.unsealed(), table.values()[2]) == (0, "changed")
