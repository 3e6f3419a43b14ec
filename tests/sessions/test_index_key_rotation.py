"""An index key rotates while its table is searched and written: all is found, and no duplicate gets in."""

import contextlib

import psycopg
import pytest

from columns import dba, envelopes, opened, reader  # noqa: F401 (fixtures)
from protected import hear
from rotation import ROWS, SHAPE, Load, make_rotation, rotation  # noqa: F401 (fixtures)
from searching import ids, index_keys, scanning, tokens, world  # noqa: F401 (fixtures)
from server import until
from support import fails, fails_with, grant, unique


def test_the_whole_procedure_under_load(rotation):
    old = rotation.key("current")
    with Load(rotation) as load:
        load.beat()
        for name, step, states in rotation.steps():
            result = step()
            assert rotation.states() == states, name
            load.beat()
            if name == "finish":
                assert result is True
    new = rotation.key("current")
    assert new != old and rotation.key("retired") == old
    assert rotation.keys_in_use() == {(new,)}
    assert rotation.found(rotation.dba, range(1, ROWS + 1, 7)) == []
    assert rotation.duplicates() == []


def test_a_second_rotation_follows_the_first_under_load(make_rotation):
    rotation = make_rotation(rows=400)
    first = rotation.key("current")
    with Load(rotation) as load:
        for round in range(2):
            for _, step, states in rotation.steps():
                step()
                assert rotation.states()[-2:] == states
                load.beat(8)
    assert len(rotation.states()) == 3
    assert rotation.keys_in_use() == {(rotation.key("current"),)} != {(first,)}
    assert (rotation.duplicates(), rotation.found(rotation.dba, range(1, 401))) == ([], [])


@pytest.mark.parametrize("step", range(7))
def test_at_each_step_every_scan_finds_every_value_and_a_duplicate_is_refused(make_rotation, reader, step):
    rotation = make_rotation(rows=120)
    for _, run, _ in list(rotation.steps())[:step]:
        run()
        # Written between the steps, with what tokens there are to be written then
        rotation.dba.run(f"UPDATE {rotation.table} SET ssn = ssn || '' WHERE id % 3 = 0")
    for kind in ("seq scan", "index scan", "bitmap scan"):
        with scanning(reader, kind):
            assert rotation.found(reader, range(1, 121)) == []
            listed = f"SELECT id FROM {rotation.table} WHERE ssn IN ('value 3', 'value 4', 'value 119', 'x')"
            assert ids(reader, listed) == [3, 4, 119]
    for n in (3, 4):
        with fails_with("23505"):
            reader.run(f"INSERT INTO {rotation.table} VALUES (999, %s, %s, 'n')", rotation.tenant, f"value {n}")
        with fails_with("23505"):
            reader.run(f"UPDATE {rotation.table} SET ssn = %s WHERE id = 100", f"value {n}")
    assert reader.one(f"SELECT count(DISTINCT ssn) FROM {rotation.table}") == 120
    joined = f"SELECT count(*) FROM {rotation.table} a JOIN {rotation.table} b ON a.ssn = b.ssn"
    assert reader.one(joined) == reader.one(f"{joined} AND a.tenant_id = b.tenant_id") == 120


def test_a_table_without_a_unique_index_needs_two_calls(make_rotation, dba, reader):
    """seal_table ends the rotation itself where nothing is in the way."""
    rotation = make_rotation(rows=300)
    dba.run(f"DROP INDEX {rotation.table}_ssn")
    dba.run(f"CREATE INDEX {rotation.table}_ssn ON {rotation.table} (ssn cmk_token_ops)")
    old, _ = rotation.key("current"), rotation.rotate()
    new = rotation.key("next")
    rotation.seal()
    assert rotation.states() == ["retired", "current"] and rotation.keys_in_use() == {(old, new)}
    rotation.seal()
    assert rotation.keys_in_use() == {(new,)}
    assert rotation.found(reader, range(1, 301)) == []


def test_a_caller_who_may_not_end_it_leaves_it_open(world, make_rotation, server, dba):
    owner = unique("owner")
    server.execute(f"CREATE ROLE {owner} LOGIN")
    rotation = make_rotation(rows=60)
    grant(dba, rotation.tenant, owner)
    dba.run(f"DROP INDEX {rotation.table}_ssn")
    dba.run(f"ALTER TABLE {rotation.table} OWNER TO {owner}")
    session = world.connect(owner)
    with fails_with("42501"):
        session.run("SELECT cmk.rotate_index_key(%s)", rotation.tenant)
    rotation.rotate()
    rotation.seal(session)
    assert rotation.states() == ["current", "next"]
    assert rotation.keys_in_use() == {(rotation.key("current"), rotation.key("next"))}
    with fails_with("42501"):
        session.run("SELECT cmk.finish_index_rotation(%s)", rotation.tenant)
    assert rotation.finish() is True


def test_what_is_written_has_the_tokens_of_its_time(rotation, dba):
    insert = f"INSERT INTO {rotation.table} VALUES (%s, %s, %s, 'n')"
    old = rotation.key("current")
    seen = []
    for number, (_, step, _) in enumerate(rotation.steps()):
        step()
        dba.run(insert, 10_000 + number, rotation.tenant, f"new {number}")
        seen.append([id for id, _ in tokens(envelopes(dba, rotation.table)[10_000 + number])])
    new = rotation.key("current")
    assert seen == [[old, new]] * 3 + [[new]] * 3


def test_other_tenants_and_their_rows_are_left_alone(world, rotation, dba):
    other = world.tenant(unique("other"), "app")
    dba.run(f"INSERT INTO {rotation.table} SELECT 5000 + n, %s, 'value ' || n, 'n' FROM generate_series(1, 50) n",
            other)
    before = {id: stored for id, stored in envelopes(dba, rotation.table).items() if id > 5000}
    for _, step, _ in rotation.steps():
        step()
    assert {id: stored for id, stored in envelopes(dba, rotation.table).items() if id > 5000} == before
    assert list(index_keys(dba, other)) == ["current"]


def test_rotating_the_data_key_leaves_the_index_key_and_the_tokens_alone(rotation, dba, reader):
    before = {id: tokens(stored) for id, stored in envelopes(dba, rotation.table).items()}
    dba.run("SELECT cmk.rotate_tenant(%s)", rotation.tenant)
    dba.run(f"UPDATE {rotation.table} SET ssn = ssn || '' WHERE id % 2 = 0")
    assert {id: tokens(stored) for id, stored in envelopes(dba, rotation.table).items()} == before
    assert rotation.found(reader, range(1, ROWS, 50)) == []


# Refusals


def test_a_rotation_is_not_begun_while_another_is_open(rotation):
    for name, step, _ in rotation.steps():
        step()
        if name not in ("seal again", "drop the twin"):
            before = rotation.states()
            with fails("55000", "index_rotation_open", rotation.tenant) as failure:
                rotation.rotate()
            assert rotation.states() == before
            if name == "finish":  # the values still have the retired key's tokens
                assert f"column=public.{rotation.table}.ssn" in failure.value.diag.message_detail
    assert rotation.rotate() > 0


def test_values_that_are_not_sealed_yet_are_found_at_each_step(make_rotation, dba, reader):
    """They have no tokens that could be the wrong ones."""
    rotation, half = make_rotation(rows=10), unique("half")
    dba.run(f"CREATE TABLE {half} ({SHAPE})")
    dba.run(f"INSERT INTO {half} SELECT n, %s, 'value ' || n, 'n' FROM generate_series(1, 40) n", rotation.tenant)
    dba.run(f"SELECT cmk.protect_column('{half}', 'ssn', tenant_column => 'tenant_id', searchable => true,"
            " rewrite => false)")
    dba.run(f"CREATE INDEX {half}_ssn ON {half} (ssn cmk_token_ops)")
    dba.run(f"GRANT ALL ON {half} TO PUBLIC")
    reader.run("SET enable_seqscan = off")
    for number, (_, step, _) in enumerate(rotation.steps()):
        dba.run(f"UPDATE {half} SET ssn = ssn WHERE id %% 8 = %s", number)
        if number == 3:
            dba.run(f"UPDATE {half} SET ssn = ssn || '' WHERE cmk.is_sealed(ssn)")
        step()
        found = reader.all(f"SELECT id FROM {half} WHERE tenant_id = %s AND ssn = ANY (%s)", rotation.tenant,
                           [f"value {n}" for n in range(1, 41)])
        assert len(found) == 40
    dba.run(f"CALL cmk.seal_table('{half}')")
    assert ids(reader, f"SELECT id FROM {half} WHERE ssn IN ('value 1', 'value 40')") == [1, 40]
    dba.run(f"DROP TABLE {half}")


def test_a_foreign_key_that_compares_tokens_forbids_a_rotation(world, make_rotation, dba):
    rotation = make_rotation(rows=10)
    child = unique("child")
    world.make(child, shape=SHAPE, columns=("ssn",), searchable=True, label=f"{rotation.table}.ssn")
    dba.run(f"ALTER TABLE {child} ADD CONSTRAINT f FOREIGN KEY (tenant_id, ssn) REFERENCES {rotation.table}"
            " (tenant_id, ssn)")
    with fails("42809", "index_rotation_refused"):
        rotation.rotate()
    assert rotation.states() == ["current"]
    dba.run(f"ALTER TABLE {child} DROP CONSTRAINT f")
    assert rotation.rotate() > 0


def test_it_does_not_finish_before_every_value_of_every_table_has_both_tokens(world, make_rotation, dba):
    rotation, other = make_rotation(rows=50), unique("other")
    world.make(other, [(1, rotation.tenant, "x", "n"), (2, "acme", "y", "n")], columns=("ssn",), searchable=True)
    rotation.rotate()
    rotation.twin()
    assert not rotation.finishes()
    rotation.seal()
    assert not rotation.finishes() and rotation.states() == ["current", "next"]
    dba.run(f"UPDATE {other} SET ssn = ssn || ''")
    assert rotation.finishes() and rotation.states() == ["retired", "current"]


@pytest.mark.parametrize("index", [
    "UNIQUE INDEX {name} ON {t} (tenant_id, ssn)", "INDEX {name} ON {t} (tenant_id, ssn cmk_token_next_ops)",
    "UNIQUE INDEX {name} ON {t} (ssn cmk_token_next_ops) WHERE id > 5",
    "UNIQUE INDEX {name} ON {t} (id, tenant_id, ssn cmk_token_next_ops)",
    "UNIQUE INDEX {name} ON {t} (tenant_id, ssn cmk_token_ops)", None,
], ids=["refused", "not unique", "partial", "of more columns", "of the first token", "none"])
def test_it_does_not_finish_before_a_unique_index_has_its_twin(make_rotation, dba, index):
    """What another index keeps unique is not what this one does."""
    rotation = make_rotation(rows=20)
    rotation.rotate()
    rotation.seal()
    if index:
        with contextlib.suppress(psycopg.errors.WrongObjectType):
            dba.run(f"CREATE {index.format(t=rotation.table, name=unique('index'))}")
    assert not rotation.finishes() and rotation.states() == ["current", "next"]
    rotation.twin()
    assert rotation.finishes()


def test_without_a_rotation_there_is_nothing_to_finish(rotation):
    assert not rotation.finishes() and rotation.states() == ["current"]


def test_an_unknown_or_dark_tenant_has_no_index_key_made(world, dba):
    for tenant, sqlstate, reason in (("nosuch", "42704", "unknown_tenant"), ("dark", "55000", "key_disabled")):
        with fails(sqlstate, reason, tenant):
            dba.run("SELECT cmk.rotate_index_key(%s)", tenant)
        assert list(index_keys(dba, tenant)) == ([] if tenant == "nosuch" else ["current"])


# Back


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["after rotate", "after seal", "with the twin"])
def test_a_rotation_that_is_cancelled_under_load_leaves_the_old_key(make_rotation, steps):
    rotation = make_rotation(rows=400)
    old = rotation.key("current")
    with Load(rotation) as load:
        for _, step, _ in list(rotation.steps())[:steps]:
            step()
            load.beat(8)
        rotation.cancel()
        load.beat(8)
        assert rotation.states() == ["current", "destroyed"]
        rotation.seal()
        load.beat(8)
    assert rotation.keys_in_use() == {(old,)} and rotation.key("current") == old
    if steps == 3:
        rotation.drop_twin()
    assert (rotation.duplicates(), rotation.found(rotation.dba, range(1, 401))) == ([], [])
    # Another attempt begins anew.
    for _, step, _ in rotation.steps():
        step()
    assert rotation.keys_in_use() == {(rotation.key("current"),)} != {(old,)}


MEANWHILE = {
    "search": "SELECT count(*) FROM {t} WHERE tenant_id = '{tenant}' AND ssn = 'value 7'",
    "search of the session's tenant": "SELECT count(*) FROM {t} WHERE ssn = 'value 7'",
    "list": "SELECT count(*) FROM {t} WHERE tenant_id = '{tenant}' AND ssn IN ('value 7', 'x')",
    "write": "WITH w AS (INSERT INTO {t} VALUES (7777, '{tenant}', 'new', 'n') RETURNING 1) SELECT count(*) FROM w",
    "token": "SELECT cardinality(cmk_search_tokens('{tenant}', 'value 7', 'label'))",
}


@pytest.mark.parametrize("kind", ["seq scan", "index scan"])
@pytest.mark.parametrize("act", MEANWHILE)
def test_what_waits_for_kms_while_the_rotation_is_cancelled_goes_on(world, make_rotation, act, kind):
    """It has seen that there is a next key, and comes to it when that is destroyed."""
    key = world.kms.key()
    tenant = world.tenant(unique("cancelling"), "app", key=key)
    rotation, session = make_rotation(name=tenant, rows=20), world.connect("app")
    rotation.rotate()
    rotation.seal()
    session.run("SELECT set_config('cmk_encrypt.tenant', %s, false)", tenant)
    rotation.dba.run("SELECT cmk.evict(%s)", tenant)
    with scanning(session, kind), world.kms.fault("delay", arn=key, millis=700):
        before = world.kms.calls(key)
        meanwhile = session.start(MEANWHILE[act].format(t=rotation.table, tenant=tenant))
        until(lambda: world.kms.calls(key) > before, 10, "a call of KMS")
        rotation.cancel()
        assert meanwhile.result(timeout=20) == [(1,)]
    assert rotation.states() == ["current", "destroyed"]


def test_the_indexes_twin_is_asked_for_in_words(rotation):
    rotation.rotate()
    heard = hear(rotation.dba)
    rotation.seal()
    assert "cmk_token_next_ops" in str(heard) and "CREATE UNIQUE INDEX CONCURRENTLY" in str(heard)
    rotation.twin()
    rotation.finish()
    heard.clear()
    rotation.seal()
    assert "DROP INDEX" in str(heard) and f"{rotation.table}_next" in str(heard)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_table_that_came_after_the_transaction_began_is_looked_at(rotation, world, level):
    """Its values have the old key's tokens only: if that took over, none of them would be found."""
    other, late = world.connect(), unique("late")
    other.run(f"CREATE TABLE {late} (LIKE {rotation.table})")
    # As they are, and so without the tokens that a trigger would add.
    other.run(f"INSERT INTO {late} SELECT * FROM {rotation.table} WHERE id < 10")
    label = other.one('SELECT label FROM cmk.protected_columns WHERE "table" = %s::regclass', rotation.table)
    for step in (rotation.rotate, rotation.seal, rotation.twin):
        step()
    finisher = world.connect()
    finisher.run(f"BEGIN ISOLATION LEVEL {level}")
    finisher.run("SELECT count(*) FROM pg_class")
    other.run(f"SELECT cmk.protect_column('{late}', 'ssn', tenant_column => 'tenant_id', searchable => true, label => %s)", label)
    try:
        with fails("55000", "index_rotation_open", rotation.tenant) as caught:
            finisher.run("SELECT cmk.finish_index_rotation(%s)", rotation.tenant)
        assert f"{late}.ssn" in caught.value.diag.message_detail
        finisher.run("ROLLBACK")
        assert rotation.states() == ["current", "next"]
    finally:
        other.run(f"DROP TABLE {late}")
    assert rotation.finish() is True
