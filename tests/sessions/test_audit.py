"""The audit trail: one event for every act, in its own transaction, and one line in the log whatever becomes of it."""

import psycopg
import pytest

from audit import events, lines, mark
from support import fails, grant, unique


def test_every_act_of_a_tenants_life_is_an_event(dba, server, role):
    name, who = unique("tenant"), role()
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared', activate => false)", name)
    dba.run("SELECT cmk.activate_tenant(%s)", name)
    dba.run("SELECT cmk.grant_access(%s, %s)", name, who)
    dba.run("SELECT cmk.revoke_access(%s, %s, encrypt => false)", name, who)
    dba.run("SELECT cmk.revoke_access(%s, %s::regrole)", name, who)
    dba.run("SELECT cmk.rotate_tenant(%s)", name)
    dba.run("SELECT cmk.rotate_index_key(%s)", name)
    dba.run("SELECT cmk.evict(%s)", name)
    dba.run("SELECT cmk.suspend_tenant(%s)", name)
    dba.run("SELECT cmk.resume_tenant(%s)", name)
    seen = events(dba, name, "act", "data_key", "before", "after")
    rights = lambda encrypt, decrypt: {  # noqa: E731
        "role": who, "encrypt": encrypt, "decrypt": decrypt, "bound": False}
    assert seen == [
        ("register_tenant", None, None, {"state": "pending", "key_uri": "local:shared", "options": {}}),
        ("activate_tenant", 1, {"state": "pending"}, {"state": "active"}),
        ("grant_access", None, rights(False, False), rights(True, True)),
        ("revoke_access", None, rights(True, True), rights(True, False)),
        ("revoke_access", None, rights(True, False), rights(False, False)),
        ("rotate_tenant", 2, {"current": 1}, {"current": 2}),
        ("rotate_index_key", 3, None, {"current": 3}),
        ("evict", None, None, None),
        ("suspend_tenant", None, {"state": "active"}, {"state": "suspended"}),
        ("resume_tenant", None, {"state": "suspended"}, {"state": "active"}),
    ]


def test_what_is_rolled_back_leaves_lines_and_no_event(dba, server):
    name = unique("tenant")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    start = mark(server)
    dba.run("BEGIN")
    dba.run("SELECT cmk.suspend_tenant(%s)", name)
    dba.run("SAVEPOINT one")
    dba.run("SELECT cmk.resume_tenant(%s)", name)
    dba.run("ROLLBACK TO one")
    dba.run("SELECT cmk.evict(%s)", name)
    dba.run("ROLLBACK")
    assert [line["act"] for line in lines(server, start, tenant=name, outcome="done")] == [
        "suspend_tenant", "resume_tenant", "evict"]
    assert [line["act"] for line in lines(server, start, tenant=name, outcome="rolled_back")] == [
        "resume_tenant", "evict", "suspend_tenant"]
    assert not lines(server, start, tenant=name, outcome="committed")
    assert events(dba, name, "act") == [("register_tenant",)]
    # What a subtransaction kept belongs to the transaction around it.
    dba.run("BEGIN")
    dba.run("SAVEPOINT one")
    dba.run("SELECT cmk.suspend_tenant(%s)", name)
    dba.run("RELEASE one")
    dba.run("COMMIT")
    assert events(dba, name, "number", "act") == [(1, "register_tenant"), (2, "suspend_tenant")]


def test_a_committed_event_stands_in_the_log_with_its_hash(dba, server):
    name, start = unique("tenant"), mark(server)
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    dba.run("SELECT cmk.evict(%s)", name)
    seen = [(line["origin"], line["number"], line["hash"]) for line in lines(server, start, tenant=name, outcome="committed")]
    assert seen == events(dba, name, "origin", "number", "encode(hash, 'hex')")


def test_what_is_refused_leaves_a_line(dba, server, session):
    name, start = unique("tenant"), mark(server)
    with fails("42704", "unknown_tenant"):
        dba.run("SELECT cmk.suspend_tenant(%s)", name)
    with fails("22023", "tenant_name"):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", "x\ncmk_encrypt audit={}")
    dba.run("SET default_transaction_read_only = on")
    with fails("25006", "read_only"):
        dba.run("SELECT cmk.evict_all()")
    seen = [(line["act"], line["tenant"], line["reason"]) for line in lines(server, start, outcome="refused")]
    assert seen == [
        ("suspend_tenant", name, "unknown_tenant"),
        ("register_tenant", "xcmk_encrypt audit={}", "tenant_name"),
        ("evict_all", "*", "read_only"),
    ]


def test_a_wait_that_is_cancelled_leaves_a_line(dba, server, session):
    name = unique("tenant")
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    other, start = session(), mark(server)
    other.run("BEGIN")
    other.run("SELECT cmk.suspend_tenant(%s)", name)
    dba.run("SET lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        dba.run("SELECT cmk.suspend_tenant(%s)", name)
    [line] = lines(server, start, tenant=name, outcome="refused")
    assert (line["act"], line["reason"]) == ("suspend_tenant", "interrupted")
    other.run("ROLLBACK")


def test_who_called_is_told_by_the_roles_of_the_session_and_of_the_caller(dba, session, role, server):
    name, manager, worker = unique("tenant"), role("NOLOGIN"), role()
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    dba.run(f"GRANT {manager} TO {worker}")
    dba.run(f"GRANT EXECUTE ON FUNCTION cmk.suspend_tenant, cmk.resume_tenant TO {manager}")
    wrapper = unique("suspend")
    dba.run(f"""CREATE FUNCTION public.{wrapper}(t text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
                AS $$ BEGIN PERFORM cmk.suspend_tenant(t); END $$""")
    dba.run(f"ALTER FUNCTION public.{wrapper} OWNER TO {manager}")
    user = session(worker, application_name="bill\x01ing' \"x")
    user.run(f"SET ROLE {manager}")
    user.run("SELECT cmk.suspend_tenant(%s)", name)
    user.run("SELECT cmk.resume_tenant(%s)", name)
    user.run("RESET ROLE")
    user.run(f"SELECT public.{wrapper}(%s)", name)
    dba.run(f"DROP OWNED BY {manager}")
    seen = events(dba, name, "act", "session_role", "acting_role", "client_address", "application_name", "database")
    assert seen[1:] == [
        (act, worker, manager, "[local]", seen[1][4], "sessions")
        for act in ("suspend_tenant", "resume_tenant", "suspend_tenant")
    ]
    assert "\x01" not in seen[1][4] and seen[1][4].startswith("bill")


def test_what_tells_the_same_twice_is_one_event_of_a_transaction(dba, local_tenant):
    acme, say = local_tenant(), "SELECT cmk_internal.audit('seal_table', %s, after => '{\"column\": \"c\"}')"
    told = lambda: dba.one("SELECT count(*) FROM cmk.audit_event WHERE tenant = %s AND act = 'seal_table'", acme.name)  # noqa: E731
    dba.run("SELECT count(cmk_internal.audit('seal_table', %s)) FROM generate_series(1, 100)", acme.name)
    assert told() == 1
    for end in ("RELEASE", "ROLLBACK TO"):
        dba.run("BEGIN")
        dba.run("SAVEPOINT s")
        dba.run(say, acme.name)
        dba.run(f"{end} s")
        before = told()
        dba.run(say, acme.name)
        dba.run("COMMIT")
        assert told() == before + 1, "one by all, whatever became of the first"
