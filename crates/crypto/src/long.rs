//! AES-256-GCM by AWS-LC: the same bytes as [`aead`](super::aead) by RustCrypto, sooner for long
//! values, at the cost of a set-up that a short one doesn't earn back.
//!
//! AWS-LC keeps the expanded key on its heap for the length of a call, and zeroes what it frees
//! (`OPENSSL_free`). What its functions leave on the stack and in registers is overwritten here.

use super::key::KEY_LEN;
use super::nonce::PREFIX_LEN;
use super::scrub::{overwrite_stack, overwrite_upper_registers};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN as TAG_LEN, Nonce, UnboundKey};
use cmk_error::Reason;

/// From this length on AWS-LC is ahead, where each value has a key of its own: `benches/aead.rs`.
pub(crate) const LONG: usize = 768;

/// Bytes of the stack that are overwritten: several times what AWS-LC uses.
const DEPTH: usize = 8 * 1024;

/// Writes the ciphertext of `plaintext`, and its tag.
///
/// # Errors
/// `too_large` beyond the cipher's limit, or if `out` is not as long as `plaintext`;
/// `out_of_memory`.
pub(crate) fn seal(
    key: &[u8; KEY_LEN],
    nonce: &[u8; PREFIX_LEN],
    aad: &[u8],
    plaintext: &[u8],
    out: &mut [u8],
    tag: &mut [u8; TAG_LEN],
) -> Result<(), Reason> {
    let sealed = with_key(key, |key| {
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        key.seal_out_of_place_scatter(nonce, aad, plaintext, out, &[], tag)
            .map_err(|_| Reason::TooLarge)
    });
    overwrite_upper_registers();
    overwrite_stack::<DEPTH>();
    sealed
}

/// Writes the plaintext of `ciphertext` to `out`, which is left untouched or zero unless the tag is
/// right.
///
/// # Errors
/// `not_authentic`, one opaque failure for whatever is wrong; `out_of_memory`.
pub(crate) fn open(
    key: &[u8; KEY_LEN],
    nonce: &[u8; PREFIX_LEN],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    out: &mut [u8],
) -> Result<(), Reason> {
    let opened = with_key(key, |key| {
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        key.open_separate_gather(nonce, aad, ciphertext, tag, out).map_err(|_| Reason::NotAuthentic)
    });
    overwrite_upper_registers();
    overwrite_stack::<DEPTH>();
    opened
}

/// In a frame of its own, which can be overwritten.
#[inline(never)]
fn with_key(
    key: &[u8; KEY_LEN],
    work: impl FnOnce(&LessSafeKey) -> Result<(), Reason>,
) -> Result<(), Reason> {
    // Only for want of memory: the length is right.
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Reason::OutOfMemory)?;
    work(&LessSafeKey::new(key))
}

#[cfg(test)]
mod tests;
