//! What the three types differ in: how a plaintext is written, read and sent.
//!
//! A `cmk_bytea` seals its bytes and a `cmk_jsonb` its JSON text: not PostgreSQL's binary form, so
//! that whoever holds the data key can read it without a server.

use super::stored::PLAIN;
use crate::pg::call::PgCString;
use crate::pg::datum::{Bytea, content};
use cmk_envelope::armor;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Bytea,
    Jsonb,
}

/// First byte of a `jsonb` in a binary message.
const JSONB_VERSION: u8 = 1;

impl Kind {
    /// The name of its type in `pg_catalog`.
    pub const fn type_name(self) -> &'static CStr {
        match self {
            Self::Text => c"cmk_text",
            Self::Bytea => c"cmk_bytea",
            Self::Jsonb => c"cmk_jsonb",
        }
    }

    /// The value that stands for a plaintext that isn't sealed yet.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn plain(self, clear: &[u8]) -> Result<Bytea> {
        match self {
            Self::Text => Bytea::copy(&[clear]),
            Self::Bytea | Self::Jsonb => Bytea::copy(&[&[PLAIN], clear]),
        }
    }

    /// What is sealed, from the text form of the type that is protected. Raises that type's ERROR
    /// for what it doesn't accept.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn read(self, text: &CStr) -> Result<Bytea> {
        match self {
            Self::Text => self.plain(text.to_bytes()),
            Self::Bytea => self.conceal(call_input(pg_sys::F_BYTEAIN, text)),
            Self::Jsonb => self.conceal(call_input(pg_sys::F_JSONB_IN, text)),
        }
    }

    /// What is sealed, from the binary form of the type that is protected, as
    /// [`read`](Self::read).
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`; `not_text` for what can't be text.
    pub fn receive(self, message: &[u8]) -> Result<Bytea> {
        match (self, message) {
            (Self::Bytea, _) => self.plain(message),
            (Self::Jsonb, [JSONB_VERSION, json @ ..]) => self.read(as_c_str(&c_string(json)?)),
            (Self::Text | Self::Jsonb, _) => self.read(as_c_str(&c_string(message)?)),
        }
    }

    /// The text form of a plaintext.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn write(self, clear: &[u8]) -> Result<PgCString> {
        match self {
            Self::Text | Self::Jsonb => PgCString::copy(&[clear]),
            Self::Bytea => {
                let value = Bytea::copy(&[clear])?.into_datum();
                PgCString::copy(&[call_output(pg_sys::F_BYTEAOUT, value).to_bytes()])
            }
        }
    }

    /// The binary form of a plaintext.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn send(self, clear: &[u8]) -> Result<Bytea> {
        match self {
            Self::Bytea => Bytea::copy(&[clear]),
            Self::Text => Bytea::copy(&[to_client(clear)?]),
            Self::Jsonb => Bytea::copy(&[&[JSONB_VERSION], to_client(clear)?]),
        }
    }

    /// The plaintext as a value of the type that is protected.
    ///
    /// # Errors
    /// `not_text`.
    pub fn reveal(self, clear: Bytea) -> Result<pg_sys::Datum> {
        Ok(match self {
            Self::Text => clear.into_text()?.into_datum(),
            Self::Bytea => clear.into_datum(),
            Self::Jsonb => {
                call_input(pg_sys::F_JSONB_IN, as_c_str(&PgCString::copy(&[clear.as_slice()])?))
            }
        })
    }

    /// The plaintext that stands for an envelope where ciphertext has to be of the type that is
    /// protected: its armor, in a `jsonb` as a string. Not the envelope itself in a `bytea`: armor
    /// is known as such when it comes back, by its checksum.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn armor(self, envelope: &[u8]) -> Result<Bytea> {
        let quote = usize::from(self == Self::Jsonb);
        let len = armor::encoded_len(envelope.len());
        let mut armored = Bytea::with_len(len + 2 * quote)?;
        let room = armored.as_mut_slice();
        room.fill(b'"');
        armor::encode_into(envelope, &mut room[quote..quote + len])?;
        Ok(armored)
    }

    /// Where in a plaintext armor would be.
    pub fn armor_in(self, clear: &[u8]) -> &[u8] {
        match (self, clear) {
            (Self::Jsonb, [b'"', armor @ .., b'"']) => armor,
            (Self::Jsonb, _) => &[],
            (Self::Text | Self::Bytea, _) => clear,
        }
    }

    /// The same of a `json`, which is text: as `jsonb` writes it.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`, `not_text`.
    pub fn conceal_json(json: &[u8]) -> Result<Bytea> {
        Self::Jsonb.read(as_c_str(&PgCString::copy(&[json])?))
    }

    /// What is sealed of a value of the type that is protected.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn conceal(self, value: pg_sys::Datum) -> Result<Bytea> {
        match self {
            // SAFETY: a text or bytea, as the function is declared.
            Self::Text | Self::Bytea => self.plain(unsafe { content(value) }),
            Self::Jsonb => self.plain(call_output(pg_sys::F_JSONB_OUT, value).to_bytes()),
        }
    }
}

fn as_c_str(text: &PgCString) -> &CStr {
    // SAFETY: a zero ends it.
    unsafe { CStr::from_ptr(text.as_ptr()) }
}

/// The bytes of a message as text in the database's encoding, which is UTF-8.
///
/// # Errors
/// `not_text` for what isn't UTF-8 or holds a zero byte.
pub fn c_string(bytes: &[u8]) -> Result<PgCString> {
    // SAFETY: reads `len` bytes; raises an ERROR or returns its argument, or a copy in the current
    // memory context, if the client uses another encoding.
    let converted = unsafe {
        let len = i32::try_from(bytes.len()).map_err(|_| Reason::TooLarge)?;
        let converted = pg_sys::pg_client_to_server(bytes.as_ptr().cast(), len);
        match std::ptr::eq(converted.cast(), bytes.as_ptr()) {
            true => bytes,
            false => CStr::from_ptr(converted).to_bytes(),
        }
    };
    if converted.contains(&0) {
        return Err(Reason::NotText.into());
    }
    PgCString::copy(&[converted])
}

/// A text in the client's encoding. Raises PostgreSQL's ERROR for what that has no characters for.
///
/// # Errors
/// `too_large`.
fn to_client(text: &[u8]) -> Result<&[u8]> {
    // SAFETY: reads `len` bytes; returns its argument, or a copy that ends with a zero in the
    // current memory context, if the client uses another encoding.
    unsafe {
        let len = i32::try_from(text.len()).map_err(|_| Reason::TooLarge)?;
        let converted = pg_sys::pg_server_to_client(text.as_ptr().cast(), len);
        Ok(match std::ptr::eq(converted.cast(), text.as_ptr()) {
            true => text,
            false => CStr::from_ptr(converted).to_bytes(),
        })
    }
}

fn call_input(function: u32, text: &CStr) -> pg_sys::Datum {
    let function = pg_sys::Oid::from(function);
    // SAFETY: the input function of a type without modifiers or element type; reads the text only.
    unsafe {
        pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), pg_sys::InvalidOid, -1)
    }
}

fn call_output<'a>(function: u32, value: pg_sys::Datum) -> &'a CStr {
    // SAFETY: the output function of the value's type; the C string lies in the current memory
    // context.
    unsafe { CStr::from_ptr(pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(function), value)) }
}
