"""Values of a foreign key, sealed: what nobody checks may not break it."""

import pytest

from searching import SearchWorld, drop_indexes, world  # noqa: F401 (fixtures)
from support import fails, fails_with, unique

SHAPE = "id int PRIMARY KEY, tenant_id text NOT NULL, ssn text"


@pytest.fixture
def family(world):
    """Two tables with unsealed values under one label, and a foreign key between them that came before the sealing. A
    child of bolt refers to a parent of acme: as plaintext that is the same value, sealed it is not."""
    dba, parent, child = world.connect(), unique("parent"), unique("child")
    for table in (parent, child):
        dba.run(f"CREATE TABLE {table} ({SHAPE})")
    dba.run(f"INSERT INTO {parent} VALUES (1, 'acme', 'one'), (2, 'bolt', 'two')")
    dba.run(f"INSERT INTO {child} VALUES (1, 'bolt', 'one'), (2, 'bolt', 'two')")
    for table in (parent, child):
        dba.run(f"SELECT cmk.protect_column('{table}', 'ssn', tenant_column => 'tenant_id', searchable => true,"
                f" label => '{parent}.ssn', rewrite => false)")
        drop_indexes(dba, table)
    dba.run(f"CREATE UNIQUE INDEX ON {parent} (ssn cmk_token_ops)")
    return dba, parent, child


def refer(dba, parent, child):
    dba.run(f"ALTER TABLE {child} ADD CONSTRAINT f FOREIGN KEY (ssn) REFERENCES {parent} (ssn)")


def test_sealing_breaks_no_foreign_key_behind_anybodys_back(family):
    dba, parent, child = family
    refer(dba, parent, child)
    for table in (parent, child):
        with fails("42809", "not_protectable") as caught:
            dba.run(f"CALL cmk.seal_table('{table}')")
        assert f"column ssn of public.{table} is part of a foreign key" in caught.value.diag.message_detail
        # Nor by the piece, as a superuser, whose triggers may be left aside.
        with fails_with("23503"):
            dba.run("SELECT cmk.seal_batch(%s::regclass, 3::int2, 0, 100, '{}')", table)
        assert dba.one("SELECT cmk.unsealed_rows(%s, 'ssn')", table) == 2
    dba.run(f"ALTER TABLE {child} DROP CONSTRAINT f")
    for table in (parent, child):
        dba.run(f"CALL cmk.seal_table('{table}')")
        assert dba.one("SELECT cmk.unsealed_rows(%s, 'ssn')", table) == 0
    # What did not match is told now, and can be mended.
    with fails_with("23503"):
        refer(dba, parent, child)
    dba.run(f"DELETE FROM {child} WHERE id = 1")
    refer(dba, parent, child)
    # With nothing to seal the foreign key is not in the way.
    dba.run(f"CALL cmk.seal_table('{child}')")
    with fails_with("23503"):
        dba.run(f"INSERT INTO {child} VALUES (3, 'bolt', 'three')")


def test_triggers_that_fire_because_of_a_foreign_key_are_told(family):
    dba, parent, child = family
    for table in (parent, child):
        dba.run(f"DELETE FROM {table} WHERE tenant_id = 'bolt' AND ssn = 'one'")
        dba.run(f"CALL cmk.seal_table('{table}')")
    refer(dba, parent, child)
    dba.run("CREATE FUNCTION pg_temp.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    dba.run(f"CREATE TRIGGER touch BEFORE UPDATE ON {child} FOR EACH ROW EXECUTE FUNCTION pg_temp.touch()")
    heard = []
    dba.connection.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary, notice.message_hint)))
    dba.run("SELECT cmk.rotate_tenant('bolt')")
    dba.run(f"CALL cmk.reencrypt('{child}', 'ssn', pause => 0)")
    warned = [(message, hint) for severity, message, hint in heard if severity == "WARNING"]
    assert warned == [(f"triggers of {child} fire while values are re-encrypted",
                       "The column is part of a foreign key, which PostgreSQL keeps by triggers, too.")]
    dba.run(f"DROP TRIGGER touch ON {child}")
