//! Opens values.

use super::stats;
use super::stored::Stored;
use super::tenants;
use crate::pg::datum::Bytea;
use crate::pg::identity::in_security_restricted_operation;
use crate::pg::process::{ThisProcess, keyring};
use cmk_envelope::column::ColumnEnvelope;
use cmk_error::{Error, Reason, Result};

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
    /// Gives the memory back, zeroed, before its context goes.
    pub fn free(self) {
        if let Self::Opened(clear) = self {
            clear.free();
        }
    }

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
