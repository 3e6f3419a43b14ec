"""A statement on a protected column does what the same statement does on a column of text."""

import psycopg
import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from columns import ROWS, SHAPE, dba, opened, plain, protect, reader, world  # noqa: F401 (fixtures)
from statements import PLAIN, WITH_A_VALUE
from support import unique

OTHER = [*ROWS[1:9], (20, "bolt", "111", "a"), (21, "acme", "Zoë", "222"), (22, "bolt", None, "b")]
TYPES = {"unknown": 0, "text": 25, "varchar": 1043}

# What makes the planner choose differently.
PLANS = {
    "as it likes": [],
    "no hashing": ["enable_hashagg = off", "enable_hashjoin = off"],
    "no sorting": ["enable_sort = off", "enable_mergejoin = off", "enable_incremental_sort = off"],
    "nested loops": ["enable_hashjoin = off", "enable_mergejoin = off", "enable_memoize = on"],
    "merge joins": ["enable_hashjoin = off", "enable_nestloop = off", "enable_hashagg = off"],
    "generic plans": ["plan_cache_mode = force_generic_plan"],
}


@pytest.fixture(scope="module")
def tables(world):
    """{kind: ((tables), (text twins))}: all sealed, and every second row not sealed yet."""
    sealed, other = world.twins("t"), world.twins("o", OTHER)
    half = []
    for name, rows in (("h", ROWS), ("ho", OTHER)):
        world.dba.run(f"CREATE TABLE {name} ({SHAPE})")
        world.fill(name, rows)
        protect(world.dba, name, "ssn", "note", rewrite=False)
        world.dba.run(f"UPDATE {name} SET ssn = ssn, note = note WHERE id % 2 = 0")
        world.dba.run(f"GRANT ALL ON {name} TO PUBLIC")
        half.append(name)
    sealed_ids = [id for (id,) in world.dba.all("SELECT id FROM h WHERE cmk.is_sealed(ssn) ORDER BY id")]
    assert sealed_ids == [id for id, _, ssn, _ in ROWS if id % 2 == 0 and ssn is not None]
    return {"sealed": ((sealed[0], other[0]), (sealed[1], other[1])), "half": (tuple(half), (sealed[1], other[1]))}


@pytest.fixture(scope="module")
def user(world):
    reader = world.reader()
    reader.run("SET jit = off")  # which the costs of forbidden plans would start
    return reader


def statement(template, names, value):
    return template.format(t=names[0], o=names[1], x=value)


def outcome(user, sql, values=(), types=(), left=None):
    """What a statement gives: its tag, rows as they came over the wire, and what it leaves in a table."""
    wire = user.connection.pgconn
    wire.exec_(b"BEGIN")
    try:
        result = wire.exec_params(sql.encode(), [value.encode() for value in values], list(types))
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return "error", result.error_field(DiagnosticField.SQLSTATE).decode()
        seen = [result.command_status, rows(result, ordered=" ORDER BY " in sql and " OVER " not in sql)]
        if left:
            seen.append(rows(wire.exec_(f"SELECT * FROM {left} ORDER BY id".encode()), ordered=True))
        return seen
    finally:
        wire.exec_(b"ROLLBACK")


def rows(result, ordered):
    assert result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK), result.error_message
    found = [tuple(result.get_value(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]
    return found if ordered else sorted(found, key=repr)


def differences(user, tables, templates, form="literal", value="222", reference=None):
    """The statements that give something else than on text; asserts that on text none of the literals fails.
    `reference` is the session that asks the text, if another one."""
    found, ours, texts = [], *tables
    for template in templates:
        given = f"'{value}'" if form == "literal" else "$1"
        values, types = ((), ()) if form == "literal" or "{x}" not in template else ((value,), (TYPES[form],))
        writes = not template.startswith(("SELECT", "TABLE", "WITH c", "WITH p", "WITH RECURSIVE"))
        expected, seen = (
            outcome(who, statement(template, names, given), values, types, left=names[0] if writes else None)
            for who, names in ((reference or user, texts), (user, ours))
        )
        assert form != "literal" or expected[0] != "error", (template, expected)
        if seen != expected:
            found.append(f"{statement(template, ours, given)}\n    gives    {seen}\n    on text  {expected}")
    return found


@pytest.mark.parametrize("kind", ["sealed", "half"])
@pytest.mark.parametrize("form", ["literal", *TYPES])
def test_statements_with_a_value_give_what_they_give_on_text(user, tables, kind, form):
    found = differences(user, tables[kind], WITH_A_VALUE, form)
    assert not found, f"{len(found)}:\n" + "\n".join(found)


@pytest.mark.parametrize("value", ["Zoë", "", "x%y_z", "absent"])
def test_other_values(user, tables, value):
    found = differences(user, tables["sealed"], WITH_A_VALUE, value=value)
    assert not found, f"{len(found)}:\n" + "\n".join(found)


@pytest.mark.parametrize("kind", ["sealed", "half"])
@pytest.mark.parametrize("settings", PLANS.values(), ids=PLANS)
def test_every_plan_gives_what_it_gives_on_text(user, tables, kind, settings):
    for setting in settings:
        user.run(f"SET {setting}")
    try:
        found = differences(user, tables[kind], [*PLAIN, *WITH_A_VALUE])
        if "plan_cache_mode = force_generic_plan" in settings:
            found += differences(user, tables[kind], WITH_A_VALUE, "text")
    finally:
        for setting in settings:
            user.run(f"RESET {setting.partition(' ')[0]}")
    assert not found, f"{len(found)}:\n" + "\n".join(found)


def test_in_parallel_statements_give_what_they_give_on_text(world, user, tables):
    worker = world.reader()
    force = "debug_parallel_query" if worker.connection.info.server_version >= 160000 else "force_parallel_mode"
    for setting in (f"{force} = on", "parallel_setup_cost = 0", "parallel_tuple_cost = 0",
                    "min_parallel_table_scan_size = 0"):
        worker.run(f"SET {setting}")
    reads = [template for template in PLAIN if template.startswith("SELECT")]
    found = differences(worker, tables["sealed"], reads, reference=user)
    assert not found, f"{len(found)}:\n" + "\n".join(found)


def test_what_opens_no_value_by_itself_is_also_right_in_ciphertext(world, tables):
    """Casts open whatever the output setting is; only what is printed differs."""
    user = world.connect("app")
    templates = [f"SELECT id FROM {{t}} WHERE {line}" for line in (
        "ssn = {x}", "ssn IN ({x}, '9')", "lower(ssn) = {x}", "ssn < {x}", "ssn LIKE {x} || '%'",
        "(ssn, id) > ({x}, 3)",
    )]
    templates += ["SELECT id FROM {t} ORDER BY ssn, id", "SELECT count(DISTINCT ssn) FROM {t}",
                  "SELECT ssn::text FROM {t} UNION SELECT note::text FROM {o}", "SELECT max(ssn) FROM {t} GROUP BY ssn"]
    assert not differences(user, tables["sealed"], templates)


def test_a_collation_that_takes_different_texts_for_equal(world, user, tables):
    if not world.dba.one("SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'"):
        pytest.skip("PostgreSQL is built without ICU")
    world.dba.run("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    templates = [
        "SELECT id FROM {t} WHERE ssn COLLATE loose = {x}", "SELECT id FROM {t} WHERE {x} <> ssn COLLATE loose",
        "SELECT id FROM {t} WHERE ssn COLLATE loose IN ({x}, '9')", "SELECT count(DISTINCT ssn COLLATE loose) FROM {t}",
        "SELECT count(*) FROM {t} GROUP BY ssn COLLATE loose", "SELECT a.id, b.id FROM {t} a JOIN {o} b ON"
                                                               " a.ssn COLLATE loose = b.ssn",
        "SELECT rank() OVER (ORDER BY ssn COLLATE loose), id FROM {t}", "SELECT max(ssn COLLATE loose) FROM {t}",
        "SELECT array_agg(id ORDER BY ssn COLLATE loose, id) FROM {t}",
    ]
    assert not differences(user, tables["sealed"], templates, value="abc")


# What takes more than one statement


@pytest.fixture
def t(tables):
    return tables["sealed"][0][0]


def test_cursors(user, t):
    expected = [(id, ssn) for id, _, ssn, _ in ROWS]
    with user.connection.transaction():
        user.run(f"DECLARE c SCROLL CURSOR FOR SELECT id, ssn FROM {t} ORDER BY id")
        assert user.all("FETCH 3 FROM c") == expected[:3]
        assert user.all("FETCH ABSOLUTE 2 FROM c") == expected[1:2]
        assert user.all("FETCH ALL FROM c") == expected[2:]
        assert user.all("FETCH BACKWARD ALL FROM c") == expected[::-1]
        user.run(f"DECLARE h CURSOR WITH HOLD FOR SELECT id, ssn FROM {t} ORDER BY ssn COLLATE \"C\", id")
    expected.sort(key=lambda row: (row[1] is None, row[1] or "", row[0]))
    assert user.all("FETCH ALL FROM h") == expected
    user.run("CLOSE h")


def test_where_current_of(user, t):
    with user.connection.transaction(force_rollback=True):
        user.run(f"DECLARE c CURSOR FOR SELECT * FROM {t} WHERE ssn = '222' ORDER BY id FOR UPDATE")
        user.run("FETCH 1 FROM c")
        user.run(f"UPDATE {t} SET ssn = ssn || '!' WHERE CURRENT OF c")
        assert plain(user, t)[2] == "222!"


def test_server_side_cursor_of_the_driver(user, t):
    with user.connection.transaction(), user.connection.cursor("named") as cursor:
        cursor.execute(f"SELECT ssn FROM {t} WHERE ssn <> %s ORDER BY id", ("222",))
        assert [ssn for (ssn,) in cursor] == [r[2] for r in ROWS if r[2] is not None and r[2] != "222"]


def test_prepared_statements_from_custom_to_generic_plan(user, t):
    for type_ in ("", "(text)", "(varchar)", "(cmk_text)"):
        user.run(f"PREPARE p{type_} AS SELECT id FROM {t} WHERE ssn = $1 ORDER BY id")
        for value, ids in [("222", [2, 3, 9]), ("9", [8]), ("nothing", [])] * 4:
            assert [id for (id,) in user.all(f"EXECUTE p('{value}')")] == ids
        user.run("DEALLOCATE p")


def test_a_prepared_select_of_the_driver(user, t):
    for _ in range(8):
        rows = user.connection.execute(f"SELECT id, ssn FROM {t} WHERE ssn = %s ORDER BY id", ("222",), prepare=True)
        assert rows.fetchall() == [(2, "222"), (3, "222"), (9, "222")]


@pytest.mark.parametrize("options", ["", "WITH (security_barrier)", "WITH (security_invoker)"])
def test_views(world, dba, user, t, options):
    if "invoker" in options and dba.connection.info.server_version < 150000:
        pytest.skip("security_invoker came with 15")
    view = unique("view")
    dba.run(f"CREATE VIEW {view} {options} AS SELECT id, tenant_id, ssn, lower(ssn) AS low FROM {t} WHERE ssn <> ''")
    dba.run(f"GRANT ALL ON {view} TO PUBLIC")
    assert user.all(f"SELECT ssn, low FROM {view} WHERE ssn = 'Zoë' OR low = 'abc' ORDER BY id") == [
        ("Zoë", "zoë"), ("abc", "abc"), ("ABC", "abc"),
    ]
    with user.connection.transaction(force_rollback=True):
        user.run(f"INSERT INTO {view} (id, tenant_id, ssn) VALUES (300, 'acme', 'through a view')")
        assert user.row(f"UPDATE {view} SET ssn = upper(ssn) WHERE id = 300 RETURNING ssn, low") == (
            "THROUGH A VIEW", "through a view",
        )


def test_row_level_security(world, dba, tables):
    table = world.make(unique("rls"), ROWS)
    dba.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    dba.run(f"CREATE POLICY p ON {table} USING (tenant_id = current_setting('my.tenant', true))")
    ro = world.reader("ro")
    ro.run("SET my.tenant = 'acme'")
    assert ro.all(f"SELECT id FROM {table} WHERE ssn = '222'") == [(3,)]
    assert ro.all(f"SELECT ssn FROM {table} ORDER BY ssn") == sorted(
        [(r[2],) for r in ROWS if r[1] == "acme"], key=lambda r: (r[0] is None, r[0] or ""),
    )


FOUND = "SELECT id FROM {t} WHERE ssn = v ORDER BY id"
FUNCTIONS = {
    "sql, by text": ("(v text) RETURNS SETOF int LANGUAGE sql", FOUND, "'222'"),
    "sql, by the type": ("(v {t}.ssn%TYPE) RETURNS SETOF int LANGUAGE sql", FOUND, "'222'"),
    "plpgsql, by text": (
        "(v text) RETURNS SETOF int LANGUAGE plpgsql", f"BEGIN RETURN QUERY {FOUND}; END", "'222'",
    ),
    "plpgsql, a variable": (
        "(n int) RETURNS SETOF int LANGUAGE plpgsql",
        "DECLARE v {t}.ssn%TYPE; BEGIN SELECT ssn INTO v FROM {t} WHERE id = n;"
        f" RETURN QUERY {FOUND}; END", "2",
    ),
    "plpgsql, a loop": (
        "(v text) RETURNS SETOF int LANGUAGE plpgsql",
        "DECLARE r record; BEGIN FOR r IN SELECT * FROM {t} ORDER BY id LOOP"
        " IF r.ssn = v THEN RETURN NEXT r.id; END IF; END LOOP; END", "'222'",
    ),
    "plpgsql, dynamic": (
        "(v text) RETURNS SETOF int LANGUAGE plpgsql",
        "BEGIN RETURN QUERY EXECUTE 'SELECT id FROM {t} WHERE ssn = $1 ORDER BY id' USING v; END", "'222'",
    ),
}


@pytest.mark.parametrize("head, body, argument", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions(user, t, head, body, argument):
    name = unique("f")
    user.run(f"CREATE FUNCTION {name}{head.format(t=t)} AS $$ {body.format(t=t)} $$")
    for _ in range(7):
        assert user.all(f"SELECT * FROM {name}({argument})") == [(2,), (3,), (9,)]


def test_functions_that_return_rows_values_and_assign(user, t):
    name = unique("f")
    user.run(f"CREATE FUNCTION {name}_rows() RETURNS SETOF {t} LANGUAGE sql AS 'SELECT * FROM {t} ORDER BY id'")
    user.run(f"CREATE FUNCTION {name}_one(n int) RETURNS text LANGUAGE plpgsql AS"
             f" 'DECLARE v text; BEGIN SELECT ssn INTO v FROM {t} WHERE id = n; v := v || ''!''; RETURN v; END'")
    user.run(f"CREATE FUNCTION {name}_type(n int) RETURNS cmk_text LANGUAGE sql AS 'SELECT ssn FROM {t} WHERE id = n'")
    assert user.all(f"SELECT * FROM {name}_rows()") == ROWS
    assert user.one(f"SELECT {name}_one(2)") == "222!"
    assert user.row(f"SELECT {name}_type(2), upper({name}_type(6)), {name}_type(4)") == ("222", "ZOË", None)


def test_domains_and_composite_types_over_the_type(user, t):
    name = unique("d")
    user.run(f"CREATE DOMAIN {name} AS cmk_text CHECK (VALUE <> 'forbidden')")
    user.run(f"CREATE TYPE {name}_pair AS (a cmk_text, b {name})")
    row = user.row(f"SELECT ssn::{name}, lower(ssn::{name}), ssn::{name} = 'Zoë' FROM {t} WHERE id = 6")
    assert row == ("Zoë", "zoë", True)
    with pytest.raises(psycopg.errors.CheckViolation):
        user.run(f"SELECT 'forbidden'::{name}")
    assert user.row(f"SELECT (p).a = ssn, (p).b FROM (SELECT ssn, ROW(ssn, ssn)::{name}_pair AS p FROM {t}"
                    " WHERE id = 2) q") == (
        True, "222",
    )


def test_in_one_transaction_what_was_written_is_read(user, t):
    with user.connection.transaction(force_rollback=True):
        user.run(f"INSERT INTO {t} VALUES (400, 'acme', 'mine')")
        with user.connection.transaction(force_rollback=True):
            user.run(f"UPDATE {t} SET ssn = 'lost' WHERE id = 400")
        assert user.one(f"SELECT ssn FROM {t} WHERE ssn = 'mine'") == "mine"
    assert user.all(f"SELECT FROM {t} WHERE id = 400") == []
