"""What cannot be searched by an index: a right answer, or an error that says what to do; never an empty result."""

import secrets

import psycopg
import pytest

import column
from columns import TRIGGER, app, armor, dba, envelopes, is_armor, opened, plain, reader  # noqa: F401 (fixtures)
from columns import unarmor
from searching import drop_indexes, ids, nodes, scanning, tokens, world  # noqa: F401 (fixtures)
from local_key import read_local_key, unwrap_local
from support import fails, fails_with, flip, unique

CANARY = f"canary-{secrets.token_hex(12)}"
ROWS = [(1, "acme", CANARY, CANARY), (2, "bolt", CANARY, "other"), (3, "acme", "other", CANARY),
        (4, "bolt", None, None)]


@pytest.fixture(scope="module")
def t(world):
    """ssn is searchable, note is protected and not."""
    name = world.searchable("t")
    world.dba.run(f"SELECT cmk.protect_column('{name}', 'note', tenant_column => 'tenant_id')")
    world.fill(name, ROWS)
    world.fill(f"{name}_text", ROWS)
    return name


@pytest.fixture
def quiet(world):
    """At the end nothing that was told or logged since held the canary, but for statements' own text."""
    log, told = world.server.log.stat().st_size, []
    yield told
    lines = world.server.log.read_bytes()[log:].decode(errors="replace").splitlines()
    assert not [line for line in lines if CANARY in line and "STATEMENT:" not in line]
    for error in told:
        diag = error.diag
        shown = [getattr(diag, name) for name in dir(diag) if not name.startswith("_")]
        assert not [field for field in shown if CANARY in str(field)]


# Columns that are not searchable

UNSEARCHABLE = [
    f"note = '{CANARY}'", f"'{CANARY}' = note", f"note IN ('{CANARY}', 'x')", f"note = ANY (ARRAY['{CANARY}', 'x'])",
    f"note <> '{CANARY}'", f"note = '{CANARY}' AND ssn = '{CANARY}'", f"tenant_id = 'acme' AND note = '{CANARY}'",
    f"ssn LIKE '{CANARY[:8]}%'", "ssn < 'd'", "ssn BETWEEN 'a' AND 'd'", f"upper(ssn) = upper('{CANARY}')",
    f"ssn COLLATE \"C\" = '{CANARY}'", f"ssn::text = '{CANARY}'", "ssn = note", "ssn || '' = note", "ssn IS NULL",
    "ssn ~ '^canary'", "length(ssn) = 5", "ssn IN (SELECT note FROM {t})", f"ssn COLLATE other = '{CANARY}'",
]


@pytest.mark.parametrize("condition", UNSEARCHABLE)
def test_what_no_index_serves_is_answered_by_a_scan(reader, t, condition):
    for setting in ("on", "off"):
        reader.run(f"SET enable_seqscan = {setting}")
        seen, expected = (ids(reader, f"SELECT id FROM {name} WHERE {condition.format(t=name)}")
                          for name in (t, f"{t}_text"))
        assert seen == expected
    assert "note" not in str([node.get("Index Cond") for node in nodes(reader, f"SELECT id FROM {t} WHERE {condition}"
                                                                       .format(t=t))])


@pytest.mark.parametrize("index", ["{t} (note cmk_token_ops)", "{t} (tenant_id, note cmk_token_ops)",
                                   "{t} (note cmk_token_next_ops)"])
@pytest.mark.parametrize("kind", ["INDEX", "UNIQUE INDEX", "INDEX CONCURRENTLY"])
def test_a_token_index_on_values_without_tokens_is_refused(dba, t, index, kind):
    with fails("42809", "not_searchable") as failure:
        dba.run(f"CREATE {kind} {unique('i')} ON {index.format(t=t)}")
    assert "searchable" in failure.value.diag.message_hint
    dba.run("".join(f"DROP INDEX {name};" for (name,) in dba.all(
        "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")))


def test_a_token_index_on_an_empty_column_without_tokens_refuses_what_it_would_have_to_compare(world, dba, reader):
    table = world.make(unique("empty"))
    dba.run(f"CREATE INDEX ON {table} (note cmk_token_ops)")
    reader.run(f"INSERT INTO {table} VALUES (1, 'acme', NULL, 'x')")
    with fails("42809", "not_searchable"):
        reader.run(f"INSERT INTO {table} VALUES (2, 'acme', NULL, 'y')")
    reader.run("SET enable_seqscan = off")
    assert ids(reader, f"SELECT id FROM {table} WHERE note = 'x'") == [1]


@pytest.mark.parametrize("sql", [
    "CREATE INDEX ON {t} (ssn)", "CREATE UNIQUE INDEX ON {t} (tenant_id, ssn)", "CREATE INDEX ON {t} USING hash (ssn)",
    "ALTER TABLE {t} ADD UNIQUE (ssn)", "CREATE TABLE {t}_p (ssn cmk_text PRIMARY KEY)",
])
def test_an_index_of_the_default_class_is_refused_and_the_hint_names_the_right_one(dba, t, sql):
    with fails("42809", "index_refused") as failure:
        dba.run(sql.format(t=t))
    assert "cmk_token_ops" in failure.value.diag.message_hint


def test_only_text_can_be_searchable(dba):
    table = unique("t")
    dba.run(f"CREATE TABLE {table} (id int, tenant_id text, ssn bytea, note jsonb)")
    for column_name in ("ssn", "note"):
        with fails("42809", "not_protectable"):
            dba.run(f"SELECT cmk.protect_column('{table}', '{column_name}', tenant_column => 'tenant_id',"
                    " searchable => true)")


@pytest.mark.parametrize("arguments", [
    "searchable => true, normalization => 'whatever'", "searchable => true, token_bits => 7",
    "searchable => true, token_bits => 121", "searchable => false, normalization => 'lower'", "token_bits => 32",
])
def test_options_that_mean_nothing_are_refused(dba, arguments):
    table = unique("t")
    dba.run(f"CREATE TABLE {table} (id int, tenant_id text, ssn text)")
    with pytest.raises(psycopg.Error) as failure:
        dba.run(f"SELECT cmk.protect_column('{table}', 'ssn', tenant_column => 'tenant_id', {arguments})")
    assert failure.value.sqlstate in ("22023", "42809"), failure.value


def test_an_error_while_planning_is_an_error(reader, t):
    """And not the end of the session."""
    for sql, sqlstate in (("SELECT 1 / 0", "22012"), (f"SELECT id FROM {t} WHERE ssn = 'x' AND id = 1 / 0", "22012"),
                          (f"SELECT id FROM {t} WHERE ssn IN ('x', ('x' || 1 / 0))", "22012")):
        with fails_with(sqlstate):
            reader.run(sql)
    with fails("23514", "not_sealed"):
        reader.run("SELECT cmk.sealed('x'::cmk_text, 'l', 'acme', 'search')")
    assert reader.usable()


# A tenant without an index key


def test_sealing_for_a_tenant_without_an_index_key_says_what_to_do(world, dba, app, t):
    dba.run("SELECT cmk.resume_tenant('late')")
    try:
        with fails("55000", "no_index_key", "late") as failure:
            app.run(f"INSERT INTO {t} VALUES (9, 'late', 'x', NULL)")
        assert "cmk.rotate_index_key" in failure.value.diag.message_hint
        app.run(f"INSERT INTO {t} VALUES (9, 'late', NULL, 'what is not searchable needs none')")
        app.run(f"DELETE FROM {t} WHERE id = 9")
        # Nothing of it can be there to find.
        for sql in (f"SELECT id FROM {t} WHERE ssn = 'other'", f"SELECT id FROM {t} WHERE ssn IN ('other', 'x')"):
            assert ids(app, sql) == [3]
    finally:
        dba.run("SELECT cmk.suspend_tenant('late')")


# Values that are not what the column's constraint asks for


@pytest.fixture
def table(world):
    return world.searchable(unique("u"), [(1, "acme", "first", "n"), (2, "bolt", "second", "n")])


@pytest.fixture
def key(world, dba):
    """The key under which acme's values are sealed."""
    uri, wrapped = dba.row("SELECT t.key_uri, k.wrapped FROM cmk.tenant t JOIN cmk.data_key k USING (tenant)"
                           " WHERE tenant = 'acme' AND purpose = 'values' AND k.state = 'current'")
    return unwrap_local(read_local_key(world.server.keys, uri), "acme", wrapped)


def put(dba, table, envelope, id=9):
    """Stores a value past the trigger, as a restore does."""
    dba.run("SET session_replication_role = replica")
    dba.run(f'ALTER TABLE {table} DISABLE TRIGGER "{TRIGGER}"')
    dba.run("SET cmk_encrypt.input = envelope")
    try:
        dba.run(f"INSERT INTO {table} VALUES ({id}, 'acme', '{armor(envelope)}', 'n')")
    finally:
        dba.run("SET cmk_encrypt.input = text")
        dba.run(f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "{TRIGGER}"')


def test_a_value_without_a_token_is_not_stored(dba, table, key):
    sealed = column.seal_column(key, "acme", f"{table}.ssn", CANARY.encode(), secrets.token_bytes(24))
    with fails("23514", "token_missing") as failure:
        put(dba, table, sealed)
    assert CANARY not in str(failure.value)
    assert dba.one(f"SELECT count(*) FROM {table}") == 2


def test_a_restorer_may_bring_a_value_without_a_token_which_is_given_one_or_refused(world, dba, table, key):
    sealed = column.seal_column(key, "acme", f"{table}.ssn", b"third", secrets.token_bytes(24))
    restorer = world.connect(input="envelope")
    try:
        restorer.run(f"INSERT INTO {table} VALUES (9, 'acme', '{armor(sealed)}', 'n')")
    except psycopg.Error as error:
        assert error.sqlstate == "23514", error
    for id, stored in envelopes(dba, table).items():
        assert len(tokens(stored)) == 1, id


def test_a_value_of_another_column_is_not_stored(dba, table, key):
    sealed = column.seal_column(key, "acme", "another.ssn", CANARY.encode(), secrets.token_bytes(24), bytes(20))
    with fails("23514", "foreign_envelope"):
        put(dba, table, sealed)


def test_a_forged_token_finds_what_does_not_open(dba, table, reader):
    """Who may write to the table without a key can have a value found; whoever reads it is told."""
    first = envelopes(dba, table)[1]
    other = reader.one(f"SELECT cmk.envelope(ssn) FROM {table} WHERE id = 1")
    reader.run(f"UPDATE {table} SET ssn = 'changed' WHERE id = 1")
    changed = envelopes(dba, table)[1]
    assert other == first and tokens(first) != tokens(changed)
    put(dba, table, changed[:34] + first[34:54] + changed[54:])
    reader.run("SET enable_seqscan = off")
    with fails("39000", "not_authentic", "acme"):
        reader.run(f"SELECT ssn FROM {table} WHERE ssn = 'first'")
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn = 'changed'") == [1]


def test_no_flipped_bit_of_a_header_gives_a_wrong_answer_or_a_plaintext(dba, table, reader, quiet):
    reader.run(f"UPDATE {table} SET ssn = '{CANARY}' WHERE id = 1")
    good, refused, unfound = envelopes(dba, table)[1], 0, 0
    for bit in range(0, 8 * 54, 3):
        try:
            put(dba, table, flip(good, bit))
        except psycopg.Error as error:
            quiet.append(error)
            assert error.sqlstate in ("23514", "22P02"), (bit, error)
            refused += 1
            continue
        answers = {}
        for kind in ("seq scan", "index scan"):
            with scanning(reader, kind):
                try:
                    answers[kind] = ids(reader, f"SELECT id FROM {table} WHERE ssn = '{CANARY}'")
                except psycopg.Error as error:
                    quiet.append(error)
                    assert error.sqlstate == "39000", (bit, error)
                    answers[kind] = error.sqlstate
        assert all(answer in ([1], [1, 9], "39000") for answer in answers.values()), (bit, answers)
        unfound += answers["seq scan"] == [1]
        with fails("39000", "not_authentic") if bit >= 16 + 128 else fails("39000", "unknown_data_key"):
            reader.run(f"SELECT ssn FROM {table} WHERE id = 9")
        reader.run(f"DELETE FROM {table} WHERE id = 9")
    assert refused > 40 and unfound > 30


# Probes


def test_a_probe_is_never_stored(world, dba, app, table):
    before = envelopes(dba, table)
    for slot in (0, 1):
        probe = f"cmk.probe('first', 'acme', {slot}, '{table}.ssn', 'search')"
        for sql in (f"INSERT INTO {table} VALUES (9, 'acme', {probe}, 'n')", f"UPDATE {table} SET ssn = {probe}"
                                                                            " WHERE id = 1"):
            if slot == 0:  # which is the value itself
                with app.connection.transaction(force_rollback=True):
                    app.run(sql)
                continue
            with pytest.raises(psycopg.Error) as failure:
                app.run(sql)
            assert failure.value.sqlstate[:2] in ("22", "23", "42"), failure.value
    assert envelopes(dba, table) == before


def test_the_armor_of_a_probe_is_text(world, dba, reader, table):
    """In a restore it is malformed; anywhere else it is a value as any other."""
    stored = envelopes(dba, table)[1]
    probe = bytes([0xC1, 0x7F]) + stored[18:26] + stored[34:54]
    text = armor(probe)
    with fails("22P02", "armor_malformed"):
        world.connect(input="envelope").run(f"INSERT INTO {table} VALUES (9, 'acme', '{text}', 'n')")
    reader.run(f"INSERT INTO {table} VALUES (9, 'acme', '{text}', 'n')")
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn = '{text}'") == [9]
    assert plain(reader, table)[9] == text
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn = 'first'") == [1]


def test_armor_in_a_search_is_text(dba, reader, table):
    """What an application read as ciphertext finds nothing, and opens nothing."""
    shown = armor(envelopes(dba, table)[1])
    assert is_armor(shown) and unarmor(shown)
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn = '{shown}'") == []


# Long values


def test_a_value_that_does_not_fit_into_a_btree_is_refused_by_postgresql_without_its_plaintext(reader, table, quiet):
    value = CANARY + "".join(secrets.token_hex(1) for _ in range(1500))
    with fails_with("54000") as failure:
        reader.run(f"INSERT INTO {table} VALUES (9, 'acme', %s, 'n')", value)
    quiet.append(failure.value)
    assert "index row" in str(failure.value)
    assert reader.usable() and len(plain(reader, table)) == 2


def test_values_of_any_length_are_found_by_a_scan(world, reader):
    table = world.searchable(unique("long"))
    drop_indexes(world.dba, table)
    value = "long " * 100_000
    reader.run(f"INSERT INTO {table} VALUES (1, 'acme', %s, 'n'), (2, 'acme', %s, 'n')", value, value + "!")
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn = %s", value) == [1]
    assert ids(reader, f"SELECT id FROM {table} WHERE ssn IN (%s, 'x')", value + "!") == [2]
