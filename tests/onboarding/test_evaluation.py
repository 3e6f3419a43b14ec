"""Policies as a simulator of IAM and KMS evaluates them: what we ask for is allowed, and nothing else."""

import pytest
from node_programs import ask
from world import (KEY, KEYS, NASTY, OTHER_KEY, OWNER_ACCOUNT, PRINCIPAL, ROLE_ACCOUNT, SERVICE_ACCOUNT, random_names)

SESSION = f"arn:aws:sts::{SERVICE_ACCOUNT}:assumed-role/postgres/i-0123456789abcdef0"
EXTERNAL_ID = "globex-5c0a1f"

USE = ["GenerateDataKeyWithoutPlaintext", "Decrypt"]
WATCH = ["DescribeKey", "GetKeyRotationStatus"]
FROM, TO = ["ReEncryptFrom"], ["ReEncryptTo", "Encrypt"]
# Whatever the context says
NEVER = [
    "GenerateDataKey", "GenerateDataKeyPair", "CreateGrant", "ListGrants", "RevokeGrant", "RetireGrant", "PutKeyPolicy",
    "GetKeyPolicy", "DisableKey", "EnableKey", "ScheduleKeyDeletion", "CancelKeyDeletion", "EnableKeyRotation",
    "DisableKeyRotation", "RotateKeyOnDemand", "UpdateKeyDescription", "TagResource", "ImportKeyMaterial",
    "DeleteImportedKeyMaterial", "ReplicateKey", "UpdatePrimaryRegion",
]


def context(tenant="globex", purpose="values", version="v1", **more):
    pairs = {"cmk_encrypt": version, "purpose": purpose, "tenant": tenant, **more}
    pairs = {key: value for key, value in pairs.items() if value is not None}
    names = {"kms:EncryptionContextKeys": list(pairs)} if pairs else {}
    return {**{f"kms:EncryptionContext:{key}": value for key, value in pairs.items()}, **names}


NO_CONTEXT = context(tenant=None, purpose=None, version=None)


class Side:
    """Whoever calls, and the policies of both sides."""

    def __init__(self, key_policy, identity_policy, caller=SESSION, key=KEY):
        self.key_policy, self.identity_policy, self.caller, self.key = key_policy, identity_policy, caller, key
        self.questions, self.expected = [], []

    def expect(self, result, actions, variables, **changed):
        for action in actions:
            key = changed.get("key", self.key)
            identity_policy = changed.get("identity_policy", self.identity_policy)
            self.questions.append({
                "request": {
                    "principal": changed.get("caller", self.caller), "action": f"kms:{action}",
                    "resource": {"resource": key, "accountId": OWNER_ACCOUNT}, "contextVariables": variables,
                },
                "identityPolicies": [{"name": "service", "policy": identity_policy}] if identity_policy else [],
                "resourcePolicy": changed.get("key_policy", self.key_policy),
                "serviceControlPolicies": [], "resourceControlPolicies": [],
            })
            self.expected.append((action, variables, sorted(changed), result))

    def allowed(self, actions, variables, **changed):
        self.expect("Allowed", actions, variables, **changed)

    def denied(self, actions, variables, **changed):
        self.expect("ImplicitlyDenied", actions, variables, **changed)

    def check(self):
        assert len(self.questions) > 3
        results = ask("simulate.mjs", self.questions)
        wrong = [(*asked, result) for asked, result in zip(self.expected, results) if asked[-1] != result]
        assert not wrong
        self.questions, self.expected = [], []


@pytest.fixture
def side(onboard):
    globex = onboard("globex")
    return Side(globex.whole_policy(), globex.service_policy())


DEFAULT_KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{
        "Sid": "Enable IAM User Permissions", "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{OWNER_ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*",
    }],
}


def test_what_we_ask_for_is_allowed_if_both_sides_allow_it(side):
    side.allowed(USE, context())
    side.allowed(WATCH, NO_CONTEXT)
    side.denied([*USE, *WATCH], context(), identity_policy=None)
    side.denied([*USE, *WATCH], context(), key_policy=DEFAULT_KEY_POLICY)
    # The key's policy alone would do within its own account.
    side.check()


def test_other_contexts_are_not_allowed(side):
    for wrong in (
        context(tenant="initech"), context(tenant="Globex"), context(tenant="globex "), context(tenant=None),
        context(purpose="index"), context(purpose="other"), context(purpose=None), context(version="v2"),
        context(version=None), context(more="x"), NO_CONTEXT, {**context(), "kms:EncryptionContext:tenant": ""},
    ):
        side.denied(USE, wrong)
    side.check()


@pytest.mark.parametrize("denying", ["key policy", "service policy"])
def test_each_side_alone_refuses_other_contexts(side, denying):
    """Each is told apart from the other by letting that one allow everything."""
    everything = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    if denying == "key policy":
        changed = {"identity_policy": {"Version": "2012-10-17", "Statement": [everything]}}
    else:
        statement = {**everything, "Principal": {"AWS": PRINCIPAL}}
        changed = {"key_policy": {"Version": "2012-10-17", "Statement": [statement]}}
    side.allowed(USE, context(), **changed)
    for wrong in (context(tenant="initech"), context(purpose="index"), context(version="v2"), context(more="x"),
                  NO_CONTEXT):
        side.denied(USE, wrong, **changed)
    side.denied([*NEVER, *FROM, *TO], context(), **changed)
    side.check()


def test_nothing_else_is_allowed(side):
    for variables in (context(), NO_CONTEXT):
        side.denied([*NEVER, *FROM, *TO], variables)
    side.check()


def test_nobody_else_is_allowed(side):
    for caller in (f"arn:aws:sts::{SERVICE_ACCOUNT}:assumed-role/other/s", f"arn:aws:iam::{SERVICE_ACCOUNT}:user/a",
                   f"arn:aws:sts::{ROLE_ACCOUNT}:assumed-role/postgres/s"):
        side.denied([*USE, *WATCH], context(), caller=caller)
    side.denied([*USE, *WATCH], context(), key=OTHER_KEY)
    side.check()


def test_the_owner_still_administers_its_key(side):
    admin = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}
    owner = {"caller": f"arn:aws:iam::{OWNER_ACCOUNT}:user/admin", "identity_policy": admin}
    side.allowed([*NEVER, "GetKeyPolicy"], NO_CONTEXT, **owner)
    side.check()


def test_index_keys_are_allowed_where_something_is_searched(onboard):
    globex = onboard("globex", database="searching")
    side = Side(globex.whole_policy(), globex.service_policy())
    side.allowed(USE, context())
    side.allowed(USE, context(purpose="index"))
    side.denied(USE, context(purpose="other"))
    side.denied(USE, context(tenant="initech", purpose="index"))
    side.check()


def test_a_name_means_itself(onboard):
    """Whatever it looks like: a policy variable, a wildcard, an escape."""
    for name in [*NASTY, *random_names(10, seed=1)]:
        globex = onboard(name)
        side = Side(globex.whole_policy(), globex.service_policy())
        side.allowed(USE, context(tenant=name))
        side.denied(USE, context(tenant=name + "x"))
        side.denied(USE, context(tenant="postgres"))
        side.check()


def test_while_a_tenant_moves_exactly_that_is_allowed_as_well(onboard):
    globex = onboard("globex")
    globex.move_to(OTHER_KEY)
    policies = globex.key_policy()
    assert (policies["key"], policies["next"]["key"]) == (KEY, OTHER_KEY)
    service_policy = globex.service_policy()
    former = Side(globex.whole_policy(), service_policy)
    former.allowed([*USE, *FROM], context())
    former.denied(TO, context())
    next_key = Side(policies["next"]["key_policy"], service_policy, key=OTHER_KEY)
    next_key.allowed([*USE, *TO], context())
    next_key.denied(FROM, context())
    for side in (former, next_key):
        side.allowed(WATCH, NO_CONTEXT)
        for wrong in (context(tenant="initech"), context(purpose="index"), context(more="x"), NO_CONTEXT):
            side.denied([*USE, *FROM, *TO], wrong)
        side.denied(NEVER, context())
        side.check()


@pytest.mark.parametrize("account", [OWNER_ACCOUNT, ROLE_ACCOUNT])
def test_a_role_is_assumed_and_may_then_do_the_same(onboard, account):
    role = f"arn:aws:iam::{account}:role/path/cmk"
    globex = onboard("globex", role_arn=role, external_id=EXTERNAL_ID)
    policies, service_policy = globex.key_policy(), globex.service_policy()
    assert ("key_policy" in policies) == (account != OWNER_ACCOUNT)

    def assume(expected, external_id=EXTERNAL_ID, caller=SESSION, to=role):
        variables = {} if external_id is None else {"sts:ExternalId": external_id}
        return expected, {
            "request": {
                "principal": caller, "action": "sts:AssumeRole",
                "resource": {"resource": to, "accountId": account}, "contextVariables": variables,
            },
            "identityPolicies": [{"name": "service", "policy": service_policy}],
            "resourcePolicy": policies["trust_policy"],
            "serviceControlPolicies": [], "resourceControlPolicies": [],
        }

    attempts = [
        assume("Allowed"),
        assume("ImplicitlyDenied", external_id="initech-77e3b2"),
        assume("ImplicitlyDenied", external_id=None),
        assume("ImplicitlyDenied", caller=f"arn:aws:sts::{SERVICE_ACCOUNT}:assumed-role/other/s"),
        assume("ImplicitlyDenied", to=f"arn:aws:iam::{account}:role/admin"),
    ]
    assert ask("simulate.mjs", [question for _, question in attempts]) == [expected for expected, _ in attempts]

    session = f"arn:aws:sts::{account}:assumed-role/cmk/cmk_encrypt"
    side = Side(globex.whole_policy(), policies["permissions_policy"], caller=session)
    side.allowed(USE, context())
    side.allowed(WATCH, NO_CONTEXT)
    for wrong in (context(tenant="initech"), context(purpose="index"), context(more="x"), NO_CONTEXT):
        side.denied(USE, wrong)
    side.denied([*NEVER, *FROM, *TO], context())
    side.denied([*USE, *WATCH], context(), identity_policy=None)
    side.denied([*USE, *WATCH], context(), key=OTHER_KEY)
    # As ourselves: the role's session, and nobody else.
    side.denied([*USE, *WATCH], context(), caller=SESSION, identity_policy=service_policy)
    side.check()


@pytest.mark.parametrize("tenants", [2, 25, 200])
def test_one_policy_serves_many_tenants(onboard, connect, tenants):
    made = [onboard(f"tenant-{number}", f"{KEYS}1234abcd-12ab-34cd-56ef-{number:012x}") for number in range(tenants)]
    service_policy = connect().one("SELECT cmk.service_policy()")
    for globex in (made[0], made[-1]):
        side = Side(globex.whole_policy(), service_policy, key=globex.key_policy()["key"])
        side.allowed(USE, context(tenant=globex.name))
        side.allowed(WATCH, NO_CONTEXT)
        side.denied([*NEVER, *FROM, *TO], context(tenant=globex.name))
        side.denied(USE, context(tenant=made[1].name if globex is made[0] else made[0].name))
        side.denied(USE, NO_CONTEXT)
        side.check()
