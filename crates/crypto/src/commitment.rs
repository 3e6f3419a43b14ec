//! Key commitment: a public value that binds a data key to its tenant.
//!
//! ```text
//! info   = "cmk_encrypt/v1/dek-commitment" ‖ len32(tenant) ‖ tenant
//! C      = HKDF-SHA-256(ikm = DEK, salt = "", info)   32 bytes
//! dek_id = C[0..16]
//! ```
//!
//! `C` stands beside the wrapped data key and is compared after each unwrap; `dek_id` stands in
//! every envelope. AES-GCM alone does not commit to its key: without this, one who may write the
//! registry could make one ciphertext open to two plaintexts under two keys (CVE-2025-14763 is that
//! attack on a client with the same layout). HKDF: RFC 5869.

use super::key::SecretKey;
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;

/// Bytes of a commitment.
pub const COMMITMENT_LEN: usize = 32;
/// Bytes of a data key's name, which are the first of its commitment.
pub const DEK_ID_LEN: usize = 16;

const INFO: &[u8] = b"cmk_encrypt/v1/dek-commitment";

/// The commitment to a data key under a tenant's name. Public.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Commitment([u8; COMMITMENT_LEN]);

impl Commitment {
    /// HKDF-SHA-256(no salt, `dek`, `INFO` ‖ len32(tenant) ‖ tenant), the length big-endian.
    pub fn to(dek: &SecretKey, tenant: &[u8]) -> Self {
        let len = (tenant.len() as u32).to_be_bytes();
        let mut okm = [0; COMMITMENT_LEN];
        Hkdf::<Sha256>::new(None, dek.expose_secret())
            .expand_multi_info(&[INFO, &len, tenant], &mut okm)
            .expect("32 bytes are within HKDF's limit of 255 hashes");
        Self(okm)
    }

    /// A commitment that was stored.
    pub fn from_bytes(bytes: [u8; COMMITMENT_LEN]) -> Self {
        Self(bytes)
    }

    /// What to store.
    pub fn as_bytes(&self) -> &[u8; COMMITMENT_LEN] {
        &self.0
    }

    /// The name of the data key that this commits to.
    pub fn dek_id(&self) -> DekId {
        let mut id = [0; DEK_ID_LEN];
        id.copy_from_slice(&self.0[..DEK_ID_LEN]);
        DekId(id)
    }
}

/// In constant time.
impl PartialEq for Commitment {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Names a data key in an envelope. Public; unique across tenants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DekId(pub [u8; DEK_ID_LEN]);

impl fmt::Debug for DekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_to_the_key_and_to_the_tenant() {
        let (a, b) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        assert!(Commitment::to(&a, b"acme") == Commitment::to(&a, b"acme"));
        assert!(Commitment::to(&a, b"acme") != Commitment::to(&b, b"acme"));
        assert!(Commitment::to(&a, b"acme") != Commitment::to(&a, b"acm"));
    }

    #[test]
    fn a_data_key_is_named_by_the_first_half_of_its_commitment() {
        let commitment = Commitment::from_bytes(std::array::from_fn(|i| i as u8));
        assert_eq!(commitment.as_bytes()[31], 31);
        let id = commitment.dek_id();
        assert_eq!(id.0, std::array::from_fn(|i| i as u8));
        assert_eq!(format!("{id:?}"), "000102030405060708090a0b0c0d0e0f");
    }
}
