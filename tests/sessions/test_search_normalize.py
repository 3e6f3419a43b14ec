"""Columns that compare normalized values: what is equal, what is unique, and that the text stays as it was written."""

import pytest

from columns import app, dba, envelopes, opened, plain, reader  # noqa: F401 (fixtures)
from protected import Table
from searching import (  # noqa: F401 (fixtures)
    SCANS, by_index, ids, index_key, index_keys, scanning, shortened, token, tokens, world,
)
from support import fails_with, unique


def lower(value):
    return "".join(character.lower() for character in value)


def digits(value):
    return "".join(character for character in value if character in "0123456789")


def alnum(value):
    return "".join(character for character in lower(value) if character.isalnum())


# What each makes of a text
RULES = {"lower": lower, "digits": digits, "alnum": alnum}
VALUES = [
    "", " ", "Anna@Example.COM", "anna@example.com", "ANNA@EXAMPLE.COM ", "+49 (30) 90 18-20", "0049309 01820",
    "49309 01820", "4930901820", "٤٩٣٠", "４９３０", "ZOË", "zoë", "Zoe\u0308", "ΣΊΣΥΦΟΣ", "σίσυφος", "σίσυφοσ",
    "İstanbul", "istanbul", "i̇stanbul", "STRASSE", "Straße", "straße", "A-1", "a1", "A 1", "--", "#", "日本語", "Ⅷ", "ⅷ",
    "x" * 300, "X" * 300, "DE89 3704 0044 0532 0130 00", "de89370400440532013000",
]


@pytest.fixture(scope="module", params=RULES)
def table(request, world):
    """(name, rule). Its twin is of text, and has the values normalized in a further column."""
    name, rule = f"n_{request.param}", RULES[request.param]
    rows = [(n, ("acme", "bolt")[n % 2], value, str(n)) for n, value in enumerate([*VALUES, *VALUES, None])]
    world.searchable(name, rows, normalization=request.param)
    world.dba.run(f"ALTER TABLE {name}_text ADD norm text")
    for id, _, value, _ in rows:
        world.dba.run(f"UPDATE {name}_text SET norm = %s WHERE id = %s", None if value is None else rule(value), id)
    return name, rule


def test_what_is_read_is_what_was_written(app, reader, table):
    name, _ = table
    expected = dict(reader.all(f"SELECT id, ssn FROM {name}_text"))
    assert plain(reader, name) == plain(reader, name, "ssn::text") == expected
    assert plain(reader, name, "lower(ssn)") == plain(reader, f"{name}_text", "lower(ssn)")
    assert app.one(f"SELECT ssn FROM {name} WHERE id = 2").startswith("cmk1:")


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("condition", [
    "{c} = {x}", "{x} = {c}", "{c} <> {x}", "NOT {c} = {x}", "{c} IN ({x}, {y})", "{c} NOT IN ({x}, {y})",
    "{c} = ANY (ARRAY[{x}, {y}, NULL])", "{c} IN ({x}, {y}, '1', '2', '3', '4', '5', '6', '7', '8', '9')",
    "tenant_id = 'acme' AND {c} = {x}", "{c} IS DISTINCT FROM {x}", "coalesce({c} = {x}, false)",
])
def test_equality_is_that_of_the_normalized_values(reader, table, scan, condition):
    name, rule = table
    with scanning(reader, scan):
        for n, value in enumerate(VALUES):
            other = VALUES[(n * 7 + 3) % len(VALUES)]
            ours = condition.format(c="ssn", x=quoted(value), y=quoted(other))
            text = condition.format(c="norm", x=quoted(rule(value)), y=quoted(rule(other)))
            assert ids(reader, f"SELECT id FROM {name} WHERE {ours}") == ids(
                reader, f"SELECT id FROM {name}_text WHERE {text}"), (value, other)


def quoted(value):
    return "'" + value.replace("'", "''") + "'"


def test_a_search_of_a_normalized_value_uses_the_index(reader, table):
    name, rule = table
    reader.run("SET enable_seqscan = off")
    reader.run(f"PREPARE p AS SELECT id FROM {name} WHERE ssn = $1")
    for value in VALUES:
        by_index(reader, f"EXECUTE p({quoted(value)})")
        assert ids(reader, f"EXECUTE p({quoted(value)})") == ids(reader, f"SELECT id FROM {name}_text WHERE norm = %s",
                                                               rule(value))


GROUPED = [
    "SELECT count(*) FROM {t} GROUP BY {c}", "SELECT tenant_id, count(*) FROM {t} GROUP BY tenant_id, {c}",
    "SELECT count(DISTINCT {c}) FROM {t}", "SELECT array_agg(id ORDER BY id) FROM {t} GROUP BY {c}",
    "SELECT count(*) FROM (SELECT DISTINCT {c} FROM {t}) q", "SELECT id, count(*) OVER (PARTITION BY {c}) FROM {t}",
    "SELECT count(*) FROM (SELECT {c} FROM {t} UNION SELECT {c} FROM {t}) q",
    "SELECT a.id, b.id FROM {t} a JOIN {t} b ON a.{c} = b.{c}",
    "SELECT a.id, b.id FROM {t} a JOIN {t} b ON a.{c} = b.{c} AND a.tenant_id = b.tenant_id",
    "SELECT id FROM {t} WHERE {c} IN (SELECT {c} FROM {t} WHERE id < 9)",
    "SELECT id FROM {t} a WHERE NOT EXISTS (SELECT FROM {t} b WHERE b.{c} = a.{c} AND b.id <> a.id)",
    "SELECT id, dense_rank() OVER (ORDER BY {c}) FROM {t}", "SELECT DISTINCT ON ({c}) id FROM {t} ORDER BY {c}, id",
    "SELECT id FROM {t} ORDER BY {c}, id", "SELECT id FROM {t} ORDER BY {c} DESC NULLS LAST, id",
    "SELECT id FROM {t} ORDER BY {c} COLLATE \"C\", id", "SELECT count(*) FROM {t} a, {t} b WHERE a.{c} <> b.{c}",
]
PLANS = {"as it likes": [], "no hashing": ["enable_hashagg", "enable_hashjoin"],
         "no sorting": ["enable_sort", "enable_mergejoin"], "nested loops": ["enable_hashjoin", "enable_mergejoin"]}


@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("sql", GROUPED)
def test_grouping_sorting_and_joining_is_that_of_the_normalized_values(reader, table, sql, plans):
    name, _ = table
    for setting in plans:
        reader.run(f"SET {setting} = off")
    seen, expected = (reader.all(sql.format(t=of, c=column))
                      for of, column in ((name, "ssn"), (f"{name}_text", "norm")))
    if not sql.startswith("SELECT id FROM {t} ORDER"):
        seen, expected = sorted(seen, key=repr), sorted(expected, key=repr)
    assert seen == expected


def test_what_is_equal_has_one_token_and_what_is_not_has_another(dba, reader, table):
    name, _ = table
    stored, norms = envelopes(dba, name), plain(reader, f"{name}_text", "tenant_id, norm")
    by_token, by_value = {}, {}
    for id, envelope in stored.items():
        if envelope is not None:
            by_token.setdefault(tokens(envelope)[0], []).append(id)
            by_value.setdefault(norms[id], []).append(id)
    assert sorted(by_token.values()) == sorted(by_value.values())
    assert {id for id, _ in by_token} == {index_keys(dba, tenant)["current"] for tenant in ("acme", "bolt")}


def test_equal_values_of_one_tenant_are_duplicates(world, app, table):
    name, _ = table
    rule = name.removeprefix("n_")
    pairs = {"lower": ("Anna@Example.com", "ANNA@example.COM"), "digits": ("49-30", "(49) 30"), "alnum": ("A-1", "a 1")}
    first, second = pairs[rule]
    unique_table = world.searchable(unique("u"), index="UNIQUE {name} (ssn cmk_token_ops)", normalization=rule)
    app.run(f"INSERT INTO {unique_table} VALUES (1, 'acme', '{first}', 'x'), (2, 'bolt', '{second}', 'x')")
    with fails_with("23505"):
        app.run(f"INSERT INTO {unique_table} VALUES (3, 'acme', '{second}', 'x')")
    app.run(f"INSERT INTO {unique_table} VALUES (3, 'acme', '{second}', 'x') ON CONFLICT (ssn) DO UPDATE"
            " SET note = 'met', ssn = excluded.ssn")
    assert plain(world.reader(), unique_table, "ssn, note") == {1: (second, "met"), 2: (second, "x")}


# Shortened tokens


@pytest.fixture(scope="module", params=[8, 20, 120])
def short(request, world):
    """Far more values than tokens of 8 bits, some equal."""
    name = f"short_{request.param}"
    rows = [(n, ("acme", "bolt")[n % 2], f"value {n // 3 % 400}", "n") for n in range(1, 1500)]
    return world.searchable(name, rows, token_bits=request.param), request.param


def test_a_shortened_token_has_its_number_of_bits_behind_them_and_else_zeroes(world, dba, short):
    name, bits = short
    keys = {tenant: index_key(world, tenant) for tenant in ("acme", "bolt")}
    found, pairs = set(), set()
    for id, tenant, value in world.reader().all(f"SELECT id, tenant_id, ssn FROM {name} WHERE id <= 300"):
        (_, stored), = tokens(dba.one(f"SELECT cmk.envelope(ssn) FROM {name} WHERE id = {id}"))
        assert stored == shortened(token(keys[tenant], f"{name}.ssn", value), bits)
        found.add(stored)
        pairs.add((tenant, value))
    assert len(found) <= len(pairs) - 20 if bits == 8 else len(pairs) - 2 <= len(found) <= len(pairs)


@pytest.mark.parametrize("scan", SCANS)
def test_with_shortened_tokens_answers_are_those_of_text(reader, short, scan):
    name, _ = short
    with scanning(reader, scan):
        for condition in ("ssn = 'value 7'", "ssn IN ('value 7', 'value 8', 'absent')", "ssn <> 'value 7'",
                          "ssn = 'value 7' AND tenant_id = 'bolt'", "ssn = ANY (ARRAY['value 399', NULL])",
                          "ssn = 'absent'", "ssn NOT IN ('value 7', 'value 8')", "ssn = (SELECT 'value 9'::text)"):
            seen, expected = (ids(reader, f"SELECT id FROM {of} WHERE {condition}") for of in (name, f"{name}_text"))
            assert seen == expected, condition
    for sql in ("SELECT count(DISTINCT ssn) FROM {t}", "SELECT ssn, count(*) FROM {t} GROUP BY ssn",
                "SELECT a.id, b.id FROM {t} a JOIN {t} b ON a.ssn = b.ssn AND a.tenant_id = b.tenant_id"):
        assert sorted(reader.all(sql.format(t=name))) == sorted(reader.all(sql.format(t=f"{name}_text")))


def test_a_shortened_token_is_looked_up_by_index_and_checked_by_opening(world, short):
    name, bits = short
    session = world.connect("app")
    session.run("SET enable_seqscan = off")
    before, found = session.stats()[1], 0
    for k in range(40):
        sql = f"SELECT id FROM {name} WHERE tenant_id = 'acme' AND ssn = 'value {k}'"
        by_index(session, sql)
        found += len(ids(session, sql))
    opens = session.stats()[1] - before
    assert found > 70 and (found < opens < 4 * found if bits == 8 else found <= opens <= found + 2)


def test_values_that_share_a_shortened_token_are_no_duplicates(world, app):
    name = world.searchable(unique("s"), token_bits=8)
    app.run(f"INSERT INTO {name} SELECT n, 'acme', 'value ' || n, 'n' FROM generate_series(1, 300) n")
    assert app.one(f"SELECT count(*) FROM {name}") == 300
    assert app.one(f"SELECT count(DISTINCT ssn) FROM {name}") == 300


# Changed options


@pytest.mark.parametrize("before, after", [
    ({}, {"normalization": "lower"}), ({"normalization": "lower"}, {"normalization": "alnum"}),
    ({"token_bits": 16}, {"normalization": "lower", "token_bits": 24}), ({"searchable": None}, {"normalization": "lower"}),
], ids=["lower", "from lower to alnum", "longer and lower", "from not searchable"])
def test_another_normalization_holds_once_the_table_is_sealed(world, dba, reader, before, after):
    name = unique("changed")
    rows = [(1, "acme", "Anna", "n"), (2, "acme", "anna", "n"), (3, "bolt", "ANNA", "n"), (4, "bolt", "Bob", "n"),
            (5, "acme", None, "n")]
    world.make(name, rows, columns=("ssn",), **{"searchable": True, **before})
    if "searchable" not in before:
        dba.run(f"CREATE INDEX {name}_ssn ON {name} (ssn cmk_token_ops)")
    arguments = {"searchable": True, **after}
    named = "".join(f", {argument} => %s" for argument in arguments)
    dba.run(f"SELECT cmk.protect_column('{name}', 'ssn', tenant_column => 'tenant_id'{named})", *arguments.values())
    dba.run(f"INSERT INTO {name} VALUES (6, 'acme', 'ANNA', 'new')")
    # Until then a row is found at least by what it holds, by whatever scan.
    for value, id in (("Anna", 1), ("anna", 2), ("ANNA", 3), ("Bob", 4), ("ANNA", 6)):
        seen = []
        for scan in SCANS:
            with scanning(reader, scan):
                seen.append(ids(reader, f"SELECT id FROM {name} WHERE ssn = '{value}'"))
        assert id in seen[0] and seen[0] == seen[1] == seen[2], (value, seen)
    dba.run(f"CALL cmk.seal_table('{name}')")
    dba.run(f"CREATE INDEX IF NOT EXISTS {name}_ssn ON {name} (ssn cmk_token_ops)")
    assert dba.one("SELECT bool_and(convalidated) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'",
                   name)
    for scan in SCANS:
        with scanning(reader, scan):
            assert ids(reader, f"SELECT id FROM {name} WHERE ssn = 'aNNa'") == [1, 2, 3, 6]
            assert ids(reader, f"SELECT id FROM {name} WHERE ssn = 'bob' AND tenant_id = 'bolt'") == [4]
    assert plain(reader, name) == {1: "Anna", 2: "anna", 3: "ANNA", 4: "Bob", 5: None, 6: "ANNA"}
    assert len({tokens(envelope)[0] for envelope in envelopes(dba, name).values() if envelope}) == 3
    rewritten = envelopes(dba, name)
    dba.run(f"CALL cmk.seal_table('{name}')")
    assert envelopes(dba, name) == rewritten


def test_tokens_of_another_kind_do_not_come_beside_those_that_are_there(world, dba, reader):
    """An index could not find both. The table is rewritten, or its values lose their tokens first."""
    name = world.searchable(unique("changed"), [(1, "acme", "Anna", "n"), (2, "acme", "anna", "n")])
    table = Table(dba, name)
    (line,) = table.obstacles(tenant_column="tenant_id", searchable=True, normalization="lower", rewrite=False)
    assert "rewrite => true" in line
    dba.run(f"DROP INDEX {name}_ssn")
    table.protect(tenant_column="tenant_id", searchable=False, rewrite=False)
    table.seal()
    table.protect(tenant_column="tenant_id", searchable=True, normalization="lower", rewrite=False)
    assert ids(reader, f"SELECT id FROM {name} WHERE ssn = 'anna'") in ([2], [1, 2])
    table.seal()
    assert ids(reader, f"SELECT id FROM {name} WHERE ssn = 'ANNA'") == [1, 2]


def test_a_column_made_searchable_later_is_found_by_scan_until_it_is_sealed(world, dba, reader):
    name = unique("later")
    world.make(name, [(1, "acme", "x", "n"), (2, "bolt", "x", "n")], columns=("ssn",))
    dba.run(f"SELECT cmk.protect_column('{name}', 'ssn', tenant_column => 'tenant_id', searchable => true,"
            " rewrite => false)")
    dba.run(f"INSERT INTO {name} VALUES (3, 'acme', 'x', 'new')")
    assert [len(tokens(envelope)) for envelope in envelopes(dba, name).values()] == [0, 0, 1]
    assert ids(reader, f"SELECT id FROM {name} WHERE ssn = 'x'") == [1, 2, 3]
    assert dba.one(f"SELECT cmk.unsealed_rows('{name}', 'ssn')") in (0, 2)
    dba.run(f"CALL cmk.seal_table('{name}')")
    assert [len(tokens(envelope)) for envelope in envelopes(dba, name).values()] == [1, 1, 1]
    dba.run(f"CREATE INDEX IF NOT EXISTS {name}_ssn ON {name} (ssn cmk_token_ops)")
    reader.run("SET enable_seqscan = off")
    by_index(reader, f"SELECT id FROM {name} WHERE ssn = 'x'")
    assert ids(reader, f"SELECT id FROM {name} WHERE ssn = 'x'") == [1, 2, 3]
