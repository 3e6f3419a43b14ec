"""Protected columns in logical replication, logical decoding, and on a physical standby: ciphertext travels."""

import contextlib

import pytest

from columns import ROWS, SHAPE, Client, World, armor, envelopes, plain, protect, unarmor
from dumps import client, run_script
from server import until
from standby import Standby, replayed
from support import fails, unique

SECRET = "replicated-secret"
ROOM = {"max_worker_processes": "20", "max_replication_slots": "20"}


@pytest.fixture(scope="module")
def logical(make_server):
    server = make_server({"wal_level": "logical", "wal_retrieve_retry_interval": "100ms", **ROOM})
    server.make_local_key("shared")
    # Who replicates wants plaintext, and does not get it.
    server.execute("CREATE ROLE replicator LOGIN SUPERUSER")
    server.execute("ALTER ROLE replicator SET cmk_encrypt.output = plaintext")
    return server


@pytest.fixture(scope="module")
def world(logical, kms_process):
    """The publisher."""
    world = World(logical, kms_process)
    for tenant in ("acme", "bolt"):
        world.dba.run("SELECT cmk.grant_access(%s, 'replicator')", tenant)
    yield world
    world.close()


@pytest.fixture(scope="module")
def elsewhere(logical, world):
    """The subscriber: a database with the publisher's registry and without its tables."""
    name = unique("subscriber")
    logical.execute(f"CREATE DATABASE {name}")
    run_script(logical, name, client(logical, "pg_dump", world.dbname, "--exclude-table=public.*"))
    session = Client(logical.connect(name))
    yield session
    session.close()
    logical.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def opened(world):
    with world.sessions():
        yield


def subscribe(world, elsewhere, table, **options):
    """Replicates a table, whose present rows are copied first; a context that ends with it."""
    @contextlib.contextmanager
    def run():
        name = unique("sub")
        world.dba.run(f"CREATE PUBLICATION {name} FOR TABLE {table}")
        # Made apart: on one server CREATE SUBSCRIPTION would wait for itself.
        world.dba.run(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        given = "".join(f", {key} = {value}" for key, value in options.items())
        elsewhere.run(
            f"CREATE SUBSCRIPTION {name} CONNECTION 'host={world.server.socket} dbname={world.dbname} user=replicator'"
            f" PUBLICATION {name} WITH (create_slot = false, slot_name = {name}{given})"
        )
        try:
            yield name
        finally:
            elsewhere.run(f"ALTER SUBSCRIPTION {name} DISABLE")
            slots = f"SELECT slot_name FROM pg_replication_slots WHERE database = '{world.dbname}'"
            until(lambda: not world.dba.all(f"{slots} AND slot_name = '{name}' AND active"), what="the end")
            elsewhere.run(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
            elsewhere.run(f"DROP SUBSCRIPTION {name}")
            world.dba.run(f"DROP PUBLICATION {name}")
            until(lambda: not world.dba.all(f"{slots} AND active"), what="idle slots")
            world.dba.run(f"SELECT pg_drop_replication_slot(slot_name) FROM ({slots}) s")

    return run()


def follows(here, there, what="the change"):
    until(lambda: here() == there(), timeout=15, what=what)


CHANGES = [
    "INSERT INTO {t} VALUES (50, 'acme', 'new', 'n'), (51, 'bolt', '', NULL), (52, NULL, NULL, NULL)",
    "UPDATE {t} SET note = 'changed' WHERE id = 1", "UPDATE {t} SET ssn = ssn || '!' WHERE ssn = '222'",
    "UPDATE {t} SET tenant_id = 'bolt' WHERE id = 1", "UPDATE {t} SET id = 60 WHERE id = 50",
    "DELETE FROM {t} WHERE id IN (2, 4)", "INSERT INTO {t} VALUES (70, 'acme', repeat('long ', 20000), NULL)",
    "UPDATE {t} SET note = 'x' WHERE id = 70",
]


@pytest.mark.parametrize("binary", ["false", "true"], ids=["text", "binary"])
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_protected_subscriber_gets_the_same_bytes(world, elsewhere, binary, identity):
    table = world.make(unique("t"), ROWS)
    world.dba.run(f"ALTER TABLE {table} REPLICA IDENTITY {identity}")
    # Without a key rows are found by comparing all of them.
    elsewhere.run(f"CREATE TABLE {table} ({SHAPE if identity == 'DEFAULT' else SHAPE.replace('PRIMARY KEY', '')})")
    protect(elsewhere, table, "ssn", "note")
    app = world.connect("app")
    both = lambda session: (envelopes(session, table), envelopes(session, table, "note"))  # noqa: E731
    with subscribe(world, elsewhere, table, binary=binary), elsewhere.counts():
        follows(lambda: both(world.dba), lambda: both(elsewhere), "the copy")
        for sql in CHANGES:
            app.run(sql.format(t=table))
            follows(lambda: both(world.dba), lambda: both(elsewhere), sql)
    assert elsewhere.one(f"SELECT count(*) FROM {table} WHERE ssn = '222!'") == 2


def test_rows_of_a_dark_tenant_are_replicated_too(world, elsewhere):
    elsewhere.run("TRUNCATE given.dim")
    world.dba.run("ALTER TABLE given.dim REPLICA IDENTITY FULL")
    before = world.kms.counters()
    with subscribe(world, elsewhere, "given.dim"):
        follows(lambda: envelopes(world.dba, "given.dim"), lambda: envelopes(elsewhere, "given.dim"))
        world.dba.run("UPDATE given.dim SET id = id + 10")
        follows(lambda: envelopes(world.dba, "given.dim"), lambda: envelopes(elsewhere, "given.dim"))
    assert world.kms.counters() == before


@pytest.mark.parametrize("binary", ["false", "true"], ids=["text", "binary"])
def test_an_unprotected_subscriber_gets_armor(world, elsewhere, binary):
    table = world.make(unique("t"), ROWS)
    elsewhere.run(f"CREATE TABLE {table} ({SHAPE})")
    received = lambda: {id: ssn and unarmor(ssn) for id, ssn in plain(elsewhere, table).items()}  # noqa: E731
    with subscribe(world, elsewhere, table, binary=binary):
        follows(lambda: envelopes(world.dba, table), received)
        for sql in CHANGES:
            world.connect("app").run(sql.format(t=table))
        follows(lambda: envelopes(world.dba, table), received)


@pytest.mark.parametrize("binary", ["false", "true"], ids=["text", "binary"])
def test_what_an_unprotected_publisher_sends_is_sealed(world, elsewhere, binary):
    table = unique("t")
    world.dba.run(f"CREATE TABLE {table} ({SHAPE})")
    world.dba.run(f"GRANT ALL ON {table} TO PUBLIC")
    world.fill(table, ROWS)
    elsewhere.run(f"CREATE TABLE {table} ({SHAPE})")
    protect(elsewhere, table, "ssn", "note")
    opened = lambda: plain(elsewhere, table, "ssn::text, note::text")  # noqa: E731
    with subscribe(world, elsewhere, table, binary=binary):
        follows(lambda: plain(world.dba, table, "ssn, note"), opened)
        for sql in CHANGES:
            world.dba.run(sql.format(t=table))
        follows(lambda: plain(world.dba, table, "ssn, note"), opened)
    assert elsewhere.one(f"SELECT count(*) FROM {table} WHERE NOT cmk.is_sealed(ssn) OR NOT cmk.is_sealed(note)") == 0


@pytest.mark.parametrize("label", ["another.ssn", None], ids=["another column", "another tenant"])
def test_a_foreign_envelope_stops_the_apply(world, elsewhere, logical, label):
    table = world.make(unique("t"), columns=("ssn",))
    elsewhere.run(f"CREATE TABLE {table} ({SHAPE})")
    protect(elsewhere, table, "ssn", label=label)
    refused = lambda: logical.log.read_text().count("reason=foreign_envelope")  # noqa: E731
    before = refused()
    with subscribe(world, elsewhere, table):
        if label is None:  # the publisher's own protection is off
            world.dba.run(f'ALTER TABLE {table} DROP CONSTRAINT cmk_sealed_ssn, DISABLE TRIGGER "~cmk_seal"')
            bolts = world.make(unique("bolts"), [(1, "bolt", SECRET, None)], columns=("ssn",), label=f"{table}.ssn")
            world.dba.run(f"INSERT INTO {table} SELECT 1, 'acme', ssn FROM {bolts}")
        else:
            world.dba.run(f"INSERT INTO {table} VALUES (1, 'acme', '{SECRET}')")
        until(lambda: refused() > before, 20, "the refusal")
        assert elsewhere.one(f"SELECT count(*) FROM {table}") == 0
    assert SECRET not in logical.log.read_text().partition("reason=foreign_envelope")[2].partition("STATEMENT")[0]


# Decoding


@pytest.mark.parametrize("plugin, options", [("test_decoding", "'include-xids', '0'"), ("pgoutput", None)])
def test_logical_decoding_gives_ciphertext(world, logical, plugin, options):
    table, slot = world.make(unique("t")), unique("slot")
    world.dba.run(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
    world.dba.run(f"CREATE PUBLICATION {slot} FOR TABLE {table}")
    world.dba.run(f"SELECT pg_create_logical_replication_slot('{slot}', '{plugin}')")
    world.dba.run(f"INSERT INTO {table} VALUES (1, 'acme', '{SECRET}', NULL)")
    world.dba.run(f"UPDATE {table} SET id = 2")
    world.dba.run(f"DELETE FROM {table}")
    options = options or f"'proto_version', '1', 'publication_names', '{slot}'"
    replicator = Client(logical.connect(world.dbname, "replicator"))
    try:
        data = "::text" if plugin == "test_decoding" else ""
        peek = f"SELECT data{data} FROM pg_logical_slot_peek_binary_changes('{slot}', NULL, NULL, {options})"
        peek = peek.replace("binary_", "") if data else peek
        seen = [bytes(row[0]) if not data else row[0].encode() for row in replicator.all(peek)]
        assert sum(line.count(b"cmk1:") for line in seen) == 4 and not any(SECRET.encode() in line for line in seen)
        # By a walsender
        end = world.dba.one("SELECT pg_current_wal_lsn()")
        pairs = [part.strip(" '") for part in options.split(",")]
        received = client(
            logical, "pg_recvlogical", "-U", "replicator", "-d", world.dbname, "--slot", slot, "--start", "-f",
            "-", "--no-loop",
            f"--endpos={end}", *(f"--option={name}={value}" for name, value in zip(pairs[::2], pairs[1::2])),
        )
        assert received.count(b"cmk1:") == 4 and SECRET.encode() not in received
        assert replicator.stats()[1] == 0
    finally:
        replicator.close()
        world.dba.run(f"SELECT pg_drop_replication_slot('{slot}')")


# A physical standby


def test_a_standby_reads_what_its_roles_may_read(world, logical, kms_process):
    table = world.make(unique("t"), ROWS)
    endpoint = {"cmk_encrypt.local_keys": "on", "cmk_encrypt.kms_endpoint_url": kms_process.url}
    standby = Standby(logical, {**ROOM, **endpoint})
    try:
        replayed((logical, standby))
        connect = lambda role: Client(standby.connect(world.dbname, world.roles[role]))  # noqa: E731
        with contextlib.closing(connect("app")) as app, contextlib.closing(connect("ro")) as ro:
            given = armor(envelopes(world.dba, table)[1])
            assert app.one(f"SELECT ssn FROM {table} WHERE id = 1") == given
            app.run("SET cmk_encrypt.output = plaintext")
            assert app.all(f"SELECT id, tenant_id, ssn, note FROM {table} ORDER BY id") == ROWS
            assert app.all(f"SELECT id FROM {table} WHERE ssn = '222' ORDER BY id") == [(2,), (3,), (9,)]
            ro.run("SET cmk_encrypt.output = plaintext")
            assert ro.one(f"SELECT ssn FROM {table} WHERE id = 1") == "111"
            with fails("42501", "no_grant", "bolt"):
                ro.run(f"SELECT ssn FROM {table}")
            with fails("55000", "key_disabled", "dark"):
                app.run("SELECT ssn FROM given.dim")
    finally:
        standby.destroy()
