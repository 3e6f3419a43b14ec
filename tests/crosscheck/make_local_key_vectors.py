"""Prints the golden wrapped data keys of the local provider:
`python make_local_key_vectors.py > ../vectors/local_key.json`. Kept and used as make_vectors.py.
"""

import json
import sys

import envelope as e
from local_key import wrap_local
from make_vectors import LONGEST, UNICODE, derived

KEY = derived("local key", 32)


def valid(name: str, tenant: str) -> dict:
    dek = derived(f"wrapped dek {name}", 32)
    wrapped = wrap_local(KEY, tenant, dek, derived(f"wrap nonce {name}", e.NONCE_LEN))
    return {
        "name": name,
        "key": KEY.hex(),
        "tenant": tenant,
        "dek": dek.hex(),
        "commitment": e.commitment(dek, tenant).hex(),
        "wrapped": wrapped.hex(),
    }


VALID = [
    valid("ascii", "acme"),
    valid("unicode", UNICODE),
    valid("255_bytes", LONGEST),
    valid("json_specials", 'a "quoted" \\ name / with {"tenant":"x"}'),
    valid("html_specials", "<a&b>\u007f\u2028"),
]

WRAPPED = bytes.fromhex(VALID[0]["wrapped"])


def invalid(
    name: str, wrapped: bytes, tenant: str = "acme", key: bytes = KEY
) -> dict:
    return {
        "name": name,
        "key": key.hex(),
        "tenant": tenant,
        "wrapped": wrapped.hex(),
        "reason": "wrapped_key_rejected",
    }


def changed(offset: int) -> bytes:
    out = bytearray(WRAPPED)
    out[offset] ^= 0x01
    return bytes(out)


INVALID = [
    invalid("no_bytes", b""),
    invalid("format_alone", WRAPPED[:1]),
    invalid("format_flipped", changed(0)),
    invalid("nonce_first_byte", changed(1)),
    invalid("nonce_last_byte", changed(24)),
    invalid("dek_first_byte", changed(25)),
    invalid("tag_last_byte", changed(-1)),
    invalid("truncated_by_one", WRAPPED[:-1]),
    invalid("extended_by_one", WRAPPED + b"\0"),
    invalid("other_tenant", WRAPPED, tenant="umbrella"),
    invalid("other_key", WRAPPED, key=derived("another local key", 32)),
    invalid(
        "well_sealed_but_16_bytes",
        b"\x01" + WRAPPED[1:25] + e.xaes_seal(
            KEY, WRAPPED[1:25], bytes(16), b'{"cmk_encrypt":"v1","purpose":"dek","tenant":"acme"}'
        ),
    ),
    invalid(
        "context_without_purpose",
        b"\x01" + WRAPPED[1:25] + e.xaes_seal(
            KEY, WRAPPED[1:25], bytes(32), b'{"cmk_encrypt":"v1","tenant":"acme"}'
        ),
    ),
    invalid(
        "context_with_spaces",
        b"\x01" + WRAPPED[1:25] + e.xaes_seal(
            KEY,
            WRAPPED[1:25],
            bytes(32),
            b'{"cmk_encrypt": "v1", "purpose": "dek", "tenant": "acme"}',
        ),
    ),
]

if __name__ == "__main__":
    document = {
        "encoding": "hexadecimal, but tenant: text",
        "valid": VALID,
        "invalid": INVALID,
    }
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
