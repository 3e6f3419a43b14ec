use super::super::header;
use super::super::{ColumnTag, INDEX_KEY_ID_LEN, SUITE_3, SUITE_4, overhead};
use super::*;
use std::hash::{BuildHasher, RandomState};

const TENANT: TenantTag = TenantTag([1, 2, 3, 4, 5, 6, 7, 8]);
const TOKEN: Token = Token { index_key: [9; INDEX_KEY_ID_LEN], value: *b"0123456789abcdef" };
const NEXT: Token = Token { index_key: [8; INDEX_KEY_ID_LEN], value: *b"fedcba9876543210" };

fn search_key(tenant: TenantTag, token: Token) -> SearchKey {
    SearchKey::of(&probe(tenant, token), Which::First).unwrap()
}

fn normalized(by: Normalization, text: &str) -> String {
    String::from_utf8(by.apply(text.as_bytes()).unwrap().into_owned()).unwrap()
}

fn rules() -> impl Iterator<Item = TokenRule> {
    Normalization::ALL.into_iter().flat_map(|normalization| {
        [false, true].map(|is_shortened| TokenRule { normalization, is_shortened })
    })
}

/// A well-formed envelope: search keys ask for no more.
fn envelope(tenant: TenantTag, tokens: Option<Tokens>, filler: u8) -> Vec<u8> {
    let mut bytes = vec![filler; overhead(tokens.as_ref()) + usize::from(filler)];
    bytes[..2].copy_from_slice(&[MAGIC, crate::column::SUITE_2]);
    bytes[18..26].copy_from_slice(&tenant.0);
    bytes[26..34].copy_from_slice(&ColumnTag::of(&[filler]).0);
    if let Some(Tokens { rule, first, next }) = tokens {
        bytes[1] = rule.bits() | if next.is_some() { SUITE_4 } else { SUITE_3 };
        for (at, token) in [(34, Some(first)), (54, next)] {
            let Some(Token { index_key, value }) = token else { continue };
            bytes[at..at + 4].copy_from_slice(&index_key);
            bytes[at + 4..at + 20].copy_from_slice(&value);
        }
    }
    bytes
}

fn with(rule: TokenRule, first: Token, next: Option<Token>) -> Option<Tokens> {
    Some(Tokens { rule, first, next })
}

#[test]
fn normalizations_do_what_they_say() {
    use Normalization::{Alnum, Digits, Lower, None};
    for (by, text, expected) in [
        (None, "Ann@Example.com ", "Ann@Example.com "),
        (Lower, "Ann@Example.com ", "ann@example.com "),
        (Lower, "ann@example.com", "ann@example.com"),
        (Lower, "Z", "z"),
        (Lower, "ÄÖÜ é ß", "äöü é ß"),
        // Without regard to its neighbours: no final sigma.
        (Lower, "ΑΣ ΟΔΟΣ", "ασ οδοσ"),
        (Lower, "\u{130}", "i\u{307}"),
        (Lower, "", ""),
        (Digits, "+49 (30) 90-18 20", "4930901820"),
        (Digits, "4930901820", "4930901820"),
        (Digits, "٣ ⅷ ² 7", "7"),
        (Digits, "none", ""),
        (Alnum, "DE89 3704-0044 Ä", "de8937040044ä"),
        (Alnum, "b\u{a0}–mw\t42_٣", "bmw42٣"),
        (Alnum, "already1", "already1"),
        // The dot that its lower case has above it is no letter.
        (Alnum, "\u{130}", "i"),
        (Alnum, "", ""),
    ] {
        assert_eq!(normalized(by, text), expected, "{by:?} {text}");
    }
}

#[test]
fn what_is_normalized_already_is_not_copied() {
    use Normalization::{Digits, Lower, None};
    for (by, text) in [(None, "ANN Ä"), (Lower, "ann@example.com 7"), (Digits, "0123456789")] {
        assert!(matches!(by.apply(text.as_bytes()), Ok(Cow::Borrowed(_))), "{by:?}");
    }
}

#[test]
fn normalizing_twice_changes_nothing() {
    let every = ('\0'..=char::MAX).collect::<String>();
    for by in Normalization::ALL {
        let once = normalized(by, &every);
        assert!(normalized(by, &once) == once, "{by:?}");
    }
}

#[test]
fn what_is_not_utf_8_stays_as_it_is() {
    for by in Normalization::ALL {
        for bytes in [&b"\xff"[..], b"ABC \xc3", b"\xc1\x03ABC"] {
            assert_eq!(by.apply(bytes).unwrap().as_ref(), bytes, "{by:?}");
        }
    }
}

#[test]
fn normalizations_have_names() {
    let names = Normalization::ALL.map(Normalization::name);
    assert_eq!(names, [None, Some("lower"), Some("digits"), Some("alnum")]);
    for by in Normalization::ALL {
        assert_eq!(by.name().and_then(Normalization::from_name), by.name().map(|_| by));
    }
    for name in ["", "Lower", "upper", "none"] {
        assert_eq!(Normalization::from_name(name), None);
    }
}

#[test]
fn rules_are_read_back() {
    for suite in [SUITE_3, SUITE_4] {
        let bytes: Vec<u8> = rules().map(|rule| suite | rule.bits()).collect();
        assert_eq!(bytes, [0x00, 0x80, 0x10, 0x90, 0x20, 0xA0, 0x30, 0xB0].map(|b| suite | b));
        for (byte, rule) in bytes.into_iter().zip(rules()) {
            assert_eq!(TokenRule::split(byte), Some((suite, rule)));
        }
        for unknown in [0x40, 0x50, 0x60, 0x70, 0xC0, 0xF0] {
            assert_eq!(TokenRule::split(suite | unknown), None);
        }
    }
    assert_eq!(TokenRule::split(SUITE_PROBE), None);
}

#[test]
fn a_shortened_token_keeps_its_first_bits_and_says_how_many() {
    let token = Token { index_key: [9; 4], value: [0xFF; TOKEN_LEN] };
    let shortened = TokenRule { is_shortened: true, ..TokenRule::default() };
    for (bits, start, kept) in [
        (0, 0, 0),
        (8, 0xFF << 112, 8),
        (12, 0xFFF << 108, 12),
        (17, 0x1_FFFF << 103, 17),
        (64, u128::from(u64::MAX) << 56, 64),
        (119, u128::MAX >> 9 << 1, 119),
        (120, u128::MAX >> 8, 120),
        (121, u128::MAX >> 8, 120),
        (u8::MAX, u128::MAX >> 8, 120),
    ] {
        let expected = (start << 8 | u128::from(kept)).to_be_bytes();
        let short = token.shortened(bits);
        assert_eq!(short, Token { value: expected, ..token }, "{bits} bits");
        assert_eq!(short.bits(shortened), Some(kept));
        assert_eq!(short.bits(TokenRule::default()), None);
    }
    assert_eq!(TOKEN.shortened(20).value, *b"01\x30\0\0\0\0\0\0\0\0\0\0\0\0\x14");
}

#[test]
fn the_same_value_has_another_token_under_another_number_of_bits() {
    // Even where the bits between are zero anyway.
    let token = Token { index_key: [9; 4], value: [0; TOKEN_LEN] };
    assert_ne!(token.shortened(8), token.shortened(16));
}

#[test]
fn tokens_are_told_by_their_index_key() {
    let rule = TokenRule::default();
    let one = Tokens { rule, first: TOKEN, next: None };
    assert_eq!((one.of([9; 4]), one.of([8; 4]), one.last()), (Some(TOKEN), None, TOKEN));
    let two = Tokens { rule, first: TOKEN, next: Some(NEXT) };
    assert_eq!((two.of([9; 4]), two.of([8; 4]), two.last()), (Some(TOKEN), Some(NEXT), NEXT));
    assert_eq!(two.of([9, 9, 9, 8]), None);
}

#[test]
fn a_probe_has_the_search_key_of_what_it_looks_for() {
    let probe = probe(TENANT, TOKEN);
    assert_eq!(
        probe[..],
        *b"\xc1\x7f\x01\x02\x03\x04\x05\x06\x07\x08\x09\x09\x09\x090123456789abcdef"
    );
    let expected = b"\x01\x02\x03\x040123\x05\x06\x07\x08\x09\x09\x09\x09456789abcdef";
    for which in [Which::First, Which::Last] {
        let key = SearchKey::of(&probe, which).unwrap();
        assert_eq!(&key.to_bytes(), expected);
        assert_eq!(key.abbreviated(), 0x0102_0304_3031_3233);
        for rule in rules() {
            let sealed = envelope(TENANT, with(rule, TOKEN, None), 3);
            assert_eq!(SearchKey::of(&sealed, which), Some(key));
        }
    }
    assert_eq!(header(&probe), None);
}

#[test]
fn what_has_no_token_has_no_search_key() {
    let probe = probe(TENANT, TOKEN);
    let long_probe = [&probe[..], &[0]].concat();
    let tokens = with(TokenRule::default(), TOKEN, None);
    let sealed = envelope(TENANT, tokens, 0);
    let mut unknown_rule = envelope(TENANT, tokens, 99);
    unknown_rule[1] |= 0x40;
    let mut suite_1 = envelope(TENANT, None, 99);
    suite_1[1] = crate::SUITE_1;
    let plain = envelope(TENANT, None, 99);
    let cut = (0..PROBE_LEN).map(|len| &probe[..len]);
    let cut = cut.chain((0..sealed.len()).map(|len| &sealed[..len]));
    let others = [&long_probe, &unknown_rule, &suite_1, &plain].map(Vec::as_slice);
    for bytes in cut.chain(others).chain([&b"plain text"[..]]) {
        for which in [Which::First, Which::Last] {
            assert_eq!(SearchKey::of(bytes, which), None, "{bytes:02x?}");
        }
    }
}

/// Every way to be equal or different in one part: tenant, index key, token, their first and last
/// bytes.
fn parts() -> Vec<(TenantTag, Token)> {
    let ends = [(0, 0), (0, 1), (1, 0), (0xFF, 0xFF)];
    let mut parts = Vec::new();
    for (tenant_start, tenant_end) in ends {
        for (key_start, key_end) in ends {
            for (value_start, value_end) in ends {
                let (mut tenant, mut token) = (TENANT, TOKEN);
                (tenant.0[0], tenant.0[7]) = (tenant_start, tenant_end);
                (token.index_key[0], token.index_key[3]) = (key_start, key_end);
                (token.value[0], token.value[15]) = (value_start, value_end);
                parts.push((tenant, token));
            }
        }
    }
    parts
}

#[test]
fn search_keys_are_equal_where_tenant_index_key_and_token_are() {
    let hashes = RandomState::new();
    let parts = parts();
    for (i, &a) in parts.iter().enumerate() {
        for (j, &b) in parts.iter().enumerate() {
            // All else of the two differs: suite, rule, data key, column, nonce, length.
            let rule = TokenRule { normalization: Normalization::Digits, is_shortened: true };
            let x = envelope(a.0, with(TokenRule::default(), a.1, Some(NEXT)), 3);
            let y = envelope(b.0, with(rule, b.1, None), 5);
            let [x, y] = [x, y].map(|bytes| SearchKey::of(&bytes, Which::First).unwrap());
            assert_eq!(x == y, i == j);
            assert_eq!(x == y, hashes.hash_one(x) == hashes.hash_one(y));
        }
    }
}

#[test]
fn the_last_token_is_that_of_the_next_index_key() {
    let rule = TokenRule::default();
    let two = envelope(TENANT, with(rule, TOKEN, Some(NEXT)), 3);
    let before = envelope(TENANT, with(rule, TOKEN, None), 4);
    let after = envelope(TENANT, with(rule, NEXT, None), 5);
    let of = |bytes: &[u8], which| SearchKey::of(bytes, which).unwrap();
    assert_eq!(of(&two, Which::First), of(&before, Which::First));
    assert_eq!(of(&two, Which::Last), of(&after, Which::First));
    assert_ne!(of(&two, Which::First), of(&two, Which::Last));
    for one in [before, after] {
        assert_eq!(of(&one, Which::First), of(&one, Which::Last));
    }
}

#[test]
fn search_keys_sort_in_one_way_and_their_first_bytes_agree() {
    let keys: Vec<SearchKey> =
        parts().into_iter().map(|(tenant, token)| search_key(tenant, token)).collect();
    for a in &keys {
        for b in &keys {
            let order = a.cmp(b);
            assert_eq!(order, b.cmp(a).reverse());
            assert_eq!(order, a.to_bytes().cmp(&b.to_bytes()));
            assert_eq!(order.is_eq(), a == b);
            let first = a.abbreviated().cmp(&b.abbreviated());
            assert_eq!(first.then(order), order, "the first bytes contradict the rest");
        }
    }
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    // Sorting again, from the other end, gives the same.
    let mut reversed: Vec<SearchKey> = keys.into_iter().rev().collect();
    reversed.sort_unstable();
    assert_eq!(sorted, reversed);
    assert!(sorted.is_sorted_by(|a, b| a < b), "two of the parts have one key");
}

#[test]
fn the_first_bytes_of_a_search_key_tell_most_values_apart() {
    let mut other = TOKEN;
    other.value[3] ^= 1;
    let [a, b] = [TOKEN, other].map(|token| search_key(TENANT, token).abbreviated());
    assert_eq!(a ^ b, 1);
    assert_eq!(a >> 32, 0x0102_0304);
}
