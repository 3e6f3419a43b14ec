"""Prints the golden vectors of suite N, 2, 3 or 4: `python make_column_vectors.py N`. For `3 rules`
those of suite 3 with what else its suite byte can say.

Kept and used as make_vectors.py.
"""

import hashlib
import json
import sys

import column as c
import envelope as e
import search_token as t
from make_vectors import ACME, LONGEST, UNICODE, derived

LABEL = "users.ssn"
# Bytes of the AAD that are no tenant, but for the header; up to 384 are built on the stack.
FIXED_AAD = 14 + 4 + 4


class Vectors:
    """The cases of one suite; `base` is what the invalid ones are made of."""

    def __init__(self, suite: int) -> None:
        self.suite = suite
        self.dek = derived("dek 1", 32)
        # Not a multiple of 3 bytes with its header and checksum: its armor has spare bits.
        self.of_base = bytes(range(65 + (suite == c.SUITE_4)))
        self.base = self.seal("base", ACME, LABEL, self.of_base)
        self.header_len = c.HEADER_LEN[suite]

    def nonce(self, name: str) -> bytes:
        return derived(f"nonce suite {self.suite} {name}", e.NONCE_LEN)

    def token(self, name: str) -> bytes:
        """Any bytes: how a token is made is no part of the envelope."""
        first = derived(f"token {name}", c.TOKEN_LEN)
        return {
            c.SUITE_2: b"",
            c.SUITE_3: first,
            c.SUITE_4: first + derived(f"next token {name}", c.TOKEN_LEN),
        }[self.suite]

    def seal(self, name: str, tenant: str, label: str, plaintext: bytes) -> bytes:
        nonce, token = self.nonce(name), self.token(name)
        return c.seal_column(self.dek, tenant, label, plaintext, nonce, token)

    def valid(
        self,
        name: str,
        tenant: str,
        label: str,
        plaintext: bytes,
        key: str = "dek 1",
        rule: int = 0,
    ) -> dict:
        dek, nonce, token = derived(key, 32), self.nonce(name), self.token(name)
        envelope = c.seal_column(dek, tenant, label, plaintext, nonce, token, rule)
        case = {
            "name": name,
            "key": dek.hex(),
            "tenant": tenant,
            "label": label,
            "plaintext": plaintext.hex(),
            "nonce": nonce.hex(),
            "dek_id": e.dek_id(dek, tenant).hex(),
            "tenant_tag": c.tenant_tag(tenant).hex(),
            "column_tag": c.column_tag(label).hex(),
        }
        if token:
            case |= {"index_key": token[:4].hex(), "token": token[4:20].hex()}
        if self.suite == c.SUITE_4:
            case |= {"next_index_key": token[20:24].hex(), "next_token": token[24:].hex()}
        return case | {"envelope": envelope.hex(), "armor": c.armor(envelope)}

    def with_rules(self) -> list[dict]:
        """Every rule but the default one. The tokens are any bytes here too."""
        rules = {
            f"{by or 'exact'}{'_shortened' if is_shortened else ''}": t.rule(by, is_shortened)
            for by in t.NORMALIZATIONS
            for is_shortened in (False, True)
            if by or is_shortened
        }
        return [
            self.valid(rule, ACME, LABEL, b"value", rule=bits)
            | {"suite_byte": f"{self.suite | bits:02x}"}
            for rule, bits in rules.items()
        ]

    def all_valid(self) -> list[dict]:
        longest_on_stack = 384 - FIXED_AAD - self.header_len
        return [
            self.valid("empty", ACME, LABEL, b""),
            self.valid("one_byte", ACME, LABEL, b"\x00"),
            self.valid("two_bytes", ACME, LABEL, b"ab"),
            self.valid("one_block", ACME, LABEL, b"0123456789abcdef"),
            self.valid("64_bytes", ACME, LABEL, bytes(range(64))),
            self.valid("text_utf8", ACME, LABEL, "čeština, 日本語, 🔐".encode()),
            self.valid("json", ACME, "users.data", b'{"ssn": "EXAMPLE", "n": [1, 2]}'),
            self.valid("another_key", ACME, LABEL, b"value", key="dek 2"),
            self.valid("tenant_one_byte", "a", LABEL, b"value"),
            self.valid("tenant_unicode", UNICODE, LABEL, b"value"),
            self.valid("tenant_255_bytes", LONGEST, LABEL, b"value"),
            self.valid("tenant_fills_the_stack_buffer", "t" * longest_on_stack, LABEL, b"value"),
            self.valid("tenant_one_byte_more", "t" * (longest_on_stack + 1), LABEL, b"value"),
            self.valid("label_empty", ACME, "", b"value"),
            self.valid("label_unicode", ACME, 'public."Größe".日本', b"value"),
            self.valid("label_is_the_tenant", ACME, ACME, b"value"),
            self.valid("plaintext_1025_bytes", ACME, LABEL, derived("plaintext", 1025)),
            self.valid("plaintext_an_armor", ACME, LABEL, c.armor(self.base).encode()),
            self.valid("base", ACME, LABEL, self.of_base),
        ]

    def invalid(
        self, name: str, reason: str, sealed: bytes, tenant: str = ACME, key: str = "dek 1"
    ) -> dict:
        return {
            "name": name,
            "key": derived(key, 32).hex(),
            "tenant": tenant,
            "envelope": sealed.hex(),
            "reason": reason,
        }

    def changed(self, offset: int, value: int | None = None) -> bytes:
        out = bytearray(self.base)
        out[offset] = out[offset] ^ 0x01 if value is None else value
        return bytes(out)

    def swapped(self, start: int, end: int, other: bytes) -> bytes:
        """The base with the bytes of another envelope at a field of the header."""
        return self.base[:start] + other[start:end] + self.base[end:]

    def bound_to(self, name: str, bound: bytes) -> bytes:
        """Well sealed under the right key, with another AAD than the format's."""
        nonce, header = self.nonce(name), self.base[: self.header_len]
        return header + nonce + e.xaes_seal(self.dek, nonce, b"value", bound)

    def no_envelopes(self) -> list[dict]:
        shortest = c.overhead(self.suite)
        text = b"a plain string that is longer than an envelope has to be, and then some more of it"
        suite_1 = e.seal_envelope(self.dek, ACME, bytes(64), b"", self.nonce("suite 1"))
        probe = bytes([e.MAGIC, c.SUITE_PROBE]) + derived("probe", c.TOKEN_LEN)
        return [
            self.invalid("no_bytes", "not_an_envelope", b""),
            self.invalid("magic_alone", "not_an_envelope", self.base[:1]),
            self.invalid("magic_and_suite", "not_an_envelope", self.base[:2]),
            self.invalid("header_alone", "not_an_envelope", self.base[: self.header_len]),
            self.invalid("one_byte_too_short", "not_an_envelope", self.base[: shortest - 1]),
            self.invalid("text", "not_an_envelope", text),
            self.invalid("armor", "not_an_envelope", c.armor(self.base).encode()),
            self.invalid("magic_flipped", "not_an_envelope", self.changed(0)),
            self.invalid("suite_0", "unknown_suite", self.changed(1, 0)),
            self.invalid("suite_255", "unknown_suite", self.changed(1, 255)),
            self.invalid("suite_255_truncated", "unknown_suite", self.changed(1, 255)[:2]),
            self.invalid("suite_1_by_name", "unknown_suite", self.changed(1, e.SUITE_1)),
            self.invalid("suite_1", "unknown_suite", suite_1),
            self.invalid("probe_by_name", "unknown_suite", self.changed(1, c.SUITE_PROBE)),
            self.invalid("probe", "unknown_suite", probe),
        ]

    def altered(self) -> list[dict]:
        nonce_at = self.header_len
        # Every field of the header, its first and last byte; nonce halves, ciphertext, tag.
        fields = {"dek_id": (2, 18), "tenant_tag": (18, 26), "column_tag": (26, 34)}
        if self.suite == c.SUITE_3:
            fields |= {"index_key": (34, 38), "token": (38, 54)}
        if self.suite == c.SUITE_4:
            fields |= {"index_key": (34, 38), "token": (38, 54)}
            fields |= {"next_index_key": (54, 58), "next_token": (58, 74)}
        offsets = {
            f"{field}_{which}_byte": offset
            for field, (start, end) in fields.items()
            for which, offset in (("first", start), ("last", end - 1))
        } | {
            "nonce_kdf_half": nonce_at,
            "nonce_gcm_half": nonce_at + 23,
            "ciphertext_first_byte": nonce_at + 24,
            "ciphertext_last_byte": -17,
            "tag_first_byte": -16,
            "tag_last_byte": -1,
        }
        other = self.seal("other", "umbrella", "users.email", b"other")
        other_suite = c.SUITE_2 if self.suite == c.SUITE_3 else c.SUITE_3
        sealed = {name: self.changed(offset) for name, offset in offsets.items()} | {
            f"{field}_of_another_envelope": self.swapped(start, end, other)
            for field, (start, end) in fields.items()
        } | {
            "tags_exchanged": self.base[:18]
            + self.base[26:34]
            + self.base[18:26]
            + self.base[34:],
            f"suite_{other_suite}": self.changed(1, other_suite),
            "tag_zeroed": self.base[:-16] + bytes(16),
            "truncated_by_one": self.base[:-1],
            "extended_by_one": self.base + b"\0",
            "cut_to_the_shortest": self.base[: c.overhead(self.suite)],
            "two_concatenated": self.base + self.base,
        }
        return [self.invalid(name, "not_authentic", raw) for name, raw in sealed.items()]

    def wrongly_bound(self) -> list[dict]:
        header, tenant = self.base[: self.header_len], e.prefixed(ACME.encode())
        nothing = e.prefixed(b"")
        bound = {
            "nothing": b"",
            "no_header": b"cmk_encrypt/v1" + tenant + nothing,
            "suite_and_dek_id_alone": b"cmk_encrypt/v1" + header[:18] + tenant + nothing,
            "header_but_its_last_byte": b"cmk_encrypt/v1" + header[:-1] + tenant + nothing,
            "nonce_too": b"cmk_encrypt/v1" + header + self.nonce("nonce_too") + tenant + nothing,
            "tenant_alone": b"cmk_encrypt/v1" + header + tenant,
            "label_as_aad": b"cmk_encrypt/v1" + header + tenant + e.prefixed(LABEL.encode()),
            "another_version": b"cmk_encrypt/v2" + header + tenant + nothing,
        }
        nonce = self.nonce("plain gcm")
        right = e.associated_data(header, ACME, b"")
        plain_gcm = header + nonce + e.AESGCM(self.dek).encrypt(nonce[12:], b"value", right)
        return [
            self.invalid(f"bound_to_{name}", "not_authentic", self.bound_to(name, aad))
            for name, aad in bound.items()
        ] + [
            self.invalid("aes_256_gcm_without_key_derivation", "not_authentic", plain_gcm),
            self.invalid("other_tenant", "not_authentic", self.base, tenant="umbrella"),
            self.invalid("other_case_of_tenant", "not_authentic", self.base, tenant="Acme"),
            self.invalid("tenant_with_a_space", "not_authentic", self.base, tenant="acme "),
            self.invalid("no_tenant", "not_authentic", self.base, tenant=""),
            self.invalid("other_key", "not_authentic", self.base, key="dek 2"),
        ]

    def invalid_armor(self) -> list[dict]:
        """Texts that are no armor of an envelope of a column: plain text, whoever wrote them."""
        text = c.armor(self.base)
        body = text.removeprefix(c.PREFIX)
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        # The lowest bit of the last character is spare where padding would follow it.
        last = alphabet[alphabet.index(text[-1]) | 1]
        padding = "=" * (-len(body) % 4)
        if last == text[-1] or not padding:
            raise ValueError("this armor has no spare bits to set")
        url = text.translate(str.maketrans("+/", "-_"))
        if url == text:
            raise ValueError("this envelope's armor is the same in both alphabets")
        suite_1 = e.seal_envelope(self.dek, ACME, bytes(64), b"", self.nonce("suite 1"))
        wrong_sum = c.PREFIX + c.unpadded(self.base + bytes(4))
        other_sum = hashlib.sha256(self.base).digest()[:4]
        texts = {
            "nothing": "",
            "prefix_alone": c.PREFIX,
            "note_behind_the_prefix": "cmk1: ask Zoë for it",
            "no_prefix": body,
            "other_version": "cmk2:" + body,
            "upper_case_prefix": "CMK1:" + body,
            "escape": "cmk0:" + body,
            "escaped": "cmk0:" + text,
            "prefix_twice": c.PREFIX + text,
            "space_before": " " + text,
            "newline_behind": text + "\n",
            "newline_inside": text[:76] + "\n" + text[76:],
            "padded": text + padding,
            "alphabet_of_urls": url,
            "trailing_bits": text[:-1] + last,
            "truncated_by_one": text[:-1],
            "truncated_by_four": text[:-4],
            "extended_by_one": text + "A",
            "extended_by_four": text + "AAAA",
            "changed_character": text[:60] + ("A" if text[60] != "A" else "B") + text[61:],
            "zero_checksum": wrong_sum,
            "checksum_without_domain": c.PREFIX + c.unpadded(self.base + other_sum),
            "no_checksum": c.PREFIX + c.unpadded(self.base),
            "hexadecimal": c.PREFIX + self.base.hex(),
            "checksum_alone": c.armor(b""),
            "suite_1": c.armor(suite_1),
            "probe": c.armor(bytes([e.MAGIC, c.SUITE_PROBE]) + derived("probe", c.TOKEN_LEN)),
            "one_byte_too_short": c.armor(self.base[: c.overhead(self.suite) - 1]),
            "plain_text": c.armor(b"plain text, as long as the shortest envelope of them all" * 2),
        }
        return [{"name": name, "armor": armor} for name, armor in texts.items()]

    def tokens_altered(self) -> list[dict]:
        """One token of two left out, both exchanged: what only suite 4 can meet."""
        base, suite_3 = self.base, bytes([e.MAGIC, c.SUITE_3]) + self.base[2:]
        sealed = {
            "tokens_exchanged": base[:34] + base[54:74] + base[34:54] + base[74:],
            "without_the_next_token": suite_3[:54] + base[74:],
            "without_the_first_token": suite_3[:34] + base[54:],
            "without_both_tokens": bytes([e.MAGIC, c.SUITE_2]) + base[2:34] + base[74:],
        }
        probe = t.probe(ACME, derived("probe", c.TOKEN_LEN))
        return [self.invalid(name, "not_authentic", raw) for name, raw in sealed.items()] + [
            self.invalid("probe_with_a_tenant", "unknown_suite", probe),
        ]

    def suite_bytes(self) -> list[dict]:
        """Every byte but the right one where the suite stands."""
        known = {c.SUITE_2} | {
            suite | t.rule(by, is_shortened)
            for suite in (c.SUITE_3, c.SUITE_4)
            for by in t.NORMALIZATIONS
            for is_shortened in (False, True)
        }
        # As long as the shortest of suite 4.
        base = self.seal("base of rules", ACME, LABEL, bytes(range(20)))
        return [
            self.invalid(
                f"suite_byte_{byte:02x}",
                "not_authentic" if byte in known else "unknown_suite",
                base[:1] + bytes([byte]) + base[2:],
            )
            for byte in range(256)
            if byte != base[1]
        ]

    def rules_document(self) -> dict:
        return {
            "suite": self.suite,
            "encoding": "hexadecimal, but tenant, label and armor: text, bound as UTF-8",
            "valid": self.with_rules(),
            "invalid": self.suite_bytes(),
        }

    def document(self) -> dict:
        is_4 = self.suite == c.SUITE_4
        return {
            "suite": self.suite,
            "encoding": "hexadecimal, but tenant, label and armor: text, bound as UTF-8",
            "valid": self.all_valid() + (self.with_rules() if is_4 else []),
            "invalid": self.no_envelopes()
            + self.altered()
            + (self.tokens_altered() if is_4 else [])
            + self.wrongly_bound(),
            "invalid_armor": self.invalid_armor(),
        }


if __name__ == "__main__":
    vectors = Vectors(int(sys.argv[1]))
    document = vectors.rules_document() if sys.argv[2:] == ["rules"] else vectors.document()
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
