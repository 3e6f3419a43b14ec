"""Whatever scan finds the rows, and however far their sealing or their index key's rotation is: the same rows."""

import random

import psycopg
import pytest

from columns import SHAPE, dba, opened, protect  # noqa: F401 (fixtures)
from searching import SCANS, ids, index_keys, nodes, scanning, tokens, world  # noqa: F401 (fixtures)
from support import check_failure, unique

DRAW = random.Random(10)
# What texts may be: '', with spaces, wide, composed in two ways, long, and what looks like armor or its escape.
VALUES = ["", " ", "a", "A", "ä", "a\u0308", "Zoë", "日本語", "🔐", "x" * 300, "x" * 301, "222", "222 ", "%", "_", "cmk1:",
          "cmk0:cmk1:a", "cmk0:", "cmk1:" + "A" * 60, "NULL", "\\", "'", "\t", "\x01", "{a,b}", "ß", "ss", "İ"]
KINDS = ["sealed", "half", "rotating", "rotated"]

# `{x}`, `{y}` are values, `{a}` one of the two tenants.
EQUALITIES = [
    "ssn = {x}", "{x} = ssn", "ssn = {x}::text", "ssn = {x}::varchar", "ssn <> {x}", "NOT ssn = {x}",
    "ssn IN ({x}, {y})", "ssn NOT IN ({x}, {y})", "ssn IN ({x}, NULL)", "ssn NOT IN ({x}, NULL)",
    "ssn = ANY (ARRAY[{x}, {y}, NULL])",
    "ssn <> ALL (ARRAY[{x}, {y}])", "ssn IN ({x}, {y}, 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j')",
    "ssn NOT IN ({x}, {y}, 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j')",
    "ssn IN ({x}, {y}, 'c', 'd', 'e', 'f', 'g', 'h', 'i', NULL)", "ssn = {x} OR ssn = {y}", "ssn = {x} OR id < 5",
    "ssn = {x} OR ssn IS NULL", "ssn = {x} AND ssn = {y}", "ssn = {x} AND id > 20", "ssn = {x} AND note = {y}",
    "tenant_id = '{a}' AND ssn = {x}", "tenant_id = '{a}' AND ssn IN ({x}, {y})", "(tenant_id, ssn) = ('{a}', {x})",
    "tenant_id = '{a}' AND ssn <> {x}", "ssn IS DISTINCT FROM {x}", "ssn IS NOT DISTINCT FROM {x}",
    "(ssn = {x}) IS NOT TRUE", "(ssn = {x}) IS NULL", "coalesce(ssn = {x}, false)",
    "CASE WHEN ssn = {x} THEN id < 30 ELSE id > 50 END", "id IN (SELECT id FROM {t} WHERE ssn = {x})",
    "EXISTS (SELECT FROM {t} o WHERE o.ssn = {x} AND o.tenant_id = {t}.tenant_id)",
    "ssn IN (SELECT {x}::text UNION ALL SELECT {y}::text)", "ssn = (SELECT {x}::text)",
    "ssn = ANY (ARRAY[{x}]::cmk_text[])",
]


@pytest.fixture(scope="module")
def tables(world):
    """{kind: (table, its tenants)}. Each kind has tenants of its own, because index keys are theirs."""
    made = {}
    for kind, tenants in zip(KINDS, (("acme", "bolt"), ("acme", "bolt"), ("corp", "dent"), ("echo", "fern"))):
        for name in tenants:
            if name not in ("acme", "bolt"):
                world.tenant(name, "app")
        made[kind] = (MAKERS[kind](world, kind, tenants), tenants)
    return made


def rows_of(tenants, count=240):
    return [(n, DRAW.choice(tenants), DRAW.choice([*VALUES, None]), DRAW.choice([*VALUES, None]))
            for n in range(1, count + 1)]


def sealed(world, name, tenants):
    return world.searchable(name, rows_of(tenants))


def half_sealed(world, name, tenants):
    rows = rows_of(tenants)
    for table in (name, f"{name}_text"):
        world.dba.run(f"CREATE TABLE {table} ({SHAPE})")
        world.dba.run(f"GRANT ALL ON {table} TO PUBLIC")
        world.fill(table, rows)
    protect(world.dba, name, "ssn", searchable=True, rewrite=False)
    world.dba.run(f"CREATE INDEX {name}_ssn ON {name} (ssn cmk_token_ops)")
    world.dba.run(f"CREATE INDEX ON {name}_text (ssn)")
    world.dba.run(f"UPDATE {name} SET ssn = ssn WHERE id % 2 = 0")
    assert world.dba.one(f"SELECT count(*) FROM {name} WHERE NOT cmk.is_sealed(ssn)") > 80
    return name


def rotating(world, name, tenants):
    """Every second row has both tokens."""
    sealed(world, name, tenants)
    for tenant in tenants:
        world.dba.run("SELECT cmk.rotate_index_key(%s)", tenant)
    world.dba.run(f"UPDATE {name} SET ssn = ssn || '' WHERE id % 2 = 0")
    assert_tokens(world, name, {1, 2})
    return name


def rotated(world, name, tenants):
    """The new key is the current one; every second row still has the retired one's token as well."""
    sealed(world, name, tenants)
    for tenant in tenants:
        world.dba.run("SELECT cmk.rotate_index_key(%s)", tenant)
    world.dba.run(f"UPDATE {name} SET ssn = ssn || ''")
    for tenant in tenants:
        assert world.dba.one("SELECT cmk.finish_index_rotation(%s)", tenant) is True
        assert {"current", "retired"} == set(index_keys(world.dba, tenant))
    world.dba.run(f"UPDATE {name} SET ssn = ssn || '' WHERE id % 2 = 0")
    assert_tokens(world, name, {1, 2})
    return name


MAKERS = {"sealed": sealed, "half": half_sealed, "rotating": rotating, "rotated": rotated}


def assert_tokens(world, name, counts):
    stored = world.dba.all(f"SELECT cmk.envelope(ssn) FROM {name} WHERE ssn IS NOT NULL")
    assert {len(tokens(envelope)) for (envelope,) in stored} == counts


def literal(value):
    return "'" + value.replace("'", "''") + "'"


def answer(session, sql):
    """Ids, or SQLSTATE and reason of an error of ours."""
    try:
        return ids(session, sql)
    except psycopg.Error as error:
        reason = (error.diag.message_detail or "").partition(" ")[0]
        check_failure(error, error.sqlstate, reason.removeprefix("reason="))
        return error.sqlstate, reason


def by_each_scan(sessions, sql):
    """What a statement gives in sessions that scan in one way each; it must be the same."""
    seen = {kind: answer(session, sql) for kind, session in sessions.items()}
    assert len({repr(rows) for rows in seen.values()}) == 1, f"{sql}\n{seen}"
    return seen["seq scan"]


def difference(sql, seen, expected):
    return f"{sql}: {seen if isinstance(seen, tuple) else sorted({*seen} ^ {*expected})[:9]}"


def some(template, tenants, draw=DRAW):
    """A query of this condition with random values; the table remains to be filled in."""
    x, y = (literal(draw.choice([*VALUES, "absent"])) for _ in range(2))
    return f"SELECT id FROM {{t}} WHERE {template.format(t='{t}', x=x, y=y, a=tenants[0])}"


# What a reach is made of: the role, and the setting
REACHES = {
    "grants": ("app", None), "setting": ("app", 0), "grants of one": ("one", None), "none": ("nobody", None),
    "a setting without a grant": ("one", 1), "an unknown setting": ("app", "nosuch"), "a dark setting": ("app", "dark"),
}
FAILURES = {
    "none": ("42501", "reason=no_grant"), "a setting without a grant": ("42501", "reason=no_grant"),
    "an unknown setting": ("42704", "reason=unknown_tenant"), "a dark setting": ("55000", "reason=key_disabled"),
}


@pytest.fixture
def reach(world, tables):
    """Sessions with this reach, {scan: a session that scans in this way}."""
    def make(kind, name):
        role, setting = REACHES[name]
        tenants = tables[kind][1]
        if role == "one":
            role = unique("one")
            world.server.execute(f"CREATE ROLE {role} LOGIN")
            world.dba.run("SELECT cmk.grant_access(%s, %s)", tenants[0], role)
        sessions = {}
        for scan, (_, forbidden) in SCANS.items():
            sessions[scan] = world.reader(role)
            for other in forbidden:
                sessions[scan].run(f"SET {other} = off")
            if setting is not None:
                sessions[scan].run("SELECT set_config('cmk_encrypt.tenant', %s, false)",
                                   tenants[setting] if isinstance(setting, int) else setting)
        return sessions

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_the_scans_compared_are_those_that_they_are_called(reach, tables, kind):
    for scan, session in reach(kind, "grants").items():
        found = [node["Node Type"] for node in nodes(session, f"SELECT id FROM {tables[kind][0]} WHERE ssn = 'a'")]
        assert SCANS[scan][0] in found


@pytest.mark.parametrize("kind", KINDS)
def test_each_condition_gives_by_each_scan_what_it_gives_on_text(reach, tables, kind):
    sessions, (table, tenants), found = reach(kind, "grants"), tables[kind], []
    for template in EQUALITIES * 5:
        sql = some(template, tenants)
        seen = by_each_scan(sessions, sql.replace("{t}", table))
        expected = ids(sessions["seq scan"], sql.replace("{t}", f"{table}_text"))
        if seen != expected:
            found.append(difference(sql, seen, expected))
    assert not found, f"{len(found)}:\n" + "\n".join(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["setting", "grants of one"])
def test_with_a_smaller_reach_other_rows_are_unequal_by_each_scan(reach, tables, kind, name):
    sessions, (table, tenants), found = reach(kind, name), tables[kind], []
    # What is not sealed yet tells no tenant, and is in everybody's reach.
    hidden = f"tenant_id <> '{tenants[0]}' AND ssn IS NOT NULL" + " AND id % 2 = 0" * (kind == "half")
    reference = sessions["seq scan"]
    reference.run(f"CREATE TEMP VIEW visible AS SELECT id, tenant_id, note, CASE WHEN {hidden} THEN 'out of reach'"
                  f" ELSE ssn END AS ssn FROM {table}_text")
    for template in EQUALITIES * 5:
        sql = some(template, tenants)
        seen, expected = by_each_scan(sessions, sql.replace("{t}", table)), ids(reference, sql.replace("{t}", "visible"))
        if seen != expected:
            found.append(difference(sql, seen, expected))
    assert not found, f"{len(found)}:\n" + "\n".join(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAILURES)
def test_without_a_reach_each_scan_fails_alike(reach, tables, kind, name):
    sessions, (table, tenants) = reach(kind, name), tables[kind]
    for condition in ("ssn = 'a'", "ssn IN ('a', 'b')", "ssn = ANY (ARRAY['a'])", "'a' = ssn", "ssn = 'a' OR ssn = 'b'",
                      "ssn <> 'a'", "ssn NOT IN ('a', 'b')", f"tenant_id = '{tenants[1]}' AND ssn = 'a'"):
        seen = by_each_scan(sessions, f"SELECT id FROM {table} WHERE {condition}")
        if "tenant_id" in condition and REACHES[name][0] == "app":
            assert isinstance(seen, list)  # the tenant is named, and the setting does not matter
        else:
            assert seen == FAILURES[name], condition


@pytest.mark.parametrize("kind", KINDS)
def test_random_queries_of_random_values_give_by_each_scan_what_they_give_on_text(reach, tables, kind):
    sessions, (table, tenants) = reach(kind, "grants"), tables[kind]
    draw = random.Random(f"queries of {kind}")
    for _ in range(120):
        terms = [draw.choice(EQUALITIES) for _ in range(draw.randint(2, 4))]
        condition = "".join(draw.choice([" AND ", " OR ", " AND NOT "]) * bool(n) + f"({term})"
                            for n, term in enumerate(terms))
        sql = some(condition, tenants, draw)
        seen = by_each_scan(sessions, sql.replace("{t}", table))
        expected = ids(sessions["seq scan"], sql.replace("{t}", f"{table}_text"))
        assert seen == expected, difference(sql, seen, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_random_writes_keep_table_and_index_alike(world, tables, kind):
    """Updates of values, tenants and keys, deletes, and rows that come back under another id."""
    session, (table, tenants) = world.connect("app"), tables[kind]
    draw, writes = random.Random(f"writes of {kind}"), 0
    with session.connection.transaction(force_rollback=True):
        for n in range(40):
            value, other, tenant = literal(draw.choice(VALUES)), literal(draw.choice(VALUES)), draw.choice(tenants)
            change = draw.choice([
                f"INSERT INTO {{t}} VALUES ({1000 + n}, '{tenant}', {value}, NULL)",
                f"UPDATE {{t}} SET ssn = {value} WHERE ssn = {other}", f"DELETE FROM {{t}} WHERE ssn = {value}",
                f"UPDATE {{t}} SET tenant_id = '{tenant}' WHERE ssn = {value} AND id % 3 = 0",
                f"UPDATE {{t}} SET ssn = NULL WHERE tenant_id = '{tenant}' AND ssn = {value}",
                f"UPDATE {{t}} SET ssn = ssn || 'x' WHERE ssn IN ({value}, {other})",
            ])
            changed = [session.run(change.replace("{t}", name)).rowcount for name in (table, f"{table}_text")]
            assert changed[0] == changed[1], change
            writes += changed[0]
            for scan in SCANS:
                with scanning(session, scan):
                    for sought in (value, other):
                        seen, expected = (ids(session, f"SELECT id FROM {name} WHERE ssn = {sought}")
                                          for name in (table, f"{table}_text"))
                        assert seen == expected, (scan, change)
    assert writes > 50


# Sealed against sealed

PAIRS = [
    "SELECT a.id, b.id FROM {t} a JOIN {t} b ON a.ssn = b.ssn",
    "SELECT a.id, b.id FROM {t} a JOIN {o} b ON a.ssn = b.ssn",
    "SELECT a.id, b.id FROM {t} a JOIN {o} b ON a.ssn = b.ssn AND a.tenant_id = b.tenant_id",
    "SELECT a.id, b.id FROM {t} a LEFT JOIN {o} b USING (ssn, tenant_id)",
    "SELECT id FROM {t} WHERE ssn IN (SELECT ssn FROM {o})",
    "SELECT id FROM {t} a WHERE NOT EXISTS (SELECT FROM {o} b WHERE b.ssn = a.ssn)", "SELECT DISTINCT ssn FROM {t}",
    "SELECT ssn, count(*) FROM {t} GROUP BY ssn", "SELECT tenant_id, ssn, count(*) FROM {t} GROUP BY 1, 2",
    "SELECT count(DISTINCT ssn), count(DISTINCT (ssn, tenant_id)) FROM {t}",
    "SELECT ssn FROM {t} UNION SELECT ssn FROM {o}",
    "SELECT ssn FROM {t} INTERSECT SELECT ssn FROM {o}", "SELECT ssn FROM {t} EXCEPT ALL SELECT ssn FROM {o}",
    "SELECT id, ssn FROM {t} ORDER BY ssn, id", "SELECT id, rank() OVER (ORDER BY ssn) FROM {t}",
    "SELECT a.id FROM {t} a, {o} b WHERE a.ssn <> b.ssn AND b.id < 20",
]
JOINS = {"as it likes": [], "hash joins": ["enable_mergejoin", "enable_nestloop"],
         "nested loops": ["enable_hashjoin", "enable_mergejoin"], "merge joins": ["enable_hashjoin", "enable_nestloop"]}


@pytest.fixture(scope="module")
def others(world, tables):
    """{kind: {label: a second table of the tenants}}: of the same label, of another one, and not searchable."""
    made = {}
    for kind, (table, tenants) in tables.items():
        made[kind] = {}
        for name, options in (("same", {"label": f"{table}.ssn"}), ("another", {}), ("tokenless", None)):
            other = f"{kind}_{name}"
            if options is None:
                world.twins(other, rows_of(tenants, 120), columns=("ssn",))
            else:
                world.searchable(other, rows_of(tenants, 120), **options)
            made[kind][name] = other
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("joins", JOINS.values(), ids=JOINS)
def test_joins_groups_and_sets_are_those_of_text(world, tables, others, kind, joins):
    session, table, found = world.reader(), tables[kind][0], []
    for setting in joins:
        session.run(f"SET {setting} = off")
    for other in others[kind].values():
        for template in PAIRS:
            seen, expected = (
                sorted(session.all(template.format(t=f"{table}{twin}", o=f"{other}{twin}")), key=repr)
                for twin in ("", "_text")
            )
            if seen != expected:
                found.append(f"{template.format(t=table, o=other)}: {len(seen)} and not {len(expected)} rows")
    assert not found, "\n".join(found)


def test_a_join_of_one_label_opens_no_value(world, tables, others):
    session, table, other = world.connect("app"), tables["sealed"][0], others["sealed"]["same"]
    with session.counts():
        session.run("SET enable_hashjoin = off; SET enable_mergejoin = off")
        joined = session.all(f"SELECT a.id, b.id FROM {table} a JOIN {other} b ON a.ssn = b.ssn"
                             " WHERE a.tenant_id = 'acme' AND b.tenant_id = 'acme'")
    assert joined


def test_a_join_of_two_tenants_takes_the_right_to_decrypt(reach, tables):
    session, table = reach("sealed", "grants of one")["seq scan"], tables["sealed"][0]
    assert answer(session, f"SELECT a.id FROM {table} a JOIN {table} b ON a.ssn = b.ssn AND a.tenant_id <> b.tenant_id"
                  ) == ("42501", "reason=no_grant")
