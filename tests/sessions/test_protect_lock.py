"""The exclusive lock of cmk.protect_column(): waited for in turns, and held for a moment."""

import time

from protected import make_table
from support import fails_with, wait_for_lock


def test_the_lock_is_not_waited_for_forever_and_nobody_piles_up(session, owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    reader, other = session(owner.role), session(owner.role)
    reader.run("BEGIN")
    reader.run(f"SELECT FROM {table}")
    protecting = owner.start(
        "SELECT cmk.protect_column(%s, 'ssn', 'tenant_id', rewrite => false, lock_timeout => '300ms',"
        " lock_attempts => 100)", table.name)
    wait_for_lock(reader, owner.pid)
    # Behind the waiting ALTER TABLE another reader waits, but for one lock_timeout at most.
    for _ in range(5):
        began = time.monotonic()
        other.run(f"SELECT FROM {table}")
        assert time.monotonic() - began < 2
    assert not protecting.done()
    reader.run("COMMIT")
    assert "is protected" in protecting.result(timeout=20)[0][0]


def test_after_the_last_attempt_nothing_has_happened(session, owner, local_tenant):
    table = make_table(owner, [local_tenant()])
    reader = session(owner.role)
    reader.run("BEGIN")
    reader.run(f"SELECT FROM {table}")
    before = owner.one("SHOW lock_timeout")
    with fails_with("55P03"):
        table.protect(tenant_column="tenant_id", rewrite=False, lock_timeout="50ms", lock_attempts=2)
    assert (table.type_of(), owner.one("SHOW lock_timeout")) == ("text", before)
    reader.run("COMMIT")
    owner.run("BEGIN")
    table.protect(tenant_column="tenant_id", rewrite=False)
    assert owner.one("SHOW lock_timeout") == before
    owner.run("COMMIT")


def test_of_two_who_protect_at_once_one_is_refused(session, owner, local_tenant):
    table, other = make_table(owner, [local_tenant()]), session(owner.role)
    reader = session(owner.role)
    reader.run("BEGIN")
    reader.run(f"SELECT FROM {table}")
    call = "SELECT cmk.protect_column(%s, 'ssn', 'tenant_id', rewrite => false, lock_timeout => '20s')"
    both = [who.start(call, table.name) for who in (owner, other)]
    for who in (owner, other):
        wait_for_lock(reader, who.pid)
    reader.run("COMMIT")
    done, refused = sorted(both, key=lambda future: future.exception(timeout=30) is not None)
    assert "is protected" in done.result()[0][0]
    assert "its type has just been changed by somebody else" in refused.exception().diag.message_detail
    assert (table.type_of(), table.triggers(), list(table.checks())) == ("cmk_text", {"~cmk_seal": "A"}, ["cmk_sealed_ssn"])


def test_a_larger_table_is_locked_for_a_moment_only(session, owner, local_tenant):
    table = make_table(owner, [local_tenant()], rows=200_000)
    table.protect(tenant_column="tenant_id", rewrite=False)  # warm the plans
    table.unprotect()
    owner.run("BEGIN")
    began = time.monotonic()
    table.protect(tenant_column="tenant_id", rewrite=False)
    took = time.monotonic() - began
    owner.run("COMMIT")
    # The exclusive lock is a part of that. On a quiet machine it is 20 ms.
    assert took < 0.5, f"{took * 1000:.0f} ms"
