//! The bytes of a data key that the local provider wrapped.
//!
//! ```text
//! wrapped DEK  0x01 ‖ nonce[24] ‖ XAES-256-GCM(key, nonce, aad, DEK)   73 bytes
//! ```
//!
//! `aad` is what a data key is bound to: the canonical JSON of its encryption context.

use cmk_crypto::aead::{Cipher, TAG_LEN};
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_crypto::nonce::NONCE_LEN;
use cmk_error::{Error, Reason, Result};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const BODY_AT: usize = 1 + NONCE_LEN;
const WRAPPED_LEN: usize = BODY_AT + KEY_LEN + TAG_LEN;

/// Wraps a data key under `key`, with a nonce of its own.
///
/// # Errors
/// `system_random`.
pub fn wrap(key: &SecretKey, aad: &[u8], dek: &SecretKey) -> Result<Vec<u8>> {
    let mut wrapped = vec![0; WRAPPED_LEN];
    wrapped[0] = VERSION;
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| Reason::SystemRandom)?;
    wrapped[1..BODY_AT].copy_from_slice(&nonce);
    let (body, tag) = wrapped[BODY_AT..].split_at_mut(KEY_LEN);
    tag.copy_from_slice(&Cipher::new(key).seal(&nonce, aad, dek.expose_secret(), body)?);
    Ok(wrapped)
}

/// Inverse of [`wrap`].
///
/// # Errors
/// `wrapped_key_rejected`, whatever is wrong: another key, other bound bytes, another format.
pub fn unwrap(key: &SecretKey, aad: &[u8], wrapped: &[u8]) -> Result<SecretKey> {
    let rejected = || Error::new(Reason::WrappedKeyRejected);
    let (&version, rest) = wrapped.split_first().ok_or_else(rejected)?;
    let (nonce, rest) = rest.split_first_chunk().ok_or_else(rejected)?;
    let (body, tag) = rest.split_last_chunk().ok_or_else(rejected)?;
    if version != VERSION || body.len() != KEY_LEN {
        return Err(rejected());
    }
    let mut dek = Zeroizing::new([0; KEY_LEN]);
    let opened = Cipher::new(key).open(nonce, aad, body, tag, dek.as_mut_slice());
    opened.map_err(|_| rejected())?;
    SecretKey::from_slice(dek.as_slice())
}
