"""The sealing trigger among the triggers of users, switched off, and in replica mode."""

import pytest

from columns import ROWS, TRIGGER, app, dba, envelopes, opened, plain, reader, unchanged, world  # noqa: F401 (fixtures)
from support import fails, unique


@pytest.fixture
def u(world):
    return world.make(unique("u"), [(n, tenant, ssn, None) for n, tenant, ssn, _ in ROWS[:6]])


def trigger(dba, table, name, body, when="BEFORE INSERT OR UPDATE"):
    function = unique("f")
    dba.run(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$")
    dba.run(f'CREATE TRIGGER "{name}" {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()')


def test_a_users_trigger_sees_the_plain_value_and_may_change_it(dba, app, reader, u):
    trigger(dba, u, "upper", "NEW.ssn := upper(NEW.ssn);")
    with app.counts(seals=1):
        app.run(f"INSERT INTO {u} VALUES (20, 'acme', 'plain')")
    assert plain(reader, u)[20] == "PLAIN"
    # The sealed value in NEW is opened by the trigger, and what it assigns is sealed anew.
    with app.counts(seals=1, opens=1):
        app.run(f"UPDATE {u} SET id = 21 WHERE id = 20")
    assert plain(reader, u)[21] == "PLAIN"


def test_a_users_trigger_that_changes_the_value_in_an_update_of_something_else(dba, app, reader, u):
    trigger(dba, u, "audit", "NEW.ssn := 'set by a trigger';", "BEFORE UPDATE OF tenant_id")
    with app.counts(seals=1):
        app.run(f"UPDATE {u} SET tenant_id = tenant_id WHERE id = 1")
    assert plain(reader, u)[1] == "set by a trigger"


def test_a_users_trigger_can_tell_whether_the_value_changed(dba, app, reader, u):
    dba.run(f"ALTER TABLE {u} ADD changed bool")
    trigger(dba, u, "changes", "NEW.changed := NEW.ssn IS DISTINCT FROM OLD.ssn;", "BEFORE UPDATE")
    with app.counts():
        app.run(f"UPDATE {u} SET note = NULL")
    assert set(plain(reader, u, "changed").values()) == {False}
    app.run(f"UPDATE {u} SET ssn = '111'")
    assert plain(reader, u, "changed") == {1: False, 2: True, 3: True, 4: True, 5: True, 6: True}


def test_a_users_trigger_sets_the_tenant(dba, app, reader, u):
    trigger(dba, u, "tenant", "NEW.tenant_id := coalesce(NEW.tenant_id, 'bolt');")
    app.run(f"INSERT INTO {u} (id, ssn) VALUES (20, 'x')")
    assert plain(reader, u, "tenant_id, ssn")[20] == ("bolt", "x")


def test_an_after_trigger_gets_the_sealed_value(dba, app, u):
    log = unique("log")
    dba.run(f"CREATE TABLE {log} (sealed bool, value cmk_text)")
    dba.run(f"GRANT ALL ON {log} TO PUBLIC")
    trigger(dba, u, "after", f"INSERT INTO {log} VALUES (cmk.is_sealed(NEW.ssn), NEW.ssn);", "AFTER INSERT OR UPDATE")
    with app.counts(seals=1):
        app.run(f"INSERT INTO {u} VALUES (20, 'acme', 'x')")
    assert dba.row(f"SELECT sealed, cmk.is_sealed(value) FROM {log}") == (True, True)


@pytest.mark.parametrize("name", ["~z", "~cmk_seal2", "é"])
def test_plaintext_from_a_trigger_that_runs_later_is_refused(dba, app, u, name):
    trigger(dba, u, name, "NEW.ssn := 'too late';")
    with unchanged(dba, u):
        for sql in (f"INSERT INTO {u} VALUES (20, 'acme', 'x')", f"UPDATE {u} SET id = 20 WHERE id = 1"):
            with fails("23514", "not_sealed"):
                app.run(sql)


def test_a_trigger_that_swallows_the_row_is_heard_first(dba, app, u):
    function = unique("f")
    dba.run(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    dba.run(f"CREATE TRIGGER a BEFORE INSERT ON {u} FOR EACH ROW EXECUTE FUNCTION {function}()")
    with unchanged(dba, u), app.counts():
        app.run(f"INSERT INTO {u} VALUES (20, 'acme', 'x')")


def test_a_row_of_plpgsql_is_written_and_read(dba, reader, u):
    reader.run(
        f"DO $$ DECLARE r {u}; BEGIN r.id := 20; r.tenant_id := 'acme'; r.ssn := 'x';"
        f" INSERT INTO {u} VALUES (r.*); SELECT * INTO r FROM {u} WHERE id = 20;"
        f" UPDATE {u} SET ssn = r.ssn || r.ssn WHERE id = r.id; END $$"
    )
    assert plain(reader, u)[20] == "xx"


# The trigger switched off, dropped, and in replica mode

OFF = {
    "disabled": 'ALTER TABLE {u} DISABLE TRIGGER "{trigger}"',
    "all disabled": "ALTER TABLE {u} DISABLE TRIGGER ALL",
    "users' disabled": "ALTER TABLE {u} DISABLE TRIGGER USER",
    "replica only": 'ALTER TABLE {u} ENABLE REPLICA TRIGGER "{trigger}"',
    "dropped": 'DROP TRIGGER "{trigger}" ON {u}',
}


@pytest.mark.parametrize("change", OFF.values(), ids=OFF)
def test_without_the_trigger_plaintext_is_refused(dba, app, u, change):
    dba.run(change.format(u=u, trigger=TRIGGER))
    with unchanged(dba, u):
        for sql in (f"INSERT INTO {u} VALUES (20, 'acme', 'x')", f"UPDATE {u} SET ssn = 'x' WHERE id = 1"):
            with fails("23514", "not_sealed"):
                app.run(sql)
        with fails("23514", "not_sealed"):
            app.copy_in(f"COPY {u} FROM STDIN", "20\tacme\tx\t\\N\n")


def test_without_the_trigger_a_foreign_envelope_is_refused_and_an_own_one_passes(dba, app, u):
    dba.run(f'ALTER TABLE {u} DISABLE TRIGGER "{TRIGGER}"')
    with unchanged(dba, u):
        for change in ("tenant_id = 'bolt'", "note = ssn"):
            with fails("23514", "foreign_envelope"):
                app.run(f"UPDATE {u} SET {change} WHERE id = 1")
    app.run(f"INSERT INTO {u} SELECT 20, tenant_id, ssn FROM {u} WHERE id = 1")
    stored = envelopes(dba, u)
    assert stored[20] == stored[1]


def test_in_replica_mode_plain_values_are_sealed(dba, reader, u):
    trigger(dba, u, "upper", "NEW.ssn := upper(NEW.ssn);")
    dba.run("SET session_replication_role = replica")
    with dba.counts(seals=2):
        dba.run(f"INSERT INTO {u} VALUES (20, 'acme', 'plain')")
        dba.run(f"UPDATE {u} SET ssn = 'changed' WHERE id = 1")
    assert {id: v for id, v in plain(reader, u).items() if id in (1, 20)} == {1: "changed", 20: "plain"}


REPLICA = {
    "a tenant's": "UPDATE {u} SET tenant_id = 'bolt' WHERE id = 1",
    "a column's": "UPDATE {u} SET note = ssn WHERE id = 1",
    "an insert's": "INSERT INTO {u} SELECT 20, 'bolt', ssn FROM {u} WHERE id = 1",
}


@pytest.mark.parametrize("sql", REPLICA.values(), ids=REPLICA)
def test_in_replica_mode_a_foreign_envelope_is_refused(dba, u, sql):
    dba.run("SET session_replication_role = replica")
    with unchanged(dba, u), dba.counts(), fails("23514", "foreign_envelope"):
        dba.run(sql.format(u=u))


def test_in_replica_mode_envelopes_that_belong_pass_untouched(dba, u):
    dba.run("SET session_replication_role = replica")
    with dba.counts():
        dba.run(f"INSERT INTO {u} SELECT id + 20, tenant_id, ssn FROM {u}")
        dba.run(f"UPDATE {u} SET id = id + 100")
    stored = envelopes(dba, u)
    assert [stored[id + 20] for id in range(101, 107)] == [stored[id] for id in range(101, 107)]
