"""Every function of ours with odd arguments: it works, or fails with an error of ours, and nothing else breaks."""

import itertools

import psycopg
import pytest

from support import DETAIL, fails, unique

DEEP = "[" * 5_000 + "]" * 5_000
LONG = "x" * 100_000

# A few odd values of each type, as SQL. NULL is added to each.
ODD = {
    "text": ["''", "'x'", "'*'", "'cmk problem'", "E'a\\nb'", "U&'\\200B'", "U&'\\202E'", f"'{LONG}'", "'infinity'",
             "'1 = 1'", "''';--'", "'%s%n%I'", "'cmk1:'", "'\\xff'"],
    "name": ["''", "'cmk problem'", "'cmk found'", "'nosuch'", "'new'", "'ctid'", "'a\"b'", "'%I'"],
    "regclass": ["0", "4294967295", "999999", "'pg_class'", "'odd_pkey'", "'odd_view'", "'odd_seq'", "'cmk.tenant'"],
    "regrole": ["0", "4294967295", "'pg_monitor'"],
    "oid": ["'odd'::regclass", "0", "4294967295", "999999", "1259"],
    "smallint": ["0", "-1", "1", "32767", "-32768"],
    "integer": ["0", "-1", "2147483647", "-2147483648"],
    "bigint": ["0", "-1", "9223372036854775807", "-9223372036854775808"],
    "numeric": ["0", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1e300"],
    "double precision": ["0", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1e300"],
    "boolean": ["true", "false"],
    "bytea": ["''", "'\\x00'", "'\\xc1'", "decode(repeat('00', 16), 'hex')", "decode(repeat('c101', 60), 'hex')"],
    "jsonb": ["'null'", "'1'", "'[]'", "'{}'", "'\"x\"'", "'[null]'", "'[1e400]'", "'{\"Records\": 1}'",
              "'{\"role_arn\": 1e400}'", f"'{DEEP}'", "'{\"\": {}}'", "'-1e-400'"],
    "interval": ["'0'", "'-1 day'", "'178000000 years'", "'1 month'"],
    "timestamp with time zone": ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'294276-12-31'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'"],
    "text[]": ["'{}'", "'{NULL}'", "'{\"\"}'", "'{{a,b},{c,d}}'", f"'{{{LONG}}}'"],
    "tid": ["'(0,0)'", "'(4294967295,65535)'"],
    "anyelement": ["1"],
    "cmk_text": ["''", "'x'"], "cmk_bytea": ["''"], "cmk_jsonb": ["'{}'", "'[1e400]'"],
    "cmk_text[]": ["'{}'", "'{NULL}'", "'{a}'"], "cmk_bytea[]": ["'{}'", "'{NULL}'"],
}
ODD |= {"character varying": ODD["text"], "\"char\"": ["''", "'x'"], "name[]": ODD["text[]"], "json": ODD["jsonb"]}

# What an argument is where another one is tried.
USUAL = {"tenant": "'acme'", "only_tenant": "'acme'", "tenants": "'{acme}'", "table": "'odd'", "relation": "'odd'",
         "column": "'c'", "forgive": "'{}'", "confirm": "'acme'", "role": "'postgres'", "key_uri": "'local:shared'", "dry_run": "true"}

FUNCTIONS = """
    SELECT p.oid::regprocedure::text, n.nspname, p.proname, p.prokind,
           ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n) ORDER BY n),
           (SELECT coalesce(array_agg(coalesce(m, '') ORDER BY n), '{}') FROM unnest(p.proargnames, coalesce(p.proargmodes,
               array_fill('i'::"char", ARRAY[coalesce(cardinality(p.proargnames), 0)]))) WITH ORDINALITY a (m, mode, n)
             WHERE mode IN ('i', 'b', 'v')),
           p.provariadic <> 0
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'cmk_encrypt'
     WHERE p.prorettype NOT IN ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
       AND NOT 'internal'::regtype = ANY (p.proargtypes) AND NOT 'cstring'::regtype = ANY (p.proargtypes)
     ORDER BY 2, 3, 1
"""


@pytest.fixture(scope="module")
def world(server):
    """A database of its own, which the walk may leave in any state."""
    name = unique("odd")
    server.execute(f"CREATE DATABASE {name}")
    with server.connect(name, options="-c statement_timeout=20s") as connection:
        for sql in (
            "CREATE EXTENSION cmk_encrypt", "SELECT cmk.register_tenant('acme', 'local:shared')",
            "SELECT cmk.grant_access('acme', 'postgres')", "CREATE TABLE odd (id int PRIMARY KEY, tenant text, c bytea,"
            " \"cmk problem\" bytea, ssn text)", "CREATE VIEW odd_view AS SELECT 1 AS c", "CREATE SEQUENCE odd_seq",
            "INSERT INTO odd VALUES (1, 'acme', cmk_encrypt('acme', 'x'), cmk_encrypt('acme', 'y'), 'z')",
        ):
            connection.execute(sql)
        yield connection
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def calls(connection):
    """Each function's calls: one argument is odd, the others are usual; all but one are NULL; all are."""
    for signature, schema, name, kind, types, names, variadic in connection.execute(FUNCTIONS).fetchall():
        if any(kind.removesuffix("[]") not in ODD and kind not in ODD for kind in types):
            continue
        names = names + [""] * (len(types) - len(names))
        usual = [USUAL.get(argument if kind != "oid" else "") or (ODD[kind][0] if kind in ODD else "'{}'") for argument, kind in zip(names, types)]
        choices = [[(i, odd) for odd in [*ODD.get(kind, ["'{}'"]), "NULL"]] for i, kind in enumerate(types)] or [[(None, None)]]
        chosen = [[odd if n == i else value for n, value in enumerate(usual)]
                  for i, odd in itertools.chain.from_iterable(choices)]
        chosen += [[value if n == i else "NULL" for n, value in enumerate(usual)] for i in range(-1, len(types))]
        for values in chosen:
            arguments = [f"({value})::{kind}" for value, kind in zip(values, types)]
            if variadic:
                arguments[-1] = f"VARIADIC {arguments[-1]}"
            called = f'{schema}."{name}"({", ".join(arguments)})'
            yield signature, f"CALL {called}" if kind == "p" else f"SELECT * FROM {called}"


def is_raw(signature, error):
    """Whether an error is neither ours nor what PostgreSQL says before a function of ours is asked.

    Helpers of schema cmk_internal are called by our own SQL only; of those, nothing may come that PostgreSQL takes
    for a bug."""
    if DETAIL.match(error.diag.message_detail or "") or "malformed array literal" in error.diag.message_primary:
        return False
    return not signature.startswith("cmk_internal.") or error.sqlstate.startswith("XX")


def test_no_function_fails_with_a_raw_error(world):
    raw, walked = {}, set()
    for signature, sql in calls(world):
        walked.add(signature.partition("(")[0])
        try:
            if sql.startswith("CALL"):
                world.execute(sql)
            else:
                world.execute("BEGIN")
                world.execute(sql)
                world.execute("ROLLBACK")
        except psycopg.Error as error:
            world.rollback()
            if is_raw(signature, error):
                raw.setdefault((signature, error.sqlstate, error.diag.message_primary[:100]), sql[:300])
    assert len(walked) > 100
    assert not raw


# What the walk does not get to


def test_a_pause_that_is_none_is_refused_before_anything_is_done(world):
    for call in ("cmk.reencrypt('odd', 'c', pause => {})", "cmk.seal_table('odd', pause => {})"):
        for pause in ("'NaN'", "'Infinity'", "1001"):
            with fails("22023", "pause"):
                world.execute(f"CALL {call.format(pause)}")
    for pause in ("-1", "0", "'-Infinity'", "NULL"):
        world.execute(f"CALL cmk.reencrypt('odd', 'c', pause => {pause})")


@pytest.mark.parametrize("aad", ["''", "'--'", "'nosuch'", "'1 +'", "'id) FROM odd; --'", "'count(*)::text'"])
def test_an_aad_that_is_no_expression_is_an_obstacle(world, aad):
    for dry_run in ("true", "false"):
        with fails("42809", "not_reencryptable") as caught:
            world.execute(f"CALL cmk.reencrypt('odd', 'c', aad => {aad}, dry_run => {dry_run})")
        assert "aad is no expression" in caught.value.diag.message_detail


def test_columns_of_any_name_are_re_encrypted(world):
    """Also where a value that can't be renewed has the job go carefully, with names of its own."""
    names = ("cmk problem", "cmk ctid", "cmk key", "cmk found", "new", "key", "problem")
    aad = "'a'::text::bytea"
    world.execute(f"CREATE TABLE named (id int PRIMARY KEY, {', '.join(f'{chr(34)}{name}{chr(34)} bytea' for name in names)})")
    for id in (1, 2, 3):
        world.execute(f"INSERT INTO named VALUES ({id}, {', '.join([f'''cmk_encrypt('acme', 'x', {aad})'''] * len(names))})")
    world.execute("SELECT cmk.rotate_tenant('acme')")
    for name in names:
        world.execute(f'UPDATE named SET "{name}" = \'no envelope\' WHERE id = 2')
    for name in names:
        before = world.execute(f'SELECT id, "{name}" FROM named ORDER BY id').fetchall()
        world.execute("CALL cmk.reencrypt('named', %s, aad => %s, pause => 0)", [name, aad])
        after = world.execute(f'SELECT id, "{name}" FROM named ORDER BY id').fetchall()
        assert [a == b for a, b in zip(before, after)] == [False, True, False], name
        opened = f"SELECT id, cmk_try_decrypt_text('acme', \"{name}\", {aad}) FROM named ORDER BY id"
        assert world.execute(opened).fetchall() == [(1, "x"), (2, None), (3, "x")]
    world.execute("DROP TABLE named")


NOTES = [
    "'nonsense', '{}'", "NULL, '{}'", "'done', NULL", "'done', '[]'", """'running', '{"pass": "x"}'""",
    """'running', '{"pass": 1000000000}'""", """'running', '{"rows_done": -1}'""", """'running', '{"failures": 1}'""",
    """'running', '{"failures": [1]}'""", """'running', '{"failures": [{"key": 1}]}'""",
    """'running', '{"blocks": 99999999999999999999}'""",
]


@pytest.mark.parametrize("note", NOTES)
def test_whoever_holds_the_lock_of_a_column_notes_what_a_run_would(world, note):
    world.execute("SELECT cmk_internal.reencrypt_begin('odd'::regclass::oid, 3::int2)")
    try:
        with fails("42501", "registry_write"):
            world.execute(f"SELECT cmk_internal.reencrypt_note('odd'::regclass::oid, 3::int2, {note})")
    finally:
        world.rollback()
        world.execute("SELECT cmk_internal.reencrypt_end()")


def test_a_transaction_made_read_only_after_an_act_ends_with_our_error(world):
    world.execute("BEGIN")
    world.execute("SELECT cmk.suspend_tenant('acme')")
    world.execute("SET TRANSACTION READ ONLY")
    with fails("25006", "read_only"):
        world.execute("COMMIT")
    assert world.execute("SELECT state FROM cmk.tenant WHERE tenant = 'acme'").fetchall() == [("active",)]


BLANK = ["' '", r"U&'\200B'", r"U&'\00A0 \FEFF\2060'", r"E'\n\t'", "repeat('x', 4097)"]


@pytest.mark.parametrize("what", BLANK)
def test_a_word_that_nobody_can_read_does_not_destroy_data_keys(world, what):
    with fails("22023", "retirement_unchecked", "acme"):
        world.execute(f"SELECT * FROM cmk.retire_keys('acme', also_checked => {what})")


def test_a_lock_timeout_of_ages_is_one(world):
    world.execute("CREATE TABLE aged (id int PRIMARY KEY, tenant text, ssn text)")
    world.execute("SELECT cmk.protect_column('aged', 'ssn', tenant_column => 'tenant', lock_timeout => '178000000 years')")
    world.execute("DROP TABLE aged")
