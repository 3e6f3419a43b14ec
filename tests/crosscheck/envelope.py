"""An independent implementation of the cmk_encrypt envelope, suite 1.

It shares no code with the extension: AES-ECB, AES-GCM and HKDF come from Python `cryptography`
(OpenSSL), the composition is written from the C2SP XAES-256-GCM specification, RFC 5869 and the
layout in `crates/envelope/src/lib.rs`. What this module opens, and only that, is what the format
says; `column.py` is the same for protected columns.

    envelope   = 0xC1 || suite 0x01 || dek_id[16] || nonce[24] || ciphertext[n] || tag[16]
    AAD        = "cmk_encrypt/v1" || envelope[0..18] || len32(tenant) || tenant || len32(aad) || aad
    commitment = HKDF-SHA-256(ikm = DEK, salt = "",
                              info = "cmk_encrypt/v1/dek-commitment" || len32(tenant) || tenant)
    dek_id     = commitment[0..16]

Lengths are big-endian. See `local_key.py` for the wrapped data keys of the local provider.
"""

import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = 0xC1
SUITE_1 = 0x01
KEY_LEN = 32
DEK_ID_LEN = 16
NONCE_LEN = 24
TAG_LEN = 16
HEADER_LEN = 2 + DEK_ID_LEN
OVERHEAD = HEADER_LEN + NONCE_LEN + TAG_LEN


class EnvelopeError(Exception):
    """A value that cannot be opened; `reason` is the name in the extension's error table."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Envelope:
    """A well-formed envelope; well-formed says nothing about authentic."""

    header: bytes
    nonce: bytes
    ciphertext: bytes
    tag: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "Envelope":
        """Splits `raw`; reasons: not_an_envelope, unknown_suite."""
        if len(raw) < 2 or raw[0] != MAGIC:
            raise EnvelopeError("not_an_envelope")
        if raw[1] != SUITE_1:
            raise EnvelopeError("unknown_suite")
        if len(raw) < OVERHEAD:
            raise EnvelopeError("not_an_envelope")
        body = HEADER_LEN + NONCE_LEN
        return cls(raw[:HEADER_LEN], raw[HEADER_LEN:body], raw[body:-TAG_LEN], raw[-TAG_LEN:])

    @property
    def dek_id(self) -> bytes:
        return self.header[2:]

    def serialise(self) -> bytes:
        return self.header + self.nonce + self.ciphertext + self.tag


def xaes_derive(key: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """The AES-256-GCM key and nonce that XAES-256-GCM derives: steps 1 to 6 of the specification."""
    if len(key) != KEY_LEN or len(nonce) != NONCE_LEN:
        raise ValueError("XAES-256-GCM takes a 32-byte key and a 24-byte nonce")

    def aes(block: bytes) -> bytes:
        # One block of ECB is the bare block cipher, which is what the specification asks for.
        encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
        return encryptor.update(block) + encryptor.finalize()

    l = int.from_bytes(aes(bytes(16)), "big")
    k1 = (l << 1) % 2**128 ^ (0b10000111 if l >> 127 else 0)
    subkeys = (
        int.from_bytes(bytes([0, counter]) + b"X\0" + nonce[:12], "big") ^ k1 for counter in (1, 2)
    )
    return b"".join(aes(block.to_bytes(16, "big")) for block in subkeys), nonce[12:]


def xaes_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """ciphertext || tag."""
    derived_key, derived_nonce = xaes_derive(key, nonce)
    return AESGCM(derived_key).encrypt(derived_nonce, plaintext, aad)


def xaes_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext; reason: not_authentic."""
    derived_key, derived_nonce = xaes_derive(key, nonce)
    try:
        return AESGCM(derived_key).decrypt(derived_nonce, sealed, aad)
    except InvalidTag:
        raise EnvelopeError("not_authentic") from None


def prefixed(part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + part


def commitment(dek: bytes, tenant: str) -> bytes:
    """What stands in cmk.data_key.commitment."""
    info = b"cmk_encrypt/v1/dek-commitment" + prefixed(tenant.encode())
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(dek)


def dek_id(dek: bytes, tenant: str) -> bytes:
    return commitment(dek, tenant)[:DEK_ID_LEN]


def associated_data(header: bytes, tenant: str, aad: bytes) -> bytes:
    return b"cmk_encrypt/v1" + header + prefixed(tenant.encode()) + prefixed(aad)


def seal_envelope(dek: bytes, tenant: str, plaintext: bytes, aad: bytes, nonce: bytes) -> bytes:
    """Takes the nonce only because the golden vectors need fixed ones."""
    header = bytes([MAGIC, SUITE_1]) + dek_id(dek, tenant)
    return header + nonce + xaes_seal(dek, nonce, plaintext, associated_data(header, tenant, aad))


def open_envelope(dek: bytes, tenant: str, raw: bytes, aad: bytes = b"") -> bytes:
    """The plaintext under a given raw data key; reasons as parse, and not_authentic."""
    envelope = Envelope.parse(raw)
    bound = associated_data(envelope.header, tenant, aad)
    return xaes_open(dek, envelope.nonce, envelope.ciphertext + envelope.tag, bound)
