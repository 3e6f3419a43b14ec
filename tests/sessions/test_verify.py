"""cmk.verify_tenant: what it sees of a key that is well, and of one that is not; and that it changes nothing."""

import json
import time

import pytest

from audit import events
from support import CANARY, fails, unique
from watched import import_material, rotate, schedule_deletion

WELL = {
    "key_exists", "key_enabled", "key_kind", "key_place", "key_origin", "multi_region", "rotation", "deletion",
    "wrapping", "unwrapping", "encryption_context", "data_key", "least_privilege",
}
REQUIRED = {"key_exists", "key_enabled", "key_kind", "key_place", "wrapping", "unwrapping", "encryption_context",
            "data_key", "data_keys"}
CONTEXT_CALL = {"cmk_encrypt": "v1", "purpose": "values", "tenant": "*"}


def verify(dba, tenant):
    """{check: [(status, seen, advice)]}"""
    found = {}
    for name, status, required, seen, advice in dba.all("SELECT * FROM cmk.verify_tenant(%s)", str(tenant)):
        assert required == (name in REQUIRED or name == "deletion" and status == "failed"), name
        assert (advice is None) == (status == "ok") or name == "key_origin", (name, status, advice)
        found.setdefault(name, []).append((status, seen, advice))
    return found


def statuses(dba, tenant):
    return {name: {status for status, _, _ in rows} for name, rows in verify(dba, tenant).items()}


def bad(dba, tenant):
    return {name: max(found) for name, found in statuses(dba, tenant).items() if found != {"ok"}}


# What a key policy keeps to its owner.
OWNERS = ["GetKeyPolicy", "CreateGrant"]


@pytest.fixture
def healthy(tenant, kms):
    """A tenant with nothing to warn of."""
    made = tenant()
    rotate(kms, made.key_uri)
    kms.deny(made.key_uri, operations=OWNERS)
    return made


# What it sees


def test_a_key_that_is_well_passes_every_check(dba, healthy):
    found = verify(dba, healthy)
    assert set(found) == WELL
    assert {name for name, rows in found.items() if [row[0] for row in rows] != ["ok"]} == set()
    assert found["key_exists"][0][1] == "state Enabled"
    assert found["key_kind"][0][1] == "SYMMETRIC_DEFAULT ENCRYPT_DECRYPT"
    assert found["key_place"][0][1] == "account 111122223333, Region eu-central-1"
    assert found["rotation"][0][1] == "every 365 days"
    assert found["data_key"][0][1] == "version 1, for values: unwraps, and is the registered one"


def test_a_local_key_passes_with_what_there_is_to_see(dba, local_tenant):
    tenant = local_tenant()
    assert bad(dba, tenant) == {}
    assert verify(dba, tenant)["encryption_context"] == [("ok", "refused for another tenant's", None)]


def test_it_unwraps_each_data_key_once_and_nothing_is_stored(dba, healthy, kms):
    for _ in range(8):
        dba.run("SELECT cmk.rotate_tenant(%s)", healthy.name)
    dba.run("SELECT cmk.rotate_index_key(%s)", healthy.name)
    rows = "SELECT t::text, (SELECT string_agg(k::text, '' ORDER BY version) FROM cmk.data_key k WHERE k.tenant = t.tenant)" \
           " FROM cmk.tenant t WHERE tenant = %s"
    before, calls = dba.row(rows, healthy.name), len(kms.log(healthy.key_uri))
    found = verify(dba, healthy)
    assert [status for status, _, _ in found["data_key"]] == ["ok"] * 10
    made = kms.log(healthy.key_uri)[calls:]
    unwraps = [call for call in made if call["operation"] == "Decrypt"]
    assert len([call for call in unwraps if call["outcome"] == "Success"]) == 10, "one unwrap each"
    assert [call["encryption_context"] for call in unwraps if call["outcome"] != "Success"] == [CONTEXT_CALL]
    assert len([call for call in made if call["operation"] == "GenerateDataKeyWithoutPlaintext"]) == 1
    assert len(made) == 10 + 6
    assert dba.row(rows, healthy.name) == before


def test_a_pending_tenant_is_verified_before_its_activation(dba, tenant, kms):
    pending = tenant(activate=False)
    rotate(kms, pending.key_uri)
    kms.deny(pending.key_uri, operations=OWNERS)
    found = verify(dba, pending)
    assert set(found) == WELL - {"data_key"} | {"data_keys"}
    assert found["data_keys"] == [("ok", "none yet", None)]
    assert {status for rows in found.values() for status, _, _ in rows} == {"ok"}
    assert dba.one("SELECT count(*) FROM cmk.data_key WHERE tenant = %s", pending.name) == 0
    kms.deny(pending.key_uri)
    assert bad(dba, pending)["wrapping"] == "failed"
    kms.deny(pending.key_uri, False)
    assert dba.one("SELECT cmk.activate_tenant(%s)", pending.name) == "active"


def test_a_suspended_tenant_is_verified_and_a_shredded_one_is_not(dba, healthy):
    dba.run("SELECT cmk.suspend_tenant(%s)", healthy.name)
    assert bad(dba, healthy) == {}
    dba.run("SELECT cmk.shred_tenant(%s, %s, immediately => true)", healthy.name, healthy.name)
    with fails("55000", "tenant_shredded", healthy):
        verify(dba, healthy)
    with fails("42704", "unknown_tenant", "nobody"):
        verify(dba, "nobody")
    with fails("22004", "null_argument"):
        dba.run("SELECT cmk.verify_tenant(NULL)")


# What is wrong


USES = {"wrapping", "unwrapping", "encryption_context", "data_key"}
STATES = {
    "Disabled": ("key_disabled", {"key_enabled"}),
    "PendingDeletion": ("key_pending_deletion", {"key_enabled", "deletion"}),
    "PendingImport": ("key_invalid_state", {"key_enabled"}),
    "Deleted": ("key_not_found", {"key_exists", "key_enabled", "key_kind", "key_place"}),
}


@pytest.mark.parametrize("state", STATES)
def test_a_key_in_another_state_is_reported_and_not_raised(dba, healthy, kms, state):
    reason, facts = STATES[state]
    dba.run("SELECT cmk.rotate_tenant(%s)", healthy.name)
    kms.state(healthy.key_uri, state)
    calls = kms.calls(healthy.key_uri)
    found = verify(dba, healthy)
    failed = {name for name, rows in found.items() if rows[0][0] == "failed"}
    assert failed == USES | facts
    assert all(reason in seen for name in USES for _, seen, _ in found[name])
    assert len(found["data_key"]) == 2
    assert kms.calls(healthy.key_uri) - calls <= 1, "the others were not asked for"
    kms.state(healthy.key_uri, "Enabled")
    # Nothing of it is remembered.
    assert bad(dba, healthy) == {}


def test_an_outage_is_reported(dba, server, healthy, kms):
    with server.settings(kms_max_attempts=1), kms.fault("status", arn=healthy.key_uri, status=500):
        found = verify(dba, healthy)
    assert found["wrapping"][0][0] == found["key_exists"][0][0] == "failed"
    assert "reason=kms_server_error" in found["unwrapping"][0][1]
    assert bad(dba, healthy) == {}


def test_what_the_owner_lets_us_not_see_is_said_with_what_is_lost(dba, healthy, kms):
    kms.deny(healthy.key_uri, operations=[*OWNERS, "DescribeKey", "GetKeyRotationStatus"])
    found = verify(dba, healthy)
    assert {name for name, rows in found.items() if rows[0][0] != "ok"} == {"permission"}
    (_, describe, lost), (_, rotation, _) = found["permission"]
    assert (describe, rotation) == ("kms:DescribeKey is not allowed to us", "kms:GetKeyRotationStatus is not allowed to us")
    assert "deletion" in lost
    assert found["key_enabled"] == [("ok", "not told, but KMS uses it", None)]


def test_warnings_are_of_rotation_expiry_and_deletion(dba, tenant, kms):
    never, imported, doomed = tenant(), tenant(), tenant()
    for made in (never, imported, doomed):
        kms.deny(made.key_uri, operations=OWNERS)
    assert bad(dba, never) == {"rotation": "warning"}
    import_material(kms, imported.key_uri, int(time.time()) + 10 * 86_400)
    assert bad(dba, imported)["key_origin"] == "warning"
    schedule_deletion(kms, doomed.key_uri, 2_000_000_000)
    assert verify(dba, doomed)["deletion"][0][:2] == ("failed", "scheduled for 2033-05-18T03:33:20Z")


def test_a_data_key_that_does_not_unwrap_is_named(dba, healthy):
    dba.run("SELECT cmk.rotate_tenant(%s)", healthy.name)
    other = dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s AND version = 1", healthy.name)
    dba.run("ALTER TABLE cmk.data_key DISABLE TRIGGER guard_row")
    try:
        dba.run("UPDATE cmk.data_key SET wrapped = %b WHERE tenant = %s AND version = 2", other, healthy.name)
    finally:
        dba.run("ALTER TABLE cmk.data_key ENABLE ALWAYS TRIGGER guard_row")
    rows = verify(dba, healthy)["data_key"]
    assert [row[0] for row in rows] == ["ok", "failed"]
    assert rows[1][1] == "version 2, for values: reason=commitment_mismatch"


def test_data_keys_that_the_registry_lost_are_missed(session, database, server):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared'), cmk.rotate_tenant('acme')")
    dba.run("UPDATE cmk.data_key SET state = 'destroyed', wrapped = NULL WHERE version = 1")
    dba.run("DELETE FROM cmk.data_key WHERE version = 1")
    assert bad(dba, "acme") == {"data_keys": "failed"}


def policy(*actions, principal):
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_rights_to_manage_the_key_are_reported(dba, tenant, kms):
    made = tenant()

    def least_privilege(text):
        kms._call("POST", "/_control/policy", {"arn": made.key_uri, "policy": text})
        (row,) = verify(dba, made)["least_privilege"]
        return row[:2]

    us = kms._call("GET", "/_control/log")[-1]["access_key_id"]
    assert us
    uses, manages = ("kms:Decrypt",), ("kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DisableKey")
    status, seen = least_privilege(policy(*uses, principal="*"))
    assert status == "failed" and "anybody at all" in seen
    status, seen = least_privilege(policy(*uses, *manages, principal="arn:aws:iam::111122223333:root"))
    assert status == "warning" and seen == "allowed to us: kms:CreateGrant", seen
    kms.deny(made.key_uri, operations=["CreateGrant"])
    status, seen = least_privilege(policy(*uses, principal="arn:aws:iam::444455556666:root"))
    assert (status, seen) == ("ok", "the key policy allows us nothing that manages the key")


# A KMS that binds nothing


def test_a_kms_that_ignores_the_encryption_context_is_found_out(dba, healthy, kms):
    with kms.fault("any_context", arn=healthy.key_uri):
        found = verify(dba, healthy)
    status, seen, advice = found["encryption_context"][0]
    assert (status, seen) == ("failed", "accepted for another tenant's") and "stands between" in advice
    assert {name for name, rows in found.items() if rows[0][0] != "ok"} == {"encryption_context"}


def test_nobody_is_activated_under_it(dba, tenant, kms):
    pending, name = tenant(activate=False), unique("tenant")
    with kms.fault("any_context", arn=pending.key_uri):
        for call, arguments, who in (
            ("activate_tenant(%s)", (pending.name,), pending.name),
            ("register_tenant(%s, %s)", (name, pending.key_uri), name),
        ):
            with fails("55000", "verification_failed", who) as caught:
                dba.run(f"SELECT cmk.{call}", *arguments)
            assert "failed=encryption_context" in caught.value.diag.message_detail
    assert dba.all("SELECT state FROM cmk.tenant WHERE tenant = ANY(%s)", [pending.name, name]) == [("pending",)]
    calls = kms.log(pending.key_uri)
    assert dba.one("SELECT cmk.activate_tenant(%s)", pending.name) == "active"
    made = [(call["operation"], call["outcome"]) for call in kms.log(pending.key_uri)[len(calls):]]
    assert [operation for operation, _ in made] == ["GenerateDataKeyWithoutPlaintext", "Decrypt", "Decrypt"]


# Where, and what is left of it


def test_a_read_only_transaction_may_verify(dba, healthy):
    dba.run("SET default_transaction_read_only = on")
    assert bad(dba, healthy) == {}
    dba.run("RESET default_transaction_read_only")


def test_it_is_an_event_that_says_what_failed(dba, healthy, kms, app):
    verify(dba, healthy)
    kms.state(healthy.key_uri, "Disabled")
    verify(dba, healthy)
    seen = [after for act, after in events(dba, healthy.name, "act", "after") if act == "verify_tenant"]
    assert seen[0] == {"failed": [], "warnings": []}
    assert "key_enabled" in seen[1]["failed"]
    kms.state(healthy.key_uri, "Enabled")
    assert app.decrypt(healthy, app.encrypt(healthy)) == CANARY
