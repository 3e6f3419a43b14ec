"""A monitor comes and goes with the setting, and comes back whatever happened to it, its database or the server."""

import os
import signal
import time
from datetime import datetime, timedelta

import psycopg
import pytest

from server import until
from watched import MONITOR, Watched, import_material, running

# A monitor that ended at once is started again after 5 seconds, then after twice as long.
BACK = 20


@pytest.fixture(scope="module")
def life(make_server, kms_process):
    """A server with a monitor each for a database that stays, one that goes and one that isn't there yet."""
    patient = {"kms_operation_timeout": "60s", "kms_attempt_timeout": "60s"}
    with running(make_server, monitor_databases="postgres, going, coming", **patient) as server:
        server.execute("CREATE DATABASE going")
        yield [Watched(server, kms_process, name) for name in ("postgres", "going")]


@pytest.fixture
def watched(life, kms):
    return life[0]


def watches(watched):
    """Its monitor runs, and notices."""
    until(watched.monitor, BACK, f"the monitor of {watched.dbname}")
    tenant = watched.tenant()
    watched.checks(tenant, 1)
    watched.kms.state(tenant.key_uri, "Disabled")
    watched.says(tenant, ("revoked", "usable", "key_disabled"))


@pytest.fixture(scope="module")
def upsets(life, kms_process):
    """All at once, because coming back takes seconds."""
    stays, going = life
    pids = [until(watched.monitor, what="the monitors") for watched in life]
    stays.dba.run("SELECT pg_terminate_backend(%s)", pids[0])
    going.dba.close()
    began = time.monotonic()
    stays.dba.run("DROP DATABASE going WITH (FORCE)")
    took = time.monotonic() - began
    for name in ("going", "coming"):
        stays.dba.run(f"CREATE DATABASE {name}")
    going, coming = (Watched(stays.server, kms_process, name) for name in ("going", "coming"))
    return {"stays": stays, "going": going, "coming": coming, "terminated": pids[0], "took": took}


def test_a_database_with_a_monitor_can_be_dropped_by_force(upsets):
    assert upsets["took"] < 2


def test_a_monitor_that_is_terminated_comes_back(upsets):
    watched = upsets["stays"]
    assert until(watched.monitor, BACK, "the monitor") != upsets["terminated"]
    watches(watched)


def test_a_database_that_was_dropped_and_made_again_is_watched_again(upsets):
    watches(upsets["going"])


def test_a_database_that_is_made_later_is_watched_then(upsets):
    watches(upsets["coming"])


def test_the_setting_starts_and_stops_monitors(watched, upsets):
    monitors = lambda: {pid for pid, in watched.dba.all(f"SELECT pid FROM pg_stat_activity WHERE {MONITOR}")}  # noqa: E731
    here = watched.monitor()
    with watched.server.settings(monitor_databases="postgres"):
        until(lambda: monitors() == {here}, 3, "the end of the others, and of no other")
        for name in ("going", "coming"):
            upsets[name].dba.close()
            watched.dba.run(f"DROP DATABASE {name}")
    with watched.server.settings(monitor_databases=""):
        until(lambda: monitors() == set(), 3, "the end of all")
    until(watched.monitor, 3, "the monitor")
    watches(watched)


def test_a_monitor_ends_with_the_keyring_that_started_it(watched):
    monitors = lambda: {pid for pid, in watched.dba.all(f"SELECT pid FROM pg_stat_activity WHERE {MONITOR}")}  # noqa: E731
    until(watched.monitor, BACK)
    before = monitors()
    keyring, = (pid for pid, title in watched.server.children().items() if title.startswith("cmk_encrypt keyring"))
    os.kill(keyring, signal.SIGTERM)
    until(lambda: monitors() and not monitors() & before, BACK, "the end of the old ones")
    watches(watched)
    with watched.server.settings(monitor_databases=""):
        until(lambda: monitors() == set(), 3, "the end of all")
    until(watched.monitor, 3, "the monitor")


def test_a_database_that_cannot_be_watched_is_named_in_the_log(make_server):
    conf = {"shared_preload_libraries": "cmk_encrypt", "max_worker_processes": "3", "cmk_encrypt.monitor_databases": "postgres, template1"}
    server = make_server(conf)
    said = lambda: [line.partition("LOG:  ")[2] for line in server.log.read_text().splitlines() if "cmk_encrypt monitor:" in line]  # noqa: E731
    until(lambda: len(said()) == 2, what="two lines")
    assert sorted(said()) == [
        "cmk_encrypt monitor: no extension in database=postgres",
        "cmk_encrypt monitor: no room in max_worker_processes for database=template1",
    ]
    server.stop("immediate")


def test_a_monitor_outlives_the_extension(watched):
    monitor = until(watched.monitor, BACK)
    watched.dba.run("SELECT cmk.destroy_data_keys('postgres')")
    watched.dba.run("DROP EXTENSION cmk_encrypt")
    until(lambda: "cmk_encrypt monitor: no extension in database=postgres" in watched.log(), 5, "a round without")
    watched.dba.run("CREATE EXTENSION cmk_encrypt")
    watches(watched)
    assert watched.monitor() == monitor


def test_after_a_restart_no_warning_is_given_again(watched, kms):
    unrotated, expires = watched.key(rotates=False), watched.key()
    import_material(kms, expires, int(time.time()) + 86_400)
    tenants = [watched.tenant(unrotated), watched.tenant(expires)]
    looks = lambda: [kms.calls(key, "GetKeyRotationStatus") for key in (unrotated, expires)]  # noqa: E731
    until(lambda: looks() == [1, 1], what="a look at the keys")
    for tenant in tenants:
        watched.checks(tenant, 1)
    said = [(watched.events(tenant), watched.log(tenant.name)) for tenant in tenants]
    assert [event for event, *_ in said[0][0]] == ["rotation_off"]
    assert "key_material_expires" in str(said[1][0])
    watched.server.restart()
    watched.connect()
    until(lambda: looks() == [2, 2], what="a look at the keys")
    for tenant in tenants:
        watched.checks(tenant, 1)
    assert [(watched.events(tenant), watched.log(tenant.name)) for tenant in tenants] == said


def test_a_monitor_that_is_killed_comes_back_after_the_recovery(watched):
    os.kill(until(watched.monitor, BACK), signal.SIGKILL)

    def lives():
        try:
            return watched.dba.one("SELECT true")
        except psycopg.OperationalError:
            return False

    def recovered():
        try:
            watched.connect()
        except psycopg.OperationalError:
            return False
        return lives()

    # Until the server has noticed, a new connection would only die with all others.
    until(lambda: not lives(), what="the crash")
    until(recovered, what="crash recovery")
    watches(watched)


def test_a_server_whose_monitor_waits_for_kms_shuts_down_fast(watched, kms):
    tenant = watched.tenant()
    with kms.fault("hang", arn=tenant.key_uri):
        until(lambda: any(e["outcome"] == "pending" for e in kms.log(tenant.key_uri)), what="a call that hangs")
        watched.server.restart("fast")
        watched.connect()
    asked, done = (logged_at(watched.server, what) for what in ("received fast shutdown", "database system is shut down"))
    assert done - asked < timedelta(seconds=2)


def logged_at(server, what):
    last = [line for line in server.log.read_text().splitlines() if what in line][-1]
    return datetime.strptime(last[:23], "%Y-%m-%d %H:%M:%S.%f")
