"""Each format, read by a parser of its language: whatever the name, what it quotes comes back."""

import json
import re
import subprocess
import unicodedata

import pytest
import yaml
from markdown_it import MarkdownIt
from node_programs import ask
from world import (FORMATS, KEY, MULTI_REGION_KEY, NASTY, OTHER_KEY, OWNER_ACCOUNT, PLACEHOLDER, PRINCIPAL,
                   ROLE_ACCOUNT, SERVICE_ACCOUNT, random_names)

ROLE = {"role_arn": f"arn:aws:iam::{OWNER_ACCOUNT}:role/path/cmk", "external_id": "globex-5c0a1f"}
FOREIGN_ROLE = {**ROLE, "role_arn": f"arn:aws:iam::{ROLE_ACCOUNT}:role/cmk"}

# What changes the documents, but for the name
VARIANTS = {
    "key": (KEY, {}),
    "multi-Region key": (MULTI_REGION_KEY, {}),
    "placeholder": (PLACEHOLDER, {}),
    "role": (KEY, ROLE),
    "role and placeholder": (PLACEHOLDER, ROLE),
    "role of a third account": (KEY, FOREIGN_ROLE),
}


@pytest.fixture(params=VARIANTS)
def globex(onboard, request):
    key_uri, options = VARIANTS[request.param]
    return onboard("globex", key_uri, **options)


@pytest.fixture(params=NASTY)
def named(onboard, request):
    """Of a nasty name, with a role as well: every kind of policy is in its documents."""
    return onboard(request.param, **ROLE)


class Yaml(yaml.SafeLoader):
    """YAML with the short forms of CloudFormation's functions, as they are."""


Yaml.add_multi_constructor("!", lambda loader, suffix, node: (suffix, node.value))


def hcl(*texts):
    return ask("hcl.mjs", texts)


def resource(parsed, kind):
    [[made]] = parsed["resource"][kind].values()
    return made


def tenants_in(policy):
    """The tenants that its conditions name, as AWS reads them."""
    for statement in policy["Statement"]:
        condition = statement.get("Condition", {})
        for operator in ("StringEquals", "StringLike"):
            if value := condition.get(operator, {}).get("kms:EncryptionContext:tenant"):
                yield re.sub(r"\$\{(.)\}", r"\1", value) if operator == "StringLike" else value


def policies_of(named):
    """Those that documents repeat: the key's, the role's trust, the role's permissions."""
    returned = named.key_policy()
    return named.whole_policy(), returned.get("trust_policy"), returned.get("permissions_policy")


def test_formats_are_printable_ascii_but_for_the_guide(named):
    for form in FORMATS:
        text = named.document(form)
        assert text.endswith("\n") and not text.startswith("\n")
        if form != "guide":
            assert re.fullmatch(r"[\n -~]*", text), form
        assert not any(unicodedata.category(character) in ("Cf", "Zl", "Zp") for character in text)


def test_the_policy_is_what_key_policy_returns_and_the_owners_own(globex):
    whole, returned = globex.whole_policy(), globex.key_policy()
    owner, *ours = whole["Statement"]
    assert owner == {
        "Sid": "OwnAccount", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{OWNER_ACCOUNT}:root"},
        "Action": "kms:*", "Resource": "*",
    }
    assert ours == returned.get("key_policy", {"Statement": []})["Statement"]
    assert whole["Version"] == "2012-10-17"


def test_names_come_back_out_of_policies(onboard):
    for name in [*NASTY, *random_names(100, seed=2)]:
        named = onboard(name)
        text = named.document("policy")
        assert text.isascii()
        assert list(tenants_in(json.loads(text))) == [name]
        assert list(tenants_in(named.key_policy()["key_policy"])) == [name]
        assert list(tenants_in(named.service_policy())) == [name]


def test_terraform_reads_the_policies(globex):
    [parsed] = hcl(globex.document("terraform"))
    key_policy, trust, permissions = policies_of(globex)
    assert json.loads(resource(parsed, "aws_kms_key_policy")["policy"]) == key_policy
    registered = globex.key_policy()["key"]
    if trust:
        assert json.loads(resource(parsed, "aws_iam_role")["assume_role_policy"]) == trust
        text = resource(parsed, "aws_iam_role_policy")["policy"]
        assert text.count("${") == text.count("${aws_kms_key.cmk_encrypt.arn}") == len(permissions["Statement"])
        assert json.loads(text.replace("${aws_kms_key.cmk_encrypt.arn}", registered)) == permissions
    assert ("import" in parsed) == (registered != PLACEHOLDER)
    if registered != PLACEHOLDER:
        assert parsed["import"] == [{"to": "${aws_kms_key.cmk_encrypt}", "id": registered.split("/")[1]}]
    key = resource(parsed, "aws_kms_key")
    assert key["enable_key_rotation"] is True and key["lifecycle"] == [{"prevent_destroy": True}]
    assert key.get("multi_region", False) == (registered == MULTI_REGION_KEY)
    assert [provider["allowed_account_ids"] for provider in parsed["provider"]["aws"]][0] == [OWNER_ACCOUNT]


def test_terraform_takes_no_name_for_code(onboard):
    names = [*NASTY, *random_names(20, seed=3)]
    onboarded = [onboard(name, **ROLE) for name in names]
    for name, named, parsed in zip(names, onboarded, hcl(*(it.document("terraform") for it in onboarded))):
        key_policy, trust, permissions = policies_of(named)
        assert json.loads(resource(parsed, "aws_kms_key_policy")["policy"]) == key_policy
        assert json.loads(resource(parsed, "aws_iam_role")["assume_role_policy"]) == trust
        written = resource(parsed, "aws_iam_role_policy")["policy"]
        assert list(tenants_in(json.loads(written))) == [name]
        description = resource(parsed, "aws_kms_key")["description"]
        assert "${" not in description and "%{" not in description
        assert json.loads(description.removeprefix("cmk_encrypt: data keys of tenant ")) == name


def test_cloudformation_is_linted(globex, tmp_path):
    path = tmp_path / "stack.yaml"
    path.write_text(globex.document("cloudformation"))
    found = subprocess.run(["cfn-lint", "--include-checks", "I", "--", str(path)], stdout=subprocess.PIPE, text=True)
    assert (found.stdout, found.returncode) == ("", 0)


def check_stack(named):
    parsed = yaml.load(named.document("cloudformation"), Yaml)
    resources = parsed["Resources"]
    key_policy, trust, permissions = policies_of(named)
    key = resources["Key"]
    assert json.loads(key["Properties"]["KeyPolicy"]) == key_policy
    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("Retain", "Retain")
    described = key["Properties"]["Description"].removeprefix("cmk_encrypt: data keys of tenant ")
    assert json.loads(described) == named.name
    registered = named.key_policy()["key"]
    assert key["Properties"].get("MultiRegion", False) == (registered == MULTI_REGION_KEY)
    if "Role" in resources:
        assert json.loads(resources["Role"]["Properties"]["AssumeRolePolicyDocument"]) == trust
        text = resources["RolePolicy"]["Properties"]["PolicyDocument"]["Fn::Sub"]
        assert text.count("${") == text.count("${Key.Arn}") == len(permissions["Statement"])
        assert json.loads(text.replace("${Key.Arn}", registered)) == permissions
    return sorted(resources)


def test_cloudformation_has_the_policies(globex):
    check_stack(globex)


def test_cloudformation_takes_no_name_for_code(onboard):
    names = [*NASTY, *random_names(20, seed=4)]
    assert len({tuple(check_stack(onboard(name, **ROLE))) for name in names}) == 1


def test_the_script_is_linted(globex, tmp_path):
    path = tmp_path / "onboard.sh"
    path.write_text(globex.document("cli"))
    command = ["shellcheck", "--norc", "--enable=all", "--exclude=SC2250,SC2310,SC2312,SC2311", str(path)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert (found.stdout, found.returncode) == ("", 0)
    assert "\nset -euo pipefail\n" in path.read_text()
    commands = re.sub(r"^ *#.*$", "", path.read_text(), flags=re.M)
    assert not re.search(r"^\s*(eval|source|\.|exec)\s", commands, flags=re.M)


MARKDOWN = MarkdownIt("commonmark").enable("table")


def shape(tokens):
    """What Markdown makes of a text, without the text."""
    for token in tokens:
        yield token.type, token.tag, token.attrs, token.info
        yield from shape(token.children or ())


def test_the_guide_takes_no_name_for_markup(onboard):
    plain = MARKDOWN.parse(onboard("plain", **ROLE).document("guide"))
    variable = MARKDOWN.parse(onboard("${plain}", **ROLE).document("guide"))
    assert {kind for kind, *_ in shape(plain)} >= {"heading_open", "fence", "table_open", "code_inline"}
    for name in [*NASTY, *random_names(100, seed=5)]:
        parsed = MARKDOWN.parse(onboard(name, **ROLE).document("guide"))
        # One more paragraph tells of JSON escapes.
        told = [token for token in parsed if token.content.startswith("Your name has characters beyond ASCII.")]
        assert bool(told) == (not name.isascii())
        if name.isascii():
            assert list(shape(parsed)) == list(shape(variable if "${" in name else plain))
        title = parsed[1].children
        assert [token.type for token in title] == ["text", "code_inline"]
        shown = re.sub(r"\\u\{([0-9a-f]+)\}", lambda number: chr(int(number[1], 16)), title[1].content)
        assert shown == (f" {name} " if not name.strip() else name)
        assert not any(kind.startswith("html") or kind in ("link_open", "image") for kind, *_ in shape(parsed))


def blocks(guide, language):
    return [token.content for token in MARKDOWN.parse(guide) if token.type == "fence" and token.info == language]


def test_the_guide_has_the_policies(globex):
    found = [json.loads(block) for block in blocks(globex.document("guide"), "json")]
    key_policy, trust, permissions = policies_of(globex)
    for policy in (key_policy if "key_policy" in globex.key_policy() else None, trust, permissions):
        assert policy is None or policy in found
    constraints = {"cmk_encrypt": "v1", "purpose": "values", "tenant": "globex"}
    assert {"EncryptionContextEquals": constraints} in found


def test_the_guide_says_the_servers_own_numbers(onboard):
    guide = onboard("globex").document("guide")
    assert "AWS's propagation + 4 minutes" in guide
    # Two thirds of 4 minutes are 160 seconds: 23 times an hour.
    assert "about 23 an hour" in guide and f"about {23 * 24 * 30} a month" in guide
    assert PRINCIPAL in guide and SERVICE_ACCOUNT in guide
    role = onboard("initech", **ROLE).document("guide")
    assert "| close the role's trust policy | AWS's propagation + 19 minutes |" in role


def test_the_guide_follows_a_move(onboard):
    globex = onboard("globex")
    globex.move_to(OTHER_KEY)
    guide, returned = globex.document("guide"), globex.key_policy()
    assert "While you move to another key" in guide and OTHER_KEY in guide
    found = [json.loads(block) for block in blocks(guide, "json")]
    assert globex.whole_policy() in found
    [of_next] = [policy for policy in found if policy.get("Statement", [])[1:] == returned["next"]["key_policy"]["Statement"]]
    assert of_next["Statement"][0]["Sid"] == "OwnAccount"
    globex.move_to(OTHER_KEY, ROLE)
    returned = globex.key_policy()["next"]
    found = [json.loads(block) for block in blocks(globex.document("guide"), "json")]
    assert returned["trust_policy"] in found and returned["permissions_policy"] in found


def test_shell_commands_of_the_guide_are_linted(globex, tmp_path):
    path = tmp_path / "guide.sh"
    path.write_text("#!/bin/sh\n" + "".join(blocks(globex.document("guide"), "sh")))
    found = subprocess.run(["shellcheck", "--norc", str(path)], stdout=subprocess.PIPE, text=True)
    assert (found.stdout, found.returncode) == ("", 0)
