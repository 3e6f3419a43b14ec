"""The registry in logical replication: published, subscribed to, and not a way to grant oneself anything."""

import pytest

from server import until
from support import CANARY, fails, grant


@pytest.fixture(scope="module")
def logical(make_server):
    # But for the first, so that copies of many tables do not wait for each other.
    server = make_server({"wal_level": "logical", "max_worker_processes": "32", "max_logical_replication_workers": "24",
                          "max_sync_workers_per_subscription": "8", "wal_retrieve_retry_interval": "100ms"})
    server.make_local_key("shared")
    for name in ("publisher", "subscriber"):
        server.execute(f"CREATE DATABASE {name}")
        server.execute("CREATE EXTENSION cmk_encrypt", name)
    server.execute("CREATE PUBLICATION everything FOR ALL TABLES", "publisher")
    server.execute("CREATE ROLE reader LOGIN")
    return server


def test_a_publication_of_all_tables_forbids_no_change(logical, session):
    dba, user = session(dbname="publisher", on=logical), session("reader", dbname="publisher", on=logical)
    dba.run("SELECT cmk.register_tenant('published', 'local:shared')")
    for tenant in ("published", "*"):
        grant(dba, tenant, "reader")
        assert user.decrypt("published", user.encrypt("published")) == CANARY
        dba.run("SELECT cmk.revoke_access(%s, 'reader', encrypt => false)", tenant)
        assert user.encrypt("published")
        dba.run("SELECT cmk.revoke_access(%s, 'reader')", tenant)
        with fails("42501", "no_grant", "published"):
            user.encrypt("published")
    for function in ("rotate_tenant", "suspend_tenant", "resume_tenant", "evict", "suspend_tenant"):
        dba.run(f"SELECT cmk.{function}('published')")
    dba.run("SELECT cmk.shred_tenant('published', 'published', immediately => true), cmk.remove_tenant('published')")


def test_what_logical_replication_takes_away_is_gone_from_a_warm_session(logical, session):
    dba = session(dbname="publisher", on=logical)
    dba.run("SELECT cmk.register_tenant('replicated', 'local:shared')")
    grant(dba, "replicated", "reader")
    # Made apart: on one server CREATE SUBSCRIPTION would wait for itself.
    dba.run("SELECT pg_create_logical_replication_slot('registry', 'pgoutput')")
    subscriber = session(dbname="subscriber", on=logical)
    subscriber.run(
        f"CREATE SUBSCRIPTION registry CONNECTION 'host={logical.socket} dbname=publisher user=postgres'"
        " PUBLICATION everything WITH (create_slot = false, slot_name = registry)"
    )
    envelope = session("reader", dbname="publisher", on=logical).encrypt("replicated")
    user = session("reader", dbname="subscriber", on=logical)

    def reads(forgiven):
        forgiven = [forgiven] if isinstance(forgiven, str) else forgiven
        opened = user.one("SELECT cmk_try_decrypt('replicated', %b, '', %s)", envelope, forgiven)
        assert opened in (None, CANARY)
        return opened is not None

    until(lambda: _arrived(user, envelope), what="the tenant's registration and grant")
    dba.run("SELECT cmk.suspend_tenant('replicated')")
    until(lambda: not reads("tenant_suspended"), what="the suspension")
    dba.run("SELECT cmk.resume_tenant('replicated')")
    until(lambda: reads("tenant_suspended"), what="the end of the suspension")
    dba.run("SELECT cmk.revoke_access('replicated', 'reader')")
    until(lambda: not reads("no_grant"), what="the revocation")
    grant(dba, "replicated", "reader")
    until(lambda: reads("no_grant"), what="the grant")
    dba.run("SELECT cmk.suspend_tenant('replicated')")
    dba.run("SELECT cmk.shred_tenant('replicated', 'replicated', immediately => true)")
    until(lambda: not reads(["tenant_suspended", "tenant_shredded"]), what="the end of the tenant")
    until(lambda: wrapped(subscriber) == 0, what="the end of its data keys")
    dba.run("SELECT cmk.remove_tenant('replicated')")
    until(lambda: subscriber.one("SELECT count(*) FROM cmk.tenant WHERE tenant = 'replicated'") == 0, what="the removal")


def wrapped(dba):
    return dba.one("SELECT count(*) FROM cmk.data_key WHERE tenant = 'replicated' AND wrapped IS NOT NULL")


def _arrived(user, envelope):
    missing = ["unknown_tenant", "no_grant", "unknown_data_key", "data_keys_missing"]
    return user.one("SELECT cmk_try_decrypt('replicated', %b, '', %s)", envelope, missing) == CANARY


def test_a_move_to_another_key_is_followed(logical, session):
    logical.make_local_key("moved")
    for name in ("leader", "follower"):
        logical.execute(f"CREATE DATABASE {name}")
        logical.execute("CREATE EXTENSION cmk_encrypt", name)
    logical.execute("CREATE PUBLICATION registry FOR TABLE cmk.tenant, cmk.data_key, cmk.access", "leader")
    dba, there = session(dbname="leader", on=logical), session(dbname="follower", on=logical)
    dba.run("SELECT cmk.register_tenant('moving', 'local:shared')")
    grant(dba, "moving", "reader")
    envelope = session("reader", dbname="leader", on=logical).encrypt("moving")
    dba.run("SELECT pg_create_logical_replication_slot('moves', 'pgoutput')")
    there.run(
        f"CREATE SUBSCRIPTION moves CONNECTION 'host={logical.socket} dbname=leader user=postgres'"
        " PUBLICATION registry WITH (create_slot = false, slot_name = moves)"
    )
    state = "SELECT key_uri, next_key_uri, rewrapped FROM cmk.tenants"
    until(lambda: there.all(state) == [("local:shared", None, None)], what="the tenant")
    dba.run("SELECT cmk.rewrap_tenant('moving', 'local:moved')")
    until(lambda: there.all(state) == [("local:shared", "local:moved", 1)], what="the new wrapping")
    dba.run("SELECT cmk.confirm_rewrap('moving')")
    until(lambda: there.all(state) == [("local:moved", None, None)], what="the swap")
    wrapped = "SELECT wrapped, wrapped_by, next_wrapped FROM cmk.data_key"
    until(lambda: there.all(wrapped) == dba.all(wrapped), what="the data key")
    reader = session("reader", dbname="follower", on=logical)
    until(lambda: reader.one("SELECT cmk_try_decrypt('moving', %b, '', '{no_grant}')", envelope) == CANARY,
          what="the grant")


def test_logical_replication_grants_nothing_to_whom_it_is_run_by(logical, session):
    for name in ("hers", "target"):
        logical.execute(f"CREATE DATABASE {name}")
    logical.execute("CREATE ROLE mallory LOGIN SUPERUSER")
    dba, hers = session(dbname="target", on=logical), session("mallory", dbname="hers", on=logical)
    dba.run("CREATE EXTENSION cmk_encrypt")
    dba.run("SELECT cmk.register_tenant('coveted', 'local:shared')")
    hers.run("CREATE SCHEMA cmk")
    hers.run("CREATE TABLE cmk.access (tenant text, role oid, encrypt boolean, decrypt boolean, granted_at timestamptz DEFAULT now())")
    hers.run("CREATE PUBLICATION grants FOR TABLE cmk.access")
    hers.run("SELECT pg_create_logical_replication_slot('grants', 'pgoutput')")
    # Since 16 PostgreSQL itself would want a password, and the right to become the table's owner.
    as_before = ", password_required = false, run_as_owner = true"
    options = as_before if dba.connection.info.server_version >= 160000 else ""
    session("mallory", dbname="target", on=logical).run(
        f"CREATE SUBSCRIPTION grants CONNECTION 'host={logical.socket} dbname=hers user=postgres'"
        f" PUBLICATION grants WITH (create_slot = false, slot_name = grants, copy_data = false{options})"
    )
    logical.execute("ALTER ROLE mallory NOSUPERUSER")
    logical.execute("GRANT pg_write_all_data TO mallory")
    hers = session("postgres", dbname="hers", on=logical)
    refused = lambda: logical.log.read_text().count("reason=registry_write")  # noqa: E731
    before = refused()
    hers.run("INSERT INTO cmk.access VALUES ('coveted', 'mallory'::regrole::oid, true, true)")
    try:
        until(lambda: refused() > before, 20, "the refusal")
        assert dba.one("SELECT count(*) FROM cmk.access") == 0
    finally:
        dba.run("ALTER SUBSCRIPTION grants DISABLE")


def test_what_is_known_of_a_publishers_re_encryptions_stays_there(logical, session):
    """It is about tables by their numbers. Kept, it would be taken for runs on other tables of the subscriber, and of
    one with the same number the replication would end."""
    for name in ("origin", "copy"):
        logical.execute(f"CREATE DATABASE {name}")
        logical.execute("CREATE EXTENSION cmk_encrypt", name)
    logical.execute("CREATE PUBLICATION all_of_it FOR ALL TABLES", "origin")
    here, there = session(dbname="origin", on=logical), session(dbname="copy", on=logical)
    here.run("SELECT cmk.register_tenant('worked', 'local:shared'), cmk.grant_access('worked', 'postgres')")
    shape = "(id int PRIMARY KEY, tenant text, c bytea)"
    here.run(f"CREATE TABLE values_of {shape}")
    there.run(f"CREATE TABLE values_of {shape}")
    fill = "INSERT INTO values_of SELECT n, 'worked', cmk_encrypt('worked', 'v' || n) FROM generate_series({}, {}) n"
    call = "CALL cmk.reencrypt('values_of', 'c', tenant_column => 'tenant', pause => 0)"
    here.run(fill.format(1, 100))
    # Before the copy: a run that worked, with a row that it could not do.
    here.run("INSERT INTO values_of VALUES (0, 'worked', '\\x00')")
    here.run("SELECT cmk.rotate_tenant('worked')")
    here.run(call)
    assert here.one("SELECT count(*) FROM cmk.reencrypt_failure") == 1
    # A run of the subscriber's own, of which the publisher has one with the same number.
    job = "INSERT INTO cmk.reencrypt_job (relation, attnum, state, run_by) SELECT relation, attnum, 'done', 'subscriber' FROM {}"
    relation = here.one("SELECT relation FROM cmk.reencrypt_job")
    there.run(job.format(f"(VALUES ({relation}::oid, 3)) j (relation, attnum)"))
    here.run("SELECT pg_create_logical_replication_slot('origin', 'pgoutput')")
    there.run(
        f"CREATE SUBSCRIPTION origin CONNECTION 'host={logical.socket} dbname=origin user=postgres'"
        " PUBLICATION all_of_it WITH (create_slot = false, slot_name = origin)"
    )
    try:
        usage = "SELECT version, sum(rows) FROM cmk.data_key_usage('values_of', 'c') WHERE version IS NOT NULL GROUP BY 1"
        until(lambda: there.all(usage) == [(2, 100)], 30, "the copy")
        until(lambda: there.all("SELECT DISTINCT srsubstate FROM pg_subscription_rel") == [("r",)], 30, "the copies of all tables")
        # While it is followed: another run.
        here.run("DELETE FROM values_of WHERE id = 0")
        here.run(fill.format(101, 200))
        here.run("SELECT cmk.rotate_tenant('worked')")
        here.run(call)
        until(lambda: there.all(usage) == [(3, 200)], 30, "the re-encrypted values")
        assert there.all("SELECT relation, run_by FROM cmk.reencrypt_job") == [(relation, "subscriber")]
        assert there.all("SELECT * FROM cmk.reencrypt_failure") == []
        # Here a run is known, and goes on.
        there.run("SELECT cmk.grant_access('worked', 'postgres')")
        there.run(call)
        assert there.all('SELECT state, rows_left FROM cmk.reencrypt_progress WHERE "table" = %s::regclass', "values_of") == [("done", 0)]
        assert there.one("SELECT subenabled FROM pg_subscription WHERE subname = 'origin'")
        assert there.all("SELECT DISTINCT status FROM cmk.verify_audit('worked')") == [("ok",)]
    finally:
        there.run("ALTER SUBSCRIPTION origin DISABLE")
        there.run("ALTER SUBSCRIPTION origin SET (slot_name = NONE)")
        there.run("DROP SUBSCRIPTION origin")
        active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'origin'"
        until(lambda: not here.one(active), 30, "the end of the walsender")
        here.run("SELECT pg_drop_replication_slot('origin')")
