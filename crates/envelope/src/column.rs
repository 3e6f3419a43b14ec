//! The envelopes of protected columns: suite 2, and suites 3 and 4 with tokens for searching.
//!
//! ```text
//! offset  length  field                        suite 3: offset    suite 4: offset
//!      0       1  magic 0xC1                                 0                  0
//!      1       1  suite 0x02, 0x03 or 0x04                   1                  1
//!      2      16  dek_id                                     2                  2
//!     18       8  tenant tag                                18                 18
//!     26       8  column tag                                26                 26
//!      -     4+16  index key id, token                      34                 34
//!      -     4+16  the next index key's                      -                 54
//!     34      24  nonce                                     54                 74
//!     58       n  ciphertext                                78                 98
//!   58+n      16  tag                                     78+n               98+n
//!
//! tenant tag = SHA-256("cmk_encrypt/v1/tenant" ‖ tenant)[0..8]
//! column tag = SHA-256("cmk_encrypt/v1/column" ‖ label)[0..8]
//! token = HMAC-SHA-256(index key, "cmk_encrypt/v1/token" ‖ column tag ‖ normalized)[0..16]
//! AAD = "cmk_encrypt/v1" ‖ everything before the nonce ‖ len32(tenant) ‖ tenant ‖ len32(0)
//! ```
//!
//! The byte of a suite with tokens also says how they were made ([`TokenRule`]): bits 4 to 6 are
//! the [`Normalization`], bit 7 says that the token was shortened. So suite 3 in lower case is
//! `0x13`.
//!
//! The cipher is that of suite 1. The tags say without a key which tenant and which column a value
//! belongs to: a CHECK constraint has neither keys nor registry while a dump is restored. They are
//! in the AAD, as tokens are, so that nobody can relabel a value. They are no secret, and no proof:
//! only opening the envelope proves anything.
//!
//! Suite 0x7F is a [`probe`]: what an expression searches for. It holds no value, so that nothing
//! here takes it for an envelope.

use super::frame::{self, DEK_ID_END, Frame, field};
use super::{Binding, MAGIC};
use cmk_crypto::commitment::DekId;
use cmk_crypto::nonce::NONCE_LEN;
use cmk_crypto::run::{Opens, Seals};
use cmk_error::{Reason, Result};
use sha2::{Digest, Sha256};

mod tokens;
pub use tokens::*;

/// A value of a protected column, without a token.
pub const SUITE_2: u8 = 0x02;
/// A value of a protected column with a token, which finds it without a data key.
pub const SUITE_3: u8 = 0x03;
/// The same with the tokens of two index keys, while one replaces the other.
pub const SUITE_4: u8 = 0x04;
/// A token to search for. Occurs in expressions only; never stored, never parsed as an envelope.
pub const SUITE_PROBE: u8 = 0x7F;

/// Bytes of a tenant tag and of a column tag.
pub const NAME_TAG_LEN: usize = 8;
/// Bytes of the id of the index key that made a token.
pub const INDEX_KEY_ID_LEN: usize = 4;
pub use cmk_crypto::token::TOKEN_LEN;

const COLUMN_TAG_AT: usize = DEK_ID_END + NAME_TAG_LEN;
const INDEX_KEY_AT: usize = COLUMN_TAG_AT + NAME_TAG_LEN;
const TOKEN_AT: usize = INDEX_KEY_AT + INDEX_KEY_ID_LEN;
const HEADER_2: usize = INDEX_KEY_AT;
const NEXT_KEY_AT: usize = TOKEN_AT + TOKEN_LEN;
const NEXT_AT: usize = NEXT_KEY_AT + INDEX_KEY_ID_LEN;
const HEADER_3: usize = NEXT_KEY_AT;
const HEADER_4: usize = NEXT_AT + TOKEN_LEN;

/// What an envelope is longer than its plaintext, in bytes: 74, or 94 with one token, 114 with two.
pub const fn overhead(tokens: Option<&Tokens>) -> usize {
    frame::overhead(match tokens {
        None => HEADER_2,
        Some(Tokens { next: None, .. }) => HEADER_3,
        Some(Tokens { next: Some(_), .. }) => HEADER_4,
    })
}

/// So many bytes from the start of a value decide whether it is an envelope, and hold all that
/// [`header`] reads: a slice of a large value is enough.
pub const HEADER_MAX: usize = frame::overhead(HEADER_4);

/// Says which tenant an envelope belongs to, to whom knows the tenant's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantTag(pub [u8; NAME_TAG_LEN]);

impl TenantTag {
    /// `SHA-256("cmk_encrypt/v1/tenant" ‖ tenant)[0..8]`.
    pub fn of(tenant: &[u8]) -> Self {
        Self(name_tag(b"cmk_encrypt/v1/tenant", tenant))
    }
}

/// Says which column an envelope belongs to, to whom knows the column's label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColumnTag(pub [u8; NAME_TAG_LEN]);

impl ColumnTag {
    /// `SHA-256("cmk_encrypt/v1/column" ‖ label)[0..8]`.
    pub fn of(label: &[u8]) -> Self {
        Self(name_tag(b"cmk_encrypt/v1/column", label))
    }
}

fn name_tag(domain: &[u8], name: &[u8]) -> [u8; NAME_TAG_LEN] {
    field(&Sha256::new().chain_update(domain).chain_update(name).finalize(), 0)
}

/// What can be read without a key, even from a slice of the value. Nothing of it is proven until
/// the envelope is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// [`SUITE_2`], or [`SUITE_3`] or [`SUITE_4`] with the bits of their rule.
    pub suite: u8,
    /// Which data key opens it.
    pub dek_id: DekId,
    /// Whose it is.
    pub tenant: TenantTag,
    /// Which column it was sealed for.
    pub column: ColumnTag,
    /// In suites 3 and 4.
    pub tokens: Option<Tokens>,
    /// Different in every envelope.
    pub nonce: [u8; NONCE_LEN],
}

/// Reads the header of a value, given the whole or at least its first [`HEADER_MAX`] bytes. `None`
/// exactly where [`ColumnEnvelope::parse`] refuses the whole.
#[inline]
pub fn header(bytes: &[u8]) -> Option<Header> {
    ColumnEnvelope::split(bytes).map(|envelope| envelope.header())
}

/// A well-formed envelope of a protected column, borrowed. Well-formed says nothing about
/// authentic.
#[derive(Clone, Copy, Debug)]
pub struct ColumnEnvelope<'a>(Suite<'a>);

#[derive(Clone, Copy, Debug)]
enum Suite<'a> {
    Plain(Frame<'a, HEADER_2>),
    WithToken(Frame<'a, HEADER_3>),
    WithTwo(Frame<'a, HEADER_4>),
}

/// Evaluates the same for the frames of all suites.
macro_rules! frame {
    ($envelope:expr, $frame:ident => $use_it:expr) => {
        match &$envelope.0 {
            Suite::Plain($frame) => $use_it,
            Suite::WithToken($frame) => $use_it,
            Suite::WithTwo($frame) => $use_it,
        }
    };
}

/// Which fields a suite has, and how its tokens were made; `None` for another suite.
#[inline]
fn layout(suite: u8) -> Option<(u8, TokenRule)> {
    match TokenRule::split(suite)? {
        (SUITE_2, _) => (suite == SUITE_2).then(|| (SUITE_2, TokenRule::default())),
        (suite @ (SUITE_3 | SUITE_4), rule) => Some((suite, rule)),
        _ => None,
    }
}

impl<'a> ColumnEnvelope<'a> {
    /// Splits `bytes` into the fields. Total over all inputs: never panics, never allocates.
    ///
    /// # Errors
    /// `not_an_envelope` for a wrong magic or fewer than [`overhead`] bytes; `unknown_suite`, also
    /// for suite 1 and for probes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        Self::split(bytes).ok_or_else(|| match bytes {
            [MAGIC, suite, ..] if layout(*suite).is_none() => Reason::UnknownSuite.into(),
            _ => Reason::NotAnEnvelope.into(),
        })
    }

    #[inline]
    fn split(bytes: &'a [u8]) -> Option<Self> {
        let [MAGIC, suite, ..] = bytes else { return None };
        match layout(*suite)?.0 {
            SUITE_2 => Frame::split(bytes).map(Suite::Plain),
            SUITE_3 => Frame::split(bytes).map(Suite::WithToken),
            _ => Frame::split(bytes).map(Suite::WithTwo),
        }
        .map(Self)
    }

    #[inline]
    fn header_bytes(&self) -> &'a [u8] {
        frame!(self, frame => frame.header.as_slice())
    }

    /// All that can be read without a key.
    #[inline]
    pub fn header(&self) -> Header {
        Header {
            suite: self.header_bytes()[1],
            dek_id: self.dek_id(),
            tenant: self.tenant_tag(),
            column: self.column_tag(),
            tokens: self.tokens(),
            nonce: *self.nonce(),
        }
    }

    /// Which data key opens it.
    #[inline]
    pub fn dek_id(&self) -> DekId {
        frame!(self, frame => frame.dek_id())
    }

    /// Whose it says it is.
    #[inline]
    pub fn tenant_tag(&self) -> TenantTag {
        TenantTag(field(self.header_bytes(), DEK_ID_END))
    }

    /// Which column it says it was sealed for.
    #[inline]
    pub fn column_tag(&self) -> ColumnTag {
        ColumnTag(field(self.header_bytes(), COLUMN_TAG_AT))
    }

    /// What it is found by: in suites 3 and 4.
    #[inline]
    pub fn tokens(&self) -> Option<Tokens> {
        let header = self.header_bytes();
        let (_, rule) = layout(header[1])?;
        let first =
            || Token { index_key: field(header, INDEX_KEY_AT), value: field(header, TOKEN_AT) };
        match &self.0 {
            Suite::Plain(_) => None,
            Suite::WithToken(_) => Some(Tokens { rule, first: first(), next: None }),
            Suite::WithTwo(_) => {
                let (index_key, value) = (field(header, NEXT_KEY_AT), field(header, NEXT_AT));
                Some(Tokens { rule, first: first(), next: Some(Token { index_key, value }) })
            }
        }
    }

    /// Different in every envelope.
    #[inline]
    pub fn nonce(&self) -> &'a [u8; NONCE_LEN] {
        frame!(self, frame => frame.nonce)
    }

    /// Length of the plaintext in bytes.
    #[inline]
    pub fn plaintext_len(&self) -> usize {
        frame!(self, frame => frame.ciphertext.len())
    }

    /// Opens the envelope into `out`, which is [`plaintext_len`](Self::plaintext_len) bytes and
    /// stays untouched on failure. Which column it is for, the caller compares.
    ///
    /// # Errors
    /// `not_authentic`.
    #[inline]
    pub fn open(&self, cipher: impl Opens, tenant: &[u8], out: &mut [u8]) -> Result<()> {
        frame!(self, frame => frame.open(cipher, &Binding { tenant, aad: b"" }, out))
    }
}

/// What an envelope of a column is bound to.
#[derive(Clone, Copy, Debug)]
pub struct ColumnBinding<'a> {
    /// The tenant's name.
    pub tenant: &'a [u8],
    /// [`TenantTag::of`] the tenant, which callers keep instead of computing it for each value.
    pub tenant_tag: TenantTag,
    /// [`ColumnTag::of`] the column's label.
    pub column: ColumnTag,
    /// Make it an envelope of suite 3 or 4.
    pub tokens: Option<Tokens>,
}

/// Seals `plaintext` into `out`, which is [`overhead`] bytes longer.
///
/// # Errors
/// `system_random`; `too_large` if `out` has another length.
#[inline]
pub fn seal(
    cipher: impl Seals,
    dek_id: DekId,
    &ColumnBinding { tenant, tenant_tag, column, tokens }: &ColumnBinding<'_>,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let binding = Binding { tenant, aad: b"" };
    let mut header = [MAGIC; HEADER_4];
    header[1] = SUITE_2;
    header[2..DEK_ID_END].copy_from_slice(&dek_id.0);
    header[DEK_ID_END..COLUMN_TAG_AT].copy_from_slice(&tenant_tag.0);
    header[COLUMN_TAG_AT..INDEX_KEY_AT].copy_from_slice(&column.0);
    let Some(Tokens { rule, first, next }) = tokens else {
        let header: [u8; HEADER_2] = field(&header, 0);
        return frame::seal(cipher, &header, &binding, plaintext, out);
    };
    header[1] = SUITE_3 | rule.bits();
    header[INDEX_KEY_AT..TOKEN_AT].copy_from_slice(&first.index_key);
    header[TOKEN_AT..NEXT_KEY_AT].copy_from_slice(&first.value);
    let Some(next) = next else {
        let header: [u8; HEADER_3] = field(&header, 0);
        return frame::seal(cipher, &header, &binding, plaintext, out);
    };
    header[1] = SUITE_4 | rule.bits();
    header[NEXT_KEY_AT..NEXT_AT].copy_from_slice(&next.index_key);
    header[NEXT_AT..].copy_from_slice(&next.value);
    frame::seal(cipher, &header, &binding, plaintext, out)
}

#[cfg(test)]
mod tests;
