"""Every failure on the way to KMS names its layer: cause=, with host= and region= where they are ours to tell, and a
hint about that layer. None of it is text of others."""

import itertools
import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from aws_doubles import silent_port
from crowd import READ
from estate import REGION, Estate, failure
from server import until
from support import CANARY
from tls_proxy import TlsProxy


@pytest.fixture(scope="module")
def estates(make_server, kms_process):
    made = {way: Estate(make_server, kms_process, way == "preloaded") for way in ("preloaded", "lazy")}
    yield made
    for estate in made.values():
        estate.close()


@pytest.fixture
def estate(estates, kms):
    return estates["lazy"]


@pytest.fixture
def preloaded(estates, kms):
    return estates["preloaded"]


def told(cause, host, **more):
    return {"cause": cause, "host": host, "region": REGION, **more}


# The network


@pytest.mark.parametrize("cause, url, reason, hint", [
    ("dns", "https://no-such-host.invalid", "kms_unreachable", "resolve"),
    ("refused", "http://127.0.0.1:1", "kms_unreachable", "firewalls"),
])
def test_a_host_that_is_not_found_or_refuses(estate, cause, url, reason, hint):
    with estate.settings(kms_endpoint_url=url, kms_max_attempts=1):
        host = url.split("/")[2].split(":")[0]
        assert estate.refused("58000", reason, with_hint=hint) == told(cause, host)


def test_a_connection_that_breaks(estate, kms):
    with kms.fault("reset", arn=estate.sealed.key_uri):
        assert estate.refused("58000", "kms_unreachable", with_hint="broke") == told("reset", "127.0.0.1")


def test_a_server_that_does_not_speak_tls(estate, kms):
    with estate.settings(kms_endpoint_url=f"https://127.0.0.1:{kms.port}", kms_max_attempts=1):
        assert estate.refused("58000", "kms_unreachable", with_hint="handshake") == told("tls", "127.0.0.1")


def test_a_certificate_of_an_unknown_authority(estate, kms):
    proxy = TlsProxy(kms.port)
    try:
        with estate.settings(kms_endpoint_url=proxy.url, kms_max_attempts=1):
            got = estate.refused("58000", "kms_unreachable", with_hint="AWS_CA_BUNDLE")
        assert got == told("trust", "localhost")
    finally:
        proxy.close()


def test_no_connection_in_time(estate):
    with silent_port() as port, estate.settings(
        kms_endpoint_url=f"https://127.0.0.1:{port}", kms_max_attempts=1, kms_connect_timeout="100ms"
    ):
        got = estate.refused("58000", "kms_timeout", with_hint="kms_connect_timeout")
    assert got == told("timeout_connect", "127.0.0.1")


@pytest.mark.parametrize("limits", [
    {"kms_attempt_timeout": "150ms", "kms_max_attempts": 1},
    {"kms_operation_timeout": "150ms"},
])
def test_no_answer_in_time(estate, kms, limits):
    with estate.settings(**limits), kms.fault("hang", arn=estate.sealed.key_uri):
        got = estate.refused("58000", "kms_timeout", with_hint="kms_attempt_timeout")
    assert got == told("timeout_response", "127.0.0.1")


def test_other_sessions_are_told_the_layer_too(preloaded):
    tenant = preloaded.sealed
    with preloaded.settings(kms_endpoint_url="http://127.0.0.1:1", kms_max_attempts=1):
        preloaded.evict(tenant)
        with preloaded.session() as first, preloaded.session() as second:
            seen = [failure(session, tenant, "58000", "kms_unreachable") for session in (first, second)]
    assert seen == [told("refused", "127.0.0.1")] * 2
    info = preloaded.dba.one("SELECT info FROM cmk.status WHERE tenant = %s", tenant.name)
    assert re.fullmatch(rf"cause=refused host=127\.0\.0\.1 region={REGION} dark_in_seconds=\d+", info)


# The configuration


@pytest.mark.parametrize("url", ["http://kms.example", "https://kms.{Region}.example", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_none_is_no_outage(preloaded, kms, url):
    tenant = preloaded.sealed
    calls = kms.calls(tenant.key_uri)
    with preloaded.settings(kms_endpoint_url=url):
        got = preloaded.refused("F0000", "endpoint", with_hint="https URLs")
        assert got == {"cause": "endpoint", "from": "kms_endpoint_url"}
    # Nothing is remembered for others: another session reads at once.
    with preloaded.session() as session:
        assert session.one(READ, tenant.name) == CANARY
    assert kms.calls(tenant.key_uri) == calls + 1


# What this process has


def leave_descriptors(estate, session, spare):
    """The backend can open so many more, as with a low `ulimit -n`."""
    taken = {int(link.name) for link in Path(f"/proc/{session.pid}/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    limit_descriptors(estate, session, next(itertools.islice(free, spare, None)))


def limit_descriptors(estate, session, soft):
    user, group = estate.server.owner()
    command = ["prlimit", "--pid", str(session.pid), f"--nofile={soft}:"]
    subprocess.run(command, check=True, user=user, group=group, extra_groups=[])


@pytest.mark.parametrize("url", [None, "https://localhost:1"])
@pytest.mark.parametrize("spare", [0, 1, 2, 3, 4, 5])
def test_a_backend_without_descriptors_says_so_and_survives(preloaded, spare, url):
    tenant = preloaded.sealed
    settings = {"kms_endpoint_url": url} if url else {}
    with preloaded.settings(**settings):
        preloaded.evict(tenant)
        with preloaded.session() as poor:
            poor.one("SELECT cmk_encrypt('anyone', NULL)")
            leave_descriptors(preloaded, poor, spare)
            if spare < 2:
                got = failure(poor, tenant, "58000", "kms_unreachable", with_hint="LimitNOFILE")
                assert got["cause"] == "fd"
            else:
                outcome(poor, tenant)
            assert poor.usable()
            limit_descriptors(preloaded, poor, 1024)
            if not url:
                until(lambda: outcome(poor, tenant) == "read", what="a call with descriptors")
    preloaded.evict(tenant)
    with preloaded.session() as other:
        assert other.one(READ, tenant.name) == CANARY


def outcome(session, tenant):
    """`read`, or the cause of the failure, which is one of descriptors or of an endpoint where nobody listens."""
    try:
        return session.one(READ, tenant.name) == CANARY and "read"
    except psycopg.Error as error:
        detail = error.diag.message_detail
        assert "cause=fd" in detail or "cause=refused" in detail, detail
        return detail


def test_who_lacks_descriptors_refuses_nobody_else(preloaded):
    tenant = preloaded.sealed
    preloaded.evict(tenant)
    with preloaded.session() as poor, preloaded.session() as rich:
        poor.one("SELECT cmk_encrypt('anyone', NULL)")
        leave_descriptors(preloaded, poor, 0)
        assert failure(poor, tenant, "58000", "kms_unreachable")["cause"] == "fd"
        assert rich.one(READ, tenant.name) == CANARY


# Little locked memory, as in containers and old units


@pytest.mark.parametrize("limit, locked", [(0, False), (64 << 10, True)])
def test_a_small_limit_of_locked_memory_costs_the_lock_and_nothing_else(estate, limit, locked):
    user, group = estate.server.owner()
    estate.evict(estate.sealed)
    with estate.session() as session:
        command = ["prlimit", "--pid", str(session.pid), f"--memlock={limit}:"]
        subprocess.run(command, check=True, user=user, group=group, extra_groups=[])
        assert session.one(READ, estate.sealed.name) == CANARY
        assert session.one("SELECT memory_locked FROM cmk.cache_stats") == locked
