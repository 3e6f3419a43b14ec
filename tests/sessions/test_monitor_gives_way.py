"""A monitor's connection is in nobody's way who wants to copy, rename, move or drop its database, and comes back."""

import time

import pytest

from server import until
from watched import MONITOR, Watched, running

# PostgreSQL waits so long for the sessions of a database to go.
PATIENCE = 5
# A monitor that ended is started again 5 seconds after it began, not later, though it ended soon: it did not fail.
BACK = 8


@pytest.fixture(scope="module")
def shop(make_server, kms_process):
    """A server whose monitor watches `shop`."""
    patient = {"kms_operation_timeout": "60s", "kms_attempt_timeout": "60s"}
    with running(make_server, **patient) as server:
        server.execute("CREATE DATABASE shop")
        server.execute("CREATE EXTENSION cmk_encrypt", "shop")
        if version(server) >= 150000:
            with server.connect() as connection:
                connection.execute("SET allow_in_place_tablespaces = on")
                connection.execute("CREATE TABLESPACE elsewhere LOCATION ''")
        with server.settings(monitor_databases="shop"):
            yield server


def version(server):
    with server.connect() as connection:
        return connection.info.server_version


def monitor(server):
    with server.connect() as connection:
        found = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {MONITOR} AND datname = 'shop'")
        return found.fetchone()


def watched_again(server, kms):
    until(lambda: monitor(server), BACK, "the monitor")
    watched = Watched(server, kms, "shop", create=False)
    watched.checks(watched.tenant(), 1)
    return watched


def run_soon(server, sql):
    began = time.monotonic()
    server.execute(sql)
    assert time.monotonic() - began < PATIENCE, sql


def test_a_watched_database_is_copied_renamed_and_moved_and_is_watched_again_soon(shop, kms):
    commands = [("CREATE DATABASE shop_copy TEMPLATE shop", "DROP DATABASE shop_copy"),
                ("ALTER DATABASE shop RENAME TO other", "ALTER DATABASE other RENAME TO shop"),
                ("CREATE DATABASE shop_copy TEMPLATE shop", "DROP DATABASE shop_copy")]
    if version(shop) >= 150000:
        commands += [("ALTER DATABASE shop SET TABLESPACE elsewhere", "ALTER DATABASE shop SET TABLESPACE pg_default")]
    for there, back in commands:
        watched_again(shop, kms).dba.close()
        run_soon(shop, there)
        run_soon(shop, back)
    watched_again(shop, kms).dba.close()


def test_it_gives_way_in_the_middle_of_a_wait_for_kms(shop, kms):
    watched = watched_again(shop, kms)
    tenant = watched.tenant()
    with kms.fault("hang", arn=tenant.key_uri):
        hangs = lambda: any(entry["outcome"] == "pending" for entry in kms.log(tenant.key_uri))  # noqa: E731
        until(hangs, what="the monitor to wait for KMS")
        watched.dba.close()
        run_soon(shop, "DROP DATABASE shop")
    shop.execute("CREATE DATABASE shop")
    shop.execute("CREATE EXTENSION cmk_encrypt", "shop")
    watched_again(shop, kms).dba.close()
