//! Search tokens: a keyed hash that says whether two values are equal, and nothing else.
//!
//! ```text
//! token = HMAC-SHA-256(index key, "cmk_encrypt/v1/token" ‖ column tag ‖ value)[0..16]
//! index key 32 bytes · column tag 8 bytes · token 16 bytes
//! ```
//!
//! HMAC: RFC 2104, NIST FIPS 198-1; truncated to 128 bits as NIST SP 800-107 allows. Who has no
//! index key learns from tokens which values of a column are equal. Who has it can try values.

use super::key::{KEY_LEN, SecretKey};
use super::locked::Erasable;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a token.
pub const TOKEN_LEN: usize = 16;
/// Bytes of the tag of a column, which its tokens are bound to.
pub const COLUMN_TAG_LEN: usize = 8;

const DOMAIN: &[u8] = b"cmk_encrypt/v1/token";

/// An index key, ready for use. Zeroed on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TokenKey([u8; KEY_LEN]);

// SAFETY: plain bytes; dropping them zeroes them.
unsafe impl Erasable for TokenKey {}

impl TokenKey {
    /// Takes a copy.
    pub fn new(key: &SecretKey) -> Self {
        Self(*key.expose_secret())
    }

    /// The token of a value in a column.
    pub fn token(&self, column: &[u8; COLUMN_TAG_LEN], value: &[u8]) -> [u8; TOKEN_LEN] {
        // HMAC's state is zeroed when it goes.
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0);
        let mut mac = mac.expect("HMAC takes a key of any length");
        mac.update(DOMAIN);
        mac.update(column);
        mac.update(value);
        let code = mac.finalize().into_bytes();
        let mut token = [0; TOKEN_LEN];
        token.copy_from_slice(&code[..TOKEN_LEN]);
        token
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn key(byte: u8) -> TokenKey {
        TokenKey::new(&SecretKey::from_slice(&[byte; KEY_LEN]).unwrap())
    }

    /// `hmac.new(b'\x07' * 32, b'cmk_encrypt/v1/token' + b'\x01' * 8 + b'value', 'sha256')`
    #[test]
    fn a_token_is_what_another_implementation_computes() {
        let token = key(7).token(&[1; 8], b"value");
        assert_eq!(HEXLOWER.encode(&token), "adeb406c7622756b0ce6eb9cb680c634");
    }

    #[test]
    fn key_column_and_value_each_make_another_token() {
        let token = key(7).token(&[1; 8], b"value");
        assert_ne!(token, key(8).token(&[1; 8], b"value"));
        assert_ne!(token, key(7).token(&[2; 8], b"value"));
        assert_ne!(token, key(7).token(&[1; 8], b"valuE"));
        assert_eq!(token, key(7).token(&[1; 8], b"value"));
    }

    #[test]
    fn nothing_prints_an_index_key() {
        assert_eq!(format!("{:?}", key(7)), "TokenKey(..)");
    }
}
