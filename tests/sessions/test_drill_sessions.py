"""A revocation reaches what a session has prepared, opened or handed to others."""

import pytest

from crowd import READ
from server import until
from support import CANARY, fails, fails_with, unique

ROWS = 100_000


@pytest.fixture
def reader(either_drill, session):
    """A warm session, its tenant, and the fake KMS."""
    drill = either_drill
    tenant = drill.tenant()
    # DISCARD ALL would forget what the driver prepared.
    user = session(dbname="postgres", on=drill.server, prepare_threshold=None)
    with drill.server.settings(cache_ttl="1s", failure_ttl="200ms"):
        assert user.one(READ, tenant.name) == CANARY
        yield user, tenant, drill.kms


def goes_dark(ask, tenant, timeout=2.0):
    """Asks until it fails, which must be for the key's being disabled."""
    def dark():
        try:
            ask()
        except Exception as error:
            return error

    error = until(dark, timeout, "the end of the data key")
    with fails("55000", "key_disabled", tenant):
        raise error


def comes_back(ask):
    def back():
        try:
            return ask() == CANARY
        except Exception:
            return False

    until(back, timeout=2, what="the return of the data")


def test_a_prepared_statement_goes_dark_and_comes_back(reader):
    user, tenant, kms = reader
    user.run(f"PREPARE value AS SELECT cmk_decrypt(tenant, sealed) FROM customer WHERE tenant = '{tenant}'")
    for plan in ("force_generic_plan", "force_custom_plan"):
        user.run(f"SET plan_cache_mode = {plan}")
        execute = lambda: user.one("EXECUTE value")  # noqa: E731
        assert execute() == CANARY
        kms.state(tenant.key_uri, "Disabled")
        goes_dark(execute, tenant)
        kms.state(tenant.key_uri, "Enabled")
        comes_back(execute)


def test_an_open_cursor_goes_dark(reader):
    user, tenant, kms = reader
    user.run("BEGIN")
    user.run(f"DECLARE value CURSOR FOR SELECT cmk_decrypt(tenant, sealed) FROM customer, generate_series(1, {ROWS})"
             f" WHERE tenant = '{tenant}'")
    assert user.one("FETCH value") == CANARY
    kms.state(tenant.key_uri, "Disabled")
    goes_dark(lambda: user.one("FETCH value"), tenant)
    with fails_with("25P02"):
        user.one("FETCH value")
    user.run("ROLLBACK")
    kms.state(tenant.key_uri, "Enabled")


def test_a_running_query_goes_dark_in_the_middle(reader):
    user, tenant, kms = reader
    running = user.start("SELECT count(cmk_decrypt(tenant, sealed)) FROM customer, generate_series(1, 1000) a,"
                         f" generate_series(1, 1000) b, generate_series(1, 1000) c WHERE tenant = '{tenant}'")
    kms.state(tenant.key_uri, "Disabled")
    with fails("55000", "key_disabled", tenant):
        running.result(timeout=3)
    kms.state(tenant.key_uri, "Enabled")


@pytest.mark.parametrize("reset", ["DISCARD ALL", "RESET ALL", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres"])
def test_what_a_pool_does_between_clients_costs_no_call_and_hides_no_revocation(reader, reset):
    user, tenant, kms = reader
    before = kms.calls(tenant.key_uri)
    for _ in range(3):
        user.connection.execute(reset)
        assert user.one(READ, tenant.name) == CANARY
    assert kms.calls(tenant.key_uri) <= before + 1, "one for the TTL, should it have passed"
    kms.state(tenant.key_uri, "Disabled")

    def ask():
        user.connection.execute(reset)
        return user.one(READ, tenant.name)

    goes_dark(ask, tenant)
    kms.state(tenant.key_uri, "Enabled")
    comes_back(ask)


def test_another_role_of_the_session_needs_its_own_grant_also_while_the_key_is_dark(reader):
    user, tenant, kms = reader
    stranger = unique("stranger")
    user.run(f"CREATE ROLE {stranger}")
    user.run(f"GRANT SELECT ON customer TO {stranger}")
    kms.state(tenant.key_uri, "Disabled")
    goes_dark(lambda: user.one(READ, tenant.name), tenant)
    user.run(f"SET ROLE {stranger}")
    with fails("42501", "no_grant", tenant):
        user.one(READ, tenant.name)
    user.run("RESET ROLE")
    kms.state(tenant.key_uri, "Enabled")


def test_parallel_workers_go_dark_too(reader, either_drill):
    user, tenant, kms = reader
    user.run("DROP TABLE IF EXISTS big")
    user.run("CREATE TABLE big WITH (parallel_workers = 2) AS SELECT tenant, sealed FROM customer,"
             f" generate_series(1, {ROWS}) WHERE tenant = '{tenant}'")
    for name, value in {"parallel_setup_cost": 0, "parallel_tuple_cost": 0, "min_parallel_table_scan_size": 0,
                        "max_parallel_workers_per_gather": 2}.items():
        user.run(f"SET {name} = {value}")
    query = "SELECT count(cmk_decrypt(tenant, sealed)) FROM big"
    plan = "\n".join(line for (line,) in user.all(f"EXPLAIN (ANALYZE, COSTS OFF) {query}"))
    assert "Workers Launched: 2" in plan, plan
    assert user.one(query) == ROWS
    kms.state(tenant.key_uri, "Disabled")
    goes_dark(lambda: user.one(query), tenant)
    kms.state(tenant.key_uri, "Enabled")
    until(lambda: user.usable(), what="the session")
