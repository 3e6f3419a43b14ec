"""Policies, linted, and held against what AWS publishes of its actions and condition keys."""

import json

import pytest
from node_programs import ask
from parliament import analyze_policy_string
from world import KEY, KEYS, OTHER_KEY, OWNER_ACCOUNT, ROLE_ACCOUNT


def role(account):
    return {"role_arn": f"arn:aws:iam::{account}:role/cmk", "external_id": "globex-5c0a1f"}


@pytest.fixture(params=["direct", "role", "role of a third account", "moving", "moving to a role"])
def policies(request, onboard):
    """All policies of a tenant, by name."""
    kind = request.param
    options = {"role": role(OWNER_ACCOUNT), "role of a third account": role(ROLE_ACCOUNT)}.get(kind, {})
    globex = onboard("globex", KEY, **options)
    if kind.startswith("moving"):
        globex.move_to(OTHER_KEY, role(OWNER_ACCOUNT) if kind == "moving to a role" else {})
    returned = globex.key_policy()
    found = {"whole": globex.whole_policy(), "service": globex.service_policy()}
    for side in (returned, returned.get("next", {})):
        found |= {f"{name} of {side['key']}": policy for name, policy in side.items() if name.endswith("_policy")}
    return found


def findings(policy):
    """Of a resource's policy, as one of whom it is for: parliament lints what is attached to identities. In a key's
    policy, "*" means the key."""
    ours = [statement for statement in policy["Statement"] if statement["Sid"] != "OwnAccount"]
    statements = [{name: value for name, value in it.items() if name != "Principal"} for it in ours]
    for statement in statements:
        if statement.get("Resource") == "*":
            statement["Resource"] = KEY
        if statement["Action"] == "sts:AssumeRole":
            statement.setdefault("Resource", f"arn:aws:iam::{OWNER_ACCOUNT}:role/cmk")
    text = json.dumps({**policy, "Statement": statements})
    return [(finding.issue, finding.detail) for finding in analyze_policy_string(text).findings]


def test_no_policy_has_findings(policies):
    assert policies
    for name, policy in policies.items():
        # Of a key that is used as a role of its own account's, the policy needs nothing of ours.
        assert len(policy["Statement"]) == 1 or findings(policy) == [], name


def test_the_linter_finds_something(onboard):
    policy = onboard("globex").key_policy()["key_policy"]
    policy["Statement"][0]["Action"] = ["kms:Decript"]
    assert findings(policy)


def test_every_action_knows_the_condition_keys_that_it_is_asked_for(policies):
    for policy in policies.values():
        for statement in policy["Statement"]:
            if statement["Sid"] == "OwnAccount" or "sts:AssumeRole" in statement["Action"]:
                continue
            actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            wanted = {key for keys in statement.get("Condition", {}).values() for key in keys}
            wanted = {"kms:EncryptionContext:${EncryptionContextKey}" if "Context:" in key else key for key in wanted}
            for action, known in zip(actions, ask("condition_keys.mjs", actions)):
                assert wanted <= set(known), (action, wanted - set(known))


def test_every_action_is_one_of_those_that_we_call(policies):
    """The list that a reviewer reads: anything beyond it has to be written here."""
    allowed = {"kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt", "kms:DescribeKey", "kms:GetKeyRotationStatus"}
    rewrap = {"kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:Encrypt"}
    for policy in policies.values():
        for statement in policy["Statement"]:
            actions = {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
            if statement["Sid"] == "OwnAccount":
                assert actions == {"kms:*"} and statement["Principal"]["AWS"].endswith(f"{OWNER_ACCOUNT}:root")
            elif "Rewrap" in statement["Sid"]:
                assert actions <= rewrap
            else:
                assert actions <= allowed or actions == {"sts:AssumeRole"}
            assert statement["Effect"] == "Allow" and "NotAction" not in statement and "NotPrincipal" not in statement


@pytest.mark.parametrize("tenants", [1, 40, 400])
def test_a_policy_for_many_has_no_findings(onboard, connect, tenants):
    for number in range(tenants):
        options = role(OWNER_ACCOUNT) if number % 2 else {}
        onboard(f"tenant-{number}", f"{KEYS}1234abcd-12ab-34cd-56ef-{number:012x}", **options)
    policy = connect().one("SELECT cmk.service_policy()")
    assert findings(policy) == []
    assert len(json.dumps(policy, separators=(",", ":"))) <= 6144
