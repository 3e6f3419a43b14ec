//! `cmk.inspect`: what an envelope says about itself, without any key.

use crate::pg::report::IntoSql;
use cmk_envelope::Envelope;
use cmk_envelope::column::{ColumnEnvelope, Header, Token};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The header's fields; the SQL function `cmk.inspect` adds what the registry knows of the data
/// key. Of the index keys that made its tokens, an envelope knows the first bytes of their ids.
#[pg_extern(name = "envelope_header", schema = "cmk", immutable, strict, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn envelope_header(
    ciphertext: &[u8],
) -> Result<
    TableIterator<
        'static,
        (
            name!(suite, i32),
            name!(dek_id, Vec<u8>),
            name!(plaintext_bytes, i32),
            name!(envelope_bytes, i32),
            name!(index_key, Option<Vec<u8>>),
            name!(next_index_key, Option<Vec<u8>>),
        ),
    >,
    ErrorReport,
> {
    let (suite, dek_id, plaintext_len, tokens) = match ColumnEnvelope::parse(ciphertext) {
        Ok(envelope) => {
            let Header { suite, dek_id, tokens, .. } = envelope.header();
            (suite, dek_id, envelope.plaintext_len(), tokens)
        }
        Err(_) => {
            let envelope = Envelope::parse(ciphertext).into_sql()?;
            (envelope.suite(), envelope.dek_id(), envelope.plaintext_len(), None)
        }
    };
    let id = |token: Token| token.index_key.to_vec();
    Ok(TableIterator::once((
        suite.into(),
        dek_id.0.to_vec(),
        plaintext_len as i32,
        ciphertext.len() as i32,
        tokens.map(|tokens| id(tokens.first)),
        tokens.and_then(|tokens| tokens.next).map(id),
    )))
}
