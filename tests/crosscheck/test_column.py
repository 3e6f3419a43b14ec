"""The vectors of protected columns, as an implementation sees them that shares no code with the
extension.
"""

import json
import subprocess
import sys
from pathlib import Path

import column as c
import envelope as e
import pytest
from registry import DataKey, open_any, open_from_registry

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
SUITES = {
    suite: json.loads((VECTORS / f"suite{suite}.json").read_text("utf-8"))
    for suite in (c.SUITE_2, c.SUITE_3, c.SUITE_4)
}
SUITE_3_RULES = json.loads((VECTORS / "suite3_rules.json").read_text("utf-8"))


def each(kind: str):
    documents = [*SUITES.items(), (c.SUITE_3, SUITE_3_RULES)]
    cases = [(suite, case) for suite, document in documents for case in document.get(kind, [])]
    names = [f"{suite}-{case['name']}" for suite, case in cases]
    return pytest.mark.parametrize(("suite", "case"), cases, ids=names)


def unhex(case: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(case.get(name, "")) for name in names]


def test_no_vector_is_missing():
    kinds = ("valid", "invalid", "invalid_armor")
    assert [len(SUITES[c.SUITE_2][kind]) for kind in kinds] == [19, 51, 29]
    assert [len(SUITES[c.SUITE_3][kind]) for kind in kinds] == [19, 57, 29]
    assert [len(SUITES[c.SUITE_4][kind]) for kind in kinds] == [26, 68, 29]
    assert [len(SUITE_3_RULES[kind]) for kind in kinds[:2]] == [7, 255]


@each("valid")
def test_valid_envelope_opens(suite, case):
    key, plaintext, nonce, sealed = unhex(case, "key", "plaintext", "nonce", "envelope")
    token = b"".join(unhex(case, "index_key", "token", "next_index_key", "next_token"))
    tenant, label = case["tenant"], case["label"]
    rule = int(case.get("suite_byte", f"{suite:02x}"), 16) - suite
    assert c.open_column(key, tenant, sealed) == plaintext
    assert c.seal_column(key, tenant, label, plaintext, nonce, token, rule) == sealed
    assert len(sealed) == len(plaintext) + {c.SUITE_2: 74, c.SUITE_3: 94, c.SUITE_4: 114}[suite]

    envelope = c.ColumnEnvelope.parse(sealed)
    assert envelope.serialise() == sealed
    assert (envelope.suite, envelope.token, envelope.nonce) == (suite | rule, token, nonce)
    tags = [c.tenant_tag(tenant), c.column_tag(label)]
    assert unhex(case, "dek_id", "tenant_tag", "column_tag") == [e.dek_id(key, tenant), *tags]
    assert [envelope.tenant_tag, envelope.column_tag] == tags


@each("invalid")
def test_invalid_envelope_fails_for_its_reason(suite, case):
    key, sealed = unhex(case, "key", "envelope")
    with pytest.raises(e.EnvelopeError) as failure:
        c.open_column(key, case["tenant"], sealed)
    assert failure.value.reason == case["reason"]


@each("valid")
def test_an_envelope_has_one_armor(suite, case):
    (sealed,) = unhex(case, "envelope")
    assert c.armor(sealed) == case["armor"]
    assert c.unarmor(case["armor"]) == sealed


@each("invalid_armor")
def test_what_is_no_armor_is_plain_text(suite, case):
    assert c.unarmor(case["armor"]) is None


@pytest.mark.parametrize("suite", SUITES)
def test_stored_envelope_opens_under_the_data_key_that_it_names(suite):
    case, other = SUITES[suite]["valid"][-1], SUITES[suite]["valid"][7]
    assert other["name"] == "another_key"
    tenant = case["tenant"]
    deks = [*unhex(other, "key"), *unhex(case, "key")]
    keys = [DataKey(dek, e.commitment(dek, tenant)) for dek in deks]
    sealed, plaintext = unhex(case, "envelope", "plaintext")
    assert open_from_registry(keys, tenant, sealed) == plaintext
    with pytest.raises(e.EnvelopeError, match="unknown_data_key"):
        open_from_registry(keys[:1], tenant, sealed)
    with pytest.raises(e.EnvelopeError, match="not_authentic"):
        open_any(keys[1].dek, tenant, sealed, b"an aad")


@pytest.mark.parametrize("suite", SUITES)
def test_command_line_opens_an_envelope_and_its_armor(suite):
    case = SUITES[suite]["valid"][-1]
    command = [sys.executable, Path(__file__).with_name("open_envelope.py"), case["tenant"]]
    for envelope in (case["envelope"], "\\x" + case["envelope"], case["armor"]):
        done = subprocess.run(
            [*command, envelope], input=case["key"], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, case["plaintext"] + "\n", "")
