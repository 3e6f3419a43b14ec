//! Whether what is about to be sealed is an envelope already. Sealed twice, it would come back as
//! ciphertext: a backfill that runs twice, a service that writes what it read.

use super::tenants;
use cmk_crypto::commitment::DekId;
use cmk_envelope::column::ColumnEnvelope;
use cmk_envelope::{Envelope, MAGIC, armor};
use cmk_error::{Reason, Result};
use data_encoding::HEXLOWER_PERMISSIVE;

/// Refuses an envelope of a registered data key: as it is, as `bytea` is written in hexadecimal
/// digits, or in armor. Of what begins like none of them nothing more is looked at.
///
/// # Errors
/// `already_sealed`; `out_of_memory`, `not_installed`.
#[inline]
pub fn refuse(value: &[u8]) -> Result<()> {
    match value {
        [MAGIC, ..] | [b'\\', b'x', ..] | [b'c', b'm', b'k', b'1', b':', ..] => look(value),
        _ => Ok(()),
    }
}

#[cold]
fn look(value: &[u8]) -> Result<()> {
    let is_sealed = match value {
        [b'\\', b'x', hex @ ..] => match from_hex(hex)? {
            Some(value) => is_registered(&value)?,
            None => false,
        },
        [MAGIC, ..] => is_registered(value)?,
        _ => match armor::decode(value)? {
            Some(value) => is_registered(&value)?,
            None => false,
        },
    };
    if is_sealed { Err(Reason::AlreadySealed.into()) } else { Ok(()) }
}

/// Whether a value is an envelope, of whichever suite, of a data key that this database's registry
/// has, destroyed ones included. Takes no key, so whether it is authentic is not known.
///
/// # Errors
/// `not_installed`.
pub fn is_registered(value: &[u8]) -> Result<bool> {
    let Some(id) = data_key_of(value) else { return Ok(false) };
    match tenants::of(&id) {
        Ok(_) => Ok(true),
        Err(error) if error.reason == Reason::UnknownDataKey => Ok(false),
        Err(error) => Err(error),
    }
}

fn data_key_of(value: &[u8]) -> Option<DekId> {
    if let Ok(envelope) = Envelope::parse(value) {
        return Some(envelope.dek_id());
    }
    ColumnEnvelope::parse(value).ok().map(|envelope| envelope.dek_id())
}

/// The bytes that hexadecimal digits stand for, if the first is an envelope's.
///
/// # Errors
/// `out_of_memory`.
fn from_hex(digits: &[u8]) -> Result<Option<Vec<u8>>> {
    let (Some([b'c' | b'C', b'1']), Ok(length)) =
        (digits.first_chunk(), HEXLOWER_PERMISSIVE.decode_len(digits.len()))
    else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Reason::OutOfMemory)?;
    bytes.resize(length, 0);
    Ok(HEXLOWER_PERMISSIVE.decode_mut(digits, &mut bytes).is_ok().then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_an_envelope_are_read_and_others_left_alone() {
        assert_eq!(from_hex(b"c101Ff").unwrap(), Some(vec![0xc1, 1, 255]));
        assert_eq!(from_hex(b"C1").unwrap(), Some(vec![0xc1]));
        for other in [&b""[..], b"c", b"c10", b"c1 2", b"c2c1", b"c1\xffg"] {
            assert_eq!(from_hex(other).unwrap(), None);
        }
    }
}
