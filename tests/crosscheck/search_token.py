"""An independent implementation of search tokens, and of the order of an index on them.

    token        = HMAC-SHA-256(index_key, "cmk_encrypt/v1/token" || column_tag || normalized)[0..16]
    index_key_id = HKDF-SHA-256(index_key, ...)[0..4], the start of its dek_id as in `envelope.py`
    probe        = 0xC1 || 0x7F || tenant_tag[8] || index_key_id[4] || token[16]
    search key   = tenant_tag[0..4] || token[0..4] || tenant_tag[4..8] || index_key_id || token[4..16]

A token of N bits, 120 at most, has zeros behind its first N, and N itself as its last byte. Bits 4
to 6 of the suite byte number the normalization, bit 7 says that the token was shortened.
"""

import hashlib
import hmac
import unicodedata

import column as c
import envelope as e
from other_alphabetic import OTHER_ALPHABETIC

NORMALIZATIONS = ["", "lower", "digits", "alnum"]
ID_LEN = 4
VALUE_LEN = 16


def is_alphanumeric(character: str) -> bool:
    """Alphabetic or a number, as Unicode says: general categories L and N, and some marks."""
    return unicodedata.category(character)[0] in "LN" or character in OTHER_ALPHABETIC


def normalize(text: bytes, by: str) -> bytes:
    """`by` is one of NORMALIZATIONS; what isn't UTF-8 stays as it is."""
    try:
        characters = text.decode()
    except UnicodeDecodeError:
        return text
    if not by:
        return text
    # One by one: str.lower() would write a sigma at the end of a word in another way.
    lower = [low for character in characters for low in character.lower()]
    keep = {"lower": lambda _: True, "digits": "0123456789".__contains__, "alnum": is_alphanumeric}
    return "".join(filter(keep[by], lower)).encode()


def shorten(token: bytes, bits: int) -> bytes:
    spare = 8 * len(token) - bits
    return (int.from_bytes(token, "big") >> spare << spare | bits).to_bytes(len(token), "big")


def token(
    index_key: bytes, label: str, plaintext: bytes, by: str = "", bits: int | None = None
) -> bytes:
    message = b"cmk_encrypt/v1/token" + c.column_tag(label) + normalize(plaintext, by)
    value = hmac.digest(index_key, message, hashlib.sha256)[:VALUE_LEN]
    return value if bits is None else shorten(value, bits)


def index_key_id(index_key: bytes, tenant: str) -> bytes:
    return e.dek_id(index_key, tenant)[:ID_LEN]


def rule(by: str = "", is_shortened: bool = False) -> int:
    """What is added to the number of a suite."""
    return NORMALIZATIONS.index(by) << 4 | is_shortened << 7


def probe(tenant: str, with_id: bytes) -> bytes:
    """`with_id` is the index key's id and the token."""
    return bytes([e.MAGIC, c.SUITE_PROBE]) + c.tenant_tag(tenant) + with_id


def search_key(tenant_tag: bytes, with_id: bytes) -> bytes:
    key_id, value = with_id[:ID_LEN], with_id[ID_LEN:]
    return tenant_tag[:4] + value[:4] + tenant_tag[4:] + key_id + value[4:]
