//! Casts to the types that are protected: they open a value, wherever they stand.

use super::kind::Kind;
use super::open::{Clear, clear};
use super::output::{Reader, wants_plaintext};
use super::stored::Stored;
use crate::pg::call::Call;
use crate::pg::datum::{Bytea, Text};
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use cmk_error::Result;
use pgrx::pg_sys;

/// The cast to the type that is protected.
#[inline]
fn reveal(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    match clear(&ThisProcess::of(call), call.bytes(0))? {
        Clear::Opened(clear) => kind.reveal(clear),
        Clear::Plain(plain) => kind.reveal(Bytea::copy(&[plain])?),
    }
}

// Also the cast to varchar.
column_function!(column_text_reveal, |call| reveal(Kind::Text, call));
column_function!(column_bytea_reveal, |call| reveal(Kind::Bytea, call));
column_function!(column_jsonb_reveal, |call| reveal_json(call));
column_function!(column_json_reveal, |call| match shows(call) {
    true => Ok(as_text(clear(&ThisProcess::of(call), call.bytes(0))?.as_slice())?.into_datum()),
    false => Ok(armored_json(call.bytes(0))?.into_datum()),
});

/// `to_jsonb(row)` and the like use a type's cast to JSON, where there is one, in place of its
/// output: for an audit trigger, too. Then the rules of output hold. Such calls are of no
/// expression.
fn shows(call: Call) -> bool {
    call.is_of_expression() || wants_plaintext(Reader::OfStatement)
}

fn reveal_json(call: Call) -> Result<pg_sys::Datum> {
    match shows(call) {
        true => reveal(Kind::Jsonb, call),
        false => Kind::Jsonb.reveal(armored_json(call.bytes(0))?),
    }
}

/// What isn't opened as JSON: a string.
fn armored_json(value: &[u8]) -> Result<Bytea> {
    match Stored::parse(value)? {
        Stored::Plain(plain) => Bytea::copy(&[plain]),
        Stored::Sealed(_) => Kind::Jsonb.armor(value),
    }
}

/// # Errors
/// `not_text`.
fn as_text(clear: &[u8]) -> Result<Text> {
    Bytea::copy(&[clear])?.into_text()
}

// The text form of what is opened.
fn reveal_as_text(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    let clear = clear(&ThisProcess::of(call), call.bytes(0))?;
    Ok(as_text(kind.write(clear.as_slice())?.as_slice())?.into_datum())
}
column_function!(column_bytea_text, |call| reveal_as_text(Kind::Bytea, call));
column_function!(column_jsonb_text, |call| reveal_as_text(Kind::Jsonb, call));

// Null where this one value can't be opened: `cmk.try_text`.
column_function!(column_try_text, |call| match reveal(Kind::Text, call) {
    Err(error) if error.reason.concerns_one_value() => Ok(call.return_null()),
    done => done,
});
