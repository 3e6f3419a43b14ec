//! `cmk.inspect`: what an envelope says about itself, without any key.

use crate::pg::report::IntoSql;
use cmk_envelope::Envelope;
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
    let envelope = Envelope::parse(ciphertext).into_sql()?;
    Ok(TableIterator::once((
        envelope.suite().into(),
        envelope.dek_id().0.to_vec(),
        envelope.plaintext_len() as i32,
        ciphertext.len() as i32,
    )))
}
