//! A value of a protected column as it lies in memory or in a table.

use cmk_envelope::MAGIC;
use cmk_envelope::column::ColumnEnvelope;
use cmk_error::Result;

/// First byte of a `cmk_bytea` or `cmk_jsonb` that is not sealed, which its plaintext follows. A
/// `cmk_text` that is not sealed is the text itself: no text begins with the first byte of an
/// envelope.
pub const PLAIN: u8 = 0x00;

/// Either an envelope or a plaintext on its way to be sealed.
pub enum Stored<'a> {
    Sealed(ColumnEnvelope<'a>),
    /// The plaintext, of which the type is known from elsewhere.
    Plain(&'a [u8]),
}

/// True of an envelope, whole or not.
#[inline]
pub fn looks_sealed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MAGIC)
}

impl<'a> Stored<'a> {
    /// # Errors
    /// `not_an_envelope`, `unknown_suite` for what begins like an envelope and isn't one.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        Ok(match bytes.first() {
            Some(&MAGIC) => Self::Sealed(ColumnEnvelope::parse(bytes)?),
            Some(&PLAIN) => Self::Plain(&bytes[1..]),
            _ => Self::Plain(bytes),
        })
    }
}
