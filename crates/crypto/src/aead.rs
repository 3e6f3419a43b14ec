//! XAES-256-GCM: the cipher of suite 1.
//!
//! ```text
//! (ciphertext, tag) = XAES-256-GCM(key, nonce, aad, plaintext)
//! key 32 bytes · nonce 24 bytes, random · tag 16 bytes · plaintext up to 2^36 − 32 bytes
//!
//! L  = AES-256(key, 0^128)              K1 = L · x in GF(2^128)
//! M1 = 00 01 'X' 00 ‖ nonce[0..12]      M2 = 00 02 'X' 00 ‖ nonce[0..12]
//! Kx = AES-256(key, M1 ⊕ K1) ‖ AES-256(key, M2 ⊕ K1)
//! (ciphertext, tag) = AES-256-GCM(Kx, nonce[12..24], aad, plaintext)
//! ```
//!
//! C2SP XAES-256-GCM derives a fresh AES-256-GCM key (NIST SP 800-38D) from the first half of each
//! nonce, so random nonces may be used for 2^80 messages where AES-GCM alone stops at 2^32.
//! Long values go [another way](super::long) to the same bytes, where that is linked.
//!
//! Composed here from the `aes` and `aes-gcm` crates instead of taken from `xaes-256-gcm`, because
//! that one expands decryption keys that GCM never uses, about a tenth of the cost of a short
//! value; tests hold the two against each other and against C2SP's vectors.

use super::key::{KEY_LEN, SecretKey};
use super::locked::Erasable;
#[cfg(feature = "aws-lc")]
use super::long;
use super::nonce::{NONCE_LEN, PREFIX_LEN};
use super::scrub::overwrite;
use aes::Aes256Enc;
use aes::cipher::array::Array;
use aes::cipher::consts::{U12, U16};
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use cmk_error::{Error, Reason, Result};
use std::fmt;
use zeroize::Zeroize;

/// Bytes of the tag.
pub const TAG_LEN: usize = 16;

const BLOCK: usize = 16;

/// A borrowed key schedule: it is a kilobyte.
type Borrowed<'a> = AesGcm<&'a Aes256Enc, U12>;

/// AES-256-GCM, expanded, without the key schedule of the inverse cipher: the key of all messages
/// whose nonces begin with the same 12 bytes. Zeroed on drop.
pub(crate) struct MessageKey(AesGcm<Aes256Enc, U12>);

/// An expanded key. Holds key schedules only; the raw key is not kept. Zeroed on drop.
pub struct Cipher {
    aes: Aes256Enc,
    k1: [u8; BLOCK],
}

// SAFETY: key schedules and a block, plain numbers without pointers; dropping them zeroes them.
unsafe impl Erasable for Cipher {}

impl Cipher {
    /// Expands a key, which the cipher does not keep.
    pub fn new(key: &SecretKey) -> Self {
        let aes = Aes256Enc::new(key.expose_secret().into());
        let mut l = Array::from([0; BLOCK]);
        aes.encrypt_block(&mut l);
        // Multiplication by x: a shift, and the polynomial's low bits if one was shifted out.
        let number = u128::from_be_bytes(l.into());
        let k1 = (number << 1) ^ ((number >> 127) * 0x87);
        l.as_mut_slice().zeroize();
        Self { aes, k1: k1.to_be_bytes() }
    }

    /// Writes the key of all messages whose nonces begin like that. Whoever takes it overwrites it.
    #[inline]
    fn derive(&self, prefix: &[u8; PREFIX_LEN], key: &mut [u8; KEY_LEN]) {
        let half = |counter: u8| {
            let mut m = [0; BLOCK];
            m[..4].copy_from_slice(&[0, counter, b'X', 0]);
            m[4..].copy_from_slice(prefix);
            m.iter_mut().zip(self.k1).for_each(|(byte, k1)| *byte ^= k1);
            Array::from(m)
        };
        let mut halves = [half(1), half(2)];
        self.aes.encrypt_blocks(&mut halves);
        let (low, high) = key.split_at_mut(BLOCK);
        low.copy_from_slice(&halves[0]);
        high.copy_from_slice(&halves[1]);
        overwrite(&mut halves);
    }

    #[cfg(test)]
    pub(crate) fn derived(&self, prefix: &[u8; PREFIX_LEN]) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        self.derive(prefix, &mut key);
        key
    }

    /// The same, expanded.
    pub(crate) fn message_key(&self, prefix: &[u8; PREFIX_LEN]) -> MessageKey {
        let mut key = [0; KEY_LEN];
        self.derive(prefix, &mut key);
        let expanded = MessageKey(expand(&key).into());
        overwrite(&mut key);
        expanded
    }

    /// Writes the ciphertext of `plaintext` to `out` and returns the tag.
    ///
    /// # Errors
    /// As [`seal_into`](Self::seal_into).
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<[u8; TAG_LEN]> {
        let mut tag = [0; TAG_LEN];
        self.seal_into(nonce, aad, plaintext, out, &mut tag)?;
        Ok(tag)
    }

    /// Writes the ciphertext of `plaintext`, and its tag. Returns a bare reason, which takes one
    /// register: a success that took two would leave in the other what the cipher had there, and
    /// callers put it on the stack.
    ///
    /// # Errors
    /// `too_large` beyond the cipher's limit, or if `out` is not as long as `plaintext`;
    /// `out_of_memory` for a long value.
    #[inline(never)]
    pub fn seal_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Reason> {
        let (prefix, rest) = halves(nonce);
        let mut key = [0; KEY_LEN];
        self.derive(prefix, &mut key);
        let sealed = match plaintext.len() {
            #[cfg(feature = "aws-lc")]
            long::LONG.. => long::seal(&key, rest, aad, plaintext, out, tag),
            _ => seal(&Borrowed::from(&expand(&key)), rest, aad, plaintext, out, tag),
        };
        overwrite(&mut key);
        sealed
    }

    /// Writes the plaintext of `ciphertext` to `out`, which is left untouched or zero unless the
    /// tag is right.
    ///
    /// # Errors
    /// `not_authentic`, one opaque failure for whatever is wrong; `out_of_memory` for a long value.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<()> {
        self.open_into(nonce, aad, ciphertext, tag, out).map_err(Error::from)
    }

    /// The same; returns as [`seal_into`](Self::seal_into).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[inline(never)]
    pub(crate) fn open_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<(), Reason> {
        let (prefix, rest) = halves(nonce);
        let mut key = [0; KEY_LEN];
        self.derive(prefix, &mut key);
        let opened = match ciphertext.len() {
            #[cfg(feature = "aws-lc")]
            long::LONG.. => long::open(&key, rest, aad, ciphertext, tag, out),
            _ => open(&Borrowed::from(&expand(&key)), rest, aad, ciphertext, tag, out),
        };
        overwrite(&mut key);
        opened
    }
}

impl MessageKey {
    /// As [`Cipher::seal_into`], of a nonce that begins with what the key was derived from.
    #[inline(never)]
    pub(crate) fn seal_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Reason> {
        seal(&self.0, halves(nonce).1, aad, plaintext, out, tag)
    }

    /// As [`Cipher::open_into`], of a nonce that begins with what the key was derived from.
    #[inline(never)]
    pub(crate) fn open_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<(), Reason> {
        open(&self.0, halves(nonce).1, aad, ciphertext, tag, out)
    }
}

#[inline]
fn expand(key: &[u8; KEY_LEN]) -> Aes256Enc {
    Aes256Enc::new(key.into())
}

/// What a message key is derived from, and the nonce to use it with.
#[inline]
pub(crate) fn halves(nonce: &[u8; NONCE_LEN]) -> (&[u8; PREFIX_LEN], &[u8; PREFIX_LEN]) {
    let (prefix, rest) = nonce.split_first_chunk().expect("12 of 24 bytes");
    (prefix, rest.try_into().expect("the other 12"))
}

#[inline]
fn seal(
    gcm: &impl AeadInOut<NonceSize = U12, TagSize = U16>,
    nonce: &[u8; PREFIX_LEN],
    aad: &[u8],
    plaintext: &[u8],
    out: &mut [u8],
    tag: &mut [u8; TAG_LEN],
) -> Result<(), Reason> {
    let buffer = InOutBuf::new(plaintext, out).map_err(|_| Reason::TooLarge)?;
    let sealed = gcm.encrypt_inout_detached(nonce.into(), aad, buffer);
    *tag = sealed.map_err(|_| Reason::TooLarge)?.into();
    Ok(())
}

#[inline]
fn open(
    gcm: &impl AeadInOut<NonceSize = U12, TagSize = U16>,
    nonce: &[u8; PREFIX_LEN],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    out: &mut [u8],
) -> Result<(), Reason> {
    let buffer = InOutBuf::new(ciphertext, out).map_err(|_| Reason::NotAuthentic)?;
    let opened = gcm.decrypt_inout_detached(nonce.into(), aad, buffer, tag.into());
    opened.map_err(|_| Reason::NotAuthentic)
}

impl Drop for Cipher {
    fn drop(&mut self) {
        // The key schedule zeroes itself.
        self.k1.zeroize();
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xaes_256_gcm::Xaes256Gcm;

    #[test]
    fn agrees_with_the_crate_of_that_name() {
        for length in (0..200).chain(700..1100).chain([4096, 100_000]) {
            let key = SecretKey::generate().unwrap();
            let mut nonce = [0; NONCE_LEN];
            getrandom::fill(&mut nonce).unwrap();
            let plaintext = vec![length as u8; length];
            let aad = &plaintext[..length / 2];

            let mut ours = vec![0; length];
            let our_tag = Cipher::new(&key).seal(&nonce, aad, &plaintext, &mut ours).unwrap();
            let mut theirs = plaintext.clone();
            let their_tag = Xaes256Gcm::new(key.expose_secret().into())
                .encrypt_inout_detached((&nonce).into(), aad, theirs.as_mut_slice().into())
                .unwrap();
            assert_eq!((ours, our_tag), (theirs, their_tag.into()), "{length} bytes");
        }
    }

    #[test]
    fn a_dropped_cipher_leaves_nothing_and_nothing_prints_it() {
        let mut cipher = std::mem::ManuallyDrop::new(Cipher::new(&SecretKey::generate().unwrap()));
        assert_eq!(format!("{:?}", *cipher), "Cipher(..)");
        assert_ne!(cipher.k1, [0; BLOCK]);
        // SAFETY: dropped once; of what is left only plain bytes are read.
        unsafe { std::mem::ManuallyDrop::drop(&mut cipher) };
        assert_eq!(cipher.k1, [0; BLOCK]);
    }

    #[test]
    fn room_of_another_length_than_the_value_is_refused() {
        let (cipher, nonce) = (Cipher::new(&SecretKey::generate().unwrap()), [1; NONCE_LEN]);
        for room in [0, 4, 6] {
            let mut out = vec![0; room];
            let sealed = cipher.seal(&nonce, b"", b"value", &mut out);
            assert_eq!(sealed.unwrap_err().reason, Reason::TooLarge);
            let opened = cipher.open(&nonce, b"", b"value", &[0; TAG_LEN], &mut out);
            assert_eq!(opened.unwrap_err().reason, Reason::NotAuthentic);
        }
    }

    #[test]
    fn what_is_not_authentic_is_not_shown() {
        let (cipher, nonce) = (Cipher::new(&SecretKey::generate().unwrap()), [1; NONCE_LEN]);
        let (mut sealed, mut out) = ([0; 5], [7; 5]);
        let mut tag = cipher.seal(&nonce, b"aad", b"value", &mut sealed).unwrap();
        tag[0] ^= 1;
        assert!(cipher.open(&nonce, b"aad", &sealed, &tag, &mut out).is_err());
        assert_eq!(out, [7; 5]);
        tag[0] ^= 1;
        cipher.open(&nonce, b"aad", &sealed, &tag, &mut out).unwrap();
        assert_eq!(&out, b"value");
    }
}
