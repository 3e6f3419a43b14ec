"""An independent implementation of the envelopes of protected columns: suites 2, 3 and 4, and armor.

    envelope   = 0xC1 || suite || dek_id[16] || tenant_tag[8] || column_tag[8]
                 || (suites 3 and 4: index_key_id[4] || token[16])
                 || (suite 4: next_index_key_id[4] || token[16])
                 || nonce[24] || ciphertext[n] || tag[16]
    tenant_tag = SHA-256("cmk_encrypt/v1/tenant" || tenant)[0..8]
    column_tag = SHA-256("cmk_encrypt/v1/column" || label)[0..8]
    AAD        = "cmk_encrypt/v1" || what is before the nonce || len32(tenant) || tenant || len32(0)
    armor      = "cmk1:" || base64(envelope || SHA-256("cmk_encrypt/v1/armor" || envelope)[0..4]),
                 standard alphabet, no padding, trailing bits 0

Suites 3 and 4 have their number in the low four bits of the suite byte, and above them the rule of
their tokens (`search_token.py`). The cipher, dek_id and commitment are those of `envelope.py`.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

import envelope as e

SUITE_2 = 0x02
SUITE_3 = 0x03
SUITE_4 = 0x04
SUITE_PROBE = 0x7F
NAME_TAG_LEN = 8
TOKEN_LEN = 4 + 16
HEADER_LEN = {
    SUITE_2: e.HEADER_LEN + 2 * NAME_TAG_LEN,
    SUITE_3: e.HEADER_LEN + 2 * NAME_TAG_LEN + TOKEN_LEN,
    SUITE_4: e.HEADER_LEN + 2 * NAME_TAG_LEN + 2 * TOKEN_LEN,
}
RULES = 4
PREFIX = "cmk1:"
CHECKSUM_LEN = 4


def layout(suite_byte: int) -> int | None:
    """The number of a suite, without the rule of its tokens; None if there is no such suite."""
    number, normalization = suite_byte & 0x0F, suite_byte >> 4 & 7
    if number in (SUITE_3, SUITE_4) and normalization < RULES:
        return number
    return SUITE_2 if suite_byte == SUITE_2 else None


def overhead(suite: int) -> int:
    return HEADER_LEN[suite] + e.NONCE_LEN + e.TAG_LEN


def name_tag(domain: bytes, name: str) -> bytes:
    return hashlib.sha256(b"cmk_encrypt/v1/" + domain + name.encode()).digest()[:NAME_TAG_LEN]


def tenant_tag(tenant: str) -> bytes:
    return name_tag(b"tenant", tenant)


def column_tag(label: str) -> bytes:
    return name_tag(b"column", label)


@dataclass(frozen=True)
class ColumnEnvelope:
    """A well-formed envelope; `token` is the index key's id and the token, twice in suite 4, empty in
    suite 2. `suite` is the whole byte.
    """

    suite: int
    dek_id: bytes
    tenant_tag: bytes
    column_tag: bytes
    token: bytes
    nonce: bytes
    sealed: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "ColumnEnvelope":
        """Splits `raw`; reasons: not_an_envelope, unknown_suite."""
        if len(raw) < 2 or raw[0] != e.MAGIC:
            raise e.EnvelopeError("not_an_envelope")
        suite = raw[1]
        number = layout(suite)
        if number is None:
            raise e.EnvelopeError("unknown_suite")
        if len(raw) < overhead(number):
            raise e.EnvelopeError("not_an_envelope")
        header, rest = raw[: HEADER_LEN[number]], raw[HEADER_LEN[number] :]
        nonce, sealed = rest[: e.NONCE_LEN], rest[e.NONCE_LEN :]
        return cls(suite, header[2:18], header[18:26], header[26:34], header[34:], nonce, sealed)

    def header(self) -> bytes:
        fields = self.dek_id + self.tenant_tag + self.column_tag + self.token
        return bytes([e.MAGIC, self.suite]) + fields

    def serialise(self) -> bytes:
        return self.header() + self.nonce + self.sealed


def column_header(
    dek: bytes, tenant: str, label: str, token: bytes = b"", rule: int = 0
) -> bytes:
    suites = {0: SUITE_2, TOKEN_LEN: SUITE_3, 2 * TOKEN_LEN: SUITE_4}
    if len(token) not in suites:
        raise ValueError("a token is 4 bytes of the index key's id and 16 of its own")
    fields = e.dek_id(dek, tenant) + tenant_tag(tenant) + column_tag(label) + token
    return bytes([e.MAGIC, suites[len(token)] | rule]) + fields


def seal_column(
    dek: bytes,
    tenant: str,
    label: str,
    plaintext: bytes,
    nonce: bytes,
    token: bytes = b"",
    rule: int = 0,
) -> bytes:
    """Takes the nonce only because the golden vectors need fixed ones."""
    header = column_header(dek, tenant, label, token, rule)
    bound = e.associated_data(header, tenant, b"")
    return header + nonce + e.xaes_seal(dek, nonce, plaintext, bound)


def open_column(dek: bytes, tenant: str, raw: bytes) -> bytes:
    """The plaintext under a given raw data key; reasons as parse, and not_authentic."""
    envelope = ColumnEnvelope.parse(raw)
    bound = e.associated_data(envelope.header(), tenant, b"")
    return e.xaes_open(dek, envelope.nonce, envelope.sealed, bound)


def checksum(envelope: bytes) -> bytes:
    return hashlib.sha256(b"cmk_encrypt/v1/armor" + envelope).digest()[:CHECKSUM_LEN]


def unpadded(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def armor(envelope: bytes) -> str:
    return PREFIX + unpadded(envelope + checksum(envelope))


def unarmor(text: str) -> bytes | None:
    """The envelope; None for whatever isn't the armor of an envelope of a column."""
    if not text.startswith(PREFIX):
        return None
    characters = text.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(characters + "=" * (-len(characters) % 4), validate=True)
        envelope = raw[:-CHECKSUM_LEN]
        ColumnEnvelope.parse(envelope)
    except (binascii.Error, ValueError, e.EnvelopeError):
        return None
    # Whatever else would decode to the same bytes is refused: an envelope has one armor.
    return envelope if armor(envelope) == text else None
