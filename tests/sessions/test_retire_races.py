"""cmk.retire_keys() while values move: whatever anybody can still see or copy keeps its data key."""

import pytest

from reencryption import rotate
from server import until
from support import fails, wait_for_lock
from test_retire_keys import WORD, place, states  # noqa: F401

SEALED = "cmk_encrypt('acme', 'secret', ''::bytea)"
RETIRE = "SELECT version, destroyed FROM cmk.retire_keys('acme', %s)"


@pytest.fixture
def race(place, session):
    """A data key that a transaction has sealed a value of table b under, not committed; and cmk.retire_keys(), which
    waits for that transaction. `hold` keeps the table between a and b from being looked at."""
    dba, tenant = place
    acme = tenant("acme")
    here = {"dbname": dba.connection.info.dbname}
    for name in "amb":
        dba.run(f"CREATE TABLE {name} (v bytea)")
    writer, holder, mover = session(**here), session(**here), session(**here)
    retiring, observer = session(**here), session(**here)
    writer.run("BEGIN")
    writer.run(f"INSERT INTO b SELECT {SEALED}")
    rotate(dba, acme)

    class Race:
        def __init__(self):
            self.dba, self.writer, self.mover, self.observer, self.retiring = dba, writer, mover, observer, retiring

        def begin(self):
            self.done = retiring.start(RETIRE, WORD)
            wait_for_lock(observer, retiring.pid)

        def second_scan_waits(self):
            """The writer has committed; the table in the middle is locked, so the scan has not seen all."""
            holder.run("BEGIN")
            holder.run("LOCK TABLE m")
            writer.run("COMMIT")
            blocked = "SELECT pg_blocking_pids(%s) = ARRAY[%s::int]"
            until(lambda: observer.one(blocked, retiring.pid, holder.pid), what="the second scan waiting")

        def end(self):
            holder.run("COMMIT")
            return self.done.result(timeout=20)

        def opens(self, table):
            return dba.all(f"SELECT cmk_decrypt_text('acme', v, ''::bytea) FROM {table}") == [("secret",)]

    return Race()


def test_a_value_that_moves_between_tables_is_found(race):
    race.begin()
    race.second_scan_waits()
    race.mover.run("WITH gone AS (DELETE FROM b RETURNING v) INSERT INTO a SELECT v FROM gone")
    assert race.end() == [(1, False)]
    assert race.opens("a") and states(race.dba, "acme")[1] == ("retired", False)


def test_a_table_that_takes_the_place_of_another_is_looked_at(race):
    race.begin()
    race.second_scan_waits()
    race.dba.run(
        "CREATE FUNCTION move() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE c AS SELECT v FROM b; DROP TABLE b; END $$")
    moved = race.mover.start("SELECT move()")
    until(lambda: race.observer.one("SELECT to_regclass('c') IS NOT NULL OR EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = %s)",
                                    race.mover.pid), what="the move")
    assert race.end() == [(1, False)]
    moved.result(timeout=20)
    assert race.opens("c")


def test_a_value_that_somebody_with_an_older_snapshot_can_copy_is_found(race, session):
    other = session(dbname=race.dba.connection.info.dbname)
    other.run("BEGIN")
    other.run("SELECT txid_current()")
    race.begin()
    race.writer.run("COMMIT")
    race.mover.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert race.mover.one("SELECT count(*) FROM b") == 1
    race.dba.run(f"UPDATE b SET v = {SEALED}")
    other.run("COMMIT")
    assert race.done.result(timeout=20) == [(1, False)]
    race.mover.run("INSERT INTO a SELECT v FROM b")
    race.mover.run("COMMIT")
    assert race.opens("a") and race.opens("b")
    # Once nobody has such a snapshot, and nothing of it is left, it goes.
    race.dba.run("DELETE FROM a")
    assert race.dba.all(RETIRE, WORD) == [(1, True)]
    assert race.opens("b")


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SET default_transaction_isolation = serializable"])
def test_it_is_a_transaction_of_its_own(race, begin):
    race.writer.run("COMMIT")
    race.retiring.run(begin)
    with fails("55000", "retirement_blocked", "acme"):
        race.retiring.run(RETIRE, WORD)
    assert states(race.dba, "acme")[1] == ("retired", False)


def test_a_second_one_is_refused_while_one_waits(race):
    race.begin()
    with fails("55P03", "tenant_busy"):
        race.mover.run(RETIRE, WORD)
    race.writer.run("COMMIT")
    assert race.done.result(timeout=20) == [(1, False)]
