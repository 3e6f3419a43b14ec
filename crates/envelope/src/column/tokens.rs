//! What a value of a protected column is found by.

use super::{HEADER_3, HEADER_4, INDEX_KEY_AT, NEXT_KEY_AT, SUITE_3, SUITE_4, SUITE_PROBE, layout};
use super::{INDEX_KEY_ID_LEN, NAME_TAG_LEN, TOKEN_LEN, TenantTag};
use crate::MAGIC;
use crate::frame::{self, DEK_ID_END};
use cmk_error::{Reason, Result};
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
    /// Keeps the first bits of it only, at most [`BITS_MAX`]; the last byte says how many. So
    /// tokens of different lengths are different.
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

    /// The normalized text; normalizing that again changes nothing. What isn't UTF-8 stays as it
    /// is.
    ///
    /// # Errors
    /// `out_of_memory`.
    pub fn apply(self, value: &[u8]) -> Result<Cow<'_, [u8]>> {
        let Ok(text) = std::str::from_utf8(value) else { return Ok(Cow::Borrowed(value)) };
        let is_lower = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
        match self {
            Self::None => Ok(Cow::Borrowed(value)),
            Self::Lower if text.bytes().all(is_lower) => Ok(Cow::Borrowed(value)),
            Self::Lower => lower(text, |_| true),
            Self::Digits if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Cow::Borrowed(value))
            }
            Self::Digits => lower(text, |c| c.is_ascii_digit()),
            Self::Alnum => lower(text, char::is_alphanumeric),
        }
    }
}

/// What is to be kept of `text` in lower case: in this order, since of some characters the lower
/// case has a mark that is no letter.
fn lower(text: &str, keep: fn(char) -> bool) -> Result<Cow<'_, [u8]>> {
    // A value may be large, and a failed allocation must not abort the server.
    let room = |_| Reason::OutOfMemory;
    if text.is_ascii() {
        let mut lower = Vec::new();
        lower.try_reserve_exact(text.len()).map_err(room)?;
        let bytes = text.bytes().map(|byte| byte.to_ascii_lowercase());
        lower.extend(bytes.filter(|byte| keep(char::from(*byte))));
        return Ok(Cow::Owned(lower));
    }
    let kept = || text.chars().flat_map(char::to_lowercase).filter(|c| keep(*c));
    let mut lower = String::new();
    lower.try_reserve_exact(kept().map(char::len_utf8).sum()).map_err(room)?;
    lower.extend(kept());
    Ok(Cow::Owned(lower.into_bytes()))
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
/// which the first eight tell most values of a tenant apart and keep tenants together:
///
/// ```text
/// tenant tag[0..4] ‖ token[0..4] ‖ tenant tag[4..8] ‖ index key id ‖ token[4..16]
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SearchKey {
    // As numbers, which compare faster than bytes do.
    first: u64,
    second: u64,
    third: u64,
    last: u32,
}

impl SearchKey {
    /// Of a probe, or of an envelope with tokens, given the whole or at least its first
    /// [`HEADER_MAX`](super::HEADER_MAX) bytes. `None` for all else.
    #[inline]
    pub fn of(bytes: &[u8], which: Which) -> Option<Self> {
        let (tenant_at, token_at) = match *bytes.first_chunk()? {
            [MAGIC, SUITE_PROBE] => (bytes.len() == PROBE_LEN).then_some(PROBE_FIELDS)?,
            [MAGIC, suite] => fields(layout(suite)?.0, which, bytes.len())?,
            _ => return None,
        };
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u32::from_be_bytes(*word));
        let pair =
            |a: usize, b: usize| Some(u64::from(word(a)?) << u32::BITS | u64::from(word(b)?));
        let value_at = token_at + INDEX_KEY_ID_LEN;
        Some(Self {
            first: pair(tenant_at, value_at)?,
            second: pair(tenant_at + 4, token_at)?,
            third: pair(value_at + 4, value_at + 8)?,
            last: word(value_at + 12)?,
        })
    }

    /// All of it.
    pub fn to_bytes(&self) -> [u8; SEARCH_KEY_LEN] {
        let mut bytes = [0; SEARCH_KEY_LEN];
        let (words, last) = bytes.split_at_mut(SEARCH_KEY_LEN - size_of::<u32>());
        for (room, word) in words.chunks_exact_mut(8).zip([self.first, self.second, self.third]) {
            room.copy_from_slice(&word.to_be_bytes());
        }
        last.copy_from_slice(&self.last.to_be_bytes());
        bytes
    }

    /// Its first eight bytes, which sort as it does as far as they differ.
    pub fn abbreviated(&self) -> u64 {
        self.first
    }
}

/// Where in a probe the tenant's tag is, and the token behind the id of its index key.
const PROBE_FIELDS: (usize, usize) = (2, 2 + NAME_TAG_LEN);

/// The same of an envelope.
#[inline]
fn fields(suite: u8, which: Which, len: usize) -> Option<(usize, usize)> {
    let (header, token_at) = match (suite, which) {
        (SUITE_3, _) => (HEADER_3, INDEX_KEY_AT),
        (SUITE_4, Which::First) => (HEADER_4, INDEX_KEY_AT),
        (SUITE_4, Which::Last) => (HEADER_4, NEXT_KEY_AT),
        _ => return None,
    };
    (len >= frame::overhead(header)).then_some((DEK_ID_END, token_at))
}

#[cfg(test)]
mod tests;
