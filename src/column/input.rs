//! The types' input: what a text becomes before the trigger sees it.
//!
//! While a dump is restored there is no trigger yet, so it is here that an armored envelope becomes
//! an envelope again. Only where that was asked for, or where nobody else can write: an application
//! that stores what its users type must not have somebody else's envelope, copied from a dump,
//! taken for one.

use super::already_sealed;
use super::kind::{Kind, c_string};
use super::stored::PLAIN;
use crate::pg::datum::Bytea;
use crate::pg::destination::is_dump_or_restore;
use crate::pg::error_context;
use crate::pg::identity::{is_apply_worker, is_superuser, is_superusers_session};
use crate::pg::raw::column_function;
use crate::pg::settings::values::{Input, column_input};
use cmk_envelope::armor;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

/// What an armored envelope is here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Armor {
    /// An envelope.
    Counts,
    /// A text like another.
    IsText,
    /// Not decided: the trigger refuses it.
    Refused,
}

/// Whether a superuser restores a dump: pg_dump's scripts and pg_restore switch row security off.
/// An application that runs as a superuser, or calls one's function, does not: what its users type
/// must not become an envelope.
fn is_restoring() -> bool {
    is_dump_or_restore() && is_superuser() && is_superusers_session()
}

fn armor() -> Armor {
    match column_input() {
        _ if is_apply_worker() => Armor::Counts,
        Input::Envelope => Armor::Counts,
        Input::Text => Armor::IsText,
        Input::Auto if is_restoring() => Armor::Counts,
        Input::Auto => Armor::Refused,
    }
}

fn has_prefix(text: &[u8]) -> bool {
    text.starts_with(armor::PREFIX.as_bytes())
}

/// What a text that begins with a prefix stands for.
enum Prefixed<'a> {
    Envelope(Vec<u8>),
    /// A plaintext, the escape taken off.
    Plain(&'a [u8]),
}

/// `None` for an ordinary text.
///
/// # Errors
/// `armor_malformed` if only envelopes were announced.
fn prefixed(text: &[u8]) -> Result<Option<Prefixed<'_>>> {
    let escaped = text.strip_prefix(armor::ESCAPE.as_bytes());
    if !has_prefix(text) && escaped.is_none() || armor() != Armor::Counts {
        return Ok(None);
    }
    if let Some(plain) = escaped {
        return Ok(Some(Prefixed::Plain(plain)));
    }
    match armor::decode(text)? {
        Some(envelope) => Ok(Some(Prefixed::Envelope(envelope))),
        None if column_input() == Input::Envelope => Err(Reason::ArmorMalformed.into()),
        None => Ok(None),
    }
}

/// What is no JSON for that reason alone.
///
/// # Errors
/// `armor_refused`.
fn refuse_armor_as_json(kind: Kind, text: &[u8]) -> Result<()> {
    let is_armor = kind == Kind::Jsonb && has_prefix(text);
    match is_armor && armor() == Armor::Refused {
        true => Err(Reason::ArmorRefused.into()),
        false => Ok(()),
    }
}

fn read(kind: Kind, text: &CStr) -> Result<Bytea> {
    refuse_armor_as_json(kind, text.to_bytes())?;
    match prefixed(text.to_bytes())? {
        Some(Prefixed::Envelope(envelope)) => Bytea::copy(&[&envelope]),
        Some(Prefixed::Plain(plain)) if kind == Kind::Text => kind.plain(plain),
        _ => take_armor(kind, kind.read(text)?),
    }
}

fn receive(kind: Kind, message: &[u8]) -> Result<Bytea> {
    refuse_armor_as_json(kind, message)?;
    match prefixed(message)? {
        Some(Prefixed::Envelope(envelope)) => Bytea::copy(&[&envelope]),
        Some(Prefixed::Plain(plain)) if kind == Kind::Text => {
            kind.plain(c_string(plain)?.as_slice())
        }
        _ => take_armor(kind, kind.receive(message)?),
    }
}

/// Armor as a `bytea` or `jsonb` holds it, which is what `cmk.show` makes of an envelope. Of a text
/// it was looked for before.
fn take_armor(kind: Kind, value: Bytea) -> Result<Bytea> {
    let (Kind::Bytea | Kind::Jsonb, [PLAIN, clear @ ..]) = (kind, value.as_slice()) else {
        return Ok(value);
    };
    let held = kind.armor_in(clear);
    if !has_prefix(held) || armor() != Armor::Counts {
        return Ok(value);
    }
    match armor::decode(held)? {
        Some(envelope) => Bytea::copy(&[&envelope]),
        None => Ok(value),
    }
}

/// Whether a value that isn't sealed is a well-formed envelope in armor, which nobody said what to
/// do with. An envelope stored as text would be sealed a second time, without a word. Where armor
/// counts, what is armor still was escaped, or made by a cast.
///
/// # Errors
/// `armor_refused`.
pub fn refuse_armor(kind: Kind, plain: &[u8]) -> Result<()> {
    let held = kind.armor_in(plain);
    let is_armor = has_prefix(held) && armor::decode(held)?.is_some();
    match is_armor && armor() == Armor::Refused {
        true => Err(Reason::ArmorRefused.into()),
        false => Ok(()),
    }
}

/// The same of an envelope of a registered data key that is no armor: of what `cmk_encrypt`
/// returns, or of a `bytea` written as text. Asked of a value that was sealed, so that whoever has
/// no grant learns nothing of it.
///
/// # Errors
/// `already_sealed`; as [`already_sealed::refuse`].
#[inline]
pub fn refuse_envelope(plain: &[u8]) -> Result<()> {
    match already_sealed::refuse(plain) {
        Err(error) if error.reason == Reason::AlreadySealed && armor() != Armor::Refused => Ok(()),
        done => done,
    }
}

/// A type's own ERROR quotes nothing of the statement either.
fn hidden(work: impl FnOnce() -> Result<Bytea>) -> Result<pg_sys::Datum> {
    Ok(error_context::hidden(work)?.into_datum())
}

column_function!(column_text_in, |call| hidden(|| read(Kind::Text, call.c_string(0))));
column_function!(column_bytea_in, |call| hidden(|| read(Kind::Bytea, call.c_string(0))));
column_function!(column_jsonb_in, |call| hidden(|| read(Kind::Jsonb, call.c_string(0))));
column_function!(column_text_recv, |call| hidden(|| receive(Kind::Text, call.message(0))));
column_function!(column_bytea_recv, |call| hidden(|| receive(Kind::Bytea, call.message(0))));
column_function!(column_jsonb_recv, |call| hidden(|| receive(Kind::Jsonb, call.message(0))));

// Casts from the types that are protected, where those are no values of ours as they are.
column_function!(column_bytea_conceal, |call| {
    Ok(Kind::Bytea.conceal(call.datum(0))?.into_datum())
});
column_function!(column_json_conceal, |call| {
    Ok(Kind::conceal_json(call.bytes(0))?.into_datum())
});
column_function!(column_jsonb_conceal, |call| {
    Ok(Kind::Jsonb.conceal(call.datum(0))?.into_datum())
});
