"""What tests of index key rotation share: a table with a unique token index, the steps, and a load that watches."""

import random
import threading

import psycopg
import pytest

from searching import drop_indexes, index_keys, tokens
from server import until
from support import check_failure, unique

ROWS = 1500
# A duplicate that is inserted while its value is sealed anew may meet that in two indexes, in either order.
REFUSED = psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected
SHAPE = "id int PRIMARY KEY, tenant_id text NOT NULL, ssn text NOT NULL, note text"


class Rotation:
    """A tenant, its table with a unique token index and `ROWS` rows of distinct values, and the steps of a rotation."""

    def __init__(self, world, name=None, rows=ROWS):
        self.world, self.dba = world, world.connect()
        self.tenant = name or world.tenant(unique("rotating"), "app")
        self.table = unique("users")
        world.make(self.table, shape=SHAPE, columns=("ssn",), searchable=True)
        drop_indexes(self.dba, self.table)
        self.dba.run(f"INSERT INTO {self.table} SELECT n, %s, 'value ' || n, 'n' FROM generate_series(1, {rows}) n",
                     self.tenant)
        self.dba.run(f"CREATE UNIQUE INDEX {self.table}_ssn ON {self.table} (tenant_id, ssn cmk_token_ops)")
        self.dba.run(f"ANALYZE {self.table}")
        self.rows = rows

    def rotate(self):
        return self.dba.one("SELECT cmk.rotate_index_key(%s)", self.tenant)

    def seal(self, session=None, **arguments):
        given = "".join(f", {name} => {value}" for name, value in {"pause": 0, **arguments}.items())
        (session or self.dba).run(f"CALL cmk.seal_table('{self.table}'{given})")

    def twin(self):
        self.dba.run(f"CREATE UNIQUE INDEX CONCURRENTLY {self.table}_next ON {self.table}"
                     " (tenant_id, ssn cmk_token_next_ops)")

    def finish(self):
        return self.dba.one("SELECT cmk.finish_index_rotation(%s)", self.tenant)

    def finishes(self):
        """Whether it does. What is in the way may be said by the answer or by an error."""
        try:
            return self.finish()
        except psycopg.Error as error:
            reasons = {"42809": "index_rotation_refused", "55000": "index_rotation_open"}
            check_failure(error, error.sqlstate, reasons.get(error.sqlstate), self.tenant)
            return False

    def cancel(self):
        self.dba.run("SELECT cmk.cancel_index_rotation(%s)", self.tenant)

    def drop_twin(self):
        self.dba.run(f"DROP INDEX CONCURRENTLY {self.table}_next")

    def steps(self):
        """Each step in its turn, and the states of the tenant's index keys after it, oldest first."""
        yield "rotate", self.rotate, ["current", "next"]
        yield "seal", self.seal, ["current", "next"]  # which cannot end it: the unique index has no twin
        yield "twin", self.twin, ["current", "next"]
        yield "finish", self.finish, ["retired", "current"]
        yield "seal again", self.seal, ["retired", "current"]
        yield "drop the twin", self.drop_twin, ["retired", "current"]

    def states(self):
        return [state for (state,) in self.dba.all(
            "SELECT state FROM cmk.data_key WHERE tenant = %s AND purpose = 'index' ORDER BY version", self.tenant)]

    def keys_in_use(self):
        """The sets of index keys that rows of the tenant have tokens of, each in order."""
        rows = self.dba.all(f"SELECT DISTINCT substr(cmk.envelope(ssn), 1, 94) FROM {self.table} WHERE tenant_id = %s",
                            self.tenant)
        return {tuple(id for id, _ in tokens(header)) for (header,) in rows}

    def key(self, state):
        return index_keys(self.dba, self.tenant)[state]

    def drop(self):
        """Another tenant's rotation would want twins of this table's indexes, too, and mind that this one is open."""
        self.dba.run(f"DROP TABLE {self.table}")
        self.cancel()

    def duplicates(self):
        """Values that are there more than once, by opening them all."""
        return self.dba.all(f"SELECT ssn::text FROM {self.table} WHERE tenant_id = %s GROUP BY 1 HAVING count(*) > 1",
                            self.tenant)

    def found(self, session, numbers):
        """The values of these rows that are not found, or not by these rows."""
        return [n for n in numbers if session.all(
            f"SELECT id FROM {self.table} WHERE tenant_id = %s AND ssn = %s", self.tenant, f"value {n}") != [(n,)]]


class Load:
    """Sessions that search and write all the time, and note what must not be."""

    def __init__(self, rotation):
        self.rotation, self.faults, self.done = rotation, [], {}
        self._stop = threading.Event()
        self._raced = {}
        work = {"searches": self._search, "lists": self._search_lists, "duplicates": self._insert_duplicate,
                "updates": self._update, "upserts": self._upsert, "races": self._race, "races too": self._race}
        self._threads = [threading.Thread(target=self._run, args=(name, step), name=name)
                         for name, step in work.items()]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name, step):
        draw, session, count = random.Random(name), self.rotation.world.connect("app"), 0
        self.done[name] = 0
        while not self._stop.is_set():
            try:
                step(session, draw, count)
            except (psycopg.Error, AssertionError) as fault:
                self.faults.append((name, fault))
                if session.connection.broken:
                    return
            count += 1
            self.done[name] = count
            self._stop.wait(0.004)

    def beat(self, times=25):
        """Returns once each session has done its work so many more times; nothing wrong has been seen so far."""
        before = dict(self.done)
        until(lambda: len(self.done) == len(self._threads) and all(
            self.done[name] >= before.get(name, 0) + times for name in self.done), 60, "the load")
        assert self.faults == [], self.faults[:5]

    def _search(self, session, draw, count):
        n = draw.randint(1, self.rotation.rows)
        assert self.rotation.found(session, [n]) == [], n
        session.run("SELECT set_config('cmk_encrypt.tenant', %s, false)", self.rotation.tenant)
        seen = session.all(f"SELECT id FROM {self.rotation.table} WHERE ssn = %s", f"value {n}")
        assert seen == [(n,)], (n, seen)

    def _search_lists(self, session, draw, count):
        numbers = sorted(draw.sample(range(1, self.rotation.rows + 1), 15))
        seen = session.all(f"SELECT id FROM {self.rotation.table} WHERE tenant_id = %s AND ssn = ANY (%s) ORDER BY id",
                           self.rotation.tenant, [f"value {n}" for n in numbers])
        assert seen == [(n,) for n in numbers], (numbers, seen)

    def _insert_duplicate(self, session, draw, count):
        n = draw.randint(1, self.rotation.rows)
        try:
            session.run(f"INSERT INTO {self.rotation.table} VALUES (%s, %s, %s, 'duplicate')", 10_000_000 + count,
                        self.rotation.tenant, f"value {n}")
        except REFUSED:
            return
        raise AssertionError(f"a second value {n}")

    def _update(self, session, draw, count):
        """Writes a value anew, under whatever keys are to be used now."""
        n = draw.randint(1, self.rotation.rows)
        update = f"UPDATE {self.rotation.table} SET ssn = ssn || '', note = %s WHERE id = %s"
        assert session.run(update, str(count), n).rowcount == 1

    def _upsert(self, session, draw, count):
        n = draw.randint(1, self.rotation.rows)
        ids = session.all(f"INSERT INTO {self.rotation.table} VALUES (%s, %s, %s, 'n') ON CONFLICT (tenant_id, ssn)"
                          " DO UPDATE SET note = excluded.note RETURNING id", 20_000_000 + count, self.rotation.tenant,
                          f"value {n}")
        assert ids == [(n,)], (n, ids)

    def _race(self, session, draw, count):
        """Two sessions insert the same new values; each value once."""
        me = threading.current_thread().name
        id = 30_000_000 + 2 * count + (me == "races")
        try:
            session.run(f"INSERT INTO {self.rotation.table} VALUES (%s, %s, %s, 'raced')", id, self.rotation.tenant,
                        f"race {count}")
        except REFUSED:
            return
        twice = self._raced.setdefault(count, me)
        assert twice == me, f"race {count} was won twice"


# Fixtures, to be imported by the modules that use them


@pytest.fixture
def make_rotation(world):
    """Makes rotations, whose tables go at the end of the test."""
    made = []

    def make(**arguments):
        made.append(Rotation(world, **arguments))
        return made[-1]

    yield make
    for rotation in made:
        rotation.drop()


@pytest.fixture
def rotation(make_rotation):
    return make_rotation()
