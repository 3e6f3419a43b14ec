//! Whether values of two rows are equal, and what is compared, sorted and hashed of a value: its
//! plaintext, normalized as its column says.

use super::kind::Kind;
use super::open::{Clear, open};
use super::stored::Stored;
use crate::pg::collation::is_deterministic;
use crate::pg::datum::Bytea;
use crate::pg::process::ThisProcess;
use cmk_envelope::column::{ColumnEnvelope, Normalization, Token};
use cmk_error::Result;
use pgrx::pg_sys;

/// Whether two sealed values are equal: by tokens that one index key made for both, if those
/// decide; else by their plaintexts.
///
/// # Errors
/// As [`open`], for either.
pub fn are_sealed_alike(
    kind: Kind,
    process: &ThisProcess,
    a: &ColumnEnvelope<'_>,
    b: &ColumnEnvelope<'_>,
    collation: pg_sys::Oid,
) -> Result<bool> {
    if let Some(equal) = by_tokens(a, b).filter(|_| is_deterministic(collation)) {
        return Ok(equal);
    }
    let (clear_a, clear_b) = (open_comparable(process, a)?, open_comparable(process, b)?);
    let equal = kind.are_equal(clear_a.as_slice(), clear_b.as_slice(), collation);
    clear_a.free();
    clear_b.free();
    equal
}

/// How the values of an envelope's column are compared.
pub fn normalization(envelope: &ColumnEnvelope<'_>) -> Normalization {
    envelope.tokens().map_or(Normalization::None, |tokens| tokens.rule.normalization)
}

/// `None` where tokens don't decide.
fn by_tokens(a: &ColumnEnvelope<'_>, b: &ColumnEnvelope<'_>) -> Option<bool> {
    let (of_a, of_b) = (a.tokens()?, b.tokens()?);
    if a.tenant_tag() != b.tenant_tag()
        || a.column_tag() != b.column_tag()
        || of_a.rule != of_b.rule
    {
        return None;
    }
    let common = |token: Token| Some((token, of_b.of(token.index_key)?));
    let (token_a, token_b) = common(of_a.first).or_else(|| common(of_a.next?))?;
    if token_a.bits(of_a.rule) != token_b.bits(of_b.rule) {
        return None;
    }
    match token_a == token_b {
        true if of_a.rule.is_shortened => None,
        equal => Some(equal),
    }
}

/// A sealed value as it is compared with those of other rows, sorted and hashed: opened, and
/// normalized as its column says.
///
/// # Errors
/// As [`open`].
#[inline]
pub fn open_comparable(process: &ThisProcess, envelope: &ColumnEnvelope<'_>) -> Result<Bytea> {
    let opened = open(process, envelope)?;
    let rule = normalization(envelope);
    if rule == Normalization::None {
        return Ok(opened);
    }
    let normalized = Bytea::copy(&[&rule.apply(opened.as_slice())?])?;
    opened.free();
    Ok(normalized)
}

/// The same of a value that may not be sealed.
///
/// # Errors
/// As [`open`]; `not_an_envelope`, `unknown_suite`.
pub fn comparable<'a>(process: &ThisProcess, value: &'a [u8]) -> Result<Clear<'a>> {
    Ok(match Stored::parse(value)? {
        Stored::Sealed(envelope) => Clear::Opened(open_comparable(process, &envelope)?),
        Stored::Plain(plain) => Clear::Plain(plain),
    })
}
