"""The checked-in vectors as an implementation sees them that shares no code with the extension."""

import json
import subprocess
import sys
from pathlib import Path

import envelope as e
import pytest
from local_key import encryption_context, open_stored, unwrap_local

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
SUITE_1 = json.loads((VECTORS / "suite1.json").read_text("utf-8"))
# Bound to the purpose "dek", from before the first release.
LOCAL_KEY = json.loads((VECTORS / "local_key.json").read_text("utf-8"))
LOCAL_KEY_PURPOSES = json.loads((VECTORS / "local_key_purposes.json").read_text("utf-8"))


def each(cases: list[dict]):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["name"])


def unhex(case: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


def test_no_vector_is_missing():
    assert (len(SUITE_1["valid"]), len(SUITE_1["invalid"])) == (16, 40)
    assert (len(LOCAL_KEY["valid"]), len(LOCAL_KEY["invalid"])) == (5, 14)
    purposes = LOCAL_KEY_PURPOSES
    assert (len(purposes["valid"]), len(purposes["invalid"])) == (6, 7)


def test_xaes_agrees_with_the_specification():
    nonce, plaintext = b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM"
    # MSB(L) is 0 for the first key and 1 for the second: both branches of the subkey.
    derived_key, derived_nonce = e.xaes_derive(b"\x01" * 32, nonce)
    assert derived_key.hex() == "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b"
    assert derived_nonce.hex() == "4d4e4f505152535455565758"
    sealed = e.xaes_seal(b"\x01" * 32, nonce, plaintext, b"")
    assert sealed.hex() == "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
    sealed = e.xaes_seal(b"\x03" * 32, nonce, plaintext, b"c2sp.org/XAES-256-GCM")
    assert sealed.hex() == "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"


@each(SUITE_1["valid"])
def test_valid_envelope_opens(case):
    key, aad, plaintext, nonce, sealed = unhex(
        case, "key", "aad", "plaintext", "nonce", "envelope"
    )
    tenant = case["tenant"]
    assert e.commitment(key, tenant).hex() == case["commitment"]
    assert e.Envelope.parse(sealed).dek_id.hex() == case["dek_id"]
    assert e.Envelope.parse(sealed).serialise() == sealed
    assert len(sealed) == len(plaintext) + e.OVERHEAD
    assert e.open_envelope(key, tenant, sealed, aad) == plaintext
    assert e.seal_envelope(key, tenant, plaintext, aad, nonce) == sealed


@each(SUITE_1["invalid"])
def test_invalid_envelope_fails_for_its_reason(case):
    key, aad, sealed = unhex(case, "key", "aad", "envelope")
    with pytest.raises(e.EnvelopeError) as failure:
        e.open_envelope(key, case["tenant"], sealed, aad)
    assert failure.value.reason == case["reason"]


@each(LOCAL_KEY["valid"] + LOCAL_KEY_PURPOSES["valid"])
def test_valid_data_key_unwraps(case):
    key, wrapped = unhex(case, "key", "wrapped")
    dek = unwrap_local(key, case["tenant"], wrapped, case.get("purpose", "dek"))
    assert dek.hex() == case["dek"]
    assert e.commitment(dek, case["tenant"]).hex() == case["commitment"]


@each(LOCAL_KEY["invalid"] + LOCAL_KEY_PURPOSES["invalid"])
def test_invalid_data_key_is_rejected(case):
    key, wrapped = unhex(case, "key", "wrapped")
    with pytest.raises(e.EnvelopeError) as failure:
        unwrap_local(key, case["tenant"], wrapped, case.get("purpose", "dek"))
    assert failure.value.reason == case["reason"]


def test_encryption_context_is_canonical():
    assert encryption_context("Zoë \"x\"", "index") == (
        '{"cmk_encrypt":"v1","purpose":"index","tenant":"Zoë \\"x\\""}'.encode()
    )


class Stored:
    """A tenant's rows and key file as a test of a live server finds them; two data keys."""

    def __init__(self, directory: Path) -> None:
        first = LOCAL_KEY_PURPOSES["valid"][0]
        key, self.dek = unhex(first, "key", "dek")
        self.directory = directory
        self.tenant = first["tenant"]
        (directory / "first.key").write_bytes(key)
        self.rows = [("local:first", *unhex(first, "wrapped", "commitment"))]
        self.sealed = e.seal_envelope(self.dek, self.tenant, b"value", b"row 7", bytes(24))

    def open(self, sealed: bytes | None = None, rows: list | None = None) -> bytes:
        rows = self.rows if rows is None else rows
        return open_stored(self.directory, self.tenant, rows, sealed or self.sealed, b"row 7")

    def failure(self, **changed) -> str:
        with pytest.raises(e.EnvelopeError) as failure:
            self.open(**changed)
        return failure.value.reason


@pytest.fixture
def stored(tmp_path):
    return Stored(tmp_path)


def test_stored_envelope_opens_from_rows_and_key_file(stored):
    assert stored.open() == b"value"


def test_stored_envelope_of_another_data_key_is_unknown(stored):
    alien = e.seal_envelope(bytes(32), stored.tenant, b"value", b"row 7", bytes(24))
    assert stored.failure(sealed=alien) == "unknown_data_key"
    assert stored.failure(rows=[]) == "unknown_data_key"


def test_altered_commitment_is_noticed(stored):
    ((uri, wrapped, commitment),) = stored.rows
    # The half that names the data key stays right; only the comparison of all 32 bytes sees it.
    altered = commitment[:-1] + bytes([commitment[-1] ^ 1])
    assert stored.failure(rows=[(uri, wrapped, altered)]) == "commitment_mismatch"


def test_key_file_of_another_length_is_refused(stored):
    (stored.directory / "first.key").write_bytes(bytes(31))
    assert stored.failure() == "local_key_file"


def test_command_line_opens_an_envelope(stored):
    command = [sys.executable, Path(__file__).with_name("open_envelope.py"), stored.tenant]
    command += [stored.sealed.hex(), "--aad", b"row 7".hex()]

    def run(dek: bytes) -> subprocess.CompletedProcess:
        return subprocess.run(command, input=dek.hex(), capture_output=True, text=True, timeout=60)

    done = run(stored.dek)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"value".hex() + "\n", "")
    refused = run(bytes(32))
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", "not_authentic\n")
