"""cmk.shred_tenant: a tenant's data keys are destroyed for good, and everybody hears so."""

import datetime
import re
from pathlib import Path

import psycopg
import pytest

from crowd import READ
from dumps import copy
from memory import find, forms
from support import CANARY, Session, fails, grant, wait_for_lock

SHRED = "SELECT cmk.shred_tenant(%s, confirm => %s, immediately => true)"


def shred(dba, tenant):
    """The certificate."""
    dba.run("SELECT cmk.suspend_tenant(%s)", str(tenant))
    return dba.one(SHRED, str(tenant), str(tenant))


def state(dba, tenant):
    """Of the tenant, and of its data keys by version, with whether they are wrapped."""
    keys = dba.all("SELECT version, state, wrapped IS NOT NULL FROM cmk.data_key WHERE tenant = %s ORDER BY 1", str(tenant))
    return dba.one("SELECT state FROM cmk.tenant WHERE tenant = %s", str(tenant)), keys


# What it does


def test_from_commit_on_every_session_hears_it(either_drill, users, session, kms):
    drill = either_drill
    users = [session(dbname="postgres", on=drill.server) for _ in range(3)]
    tenant = drill.tenant()
    for user in users:
        assert user.one(READ, tenant.name) == CANARY
    shred(drill.dba, tenant)
    asked = kms.calls(tenant.key_uri)
    for user in [*users, session(dbname="postgres", on=drill.server)]:
        with fails("55000", "tenant_shredded", tenant):
            user.one(READ, tenant.name)
        with fails("55000", "tenant_shredded", tenant):
            user.encrypt(tenant)
    assert kms.calls(tenant.key_uri) == asked


def test_what_is_ready_for_another_key_is_destroyed_too(dba, app, tenant, kms):
    moving = tenant()
    assert dba.one("SELECT remaining FROM cmk.rewrap_tenant(%s, %s)", moving.name, kms.key()) == 0
    shred(dba, moving)
    ready = "SELECT count(*) FROM cmk.data_key WHERE tenant = %s AND (wrapped IS NOT NULL OR next_wrapped IS NOT NULL)"
    assert dba.one(ready, moving.name) == 0
    assert dba.row("SELECT next_key_uri, next_options FROM cmk.tenant WHERE tenant = %s", moving.name) == (None, None)
    with fails("55000", "tenant_shredded", moving):
        app.encrypt(moving)


def test_what_was_in_shared_memory_is_zeroed(drill, users):
    tenant, server = drill.tenant(), drill.server
    dek = drill.dek(tenant)
    assert users[0].one(READ, tenant.name) == CANARY
    assert find(server.pid, forms(dek), shared=True), "the search does not find what is to be zeroed"
    shred(drill.dba, tenant)
    with fails("55000", "tenant_shredded", tenant):
        users[0].one(READ, tenant.name)
    assert find(server.pid, forms(dek), shared=True) == []
    assert find(users[0].pid, forms(dek)) == []


def test_the_certificate_says_what_was_destroyed_by_whom_and_when(dba, local_tenant, role, session):
    tenant, name = local_tenant(), role("LOGIN SUPERUSER")
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    dba.run("SELECT cmk.rotate_index_key(%s)", tenant.name)
    kept = dba.all("SELECT version, purpose, encode(commitment, 'hex'), wrapped_by FROM cmk.data_key"
                   " WHERE tenant = %s ORDER BY version", tenant.name)
    assert [key[:2] for key in kept] == [(1, "values"), (2, "values"), (3, "index")]
    other = session(name)
    other.run("SET ROLE postgres")
    before = dba.one("SELECT clock_timestamp()")
    other.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    certificate = other.one(SHRED, tenant.name, tenant.name)
    after = dba.one("SELECT clock_timestamp()")

    destroyed = [tuple(key[of] for of in ("version", "purpose", "commitment", "wrapped_by"))
                 for key in certificate["data_keys"]]
    assert destroyed == kept
    said = {of: certificate[of] for of in ("tenant", "key_uri", "session_role", "current_role", "immediately",
                                           "data_keys_missing", "database", "shred_delay_seconds")}
    assert said == {
        "tenant": tenant.name, "key_uri": tenant.key_uri, "session_role": name, "current_role": "postgres",
        "immediately": True, "data_keys_missing": [], "database": "sessions", "shred_delay_seconds": 7 * 86400,
    }
    at = {of: datetime.datetime.fromisoformat(certificate[of])
          for of in ("suspended_since", "shredded_at", "dumps_free_from", "memory_free_from")}
    assert before <= at["suspended_since"] <= at["shredded_at"] == at["dumps_free_from"] <= after
    assert at["memory_free_from"] - at["shredded_at"] == datetime.timedelta(seconds=299)
    assert certificate["base_backups_free_after"] == "VACUUM FULL cmk.data_key"
    assert any("WAL" in line for line in certificate["remains"])
    assert dba.one("SELECT certificate FROM cmk.tenant WHERE tenant = %s", tenant.name) == certificate


def test_data_keys_that_the_registry_lost_are_named_in_the_certificate(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.rotate_tenant('acme'), cmk.suspend_tenant('acme')")
    dba.run("UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE version = 1")
    dba.run("DELETE FROM cmk.data_key WHERE version = 1")
    certificate = dba.one(SHRED, "acme", "acme")
    assert (certificate["data_keys_missing"], [key["version"] for key in certificate["data_keys"]]) == ([1], [2])


def test_the_name_is_not_registered_again_by_accident(dba, local_tenant):
    tenant = local_tenant()
    shred(dba, tenant)
    with fails("42710", "tenant_exists", tenant):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant.name)
    for call in ("resume_tenant(%s)", "suspend_tenant(%s)", "rotate_tenant(%s)", "activate_tenant(%s)",
                 "rotate_index_key(%s)", "alter_tenant_options(%s, '{}')"):
        with fails("55000", "tenant_state_conflict", tenant):
            dba.run(f"SELECT cmk.{call}", tenant.name)
    assert dba.all("SELECT * FROM cmk.check() WHERE tenant = %s", tenant.name) == []


def test_grants_stay_so_that_applications_hear_why(dba, app, local_tenant):
    tenant = local_tenant()
    envelope = app.encrypt(tenant)
    shred(dba, tenant)
    with fails("55000", "tenant_shredded", tenant):
        app.decrypt(tenant, envelope)
    assert app.one("SELECT cmk_try_decrypt(%s, %b, '', '{tenant_shredded}')", tenant.name, envelope) is None


# When it refuses


def test_it_takes_the_name_twice(dba, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    for confirm in ("", tenant.name.upper(), f"{tenant.name} "):
        with fails("22023", "confirmation", tenant):
            dba.run(SHRED, tenant.name, confirm)
    for arguments in ("NULL, 'a'", "'a', NULL", "'a', 'a', NULL"):
        with fails("22004", "null_argument"):
            dba.run(f"SELECT cmk.shred_tenant({arguments})")
    with fails("42704", "unknown_tenant", "nobody"):
        dba.run(SHRED, "nobody", "nobody")
    assert state(dba, tenant) == ("suspended", [(1, "current", True)])


@pytest.mark.parametrize("activate, found", [(True, "active"), (False, "pending")])
def test_only_a_suspended_tenant_is_shredded_however_urgent(dba, local_tenant, activate, found):
    tenant = local_tenant(activate=activate)
    with fails("55000", "tenant_state_conflict", tenant) as caught:
        dba.run(SHRED, tenant.name, tenant.name)
    assert f"state={found}" in caught.value.diag.message_detail


def test_it_waits_for_the_delay_and_says_until_when(dba, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "shred_too_soon", tenant) as caught:
        dba.run("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)
    told = datetime.datetime.fromisoformat(re.search(r"from=(\S+)Z", caught.value.diag.message_detail)[1] + "+00:00")
    wait = told - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=6, hours=23, minutes=58) < wait <= datetime.timedelta(days=7)
    # It counts from the last suspension.
    dba.run("UPDATE cmk.tenant SET suspended_at = now() - interval '8 days' WHERE tenant = %s", tenant.name)
    dba.run("SELECT cmk.resume_tenant(%s), cmk.suspend_tenant(%s)", tenant.name, tenant.name)
    with fails("55000", "shred_too_soon", tenant):
        dba.run("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)
    assert state(dba, tenant) == ("suspended", [(1, "current", True)])


@pytest.mark.parametrize("column", ["suspended_at", "changed_at"])
def test_a_time_that_never_comes_is_no_way_around_the_delay(dba, local_tenant, column):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    dba.run(f"UPDATE cmk.tenant SET {column} = 'infinity'{', suspended_at = NULL' if column == 'changed_at' else ''} WHERE tenant = %s",
            tenant.name)
    with fails("55000", "shred_too_soon", tenant) as caught:
        dba.run("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)
    assert "from=infinity" in caught.value.diag.message_detail
    assert state(dba, tenant) == ("suspended", [(1, "current", True)])
    # A new suspension counts from now.
    dba.run("SELECT cmk.resume_tenant(%s), cmk.suspend_tenant(%s)", tenant.name, tenant.name)
    with fails("55000", "shred_too_soon", tenant) as caught:
        dba.run("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)
    assert "from=infinity" not in caught.value.diag.message_detail


def test_after_the_delay_the_certificate_says_that_nobody_hurried(dba, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    dba.run("UPDATE cmk.tenant SET suspended_at = now() - interval '7 days 1 s' WHERE tenant = %s", tenant.name)
    assert dba.one("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)["immediately"] is False


def test_one_that_was_suspended_before_there_was_a_time_counts_from_its_last_change(dba, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    dba.run("UPDATE cmk.tenant SET suspended_at = NULL WHERE tenant = %s", tenant.name)
    with fails("55000", "shred_too_soon", tenant):
        dba.run("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)
    dba.run("UPDATE cmk.tenant SET changed_at = now() - interval '8 days' WHERE tenant = %s", tenant.name)
    assert dba.one("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)["immediately"] is False


def test_the_delay_is_a_setting(dba, server, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with server.settings(shred_delay=0):
        certificate = dba.one("SELECT cmk.shred_tenant(%s, %s)", tenant.name, tenant.name)
    assert (certificate["immediately"], certificate["shred_delay_seconds"]) == (False, 0)


def test_a_read_only_transaction_shreds_nothing(dba, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    dba.run("SET default_transaction_read_only = on")
    for call in ("shred_tenant(%s, %s, true)", "remove_tenant(%s)"):
        with fails("25006", "read_only"):
            dba.run(f"SELECT cmk.{call}", *[tenant.name] * call.count("%s"))
    dba.run("RESET default_transaction_read_only")
    assert state(dba, tenant) == ("suspended", [(1, "current", True)])


# Interrupted, and two at once


def test_a_rollback_undoes_it_also_that_of_a_savepoint(dba, app, local_tenant):
    tenant = local_tenant()
    envelope = app.encrypt(tenant)
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    dba.run("BEGIN")
    dba.run("SAVEPOINT s")
    dba.run(SHRED, tenant.name, tenant.name)
    assert state(dba, tenant) == ("shredded", [(1, "destroyed", False)])
    dba.run("ROLLBACK TO s")
    dba.run("COMMIT")
    assert state(dba, tenant) == ("suspended", [(1, "current", True)])
    dba.run("SELECT cmk.resume_tenant(%s)", tenant.name)
    assert app.decrypt(tenant, envelope) == CANARY


def test_of_two_at_once_one_is_refused(dba, session, local_tenant):
    tenant, other = local_tenant(), session()
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    other.run("BEGIN")
    other.run(SHRED, tenant.name, tenant.name)
    for call, arguments in ((SHRED, (tenant.name, tenant.name)), ("SELECT cmk.remove_tenant(%s)", (tenant.name,))):
        with fails("55P03", "tenant_busy", tenant):
            dba.run(call, *arguments)
    resuming = dba.start("SELECT cmk.resume_tenant(%s)", tenant.name)
    wait_for_lock(other, dba.pid)
    other.run("COMMIT")
    with fails("55000", "tenant_state_conflict", tenant):
        resuming.result(timeout=10)
    assert state(dba, tenant) == ("shredded", [(1, "destroyed", False)])


def test_an_immediate_shutdown_leaves_all_or_nothing(make_server, kms):
    server = make_server({"shared_preload_libraries": "cmk_encrypt"})
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    dba = Session(server.connect())
    for name in ("done", "open"):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    dba.run("SELECT cmk.suspend_tenant('open')")
    shred(dba, "done")
    dba.run("BEGIN")
    dba.run(SHRED, "open", "open")
    server.restart("immediate")
    dba = Session(server.connect())
    assert state(dba, "done") == ("shredded", [(1, "destroyed", False)])
    assert state(dba, "open") == ("suspended", [(1, "current", True)])
    assert dba.one(SHRED, "open", "open")["tenant"] == "open"
    dba.close()


def test_a_trigger_of_somebody_else_that_swallows_rows_keeps_the_certificate_back(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.suspend_tenant('acme')")
    dba.run("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    dba.run("CREATE TRIGGER swallow BEFORE UPDATE ON cmk.data_key FOR EACH ROW EXECUTE FUNCTION swallow()")
    with fails("42501", "registry_write"):
        dba.run(SHRED, "acme", "acme")
    assert state(dba, "acme") == ("suspended", [(1, "current", True)])


# What came back, and what is left


def test_data_keys_that_an_older_dump_brought_back_are_destroyed_again(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
    dba.run("CREATE TABLE older AS SELECT * FROM cmk.data_key")
    first = shred(dba, "acme")
    with fails("55000", "tenant_state_conflict", "acme"):
        dba.run(SHRED, "acme", "acme")
    dba.run("DELETE FROM cmk.data_key")
    dba.run("INSERT INTO cmk.data_key (tenant, version, purpose, state, commitment, wrapped, wrapped_by)"
            " SELECT tenant, version, purpose, state, commitment, wrapped, wrapped_by FROM older")
    with fails("55000", "tenant_shredded", "acme"):
        dba.run("SELECT cmk.grant_access('acme', current_user), cmk_encrypt('acme', 'x')")
    with fails("2BP01", "keys_would_be_lost"):
        dba.run("SELECT cmk.remove_tenant('acme')")
    second = dba.one("SELECT cmk.shred_tenant('acme', 'acme')")
    assert second["earlier"] == first
    assert second["data_keys"] == first["data_keys"]
    assert state(dba, "acme") == ("shredded", [(1, "destroyed", False)])


def test_an_analyze_keeps_no_samples_of_wrapped_data_keys(session, database):
    dba = session(dbname=database())
    for n in range(20):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", f"tenant{n}")
    dba.run("ANALYZE cmk.data_key")
    columns = dba.all("SELECT attname FROM pg_stats WHERE schemaname = 'cmk' AND tablename = 'data_key'")
    assert ("commitment",) in columns and ("wrapped",) not in columns


def test_vacuum_full_takes_the_last_copies_out_of_the_files(server, session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
    wrapped = dba.one("SELECT wrapped FROM cmk.data_key")
    shred(dba, "acme")

    def is_there():
        dba.run("CHECKPOINT")
        file = Path(server.data) / dba.one("SELECT pg_relation_filepath('cmk.data_key')")
        return wrapped in file.read_bytes()

    assert is_there()
    dba.run("VACUUM FULL cmk.data_key")
    assert not is_there()


# Index keys


def test_a_rotation_of_its_index_key_ends_with_it(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.rotate_index_key('acme')")
    dba.run("SELECT cmk.rotate_index_key('acme')")
    assert dba.one("SELECT rotating FROM cmk.index_key_counts()") == 1
    certificate = shred(dba, "acme")
    assert [(key["version"], key["purpose"]) for key in certificate["data_keys"]] == [
        (1, "values"), (2, "index"), (3, "index")]
    assert state(dba, "acme")[1] == [(version, "destroyed", False) for version in (1, 2, 3)]
    assert dba.one("SELECT rotating FROM cmk.index_key_counts()") == 0
    for call in ("finish_index_rotation", "cancel_index_rotation"):
        assert called(dba, call) in (False, "tenant_state_conflict")


def called(dba, call):
    try:
        return dba.one(f"SELECT cmk.{call}('acme')")
    except psycopg.Error as error:
        return re.match(r"reason=(\w+)", error.diag.message_detail)[1]


# Protected columns


@pytest.fixture
def book(session, database):
    """A superuser's session in a database with a table of protected columns, with values of acme, which was shredded
    while its index key rotated, and of bolt."""
    dba = session(dbname=database())
    for tenant in ("acme", "bolt"):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant)
        grant(dba, tenant, "postgres")
    dba.run("CREATE TABLE book (id int PRIMARY KEY, tenant text NOT NULL, name text, note text, seen int)")
    dba.run("SELECT cmk.protect_column('book', 'name', tenant_column => 'tenant', searchable => true)")
    dba.run("SELECT cmk.protect_column('book', 'note', tenant_column => 'tenant')")
    dba.run("INSERT INTO book VALUES (1, 'acme', 'ada', 'a'), (2, 'bolt', 'bo', 'b'), (3, 'acme', 'ann', 'c')")
    dba.run("SELECT cmk.rotate_index_key('acme')")
    dba.run("INSERT INTO book VALUES (4, 'acme', 'abe', 'd')")
    dba.run("SET cmk_encrypt.output = plaintext")
    shred(dba, "acme")
    return dba


def test_values_of_a_shredded_tenant_say_so_and_others_are_read(book):
    for sql in ("SELECT name FROM book WHERE id = 1", "SELECT note::text FROM book WHERE id = 1",
                "SELECT id FROM book WHERE tenant = 'acme' AND name = 'ada'"):
        with fails("55000", "tenant_shredded", "acme"):
            book.all(sql)
    with fails("55000", "tenant_shredded", "acme"):
        book.run("INSERT INTO book VALUES (5, 'acme', 'x', 'y')")
    assert book.all("SELECT id, name::text, note::text FROM book WHERE tenant = 'bolt'") == [(2, "bo", "b")]
    assert book.all("SELECT id FROM book WHERE tenant = 'bolt' AND name = 'bo'") == [(2,)]


def test_rows_of_a_shredded_tenant_are_updated_beside_their_values_and_deleted(book):
    assert book.run("UPDATE book SET seen = 1 WHERE tenant = 'acme'").rowcount == 3
    assert book.run("UPDATE book SET name = NULL WHERE id = 3").rowcount == 1
    assert book.run("DELETE FROM book WHERE id = 4").rowcount == 1
    assert book.all("SELECT id, seen, name IS NULL FROM book ORDER BY id") == [(1, 1, False), (2, None, False), (3, 1, True)]


def test_a_table_with_values_of_a_shredded_tenant_is_sealed(book):
    book.run("INSERT INTO book VALUES (6, 'bolt', 'bee', 'f')")
    book.run("SELECT cmk.rotate_index_key('bolt')")
    warnings = []
    book.connection.add_notice_handler(lambda diag: warnings.append(diag.message_primary))
    book.run("CALL cmk.seal_table('book')")
    assert book.all("SELECT id, name::text FROM book WHERE tenant = 'bolt' ORDER BY id") == [(2, "bo"), (6, "bee")]
    assert book.one("SELECT count(*) FROM book WHERE tenant = 'acme' AND cmk.is_sealed(name)") == 3
    # Its own index key went on to rotate, whatever becomes of acme's values.
    assert book.all("SELECT state FROM cmk.data_key WHERE tenant = 'bolt' AND purpose = 'index' ORDER BY version") == [
        ("retired",), ("current",)], warnings


def test_a_database_with_a_shredded_tenant_is_dumped_and_restored(server, session, book, database, tmp_path):
    target = database(extension=False)
    copy(server, book.connection.info.dbname, target, tmp_path / "archive")
    restored = session(dbname=target)
    assert restored.one("SELECT certificate ->> 'tenant' FROM cmk.tenant WHERE tenant = 'acme'") == "acme"
    assert restored.all("SELECT * FROM cmk.check()") == []
    restored.run("SET cmk_encrypt.output = plaintext")
    assert restored.all("SELECT name::text FROM book WHERE tenant = 'bolt'") == [("bo",)]
    with fails("55000", "tenant_shredded", "acme"):
        restored.all("SELECT name FROM book")
