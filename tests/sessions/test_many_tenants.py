"""What the background workers cost on a server with many tenants."""

import time
from pathlib import Path

import pytest

from drill import Drill
from server import until
from support import CANARY
from watched import Watched, running

MANY = 20_000
TICKS = 100  # a second, in /proc


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def worker(server, title):
    pid, = (pid for pid, of in server.children().items() if of.startswith(title))
    return pid


@pytest.fixture
def large(make_server, kms):
    """A preloaded server with a large shared keyring and a small cache in each session."""
    conf = {"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.shared_keyring_size": "65536", "cmk_encrypt.cache_size": "1"}
    server = make_server(conf)
    server.make_local_key("shared")
    return Drill(server, kms, preloaded=True)


def test_the_keyring_worker_sleeps_while_sessions_miss(large, session):
    large.dba.run("SELECT count(cmk.register_tenant('t' || n, 'local:shared')) FROM generate_series(1, 3000) n")
    values = "SELECT 't' || n AS tenant, cmk_encrypt('t' || n, %b) AS value FROM generate_series(1, 3000) n"
    large.dba.run(f"CREATE TABLE many AS {values}", CANARY)
    pid = worker(large.server, "cmk_encrypt keyring worker")
    user = session(dbname="postgres", on=large.server)
    before = processor_seconds(pid)
    for _ in range(3):
        # Each one a miss: the cache has room for one data key.
        assert user.one("SELECT count(cmk_decrypt(tenant, value)) FROM many") == 3000
    assert user.one("SELECT misses FROM cmk.cache_stats") >= 9000
    assert processor_seconds(pid) - before < 0.3


SCANS = "SELECT relname::text, seq_scan + COALESCE(idx_scan, 0) FROM pg_stat_xact_all_tables WHERE schemaname = 'cmk'"


def reads(session, query):
    """{table of the registry: how often a query scans it}"""
    with session.connection.transaction():
        before = dict(session.all(SCANS))
        session.run(query)
        counts = {table: count - before.get(table, 0) for table, count in session.all(SCANS)}
    return {table: count for table, count in counts.items() if count}


@pytest.mark.parametrize("view", ["status", "tenants"])
def test_a_look_at_all_tenants_reads_the_registry_once(large, view):
    large.dba.run("SELECT count(cmk.register_tenant('s' || n, 'local:shared')) FROM generate_series(1, 100) n")
    seen = reads(large.dba, f"SELECT count(*) FROM cmk.{view}")
    assert 0 < sum(seen.values()) <= 12, seen


def test_after_a_change_who_it_concerns_is_read_and_no_more(large, session):
    large.dba.run("SELECT count(cmk.register_tenant('c' || n, 'local:shared')) FROM generate_series(1, 100) n")
    with large.server.settings(cache_size="200"):
        user = session(dbname="postgres", on=large.server)
        seal = "SELECT count(cmk_encrypt('c' || n, 'x')) FROM generate_series(1, 100) n"
        user.run(seal)
        assert reads(user, seal) == {}
        # Grants to a tenant and to every tenant are looked for apart.
        large.dba.run("SELECT cmk.grant_access('c1', 'postgres')")
        assert reads(user, seal) == {"tenant": 1, "data_key": 1, "access": 2}
        assert reads(user, seal) == {}
        large.dba.run("SELECT cmk.grant_access('*', 'pg_monitor')")
        seen = reads(user, seal)
    assert seen.pop("home") <= 2 and seen == {"tenant": 100, "data_key": 100, "access": 200}, seen


@pytest.fixture
def monitored(make_server, kms):
    """A monitor that looks at keys once an hour, and many tenants."""
    with running(make_server, monitor_databases="postgres", monitor_interval="1h") as server:
        watched = Watched(server, kms)
        watched.dba.run(
            "INSERT INTO cmk.tenant (tenant, key_uri, state)"
            " SELECT 't' || n, 'local:shared', 'active' FROM generate_series(1, %s) n", MANY)
        until(watched.monitor, what="the monitor")
        yield watched


def test_a_monitor_takes_in_a_change_of_one_among_many_tenants(monitored):
    pid = monitored.monitor()
    time.sleep(3)  # until it has taken all of them in
    before = processor_seconds(pid)
    for number in range(5):
        monitored.dba.run("UPDATE cmk.tenant SET changed_at = now() WHERE tenant = 't%s'" % (number + 1))
        time.sleep(1.2)
    # Comparing each name with each takes seconds every time.
    assert processor_seconds(pid) - before < 1.5
    assert monitored.monitor() == pid
