"""A cancelled call leaves nothing in its backend: no connection, no thread, no key in flight."""

import os
from pathlib import Path

import pytest

from crowd import READ
from drill import Drill
from memory import find, forms
from server import until
from support import CANARY, fails_with
from tls_proxy import TlsProxy

CALLS = 20
# First all that there is to say, then ten seconds of white space.
SLOWLY = {"piece": 1024, "millis": 200, "bytes": 60_000}
PATIENT = {"cmk_encrypt.kms_attempt_timeout": "60s", "cmk_encrypt.kms_operation_timeout": "60s"}


@pytest.fixture(scope="module")
def proxy(kms_process):
    proxy = TlsProxy(kms_process.port)
    yield proxy
    proxy.close()


WAYS = ["http", "https", "http, preloaded", "https, preloaded"]


@pytest.fixture(scope="module", params=WAYS)
def patient(request, make_server, kms_process, proxy):
    """A drill in which a hung call lasts far longer than any of these tests."""
    conf, env = dict(PATIENT), {}
    if "https" in request.param:
        conf["cmk_encrypt.kms_endpoint_url"] = proxy.url
        env["SSL_CERT_FILE"] = str(proxy.authority)
    preloaded = "preloaded" in request.param
    conf["shared_preload_libraries"] = "cmk_encrypt" if preloaded else ""
    return Drill(make_server(conf, env), kms_process, preloaded)


@pytest.fixture
def idle(patient, session, kms):
    """A tenant, an idle session that has called KMS for another one, and what it has open since."""
    other, tenant = patient.tenant(), patient.tenant()
    user = session(dbname="postgres", on=patient.server)
    assert user.one(READ, other.name) == CANARY
    until(lambda: threads(user) == 1, what="the end of the helper threads")
    return tenant, user, files(user)


def files(session):
    """What the backend's file descriptors are open on; sockets without their numbers."""
    found = []
    for entry in Path(f"/proc/{session.pid}/fd").iterdir():
        found.append(os.readlink(entry).partition(":[")[0])
    return sorted(found)


def threads(session):
    return len(os.listdir(f"/proc/{session.pid}/task"))


def is_found(session, needles):
    """Whether a backend at work has the key in its memory, as far as that keeps still."""
    try:
        return find(session.pid, needles)
    except OSError:
        return False


def cancel(drill, session, running):
    drill.dba.run("SELECT pg_cancel_backend(%s)", session.pid)
    with fails_with("57014"):
        running.result(timeout=5)


def leaves_nothing(session, needles, before):
    # At once: nobody drives what an idle backend left behind. Helper threads end by themselves.
    assert files(session) == before
    assert find(session.pid, needles) == []
    until(lambda: threads(session) == 1, 2, "the end of the helper threads")


def test_cancelled_while_kms_hangs(patient, idle, kms):
    tenant, user, before = idle
    needles = forms(patient.dek(tenant))
    with kms.fault("hang", arn=tenant.key_uri):
        for _ in range(CALLS):
            calls = kms.calls(tenant.key_uri)
            running = user.start(READ, tenant.name)
            until(lambda: kms.calls(tenant.key_uri) > calls, what="the call")
            cancel(patient, user, running)
        leaves_nothing(user, needles, before)
    assert user.one(READ, tenant.name) == CANARY


def test_cancelled_while_the_plain_data_key_is_on_its_way(patient, idle, kms):
    tenant, user, before = idle
    needles = forms(patient.dek(tenant))
    with kms.fault("trickle", arn=tenant.key_uri, **SLOWLY):
        for _ in range(CALLS):
            running = user.start(READ, tenant.name)
            until(lambda: is_found(user, needles), what="the plain data key")
            cancel(patient, user, running)
        leaves_nothing(user, needles, before)
    assert user.one(READ, tenant.name) == CANARY
