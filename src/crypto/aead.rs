//! XAES-256-GCM: the cipher of suite 1.
//!
//! ```text
//! (ciphertext, tag) = XAES-256-GCM(key, nonce, aad, plaintext)
//! key 32 bytes · nonce 24 bytes, random · tag 16 bytes · plaintext up to 2^36 − 32 bytes
//! ```
//!
//! C2SP XAES-256-GCM derives a fresh AES-256-GCM key (NIST SP 800-38D) from the first half of each
//! nonce, so random nonces may be used for 2^80 messages where AES-GCM alone stops at 2^32.

use super::key::SecretKey;
use super::nonce::NONCE_LEN;
use crate::error::{Error, Reason, Result};
use std::fmt;
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::inout::InOutBuf;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};

pub const TAG_LEN: usize = 16;

/// An expanded key. Holds the key schedule only; the raw key is not kept.
pub struct Cipher(Xaes256Gcm);

impl Cipher {
    pub fn new(key: &SecretKey) -> Self {
        Self(Xaes256Gcm::new(key.expose_secret().into()))
    }

    /// Writes the ciphertext of `plaintext` to `out` and returns the tag.
    ///
    /// # Errors
    /// `too_large` beyond the cipher's limit, or if `out` is not as long as `plaintext`.
    #[inline]
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<[u8; TAG_LEN]> {
        let buffer = InOutBuf::new(plaintext, out).map_err(|_| Reason::TooLarge)?;
        let tag = self.0.encrypt_inout_detached(nonce.into(), aad, buffer);
        Ok(tag.map_err(|_| Reason::TooLarge)?.into())
    }

    /// Writes the plaintext of `ciphertext` to `out`, which stays untouched unless the tag is right.
    ///
    /// # Errors
    /// `not_authentic`, one opaque failure for whatever is wrong.
    #[inline]
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<()> {
        let opaque = || Error::new(Reason::NotAuthentic);
        let buffer = InOutBuf::new(ciphertext, out).map_err(|_| opaque())?;
        self.0
            .decrypt_inout_detached(nonce.into(), aad, buffer, tag.into())
            .map_err(|_| opaque())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}
