//! `cmk.inspect`: what an envelope says about itself, without any key.

use crate::pg::report::IntoSql;
use cmk_envelope::Envelope;
use cmk_envelope::column::ColumnEnvelope;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The header's fields; the SQL function `cmk.inspect` adds what the registry knows of the data
/// key.
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
        ),
    >,
    ErrorReport,
> {
    let (suite, dek_id, plaintext_len) = match ColumnEnvelope::parse(ciphertext) {
        Ok(envelope) => (envelope.header().suite, envelope.dek_id(), envelope.plaintext_len()),
        Err(_) => {
            let envelope = Envelope::parse(ciphertext).into_sql()?;
            (envelope.suite(), envelope.dek_id(), envelope.plaintext_len())
        }
    };
    let row = (suite.into(), dek_id.0.to_vec(), plaintext_len as i32, ciphertext.len() as i32);
    Ok(TableIterator::once(row))
}
