"""Our own AWS identity is rotated, withdrawn or broken: what tenants and sessions see of it."""

import contextlib
import time

import pytest

from crowd import DECRYPTED, READ, Readers
from identity import FAILURE_TTL, NEW, NEW_FOR, OLD, STRANGER
from identity import all_are_denied, all_read_on, grow_old, reads_on, soon
from identity import client_as, connect, preloaded, site, sites, warmed  # noqa: F401 (fixtures)
from server import until
from support import CANARY, fails


@contextlib.contextmanager
def bystanders(site):
    """Warm sessions of a tenant that nothing befalls read all the while."""
    tenant = site.tenant()
    with Readers(site.server, tenant, count=4) as readers:
        until(lambda: readers.all_read(0), what="warm readers")
        yield
        began = time.monotonic()
        until(lambda: readers.all_read(began), what="readers that are still warm")
    assert set(readers.outcomes()) == {DECRYPTED}


@contextlib.contextmanager
def rotated(site, tenant, how):
    """The server becomes NEW, and OLD loses what it had."""
    site.become(NEW)
    with contextlib.ExitStack() as stack:
        if how == "no longer allowed":
            site.kms.principals(tenant.key_uri, [NEW])
        else:
            stack.enter_context(site.kms.access_keys(NEW))
        yield


# Rotation


@pytest.mark.parametrize("how", ["no longer allowed", "no longer known"])
def test_open_sessions_take_up_a_rotated_identity_by_themselves(site, client_as, connect, kms, how):
    tenant = site.tenant()
    users = [client_as(site) for _ in range(3)]
    with bystanders(site):
        for user in users:
            assert user.one(READ, tenant.name) == CANARY
        grow_old()
        before = len(kms.log(tenant.key_uri))
        with rotated(site, tenant, how):
            all_read_on(site, [*users, connect(site)], tenant)
        assert {entry["access_key_id"] for entry in site.refused(tenant, before)} == {OLD}
        assert len(site.refused(tenant, before)) <= len(users)
        assert kms.log(tenant.key_uri)[-1]["access_key_id"] == NEW
    site.never_revoked(tenant)


@pytest.mark.parametrize("how", ["no longer allowed", "no longer known"])
def test_an_administrators_session_takes_it_up_too(site, kms, how):
    tenant = site.tenant()
    grow_old()
    before = len(kms.log(tenant.key_uri))
    with rotated(site, tenant, how):
        soon(lambda: site.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name), tenant)
        assert site.dba.one("SELECT version FROM cmk.tenants WHERE tenant = %s", tenant.name) == 2
    assert {entry["access_key_id"] for entry in site.refused(tenant, before)} == {OLD}
    assert kms.log(tenant.key_uri)[-1]["access_key_id"] == NEW
    site.never_revoked(tenant)


@pytest.mark.parametrize("how", ["no longer allowed", "no longer known"])
def test_a_rotation_right_after_the_first_call_is_no_revocation_either(site, client_as, kms, how):
    tenant, user = site.tenant(), client_as(site)
    with rotated(site, tenant, how):
        reads_on(user, tenant)
    site.never_revoked(tenant)


# Withdrawal


def test_a_true_withdrawal_is_a_revocation_and_costs_one_call(site, warmed, kms):
    tenant = site.tenant()
    with warmed(tenant) as users:
        kms.principals(tenant.key_uri, [STRANGER])
        before = len(kms.log(tenant.key_uri))
        all_are_denied(users, tenant)
        log = kms.log(tenant.key_uri)[before:]
        # Asked anew, the sources of credentials say that we are who we were.
        assert [entry["outcome"] for entry in log] == ["AccessDeniedException"]
        assert {entry["operation"] for entry in log} == {"Decrypt"}
        # Also to the administrator's session, which has not asked.
        assert (site.state(tenant) == "revoked") == site.preloaded
        kms.principals(tenant.key_uri, None)


# Broken credentials


@pytest.fixture
def forget_old(kms):
    """Has KMS and STS know NEW alone, until the test is over."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(kms.access_keys(NEW))


def test_broken_credentials_fail_who_calls_kms_and_heal(site, client_as, connect, forget_old):
    users = [connect(site), client_as(site), client_as(site), site.dba]
    tenants = {user: site.tenant() for user in users}
    with bystanders(site):
        site.become(None)
        forget_old()
        for user, tenant in tenants.items():
            with fails("F0000", "credentials", tenant):
                user.one(READ, tenant.name)
        site.become(NEW)
        for user, tenant in tenants.items():
            reads_on(user, tenant)
            assert site.kms.log(tenant.key_uri)[-1]["access_key_id"] == NEW
            site.never_revoked(tenant)


def test_the_monitor_heals_by_itself(preloaded, kms, forget_old):
    site, tenant = preloaded, preloaded.tenant()

    before = len(kms.log(tenant.key_uri))

    def asked(access_key_id, succeeded, log=lambda: kms.log(tenant.key_uri)[before:]):
        """The monitor has, as this access key id; nobody else asks anything."""
        return any(
            entry["access_key_id"] == access_key_id
            and (entry["outcome"] == "Success") == succeeded
            for entry in log()
        )

    with site.server.settings(
        monitor_databases="postgres", monitor_interval="1s", monitor_budget=100_000,
        kms_max_attempts=1,
    ):
        until(lambda: asked(OLD, True), what="the monitor's first check")
        site.become(None)
        forget_old()
        # One tenant's check finds out for all, and here are those of other tests too.
        known = len(kms.log())
        anybodys = lambda: kms.log()[known:]  # noqa: E731
        until(lambda: asked(OLD, False, anybodys), what="a check with an access key that is gone")
        site.become(NEW)
        until(lambda: asked(NEW, True), 12, what="a check with mended credentials")
    events = site.dba.all(
        "SELECT event, reason FROM cmk.key_event WHERE tenant = %s AND event <> 'rotation_off'",
        tenant.name,
    )
    assert set(events) <= {("usable", None), ("misconfigured", "credentials")}, events
    site.never_revoked(tenant)


def test_broken_credentials_are_tried_rarely(site, client_as, kms, forget_old):
    user, plain = client_as(site), site.tenant()
    assuming, _ = site.assuming()

    def counts():
        return kms.calls(plain.key_uri), kms.total("AssumeRole")

    site.become(STRANGER)
    forget_old()
    before, began = counts(), time.monotonic()
    while time.monotonic() < began + 4:
        for tenant in (plain, assuming):
            with fails("F0000", "credentials", tenant):
                user.one(READ, tenant.name)
        user.run("SELECT pg_sleep(0.01)")
    span = time.monotonic() - began
    calls = [after - was for after, was in zip(counts(), before)]
    # One after each failure TTL, give or take a quarter, and one more for each new client.
    most = span / (FAILURE_TTL * 0.75) + 1 + span / NEW_FOR + 1
    assert all(1 <= count <= most for count in calls), (calls, most)
    site.become(NEW)
    for tenant in (plain, assuming):
        reads_on(user, tenant)


# Whose they are


@pytest.fixture
def parted(preloaded, client_as, forget_old):
    """A session that KMS no longer knows, one that it knows, and a tenant with two data keys;
    nobody finds other credentials."""
    tenant = preloaded.tenant()
    preloaded.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    well, ill = client_as(preloaded, NEW), client_as(preloaded, OLD)
    preloaded.become(None)
    forget_old()
    return ill, well, tenant


def test_one_sessions_credentials_refuse_nobody_else(preloaded, parted):
    ill, well, tenant = parted
    for _ in range(5):
        with fails("F0000", "credentials", tenant):
            ill.one(READ, tenant.name)
        assert well.one(READ, tenant.name) == CANARY
        assert preloaded.state(tenant) == "usable"
        preloaded.evict(tenant)


def test_nor_does_a_session_notice_that_has_a_data_key(parted, connect, preloaded):
    ill, well, tenant = parted
    warm = connect(preloaded)
    well.encrypt(tenant)
    warm.encrypt(tenant)
    for _ in range(5):
        # The value is under the first data key, the others have the second.
        with fails("F0000", "credentials", tenant):
            ill.one(READ, tenant.name)
        warm.encrypt(tenant)
        well.encrypt(tenant)


def test_who_waits_for_the_call_of_such_a_session_then_makes_its_own(parted, kms):
    ill, well, tenant = parted
    with kms.fault("delay", arn=tenant.key_uri, times=1, millis=500):
        failing = ill.start(READ, tenant.name)
        until(lambda: kms.log(tenant.key_uri)[-1]["outcome"] == "pending", what="the call")
        waiting = well.start(READ, tenant.name)
        assert waiting.result(timeout=3) == [(CANARY,)]
        with fails("F0000", "credentials", tenant):
            failing.result(timeout=3)
