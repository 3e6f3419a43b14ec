//! The secret types: what they hold is zeroed when they go, and nothing prints it.

use cmk_error::{Error, Reason, Result};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a data key and of a local customer key, in bytes: AES-256.
pub const KEY_LEN: usize = 32;

/// A raw 256-bit key on its way between a key provider and a cipher.
///
/// Neither `Clone` nor `Serialize`; `Debug` prints no content; zeroed on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(Box<[u8; KEY_LEN]>);

impl SecretKey {
    /// Takes a copy of `bytes`; the caller zeroes its own.
    ///
    /// # Errors
    /// `kms_answer_mismatch` if it isn't [`KEY_LEN`] bytes: only a provider's answer can be that
    /// wrong.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        let mut key = Box::new([0; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(Error::new(Reason::KmsAnswerMismatch)
                .with_info(format!("key_bytes={}", bytes.len())));
        }
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    /// Draws a key from the operating system.
    pub fn generate() -> Result<Self> {
        let mut key = Box::new([0; KEY_LEN]);
        getrandom::fill(key.as_mut_slice()).map_err(|_| Reason::SystemRandom)?;
        Ok(Self(key))
    }

    /// The one way to the bytes; grep for it to review every use.
    pub fn expose_secret(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_length_is_refused_by_its_length_alone() {
        assert_eq!(SecretKey::from_slice(&[7; KEY_LEN]).unwrap().expose_secret(), &[7; KEY_LEN]);
        for len in [0, 16, KEY_LEN - 1, KEY_LEN + 1] {
            let error = SecretKey::from_slice(&vec![7; len]).unwrap_err();
            assert_eq!(error.reason, Reason::KmsAnswerMismatch);
            assert_eq!(error.info(), Some(&*format!("key_bytes={len}")));
        }
    }

    #[test]
    fn two_keys_are_never_the_same_and_nothing_prints_them() {
        let [one, other] = [(); 2].map(|()| SecretKey::generate().unwrap());
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(format!("{one:?}"), "SecretKey(..)");
    }
}
