"""pg_upgrade: what was sealed stays byte for byte, and opens afterwards."""

import pytest

from columns import ROWS, Client, World, envelopes, plain
from support import fails
from upgrading import Upgraded

CHECKS = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE 'cmk%' ORDER BY 1, 2"
STORED = "SELECT relname, relfilenode FROM pg_class WHERE relname IN ('u', 'u_pkey', 'half') ORDER BY 1"


@pytest.fixture(scope="module")
def upgraded(make_server, kms_process):
    """What was there before, and the server after."""
    old = make_server()
    old.make_local_key("shared")
    world = World(old, kms_process)
    old.execute(f"ALTER ROLE {world.roles['app']} SET cmk_encrypt.output = plaintext")
    world.make("u", ROWS)
    world.make("half")
    world.dba.run('ALTER TABLE half DROP CONSTRAINT cmk_sealed_ssn, DISABLE TRIGGER "~cmk_seal"')
    world.dba.run("INSERT INTO half VALUES (1, 'acme', 'not sealed yet', NULL)")
    world.dba.run("ALTER TABLE half ADD CONSTRAINT cmk_sealed_ssn CHECK (cmk.sealed(ssn, 'half.ssn',"
                  " tenant_id, NULL)) NOT VALID")
    world.dba.run('ALTER TABLE half ENABLE ALWAYS TRIGGER "~cmk_seal"')
    # The new server may be built without ICU.
    world.dba.run("DROP COLLATION other")
    before = {name: envelopes(world.dba, name) for name in ("u", "given.dim")}
    before |= {sql: world.dba.all(sql) for sql in (CHECKS, STORED)}
    world.disconnect()
    new = Upgraded(old, {"cmk_encrypt.local_keys": "on", "cmk_encrypt.kms_endpoint_url": kms_process.url})
    with new.connect(world.dbname) as connection:
        if connection.info.server_version < 150000:  # up to there databases get new object ids
            connection.execute("SELECT cmk.adopt_registry()")
    yield world, before, new
    new.destroy()


def test_all_is_as_it_was(upgraded):
    world, before, new = upgraded
    with Client(new.connect(world.dbname)).connection as connection:
        dba = Client(connection)
        for name in ("u", "given.dim"):
            assert envelopes(dba, name) == before[name]
        for sql in (CHECKS, STORED):
            assert dba.all(sql) == before[sql]
        assert dba.one("SELECT ssn FROM half") == "not sealed yet"


def test_protection_goes_on(upgraded):
    world, _, new = upgraded
    with new.connect(world.dbname, world.roles["app"]) as connection:
        app = Client(connection)
        assert plain(app, "u", "tenant_id, ssn, note") == {row[0]: row[1:] for row in ROWS}
        with app.counts(seals=3, opens=1):
            app.run("INSERT INTO u VALUES (90, 'acme', 'after', NULL)")
            app.run("UPDATE u SET tenant_id = 'bolt' WHERE id = 90")
            app.run("UPDATE half SET ssn = ssn")
        assert app.all("SELECT ssn, cmk.is_sealed(ssn) FROM half") == [("not sealed yet", True)]
        with fails("55000", "key_disabled", "dark"):
            app.run("SELECT ssn FROM given.dim")
    with new.connect(world.dbname) as connection:
        Client(connection).run('ALTER TABLE u DISABLE TRIGGER "~cmk_seal"')
        with fails("23514", "not_sealed"):
            Client(connection).run("INSERT INTO u VALUES (91, 'acme', 'x', NULL)")
