"""The monitor rotates data keys by age and by the number of sealed values, and the owner of a key rotates that."""

import contextlib

import pytest

from server import until
from standby import Standby, replayed
from support import CANARY, Session, fails
from watched import QUICK, Watched, rotate, running

# Of a tenant that nobody wants to be rotated.
NEVER = "rotate_after => '0', rotate_after_values => 0"


@pytest.fixture(scope="module")
def both(make_server, kms_process):
    """A server that rotates by age and number only whom a test says, and one database of it."""
    with running(make_server, monitor_databases="postgres", rotate_after="0", rotate_after_values="0") as server:
        yield server, Watched(server, kms_process)


@pytest.fixture
def watched(both, kms):
    return both[1]


def alter(watched, tenant, limits):
    watched.dba.run(f"SELECT cmk.alter_tenant_rotation(%s, {limits})", tenant.name)


def versions(watched, tenant):
    return watched.dba.all("SELECT version, state FROM cmk.data_key WHERE tenant = %s ORDER BY version", tenant.name)


def age(watched, tenant, interval):
    """Makes the tenant's current data key older."""
    watched.dba.run("UPDATE cmk.data_key SET created_at = created_at - %s::interval"
                    " WHERE tenant = %s AND state = 'current'", interval, tenant.name)


def sealed(watched, tenant):
    return dict(watched.dba.all("SELECT version, sum(sealed)::int FROM cmk.data_key_use WHERE tenant = %s GROUP BY 1",
                                tenant.name))


def seal(watched, tenant, count):
    """In a session of its own, which tells what it did when it ends."""
    session = Session(watched.server.connect(watched.dbname))
    session.run("SELECT count(cmk_encrypt(%s, n::text)) FROM generate_series(1, %s) n", tenant.name, count)
    session.close()


def rotates(watched, tenant, last):
    expected = [(version, "retired") for version in range(1, last)] + [(last, "current")]
    until(lambda: versions(watched, tenant) == expected, what=f"version {last}")


def looks(watched):
    """Returns after the monitor has looked whose data key is due, and rotated somebody."""
    probe = watched.tenant()
    alter(watched, probe, "rotate_after => '1 day'")
    age(watched, probe, "2 days")
    rotates(watched, probe, 2)


# When


def test_a_data_key_that_is_too_old_is_replaced_and_still_opens(watched):
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    alter(watched, tenant, "rotate_after => '1 month'")
    age(watched, tenant, "27 days")
    looks(watched)
    assert versions(watched, tenant) == [(1, "current")]
    age(watched, tenant, "5 days")
    rotates(watched, tenant, 2)
    assert watched.dba.decrypt(tenant, envelope) == CANARY
    assert watched.dba.one("SELECT version FROM cmk.inspect(%s)", watched.dba.encrypt(tenant)) == 2
    assert watched.log(f"data_key=rotated version=2 tenant={tenant.name}") != []


def test_values_are_counted_and_a_data_key_that_sealed_too_many_is_replaced(watched):
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    alter(watched, tenant, "rotate_after_values => 40")
    for _ in range(2):
        seal(watched, tenant, 14)
    # What is opened is not counted.
    watched.dba.run("SELECT count(cmk_decrypt(%s, %b)) FROM generate_series(1, 50)", tenant.name, envelope)
    until(lambda: sealed(watched, tenant).get(1, 0) >= 28, what="the count of 28 values")
    looks(watched)
    assert versions(watched, tenant) == [(1, "current")]
    assert sealed(watched, tenant)[1] <= 29
    seal(watched, tenant, 12)
    rotates(watched, tenant, 2)
    seal(watched, tenant, 5)
    until(lambda: sealed(watched, tenant).get(2) == 5, what="the count of the new data key")
    assert versions(watched, tenant) == [(1, "retired"), (2, "current")]


def test_the_settings_hold_for_tenants_that_nobody_made_an_exception_of(watched):
    here, never = watched.tenant(), watched.tenant()
    alter(watched, never, NEVER)
    for tenant in (here, never):
        age(watched, tenant, "400 days")
    with watched.server.settings(rotate_after="365d"):
        rotates(watched, here, 2)
        looks(watched)
    assert versions(watched, never) == [(1, "current")]
    for tenant in (here, never):
        seal(watched, tenant, 20)
    with watched.server.settings(rotate_after_values="20"):
        rotates(watched, here, 3)
        looks(watched)
        alter(watched, never, "rotate_after => NULL")
        rotates(watched, never, 2)


def test_limits_are_checked_and_kept(watched):
    tenant = watched.tenant()
    for limits in ("'-1 day'", "'11 years'", "NULL, -1"):
        with fails("22023", "rotation_limit", tenant):
            alter(watched, tenant, limits)
    with fails("42704", "unknown_tenant", "nobody"):
        watched.dba.run("SELECT cmk.alter_tenant_rotation('nobody')")
    alter(watched, tenant, "'2 years', 5000000000")
    kept = "SELECT rotate_after::text, rotate_after_values FROM cmk.tenant WHERE tenant = %s"
    assert watched.dba.row(kept, tenant.name) == ("2 years", 5_000_000_000)
    watched.dba.run("SELECT cmk.alter_tenant_rotation(%s)", tenant.name)
    assert watched.dba.row(kept, tenant.name) == (None, None)


def test_the_count_outlives_a_restart(make_server, kms):
    with running(make_server, monitor_databases="postgres", rotate_after_values="0") as server:
        watched = Watched(server, kms)
        tenant = watched.tenant()
        alter(watched, tenant, "rotate_after_values => 30")
        seal(watched, tenant, 20)
        until(lambda: sealed(watched, tenant) == {1: 20}, what="the count")
        server.restart("immediate")
        watched.connect()
        seal(watched, tenant, 10)
        rotates(watched, tenant, 2)
        assert sealed(watched, tenant)[1] == 30


# Not when


def test_neither_suspended_nor_dark_tenants_are_rotated(watched, kms):
    suspended, dark = watched.tenant(), watched.tenant()
    watched.dba.run("SELECT cmk.suspend_tenant(%s)", suspended.name)
    kms.state(dark.key_uri, "Disabled")
    until(lambda: watched.status(dark)[0] == "revoked", what="the revocation")
    before = kms.counters()["by_key"][dark.key_uri].get("GenerateDataKeyWithoutPlaintext", 0)
    for tenant in (suspended, dark):
        alter(watched, tenant, "rotate_after => '1 day'")
        age(watched, tenant, "2 days")
    looks(watched)
    assert versions(watched, suspended) == versions(watched, dark) == [(1, "current")]
    assert kms.counters()["by_key"][dark.key_uri].get("GenerateDataKeyWithoutPlaintext", 0) == before
    kms.state(dark.key_uri, "Enabled")
    rotates(watched, dark, 2)


def test_a_key_that_makes_no_data_keys_is_told_once_and_goes_on_serving(watched, kms):
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    kms.deny(tenant.key_uri, operations=["GenerateDataKeyWithoutPlaintext"])
    alter(watched, tenant, "rotate_after => '1 day'")
    age(watched, tenant, "2 days")
    told = ("rotation_failed", None, "key_access_denied")
    watched.says(tenant, told)
    looks(watched)
    assert watched.events(tenant) == [told]
    assert len(watched.log(f"key_warning=rotation_failed reason=key_access_denied version=1 tenant={tenant.name}")) == 1
    assert kms.counters()["by_key"][tenant.key_uri]["GenerateDataKeyWithoutPlaintext"] == 2, "registered, and tried once"
    assert watched.dba.decrypt(tenant, envelope) == CANARY
    assert watched.status(tenant)[0] == "usable"


def test_a_data_key_that_does_not_unwrap_is_not_kept(watched, kms):
    tenant = watched.tenant()
    alter(watched, tenant, "rotate_after => '1 day'")
    with kms.fault("wrong_key_id", arn=tenant.key_uri):
        age(watched, tenant, "2 days")
        watched.says(tenant, ("rotation_failed", None, "kms_answer_mismatch"))
    assert versions(watched, tenant) == [(1, "current")]


def test_nobody_is_kept_waiting_and_the_monitor_waits_for_nobody(watched, kms):
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    other = Session(watched.server.connect(watched.dbname))
    other.run("BEGIN")
    other.run("SELECT FROM cmk.tenant WHERE tenant = %s FOR UPDATE", tenant.name)
    age(watched, tenant, "400 days")
    # It is due by the setting; nobody can change the tenant while its row is held.
    with watched.server.settings(rotate_after="365d"):
        looks(watched)
        assert watched.dba.decrypt(tenant, envelope) == CANARY
        assert versions(watched, tenant) == [(1, "current")]
    other.run("COMMIT")
    other.close()


def test_a_session_reads_and_writes_while_kms_makes_a_data_key(watched, kms):
    tenant = watched.tenant()
    envelope = watched.dba.encrypt(tenant)
    alter(watched, tenant, "rotate_after => '1 day'")
    made = kms.counters()["by_key"][tenant.key_uri]["GenerateDataKeyWithoutPlaintext"]
    with kms.fault("delay", arn=tenant.key_uri, operation="GenerateDataKeyWithoutPlaintext", millis=1500):
        age(watched, tenant, "2 days")
        until(lambda: kms.counters()["by_key"][tenant.key_uri]["GenerateDataKeyWithoutPlaintext"] > made,
              what="the call")
        assert versions(watched, tenant) == [(1, "current")]
        watched.dba.run("SET statement_timeout = '1s'")
        assert watched.dba.decrypt(tenant, envelope) == CANARY
        assert watched.dba.decrypt(tenant, watched.dba.encrypt(tenant)) == CANARY
        watched.dba.run("SELECT cmk.grant_access(%s, 'postgres'), cmk.suspend_tenant(%s), cmk.resume_tenant(%s)",
                        tenant.name, tenant.name, tenant.name)
        watched.dba.run("RESET statement_timeout")
    rotates(watched, tenant, 2)


# Elsewhere


def test_a_standby_rotates_nothing(make_server, kms):
    with running(make_server, monitor_databases="postgres", rotate_after="0") as primary:
        watched = Watched(primary, kms)
        tenant = watched.tenant()
        standby = Standby(primary, {**QUICK, "cmk_encrypt.monitor_databases": "postgres", "cmk_encrypt.rotate_after": "1d",
                                    "cmk_encrypt.kms_endpoint_url": kms.url})
        try:
            age(watched, tenant, "2 days")
            replayed((primary, standby))
            reader = Session(standby.connect())
            until(lambda: reader.one("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'cmk_encrypt monitor'"),
                  what="its monitor")
            made = kms.counters()["by_key"][tenant.key_uri]
            until(lambda: kms.counters()["by_key"][tenant.key_uri]["Decrypt"] > made["Decrypt"] + 3, what="checks")
            assert kms.counters()["by_key"][tenant.key_uri]["GenerateDataKeyWithoutPlaintext"] == 1
            assert versions(watched, tenant) == [(1, "current")]
            reader.close()
        finally:
            standby.destroy()


def test_a_registry_that_a_publisher_sends_is_rotated_by_the_publisher(make_server, kms):
    server = make_server({**QUICK, "wal_level": "logical", "cmk_encrypt.monitor_databases": "subscriber"})
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop, "immediate")
        for name in ("publisher", "subscriber"):
            server.execute(f"CREATE DATABASE {name}")
        publisher = Watched(server, kms, "publisher")
        publisher.dba.run("CREATE PUBLICATION everything FOR ALL TABLES")
        publisher.dba.run("SELECT pg_create_logical_replication_slot('registry', 'pgoutput')")
        subscriber = Watched(server, kms, "subscriber")
        subscriber.dba.run(
            f"CREATE SUBSCRIPTION registry CONNECTION 'host={server.socket} dbname=publisher user=postgres'"
            " PUBLICATION everything WITH (create_slot = false, slot_name = registry)")
        tenant = publisher.tenant()
        alter(publisher, tenant, "rotate_after => '1 day', rotate_after_values => 5")
        age(publisher, tenant, "2 days")
        old = "SELECT count(*) FROM cmk.data_key JOIN cmk.tenant USING (tenant) WHERE data_key.created_at < now() - interval '1 day'"
        until(lambda: subscriber.dba.one(old), what="the tenant")
        for where in (publisher, subscriber):
            seal(where, tenant, 7)
        until(lambda: sealed(subscriber, tenant) == {1: 7}, what="the subscriber's count")
        # Rows of both, for one data key: nothing stops the subscription.
        publisher.dba.run("INSERT INTO cmk.data_key_use (tenant, version, sealed) VALUES (%s, 1, 4)", tenant.name)
        until(lambda: sealed(subscriber, tenant) == {1: 11}, what="the publisher's count")
        assert versions(subscriber, tenant) == [(1, "current")]
        assert publisher.dba.one("SELECT cmk.rotate_tenant(%s)", tenant.name) == 2
        rotates(subscriber, tenant, 2)


# The owner's own rotation


def test_the_owners_rotation_of_its_key_just_works(watched, kms):
    tenant = watched.tenant()
    old = watched.dba.encrypt(tenant)
    rotate(kms, tenant.key_uri, "RotateKeyOnDemand")
    watched.dba.run("SELECT cmk.evict(%s)", tenant.name)
    assert watched.dba.decrypt(tenant, old) == CANARY
    assert watched.dba.one("SELECT cmk.rotate_tenant(%s)", tenant.name) == 2
    new = watched.dba.encrypt(tenant)
    rotate(kms, tenant.key_uri, "RotateKeyOnDemand")
    watched.dba.run("SELECT cmk.evict(%s)", tenant.name)
    assert [watched.dba.decrypt(tenant, envelope) for envelope in (old, new)] == [CANARY] * 2
    assert watched.events(tenant) == []
