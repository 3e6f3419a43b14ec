"""The wall clock jumps by an hour: TTLs, remembered failures and the end of idle copies don't care."""

import time

import pytest

from crowd import READ
from memory import find, forms
from server import until
from support import CANARY, fails

HOUR = 3600
TTL = 2.0


@pytest.fixture(params=[HOUR, -HOUR], ids=["forward", "backward"])
def step(request, shim):
    """Steps the clock by an hour; `with` steps it back."""
    return lambda: shim.clock_ahead(request.param)


@pytest.fixture
def reader(either_drill, session):
    drill = either_drill
    user = session(dbname="postgres", on=drill.server)
    with drill.server.settings(cache_ttl=f"{TTL}s", cache_soft_ttl=f"{TTL}s", failure_ttl="800ms"):
        yield drill, drill.tenant(), user


def clock_of(user):
    return user.one("SELECT extract(epoch FROM clock_timestamp())::float8")


def test_the_shim_steps_the_clock_that_the_server_sees(reader, step):
    _, _, user = reader
    with step():
        assert abs(abs(clock_of(user) - time.time()) - HOUR) < 60
    assert abs(clock_of(user) - time.time()) < 60


def test_a_step_neither_ends_nor_prolongs_the_life_of_a_data_key(reader, step):
    drill, tenant, user = reader
    began = time.monotonic()
    assert user.one(READ, tenant.name) == CANARY
    read = time.monotonic()
    before = drill.kms.calls(tenant.key_uri)
    drill.kms.state(tenant.key_uri, "Disabled")
    with step():
        while time.monotonic() < began + TTL * 0.9:
            assert user.one(READ, tenant.name) == CANARY
        assert drill.kms.calls(tenant.key_uri) == before
        until(lambda: time.monotonic() >= read + TTL)
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)


def test_a_step_does_not_change_how_long_a_failure_is_remembered(reader, step):
    drill, tenant, user = reader
    drill.kms.state(tenant.key_uri, "Disabled")
    began = time.monotonic()
    with fails("55000", "key_disabled", tenant):
        user.one(READ, tenant.name)
    failed = time.monotonic()
    drill.kms.state(tenant.key_uri, "Enabled")
    forgiving = "SELECT cmk_try_decrypt(tenant, sealed, forgive => '{key_disabled}') FROM customer WHERE tenant = %s"
    with step():
        until(lambda: user.one(forgiving, tenant.name) == CANARY, timeout=3)
        now = time.monotonic()
    assert began + 0.6 <= now and failed + 0.6 - 0.05 <= now <= failed + 1.0 + 0.2


def test_a_sleeping_sessions_copy_dies_on_time_all_the_same(reader, step):
    drill, tenant, user = reader
    needles = forms(drill.dek(tenant))
    assert user.one(READ, tenant.name) == CANARY
    read = time.monotonic()
    with step():
        assert find(user.pid, needles)
        until(lambda: not find(user.pid, needles), timeout=TTL + 1)
        assert time.monotonic() <= read + TTL + 0.1


def test_a_hung_call_ends_within_the_operation_timeout_all_the_same(reader, step):
    drill, tenant, user = reader
    with drill.server.settings(kms_operation_timeout="1s", kms_attempt_timeout="1s"):
        with drill.kms.fault("hang", arn=tenant.key_uri):
            began = time.monotonic()
            running = user.start(READ, tenant.name)
            until(lambda: drill.kms.log(tenant.key_uri)[-1]["outcome"] == "pending", what="the call")
            with step(), fails("58000", "kms_timeout", tenant):
                running.result(timeout=5)
            assert 0.9 < time.monotonic() - began < 1.5
