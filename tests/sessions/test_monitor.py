"""The monitor: what it notices with nobody querying, what it says of it, and what it warns of.

One story for all: tenants that are well, then fall ill in every way at once, then recover. Tests look at what was
said of one of them.
"""

import contextlib
import re
import time

import pytest

from fake_kms import FakeKms
from server import until
from support import CANARY, unique
from watched import Watched, import_material, running, schedule_deletion

DAY = 86_400
TTL = 20
REVOKED = ("revoked", "usable", "key_disabled")
# What befalls a tenant's key: the fault of KMS, the state and the reason that follow.
OUTAGES = {
    "unreachable": (("status", {"status": 500}), "kms_server_error"),
    "throttled": (("throttle", {}), "kms_throttled"),
    "misconfigured": (("status", {"status": 400, "code": "UnrecognizedClientException"}), "credentials"),
}
HIDDEN = {
    "no description": ["DescribeKey"],
    "no rotation": ["GetKeyRotationStatus"],
    "nothing": ["DescribeKey", "GetKeyRotationStatus"],
}


@pytest.fixture(scope="module")
def both(make_server, kms_process):
    """Two databases of one server."""
    with running(make_server, cache_ttl=f"{TTL}s", monitor_databases="postgres, other") as server:
        server.execute("CREATE DATABASE other")
        yield Watched(server, kms_process), Watched(server, kms_process, "other")


@pytest.fixture
def watched(both, kms):
    return both[0]


class Story:
    def __init__(self, here, there, kms):
        self.here, self.kms, self.now = here, kms, int(time.time())
        self.tenants = {name: self.here.tenant(key) for name, key in self.keys().items()}
        self.quoted = self.tenants["quoted"] = here.tenant(name=f'{unique("t")} key_state="usable" é')
        name = unique("twin")
        self.twins = here.tenant(name=name), there.tenant(name=name)
        self.tenants["twin"] = self.twins[0]
        with here.listening() as heard, there.listening() as heard_there:
            checked(kms, *self.tenants.values(), self.twins[1])
            self.quiet = {name: here.events(tenant) for name, tenant in self.tenants.items()}
            for name in OUTAGES:
                here.dba.encrypt(self.tenants[name])
            with contextlib.ExitStack() as stack:
                self.fall_ill(stack)
                checked(kms, *self.tenants.values(), self.twins[1])
                self.ill = {name: here.status(tenant)[0] for name, tenant in self.tenants.items()}
                self.healthy_twin = there.status(self.twins[1])[0]
                self.sealed_in_outage = [here.dba.encrypt(self.tenants[name]) for name in OUTAGES]
            for tenant in self.tenants.values():
                kms.state(tenant.key_uri, "Enabled")
            checked(kms, *self.tenants.values(), self.twins[1])
            self.heard = {name: heard(tenant) for name, tenant in self.tenants.items()}
            self.heard_there = heard_there(self.twins[1])
        self.events = {name: here.events(tenant) for name, tenant in self.tenants.items()}
        self.events_there = there.events(self.twins[1])
        self.log = {name: here.log(tenant.name[:10]) for name, tenant in self.tenants.items()}

    def keys(self):
        here, kms = self.here, self.kms
        keys = {name: here.key() for name in ("disabled", "rescued", "expires soon", "expires late", *OUTAGES)}
        import_material(kms, keys["expires soon"], self.now + 10 * DAY)
        import_material(kms, keys["expires late"], self.now + 60 * DAY)
        keys["never rotated"] = here.key(rotates=False)
        for name, operations in HIDDEN.items():
            keys[name] = here.key(rotates="GetKeyRotationStatus" not in operations)
            kms.deny(keys[name], operations=operations)
        return keys

    def fall_ill(self, stack):
        for name in ("disabled", "quoted", "twin"):
            self.kms.state(self.tenants[name].key_uri, "Disabled")
        schedule_deletion(self.kms, self.tenants["rescued"].key_uri, 2_000_000_000)
        for name, ((kind, options), _) in OUTAGES.items():
            stack.enter_context(self.kms.fault(kind, arn=self.tenants[name].key_uri, **options))


def checked(kms, *tenants):
    """Returns once the monitor has asked KMS for each of them twice, and so had time to say what it has to say."""
    before = kms.counters()["by_key"]

    def twice():
        now = kms.counters()["by_key"]
        calls = lambda counters, tenant: counters.get(tenant.key_uri, {}).get("Decrypt", 0)  # noqa: E731
        return all(calls(now, tenant) >= calls(before, tenant) + 2 for tenant in tenants)

    until(twice, 15, "the monitor's checks")


@pytest.fixture(scope="module")
def story(both, kms_process):
    return Story(*both, kms_process)


def test_a_revocation_is_noticed_with_nobody_querying_and_told_once_by_each_means(story):
    assert story.quiet["disabled"] == [], "a key that works is no news"
    assert story.ill["disabled"] == "revoked"
    assert story.events["disabled"] == [REVOKED, ("usable", "revoked", None)]
    dark, light = story.heard["disabled"]
    tenant, info = story.tenants["disabled"].name, dark.pop("info")
    assert dark == {"tenant": tenant, "event": "revoked", "was": "usable", "reason": "key_disabled"}
    assert re.fullmatch(r"kms_code=DisabledException request_id=[0-9a-f-]+", info)
    assert light == {"tenant": tenant, "event": "usable", "was": "revoked"}
    assert story.log["disabled"] == [
        f"cmk_encrypt key_state=revoked was=usable reason=key_disabled tenant={tenant} {info} database=postgres",
        f"cmk_encrypt key_state=usable was=revoked tenant={tenant} database=postgres",
    ]


@pytest.mark.parametrize("state", OUTAGES)
def test_an_outage_is_told_from_a_revocation(story, state):
    reason = OUTAGES[state][1]
    assert story.ill[state] == state
    assert story.events[state] == [(state, "usable", reason), ("usable", state, None)]
    down, up = story.heard[state]
    left = re.search(r"dark_in_seconds=(\d+)", down["info"])
    assert left and TTL - 10 <= int(left[1]) <= TTL, f"{down}, and the tenant was warm"
    assert [line.split()[1:4] for line in story.log[state]] == [
        [f"key_state={state}", "was=usable", f"reason={reason}"],
        ["key_state=usable", f"was={state}", f"tenant={story.tenants[state]}"],
    ]
    assert all(story.sealed_in_outage)


def test_a_name_that_could_forge_a_field_is_quoted_in_the_log(story):
    name = story.quoted.name.replace('"', '\\"')
    assert story.log["quoted"][-1] == f'cmk_encrypt key_state=usable was=revoked tenant="{name}" database=postgres'
    assert [payload["event"] for payload in story.heard["quoted"]] == ["revoked", "usable"]


def test_tenants_of_one_name_in_two_databases_are_kept_apart(story):
    assert (story.ill["twin"], story.healthy_twin) == ("revoked", "usable")
    assert story.events["twin"] == [REVOKED, ("usable", "revoked", None)]
    assert story.events_there == [] and story.heard_there == []


def test_a_change_that_a_query_saw_is_told_too_and_without_the_query(watched, kms):
    tenant = watched.tenant()
    literal = unique("literal")
    envelope = watched.dba.encrypt(tenant)
    kms.state(tenant.key_uri, "Disabled")
    watched.dba.run("SELECT cmk.evict(%s)", tenant.name)
    # No error, because PostgreSQL itself logs the statements of those.
    watched.dba.run(f"SELECT '{literal}', cmk_try_decrypt(%s, %b, '', '{{key_disabled}}')", tenant.name, envelope)
    assert len(watched.log(tenant.name)) == 1, "the query's, in all likelihood"
    watched.says(tenant, REVOKED)
    assert len(watched.log(tenant.name)) == 1
    assert literal not in watched.server.log.read_text()


# Warnings


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def warned_once(story, name, warning, info):
    """By each of the three means."""
    tenant = story.tenants[name].name
    payload = {"tenant": tenant, "event": warning, **({"info": info} if info else {})}
    line = f"cmk_encrypt key_warning={warning} tenant={tenant}{' ' + info if info else ''} database=postgres"
    assert [heard for heard in story.heard[name] if heard["event"] == warning] == [payload]
    assert [event for event in story.events[name] if event[0] == warning] == [(warning, None, None)]
    assert [said for said in story.log[name] if warning in said] == [line]


def test_a_scheduled_deletion_is_warned_of_with_its_date(story):
    warned_once(story, "rescued", "deletion_scheduled", "at=2033-05-18T03:33:20Z")
    assert ("revoked", "usable", "key_pending_deletion") in story.events["rescued"]


def test_imported_material_that_expires_within_a_month_is_warned_of(story):
    warned_once(story, "expires soon", "key_material_expires", f"at={iso(story.now + 10 * DAY)}")
    assert "key_material_expires" not in str(story.heard["expires late"])


def test_a_key_that_never_rotates_is_warned_of(story):
    warned_once(story, "never rotated", "rotation_off", None)
    assert story.heard["disabled"] and "rotation_off" not in str(story.heard["disabled"])


@pytest.mark.parametrize("name", HIDDEN)
def test_an_owner_who_shows_no_more_than_needed_is_not_bothered(story, name):
    tenant = story.tenants[name]
    asked = {entry["operation"] for entry in story.kms.log(tenant.key_uri) if entry["outcome"] == "AccessDeniedException"}
    assert asked == set(HIDDEN[name]), "the monitor tried"
    assert story.events[name] == story.heard[name] == story.log[name] == []
    assert story.ill[name] == "usable"


# Schedule and budget


def test_a_suspended_or_pending_tenant_is_left_alone(watched, story, kms):
    kept, suspended, pending = story.tenants["disabled"], watched.tenant(), kms.key()
    watched.dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", unique("tenant"), pending)
    watched.checks(suspended, 1)
    watched.dba.run("SELECT cmk.suspend_tenant(%s)", suspended.name)
    watched.checks(kept, 1)
    before = kms.calls(suspended.key_uri)
    watched.checks(kept, 2)
    assert kms.calls(suspended.key_uri) == before
    assert kms.log(pending) == []
    watched.dba.run("SELECT cmk.resume_tenant(%s)", suspended.name)
    watched.checks(suspended, 1)


def test_the_budget_limits_the_calls(watched, story, kms):
    keys = {key for key, in watched.dba.all("SELECT key_uri FROM cmk.tenant WHERE state = 'active'")}
    assert len(keys) > 10, "too few to reach the limit"
    with watched.server.settings(monitor_budget=120):
        time.sleep(1.5)
        began = time.time()
        time.sleep(3)
        asked = [e for e in kms.log() if e["key_arn"] in keys and e["at_ms"] / 1e3 > began]
    # Two a second, and two that a second saved up.
    assert 3 <= len(asked) <= 8, f"{len(asked)} calls for {len(keys)} tenants in 3 seconds"


def pending(kms, keys):
    return sum(entry["outcome"] == "pending" for entry in kms.log() if entry["key_arn"] in keys)


def test_keys_are_checked_side_by_side(watched, story, kms):
    keys = {watched.tenant().key_uri for _ in range(8)}
    with kms.fault("delay", millis=800):
        # The checks of an interval of 1 s begin within it.
        until(lambda: pending(kms, keys) >= 4, what="checks at the same time")


def test_tenants_whose_kms_hangs_delay_nobody(watched, story, kms):
    with watched.server.settings(kms_operation_timeout="60s", kms_attempt_timeout="60s"), contextlib.ExitStack() as faults:
        hanging, tenant = [watched.tenant() for _ in range(10)], watched.tenant()
        keys = {other.key_uri for other in hanging}
        # Calls that began before the settings would be over too soon.
        watched.checks(tenant, 2)
        for key in keys:
            faults.enter_context(kms.fault("hang", arn=key))
        until(lambda: pending(kms, keys) == len(keys), what="calls that hang")
        watched.checks(tenant, 3)
        revoked = watched.tenant()
        kms.state(revoked.key_uri, "Disabled")
        watched.says(revoked, REVOKED)
        assert pending(kms, keys) == len(keys), "the calls were over"


def test_tenants_that_leave_while_their_kms_hangs_keep_no_room(watched, story, kms):
    hanging = [watched.tenant() for _ in range(40)]
    keys, names = {tenant.key_uri for tenant in hanging}, [tenant.name for tenant in hanging]
    with contextlib.ExitStack() as faults:
        for key in keys:
            faults.enter_context(kms.fault("hang", arn=key))
        with watched.server.settings(kms_operation_timeout="300ms", kms_attempt_timeout="300ms"):
            dark = "SELECT count(*) FROM cmk.status WHERE tenant = ANY (%s) AND key_state = 'unreachable'"
            until(lambda: watched.dba.one(dark, names) == len(names), timeout=30, what="tenants without an answer")
        with watched.server.settings(kms_operation_timeout="60s", kms_attempt_timeout="60s"):
            time.sleep(2)  # calls that began before the settings are over
            until(lambda: pending(kms, keys) >= 32, timeout=30, what="calls that hang")
            watched.dba.run("SELECT cmk.suspend_tenant(name) FROM unnest(%s::text[]) name", names)
            watched.checks(watched.tenant(), 2)  # so that the monitor has taken it in
            assert pending(kms, keys) >= 32, "the calls were over"
    late = watched.tenant()
    with kms.fault("status", status=500, arn=late.key_uri):
        watched.says(late, ("unreachable", "usable", "kms_server_error"))
        before = kms.calls(late.key_uri)
        until(lambda: kms.calls(late.key_uri) >= before + 2, what="further checks")


def test_a_budget_that_is_too_small_is_told_once(make_server, kms):
    with running(make_server, monitor_budget=30, monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        for _ in range(12):
            watched.tenant()
        line = "cmk_encrypt monitor: cmk_encrypt.monitor_budget=30 is too little for 12 tenants"
        until(lambda: line in server.log.read_text(), what="the log's word")
        time.sleep(3)
        assert server.log.read_text().count("is too little for") == 1


# What it must not disturb


@pytest.fixture
def stuck(watched, story, kms):
    """A monitor in the middle of a KMS call that gets no answer; its process id."""
    key = story.tenants["disabled"].key_uri
    pending = lambda: any(e["outcome"] == "pending" for e in kms.log(key))  # noqa: E731
    with watched.server.settings(kms_operation_timeout="30s", kms_attempt_timeout="30s"):
        with kms.fault("hang", arn=key):
            until(pending, what="a call that hangs")
            yield watched.monitor()
            assert pending(), "the call was over"


def test_waiting_for_kms_keeps_no_table_locked(watched, stuck):
    locks = "SELECT relation::regclass::text, mode FROM pg_locks WHERE pid = %s AND relation IS NOT NULL"
    assert watched.dba.all(locks, stuck) == []


def test_a_monitor_with_nothing_to_do_does_nothing(make_server, tmp_path_factory):
    kms = FakeKms(tmp_path_factory.mktemp("quiet_kms"))
    with running(make_server, kms_endpoint_url=kms.url, monitor_databases="postgres") as server:
        watched = Watched(server, kms)
        monitor = until(watched.monitor, what="the monitor")
        watched.dba.run("SELECT cmk.register_tenant('asleep', %s, activate => false)", kms.key())
        said = server.log.read_text()
        time.sleep(3)  # three rounds
        assert kms.log() == []
        assert server.log.read_text() == said
        assert watched.monitor() == monitor
    kms.close()


def test_a_data_key_in_use_is_renewed_before_a_query_has_to(make_server, session, kms):
    # The soft TTL is far enough from four fifths of it for a monitor that looks once a second.
    ttl = {"cache_soft_ttl": "11s", "cache_ttl": "12s"}
    with running(make_server, monitor_interval="1h", monitor_databases="postgres", **ttl) as server:
        watched = Watched(server, kms)
        tenant = watched.tenant()
        envelope = watched.dba.encrypt(tenant)
        before, until_dark = kms.calls(tenant.key_uri), time.monotonic() + 12.5
        user = session(dbname="postgres", on=server)
        while time.monotonic() < until_dark:
            assert user.decrypt(tenant, envelope) == CANARY
            time.sleep(0.02)
        assert user.one("SELECT kms_calls FROM cmk.cache_stats") == 0
        assert 1 <= kms.calls(tenant.key_uri) - before <= 2


def test_waiting_for_kms_holds_no_row_version_back(watched, stuck):
    seen = "SELECT wait_event_type, backend_xmin::text, backend_xid::text FROM pg_stat_activity WHERE pid = %s"
    assert watched.dba.row(seen, stuck) == ("Extension", None, None)
