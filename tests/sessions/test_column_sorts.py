"""Sorts of many values, in memory and spilled, as of a text column; and what a sort leaves on disk."""

import random

import pytest

from columns import SHAPE, dba, opened, world  # noqa: F401 (fixtures)
from support import fails
from test_column_statements import outcome

ROWS = 6000
MEMORY = ["64kB", "64MB"]

SORTS = [
    "SELECT id FROM {t} ORDER BY ssn, id", "SELECT id FROM {t} ORDER BY ssn DESC NULLS LAST, id DESC",
    "SELECT ssn FROM {t} ORDER BY ssn NULLS FIRST", "SELECT id FROM {t} ORDER BY note, ssn, id",
    "SELECT id FROM {t} ORDER BY ssn, note DESC, id", "SELECT id FROM {t} ORDER BY tenant_id, ssn DESC, id",
    "SELECT id FROM {t} ORDER BY ssn COLLATE other, id",
    "SELECT id FROM {t} ORDER BY ssn COLLATE \"C\" DESC, id LIMIT 50",
    "SELECT id, ssn FROM {t} ORDER BY ssn, id LIMIT 20",
    "SELECT id FROM {t} ORDER BY ssn DESC, id OFFSET 5000 LIMIT 20",
    "SELECT DISTINCT ssn FROM {t} ORDER BY ssn", "SELECT DISTINCT ON (ssn) id FROM {t} ORDER BY ssn, id DESC",
    "SELECT ssn, count(*) FROM {t} GROUP BY ssn ORDER BY ssn",
    "SELECT count(DISTINCT ssn), count(DISTINCT note), count(DISTINCT (ssn, note)) FROM {t}",
    "SELECT tenant_id, count(DISTINCT ssn) FROM {t} GROUP BY 1 ORDER BY 1",
    "SELECT string_agg(DISTINCT ssn::text, ',' ORDER BY ssn::text) FROM {t}",
    "SELECT array_agg(DISTINCT ssn) FROM {t}", "SELECT array_agg(ssn ORDER BY ssn, id) FROM {t}",
    "SELECT mode() WITHIN GROUP (ORDER BY ssn), percentile_disc(0.3) WITHIN GROUP (ORDER BY ssn) FROM {t}",
    "SELECT max(ssn), min(ssn) FROM {t}",
    "SELECT id, rank() OVER (ORDER BY ssn), dense_rank() OVER (PARTITION BY tenant_id ORDER BY ssn),"
    " lag(ssn) OVER (ORDER BY ssn, id) FROM {t}",
    "SELECT id, ntile(7) OVER (PARTITION BY ssn ORDER BY id) FROM {t}",
    "SELECT count(*), sum(a.id) FROM {t} a JOIN {t} b ON a.ssn = b.ssn AND a.note = b.note",
    "SELECT a.id, b.id FROM {t} a LEFT JOIN {t} b ON a.ssn = b.note ORDER BY a.ssn, a.id, b.id LIMIT 500",
    "SELECT count(*) FROM (SELECT ssn FROM {t} EXCEPT SELECT note FROM {t}) q",
    "SELECT count(*) FROM (SELECT ssn FROM {t} INTERSECT ALL SELECT note FROM {t}) q",
    "SELECT count(*) FROM (SELECT ssn FROM {t} UNION SELECT note FROM {t}) q",
    "SELECT n, x.id FROM generate_series(1, 3) n, LATERAL (SELECT id FROM {t} WHERE id % 7 > n ORDER BY"
    " ssn, id LIMIT 4) x ORDER BY n, x.id",
    "SELECT id FROM (SELECT * FROM {t} ORDER BY tenant_id) q ORDER BY tenant_id, ssn, id",
    "SELECT ssn, note, count(*) FROM {t} GROUP BY ROLLUP (ssn, note) ORDER BY 1, 2, 3",
]


@pytest.fixture(scope="module")
def t(world):
    """Values with long common beginnings, duplicates in both tenants, NULLs, and some that are long."""
    draw = random.Random(7)
    words = ["", " ", "~", "long " * 400] + [
        "common beginning " * draw.randint(0, 2) + str(draw.randint(0, 400)) + "é" * draw.randint(0, 3)
        for _ in range(700)
    ]
    rows = [(n, draw.choice(["acme", "bolt"]), draw.choice([*words, None]),
             draw.choice([*words[:40], None])) for n in range(ROWS)]
    world.make("sorted")
    world.dba.run(f"CREATE TABLE sorted_text ({SHAPE})")
    world.dba.run("GRANT ALL ON sorted_text TO PUBLIC")
    for name in ("sorted", "sorted_text"):
        with world.dba.connection.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        world.dba.run(f"ANALYZE {name}")
    return "sorted", "sorted_text"


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("settings", [
    [], ["enable_hashagg = off"], ["enable_incremental_sort = off"],
    ["parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0",
     "max_parallel_workers_per_gather = 2"],
], ids=["as it likes", "no hashing", "no incremental sort", "parallel"])
def test_sorts_give_what_they_give_on_text(world, t, memory, settings):
    user = world.reader()
    user.stats()  # loads the library
    for setting in ("jit = off", f"work_mem = '{memory}'", *settings):
        user.run(f"SET {setting}")
    found = []
    for template in SORTS:
        seen, expected = (outcome(user, template.format(t=name)) for name in t)
        assert expected[0] != "error", (template, expected)
        if seen != expected:
            found.append(f"{template}\n    gives   {str(seen)[:300]}\n    on text {str(expected)[:300]}")
    assert not found, f"{len(found)} of {len(SORTS)}:\n" + "\n".join(found)


def test_each_value_of_a_sort_in_memory_is_opened_once(world, dba, t):
    user = world.connect("app")
    count = dba.one(f"SELECT count(ssn) FROM {t[0]}")
    user.run("SET work_mem = '64MB'")
    with user.counts(opens=count):
        user.all(f"SELECT id FROM {t[0]} ORDER BY ssn")


def temporary_files(server):
    files = (server.data / "base" / "pgsql_tmp").rglob("*")
    return b"".join(path.read_bytes() for path in files if path.is_file())


def test_a_spilled_sort_leaves_no_plaintext_on_disk(world, server, t):
    """The cursor stays open, and so the files of its sort."""
    user = world.reader()
    user.run("SET work_mem = '64kB'")
    with user.connection.transaction():
        for number, order in enumerate(("ssn", "note, ssn", "ssn DESC")):
            user.run(f"DECLARE c{number} CURSOR FOR SELECT id, ssn FROM {t[0]} ORDER BY {order}")
            user.run(f"FETCH 1 FROM c{number}")
        spilled = temporary_files(server)
    assert len(spilled) > 100_000 and b"common beginning" not in spilled and b"long long" not in spilled
    control = world.connect("app")
    control.run("SET work_mem = '64kB'")
    with control.connection.transaction():
        control.run(f"DECLARE c CURSOR FOR SELECT id, ssn FROM {t[1]} ORDER BY ssn")
        control.run("FETCH 1 FROM c")
        assert b"common beginning" in temporary_files(server)


def test_a_sort_that_meets_a_forbidden_row_fails_and_the_next_works(world, t):
    ro = world.reader("ro")
    for _ in range(3):
        with fails("42501", "no_grant", "bolt"):
            ro.run(f"SELECT id FROM {t[0]} ORDER BY ssn")
        ordered = [ssn for (ssn,) in ro.all(f"SELECT ssn FROM {t[0]} WHERE tenant_id = 'acme' AND ssn IS NOT"
                                            " NULL ORDER BY ssn COLLATE \"C\"")]
        assert ordered == sorted(ordered, key=str.encode) and len(ordered) > ROWS // 3


def test_a_sorted_cursor_moves_back_and_forth(world, t):
    user = world.reader()
    for memory in MEMORY:
        user.run(f"SET work_mem = '{memory}'")
        with user.connection.transaction():
            for name, of in zip("ab", t):
                user.run(f"DECLARE {name} SCROLL CURSOR FOR SELECT id, ssn FROM {of} ORDER BY ssn, id")
            for move in ("FETCH 10", "FETCH LAST", "FETCH BACKWARD 50", "FETCH ABSOLUTE 3000", "FETCH FIRST",
                         "FETCH ALL"):
                assert user.all(f"{move} FROM a") == user.all(f"{move} FROM b"), (memory, move)
