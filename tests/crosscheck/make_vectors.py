"""Prints the golden vectors of suite 1: `python make_vectors.py > ../vectors/suite1.json`.

Kept to show where `tests/vectors/suite1.json` comes from. No test runs it, and the file is never
written again: an envelope that a release has sealed must open in every later one. New cases go into
a new file.
"""

import hashlib
import json
import struct
import sys

import envelope as e

ACME = "acme"
UNICODE = "Zoë GmbH & Søn, 東京 🔑"
LONGEST = "t" * 255
# Bytes of the AAD that are neither tenant nor aad; the extension builds up to 384 on the stack.
FIXED_AAD = 14 + e.HEADER_LEN + 4 + 4


def derived(label: str, length: int) -> bytes:
    """Fixed bytes that look random: nonces and keys that anybody can reproduce."""
    return hashlib.shake_256(f"cmk_encrypt golden {label}".encode()).digest(length)


def valid(name: str, tenant: str, aad: bytes, plaintext: bytes, key: str = "dek 1") -> dict:
    dek, nonce = derived(key, 32), derived(f"nonce {name}", 24)
    return {
        "name": name,
        "key": dek.hex(),
        "tenant": tenant,
        "aad": aad.hex(),
        "plaintext": plaintext.hex(),
        "nonce": nonce.hex(),
        "dek_id": e.dek_id(dek, tenant).hex(),
        "commitment": e.commitment(dek, tenant).hex(),
        "envelope": e.seal_envelope(dek, tenant, plaintext, aad, nonce).hex(),
    }


VALID = [
    valid("empty", ACME, b"", b""),
    valid("one_byte", ACME, b"", b"\x00"),
    valid("one_block", ACME, b"users.ssn", b"0123456789abcdef"),
    valid("64_bytes", ACME, b"row 7", bytes(range(64))),
    valid("text_utf8", ACME, b"", "čeština, 日本語, 🔐".encode()),
    valid("another_key", ACME, b"row 7", bytes(range(64)), key="dek 2"),
    valid("tenant_one_byte", "a", b"", b"value"),
    valid("tenant_unicode", UNICODE, b"row 7", b"value"),
    valid("tenant_255_bytes", LONGEST, b"row 7", b"value"),
    valid("tenant_longest_unicode", "é" * 127 + "x", b"", b"value"),
    valid("aad_fills_the_stack_buffer", ACME, derived("aad", 384 - FIXED_AAD - 4), b"value"),
    valid("aad_one_byte_beyond_it", ACME, derived("aad", 385 - FIXED_AAD - 4), b"value"),
    valid("aad_4096_bytes", ACME, derived("aad", 4096), b"value"),
    valid("aad_any_bytes", ACME, bytes(range(256)), b"value"),
    valid("plaintext_1025_bytes", ACME, b"", derived("plaintext", 1025)),
    valid("plaintext_an_envelope", ACME, b"", bytes.fromhex("c101") + derived("inner", 56)),
]

BASE = next(v for v in VALID if v["name"] == "64_bytes")
DEK = bytes.fromhex(BASE["key"])
AAD = bytes.fromhex(BASE["aad"])
SEALED = bytes.fromhex(BASE["envelope"])


def invalid(
    name: str,
    reason: str,
    sealed: bytes,
    tenant: str = ACME,
    aad: bytes = AAD,
    key: str = "dek 1",
) -> dict:
    return {
        "name": name,
        "key": derived(key, 32).hex(),
        "tenant": tenant,
        "aad": aad.hex(),
        "envelope": sealed.hex(),
        "reason": reason,
    }


def changed(offset: int, value: int | None = None) -> bytes:
    out = bytearray(SEALED)
    out[offset] = out[offset] ^ 0x01 if value is None else value
    return bytes(out)


def other_binding(name: str, bound: bytes) -> bytes:
    """Well sealed under the right key, with another AAD than the format's."""
    nonce = derived(f"nonce {name}", 24)
    return SEALED[:18] + nonce + e.xaes_seal(DEK, nonce, b"value", bound)


def little_endian(part: bytes) -> bytes:
    return struct.pack("<I", len(part)) + part


HEADER = SEALED[:18]
TENANT = ACME.encode()
PLAIN_GCM_NONCE = derived("nonce plain gcm", 24)

INVALID = [
    invalid("no_bytes", "not_an_envelope", b""),
    invalid("magic_alone", "not_an_envelope", SEALED[:1]),
    invalid("header_alone", "not_an_envelope", SEALED[:18]),
    invalid("57_bytes", "not_an_envelope", SEALED[:57]),
    invalid("text", "not_an_envelope", b"a plain string that is longer than an envelope has to be..."),
    invalid("hex_of_an_envelope", "not_an_envelope", b"\\x" + SEALED.hex().encode()),
    invalid("magic_flipped", "not_an_envelope", changed(0)),
    invalid("magic_of_utf8_neighbour", "not_an_envelope", changed(0, 0xC0)),
    invalid("suite_0", "unknown_suite", changed(1, 0)),
    invalid("suite_2", "unknown_suite", changed(1, 2)),
    invalid("suite_255", "unknown_suite", changed(1, 255)),
    invalid("suite_2_truncated", "unknown_suite", changed(1, 2)[:2]),
    invalid("dek_id_first_byte", "not_authentic", changed(2)),
    invalid("dek_id_last_byte", "not_authentic", changed(17)),
    invalid("nonce_kdf_half", "not_authentic", changed(18)),
    invalid("nonce_gcm_half", "not_authentic", changed(41)),
    invalid("ciphertext_first_byte", "not_authentic", changed(42)),
    invalid("ciphertext_last_byte", "not_authentic", changed(-17)),
    invalid("tag_first_byte", "not_authentic", changed(-16)),
    invalid("tag_last_byte", "not_authentic", changed(-1)),
    invalid("tag_zeroed", "not_authentic", SEALED[:-16] + bytes(16)),
    invalid("truncated_by_one", "not_authentic", SEALED[:-1]),
    invalid("extended_by_one", "not_authentic", SEALED + b"\0"),
    invalid("58_bytes", "not_authentic", SEALED[:58]),
    invalid("two_concatenated", "not_authentic", SEALED + SEALED),
    invalid("other_tenant", "not_authentic", SEALED, tenant="umbrella"),
    invalid("other_case_of_tenant", "not_authentic", SEALED, tenant="Acme"),
    invalid("tenant_with_a_space", "not_authentic", SEALED, tenant="acme "),
    invalid("other_aad", "not_authentic", SEALED, aad=b"row 8"),
    invalid("no_aad", "not_authentic", SEALED, aad=b""),
    invalid("longer_aad", "not_authentic", SEALED, aad=AAD + b"\0"),
    invalid("other_key", "not_authentic", SEALED, key="dek 2"),
    invalid(
        "tenant_shifted_into_aad",
        "not_authentic",
        e.seal_envelope(DEK, "acm", b"value", b"erow 7", derived("nonce shifted", 24)),
    ),
    invalid(
        "tenant_other_unicode_form",
        "not_authentic",
        e.seal_envelope(DEK, "Zo\u00eb", b"value", AAD, derived("nonce unicode form", 24)),
        tenant="Zoe\u0308",
    ),
    invalid("bound_to_nothing", "not_authentic", other_binding("nothing", b"")),
    invalid("bound_to_aad_alone", "not_authentic", other_binding("aad alone", AAD)),
    invalid(
        "bound_without_header",
        "not_authentic",
        other_binding(
            "no header", b"cmk_encrypt/v1" + e.prefixed(TENANT) + e.prefixed(AAD)
        ),
    ),
    invalid(
        "bound_with_little_endian_lengths",
        "not_authentic",
        other_binding(
            "little endian",
            b"cmk_encrypt/v1" + HEADER + little_endian(TENANT) + little_endian(AAD),
        ),
    ),
    invalid(
        "bound_to_another_version",
        "not_authentic",
        other_binding(
            "version", b"cmk_encrypt/v2" + HEADER + e.prefixed(TENANT) + e.prefixed(AAD)
        ),
    ),
    invalid(
        "aes_256_gcm_without_key_derivation",
        "not_authentic",
        HEADER
        + PLAIN_GCM_NONCE
        + e.AESGCM(DEK).encrypt(
            PLAIN_GCM_NONCE[12:], b"value", e.associated_data(HEADER, ACME, AAD)
        ),
    ),
]

if __name__ == "__main__":
    document = {
        "suite": 1,
        "encoding": "hexadecimal, but tenant: text, bound as UTF-8",
        "valid": VALID,
        "invalid": INVALID,
    }
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
