"""`cmk.rewrap_tenant`: a tenant moves to another key, and each new wrapping is proven before it is kept."""

import pytest

from audit import events, lines, mark
from dumps import copy
from provocations import shred, unguarded
from rewrap import ELSEWHERE, ROUTES, Moving
from support import CANARY, fails, flip

KEYS = Moving.KEYS


@pytest.fixture
def move(dba, app, tenant):
    """A tenant to move. Its key is in the fake KMS unless told otherwise."""
    return lambda *arguments, **options: Moving.make(dba, app, tenant(*arguments, **options))


@pytest.fixture
def role_key(kms):
    """A key that lets in one role alone, and the options that it is used with."""
    role, arn = kms.role("acme-2"), kms.key()
    kms.principals(arn, [role])
    return arn, {"role_arn": role, "external_id": "acme-2"}


@pytest.fixture
def calls(kms):
    """How often each operation was asked for since the last time."""
    seen = {}

    def since():
        now = kms.counters()["by_operation"]
        fresh = {name: count - seen.get(name, 0) for name, count in now.items() if count > seen.get(name, 0)}
        seen.update(now)
        return fresh

    since()
    return since


# Ways from one key to another


@pytest.mark.parametrize("where, route", [
    ({}, "kms"), ({"account": ELSEWHERE}, "kms"), ({"region": "us-east-1"}, "us"),
], ids=["another key", "another account", "another Region"])
def test_until_it_is_confirmed_nothing_changes_and_then_the_new_key_alone_counts(
    session, kms, move, calls, where, route
):
    tenant, new = move(), kms.key(**where)
    warm, cold = session(tenant.app.role), session(tenant.app.role)
    assert tenant.opens(warm)
    calls()
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    expected = {operation: KEYS * ROUTES[route].count(operation) for operation in ROUTES[route]}
    assert calls() == expected
    assert tenant.key() == (tenant.key_uri, [tenant.key_uri], KEYS)
    tenant.evict()
    assert tenant.opens(cold) and tenant.opens(warm)
    assert kms.calls(new) - expected["Decrypt"] in (0, -KEYS)
    calls()
    assert tenant.confirm() == KEYS
    assert calls() == {"Decrypt": KEYS}
    assert tenant.key() == (new, [new], 0)
    kms.state(tenant.key_uri, "Deleted")
    for user in (warm, cold, session(tenant.app.role)):
        assert tenant.opens(user)
        assert user.decrypt(tenant, user.encrypt(tenant)) == CANARY
    assert tenant.dba.one("SELECT cmk.rotate_tenant(%s)", tenant.name) == KEYS + 1
    kms.state(new, "Disabled")
    tenant.evict()
    with fails("55000", "key_disabled", tenant):
        tenant.opens()


def test_the_encryption_context_stays(kms, move):
    tenant, new = move(), kms.key()
    tenant.begin(new)
    moved = [entry for entry in kms.log(tenant.key_uri) if entry["operation"] == "ReEncrypt"]
    contexts = [entry["encryption_context"] for entry in moved]
    assert contexts == [tenant.context] * 3 + [{**tenant.context, "purpose": "index"}]


def test_our_own_key_first_and_the_tenants_later_and_back(kms, move, calls):
    tenant, new = move("local:shared"), kms.key()
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert calls() == {"Encrypt": KEYS, "Decrypt": KEYS}
    assert tenant.confirm() == KEYS and tenant.opens()
    assert tenant.begin("local:shared") == (KEYS, KEYS, 0, None)
    assert tenant.confirm() == KEYS
    kms.state(new, "Deleted")
    assert tenant.opens() and tenant.key() == ("local:shared", ["local:shared"], 0)


def test_a_role_of_the_new_owner_is_assumed(session, kms, move, calls, role_key):
    tenant, (new, options) = move(), role_key
    assert tenant.begin(new, **options) == (KEYS, KEYS, 0, None)
    # The old key does not know the role.
    assert calls()["Encrypt"] == KEYS
    assert tenant.confirm() == KEYS
    stored = tenant.dba.row("SELECT options, next_options FROM cmk.tenant WHERE tenant = %s", tenant.name)
    assert stored == (options, None)
    assert tenant.opens() and tenant.opens(session(tenant.app.role))


def test_the_same_key_can_be_moved_to_another_role(kms, move, role_key):
    tenant, (_, options) = move(), role_key
    assert tenant.begin(tenant.key_uri, **options) == (KEYS, KEYS, 0, None)
    assert tenant.confirm() == KEYS and tenant.opens()


@pytest.mark.parametrize("denied", [["ReEncryptFrom"], ["ReEncryptTo"]])
def test_without_the_permission_to_re_encrypt_it_goes_the_long_way(kms, move, calls, denied):
    tenant, new = move(), kms.key()
    for arn in (tenant.key_uri, new):
        kms.deny(arn, operations=denied)
    calls()
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert calls() == {"ReEncrypt": 1, "Encrypt": KEYS, "Decrypt": 2 * KEYS}
    assert tenant.confirm() == KEYS and tenant.opens()


@pytest.mark.parametrize("gone", ["Deleted", "Disabled", "outage"])
def test_where_the_key_is_gone_its_replica_takes_over(session, kms, move, calls, gone):
    tenant = move(kms.key(multi_region=True))
    replica = kms.replica(tenant.key_uri)
    if gone == "outage":
        fault = kms.fault("status", tenant.key_uri, status=500)
    else:
        kms.state(tenant.key_uri, gone)
        fault = kms.fault("delay", tenant.key_uri, times=0)
    with fault:
        tenant.evict()
        with fails(*(("58000", "kms_server_error") if gone == "outage" else
                     ("55000", {"Deleted": "key_not_found", "Disabled": "key_disabled"}[gone]))):
            tenant.opens()
        calls()
        assert tenant.begin(replica) == (KEYS, KEYS, 0, None)
        assert calls() == {"Decrypt": KEYS}
        assert tenant.dba.one("SELECT bool_and(wrapped = next_wrapped) FROM cmk.data_key WHERE tenant = %s",
                              tenant.name)
        assert tenant.confirm() == KEYS
        assert tenant.opens() and tenant.opens(session(tenant.app.role))


# Step by step


@pytest.mark.parametrize("works", range(KEYS))
@pytest.mark.parametrize("operation", ["ReEncrypt", "Decrypt"])
def test_what_was_proven_before_a_failure_is_kept_and_the_next_call_goes_on(kms, move, calls, operation, works):
    tenant, new = move(), kms.key()
    before = tenant.registry()
    with kms.fault_after(works, "status", new, operation, status=400, code="ValidationException"):
        # Where KMS does not re-encrypt, it goes the long way.
        if operation == "ReEncrypt":
            assert tenant.begin(new) == (KEYS, KEYS, 0, None)
            return
        if works == 0:
            with fails("F0000", "kms_rejected", tenant) as caught:
                tenant.begin(new)
            assert "key=next" in caught.value.diag.message_detail
            assert tenant.registry() == before and tenant.progress() == (None, None, None)
            return
        data_keys, rewrapped, remaining, problem = tenant.begin(new)
        assert (data_keys, rewrapped, remaining) == (KEYS, works, KEYS - works)
        assert f"reason=kms_rejected tenant={tenant.name} key=next" in problem
    assert tenant.progress() == (new, works, KEYS - works)
    assert tenant.opens() and tenant.key() == (tenant.key_uri, [tenant.key_uri], works)
    with fails("55000", "rewrap_incomplete", tenant) as caught:
        tenant.confirm()
    assert f"remaining={KEYS - works}" in caught.value.diag.message_detail
    calls()
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert calls() == {"ReEncrypt": KEYS - works, "Decrypt": KEYS - works}
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert calls() == {}
    assert tenant.confirm() == KEYS and tenant.opens()


@pytest.mark.parametrize("operations", [["Decrypt"], ["Encrypt", "ReEncryptTo"], None], ids=["unwrap", "wrap", "all"])
def test_a_key_that_does_not_both_wrap_and_unwrap_is_never_kept(kms, move, operations):
    tenant, new = move(), kms.key()
    before = tenant.registry()
    kms.deny(new, operations=operations)
    with fails("55000", "key_access_denied", tenant) as caught:
        tenant.begin(new)
    assert "key=next" in caught.value.diag.message_detail
    assert tenant.registry() == before
    # Nothing of it is said of the tenant's own key.
    assert tenant.dba.one("SELECT key_state FROM cmk.status WHERE tenant = %s", tenant.name) == "usable"
    assert tenant.opens()


def test_what_no_longer_unwraps_is_not_put_into_force(session, kms, move):
    tenant, new = move(), kms.key()
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    before = tenant.registry()
    kms.state(new, "Disabled")
    with fails("55000", "key_disabled", tenant) as caught:
        tenant.confirm()
    assert "key=next" in caught.value.diag.message_detail
    assert tenant.registry() == before and tenant.opens(session(tenant.app.role))
    kms.state(new, "Enabled")
    assert tenant.confirm() == KEYS


def test_a_new_wrapping_of_another_data_key_is_not_put_into_force(kms, move):
    tenant, new = move(), kms.key()
    tenant.begin(new)
    with unguarded(tenant.dba):
        tenant.dba.run(
            "UPDATE cmk.data_key SET next_wrapped = (SELECT next_wrapped FROM cmk.data_key"
            " WHERE tenant = %s AND version = 2) WHERE tenant = %s AND version = 1", tenant.name, tenant.name)
    with fails("39000", "commitment_mismatch", tenant):
        tenant.confirm()
    assert tenant.cancel() and tenant.opens()


def test_one_damaged_data_key_does_not_keep_the_others(kms, move):
    tenant, new = move(), kms.key()
    wrapped = tenant.dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s AND version = 1", tenant.name)
    with unguarded(tenant.dba):
        damage = "UPDATE cmk.data_key SET wrapped = %b WHERE tenant = %s AND version = 1"
        tenant.dba.run(damage, flip(wrapped, len(wrapped) * 8 - 1), tenant.name)
    *counts, problem = tenant.begin(new)
    assert counts == [KEYS, KEYS - 1, 1] and "reason=wrapped_key_rejected" in problem
    with unguarded(tenant.dba):
        tenant.dba.run(damage, wrapped, tenant.name)
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert tenant.confirm() == KEYS and tenant.opens()


def test_a_data_key_that_is_made_meanwhile_is_moved_too(kms, move):
    tenant, new = move(), kms.key()
    tenant.begin(new)
    tenant.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    late = tenant.app.encrypt(tenant)
    assert tenant.progress() == (new, KEYS, 1)
    with fails("55000", "rewrap_incomplete", tenant):
        tenant.confirm()
    assert tenant.begin(new) == (KEYS + 1, KEYS + 1, 0, None)
    assert tenant.confirm() == KEYS + 1
    assert tenant.opens() and tenant.app.decrypt(tenant, late) == CANARY


def test_cancelled_it_leaves_nothing_and_another_target_is_free(kms, move):
    tenant, new, other = move(), kms.key(), kms.key()
    before = tenant.registry()
    tenant.begin(new)
    with fails("55000", "rewrap_pending", tenant) as caught:
        tenant.begin(other)
    assert f"next_key_uri={new}" in caught.value.diag.message_detail
    with fails("55000", "rewrap_pending", tenant):
        tenant.begin(new, role_arn=kms.role("x1"), external_id="x1")
    assert tenant.cancel() is True and tenant.cancel() is False
    assert tenant.registry() == before
    with fails("55000", "no_rewrap", tenant):
        tenant.confirm()
    assert tenant.begin(other) == (KEYS, KEYS, 0, None)
    assert tenant.confirm() == KEYS and tenant.opens()


def test_a_rollback_leaves_nothing(session, kms, move):
    tenant, new = move(), kms.key()
    before = tenant.registry()
    tenant.dba.run("BEGIN")
    tenant.begin(new)
    tenant.confirm()
    tenant.dba.run("ROLLBACK")
    assert tenant.registry() == before
    tenant.begin(new)
    tenant.dba.run("BEGIN")
    tenant.dba.run("SAVEPOINT s")
    tenant.confirm()
    assert tenant.dba.one("SELECT key_uri FROM cmk.tenant WHERE tenant = %s", tenant.name) == new
    tenant.dba.run("ROLLBACK TO s")
    tenant.dba.run("COMMIT")
    assert tenant.key() == (tenant.key_uri, [tenant.key_uri], KEYS)
    tenant.evict()
    kms.state(new, "Disabled")
    assert tenant.opens() and tenant.opens(session(tenant.app.role))


# What it costs


def test_it_is_paid_out_of_the_tenants_call_budget(server, kms, move):
    tenant, new = move(), kms.key()
    # For two data keys and a bit: what was made before counts, too.
    with server.settings(tenant_call_budget=5):
        *counts, problem = tenant.begin(new)
        assert counts == [KEYS, 2, 2] and "reason=call_budget_spent" in problem
        with fails("53000", "call_budget_spent", tenant):
            tenant.begin(new)
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    # The confirmation is counted, not refused: else it would never come to its end.
    with server.settings(tenant_call_budget=1):
        assert tenant.confirm() == KEYS
    assert tenant.opens()


# States of tenants


def test_a_pending_tenant_gets_the_key_at_once(dba, app, kms, tenant, calls):
    made, new = tenant(activate=False), kms.key()
    calls()
    row = dba.row("SELECT * FROM cmk.rewrap_tenant(%s, %s)", made.name, new)
    assert row == (0, 0, 0, None) and calls() == {}
    assert dba.row("SELECT key_uri, next_key_uri, state FROM cmk.tenants WHERE tenant = %s", made.name) == (
        new, None, "pending")
    kms.state(made.key_uri, "Deleted")
    dba.run("SELECT cmk.activate_tenant(%s)", made.name)
    assert app.decrypt(made, app.encrypt(made)) == CANARY
    assert dba.one("SELECT wrapped_by FROM cmk.data_key WHERE tenant = %s", made.name) == new


def test_a_suspended_tenant_moves_and_stays_suspended(kms, move):
    tenant, new = move(), kms.key()
    tenant.dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    assert tenant.begin(new) == (KEYS, KEYS, 0, None)
    assert tenant.confirm() == KEYS
    with fails("55000", "tenant_suspended", tenant):
        tenant.opens()
    tenant.dba.run("SELECT cmk.resume_tenant(%s)", tenant.name)
    assert tenant.opens()


def test_a_shredded_tenant_has_nothing_to_move(dba, kms, tenant):
    made = tenant()
    shred(dba, made)
    for call in (f"rewrap_tenant('{made.name}', '{kms.key()}')", f"confirm_rewrap('{made.name}')",
                 f"cancel_rewrap('{made.name}')"):
        with fails("55000", "tenant_state_conflict", made):
            dba.run(f"SELECT cmk.{call}")


def test_a_destroyed_data_key_leaves_no_wrapping_behind(kms, move):
    tenant, new = move(), kms.key()
    tenant.begin(new)
    destroy = "UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL{} WHERE tenant = %s AND version = 1"
    with pytest.raises(Exception, match="data_key_check"):
        tenant.dba.run(destroy.format(""), tenant.name)
    tenant.dba.run(destroy.format(", next_wrapped = NULL, next_wrapped_by = NULL"), tenant.name)
    assert tenant.progress() == (new, KEYS - 1, 0)
    assert tenant.confirm() == KEYS - 1
    assert tenant.begin(kms.key()) == (KEYS - 1, KEYS - 1, 0, None)


# What is refused


def test_the_tenants_own_key_is_no_target(kms, move):
    tenant, new = move(), kms.key()
    with fails("22023", "rewrap_target", tenant):
        tenant.begin(tenant.key_uri)
    tenant.begin(new)
    tenant.confirm()
    # A script that is run again hears that there is nothing left to do.
    with fails("22023", "rewrap_target", tenant):
        tenant.begin(new)


@pytest.mark.parametrize("arguments, sqlstate, reason", [
    ("NULL, 'local:shared'", "22004", "null_argument"),
    ("'{0}', NULL", "22004", "null_argument"),
    ("'{0}', 'local:shared', NULL", "22004", "null_argument"),
    ("'{0}', 'vault:x'", "22023", "key_uri"),
    ("'{0}', 'local:shared', '{{\"x\": 1}}'", "22023", "key_options"),
    ("'{0}-other', 'local:shared'", "42704", "unknown_tenant"),
])
def test_arguments_are_checked_before_anybody_is_asked(dba, kms, tenant, calls, arguments, sqlstate, reason):
    made = tenant()
    calls()
    with fails(sqlstate, reason):
        dba.run(f"SELECT cmk.rewrap_tenant({arguments.format(made.name)})")
    assert calls() == {}


@pytest.mark.parametrize("change", [
    "cmk.data_key SET wrapped = next_wrapped", "cmk.data_key SET wrapped_by = next_wrapped_by",
    "cmk.data_key SET wrapped = next_wrapped, wrapped_by = next_wrapped_by, next_wrapped = NULL, next_wrapped_by = NULL",
    "cmk.data_key SET next_wrapped = wrapped", "cmk.data_key SET next_wrapped_by = 'local:shared'",
    "cmk.tenant SET next_key_uri = 'local:shared'", "cmk.tenant SET next_options = '{\"x\": \"y\"}'",
])
def test_not_even_a_superuser_passes_by_the_proof(kms, move, change):
    tenant = move()
    tenant.begin(kms.key())
    before = tenant.registry()
    in_force = " wrapped" in change.split("=")[0]
    with fails(*(("2BP01", "keys_would_be_lost") if in_force else ("42501", "registry_write"))):
        tenant.dba.run(f"UPDATE {change} WHERE tenant = %s", tenant.name)
    assert tenant.registry() == before


def test_a_transaction_that_sees_the_past_does_not_undo_what_came_after(session, kms, move):
    tenant, other = move(), session()
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.run("SELECT 1 FROM cmk.tenants")
    tenant.begin(kms.key())
    with pytest.raises(Exception, match="could not serialize"):
        other.run("SELECT cmk.rewrap_tenant(%s, 'local:shared')", tenant.name)
    other.run("ROLLBACK")
    assert tenant.confirm() == KEYS


# What remains of it in the audit trail


def test_each_step_is_an_event(kms, move, role_key):
    tenant, (new, options) = move(), role_key
    with kms.fault_after(1, "status", new, "Decrypt", status=400, code="ValidationException"):
        tenant.begin(new, **options)
    tenant.begin(new, **options)
    tenant.begin(new, **options)  # has nothing to do
    tenant.cancel()
    tenant.cancel()
    tenant.begin(new, **options)
    tenant.confirm()
    seen = events(tenant.dba, tenant, "act", "before", "after")
    old, then = {"key_uri": tenant.key_uri, "options": {}}, {"key_uri": new, "options": options}
    target = {"next_key_uri": new, "next_options": options}
    done = {**target, "rewrapped": KEYS, "remaining": 0, "problem": None}
    assert [event for event in seen if "rewrap" in event[0]] == [
        ("rewrap_tenant", old, {**target, "rewrapped": 1, "remaining": KEYS - 1, "problem": "kms_rejected"}),
        ("rewrap_tenant", old, done),
        ("cancel_rewrap", target, None),
        ("rewrap_tenant", old, done),
        ("confirm_rewrap", old, {**then, "rewrapped": KEYS}),
    ]


def test_what_was_refused_leaves_a_line(server, kms, move):
    tenant, new = move(), kms.key()
    kms.deny(new)
    start = mark(server)
    with fails("55000", "key_access_denied", tenant):
        tenant.begin(new)
    with fails("55000", "no_rewrap", tenant):
        tenant.confirm()
    refused = [(line["act"], line["reason"]) for line in lines(server, start, tenant=tenant.name, outcome="refused")]
    assert refused == [("rewrap_tenant", "key_access_denied"), ("confirm_rewrap", "no_rewrap")]


# Copies of the database


@pytest.mark.parametrize("done", [2, KEYS])
def test_a_dump_carries_a_move_that_is_under_way(server, session, database, role, kms, tmp_path, done):
    source, target = database(), database(extension=False)
    dba, user, key, new = session(dbname=source), role(), kms.key(), kms.key()
    dba.run("SELECT cmk.register_tenant('acme', %s)", key)
    dba.run("SELECT cmk.grant_access('acme', %s)", user)
    moving = Moving.make(dba, session(user, dbname=source), Moving("acme", key, dba, None, ()))
    with kms.fault_after(done, "status", new, "Decrypt", status=500):
        moving.begin(new)
    copy(server, source, target, tmp_path / "archive")
    restored, reader = session(dbname=target), session(user, dbname=target)
    assert moving.progress(restored) == (new, done, KEYS - done)
    assert moving.opens(reader)
    assert moving.begin(new, by=restored) == (KEYS, KEYS, 0, None)
    assert moving.confirm(by=restored) == KEYS
    kms.state(key, "Disabled")
    assert moving.opens(reader) and moving.opens(session(user, dbname=target))
    assert moving.key() == (key, [key], done)


def test_options_of_the_target_are_told_as_they_are(dba, move, role_key):
    tenant, (new, options) = move(), role_key
    tenant.begin(new, **options)
    stored = dba.one("SELECT next_options FROM cmk.tenant WHERE tenant = %s", tenant.name)
    assert stored == options
