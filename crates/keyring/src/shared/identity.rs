//! Ids of tenants and data keys in shared memory.

use crate::tenant::{DataKey, Tenant};
use cmk_kms::CustomerKey;
use sha2::{Digest, Sha256};

/// Drawn when the server starts. Without it, whoever may register tenants could choose a name whose
/// record takes the place of another tenant's.
#[derive(Clone, Copy, Debug)]
pub struct Salt(pub [u8; 16]);

/// Names a tenant of a database: a salted hash, so that no name lies in shared memory and nobody
/// can aim at another tenant's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TenantId(pub(super) [u8; 16]);

/// Names a data key with everything that vouches for it: tenant, epoch, customer key, commitment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fingerprint(pub(super) [u8; 32]);

/// Which tenant, as the caller's snapshot of the registry has it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The tenant.
    pub id: TenantId,
    /// PostgreSQL's object id of the database.
    pub database: u32,
    /// A hash of the customer managed key. Another one: what was known of the old key is forgotten.
    pub(super) customer_key: u64,
    /// Distinguishes what was unwrapped before `cmk.evict` from what came after.
    pub(super) epoch: u64,
}

impl Subject {
    /// `id` is the tenant's, made with this server's salt.
    pub fn new(id: TenantId, database: u32, tenant: &Tenant) -> Self {
        Self::with_key(id, database, &tenant.customer_key, tenant.epoch)
    }

    /// The same by what it takes of the tenant.
    pub fn with_key(id: TenantId, database: u32, key: &CustomerKey, epoch: i64) -> Self {
        let customer_key = first_word(&hash(&[key.uri().as_bytes(), key.options().as_bytes()]));
        Self { id, database, customer_key, epoch: epoch as u64 }
    }

    /// The name of one of the tenant's data keys.
    pub fn fingerprint(&self, data_key: &DataKey) -> Fingerprint {
        Fingerprint(hash(&[
            &self.id.0,
            &self.customer_key.to_be_bytes(),
            &self.epoch.to_be_bytes(),
            data_key.commitment.as_bytes(),
        ]))
    }
}

impl TenantId {
    /// `database` is PostgreSQL's object id of the database.
    pub fn new(salt: &Salt, database: u32, name: &str) -> Self {
        let hash = hash(&[&salt.0, &database.to_be_bytes(), name.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }
}

/// SHA-256 over length-prefixed parts.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The first 64 bits of a hash.
pub(super) fn first_word(hash: &[u8]) -> u64 {
    hash.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::process::data_key;

    fn tenant(uri: &str, options: &str, epoch: i64) -> Tenant {
        Tenant {
            name: "acme".into(),
            state: crate::tenant::TenantState::Active,
            epoch,
            customer_key: CustomerKey::parse(uri, options, 0).unwrap(),
            last_version: 0,
            data_keys: Vec::new(),
        }
    }

    #[test]
    fn a_data_key_is_named_by_everything_that_vouches_for_it() {
        let (key, id) = (data_key("acme", 1), TenantId([1; 16]));
        let subject = |id, uri, epoch| Subject::new(id, 5, &tenant(uri, "{}", epoch));
        let print = |of: &Subject, key| of.fingerprint(key);
        let one = subject(id, "local:k", 1);
        let original = print(&one, &key);
        assert_eq!(original, print(&subject(id, "local:k", 1), &key));
        for (other, other_key) in [
            (subject(TenantId([2; 16]), "local:k", 1), &key),
            (subject(id, "local:other", 1), &key),
            (subject(id, "local:k", 2), &key),
            (one, &data_key("acme", 2)),
        ] {
            assert_ne!(print(&other, other_key), original);
        }
        assert_eq!((one.id, one.database, one.epoch), (id, 5, 1));
    }

    #[test]
    fn parts_can_not_be_shifted_into_each_other() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"ab"]), hash(&[b"ab", b""]));
        assert_eq!(first_word(&[1, 2, 3, 4, 5, 6, 7, 0xFF, 9]), 0x0102_0304_0506_07FF);
    }
}
