"""cmk.remove_tenant: of a pending or shredded tenant nothing stays in the registry, and its name is free again."""

import pytest

from support import fails, grant, wait_for_lock
from test_shred import SHRED, shred

REGISTRY = ("tenant", "data_key", "access")


def left(dba, tenant):
    return [dba.one(f"SELECT count(*) FROM cmk.{table} WHERE tenant = %s", str(tenant)) for table in REGISTRY]


def remove(dba, tenant):
    dba.run("SELECT cmk.remove_tenant(%s)", str(tenant))


@pytest.mark.parametrize("activate", [True, False], ids=["shredded", "pending"])
def test_nothing_of_it_stays_and_nobody_else_is_touched(dba, local_tenant, activate):
    tenant, other = local_tenant(activate=activate), local_tenant()
    if activate:
        shred(dba, tenant)
    before = left(dba, other)
    remove(dba, tenant)
    assert left(dba, tenant) == [0, 0, 0]
    assert left(dba, other) == before == [1, 1, 1]
    assert dba.all("SELECT * FROM cmk.check() WHERE tenant = %s", tenant.name) == []


def test_a_tenant_that_may_have_values_is_not_removed(dba, local_tenant):
    tenant = local_tenant()
    for state in ("active", "suspended"):
        with fails("55000", "tenant_state_conflict", tenant) as caught:
            remove(dba, tenant)
        assert f"state={state}" in caught.value.diag.message_detail
        if state == "active":
            dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    assert left(dba, tenant) == [1, 1, 1]
    with fails("42704", "unknown_tenant", "nobody"):
        remove(dba, "nobody")
    with fails("22004", "null_argument"):
        dba.run("SELECT cmk.remove_tenant(NULL)")


def test_the_next_tenant_of_its_name_gets_nothing_of_it(dba, app, local_tenant):
    tenant = local_tenant()
    envelope = app.encrypt(tenant)
    shred(dba, tenant)
    remove(dba, tenant)
    with fails("42704", "unknown_tenant", tenant):
        app.decrypt(tenant, envelope)
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant.name)
    assert dba.row("SELECT state, version, suspended_at FROM cmk.tenants WHERE tenant = %s", tenant.name) == ("active", 1, None)
    with fails("42501", "no_grant", tenant):
        app.decrypt(tenant, envelope)
    grant(dba, tenant, app.role)
    with fails("39000", "unknown_data_key", tenant):
        app.decrypt(tenant, envelope)
    assert app.decrypt(tenant, app.encrypt(tenant))


def test_values_of_protected_columns_say_that_their_data_key_is_gone(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.grant_access('*', 'postgres')")
    dba.run("CREATE TABLE book (id int, tenant text, name text, seen int)")
    dba.run("SELECT cmk.protect_column('book', 'name', tenant_column => 'tenant')")
    dba.run("INSERT INTO book VALUES (1, 'acme', 'ada', NULL)")
    dba.run("SET cmk_encrypt.output = plaintext")
    shred(dba, "acme")
    remove(dba, "acme")
    for again in (False, True):
        if again:
            dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
        with fails("39000", "unknown_data_key"):
            dba.all("SELECT name FROM book")
        assert dba.all("SELECT tenant, version FROM cmk.dump_keys_needed('book')") == [(None, None)]
        assert dba.run("UPDATE book SET seen = 1").rowcount == 1
    assert dba.run("DELETE FROM book").rowcount == 1


def test_a_grant_that_is_on_its_way_does_not_outlive_the_tenant(dba, session, role, local_tenant):
    for remover_first in (True, False):
        tenant, granter, grantee = local_tenant(activate=False), session(), role()
        first, second = (dba, granter) if remover_first else (granter, dba)
        calls = {dba: ("SELECT cmk.remove_tenant(%s)", (tenant.name,)),
                 granter: ("SELECT cmk.grant_access(%s, %s)", (tenant.name, grantee))}
        first.run("BEGIN")
        first.run(calls[first][0], *calls[first][1])
        waiting = second.start(calls[second][0], *calls[second][1])
        wait_for_lock(first, second.pid)
        first.run("COMMIT")
        if remover_first:
            with fails("42704", "unknown_tenant", tenant):
                waiting.result(timeout=10)
        else:
            waiting.result(timeout=10)
        assert left(dba, tenant) == [0, 0, 0]


def test_a_rollback_brings_everything_back(dba, local_tenant):
    tenant = local_tenant()
    shred(dba, tenant)
    dba.run("BEGIN")
    remove(dba, tenant)
    dba.run("ROLLBACK")
    assert left(dba, tenant) == [1, 1, 1]
    with fails("55000", "tenant_state_conflict", tenant):
        dba.run(SHRED, tenant.name, tenant.name)


def test_it_is_registered_again_while_its_removal_commits(dba, session, local_tenant):
    tenant, other = local_tenant(activate=False), session()
    dba.run("BEGIN")
    remove(dba, tenant)
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant.name)
    with fails("42710", "tenant_exists", tenant):
        other.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant.name)
    dba.run("COMMIT")
    assert left(dba, tenant) == [1, 1, 0]
