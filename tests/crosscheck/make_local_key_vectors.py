"""Prints golden wrapped data keys of the local provider: `python make_local_key_vectors.py FILE`,
where FILE is `local_key` (bound to the purpose "dek", from before the first release) or
`local_key_purposes`. Kept and used as make_vectors.py.
"""

import json
import sys

import envelope as e
from local_key import wrap_local
from make_vectors import LONGEST, UNICODE, derived

KEY = derived("local key", 32)
SPECIALS = 'a "quoted" \\ name / with {"tenant":"x"}'


def valid(name: str, tenant: str, purpose: str = "dek") -> dict:
    dek = derived(f"wrapped dek {name}", 32)
    nonce = derived(f"wrap nonce {name}", e.NONCE_LEN)
    return {
        "name": name,
        "key": KEY.hex(),
        "tenant": tenant,
        "dek": dek.hex(),
        "commitment": e.commitment(dek, tenant).hex(),
        "wrapped": wrap_local(KEY, tenant, dek, nonce, purpose).hex(),
    }


VALID = [
    valid("ascii", "acme"),
    valid("unicode", UNICODE),
    valid("255_bytes", LONGEST),
    valid("json_specials", SPECIALS),
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

LOCAL_KEY = {
    "encoding": "hexadecimal, but tenant: text",
    "valid": VALID,
    "invalid": INVALID,
}


def of_purpose(case: dict, purpose: str) -> dict:
    """The case, read as a data key of this purpose."""
    return {"name": case["name"], "purpose": purpose, **case}


VALID_OF_PURPOSES = [
    of_purpose(valid(f"{purpose}_{name}", tenant, purpose), purpose)
    for purpose in ("values", "index")
    for name, tenant in (("ascii", "acme"), ("unicode", UNICODE), ("json_specials", SPECIALS))
]
VALUES, INDEX = (
    bytes.fromhex(next(v for v in VALID_OF_PURPOSES if v["name"] == name)["wrapped"])
    for name in ("values_ascii", "index_ascii")
)


def with_context(name: str, context: bytes) -> bytes:
    """Well wrapped under the right key, bound to something else."""
    nonce = derived(f"wrap nonce {name}", e.NONCE_LEN)
    return b"\x01" + nonce + e.xaes_seal(KEY, nonce, bytes(32), context)


INVALID_OF_PURPOSES = [
    of_purpose(case, purpose)
    for case, purpose in (
        (invalid("index_as_values", INDEX), "values"),
        (invalid("values_as_index", VALUES), "index"),
        (invalid("values_of_another_tenant", VALUES, tenant="umbrella"), "values"),
        (invalid("dek_as_values", WRAPPED), "values"),
        (invalid("dek_as_index", WRAPPED), "index"),
        (
            invalid(
                "purpose_in_upper_case",
                with_context(
                    "purpose_in_upper_case",
                    b'{"cmk_encrypt":"v1","purpose":"VALUES","tenant":"acme"}',
                ),
            ),
            "values",
        ),
        (
            invalid(
                "context_not_sorted",
                with_context(
                    "context_not_sorted",
                    b'{"cmk_encrypt":"v1","tenant":"acme","purpose":"values"}',
                ),
            ),
            "values",
        ),
    )
]

LOCAL_KEY_PURPOSES = {
    "encoding": "hexadecimal, but purpose and tenant: text",
    "valid": VALID_OF_PURPOSES,
    "invalid": INVALID_OF_PURPOSES,
}

DOCUMENTS = {"local_key": LOCAL_KEY, "local_key_purposes": LOCAL_KEY_PURPOSES}

if __name__ == "__main__":
    json.dump(DOCUMENTS[sys.argv[1]], sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
