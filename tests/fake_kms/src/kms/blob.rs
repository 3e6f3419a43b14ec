//! The ciphertext blob.
//!
//! `version(1) || len(1) || key ARN || generation(4) || nonce(12) || AES-256-GCM(plaintext) ||
//! tag(16)`
//!
//! The AAD is everything before the nonce and then the encryption context, sorted, each part with
//! its length before it. So nothing of a blob can change, and no other context opens it.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

use crate::error::ApiError;
use crate::log::EncryptionContext;
use crate::store::Key;

const VERSION: u8 = 1;
const NONCE: usize = 12;

/// A blob, split but not yet opened.
pub struct Blob<'a> {
    header: &'a [u8],
    pub key_arn: &'a str,
    generation: usize,
    nonce: [u8; NONCE],
    sealed: &'a [u8],
}

impl<'a> Blob<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[VERSION, arn_len], rest) = bytes.split_first_chunk()? else { return None };
        let (arn, rest) = rest.split_at_checked(arn_len.into())?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        Some(Self {
            header: &bytes[..bytes.len() - rest.len()],
            key_arn: str::from_utf8(arn).ok()?,
            generation: u32::from_be_bytes(*generation).try_into().ok()?,
            nonce: *nonce,
            sealed,
        })
    }

    /// # Errors
    /// InvalidCiphertextException, whatever the reason.
    pub fn open(&self, key: &Key, context: &EncryptionContext) -> Result<Vec<u8>, ApiError> {
        let invalid = ApiError::invalid_ciphertext;
        let material = key.generations.lock().get(self.generation).copied();
        let material = material.ok_or_else(invalid)?;
        let aad = aad(self.header, context);
        Aes256Gcm::new((&material).into())
            .decrypt(&Nonce::from(self.nonce), Payload { msg: self.sealed, aad: &aad })
            .map_err(|_| invalid())
    }
}

/// # Errors
/// KMSInternalException when the system has no randomness to give.
pub fn seal(key: &Key, context: &EncryptionContext, plaintext: &[u8]) -> Result<Vec<u8>, ApiError> {
    let internal = |what: &str| ApiError::new(500, "KMSInternalException", what);
    let generations = key.generations.lock().clone();
    let [.., material] = &generations[..] else { return Err(internal("no key material")) };
    let generation = u32::try_from(generations.len() - 1).map_err(|_| internal("rotations"))?;
    let arn_len = u8::try_from(key.arn.len()).map_err(|_| internal("key ARN too long"))?;
    let mut blob = vec![VERSION, arn_len];
    blob.extend(key.arn.as_bytes());
    blob.extend(generation.to_be_bytes());
    let aad = aad(&blob, context);
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| internal("no randomness"))?;
    let sealed = Aes256Gcm::new(material.into())
        .encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: &aad })
        .map_err(|_| internal("plaintext too long"))?;
    blob.extend(nonce);
    blob.extend(sealed);
    Ok(blob)
}

fn aad(header: &[u8], context: &EncryptionContext) -> Vec<u8> {
    let mut aad = header.to_vec();
    for part in context.iter().flat_map(|(name, value)| [name, value]) {
        aad.extend((part.len() as u64).to_be_bytes());
        aad.extend(part.as_bytes());
    }
    aad
}
