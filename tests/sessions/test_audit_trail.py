"""A trail that was changed, cut or left out of shows it, whoever did that; one that was carried elsewhere is whole."""

import json
import threading
import time

import psycopg
import pytest

from audit import events, unguarded
from audit_chain import broken
from dumps import client
from support import fails, grant, unique


@pytest.fixture
def trail(session, database):
    """A database of its own with a tenant, whose chain has five events."""
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
    for act in ("evict", "suspend_tenant", "resume_tenant", "rotate_tenant"):
        dba.run(f"SELECT cmk.{act}('acme')")
    return dba


def status(dba, tenant="acme"):
    return dba.all("SELECT status, wrong_at FROM cmk.verify_audit(%s)", tenant)


def test_a_chain_that_nobody_touched_is_ok(trail):
    row = trail.row("SELECT tenant, events, first_number, last_number, status, wrong_at FROM cmk.verify_audit('acme')")
    assert row == ("acme", 5, 1, 5, "ok", None)
    assert trail.all("SELECT DISTINCT status FROM cmk.verify_audit()") == [("ok",)]
    assert trail.all("SELECT FROM cmk.verify_audit('nobody')") == []


def test_another_program_finds_the_same_hashes(trail):
    report = trail.one("SELECT cmk.audit_report('acme')")
    chain = [
        {**event, "previous_hash": bytes.fromhex(event["previous_hash"]), "hash": bytes.fromhex(event["hash"])}
        for event in report["events"] if event["tenant"] == "acme"
    ]
    assert len(chain) == 5 and broken(chain) == []
    assert report["chains"][0]["last_hash"] == chain[-1]["hash"].hex()
    chain[2]["acting_role"] = "somebody else"
    assert broken(chain) == [(3, "changed")]


@pytest.mark.parametrize("change, seen", [
    ("UPDATE cmk.audit_event SET session_role = 'eve' WHERE number = 3", ("changed", 3)),
    ("UPDATE cmk.audit_event SET at = at + '1 microsecond' WHERE number = 3", ("changed", 3)),
    ("UPDATE cmk.audit_event SET before = '{ }' WHERE number = 3", ("changed", 3)),
    ("UPDATE cmk.audit_event SET kms_request_ids = '{x}' WHERE number = 3", ("changed", 3)),
    ("UPDATE cmk.audit_event SET hash = sha256('x') WHERE number = 3", ("changed", 3)),
    # What no event of ours has
    ("UPDATE cmk.audit_event SET kms_request_ids = '{NULL}' WHERE number = 3", ("changed", 3)),
    ("UPDATE cmk.audit_event SET at = 'infinity' WHERE number = 3", ("changed", 3)),
    ("UPDATE cmk.audit_event SET transaction = '18446744073709551615' WHERE number = 3", ("changed", 3)),
    ("DELETE FROM cmk.audit_event WHERE number = 3", ("gap", 4)),
    ("DELETE FROM cmk.audit_event WHERE number = 1", ("gap", 2)),
    ("DELETE FROM cmk.audit_event WHERE number = 5", ("truncated", 5)),
    ("DELETE FROM cmk.audit_event", ("truncated", 5)),
    ("DELETE FROM cmk.audit_chain", ("truncated", 5)),
    ("UPDATE cmk.audit_chain SET hash = sha256('x')", ("truncated", 5)),
    ("UPDATE cmk.audit_event SET number = 6 WHERE number = 5", ("gap", 6)),
])
def test_what_a_superuser_does_to_it_past_the_guards_shows(trail, change, seen):
    with fails("42501", "audit_trail"):
        trail.run(change)
    unguarded(trail, change)
    assert status(trail) == [seen]
    assert trail.one("SELECT cmk.audit_report('acme') IS NOT NULL")


def test_who_may_write_all_tables_cannot_forge_or_change_events(trail, session, role):
    writer = session(role(), dbname=trail.connection.info.dbname)
    trail.run(f"GRANT pg_write_all_data, pg_read_all_data TO {writer.role}")
    for change in ("INSERT INTO cmk.audit_event SELECT * FROM cmk.audit_event", "DELETE FROM cmk.audit_event",
                   "UPDATE cmk.audit_chain SET number = 0", "INSERT INTO cmk.audit_chain SELECT * FROM cmk.audit_chain"):
        with fails("42501", "registry_write"):
            writer.run(change)
    # Locking them keeps nobody's suspension from taking effect, and nobody from writing for longer than it lasts.
    writer.run("BEGIN")
    writer.run("SELECT FROM cmk.audit_chain FOR UPDATE")
    trail.run("SET lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        trail.run("SELECT cmk.suspend_tenant('acme')")
    writer.run("ROLLBACK")
    trail.run("SELECT cmk.suspend_tenant('acme')")
    assert status(trail) == [("ok", None)]


def test_sessions_that_act_on_one_tenant_at_once_make_one_chain(trail, session):
    name = trail.connection.info.dbname
    sessions = [session(dbname=name) for _ in range(6)]
    errors = []

    def work(one):
        try:
            for _ in range(25):
                one.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                one.run("SELECT cmk.grant_access('acme', current_user)" if one is sessions[0] else "SELECT 1")
                one.run("SELECT cmk_internal.audit('verify_tenant', 'acme')")
                one.run("SELECT cmk_internal.audit('verify_tenant', %s)", f"other{one.pid % 3}")
                one.run("COMMIT")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert status(trail) == [("ok", None)]
    assert trail.one("SELECT count(*) FROM cmk.audit_event WHERE act = 'verify_tenant' AND tenant = 'acme'") == 150
    assert trail.all("SELECT DISTINCT status FROM cmk.verify_audit()") == [("ok",)]


def test_a_dump_carries_the_chains_and_the_copy_goes_on_with_one_of_its_own(trail, server, database, session, tmp_path):
    target = database(extension=False)
    client(server, "pg_dump", "-Fd", "-f", tmp_path / "d", trail.connection.info.dbname)
    client(server, "pg_restore", "-j4", "--exit-on-error", "-d", target, tmp_path / "d")
    dba = session(dbname=target)
    assert events(dba, "acme", "hash") == events(trail, "acme", "hash")
    dba.run("SELECT cmk.rotate_tenant('acme')")
    first = dba.row("SELECT number, previous_hash FROM cmk.audit_event WHERE database = %s AND tenant = 'acme'", target)
    assert first == (1, trail.one("SELECT hash FROM cmk.audit_event WHERE tenant = 'acme' AND number = 5"))
    assert status(dba) == [("ok", None), ("ok", None)]
    # Without the old chain, the new one begins after nothing.
    unguarded(dba, "DELETE FROM cmk.audit_event WHERE database <> current_database()",
              "DELETE FROM cmk.audit_chain WHERE number = 5")
    assert status(dba) == [("gap", 1)]


def test_a_database_made_from_a_template_has_chains_of_its_own(trail, server, session, database):
    name, copied = trail.connection.info.dbname, unique("db")
    trail.connection.close()
    server.execute(f"CREATE DATABASE {copied} TEMPLATE {name}")
    try:
        dba = session(dbname=copied)
        dba.run("SELECT cmk.adopt_registry()")
        dba.run("SELECT cmk.rotate_tenant('acme')")
        assert status(dba) == [("ok", None), ("ok", None)]
        assert dba.all("SELECT act, database FROM cmk.audit_event WHERE tenant = '*'") == [("adopt_registry", copied)]
        dba.close()
    finally:
        server.execute(f"DROP DATABASE {copied} WITH (FORCE)")


def test_a_report_has_what_concerns_a_tenant_and_nothing_of_others(trail, role):
    user = role()
    trail.run("SELECT cmk.register_tenant('other', 'local:shared')")
    grant(trail, "other", user)
    grant(trail, "acme", user, decrypt=False)
    grant(trail, "*", user, encrypt=False)
    trail.run("INSERT INTO cmk.key_event (tenant, event) VALUES ('acme', 'usable'), ('other', 'revoked')")
    report = trail.one("SELECT cmk.audit_report('acme')")
    assert "other" not in json.dumps(report)
    assert [(it["role"], it["encrypt"], it["decrypt"], it["every_tenant"]) for it in report["grants"]] == [
        (user, True, False, False), (user, False, True, True)]
    assert [(it["version"], it["state"]) for it in report["data_keys"]] == [(1, "retired"), (2, "current")]
    assert [it["event"] for it in report["key_events"]] == ["usable"]
    assert {it["status"] for it in report["chains"]} == {"ok"}
    assert [it["act"] for it in report["events"] if it["tenant"] == "*"] == ["grant_access"]
    middle = trail.one("SELECT at FROM cmk.audit_event WHERE tenant = 'acme' AND number = 3")
    numbers = lambda *span: [  # noqa: E731
        it["number"] for it in trail.one("SELECT cmk.audit_report('acme', %s, %s)", *span)["events"] if it["tenant"] == "acme"]
    assert numbers(middle, None) == [3, 4, 5, 6] and numbers(None, middle) == [1, 2]
    with fails("42704", "unknown_tenant"):
        trail.run("SELECT cmk.audit_report('nobody')")


def test_a_hundred_thousand_events_are_verified_in_seconds(trail):
    trail.run("SELECT count(cmk_internal.audit('verify_tenant', 'acme', after => to_jsonb(n))) FROM generate_series(1, 100000) n")
    began = time.monotonic()
    assert trail.row("SELECT events, status FROM cmk.verify_audit('acme')") == (100005, "ok")
    assert time.monotonic() - began < 20


def test_a_prepared_transaction_takes_no_event_along(trail):
    trail.run("BEGIN")
    trail.run("SELECT cmk_internal.audit('verify_tenant', 'acme')")
    with fails("55000", "cannot_prepare"):
        trail.run("PREPARE TRANSACTION 'one'")
    trail.usable()
    assert len(events(trail, "acme", "act")) == 5


def test_nobody_but_the_owner_may_say_that_somebody_did_something(trail, session, role):
    other = session(role(), dbname=trail.connection.info.dbname)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.run("SELECT cmk_internal.audit('suspend_tenant', 'acme')")
    # Of columns, only what happened.
    trail.run(f"CREATE SCHEMA AUTHORIZATION {other.role}")
    other.run("CREATE TABLE mine (tenant text NOT NULL, ssn text)")
    for act in ("protect_column", "unprotect_column", "seal_table", "suspend_tenant"):
        assert other.one("SELECT cmk_internal.audit_column('mine', 'ssn', %s)", act) is None
    other.run("SELECT cmk.protect_column('mine', 'ssn', 'tenant')")
    assert other.one("SELECT cmk_internal.audit_column('mine', 'ssn', 'protect_column')") is None
    other.run("SELECT cmk.unprotect_column('mine', 'ssn')")
    seen = trail.all("SELECT act, acting_role, coalesce(after, before)->>'column' FROM cmk.audit_event WHERE tenant = '*'")
    assert seen == [("protect_column", other.role, "ssn"), ("unprotect_column", other.role, "ssn")]


def test_sealing_old_rows_is_an_event_when_all_are_sealed(trail, role, session):
    trail.run("CREATE TABLE t (tenant text NOT NULL, ssn text)")
    trail.run("INSERT INTO t SELECT 'acme', 'x' FROM generate_series(1, 10)")
    grant(trail, "acme", "postgres")
    trail.run("SELECT cmk.protect_column('t', 'ssn', 'tenant', rewrite => false)")
    trail.run("CALL cmk.seal_table('t')")
    assert trail.all("SELECT act, after->>'all_sealed' FROM cmk.audit_event WHERE tenant = '*'") == [
        ("protect_column", "false"), ("seal_table", "true")]


def test_an_extension_that_is_dropped_in_the_same_transaction_takes_its_trail_along(trail):
    trail.run("BEGIN")
    trail.run("SELECT cmk.destroy_data_keys(current_database())")
    trail.run("DROP EXTENSION cmk_encrypt CASCADE")
    trail.run("CREATE SCHEMA IF NOT EXISTS cmk")
    trail.run("CREATE TABLE cmk.audit_event (tenant text)")
    trail.run("CREATE TABLE cmk.audit_chain (tenant text)")
    trail.run("COMMIT")
    assert trail.one("SELECT count(*) FROM cmk.audit_event") == 0
