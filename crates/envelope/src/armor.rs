//! The armor: an envelope of a protected column as text, as dumps and replication carry it.
//!
//! ```text
//! armor    = "cmk1:" ‖ base64(envelope ‖ checksum)
//! checksum = SHA-256("cmk_encrypt/v1/armor" ‖ envelope)[0..4]
//! ```
//!
//! base64 is RFC 4648's standard alphabet without padding. An envelope has one armor: decoding
//! accepts that and nothing else. The checksum tells armor from text that looks like it, and
//! finds a slip of whoever copies it by hand; it proves nothing, since anybody can compute it.
//!
//! Where a column is printed as armor, a value that was never sealed and begins like armor or like
//! the escape is printed with [`ESCAPE`] before it. So text that is read back is never taken for an
//! envelope: what begins with the escape is the text behind it.

use super::column::header;
use cmk_error::{Reason, Result};
use data_encoding::BASE64_NOPAD;
use sha2::{Digest, Sha256};

/// How armor begins.
pub const PREFIX: &str = "cmk1:";
/// How text begins that would otherwise begin like armor or like this.
pub const ESCAPE: &str = "cmk0:";

const CHECKSUM_LEN: usize = 4;

/// Base64 makes 4 characters of 3 bytes.
const BYTES: usize = 3;
const CHARACTERS: usize = 4;

/// At most 2 bytes are left of an envelope after whole groups of 3; and the checksum.
const LAST_BYTES: usize = 6;

/// True of plain text that is printed with [`ESCAPE`] before it.
pub fn needs_escape(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes()) || text.starts_with(ESCAPE.as_bytes())
}

/// Length of the armor of an envelope of that length.
pub const fn encoded_len(envelope_len: usize) -> usize {
    let bytes = envelope_len + CHECKSUM_LEN;
    PREFIX.len() + bytes / BYTES * CHARACTERS + (bytes % BYTES * CHARACTERS).div_ceil(BYTES)
}

/// Writes the armor of `envelope` to `out`, which is [`encoded_len`] bytes. Never allocates.
///
/// # Errors
/// `too_large` if `out` has another length.
pub fn encode_into(envelope: &[u8], out: &mut [u8]) -> Result<()> {
    if out.len() != encoded_len(envelope.len()) {
        return Err(Reason::TooLarge.into());
    }
    let (prefix, out) = out.split_at_mut(PREFIX.len());
    prefix.copy_from_slice(PREFIX.as_bytes());

    let (groups, rest) = envelope.split_at(envelope.len() - envelope.len() % BYTES);
    let (groups_out, last_out) = out.split_at_mut(groups.len() / BYTES * CHARACTERS);
    BASE64_NOPAD.encode_mut(groups, groups_out);

    let mut last = [0; LAST_BYTES];
    let last = &mut last[..rest.len() + CHECKSUM_LEN];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()..].copy_from_slice(&checksum(envelope));
    BASE64_NOPAD.encode_mut(last, last_out);
    Ok(())
}

/// Length of the envelope in an armor of that length. `None` where no armor has that length.
pub fn decoded_len(armor_len: usize) -> Option<usize> {
    let characters = armor_len.checked_sub(PREFIX.len())?;
    BASE64_NOPAD.decode_len(characters).ok()?.checked_sub(CHECKSUM_LEN)
}

/// Writes the envelope in `text` to `out`, which is [`decoded_len`] bytes, and says whether there
/// is one: false for whatever isn't the armor of an envelope of a column, and then `out` holds
/// anything. Never allocates.
#[must_use]
pub fn decode_into(text: &[u8], out: &mut [u8]) -> bool {
    decode_slices(text, out).is_some()
}

fn decode_slices(text: &[u8], out: &mut [u8]) -> Option<()> {
    let characters = text.strip_prefix(PREFIX.as_bytes())?;
    if decoded_len(text.len()) != Some(out.len()) {
        return None;
    }
    let (groups_out, rest) = out.split_at_mut(out.len() - out.len() % BYTES);
    let (groups, last) = characters.split_at(groups_out.len() / BYTES * CHARACTERS);
    // Refuses trailing bits other than zero, so that no two texts are the same armor.
    BASE64_NOPAD.decode_mut(groups, groups_out).ok()?;

    let mut last_bytes = [0; LAST_BYTES];
    let last_bytes = &mut last_bytes[..rest.len() + CHECKSUM_LEN];
    BASE64_NOPAD.decode_mut(last, last_bytes).ok()?;
    let (rest_bytes, sum) = last_bytes.split_at(rest.len());
    rest.copy_from_slice(rest_bytes);
    (sum == checksum(out) && header(out).is_some()).then_some(())
}

/// The envelope in `text`; `None` for whatever isn't the armor of an envelope of a column.
///
/// # Errors
/// `out_of_memory`.
pub fn decode(text: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(len) = decoded_len(text.len()).filter(|_| text.starts_with(PREFIX.as_bytes())) else {
        return Ok(None);
    };
    let mut envelope = Vec::new();
    envelope.try_reserve_exact(len).map_err(|_| Reason::OutOfMemory)?;
    envelope.resize(len, 0);
    Ok(decode_into(text, &mut envelope).then_some(envelope))
}

/// The armor of `envelope`.
///
/// # Errors
/// `out_of_memory`.
pub fn encode(envelope: &[u8]) -> Result<Vec<u8>> {
    let mut armor = Vec::new();
    let len = encoded_len(envelope.len());
    armor.try_reserve_exact(len).map_err(|_| Reason::OutOfMemory)?;
    armor.resize(len, 0);
    encode_into(envelope, &mut armor)?;
    Ok(armor)
}

fn checksum(envelope: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = Sha256::new().chain_update(b"cmk_encrypt/v1/armor").chain_update(envelope);
    super::frame::field(&hash.finalize(), 0)
}

#[cfg(test)]
mod tests;
