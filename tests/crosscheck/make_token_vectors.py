"""Prints the golden vectors of search tokens: `python make_token_vectors.py`.

Kept and used as make_vectors.py.
"""

import json
import sys

import column as c
import search_token as t
from make_vectors import ACME, LONGEST, UNICODE, derived

LABEL = "users.email"


def token(
    name: str,
    plaintext: str | bytes,
    by: str = "",
    bits: int | None = None,
    tenant: str = ACME,
    label: str = LABEL,
    key: str = "index key 1",
) -> dict:
    index_key = derived(key, 32)
    plaintext = plaintext.encode() if isinstance(plaintext, str) else plaintext
    value = t.token(index_key, label, plaintext, by, bits)
    key_id = t.index_key_id(index_key, tenant)
    return {
        "name": name,
        "index_key": index_key.hex(),
        "tenant": tenant,
        "index_key_id": key_id.hex(),
        "label": label,
        "column_tag": c.column_tag(label).hex(),
        "normalization": by,
        "bits": "" if bits is None else str(bits),
        "plaintext": plaintext.hex(),
        "normalized": t.normalize(plaintext, by).hex(),
        "token": value.hex(),
        "probe": t.probe(tenant, key_id + value).hex(),
    }


def each_normalization(name: str, plaintext: str | bytes) -> list[dict]:
    return [token(f"{name}_{by or 'exact'}", plaintext, by) for by in t.NORMALIZATIONS]


# What HMAC-SHA-256 pads: domain and column tag are 28 bytes of its blocks of 64.
LENGTHS = [27, 28, 36, 64, 100, 1025]

TOKENS = [
    *each_normalization("empty", ""),
    *each_normalization("email", "Ann.Example+News@Example.COM"),
    *each_normalization("telephone", "+49 (030) 90-18 20"),
    *each_normalization("iban", "DE89 3704 0044 0532 0130 00 EXAMPLE"),
    *each_normalization("spaces", " \t\r\n\u00a0\u2003 A "),
    *each_normalization("punctuation", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~–—…„“"),
    *each_normalization("nothing_kept", "–"),
    *each_normalization("latin", "Zoë GROSSE-Straße ÅÉÎÕÜ ĲŁ Ǆǅǆ ﬁ Ÿ"),
    *each_normalization("composed_accent", "É\u00e9"),
    *each_normalization("combining_accent", "E\u0301e\u0301"),
    *each_normalization("turkish", "\u0130STANBUL Iı\u0130"),
    *each_normalization("greek_final_sigma", "ΟΔΟΣ οδος Σ"),
    *each_normalization("greek_iota_below", "ᾼ ΑΙ \u0391\u0345"),
    *each_normalization("cyrillic", "Москва ЁЖИК"),
    *each_normalization("georgian", "ᲗᲑᲘᲚᲘᲡᲘ თბილისი"),
    *each_normalization("cherokee", "ᎣᏏᏲ ꭳꮟꮲ"),
    *each_normalization("devanagari", "हिन्दी १२३"),
    *each_normalization("thai", "กำลัง ๑๒๓"),
    *each_normalization("arabic", "مُحَمَّد ٣٤"),
    *each_normalization("han", "東京 〇一二 ㊙ 々"),
    *each_normalization("other_numbers", "Ⅷ ⅷ ② ½ x² ٣ 𝟗 ㉈"),
    *each_normalization("circled_letters", "Ⓐⓐ 🄰 🅰"),
    *each_normalization("full_width", "ＡＢＣ１２３"),
    *each_normalization("beyond_16_bits", "𐐀𐐨 𝐀 🔐 𞤀𞤢"),
    *each_normalization("signs_of_letters", "K\u212a Å\u212b Ω\u2126"),
    *each_normalization("longer_in_lower_case", "ȺȾ\u0130" * 30),
    *each_normalization("zero_bytes", "A\0B\x001\0"),
    *each_normalization("not_utf_8", b"ABC \xff 123"),
    *each_normalization("cut_utf_8", "ABC é".encode()[:-1]),
    *each_normalization("surrogate", b"ABC \xed\xa0\x80"),
    *(token(f"{n}_bytes", derived("token of", n).hex()[:n]) for n in LENGTHS),
    *(token(f"{bits}_bits", "value", bits=bits) for bits in (8, 9, 15, 16, 63, 64, 65, 119, 120)),
    *(token(f"12_bits_{by}", "+49 Value", by, 12) for by in ("lower", "digits", "alnum")),
    token("another_index_key", "value", key="index key 2"),
    token("another_label", "value", label="users.ssn"),
    token("label_empty", "value", label=""),
    token("label_unicode", "value", label='public."Größe".日本'),
    token("label_is_the_tenant", "value", label=ACME),
    token("tenant_unicode", "value", tenant=UNICODE),
    token("tenant_255_bytes", "value", tenant=LONGEST),
]


def search_keys() -> list[dict]:
    """By what an index orders values and probes: the same for equal tenant, index key and token."""
    dek, one, next_ = derived("dek 1", 32), derived("token 1", 20), derived("token 2", 20)
    tags = {tenant: c.tenant_tag(tenant) for tenant in (ACME, UNICODE)}

    def case(name: str, raw: bytes, tenant: str, first: bytes, last: bytes) -> dict:
        keys = [t.search_key(tags[tenant], token) for token in (first, last)]
        return {"name": name, "bytes": raw.hex(), "first": keys[0].hex(), "last": keys[1].hex()}

    def sealed(name: str, tenant: str, tokens: bytes, rule: int = 0, label: str = LABEL) -> bytes:
        nonce = derived(f"nonce search key {name}", 24)
        return c.seal_column(dek, tenant, label, name.encode(), nonce, tokens, rule)

    rule, other = t.rule("alnum", True), "users.ssn"
    return [
        case("probe", t.probe(ACME, one), ACME, one, one),
        case("probe_of_the_next", t.probe(ACME, next_), ACME, next_, next_),
        case("one_token", sealed("one", ACME, one), ACME, one, one),
        case("one_token_rule", sealed("rule", ACME, one, rule), ACME, one, one),
        case("one_token_label", sealed("label", ACME, one, label=other), ACME, one, one),
        case("two_tokens", sealed("two", ACME, one + next_), ACME, one, next_),
        case("two_tokens_rule", sealed("two rule", ACME, one + next_, rule), ACME, one, next_),
        case("next_alone", sealed("next", ACME, next_), ACME, next_, next_),
        case("another_tenant", sealed("tenant", UNICODE, one), UNICODE, one, one),
        case("header_alone", sealed("x" * 99, ACME, one + next_)[:114], ACME, one, next_),
    ]


def no_search_keys() -> list[dict]:
    dek, one, nonce = derived("dek 1", 32), derived("token 1", 20), derived("nonce none", 24)
    probe = t.probe(ACME, one)
    sealed = c.seal_column(dek, ACME, LABEL, b"", nonce, one)
    two = c.seal_column(dek, ACME, LABEL, b"", nonce, one + one)
    raws = {
        "nothing": b"",
        "text": b"plain text",
        "suite_2": c.seal_column(dek, ACME, LABEL, b"value" * 20, nonce),
        "one_token_cut": sealed[:-1],
        "two_tokens_cut": two[:-1],
        "unknown_rule": sealed[:1] + b"\x43" + sealed[2:],
        "probe_cut": probe[:-1],
        "probe_longer": probe + b"\0",
        "probe_without_tenant": probe[:2] + probe[10:],
    }
    return [{"name": name, "bytes": raw.hex()} for name, raw in raws.items()]


if __name__ == "__main__":
    document = {
        "encoding": "hexadecimal, but tenant, label, normalization and bits: text",
        "tokens": TOKENS,
        "search_keys": search_keys(),
        "no_search_keys": no_search_keys(),
    }
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
