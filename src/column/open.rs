//! Opens values.

use super::kind::Kind;
use super::output::{Reader, wants_plaintext};
use super::stats;
use super::stored::Stored;
use super::tenants;
use crate::pg::call::Call;
use crate::pg::datum::{Bytea, Text};
use crate::pg::process::{ThisProcess, in_security_restricted_operation, keyring};
use crate::pg::raw::column_function;
use cmk_envelope::armor;
use cmk_envelope::column::ColumnEnvelope;
use cmk_error::{Error, Reason, Result};
use pgrx::pg_sys;

/// The plaintext of an envelope, on behalf of whoever is asking.
///
/// # Errors
/// `security_restricted` where the plaintext would be stored; `unknown_data_key`; as
/// [`Keyring::open_column`](cmk_keyring::keyring::Keyring::open_column).
#[inline]
pub fn open(process: &ThisProcess, envelope: &ColumnEnvelope<'_>) -> Result<Bytea> {
    if in_security_restricted_operation() {
        return Err(Reason::SecurityRestricted.into());
    }
    let tenant = tenants::of(&envelope.dek_id())?;
    let named = |error: Error| error.for_tenant(&tenant);
    let mut clear = Bytea::with_len(envelope.plaintext_len()).map_err(named)?;
    keyring().open_column(process, &tenant, envelope, clear.as_mut_slice())?;
    stats::opened();
    Ok(clear)
}

/// What a value stands for: opened if it is sealed.
pub enum Clear<'a> {
    Opened(Bytea),
    Plain(&'a [u8]),
}

impl Clear<'_> {
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Opened(clear) => clear.as_slice(),
            Self::Plain(clear) => clear,
        }
    }
}

/// # Errors
/// As [`open`]; `not_an_envelope`, `unknown_suite`.
#[inline]
pub fn clear<'a>(process: &ThisProcess, value: &'a [u8]) -> Result<Clear<'a>> {
    Ok(match Stored::parse(value)? {
        Stored::Sealed(envelope) => Clear::Opened(open(process, &envelope)?),
        Stored::Plain(plain) => Clear::Plain(plain),
    })
}

/// The cast to the type that is protected.
#[inline]
fn reveal(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    match clear(&call.process(), call.bytes(0))? {
        Clear::Opened(clear) => kind.reveal(clear),
        Clear::Plain(plain) => kind.reveal(Bytea::copy(&[plain])?),
    }
}

// Also the cast to varchar.
column_function!(column_text_reveal, |call| reveal(Kind::Text, call));
column_function!(column_bytea_reveal, |call| reveal(Kind::Bytea, call));
column_function!(column_jsonb_reveal, |call| reveal_json(call));
column_function!(column_json_reveal, |call| match shows(call) {
    true => Ok(as_text(clear(&call.process(), call.bytes(0))?.as_slice())?.into_datum()),
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
        Stored::Sealed(_) => {
            let armored = armor::encode(value)?;
            Bytea::copy(&[b"\"", &armored, b"\""])
        }
    }
}

/// # Errors
/// `not_text`.
fn as_text(clear: &[u8]) -> Result<Text> {
    Bytea::copy(&[clear])?.into_text()
}

// The text form of what is opened.
fn reveal_as_text(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    let clear = clear(&call.process(), call.bytes(0))?;
    Ok(as_text(kind.write(clear.as_slice())?.as_slice())?.into_datum())
}
column_function!(column_bytea_text, |call| reveal_as_text(Kind::Bytea, call));
column_function!(column_jsonb_text, |call| reveal_as_text(Kind::Jsonb, call));

// Null where this one value can't be opened: `cmk.try_text`.
column_function!(column_try_text, |call| match reveal(Kind::Text, call) {
    Err(error) if error.reason.concerns_one_value() => Ok(call.return_null()),
    done => done,
});
