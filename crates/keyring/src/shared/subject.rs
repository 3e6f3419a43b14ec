//! What a process and the others mean by "this tenant" and "this data key".

use crate::tenant::{DataKey, Tenant};
use sha2::{Digest, Sha256};

/// Names a tenant of a database: a hash, so that no name lies in shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TenantId(pub(super) [u8; 16]);

/// Names a data key with everything that vouches for it: tenant, epoch, custody, commitment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fingerprint(pub(super) [u8; 32]);

/// Which tenant, as the caller's snapshot of the registry has it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub id: TenantId,
    /// PostgreSQL's object id of the database.
    pub database: u32,
    /// Another custody is another key: what was known of the old one is forgotten.
    pub(super) custody: u64,
    /// Distinguishes what was unwrapped before `cmk.evict` from what came after.
    pub(super) epoch: u64,
}

impl Subject {
    pub fn new(database: u32, tenant: &Tenant) -> Self {
        let custody = hash(&[
            tenant.custody.key.to_string().as_bytes(),
            tenant.custody.role.as_ref().map_or("", |role| role.arn.as_str()).as_bytes(),
            tenant.custody.role.as_ref().map_or("", |role| role.external_id.as_str()).as_bytes(),
        ]);
        Self {
            id: TenantId::new(database, &tenant.name),
            database,
            custody: word(&custody),
            epoch: tenant.epoch as u64,
        }
    }

    pub fn fingerprint(&self, data_key: &DataKey) -> Fingerprint {
        Fingerprint(hash(&[
            &self.id.0,
            &self.custody.to_be_bytes(),
            &self.epoch.to_be_bytes(),
            data_key.commitment.as_bytes(),
        ]))
    }
}

impl TenantId {
    pub fn new(database: u32, name: &str) -> Self {
        let hash = hash(&[&database.to_be_bytes(), name.as_bytes()]);
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

pub(super) fn word(hash: &[u8]) -> u64 {
    hash.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}
