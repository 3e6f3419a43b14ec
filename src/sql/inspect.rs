//! `cmk.inspect`: what an envelope says about itself, without any key. `cmk.is_envelope`: whether a
//! value is one.

use crate::column::already_sealed;
use crate::pg::datum::ByteaArg;
use crate::pg::report::{IntoSql, SqlResult};
use cmk_envelope::Envelope;
use cmk_envelope::column::{ColumnEnvelope, Header, Token};
use pgrx::prelude::*;

/// The header's fields, all null of what is no envelope; the SQL function `cmk.inspect` adds what
/// the registry knows of the data key. Of the index keys that made its tokens, an envelope knows
/// the first bytes of their ids.
#[pg_extern(name = "envelope_header", schema = "cmk", immutable, strict, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn envelope_header(
    ciphertext: &[u8],
) -> TableIterator<
    'static,
    (
        name!(suite, Option<i32>),
        name!(dek_id, Option<Vec<u8>>),
        name!(plaintext_bytes, Option<i32>),
        name!(envelope_bytes, Option<i32>),
        name!(index_key, Option<Vec<u8>>),
        name!(next_index_key, Option<Vec<u8>>),
    ),
> {
    let found = match ColumnEnvelope::parse(ciphertext) {
        Ok(envelope) => {
            let Header { suite, dek_id, tokens, .. } = envelope.header();
            Some((suite, dek_id, envelope.plaintext_len(), tokens))
        }
        Err(_) => Envelope::parse(ciphertext)
            .ok()
            .map(|envelope| (envelope.suite(), envelope.dek_id(), envelope.plaintext_len(), None)),
    };
    let Some((suite, dek_id, plaintext_len, tokens)) = found else {
        return TableIterator::once((None, None, None, None, None, None));
    };
    let id = |token: Token| token.index_key.to_vec();
    TableIterator::once((
        Some(suite.into()),
        Some(dek_id.0.to_vec()),
        Some(plaintext_len as i32),
        Some(ciphertext.len() as i32),
        tokens.map(|tokens| id(tokens.first)),
        tokens.and_then(|tokens| tokens.next).map(id),
    ))
}

/// Whether a value is an envelope of a data key that the registry has.
#[pg_extern(name = "is_envelope", schema = "cmk", stable, strict, parallel_restricted)]
fn is_envelope(value: ByteaArg<'_>) -> SqlResult<bool> {
    already_sealed::is_registered(value.0).into_sql()
}
