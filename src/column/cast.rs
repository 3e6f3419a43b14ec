//! Casts to the types that are protected: they open a value, wherever they stand.

use super::kind::Kind;
use super::open::{Clear, clear};
use super::output::{Reader, wants_plaintext};
use super::stored::Stored;
use crate::pg::call::Call;
use crate::pg::datum::{Bytea, Text};
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::statistics;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;

/// A cast is null where statistics are collected of what it returns: an error would end those of
/// the whole table.
macro_rules! cast_function {
    ($name:ident, $body:expr) => {
        column_function!($name, |call| {
            type Body = fn(Call) -> Result<pg_sys::Datum>;
            const BODY: Body = $body;
            match BODY(call) {
                Err(error)
                    if error.reason == Reason::SecurityRestricted
                        && statistics::are_collected() =>
                {
                    Ok(call.return_null())
                }
                done => done,
            }
        });
    };
}

/// The cast to the type that is protected.
#[inline]
fn reveal(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    match clear(&ThisProcess::of(call), call.bytes(0))? {
        Clear::Opened(clear) => kind.reveal(clear),
        Clear::Plain(plain) => kind.reveal(Bytea::copy(&[plain])?),
    }
}

// From char(n), as PostgreSQL makes text of it: without the blanks that fill it up.
column_function!(column_bpchar_conceal, |call| {
    let filled = call.bytes(0);
    let end = filled.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    Ok(Bytea::copy(&[&filled[..end]])?.into_datum())
});

// Also the casts to varchar and char.
cast_function!(column_text_reveal, |call| reveal(Kind::Text, call));
cast_function!(column_bytea_reveal, |call| reveal(Kind::Bytea, call));
cast_function!(column_jsonb_reveal, |call| reveal_json(call));
cast_function!(column_json_reveal, |call| match shows(call) {
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
cast_function!(column_bytea_text, |call| reveal_as_text(Kind::Bytea, call));
cast_function!(column_jsonb_text, |call| reveal_as_text(Kind::Jsonb, call));

// Null where this one value can't be opened: `cmk.try_text`.
cast_function!(column_try_text, |call| match reveal(Kind::Text, call) {
    Err(error) if error.reason.concerns_one_value() => Ok(call.return_null()),
    done => done,
});
