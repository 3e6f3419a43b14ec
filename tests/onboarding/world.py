"""Who and what the tests are about, and tenants' names that mean something to some language."""

import random
import unicodedata

SERVICE_ACCOUNT, OWNER_ACCOUNT, ROLE_ACCOUNT = "444455556666", "111122223333", "777788889999"
PRINCIPAL = f"arn:aws:iam::{SERVICE_ACCOUNT}:role/postgres"
KEYS = f"arn:aws:kms:eu-central-1:{OWNER_ACCOUNT}:key/"
KEY = f"{KEYS}1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_KEY = f"{KEYS}5678abcd-12ab-34cd-56ef-1234567890ab"
MULTI_REGION_KEY = f"{KEYS}mrk-1234abcd12ab34cd56ef1234567890ab"
# Stands for a key that is yet to be made
PLACEHOLDER = f"{KEYS}00000000-0000-0000-0000-000000000000"

FORMATS = ("guide", "policy", "cli", "terraform", "cloudformation")

# Each would leave its quotes in at least one of the languages.
NASTY = [
    "globex",
    "Größe & Söhne, 東京 😀",
    "a'b\"c\\d`e",
    "'; touch pwned #",
    "$(touch pwned) `touch pwned` ${HOME} $((1/0)) !!",
    '"); touch pwned; ("',
    "${file(\"/etc/passwd\")} %{ if true }x%{ endif } $${x} %%{x} $$${x}",
    "${AWS::AccountId} ${!Literal} !Ref Key !GetAtt Key.Arn",
    "${aws:username} ${*} ${$} $${aws:PrincipalArn}",
    "\"\nx".replace("\n", "") + ": {a: [b, *c, &d]} #e - ? | > % @",
    "a: b\\u0041\\n\\",
    "{{ policy }} {% if role %} {# c #}",
    "| a | b | <script>alert(1)</script> <!-- [x](javascript:y) ![z](u) **b** ```` ~~~ ` `` _",
    "--cli-input-json file:///etc/passwd",
    "-",
    " ",
    "*x",
    "~",
    "null",
    "é" * 127,
    '"' * 255,
]


def random_names(number, seed):
    """Names of printable characters, most of them such as have a meaning somewhere."""
    chosen = random.Random(seed)
    special = list("'\"\\`$(){}[]<>|&;:#!%*?~@=+-_.,/^ ") + ["${", "%{", "$(", "{{", "{%", "\\u", "file://", "'\\''"]
    for _ in range(number):
        name = "".join(
            chosen.choice(special) if chosen.random() < 0.7 else printable(chosen) for _ in range(chosen.randint(1, 40))
        )
        if len(name.encode()) <= 255 and name != "*":
            yield name


def printable(chosen):
    while True:
        character = chr(chosen.randint(0x20, 0x1FFFF))
        if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            return character
