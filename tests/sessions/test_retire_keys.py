"""cmk.retire_keys(): an old data key is destroyed once no value needs it, whoever is writing meanwhile."""

import contextlib

import psycopg
import pytest

from protected import make_table
from reencryption import make_envelopes, plain, rotate
from server import until
from support import Session, fails, unique, wait_for_lock

WORD = "restored the backups of last week, looked at the files of the importer"


def retire(session, tenant, **arguments):
    """{version: (destroyed, needed_by)}"""
    named = {"also_checked": WORD, **arguments}
    parts = "".join(f", {name} => %s" for name in named)
    rows = session.all(f"SELECT version, destroyed, needed_by FROM cmk.retire_keys(%s{parts})", str(tenant), *named.values())
    return {version: (destroyed, needed_by) for version, destroyed, needed_by in rows}


def states(dba, tenant):
    """{version: (state, whether its wrapped bytes are gone)} of the data keys that seal values."""
    rows = dba.all("SELECT version, state, wrapped IS NULL FROM cmk.data_key WHERE tenant = %s AND purpose = 'values'", str(tenant))
    return {version: (state, gone) for version, state, gone in rows}


@pytest.fixture
def place(database, session, server):
    """A database of its own: whatever it holds is looked at."""
    dba = session(dbname=database())
    dba.run("SET cmk_encrypt.output = plaintext")

    def tenant(name):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
        dba.run("SELECT cmk.grant_access(%s, 'postgres')", name)
        return name

    return dba, tenant


def test_only_what_no_value_needs_is_destroyed(place):
    dba, tenant = place
    acme, other = tenant("acme"), tenant("other")
    tables = [make_envelopes(dba, [acme, other], rows=10)]
    for _ in range(3):
        rotate(dba, acme)
        tables.append(make_envelopes(dba, [acme], rows=10))
    tables[2].reencrypt()
    wanted = {1: (False, f"public.{tables[0]}.c"), 2: (False, f"public.{tables[1]}.c"), 3: (True, None)}
    assert retire(dba, acme, also_checked=None, dry_run=True) == {**wanted, 3: (False, None)}
    assert states(dba, acme)[3] == ("retired", False)
    assert retire(dba, acme) == wanted
    assert states(dba, acme) == {1: ("retired", False), 2: ("retired", False), 3: ("destroyed", True), 4: ("current", False)}
    assert states(dba, other) == {1: ("current", False)}
    # Everything opens still, and what is done is done.
    assert [table.opened() for table in tables] == [plain(10)] * 4
    assert retire(dba, acme) == {version: wanted[version] for version in (1, 2)}
    for table in tables[:2]:
        table.reencrypt()
    assert retire(dba, acme) == {1: (True, None), 2: (True, None)}
    assert [table.opened() for table in tables] == [plain(10)] * 4
    assert dba.all("SELECT problem FROM cmk.check()") == []


def test_the_commitments_of_what_was_destroyed_are_returned(place):
    dba, tenant = place
    acme = tenant("acme")
    [commitment] = dba.row("SELECT commitment FROM cmk.data_key WHERE version = 1")
    rotate(dba, acme)
    assert dba.all("SELECT version, commitment, destroyed FROM cmk.retire_keys(%s, %s)", acme, WORD) == [(1, commitment, True)]


def test_each_destroyed_data_key_is_an_event_with_the_callers_word(place):
    dba, tenant = place
    acme = tenant("acme")
    rotate(dba, acme)
    rotate(dba, acme)
    commitments = [bytes(row[0]).hex() for row in dba.all("SELECT commitment FROM cmk.data_key ORDER BY version LIMIT 2")]
    retire(dba, acme)
    events = dba.all("SELECT data_key, before, after FROM cmk.audit_event WHERE act = 'retire_keys' ORDER BY data_key")
    assert events == [
        (version, {"state": "retired", "commitment": commitment}, {"state": "destroyed", "also_checked": WORD})
        for version, commitment in enumerate(commitments, 1)
    ]
    assert WORD not in str(retire(dba, acme))
    assert dba.one("SELECT count(*) FROM cmk.audit_event WHERE act = 'retire_keys'") == 2


def test_copies_of_a_destroyed_data_key_are_used_by_nobody(place, session):
    dba, tenant = place
    acme = tenant("acme")
    envelope = dba.encrypt(acme)
    other = session(dbname=dba.connection.info.dbname)
    other.decrypt(acme, envelope)
    rotate(dba, acme)
    assert retire(dba, acme) == {1: (True, None)}
    for user in (dba, other):
        with fails("55000", "tenant_shredded"):
            user.decrypt(acme, envelope)


@pytest.mark.parametrize("where", [
    "CREATE TABLE {0} AS SELECT {1}::bytea AS v",
    "CREATE MATERIALIZED VIEW {0} AS SELECT {1}::bytea AS v",
    "CREATE UNLOGGED TABLE {0} AS SELECT {1}::bytea AS v",
    "CREATE TEMP TABLE {0} AS SELECT {1}::bytea AS v",
    "CREATE DOMAIN d_{0} AS bytea; CREATE TABLE {0} (v d_{0}); INSERT INTO {0} VALUES ({1}::bytea)",
    "CREATE TABLE p_{0} (n int, v bytea) PARTITION BY LIST (n); CREATE TABLE {0} PARTITION OF p_{0} DEFAULT;"
    " INSERT INTO p_{0} VALUES (1, {1}::bytea); ALTER TABLE p_{0} DETACH PARTITION {0}",
    "CREATE TABLE {0} (n int, v bytea); INSERT INTO {0} VALUES (1, NULL), (2, 'x'), (3, {1}::bytea)",
])
def test_values_are_found_wherever_they_are(place, where):
    dba, tenant = place
    acme, name = tenant("acme"), unique("t")
    envelope = dba.encrypt(acme)
    rotate(dba, acme)
    for statement in where.format(name, "'\\x" + envelope.hex() + "'").split(";"):
        dba.run(statement)
    [(destroyed, needed_by)] = retire(dba, acme).values()
    assert (destroyed, needed_by.rpartition(".")[0].endswith(name)) == (False, True)


@pytest.mark.parametrize("kind, value", [("text", "'v'"), ("bytea", "'v'::bytea"), ("jsonb", "'{}'::jsonb"), ("text", "repeat('x', 100000)")])
def test_protected_columns_are_looked_at(place, kind, value):
    dba, tenant = place
    acme = tenant("acme")
    dba.run(f"CREATE TABLE people (id int PRIMARY KEY, tenant_id text NOT NULL, ssn {kind})")
    dba.run("SELECT cmk.protect_column('people', 'ssn', tenant_column => 'tenant_id')")
    dba.run(f"INSERT INTO people VALUES (1, 'acme', {value})")
    rotate(dba, acme)
    assert retire(dba, acme) == {1: (False, "public.people.ssn")}
    dba.run("CALL cmk.reencrypt('people', 'ssn')")
    assert retire(dba, acme) == {1: (True, None)}
    assert dba.one("SELECT ssn IS NOT NULL FROM people WHERE ssn::text IS NOT NULL")


def test_index_keys_and_the_current_data_key_stay(place):
    dba, tenant = place
    acme = tenant("acme")
    dba.run("SELECT cmk.rotate_index_key(%s)", acme)
    before = dba.all("SELECT version, purpose, state FROM cmk.data_key ORDER BY 1")
    assert retire(dba, acme) == {}
    assert dba.all("SELECT version, purpose, state FROM cmk.data_key ORDER BY 1") == before


def test_it_takes_the_callers_word(place):
    dba, tenant = place
    acme = tenant("acme")
    rotate(dba, acme)
    for word in (None, "", "  "):
        with fails("22023", "retirement_unchecked", acme):
            retire(dba, acme, also_checked=word)
    with fails("42704", "unknown_tenant"):
        retire(dba, "nobody")
    assert states(dba, acme)[1] == ("retired", False)


def test_a_writer_that_sealed_before_the_rotation_is_waited_for(place, session):
    dba, tenant = place
    acme = tenant("acme")
    table = make_envelopes(dba, [acme], rows=0)
    late, observer = session(dbname=dba.connection.info.dbname), session(dbname=dba.connection.info.dbname)
    late.run("BEGIN")
    # In a variable, so that no table is locked yet.
    late.run("SELECT set_config('my.value', cmk_encrypt(%s, 'late', '1')::text, false)", acme)
    rotate(dba, acme)
    done = dba.start("SELECT version, destroyed, needed_by FROM cmk.retire_keys(%s, %s)", acme, WORD)
    wait_for_lock(observer, dba.pid)
    late.run(f"INSERT INTO {table} VALUES (1, %s, current_setting('my.value')::bytea)", acme)
    late.run("COMMIT")
    assert done.result(timeout=20) == [(1, False, f"public.{table}.c")]
    assert table.opened() == {1: "late"}


def test_an_old_snapshot_is_waited_for_and_opens_what_it_sees(place, session):
    dba, tenant = place
    acme = tenant("acme")
    table = make_envelopes(dba, [acme], rows=10)
    rotate(dba, acme)
    reader, observer = session(dbname=dba.connection.info.dbname), session(dbname=dba.connection.info.dbname)
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    read = f"SELECT cmk_decrypt_text(tenant_id, c, id::text::bytea) FROM {table} WHERE id = 1"
    assert reader.one(f"SELECT count(*) FROM {table}") == 10
    table.reencrypt()
    done = dba.start("SELECT version, destroyed FROM cmk.retire_keys(%s, %s)", acme, WORD)
    wait_for_lock(observer, dba.pid)
    assert reader.one(read) == "value-1"
    reader.run("COMMIT")
    assert done.result(timeout=20) == [(1, True)]


def test_it_can_be_cancelled_while_it_waits(place, session):
    dba, tenant = place
    acme = tenant("acme")
    rotate(dba, acme)
    holder, observer = (session(dbname=dba.connection.info.dbname) for _ in range(2))
    holder.run("BEGIN")
    holder.run("SELECT 1 FROM pg_class LIMIT 1")
    done = dba.start("SELECT cmk.retire_keys(%s, %s)", acme, WORD)
    wait_for_lock(observer, dba.pid)
    observer.run("SELECT pg_cancel_backend(%s)", dba.pid)
    with pytest.raises(psycopg.errors.QueryCanceled):
        done.result(timeout=20)
    assert states(observer, acme)[1] == ("retired", False)
    holder.run("ROLLBACK")


def test_inside_a_transaction_that_rotated_it_is_refused(place):
    dba, tenant = place
    acme = tenant("acme")
    dba.run("BEGIN")
    rotate(dba, acme)
    with fails("55000", "retirement_blocked", acme):
        retire(dba, acme)
    dba.run("ROLLBACK")


def test_what_cannot_be_looked_into_is_named(make_server, request):
    server = make_server({"max_prepared_transactions": "2"})
    server.make_local_key("shared")
    dba = Session(server.connect())
    dba.run("CREATE EXTENSION cmk_encrypt")
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.grant_access('acme', 'postgres')")
    table = make_envelopes(dba, ["acme"], rows=0)
    other = Session(server.connect())
    other.run("BEGIN")
    other.run(f"INSERT INTO {table} VALUES (1, 'acme', cmk_encrypt('acme', 'prepared', '1'))")
    other.run("PREPARE TRANSACTION 'two'")
    rotate(dba, "acme")
    with fails("55000", "retirement_blocked", "acme") as caught:
        retire(dba, "acme")
    assert "prepared transaction 'two'" in caught.value.diag.message_detail
    other.run("COMMIT PREPARED 'two'")
    assert retire(dba, "acme") == {1: (False, f"public.{table}.c")}
    table.reencrypt()
    other.run("CREATE TEMP TABLE mine (v bytea)")
    other.run("INSERT INTO mine VALUES ('x')")
    with fails("55000", "retirement_blocked", "acme") as caught:
        retire(dba, "acme")
    assert ".mine.v, a temporary table of another session" in caught.value.diag.message_detail
    other.close()
    until(lambda: retire(dba, "acme", dry_run=True) == {1: (False, None)}, what="the temporary table to go")

    def retired():
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            return retire(dba, "acme")

    assert until(retired, what="the temporary table's end") == {1: (True, None)}
    assert table.opened() == {1: "prepared"}
    dba.close()


def test_a_tenant_that_is_suspended_loses_old_data_keys_all_the_same(place):
    dba, tenant = place
    acme = tenant("acme")
    rotate(dba, acme)
    dba.run("SELECT cmk.suspend_tenant(%s)", acme)
    assert retire(dba, acme) == {1: (True, None)}


def test_make_table_is_not_fooled_by_plaintext(place):
    """A text that begins as an envelope does, in a column that may hold plaintext."""
    dba, tenant = place
    acme = tenant("acme")
    table = make_table(dba, [acme])
    table.protect(tenant_column="tenant_id", rewrite=False)
    rotate(dba, acme)
    assert retire(dba, acme) == {1: (True, None)}
