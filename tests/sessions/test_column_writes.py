"""Writes to protected columns: each value is sealed once, and nothing is opened that need not be."""

import pytest

from columns import ROWS, app, dba, envelopes, opened, plain, reader, tags, unchanged, world  # noqa: F401 (fixtures)
from support import fails, unique


@pytest.fixture
def u(world):
    """A table of rows with one protected value each, but for NULLs."""
    name = unique("u")
    return world.make(name, [(n, tenant, ssn, None) for n, tenant, ssn, _ in ROWS[:6]])


# INSERT

INSERTS = {
    "a literal": ("VALUES (20, 'acme', 'x')", 1, {20: "x"}),
    "rows": ("VALUES (20, 'acme', 'x'), (21, 'bolt', 'y'), (22, 'acme', 'x')", 3, {20: "x", 21: "y", 22: "x"}),
    "NULL": ("VALUES (20, 'acme', NULL)", 0, {20: None}),
    "NULL of no tenant": ("VALUES (20, NULL, NULL)", 0, {20: None}),
    "the empty string": ("VALUES (20, 'acme', '')", 1, {20: ""}),
    "the default": ("(id, tenant_id, ssn) VALUES (20, 'acme', DEFAULT)", 1, {20: "none"}),
    "the default, unmentioned": ("(id, tenant_id) VALUES (20, 'acme')", 1, {20: "none"}),
    "a query": ("SELECT n, 'acme', 'v' || n FROM generate_series(20, 22) n", 3, {20: "v20", 21: "v21", 22: "v22"}),
    "a number": ("VALUES (20, 'acme', 12345)", 1, {20: "12345"}),
    "a varchar": ("VALUES (20, 'acme', 'x'::varchar)", 1, {20: "x"}),
    "100 kB": ("VALUES (20, 'acme', repeat('x', 100000))", 1, {20: "x" * 100_000}),
}


@pytest.mark.parametrize("rows, seals, stored", INSERTS.values(), ids=INSERTS)
def test_an_insert_seals_each_value_once(world, dba, app, reader, u, rows, seals, stored):
    dba.run(f"ALTER TABLE {u} ALTER ssn SET DEFAULT 'none'")
    with app.counts(seals):
        app.run(f"INSERT INTO {u} {rows}")
    assert {id: value for id, value in plain(reader, u).items() if id >= 20} == stored
    assert dba.one(f"SELECT count(*) FROM {u} WHERE NOT cmk.is_sealed(ssn)") == 0


@pytest.mark.parametrize("kind", ["%s", "%t", "%b", "%s::text", "%s::varchar"])
def test_a_parameter_is_sealed_once(app, reader, u, kind):
    with app.counts(seals=1):
        app.run(f"INSERT INTO {u} VALUES (20, 'acme', {kind})", "Łódź 東京 🗝")
    assert plain(reader, u)[20] == "Łódź 東京 🗝"


def test_the_header_names_tenant_and_column(dba, app, u):
    app.run(f"INSERT INTO {u} VALUES (20, 'bolt', 'a value', 'a note')")
    ssn, note = dba.row(f"SELECT cmk.envelope(ssn), cmk.envelope(note) FROM {u} WHERE id = 20")
    assert (ssn[:2], len(ssn)) == (b"\xc1\x02", len("a value") + 74)
    assert (ssn[18:34], note[18:34]) == (tags("bolt", f"{u}.ssn"), tags("bolt", f"{u}.note"))


# UPDATE


def test_an_update_of_other_columns_neither_opens_nor_seals(dba, app, u):
    dba.run(f"ALTER TABLE {u} ADD other int")
    with unchanged(dba, u), app.counts():
        app.run(f"UPDATE {u} SET other = 1")
        app.run(f"UPDATE {u} SET other = 2, ssn = ssn, tenant_id = tenant_id")


UPDATES = {
    "of the value": ("ssn = 'x'", (1, 0), "x"),
    "of the value to NULL": ("ssn = NULL", (0, 0), None),
    "of the value to the default": ("ssn = DEFAULT", (0, 0), None),
    "of the tenant": ("tenant_id = 'bolt'", (1, 1), "111"),
    "of both": ("ssn = 'x', tenant_id = 'bolt'", (1, 0), "x"),
    "by an expression": ("ssn = ssn || '!'", (1, 1), "111!"),
    "by a subquery": ("ssn = (SELECT '5')", (1, 0), "5"),
    "to the other column": ("note = ssn", (1, 1), "111"),
}


@pytest.mark.parametrize("change, counts, value", UPDATES.values(), ids=UPDATES)
def test_an_update_seals_what_it_changes(dba, app, reader, u, change, counts, value):
    with app.counts(*counts):
        app.run(f"UPDATE {u} SET {change} WHERE id = 1")
    assert plain(reader, u)[1] == value
    tenant, envelope = dba.row(f"SELECT tenant_id, cmk.envelope(ssn) FROM {u} WHERE id = 1")
    assert value is None or envelope[18:34] == tags(tenant, f"{u}.ssn")


REFUSED_TENANTS = [
    ("dark", "55000", "key_disabled"), ("paused", "55000", "tenant_suspended"),
    ("nosuch", "42704", "unknown_tenant"), (None, "23502", "tenant_null"),
]


@pytest.mark.parametrize("tenant, sqlstate, reason", REFUSED_TENANTS, ids=[str(t[0]) for t in REFUSED_TENANTS])
def test_a_tenant_that_cannot_seal_is_refused_and_nothing_changes(dba, app, u, tenant, sqlstate, reason):
    with unchanged(dba, u):
        for sql in (f"UPDATE {u} SET tenant_id = %s WHERE id = 1", f"UPDATE {u} SET tenant_id = %s, ssn = 'x'",
                    f"INSERT INTO {u} VALUES (20, %s, 'x')"):
            with fails(sqlstate, reason, tenant):
                app.run(sql, tenant)
    with app.counts():
        app.run(f"INSERT INTO {u} VALUES (20, %s, NULL)", tenant)


# What needs which grants


@pytest.fixture
def halves(world, server, dba):
    """Sessions of roles that have acme, and of bolt one grant only."""
    made = {}
    for missing in ("encrypt", "decrypt"):
        role = unique("half")
        server.execute(f"CREATE ROLE {role} LOGIN")
        dba.run("SELECT cmk.grant_access('acme', %s)", role)
        dba.run(f"SELECT cmk.grant_access('bolt', %s, {missing} => false)", role)
        made[missing] = world.connect(role)
    return made


MOVES = {
    "an update of the tenant": "UPDATE {u} SET tenant_id = '{to}' WHERE tenant_id = '{of}' AND ssn IS NOT NULL",
    "insert ... select": "INSERT INTO {u} SELECT id + 50, '{to}', ssn FROM {u} WHERE tenant_id = '{of}'",
    "insert ... select into another column":
        "INSERT INTO {u} SELECT id + 50, '{to}', NULL, ssn FROM {u} WHERE tenant_id = '{of}'",
}


@pytest.mark.parametrize("sql", MOVES.values(), ids=MOVES)
def test_a_value_moves_between_tenants_with_the_old_ones_decrypt_and_the_new_ones_encrypt(dba, halves, world, u, sql):
    with unchanged(dba, u):
        for session, of, to in ((halves["encrypt"], "acme", "bolt"), (halves["decrypt"], "bolt", "acme"),
                                (world.connect("ro"), "bolt", "acme"), (world.connect("ro"), "acme", "bolt")):
            with fails("42501", "no_grant", "bolt"):
                session.run(sql.format(u=u, of=of, to=to))
    count = dba.one(f"SELECT count(ssn) FROM {u} WHERE tenant_id = 'bolt'")
    with halves["encrypt"].counts(count, count):
        halves["encrypt"].run(sql.format(u=u, of="bolt", to="acme"))


def test_a_value_moves_between_columns_and_tables(world, dba, app, reader, u):
    other = world.make(unique("other"))
    with app.counts(5, 5):
        app.run(f"INSERT INTO {other} (id, tenant_id, note) SELECT id, tenant_id, ssn FROM {u}")
    assert plain(reader, other, "note") == plain(reader, u)
    headers = [e[18:34] for e in envelopes(dba, other, "note").values() if e]
    assert sorted(headers) == sorted(tags(tenant, f"{other}.note") for _, tenant, ssn, _ in ROWS[:6] if ssn is not None)


def test_a_copy_between_tables_of_one_label_is_byte_for_byte(world, dba, app, u):
    archive = world.make(unique("archive"), label=f"{u}.ssn", columns=("ssn",))
    with app.counts(opens=5):  # what its own trigger did not seal is authenticated
        app.run(f"INSERT INTO {archive} SELECT id, tenant_id, ssn FROM {u}")
    assert envelopes(dba, archive) == envelopes(dba, u)


# UPSERT, MERGE, RETURNING

UPSERTS = {
    "excluded": ("(1, 'acme', 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn", (1, 0), "x"),
    "excluded, changed": ("(1, 'acme', 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn || '!'", (2, 1), "x!"),
    "excluded of another tenant": ("(1, 'bolt', 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn", (2, 1), "x"),
    "excluded with its tenant":
        ("(1, 'bolt', 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn, tenant_id = excluded.tenant_id",
         (1, 0), "x"),
    "a literal": ("(1, 'acme', 'x') ON CONFLICT (id) DO UPDATE SET ssn = 'y'", (2, 0), "y"),
    "nothing": ("(1, 'acme', 'x') ON CONFLICT DO NOTHING", (1, 0), "111"),
    "no conflict": ("(30, 'acme', 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn", (1, 0), "111"),
    "a condition on the stored value":
        ("(1, 'acme', 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn WHERE {u}.ssn = '111'", (1, 1), "x"),
}


@pytest.mark.parametrize("values, counts, value", UPSERTS.values(), ids=UPSERTS)
def test_an_upsert(app, reader, u, values, counts, value):
    with app.counts(*counts):
        app.run(f"INSERT INTO {u} VALUES {values.format(u=u)}")
    assert plain(reader, u)[1] == value


MERGE = (
    "MERGE INTO {u} t USING (VALUES (1, 'acme', 'new'), (40, 'bolt', 'more')) s(id, tenant_id, ssn) ON t.id = s.id"
    " WHEN MATCHED THEN UPDATE SET ssn = s.ssn"
    " WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.tenant_id, s.ssn)"
)


def test_both_arms_of_merge(app, reader, u):
    if app.connection.info.server_version < 150000:
        pytest.skip("MERGE came with 15")
    with app.counts(2):
        app.run(MERGE.format(u=u))
    assert {id: ssn for id, ssn in plain(reader, u).items() if id in (1, 40)} == {1: "new", 40: "more"}


def test_returning_gives_what_the_output_setting_says(app, reader, u):
    insert = f"INSERT INTO {u} VALUES (%s, 'acme', 'x') RETURNING ssn"
    with app.counts(seals=1):
        assert app.one(insert, 50).startswith("cmk1:")
    with reader.counts(seals=1, opens=1):
        assert reader.one(insert, 51) == "x"
    assert reader.one(f"UPDATE {u} SET ssn = ssn || 'y' WHERE id = 51 RETURNING ssn") == "xy"
    assert reader.one(f"DELETE FROM {u} WHERE id = 51 RETURNING ssn || '?'") == "xy?"


# COPY


@pytest.mark.parametrize("options", ["", "(FORMAT csv)", "(FORMAT csv, HEADER, FREEZE false)"])
def test_copy_seals_each_value_once(app, reader, u, options):
    mark = "," if "csv" in options else "\t"
    null = "" if "csv" in options else r"\N"
    lines = ["id,tenant_id,ssn,note"] if "HEADER" in options else []
    rows = [("60", "acme", "x", null), ("61", "bolt", "é ü", null), ("62", "acme", null, "n")]
    lines += [mark.join(row) for row in rows]
    with app.counts(seals=3):
        app.copy_in(f"COPY {u} FROM STDIN {options}", "\n".join(lines) + "\n")
    assert {id: v for id, v in plain(reader, u, "ssn, note").items() if id >= 60} == {
        60: ("x", None), 61: ("é ü", None), 62: (None, "n"),
    }


def test_binary_copy_seals_each_value_once_and_gives_back_what_it_takes(world, app, reader, u):
    with app.counts(seals=1), app.connection.cursor() as cursor:
        with cursor.copy(f"COPY {u} FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "text", "text"])
            copy.write_row((60, "acme", "in binary", None))
    assert plain(reader, u)[60] == "in binary"
    data = app.copy_out(f"COPY {u} TO STDOUT (FORMAT binary)")
    again = world.make(unique("again"), label=f"{u}.ssn", columns=("ssn",))
    other = world.connect("app", input="envelope")
    with other.counts(opens=6):  # what it did not seal itself is authenticated
        other.copy_in(f"COPY {again} FROM STDIN (FORMAT binary)", data)
    assert envelopes(world.dba, again) == envelopes(world.dba, u)
