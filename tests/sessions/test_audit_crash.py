"""A crash between an act and its commit, and one after it: what the trail and the log say afterwards."""

import pytest

from audit import events, lines, mark
from support import unique


@pytest.fixture(scope="module")
def crashing(make_server):
    server = make_server()
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    return server


def test_what_was_not_committed_before_a_crash_has_a_line_and_no_event(crashing, session):
    name = unique("tenant")
    dba = session(dbname="postgres", on=crashing)
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    start = mark(crashing)
    dba.run("BEGIN")
    dba.run("SELECT cmk.suspend_tenant(%s)", name)
    crashing.restart("immediate")
    assert [line["outcome"] for line in lines(crashing, start, tenant=name)] == ["done"]
    dba = session(dbname="postgres", on=crashing)
    assert events(dba, name, "act") == [("register_tenant",)]
    dba.run("SELECT cmk.suspend_tenant(%s)", name)
    crashing.restart("immediate")
    dba = session(dbname="postgres", on=crashing)
    assert events(dba, name, "act") == [("register_tenant",), ("suspend_tenant",)]
    assert dba.one("SELECT status FROM cmk.verify_audit(%s)", name) == "ok"


def test_a_backend_that_is_terminated_leaves_the_line_of_a_rollback(crashing, session):
    name = unique("tenant")
    dba, other = session(dbname="postgres", on=crashing), session(dbname="postgres", on=crashing)
    dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    start = mark(crashing)
    other.run("BEGIN")
    other.run("SELECT cmk.evict(%s)", name)
    dba.run("SELECT pg_terminate_backend(%s, 10000)", other.pid)
    assert [line["outcome"] for line in lines(crashing, start, tenant=name)] == ["done", "rolled_back"]
    dba.run("SELECT cmk.evict(%s)", name)
    assert events(dba, name, "number", "act") == [(1, "register_tenant"), (2, "evict")]
