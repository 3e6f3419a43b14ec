"""Requests to KMS: a line in the log each, ids in the events of the acts that took them, and the join with CloudTrail."""

import json
from datetime import UTC, datetime

import pytest

from audit import events, kms_lines, lines, mark
from support import fails


def cloudtrail(call, **more):
    """A record of CloudTrail as KMS would have written of this line of ours."""
    return {
        "eventSource": "kms.amazonaws.com", "eventName": call["operation"], "eventTime": call["at"][:19] + "Z",
        "requestID": call["request_id"], "userIdentity": {"arn": "arn:aws:iam::444455556666:role/database"},
        "requestParameters": {
            "keyId": call["key_uri"],
            "encryptionContext": {"cmk_encrypt": "v1", "purpose": call["purpose"], "tenant": call["tenant"]},
        },
        "resources": [{"ARN": call["key_uri"], "type": "AWS::KMS::Key"}],
        **more,
    }


def matched(dba, tenant, records, calls=None):
    calls = None if calls is None else json.dumps(calls)
    rows = dba.all("SELECT request_id, side, act, explanation FROM cmk.match_cloudtrail(%s, %s, %s)",
                   str(tenant), json.dumps({"Records": records}), calls)
    return {row[0]: row[1:] for row in rows}


def test_every_request_is_one_line(dba, tenant, server, app):
    start, acme = mark(server), tenant()
    seen = [(it["operation"], it["outcome"], it["purpose"]) for it in kms_lines(server, start, tenant=acme.name)]
    assert seen == [("GenerateDataKeyWithoutPlaintext", "success", "values"), ("Decrypt", "success", "values")]
    for line in kms_lines(server, start, tenant=acme.name):
        assert line["key_uri"] == acme.key_uri and line["request_id"] and line["database"] == "sessions"
        assert abs(datetime.fromisoformat(line["at"]).timestamp() - datetime.now(UTC).timestamp()) < 60
        assert 0 <= line["ms"] < 60_000


def test_an_act_has_the_ids_of_its_requests(dba, tenant, server, app):
    start, acme = mark(server), tenant()
    app.encrypt(acme)
    dba.run("SELECT cmk.rotate_tenant(%s)", acme.name)
    dba.run("SELECT cmk.evict(%s)", acme.name)
    ids = dict(events(dba, acme, "act", "kms_request_ids"))
    logged = [line["request_id"] for line in kms_lines(server, start, key_uri=acme.key_uri)]
    # A registration also has KMS refuse a wrong encryption context.
    assert ids["register_tenant"] == logged[:3] and ids["rotate_tenant"] == logged[-2:]
    assert ids["grant_access"] == [] and ids["evict"] == []


def test_a_refused_act_has_the_ids_of_its_requests_in_the_log(dba, tenant, server, kms):
    start, acme = mark(server), tenant()
    kms.state(acme.key_uri, "Disabled")
    with fails("55000", "key_disabled", acme):
        dba.run("SELECT cmk.rotate_tenant(%s)", acme.name)
    [refused] = lines(server, start, tenant=acme.name, outcome="refused")
    [failed] = kms_lines(server, start, tenant=acme.name, outcome="key_disabled")
    assert refused["kms_request_ids"] == [failed["request_id"]] and refused["reason"] == "key_disabled"


def test_local_keys_leave_lines_without_ids(local_tenant, server):
    start, acme = mark(server), local_tenant()
    assert {line["request_id"] for line in kms_lines(server, start, tenant=acme.name)} == {None}


def test_cloudtrail_is_joined_by_the_request_id(dba, tenant, server, app, session):
    start, acme, other = mark(server), tenant(), tenant()
    session(app.role).decrypt(acme, app.encrypt(acme))
    calls = kms_lines(server, start)
    ours = [line for line in calls if line["key_uri"] == acme.key_uri]
    made, unwrapped, refused, *later = ours
    stranger = cloudtrail({**unwrapped, "request_id": "stranger"}, userIdentity={"arn": "arn:aws:iam::444455556666:user/eve"})
    records = [cloudtrail(line) for line in calls if line is not made] + [stranger]
    seen = matched(dba, acme, records, calls)
    assert set(seen) == {line["request_id"] for line in ours} | {"stranger"}
    assert seen[made["request_id"]][:2] == ("ours_only", "register_tenant")
    assert seen[unwrapped["request_id"]] == ("both", "register_tenant", "the same request on both sides")
    assert seen[refused["request_id"]][:2] == ("both", "register_tenant") and refused["tenant"] == "*"
    assert "another user of the key" in seen["stranger"][2]
    # Without the log, what is no act's is told to be looked for there.
    without = matched(dba, acme, records)
    for line in later:
        assert seen[line["request_id"]][:2] == ("both", None)
        assert "server log" in without[line["request_id"]][2]


def test_what_aws_denies_across_accounts_is_explained(dba, tenant, server, kms, app):
    start, acme = mark(server), tenant()
    kms.deny(acme.key_uri)
    with fails("55000", "key_access_denied", acme):
        dba.run("SELECT cmk.rotate_tenant(%s)", acme.name)
    calls = kms_lines(server, start, key_uri=acme.key_uri)
    records = [cloudtrail(line) for line in calls if line["outcome"] != "key_access_denied"]
    # Asked twice: a denial is confirmed with credentials that were just resolved.
    denied = [it for it in matched(dba, acme, records, calls).values() if it[0] != "both"]
    assert denied
    for side, _, told in denied:
        assert side == "ours_only" and "caller's account only" in told


@pytest.mark.parametrize("given, calls, argument", [("{}", None, "events"), ("[1]", None, "events"), ("[]", "{}", "calls")])
def test_what_is_no_cloudtrail_is_refused(dba, local_tenant, given, calls, argument):
    with fails("22023", "cloudtrail") as caught:
        dba.run("SELECT cmk.match_cloudtrail(%s, %s, %s)", local_tenant().name, given, calls)
    assert f"argument={argument}" in caught.value.diag.message_detail
