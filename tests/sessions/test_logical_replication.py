"""The registry in logical replication: published, subscribed to, and not a way to grant oneself anything."""

import pytest

from server import until
from support import CANARY, fails, grant


@pytest.fixture(scope="module")
def logical(make_server):
    server = make_server({"wal_level": "logical"})
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
    for function in ("rotate_tenant", "suspend_tenant", "resume_tenant", "evict"):
        dba.run(f"SELECT cmk.{function}('published')")


def test_what_logical_replication_takes_away_is_gone_from_a_warm_session(logical, session):
    dba = session(dbname="publisher", on=logical)
    dba.run("SELECT cmk.register_tenant('replicated', 'local:shared')")
    grant(dba, "replicated", "reader")
    # Made apart: on one server CREATE SUBSCRIPTION would wait for itself.
    dba.run("SELECT pg_create_logical_replication_slot('registry', 'pgoutput')")
    session(dbname="subscriber", on=logical).run(
        f"CREATE SUBSCRIPTION registry CONNECTION 'host={logical.socket} dbname=publisher user=postgres'"
        " PUBLICATION everything WITH (create_slot = false, slot_name = registry)"
    )
    envelope = session("reader", dbname="publisher", on=logical).encrypt("replicated")
    user = session("reader", dbname="subscriber", on=logical)

    def reads(forgiven):
        opened = user.one("SELECT cmk_try_decrypt('replicated', %b, '', %s)", envelope, [forgiven])
        assert opened in (None, CANARY)
        return opened is not None

    until(lambda: _arrived(user, envelope), what="the tenant's registration and grant")
    dba.run("SELECT cmk.suspend_tenant('replicated')")
    until(lambda: not reads("tenant_suspended"), what="the suspension")
    dba.run("SELECT cmk.resume_tenant('replicated')")
    until(lambda: reads("tenant_suspended"), what="the end of the suspension")
    dba.run("SELECT cmk.revoke_access('replicated', 'reader')")
    until(lambda: not reads("no_grant"), what="the revocation")


def _arrived(user, envelope):
    missing = ["unknown_tenant", "no_grant", "unknown_data_key", "data_keys_missing"]
    return user.one("SELECT cmk_try_decrypt('replicated', %b, '', %s)", envelope, missing) == CANARY


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
