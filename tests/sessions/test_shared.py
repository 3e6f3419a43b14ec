"""What the backends of a preloaded server share: data keys. What else they share: test_shared_knowledge.py."""

import os
import signal
import time

import pytest

from crowd import READ
from memory import find, flags_at, forms, is_zero
from server import until
from support import CANARY, fails, unique


# Data keys


def test_what_one_backend_unwrapped_serves_all(drill, users, kms):
    tenant = drill.tenant()
    before = kms.calls(tenant.key_uri)
    for user in users:
        assert user.one(READ, tenant.name) == CANARY
    assert kms.calls(tenant.key_uri) == before + 1
    users[0].close()
    assert users[1].one(READ, tenant.name) == CANARY
    assert kms.calls(tenant.key_uri) == before + 1


def test_who_waits_for_a_data_key_does_not_wait_for_the_tenants_others(drill, session, kms):
    tenant = drill.tenant()
    envelopes = [drill.dba.encrypt(tenant)]
    for _ in range(5):
        drill.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        envelopes.append(drill.dba.encrypt(tenant))
    drill.evict(tenant)
    read = "SELECT cmk_decrypt(%s, %b)"
    crowd = [session(dbname="postgres", on=drill.server) for _ in range(10)]
    with kms.fault("delay", arn=tenant.key_uri, millis=300):
        began = time.monotonic()
        first = crowd[0].start(read, tenant.name, envelopes[0])
        until(lambda: any(e["outcome"] == "pending" for e in kms.log(tenant.key_uri)), what="the first call")
        others = [user.start(read, tenant.name, envelope) for user, envelope in zip(crowd[1:], envelopes[1:])]
        waiters = [user.start(read, tenant.name, envelopes[0]) for user in crowd[len(envelopes) :]]
        for future in [first, *waiters]:
            assert future.result(timeout=10) == [(CANARY,)]
        assert time.monotonic() - began < 0.6 + 0.2, "the first answer, and a wait that began just before the second"
        for future in others:
            assert future.result(timeout=10) == [(CANARY,)]
        assert time.monotonic() - began > 6 * 0.3, "data keys of a tenant are asked for in turns"


@pytest.mark.parametrize("writes", [False, True], ids=["read only", "after a write"])
def test_in_a_parallel_worker_calls_and_failures_are_everybodys(drill, session, kms, writes):
    # Only a wrapper that is declared wrongly gets us there. After a write a worker might see an uncommitted eviction.
    tenant, user = drill.tenant(), session(dbname="postgres", on=drill.server)
    table, wrapper = unique("big"), unique("opens")
    user.run(f"CREATE TABLE {table} WITH (parallel_workers = 2) AS SELECT sealed FROM customer, generate_series(1, 2000) WHERE tenant = %s", tenant.name)
    user.run(
        f"CREATE FUNCTION {wrapper}(sealed bytea) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS"
        f" $$ BEGIN RETURN cmk_try_decrypt('{tenant}', sealed, '', '{{key_disabled,call_budget_spent}}') IS NOT NULL; END $$"
    )
    for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size", "parallel_leader_participation"):
        user.run(f"SET {name} = 0")
    query = f"SELECT count(*) FILTER (WHERE {wrapper}(sealed)) FROM {table}"
    plan = "\n".join(line for (line,) in user.all(f"EXPLAIN (ANALYZE, COSTS OFF) {query}"))
    assert "Workers Launched: 2" in plan, plan
    drill.evict(tenant)
    counted = lambda: drill.status(tenant, "kms_calls")[0]  # noqa: E731
    with drill.server.settings(tenant_call_budget=5, failure_ttl="1min"):
        asked, before = kms.calls(tenant.key_uri), counted()
        user.run("BEGIN")
        if writes:
            user.run("CREATE TEMP TABLE written (x int) ON COMMIT DROP")
        rows = [user.one(query) for _ in range(6)]
        calls = kms.calls(tenant.key_uri) - asked
        assert calls == counted() - before
        if writes:
            assert calls <= 5
        else:
            assert calls == 1 and rows == [2000] * 6
        user.run("COMMIT")
        # A failure is everybody's too.
        kms.state(tenant.key_uri, "Disabled")
        drill.evict(tenant)
    with drill.server.settings(tenant_call_budget=600, failure_ttl="1min"):
        asked = kms.calls(tenant.key_uri)
        user.run("BEGIN")
        if writes:
            user.run("CREATE TEMP TABLE written (x int) ON COMMIT DROP")
        assert [user.one(query) for _ in range(4)] == [0] * 4
        assert kms.calls(tenant.key_uri) - asked <= 2, "one a worker, should both begin at once"
        user.run("COMMIT")
    assert drill.status(tenant, "key_state") == ("revoked",)


def test_the_deadline_is_that_of_the_unwrap_not_of_the_taking(drill, users, kms):
    with drill.server.settings(cache_ttl="2s", cache_soft_ttl="2s"):
        tenant = drill.tenant()
        assert users[0].one(READ, tenant.name) == CANARY
        unwrapped = time.monotonic()
        kms.state(tenant.key_uri, "Disabled")
        until(lambda: time.monotonic() > unwrapped + 1.2)
        assert users[1].one(READ, tenant.name) == CANARY
        until(lambda: time.monotonic() > unwrapped + 2)
        with fails("55000", "key_disabled", tenant):
            users[1].one(READ, tenant.name)


def test_a_shared_data_key_lies_in_locked_undumpable_pages_of_no_backend_alone(drill, users):
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    users[0].one(READ, tenant.name)
    for pid in (users[1].pid, drill.server.pid):
        assert not find(pid, needles), "in the private memory of one that never read"
        found = find(pid, needles, shared=True)
        assert found
        for address in found:
            # A lock isn't inherited, but a page that one process has locked stays in memory for all.
            wanted = {"lo", "dd"} if pid == drill.server.pid else {"dd"}
            assert wanted <= flags_at(pid, address), f"{address:#x}"


def test_a_shared_data_key_dies_on_time_though_nobody_asks(drill, session):
    with drill.server.settings(cache_ttl="1500ms"):
        tenant = drill.tenant()
        needles = forms(drill.dek(tenant))
        user = session(dbname="postgres", on=drill.server)
        assert user.one(READ, tenant.name) == CANARY
        read = time.monotonic()
        user.close()
        postmaster = drill.server.pid
        found = find(postmaster, needles, shared=True)
        assert found
        until(lambda: is_zero(postmaster, found), timeout=3, what="the end of the data key")
        assert time.monotonic() <= read + 1.5 + 0.1
        assert not find(postmaster, needles, shared=True)


def test_a_shorter_ttl_applies_to_data_keys_that_are_shared_already(drill, users):
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    assert users[0].one(READ, tenant.name) == CANARY
    with drill.server.settings(cache_ttl="1s"):
        until(lambda: not find(drill.server.pid, needles, shared=True), timeout=2, what="the end of the data key")


def test_more_tenants_than_there_is_room_for_work(make_server, session, kms):
    server = make_server({"shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.shared_keyring_size": "16"})
    server.execute("CREATE EXTENSION cmk_encrypt")
    users = [session(dbname="postgres", on=server) for _ in range(3)]
    users[0].run("SELECT cmk.grant_access('*', 'postgres')")
    arn, names = kms.key(), [f"t{n}" for n in range(100)]
    for name in names:
        users[0].run("SELECT cmk.register_tenant(%s, %s)", name, arn)
    sealed = {name: users[0].encrypt(name) for name in names}
    for user in users[1:]:
        assert all(user.decrypt(name, sealed[name]) == CANARY for name in names)
    before = kms.calls(arn)
    late = session(dbname="postgres", on=server)
    assert all(late.decrypt(name, sealed[name]) == CANARY for name in names[-10:])
    assert kms.calls(arn) == before, "the least recently used go first"


def test_tenants_of_one_name_in_two_databases_are_two(drill, session, kms):
    name, other = unique("tenant"), unique("db")
    drill.server.execute(f"CREATE DATABASE {other}")
    drill.server.execute("CREATE EXTENSION cmk_encrypt", other)
    users = {database: session(dbname=database, on=drill.server) for database in ("postgres", other)}
    keys = {database: kms.key() for database in users}
    sealed = {}
    for database, user in users.items():
        user.run("SELECT cmk.grant_access('*', 'postgres')")
        user.run("SELECT cmk.register_tenant(%s, %s)", name, keys[database])
        sealed[database] = user.encrypt(name)
    kms.state(keys[other], "Disabled")
    users[other].run("SELECT cmk.evict(%s)", name)
    with fails("55000", "key_disabled"):
        users[other].decrypt(name, sealed[other])
    assert users["postgres"].decrypt(name, sealed["postgres"]) == CANARY
    with fails("39000", "unknown_data_key"):
        users["postgres"].decrypt(name, sealed[other])


def test_without_the_keyring_worker_nothing_is_shared_and_all_works(drill, users, kms):
    def worker():
        return [pid for pid, title in drill.server.children().items() if title.startswith("cmk_encrypt keyring")]

    tenant = drill.tenant()
    found = find_shared(drill, users[0], tenant)
    (old,) = worker()
    os.kill(old, signal.SIGTERM)
    until(lambda: worker() != [old], what="the end of the keyring worker")
    assert is_zero(drill.server.pid, found), "it clears up before it goes"
    assert users[1].one(READ, tenant.name) == CANARY
    until(lambda: worker() not in ([], [old]), what="another keyring worker")
    other = drill.tenant()
    before = kms.calls(other.key_uri)
    for user in users[2:]:
        assert user.one(READ, other.name) == CANARY
    assert kms.calls(other.key_uri) == before + 1


def find_shared(drill, user, tenant):
    """Where the shared data key lies, once `user` has fetched it."""
    assert user.one(READ, tenant.name) == CANARY
    found = find(drill.server.pid, forms(drill.dek(tenant)), shared=True)
    assert found, "the search doesn't find the key that must be shared"
    return found


# Eviction


@pytest.mark.parametrize("evict", ["cmk.evict(%s)", "cmk.evict_all()"])
def test_eviction_holds_in_all_backends_from_commit_on(drill, users, kms, evict):
    tenant = drill.tenant()
    needles = forms(drill.dek(tenant))
    for user in users:
        assert user.one(READ, tenant.name) == CANARY
    before = kms.calls(tenant.key_uri)
    drill.dba.run(f"SELECT {evict}", *([tenant.name] if "%s" in evict else []))
    for user in users:
        assert user.one(READ, tenant.name) == CANARY
    assert kms.calls(tenant.key_uri) == before + 1
    kms.state(tenant.key_uri, "Disabled")
    drill.dba.run(f"SELECT {evict}", *([tenant.name] if "%s" in evict else []))
    for user in users:
        with fails("55000", "key_disabled", tenant):
            user.one(READ, tenant.name)
    assert not find(drill.server.pid, needles, shared=True)


def test_an_eviction_that_is_rolled_back_evicts_nothing(drill, users, kms):
    tenant = drill.tenant()
    assert users[0].one(READ, tenant.name) == CANARY
    before = kms.calls(tenant.key_uri)
    with drill.dba.connection.transaction(force_rollback=True):
        drill.evict(tenant)
        assert users[0].one(READ, tenant.name) == CANARY
    assert users[1].one(READ, tenant.name) == CANARY
    assert kms.calls(tenant.key_uri) == before
