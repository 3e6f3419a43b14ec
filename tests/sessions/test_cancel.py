"""A hung KMS never holds a backend: cancel, timeout, terminate and shutdown take effect within 0.5 s."""

import os
import time
from pathlib import Path

import psycopg
import pytest

from server import until
from support import CANARY, fails_with

SOON = 0.5


@pytest.fixture
def patient(server):
    """Settings under which a hung call would otherwise last far longer than any of these tests."""
    with server.settings(kms_attempt_timeout="60s", kms_operation_timeout="60s"):
        yield


@pytest.fixture
def hanging(patient, dba, app, kms, tenant):
    """A tenant whose next unwrap hangs, an envelope, and a way to start that unwrap and know that it hangs."""
    made = tenant()
    envelope = app.encrypt(made)
    dba.run("SELECT cmk.evict(%s)", made.name)

    def start(session=app):
        before = kms.calls(made.key_uri)
        running = session.start("SELECT cmk_decrypt(%s, %b)", made.name, envelope)
        until(lambda: running.done() or kms.calls(made.key_uri) > before, what="the call to KMS")
        assert not running.done(), running.exception()
        return running

    with kms.fault("hang", arn=made.key_uri):
        yield made, envelope, start


def test_pg_cancel_backend_ends_a_hung_call_and_leaves_the_session_usable(app, dba, kms, hanging):
    tenant, envelope, start = hanging
    for _ in range(2):
        running = start()
        began = time.monotonic()
        assert dba.one("SELECT pg_cancel_backend(%s)", app.pid)
        with fails_with("57014"):
            running.result(timeout=5)
        assert time.monotonic() - began < SOON
    kms.clear_faults()
    assert app.decrypt(tenant, envelope) == CANARY


def test_statement_timeout_ends_a_hung_call_and_leaves_the_session_usable(app, kms, hanging):
    tenant, envelope, start = hanging
    app.run("SET statement_timeout = '200ms'")
    began = time.monotonic()
    with fails_with("57014"):
        app.decrypt(tenant, envelope)
    assert 0.2 <= time.monotonic() - began < 0.2 + SOON
    app.run("RESET statement_timeout")
    kms.clear_faults()
    assert app.decrypt(tenant, envelope) == CANARY


def test_a_cancelled_call_is_not_remembered_as_a_failure_of_the_key(app, dba, kms, hanging):
    tenant, envelope, start = hanging
    running = start()
    dba.run("SELECT pg_cancel_backend(%s)", app.pid)
    with fails_with("57014"):
        running.result(timeout=5)
    kms.clear_faults()
    assert app.decrypt(tenant, envelope) == CANARY
    assert dba.one("SELECT state FROM cmk.tenants WHERE tenant = %s", tenant.name) == "active"


def test_pg_terminate_backend_ends_a_hung_call(app, dba, hanging):
    _, _, start = hanging
    running = start()
    began = time.monotonic()
    assert dba.one("SELECT pg_terminate_backend(%s)", app.pid)
    with fails_with("57P01"):
        running.result(timeout=5)
    until(lambda: not os.path.exists(f"/proc/{app.pid}"), what="the end of the backend")
    assert time.monotonic() - began < SOON


def test_a_hung_registration_can_be_cancelled_and_leaves_nothing(patient, dba, session, kms):
    other, arn = session(), kms.key()
    with kms.fault("hang", arn=arn):
        running = other.start("SELECT cmk.register_tenant('hung', %s)", arn)
        until(lambda: kms.log(arn), what="the call to KMS")
        began = time.monotonic()
        dba.run("SELECT pg_cancel_backend(%s)", other.pid)
        with fails_with("57014"):
            running.result(timeout=5)
        assert time.monotonic() - began < SOON
    assert not dba.all("SELECT FROM cmk.tenant WHERE tenant = 'hung'")
    assert other.usable()


def test_a_hung_call_shows_as_a_wait(app, dba, hanging):
    hanging[2]()
    until(
        lambda: dba.one("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", app.pid) == "Extension",
        what="a wait event",
    )


def test_a_hung_call_uses_no_processor_time(app, hanging):
    hanging[2]()
    before = processor_time(app.pid)
    time.sleep(0.5)  # the span measured, not a wait
    assert processor_time(app.pid) - before < 0.1


def processor_time(pid):
    """Seconds, user and system (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_hung_key_of_one_tenant_does_not_hold_up_another(session, app, tenant, hanging):
    other = tenant()
    running = hanging[2]()
    second = session(app.role)
    began = time.monotonic()
    assert second.decrypt(other, second.encrypt(other)) == CANARY
    assert time.monotonic() - began < 2 and not running.done()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_server_shuts_down_while_a_call_hangs(make_server, session, kms, mode):
    server = make_server({"cmk_encrypt.kms_attempt_timeout": "60s", "cmk_encrypt.kms_operation_timeout": "60s"})
    server.execute("CREATE EXTENSION cmk_encrypt")
    user, arn = session(dbname="postgres", on=server), kms.key()
    user.run("SELECT cmk.register_tenant('a', %s)", arn)
    user.run("SELECT cmk.grant_access('a', 'postgres')")
    before = kms.calls(arn)
    with kms.fault("hang", arn=arn):
        running = user.start("SELECT cmk_encrypt('a', 'x')")
        until(lambda: kms.calls(arn) > before, what="the call to KMS")
        postmaster, began = server.pid, time.monotonic()
        os.kill(postmaster, {"fast": 2, "immediate": 3}[mode])  # SIGINT, SIGQUIT: what pg_ctl sends
        until(lambda: not os.path.exists(f"/proc/{user.pid}"), what="the end of the backend")
        assert time.monotonic() - began < SOON
        error = running.exception(timeout=5)
        assert isinstance(error, psycopg.OperationalError)
        # An immediate shutdown says so in a warning, then the connection breaks.
        assert error.sqlstate == ("57P01" if mode == "fast" else None)
        until(lambda: not os.path.exists(f"/proc/{postmaster}"), what="the end of the server")
