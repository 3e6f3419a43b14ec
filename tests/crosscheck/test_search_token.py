"""The vectors of search tokens, as an implementation sees them that shares no code with the
extension.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import column as c
import envelope as e
import pytest
import search_token as t

ROOT = Path(__file__).resolve().parent.parent.parent
VECTORS = ROOT / "tests" / "vectors"
DOCUMENT = json.loads((VECTORS / "tokens.json").read_text("utf-8"))
UNICODE = json.loads((VECTORS / "unicode.json").read_text("utf-8"))


def each(kind: str):
    return pytest.mark.parametrize("case", DOCUMENT[kind], ids=lambda case: case["name"])


def unhex(case: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


def test_no_vector_is_missing():
    kinds = ("tokens", "search_keys", "no_search_keys")
    assert [len(DOCUMENT[kind]) for kind in kinds] == [145, 10, 9]


@each("tokens")
def test_token_is_recomputed(case):
    index_key, plaintext, normalized = unhex(case, "index_key", "plaintext", "normalized")
    tenant, label, by = case["tenant"], case["label"], case["normalization"]
    bits = int(case["bits"]) if case["bits"] else None
    assert t.normalize(plaintext, by) == normalized
    assert t.normalize(normalized, by) == normalized

    token = t.token(index_key, label, plaintext, by, bits)
    key_id = t.index_key_id(index_key, tenant)
    assert [token, key_id] == unhex(case, "token", "index_key_id")
    assert c.column_tag(label).hex() == case["column_tag"]
    assert t.probe(tenant, key_id + token).hex() == case["probe"]


@each("search_keys")
def test_search_key_is_recomputed(case):
    (raw,) = unhex(case, "bytes")
    if raw[1] == c.SUITE_PROBE:
        tag, tokens = raw[2:10], raw[10:]
    else:
        envelope = c.ColumnEnvelope.parse(raw)
        tag, tokens = envelope.tenant_tag, envelope.token
    first, last = tokens[: c.TOKEN_LEN], tokens[-c.TOKEN_LEN :]
    keys = [t.search_key(tag, token) for token in (first, last)]
    assert keys == unhex(case, "first", "last")


@each("no_search_keys")
def test_what_has_no_token_is_no_envelope_of_suite_3_or_4(case):
    (raw,) = unhex(case, "bytes")
    try:
        assert c.ColumnEnvelope.parse(raw).token == b""
    except e.EnvelopeError as error:
        assert error.reason in ("not_an_envelope", "unknown_suite")


def code_points(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first, 16), int(last or first, 16) + 1)


def test_characters_are_what_they_were_in_unicode_14():
    """Of a newer Python too: only characters that Unicode 14 had are compared."""
    fields = {
        field: {chr(code) for span in UNICODE[field].split() for code in code_points(span)}
        for field in ("assigned", "alphanumeric")
    }
    lower = {}
    for pair in UNICODE["lower"].split():
        character, _, low = pair.partition(":")
        lower[chr(int(character, 16))] = "".join(chr(int(code, 16)) for code in low.split("+"))
    assert [*map(len, (*fields.values(), lower))] == [282230, 134989, 1433]
    for character in fields["assigned"]:
        low = lower.get(character, character)
        kept = "".join(letter for letter in low if letter in fields["alphanumeric"])
        assert t.normalize(character.encode(), "lower") == low.encode()
        assert t.normalize(character.encode(), "alnum") == kept.encode()


def test_the_documented_computation_is_right():
    page = (ROOT / "docs" / "envelope.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    expected = re.findall(r"# → (\w+)$", block, re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (expected, "")

    key = bytes(range(32))
    tokens = [t.token(key, "users.email", b"ANN@example.COM", "lower", bits) for bits in (None, 16)]
    assert [t.index_key_id(key, "acme").hex(), *(token.hex() for token in tokens)] == expected
