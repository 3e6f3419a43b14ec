"""The script, run: by a stub that notes what arrives, and by the AWS command line interface against moto."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest
from moto.events.models import EventPattern
from world import KEY, NASTY, OWNER_ACCOUNT, PLACEHOLDER, ROLE_ACCOUNT

HERE = Path(__file__).resolve().parent
ROLE = {"role_arn": f"arn:aws:iam::{OWNER_ACCOUNT}:role/path/cmk", "external_id": "globex-5c0a1f"}
FAKE = {"AWS_ACCESS_KEY_ID": "AKIAFAKEOWNER0000000", "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}


def run(script, directory, **environment):
    path = directory / "onboard.sh"
    path.write_text(script)
    work = directory / "work"
    work.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), **FAKE, **environment}
    return subprocess.run(["bash", str(path)], cwd=work, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)


@pytest.fixture
def stub(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "aws").symlink_to(HERE / "aws_stub.py")
    log = tmp_path / "log"

    def run_with_stub(script, account=OWNER_ACCOUNT, **environment):
        log.write_text("")
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", "STUB_LOG": str(log), "STUB_KEY": KEY,
                       "STUB_ACCOUNT": account, "ALARM_EMAIL": "alarms@example.com", **environment}
        done = run(script, tmp_path, **environment)
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        return done, calls, sorted(path.name for path in (tmp_path / "work").iterdir())

    return run_with_stub


def argument(calls, service, operation, name):
    [call] = [call for call in calls if call[:2] == [service, operation]]
    return call[call.index(name) + 1]


def test_no_name_is_run_as_code(onboard, stub):
    expected = None
    for number, name in enumerate(NASTY):
        named = onboard(name, PLACEHOLDER if number % 2 else KEY, **ROLE)
        done, calls, files = stub(named.document("cli"))
        assert done.returncode == 0, done.stderr
        policy = json.loads(argument(calls, "kms", "put-key-policy", "--policy"))
        assert policy == named.whole_policy()
        permissions = named.key_policy()["permissions_policy"]
        written = json.loads(argument(calls, "iam", "put-role-policy", "--policy-document"))
        assert json.loads(json.dumps(written).replace(f'"{KEY}"', f'"{named.key_policy()["key"]}"')) == permissions
        trust = json.loads(argument(calls, "iam", "create-role", "--assume-role-policy-document"))
        assert trust == named.key_policy()["trust_policy"]
        if number % 2:
            described = argument(calls, "kms", "create-key", "--description")
            assert json.loads(described.removeprefix("cmk_encrypt: data keys of tenant ")) == name
        # Whatever the name: the same calls, and no file but policies that were there before.
        made = [call[:2] for call in calls if call[:2] != ["kms", "create-key"]]
        expected = expected or made
        assert made == expected
        assert all(file.startswith("key-policy-") for file in files), files


def test_another_account_is_left_alone(onboard, stub):
    done, calls, files = stub(onboard("globex").document("cli"), account=ROLE_ACCOUNT)
    assert done.returncode == 1 and f"credentials of account {ROLE_ACCOUNT}" in done.stderr
    assert [call[:2] for call in calls] == [["sts", "get-caller-identity"]] and not files


def test_a_role_of_a_third_account_is_made_there(onboard, stub):
    role = {**ROLE, "role_arn": f"arn:aws:iam::{ROLE_ACCOUNT}:role/cmk"}
    script = onboard("globex", **role).document("cli")
    done, calls, _ = stub(script, account=ROLE_ACCOUNT)
    assert done.returncode == 0, done.stderr
    assert {call[0] for call in calls} == {"sts", "iam"}
    done, calls, _ = stub(script)
    assert done.returncode == 0, done.stderr
    assert {call[0] for call in calls} == {"sts", "kms", "cloudtrail", "sns", "events"}


@pytest.mark.parametrize("key_uri", [KEY, PLACEHOLDER])
def test_what_cannot_be_asked_ends_the_script(onboard, stub, key_uri):
    """An error that is not "there is no such key" must not make another key at each run."""
    done, calls, files = stub(onboard("globex", key_uri).document("cli"), STUB_DENIES="kms-describe-key")
    assert done.returncode == 1 and "AccessDeniedException" in done.stderr
    assert [call[:2] for call in calls] == [["sts", "get-caller-identity"], ["kms", "describe-key"]] and not files


@pytest.mark.parametrize("key_uri", [KEY, PLACEHOLDER])
@pytest.mark.parametrize("denied", ["get-key-policy", "put-key-policy", "enable-key-rotation"])
def test_what_fails_is_said(onboard, stub, key_uri, denied):
    done, calls, _ = stub(onboard("globex", key_uri).document("cli"), STUB_DENIES=f"kms-{denied}")
    assert done.returncode == 1 and "AccessDeniedException" in done.stderr and "done" not in done.stderr
    assert calls[-1][:2] == ["kms", denied]


# By the real command line interface, which checks names and forms of all arguments, against moto.

moto_account = os.environ.setdefault("MOTO_ACCOUNT_ID", OWNER_ACCOUNT)


@pytest.fixture(scope="module")
def moto():
    from moto.server import ThreadedMotoServer  # takes a second, and reads MOTO_ACCOUNT_ID

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def aws(moto, tmp_path):
    """Makes clients of services, and runs scripts, in a new account."""
    import boto3

    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST"), timeout=10).close()
    keys = {name.lower(): value for name, value in FAKE.items() if name.startswith("AWS_") and "KEY" in name}

    def client(service):
        return boto3.client(service, region_name="eu-central-1", endpoint_url=moto, **keys)

    client.run = lambda script, **more: run(script, tmp_path, AWS_ENDPOINT_URL=moto, **more)
    return client


def make_key(aws, **options):
    return aws("kms").create_key(KeyUsage="ENCRYPT_DECRYPT", **options)["KeyMetadata"]["Arn"]


def policy_of(aws, key):
    return json.loads(aws("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])


def test_a_key_is_made_once_and_watched(onboard, aws):
    globex = onboard("Größe & Söhne, 東京", PLACEHOLDER, **ROLE)
    script = globex.document("cli")
    first = aws.run(script, ALARM_EMAIL="alarms@example.com")
    assert first.returncode == 0, first.stderr
    key = first.stdout.strip()
    assert key.startswith(f"arn:aws:kms:eu-central-1:{OWNER_ACCOUNT}:key/")
    again = aws.run(script)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert policy_of(aws, key) == globex.whole_policy()
    kms, iam, events = aws("kms"), aws("iam"), aws("events")
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True
    [alias] = kms.list_aliases(KeyId=key)["Aliases"]
    assert alias["AliasName"].startswith("alias/cmk-encrypt/gr-e-s-hne-")
    role = iam.get_role(RoleName="cmk")["Role"]
    returned = globex.key_policy()
    assert (role["Arn"], role["AssumeRolePolicyDocument"]) == (ROLE["role_arn"], returned["trust_policy"])
    [name] = iam.list_role_policies(RoleName="cmk")["PolicyNames"]
    permissions = iam.get_role_policy(RoleName="cmk", PolicyName=name)["PolicyDocument"]
    assert json.loads(json.dumps(permissions).replace(key, PLACEHOLDER)) == returned["permissions_policy"]
    rules = events.list_rules(NamePrefix="cmk-encrypt-")["Rules"]
    kinds = [rule["Name"].removeprefix("cmk-encrypt-").split("-")[0] for rule in rules]
    assert sorted(kinds) == ["changes", "denials", "strangers"]
    [topic] = [topic["TopicArn"] for topic in aws("sns").list_topics()["Topics"]]
    for rule in rules:
        assert json.loads(rule["EventPattern"])["detail"]["resources"] == {"ARN": [key]}
        assert rule["State"] == "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
        [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert target["Arn"] == topic
    # A role that trusts somebody else is not taken over.
    own = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{OWNER_ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    theirs = {"Version": "2012-10-17", "Statement": [own]}
    iam.update_assume_role_policy(RoleName="cmk", PolicyDocument=json.dumps(theirs))
    refused = aws.run(script)
    assert refused.returncode == 1 and "REPLACE_ROLE=yes" in refused.stderr
    assert iam.get_role(RoleName="cmk")["Role"]["AssumeRolePolicyDocument"] == theirs
    assert aws.run(script, REPLACE_ROLE="yes").returncode == 0
    assert iam.get_role(RoleName="cmk")["Role"]["AssumeRolePolicyDocument"] == returned["trust_policy"]
    patterns = {kind: EventPattern.load(rule["EventPattern"]) for kind, rule in zip(kinds, rules)}

    def raised(name, parameters, **more):
        detail = {"eventSource": "kms.amazonaws.com", "eventName": name, "requestParameters": parameters,
                  # As one that matches: moto looks into no list of objects.
                  "resources": {"ARN": key}, "userIdentity": {"accountId": OWNER_ACCOUNT}, **more}
        event = {"source": "aws.kms", "detail-type": "AWS API Call via CloudTrail", "detail": detail}
        return {kind for kind in ("changes", "denials") if patterns[kind].matches_event(event)}

    denied = {"errorCode": "AccessDenied"}
    grant, use = {"keyId": key}, {"encryptionContext": {"tenant": "Größe & Söhne, 東京"}}
    assert raised("CreateGrant", grant) == raised("PutKeyPolicy", {}) == {"changes"}
    assert raised("CreateGrant", grant, **denied) == {"changes", "denials"}
    assert raised("CreateGrant", {**grant, "dryRun": True}, **denied) == set()
    assert raised("Decrypt", use) == set()
    assert raised("Decrypt", use, **denied) == raised("Decrypt", None, **denied) == {"denials"}
    assert raised("Decrypt", {"encryptionContext": {"tenant": "*"}}, **denied) == set()


def test_only_a_fresh_keys_own_policy_is_replaced(onboard, aws, tmp_path):
    key = make_key(aws)
    fresh = policy_of(aws, key)
    globex = onboard("globex", key)
    script, ours = globex.document("cli"), globex.whole_policy()
    done = aws.run(script)
    assert done.returncode == 0, done.stderr
    assert policy_of(aws, key) == ours
    [saved] = (tmp_path / "work").iterdir()
    assert json.loads(saved.read_text()) == fresh
    assert saved.stat().st_mode & 0o077 == 0

    theirs = {"Sid": "Backups", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{OWNER_ACCOUNT}:role/backup"},
              "Action": "kms:Decrypt", "Resource": "*"}
    policy = {**ours, "Statement": [*ours["Statement"], theirs]}
    aws("kms").put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))
    refused = aws.run(script)
    assert refused.returncode == 1 and "has statements that are not from here" in refused.stderr
    assert json.loads(refused.stdout) == ours
    assert policy_of(aws, key) == policy
    done = aws.run(script, REPLACE_POLICY="yes")
    assert done.returncode == 0, done.stderr
    assert policy_of(aws, key) == ours


def test_a_key_of_another_kind_is_refused(onboard, aws):
    done = aws.run(onboard("globex", make_key(aws, KeySpec="RSA_2048")).document("cli"))
    assert done.returncode == 1 and "is a key of another kind (RSA_2048" in done.stderr
