"""What a client that fails again and again may write into the server log."""

import time

from audit import kms_lines, lines, mark
from server import until
from support import fails

import psycopg


def retry(session, seconds, statement, *parameters):
    """How often a statement fails in that time."""
    errors, until_then = 0, time.monotonic() + seconds
    while time.monotonic() < until_then:
        try:
            session.run(statement, *parameters)
        except psycopg.Error as error:
            assert error.diag.message_detail.startswith("reason=") and error.diag.message_hint
            errors += 1
    return errors


def test_one_retrying_client_fills_no_log(app, server, session):
    start = mark(server)
    other = session(app.role)
    errors = retry(other, 1.0, "SELECT cmk_encrypt_text(%s, 'x')", "nobody")
    assert errors > 100
    said = server.log.read_bytes()[start:].decode()
    assert said.count("reason=unknown_tenant tenant=nobody") == 10 and len(said) < 16_000
    # Another failure of the same session is logged.
    with fails("22004", "null_argument"):
        other.run("SELECT cmk_encrypt_text(NULL, 'x')")
    assert "reason=null_argument" in server.log.read_bytes()[start:].decode()
    other.close()
    told = f"cmk_encrypt log: {errors - 10} more like this were left out: reason=unknown_tenant tenant=nobody"
    until(lambda: told in server.log.read_text(), what="the number of what was left out")


def test_refused_acts_and_failed_requests_are_limited_too(server, session, tenant, kms):
    acme, start, dba = tenant(), mark(server), session()
    kms.state(acme.key_uri, "Disabled")
    errors = retry(dba, 0.7, "SELECT cmk.rotate_tenant(%s)", acme.name)
    assert errors > 20
    assert len(lines(server, start, tenant=acme.name, outcome="refused", reason="key_disabled")) == 10
    assert 0 < len(kms_lines(server, start, tenant=acme.name, outcome="key_disabled")) <= 10


def test_zero_logs_all(drill, session):
    server = drill.server
    with server.settings(log_repeats=0):
        start, other = mark(server), session(dbname="postgres", on=server)
        errors = retry(other, 0.2, "SELECT cmk_encrypt_text(%s, 'x')", "nobody")
        assert server.log.read_bytes()[start:].count(b"reason=") == errors


def test_what_others_raise_is_logged_whatever_it_looks_like(dba, server):
    start = mark(server)
    for _ in range(15):
        try:
            dba.run("DO $$ BEGIN RAISE EXCEPTION 'x' USING DETAIL = 'reason=no_grant tenant=forged'; END $$")
        except psycopg.Error:
            pass
    assert server.log.read_bytes()[start:].count(b"DETAIL:  reason=no_grant tenant=forged") == 15
