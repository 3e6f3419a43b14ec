"""A rotation of an index key that is killed at any step goes on; and copies of the database follow it."""

import contextlib
import os
import signal
import time

import psycopg
import pytest

from columns import Client, dba, opened  # noqa: F401 (fixtures)
from rotation import SHAPE, Load, Rotation, make_rotation, rotation  # noqa: F401 (fixtures)
from searching import SearchWorld, world  # noqa: F401 (fixtures)
from server import until
from standby import Standby, replayed
from support import fails_with, unique
from test_seal_table_interrupted import is_gone, reconnected


def test_rotating_in_a_transaction_that_is_rolled_back_does_nothing(rotation, world):
    old = rotation.keys_in_use()
    rotation.dba.run("BEGIN")
    rotation.rotate()
    rotation.dba.run(f"INSERT INTO {rotation.table} VALUES (9001, %s, 'both', 'n')", rotation.tenant)
    rotation.dba.run("ROLLBACK")
    assert rotation.states() == ["current"]
    rotation.dba.run(f"INSERT INTO {rotation.table} VALUES (9001, %s, 'one', 'n')", rotation.tenant)
    assert rotation.keys_in_use() == old
    rotation.rotate()
    rotation.seal()
    rotation.twin()
    rotation.dba.run("BEGIN")
    assert rotation.finish() is True
    rotation.dba.run("ROLLBACK")
    assert rotation.states() == ["current", "next"]
    assert rotation.finish() is True


def test_to_begin_it_waits_for_writers(rotation, world):
    """They may not know yet of the next key, or of the last rotation's end."""
    writer, beginner = world.connect("app"), world.connect()
    insert = f"INSERT INTO {rotation.table} VALUES (%s, %s, %s, 'n')"
    writer.run("BEGIN")
    writer.run(insert, 9001, rotation.tenant, "early")
    waiting = beginner.start("SELECT cmk.rotate_index_key(%s)", rotation.tenant)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.5)
    writer.run(insert, 9002, rotation.tenant, "late")
    writer.run("COMMIT")
    waiting.result(timeout=20)
    assert rotation.states() == ["current", "next"]
    rotation.dba.run(f"UPDATE {rotation.table} SET ssn = ssn || '' WHERE id < 9000")
    rotation.twin()
    assert not rotation.finishes()
    rotation.seal()
    assert rotation.states() == ["retired", "current"]
    rotation.seal()
    assert rotation.keys_in_use() == {(rotation.key("current"),)} and rotation.duplicates() == []


def test_to_finish_it_waits_for_writers(rotation, world):
    for step in (rotation.rotate, rotation.seal, rotation.twin):
        step()
    writer, finisher = world.connect("app"), world.connect()
    writer.run("BEGIN")
    writer.run(f"INSERT INTO {rotation.table} VALUES (9001, %s, 'open', 'n')", rotation.tenant)
    waiting = finisher.start("SELECT cmk.finish_index_rotation(%s)", rotation.tenant)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.5)
    # Others write meanwhile.
    world.connect("app").run(f"INSERT INTO {rotation.table} VALUES (9002, %s, 'other', 'n')", rotation.tenant)
    with fails_with("23505"):
        world.connect("app").run(f"INSERT INTO {rotation.table} VALUES (9003, %s, 'value 1', 'n')", rotation.tenant)
    writer.run("COMMIT")
    assert waiting.result(timeout=20) == [(True,)]
    with fails_with("23505"):
        world.connect("app").run(f"INSERT INTO {rotation.table} VALUES (9003, %s, 'open', 'n')", rotation.tenant)
    assert rotation.duplicates() == []


def test_sealing_that_is_ended_at_any_point_goes_on(rotation, world):
    attempts = iter(range(30))
    with Load(rotation) as load:
        for name, step, states in rotation.steps():
            if name.startswith("seal"):
                for attempt in (next(attempts) for _ in range(12)):
                    worker = world.connect()
                    done = worker.start(f"CALL cmk.seal_table('{rotation.table}', batch_blocks => 1, pause => 0)")
                    time.sleep(0.004 * attempt)
                    rotation.dba.run("SELECT pg_terminate_backend(%s)", worker.pid)
                    with contextlib.suppress(psycopg.Error):
                        done.result(timeout=20)
                    assert rotation.states() == states
                load.beat(5)
            step()
            load.beat(5)
    assert rotation.keys_in_use() == {(rotation.key("current"),)}
    assert rotation.duplicates() == []


def test_building_the_twin_that_is_cancelled_does_not_let_it_finish(rotation, world):
    rotation.rotate()
    rotation.seal()
    # A failed CREATE INDEX CONCURRENTLY leaves an invalid index.
    rotation.dba.run("SET statement_timeout = '1ms'")
    with contextlib.suppress(psycopg.errors.QueryCanceled):
        while True:
            rotation.twin()
            rotation.dba.run(f"DROP INDEX {rotation.table}_next")
    rotation.dba.run("RESET statement_timeout")
    valid = rotation.dba.all("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)",
                             f"{rotation.table}_next")
    assert rotation.finishes() is (valid == [(True,)])
    rotation.dba.run(f"DROP INDEX IF EXISTS {rotation.table}_next")
    if rotation.states() == ["current", "next"]:
        rotation.twin()
        assert rotation.finish() is True


# A crash


@pytest.fixture(scope="module")
def fragile(make_server, kms_process):
    """A server whose processes may be killed."""
    server = make_server()
    server.make_local_key("shared")
    return SearchWorld(server, kms_process)


@pytest.mark.parametrize("step", range(6), ids=["rotate", "seal", "twin", "finish", "seal again", "drop"])
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.06])
def test_after_a_crash_at_any_step_it_goes_on(fragile, step, delay):
    server = fragile.server
    fragile.dba = until(lambda: as_client(reconnected(server, fragile.dbname)), timeout=30, what="a connection")
    rotation = Rotation(fragile, rows=1200)
    table, seal = rotation.table, f"CALL cmk.seal_table('{rotation.table}', batch_blocks => 1)"
    calls = [
        f"SELECT cmk.rotate_index_key('{rotation.tenant}')", seal,
        f"CREATE UNIQUE INDEX CONCURRENTLY {table}_next ON {table} (tenant_id, ssn cmk_token_next_ops)",
        f"SELECT cmk.finish_index_rotation('{rotation.tenant}')", seal, f"DROP INDEX CONCURRENTLY {table}_next",
    ]
    for _, run, _ in list(rotation.steps())[:step]:
        run()
    worker, bystander = fragile.connect(), fragile.connect()
    done = worker.start(calls[step])
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGKILL)
    with contextlib.suppress(psycopg.Error):
        done.result(timeout=20)
    until(lambda: bystander.connection.broken or is_gone(bystander), what="the crash")
    rotation.dba = until(lambda: as_client(reconnected(server, fragile.dbname)), timeout=30, what="the recovery")
    assert rotation.found(rotation.dba, range(1, 1201, 13)) == []
    with fails_with("23505"):
        rotation.dba.run(f"INSERT INTO {rotation.table} VALUES (9999, %s, 'value 5', 'n')", rotation.tenant)
    go_on(rotation)
    assert rotation.keys_in_use() == {(rotation.key("current"),)}
    assert (rotation.duplicates(), rotation.found(rotation.dba, range(1, 1201))) == ([], [])
    rotation.drop()


def as_client(session):
    return session and Client(session.connection)


def go_on(rotation):
    """What an administrator does who does not know how far it came."""
    if rotation.states() == ["current"]:
        rotation.rotate()
    rotation.seal()
    if rotation.states() == ["current", "next"]:
        rotation.dba.run(f"DROP INDEX IF EXISTS {rotation.table}_next")
        rotation.twin()
        assert rotation.finish() is True
    rotation.seal()
    rotation.dba.run(f"DROP INDEX IF EXISTS {rotation.table}_next")


# Copies


def test_a_standby_finds_at_each_step(make_server, kms_process):
    primary = make_server()
    primary.make_local_key("shared")
    world = SearchWorld(primary, kms_process)
    rotation = Rotation(world, rows=300)
    endpoint = {"cmk_encrypt.local_keys": "on", "cmk_encrypt.kms_endpoint_url": kms_process.url}
    standby = Standby(primary, endpoint)
    try:
        session = Client(standby.connect(world.dbname, world.roles["app"]))
        for _, step, _ in [("nothing", lambda: None, []), *rotation.steps()]:
            step()
            replayed((primary, standby))
            assert rotation.found(session, range(1, 301, 3)) == []
            assert len(session.all(f"SELECT id FROM {rotation.table} WHERE ssn IN ('value 1', 'value 2', 'x')")) == 2
        session.close()
    finally:
        standby.destroy()


def test_a_subscriber_that_has_the_registry_finds_at_each_step(make_server, kms_process):
    server = make_server({"wal_level": "logical"})
    server.make_local_key("shared")
    world = SearchWorld(server, kms_process)
    rotation, name = Rotation(world, rows=300), unique("subscriber")
    server.execute(f"CREATE DATABASE {name}")
    there = Client(server.connect(name))
    there.run("CREATE EXTENSION cmk_encrypt")
    there.run(f"CREATE TABLE {rotation.table} ({SHAPE})")
    there.run(f"SELECT cmk.protect_column('{rotation.table}', 'ssn', tenant_column => 'tenant_id', searchable => true)")
    there.run(f"CREATE INDEX ON {rotation.table} (ssn cmk_token_ops)")
    there.run("SET enable_seqscan = off")
    # All tables of the publisher, of which one is the registry's, are published.
    world.dba.run(f"CREATE PUBLICATION p FOR TABLE {rotation.table}, cmk.tenant, cmk.data_key, cmk.access")
    world.dba.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    there.run(f"CREATE SUBSCRIPTION s CONNECTION 'host={server.socket} dbname={world.dbname} user=postgres'"
              " PUBLICATION p WITH (create_slot = false, slot_name = s)")

    def copied():
        rows = "SELECT id, cmk.envelope(ssn) FROM {} ORDER BY id".format(rotation.table)
        keys = "SELECT dek_id, state FROM cmk.data_key ORDER BY 1"
        tenants = "SELECT tenant, epoch FROM cmk.tenant ORDER BY 1"
        grants = "SELECT id FROM cmk.access ORDER BY 1"
        return all(world.dba.all(sql) == there.all(sql) for sql in (rows, keys, tenants, grants))

    try:
        for _, step, _ in [("nothing", lambda: None, []), *rotation.steps()]:
            step()
            until(copied, 30, "the copy")
            until(lambda: rotation.found(there, range(1, 301, 3)) == [], 10, "what is there to be found")
    finally:
        there.run("ALTER SUBSCRIPTION s DISABLE")
        there.run("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        there.run("DROP SUBSCRIPTION s")
        there.close()
