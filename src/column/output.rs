//! The types' output: ciphertext, unless the session asked for plaintext and the value is on its
//! way to the client.
//!
//! Ciphertext is armored: printable, with a checksum. A plaintext that could be taken for it is
//! escaped, so that what is dumped comes back as it was.

use super::kind::Kind;
use super::open::open;
use super::stored::{Stored, looks_sealed};
use crate::pg::call::{Call, PgCString};
use crate::pg::datum::{Bytea, is_text};
use crate::pg::destination;
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::running;
use crate::pg::settings::values::{Output, column_output};
use cmk_envelope::armor;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;

/// Who gets what is printed.
#[derive(Clone, Copy)]
pub enum Reader {
    /// Whom the running statement says.
    OfStatement,
    /// The client, if it is the statement that the client sent which runs.
    Client,
}

/// What is printed of a value.
enum Shown<'a> {
    Opened(Bytea),
    Plain(&'a [u8]),
    /// A plaintext that could be taken for something else.
    Escaped(&'a [u8]),
    /// An envelope, whole or not.
    Armored(&'a [u8]),
}

#[inline]
pub fn wants_plaintext(reader: Reader) -> bool {
    column_output() == Output::Plaintext
        && !destination::is_elsewhere()
        && match reader {
            Reader::OfStatement => destination::is_client(),
            Reader::Client => running::is_clients_own() || destination::is_client(),
        }
}

#[inline]
fn show<'a>(kind: Kind, call: Call, value: &'a [u8], reader: Reader) -> Result<Shown<'a>> {
    let plaintext = wants_plaintext(reader);
    if looks_sealed(value) && !plaintext {
        return Ok(Shown::Armored(value));
    }
    Ok(match Stored::parse(value)? {
        Stored::Sealed(envelope) => {
            Shown::Opened(open(&ThisProcess::of(call).printing(), &envelope)?)
        }
        Stored::Plain(plain) => {
            match kind == Kind::Text && !plaintext && armor::needs_escape(plain) {
                true => Shown::Escaped(plain),
                false => Shown::Plain(plain),
            }
        }
    })
}

#[inline]
fn out(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    let printed = match show(kind, call, call.bytes(0), Reader::OfStatement)? {
        Shown::Opened(clear) if kind != Kind::Bytea && !is_text(clear.as_slice()) => {
            return Err(Reason::NotText.into());
        }
        Shown::Opened(clear) => kind.write(clear.as_slice())?,
        Shown::Plain(plain) => kind.write(plain)?,
        Shown::Escaped(plain) => PgCString::copy(&[armor::ESCAPE.as_bytes(), plain])?,
        Shown::Armored(envelope) => {
            let mut armored = PgCString::with_len(armor::encoded_len(envelope.len()))?;
            armor::encode_into(envelope, armored.as_mut_slice())?;
            armored
        }
    };
    Ok(printed.into_datum())
}

fn send(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    let sent = match show(kind, call, call.bytes(0), Reader::OfStatement)? {
        Shown::Opened(clear) => kind.send(clear.as_slice())?,
        Shown::Plain(plain) => kind.send(plain)?,
        Shown::Escaped(plain) => {
            let escaped = Bytea::copy(&[armor::ESCAPE.as_bytes(), plain])?;
            kind.send(escaped.as_slice())?
        }
        Shown::Armored(envelope) => Kind::Text.armor(envelope)?,
    };
    Ok(sent.into_datum())
}

column_function!(column_text_out, |call| out(Kind::Text, call));
column_function!(column_bytea_out, |call| out(Kind::Bytea, call));
column_function!(column_jsonb_out, |call| out(Kind::Jsonb, call));
column_function!(column_text_send, |call| send(Kind::Text, call));
column_function!(column_bytea_send, |call| send(Kind::Bytea, call));
column_function!(column_jsonb_send, |call| send(Kind::Jsonb, call));

// `cmk.show`: what would be printed, as a value of the type that is protected.
//
// The wire hook puts it around the columns that a client's own statement returns, as a cast that
// nobody wrote. There the value is on its way to the client, whatever the portal says: the portal
// of a RETURNING is still writing. The hook does so to no statement that stores its rows. Written
// by hand, in an INSERT, a view, a trigger or a function, `cmk.show` goes by the same rule as the
// output functions: it gives nothing there that they don't, and less than a cast, which opens a
// value anywhere. Nowhere does it open a value in a dump, in logical decoding or in a
// security-restricted operation, or without the grant.
fn show_value(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    let reader = if call.is_implicit_cast() { Reader::Client } else { Reader::OfStatement };
    kind.reveal(match show(kind, call, call.bytes(0), reader)? {
        Shown::Opened(clear) => clear,
        Shown::Plain(plain) => Bytea::copy(&[plain])?,
        Shown::Escaped(plain) => Bytea::copy(&[armor::ESCAPE.as_bytes(), plain])?,
        Shown::Armored(envelope) => kind.armor(envelope)?,
    })
}
column_function!(column_text_show, |call| show_value(Kind::Text, call));
column_function!(column_bytea_show, |call| show_value(Kind::Bytea, call));
column_function!(column_jsonb_show, |call| show_value(Kind::Jsonb, call));
