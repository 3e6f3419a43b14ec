"""What operators see of keys, in the views and in the log, is what is so."""

import re
import time
from datetime import timedelta

import psycopg
import pytest
import yaml

from server import ROOT, until
from support import CANARY, Tenant, fails, unique
from watched import Watched, running

READ = "SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = %s"
DARK_IN = re.compile(r"dark_in_seconds=(\d+)$")


def test_a_key_is_usable_right_after_its_activation_whatever_else_the_transaction_did(drill, session):
    dba, other = (session(dbname="postgres", on=drill.server) for _ in range(2))
    tenants = [Tenant(unique("tenant"), drill.kms.key()) for _ in range(3)]
    with dba.connection.transaction():
        for tenant in tenants:
            dba.run("SELECT cmk.register_tenant(%s, %s, activate => %s)", tenant.name, tenant.key_uri, tenant is not tenants[0])
        dba.run("SELECT cmk.activate_tenant(%s)", tenants[0].name)
    seen = "SELECT key_state, since IS NOT NULL, last_success IS NOT NULL, dark_since FROM cmk.status WHERE tenant = %s"
    for tenant in tenants:
        for user in (dba, other):
            assert user.row(seen, tenant.name) == ("usable", True, True, None)


def test_what_a_transaction_that_was_rolled_back_learned_is_nobodys(drill, session):
    dba, tenant = session(dbname="postgres", on=drill.server), Tenant(unique("tenant"), drill.kms.key())
    dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", tenant.name, tenant.key_uri)
    with pytest.raises(psycopg.Error), dba.connection.transaction():
        dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", unique("tenant"), drill.kms.key())
        dba.run("SELECT cmk.activate_tenant(%s)", tenant.name)
        dba.run("SELECT 1 / 0")
    assert drill.status(tenant, "tenant_state, key_state") == ("pending", None)


def test_what_was_found_revoked_meanwhile_stays_so(drill, session, kms):
    dba, tenant = session(dbname="postgres", on=drill.server), drill.tenant()
    with dba.connection.transaction():
        dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", unique("tenant"), drill.kms.key())
        assert dba.one(READ, tenant.name) == CANARY
        kms.state(tenant.key_uri, "Disabled")
        with fails("55000", "key_disabled", tenant):
            drill.dba.one(READ, tenant.name)
    assert drill.status(tenant, "key_state") == ("revoked",)


def test_in_an_outage_info_says_when_the_tenant_is_dark_by_the_ttl_that_holds_now(drill, session, kms):
    tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    assert user.one(READ, tenant.name) == CANARY

    def dark_in():
        return int(DARK_IN.search(drill.status(tenant, "info")[0])[1])

    with kms.fault("reset", arn=tenant.key_uri):
        with pytest.raises(psycopg.Error):
            user.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        assert drill.status(tenant, "key_state") == ("unreachable",)
        assert 200 < dark_in() <= 299
        assert drill.status(tenant, "dark_since") == (None,)
        with drill.server.settings(cache_ttl="60s"):
            until(lambda: dark_in() <= 60, what="the lower TTL")
            assert dark_in() > 20
        with drill.server.settings(cache_ttl="1s"):
            time.sleep(1)
            until(lambda: dark_in() == 0, what="the lowest TTL")
            assert drill.status(tenant, "dark_since IS NOT NULL") == (True,)
            with fails("58000", "kms_unreachable", tenant):
                user.one(READ, tenant.name)


def test_events_of_an_outage_go_by_the_ttl_that_holds_now(make_server, kms):
    with running(make_server, monitor_databases="postgres", cache_ttl="1h") as server:
        watched = Watched(server, kms)
        tenant = watched.tenant()
        watched.dba.encrypt(tenant)
        with server.settings(cache_ttl="30s"):
            with kms.fault("status", arn=tenant.key_uri, status=500):
                until(lambda: watched.events(tenant), what="the event")
                info = watched.dba.one("SELECT info FROM cmk.key_event WHERE tenant = %s", tenant.name)
                assert int(DARK_IN.search(info)[1]) <= 31


def test_a_bound_is_over_for_a_tenant_that_every_read_is_refused_for(drill, session, kms):
    tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    assert user.one(READ, tenant.name) == CANARY
    assert user.one("SELECT dark_within FROM cmk.revocation_bound(%s)", tenant.name) > timedelta(seconds=200)
    kms.state(tenant.key_uri, "Disabled")
    drill.evict(tenant)
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    assert user.one("SELECT dark_within FROM cmk.revocation_bound(%s)", tenant.name) == timedelta(0)


OPTIONS = '\'{{"role_arn": "arn:aws:iam::111122223333:role/EXAMPLE", "external_id": "{}"}}\''


@pytest.mark.parametrize("statement", [
    "SELECT cmk.register_tenant('{tenant}', '{key}', {options})",
    "SELECT cmk.register_tenant('{tenant}', 'arn:no-key', {options})",
    "SELECT cmk.alter_tenant_options('nobody', {options})",
    "SELECT cmk.rewrap_tenant('nobody', '{key}', {options})",
    "SELECT cmk.register_tenant('{tenant}', '{key}', {options}) FROM no_such_table",
    # Fails before any function of ours runs: the JSON is cut off.
    "SELECT cmk.register_tenant('{tenant}', '{key}', {cut})",
    "DO $$BEGIN PERFORM cmk.register_tenant('{tenant}', 'arn:no-key', {options}); END$$",
])
def test_a_statement_that_fails_puts_no_external_id_into_the_log(drill, session, statement):
    user, secret = session(dbname="postgres", on=drill.server), unique("EXAMPLE-id")
    options = OPTIONS.format(secret)
    text = statement.format(tenant=unique("tenant"), key=drill.kms.key(), options=options, cut=options.replace("}'", "'"))
    with pytest.raises(psycopg.Error) as failed:
        user.connection.execute(text)
    until(lambda: failed.value.diag.message_primary in drill.server.log.read_text(), what="the error in the log")
    assert secret not in drill.server.log.read_text()


def test_other_statements_that_fail_are_logged_as_ever(drill, session):
    user, mark = session(dbname="postgres", on=drill.server), unique("mark")
    with pytest.raises(psycopg.Error):
        user.connection.execute(f"SELECT '{mark}', cmk.register_tenant('x', 'arn:no-key')")
    until(lambda: mark in drill.server.log.read_text(), what="the statement in the log")


# Before there is a database


def test_a_database_that_is_not_there_yet_is_no_alarm(make_server, kms):
    with running(make_server, monitor_databases="postgres, later, closed", max_worker_processes="12") as server:
        server.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
        watched = Watched(server, kms)
        until(watched.monitor, what="the monitor of the other")
        missing = "cmk_encrypt monitor: no database that lets it in is named "
        until(lambda: any(missing + "later" in line for line in watched.log()), what="a word of it")
        server.execute("CREATE DATABASE later")
        later = Watched(server, kms, "later")
        until(later.monitor, 20, "its monitor")
        tenant = later.tenant()
        later.checks(tenant, 1)
        log = server.log.read_text()
        assert "FATAL" not in log, [line for line in log.splitlines() if "FATAL" in line]
        assert log.count(missing + "later") == 1


# Development


def test_the_recipe_for_an_emulator_in_compose_speaks_over_loopback(drill, session, kms):
    page = (ROOT / "docs" / "operations.md").read_text()
    [recipe] = re.findall(r"```yaml\n(services:.*?)```", page, re.DOTALL)
    services = yaml.safe_load(recipe)["services"]
    postgres = services["postgres"]
    assert postgres["network_mode"] == "service:localstack" and "localstack" in services
    settings = dict(setting.split("=", 1) for setting in postgres["command"] if "=" in setting)
    urls = {name.removeprefix("cmk_encrypt."): url for name, url in settings.items() if name.endswith("_url")}
    assert set(urls) == {"kms_endpoint_url", "sts_endpoint_url"}
    # As it stands there, with the port of the emulator that is here; and by its name it is refused.
    tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    with drill.server.settings(**{name: url.replace("4566", str(kms.port)) for name, url in urls.items()}):
        assert user.one(READ, tenant.name) == CANARY
    drill.evict(tenant)
    with drill.server.settings(kms_endpoint_url=f"http://localstack:{kms.port}"):
        with fails("F0000", "endpoint", tenant):
            user.one(READ, tenant.name)
