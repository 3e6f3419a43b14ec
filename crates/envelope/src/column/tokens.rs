//! What a value of a protected column is found by.

use super::{INDEX_KEY_ID_LEN, NAME_TAG_LEN, TOKEN_LEN, TenantTag};
use super::{SUITE_3, SUITE_4, SUITE_PROBE, header};
use crate::MAGIC;
use std::borrow::Cow;

/// What a value is found by: equal plaintexts of one tenant and column have equal tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// The id of the index key that made it.
    pub index_key: [u8; INDEX_KEY_ID_LEN],
    /// A keyed hash of the normalized plaintext.
    pub value: [u8; TOKEN_LEN],
}

impl Token {
    /// Keeps the first bits of it only, at most [`BITS_MAX`]; the last byte says how many.
    #[must_use]
    pub fn shortened(mut self, bits: u8) -> Self {
        let bits = bits.min(BITS_MAX);
        for (at, byte) in self.value.iter_mut().enumerate() {
            let kept = usize::from(bits).saturating_sub(8 * at).min(8);
            *byte &= !(0xFF_u16 >> kept) as u8;
        }
        self.value[TOKEN_LEN - 1] = bits;
        self
    }

    /// How many bits it has, if it was made by such a rule.
    pub fn bits(&self, rule: TokenRule) -> Option<u8> {
        rule.is_shortened.then_some(self.value[TOKEN_LEN - 1])
    }
}

/// The most bits of a token that is shortened.
pub const BITS_MAX: u8 = 8 * (TOKEN_LEN as u8 - 1);

/// The tokens of an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tokens {
    /// How they were made.
    pub rule: TokenRule,
    /// What searches find it by.
    pub first: Token,
    /// While an index key is replaced: the one that its successor made.
    pub next: Option<Token>,
}

impl Tokens {
    /// The newest.
    pub fn last(&self) -> Token {
        self.next.unwrap_or(self.first)
    }

    /// The one that this index key made.
    pub fn of(&self, index_key: [u8; INDEX_KEY_ID_LEN]) -> Option<Token> {
        let of = |token: &Token| token.index_key == index_key;
        [Some(self.first), self.next].into_iter().flatten().find(of)
    }
}

/// How the tokens of a column are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TokenRule {
    /// What is done to a plaintext before.
    pub normalization: Normalization,
    /// Only some of the token's bits are kept: different values may have equal tokens.
    pub is_shortened: bool,
}

const SHORTENED: u8 = 0x80;
const NORMALIZATION_AT: u8 = 4;
const LAYOUT: u8 = 0x0F;

impl TokenRule {
    /// What is added to the number of a suite with tokens.
    pub(super) fn bits(self) -> u8 {
        let shortened = if self.is_shortened { SHORTENED } else { 0 };
        shortened | (self.normalization as u8) << NORMALIZATION_AT
    }

    /// The number of the suite without these bits, and what they say. `None` for bits that say
    /// nothing.
    pub(super) fn split(suite: u8) -> Option<(u8, Self)> {
        let is_shortened = suite & SHORTENED != 0;
        let bits = (suite & !SHORTENED) >> NORMALIZATION_AT;
        let normalization = Normalization::ALL.into_iter().find(|of| *of as u8 == bits)?;
        Some((suite & LAYOUT, Self { normalization, is_shortened }))
    }
}

/// What is done to a text before it is compared and its token is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Normalization {
    /// Nothing.
    #[default]
    None = 0,
    /// Lower case: of each character what Unicode's `Lowercase_Mapping` says, without regard to its
    /// neighbours.
    Lower = 1,
    /// ASCII digits only, all else is left out.
    Digits = 2,
    /// Letters and digits only (Unicode's `Alphabetic` and `N`), in lower case.
    Alnum = 3,
}

impl Normalization {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::None, Self::Lower, Self::Digits, Self::Alnum];

    /// As the options of a column have it; `None` for none.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Lower => Some("lower"),
            Self::Digits => Some("digits"),
            Self::Alnum => Some("alnum"),
        }
    }

    /// Inverse of [`Normalization::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.name() == Some(name))
    }

    /// The normalized text. What isn't UTF-8 stays as it is.
    pub fn apply<'a>(self, value: &'a [u8]) -> Cow<'a, [u8]> {
        let Ok(text) = std::str::from_utf8(value) else { return Cow::Borrowed(value) };
        let kept = |keep: fn(char) -> bool| -> Cow<'a, [u8]> {
            let lower = text.chars().filter(|c| keep(*c)).flat_map(char::to_lowercase);
            Cow::Owned(lower.collect::<String>().into_bytes())
        };
        match self {
            Self::None => Cow::Borrowed(value),
            Self::Lower if !text.is_ascii() => kept(|_| true),
            Self::Lower => match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => Cow::Owned(text.to_ascii_lowercase().into_bytes()),
                false => Cow::Borrowed(value),
            },
            Self::Digits => match text.bytes().all(|byte| byte.is_ascii_digit()) {
                true => Cow::Borrowed(value),
                false => kept(|c| c.is_ascii_digit()),
            },
            Self::Alnum => kept(char::is_alphanumeric),
        }
    }
}

/// Bytes of a [`probe`].
pub const PROBE_LEN: usize = 2 + NAME_TAG_LEN + INDEX_KEY_ID_LEN + TOKEN_LEN;

/// What an expression searches for: `C1 | 7F | tenant tag 8 | index key id 4 | token 16`. No value,
/// so that nothing takes it for an envelope.
pub fn probe(tenant: TenantTag, token: Token) -> [u8; PROBE_LEN] {
    let mut probe = [MAGIC; PROBE_LEN];
    probe[1] = SUITE_PROBE;
    let (tag, rest) = probe[2..].split_at_mut(NAME_TAG_LEN);
    let (index_key, value) = rest.split_at_mut(INDEX_KEY_ID_LEN);
    tag.copy_from_slice(&tenant.0);
    index_key.copy_from_slice(&token.index_key);
    value.copy_from_slice(&token.value);
    probe
}

fn parse_probe(bytes: &[u8]) -> Option<(TenantTag, Token)> {
    let probe: &[u8; PROBE_LEN] = bytes.try_into().ok()?;
    let [MAGIC, SUITE_PROBE, rest @ ..] = probe else { return None };
    let (tenant, rest) = rest.split_first_chunk()?;
    let (index_key, rest) = rest.split_first_chunk()?;
    let (value, _) = rest.split_first_chunk()?;
    Some((TenantTag(*tenant), Token { index_key: *index_key, value: *value }))
}

/// Which of two tokens an index is ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// That of the index key that searches use.
    First,
    /// That of its successor, if there is one.
    Last,
}

/// Bytes of what an index orders by.
pub const SEARCH_KEY_LEN: usize = NAME_TAG_LEN + INDEX_KEY_ID_LEN + TOKEN_LEN;

/// What an index on tokens orders by: tenant, index key and token, in an order of their bytes of
/// which the first eight tell most values of a tenant apart and keep tenants together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SearchKey([u8; SEARCH_KEY_LEN]);

impl SearchKey {
    fn new(TenantTag(tenant): TenantTag, Token { index_key, value }: Token) -> Self {
        const HALF: usize = NAME_TAG_LEN / 2;
        let mut key = [0; SEARCH_KEY_LEN];
        let parts = [&tenant[..HALF], &value[..HALF], &tenant[HALF..], &index_key, &value[HALF..]];
        let mut rest = key.as_mut_slice();
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        Self(key)
    }

    /// Of a probe, or of an envelope with tokens, given the whole or at least its first
    /// [`HEADER_MAX`](super::HEADER_MAX) bytes. `None` for all else.
    #[inline]
    pub fn of(bytes: &[u8], which: Which) -> Option<Self> {
        let (tenant, token) = match bytes {
            [MAGIC, SUITE_PROBE, ..] => parse_probe(bytes)?,
            [MAGIC, suite, ..] if matches!(suite & LAYOUT, SUITE_3 | SUITE_4) => {
                let header = header(bytes)?;
                let tokens = header.tokens?;
                match which {
                    Which::First => (header.tenant, tokens.first),
                    Which::Last => (header.tenant, tokens.last()),
                }
            }
            _ => return None,
        };
        Some(Self::new(tenant, token))
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; SEARCH_KEY_LEN] {
        &self.0
    }

    /// Its first eight bytes, which sort as it does as far as they differ.
    pub fn abbreviated(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(by: Normalization, text: &str) -> String {
        String::from_utf8(by.apply(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn normalizations_do_what_they_say() {
        use Normalization::*;
        for (by, text, expected) in [
            (None, "Ann@Example.com ", "Ann@Example.com "),
            (Lower, "Ann@Example.com ", "ann@example.com "),
            (Lower, "ÄÖÜ ΑΣ İ", "äöü ας i\u{307}".replace('ς', "σ").as_str()),
            (Digits, "+49 (30) 90-18 20", "4930901820"),
            (Digits, "4930901820", "4930901820"),
            (Digits, "none", ""),
            (Alnum, "DE89 3704-0044 Ä", "de8937040044ä"),
            (Alnum, "", ""),
        ] {
            assert_eq!(normalized(by, text), expected, "{by:?} {text}");
            assert_eq!(normalized(by, expected), expected, "{by:?} is not idempotent");
        }
        for by in Normalization::ALL {
            assert_eq!(by.apply(b"\xff").as_ref(), b"\xff");
            assert_eq!(by.name().and_then(Normalization::from_name), by.name().map(|_| by));
        }
    }

    #[test]
    fn a_probe_has_the_search_key_of_what_it_looks_for() {
        let tenant = TenantTag([1, 2, 3, 4, 5, 6, 7, 8]);
        let token = Token { index_key: [9; 4], value: *b"0123456789abcdef" };
        let probe = probe(tenant, token);
        let expected = b"\x01\x02\x03\x040123\x05\x06\x07\x08\x09\x09\x09\x09456789abcdef";
        for which in [Which::First, Which::Last] {
            let key = SearchKey::of(&probe, which).unwrap();
            assert_eq!(key.as_bytes(), expected);
            assert_eq!(key.abbreviated(), 0x0102_0304_3031_3233);
        }
        assert_eq!(header(&probe), Option::None);
        for len in 0..PROBE_LEN {
            assert_eq!(SearchKey::of(&probe[..len], Which::First), Option::None);
        }
        assert_eq!(SearchKey::of(&[&probe[..], &[0]].concat(), Which::First), Option::None);
    }

    #[test]
    fn a_shortened_token_keeps_its_first_bits_and_says_how_many() {
        let token = Token { index_key: [9; 4], value: [0xFF; 16] };
        for (bits, start) in
            [(8, &[0xFF, 0, 0][..]), (12, &[0xFF, 0xF0, 0]), (17, &[0xFF, 0xFF, 0x80, 0])]
        {
            let short = token.shortened(bits);
            assert_eq!(short.value[..start.len()], *start);
            assert!(short.value[start.len()..15].iter().all(|byte| *byte == 0));
            let rule = TokenRule { is_shortened: true, ..TokenRule::default() };
            assert_eq!(
                (short.bits(rule), short.bits(TokenRule::default())),
                (Some(bits), Option::None)
            );
            assert_eq!(short.index_key, token.index_key);
        }
        assert_eq!(token.shortened(120).value[..15], [0xFF; 15]);
        assert_eq!(token.shortened(120), token.shortened(200));
    }

    #[test]
    fn rules_are_read_back() {
        for normalization in Normalization::ALL {
            for is_shortened in [false, true] {
                let rule = TokenRule { normalization, is_shortened };
                assert_eq!(TokenRule::split(SUITE_3 | rule.bits()), Some((SUITE_3, rule)));
            }
        }
        assert_eq!(TokenRule::split(SUITE_3 | 0x40), Option::None);
        assert_eq!(TokenRule::split(SUITE_PROBE), Option::None);
    }
}
