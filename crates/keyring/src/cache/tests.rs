//! The cache alone: what it drops, what it keeps, and what that costs.

mod bounds;
mod entries;
mod order;

use super::*;
use crate::shared::identity::TenantId;
use crate::tenant::{DataKey, DataKeyState, TenantState};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::locked::Locked;
use cmk_kms::{CustomerKey, Purpose};

/// A cache, a clock that ticks with each data key, and room for so many.
struct Fixture {
    cache: Cache,
    now: Instant,
    capacity: usize,
}

fn fixture(capacity: usize) -> Fixture {
    Fixture { cache: Cache::new(), now: 1000, capacity }
}

/// With a data key of each of the given numbers.
fn tenant(name: &str, data_keys: &[u32]) -> Tenant {
    let data_key = |&number: &u32| DataKey {
        version: number as i32,
        purpose: Purpose::Values,
        state: DataKeyState::Retired,
        commitment: commitment(number),
        wrapped: Some([1].into()),
    };
    Tenant {
        name: name.into(),
        state: TenantState::Active,
        epoch: 0,
        customer_key: CustomerKey::parse("local:k", "{}", 0).unwrap(),
        last_version: data_keys.len() as i32,
        data_keys: data_keys.iter().map(data_key).collect(),
    }
}

fn commitment(number: u32) -> Commitment {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Commitment::from_bytes(bytes)
}

fn dek_id(number: u32) -> DekId {
    commitment(number).dek_id()
}

/// The number is in the tag too.
fn new_key(number: u32, unwrapped_at: Instant) -> NewKey {
    let dek = SecretKey::from_slice(&[1; 32]).unwrap();
    NewKey {
        ready: Ready::Values(Locked::new(Cipher::new(&dek), Instant::MAX, 0)),
        dek_id: dek_id(number),
        tag: Tag::new(number as usize, 1),
        version: 1,
        current: true,
        unwrapped_at,
        refresh_at: Instant::MAX,
    }
}

impl Fixture {
    fn register(&self, tenant: Tenant) {
        self.cache.put_tenant(tenant, TenantId::default(), 1, self.capacity);
    }

    /// Puts a data key in that was unwrapped now.
    fn put(&mut self, name: &str, number: u32) {
        self.now += 1;
        let snapshot = self.snapshot(name);
        self.cache.put_key(&snapshot, new_key(number, self.now), self.now, self.capacity);
    }

    /// A tenant of that number, and its only data key.
    fn miss(&mut self, number: u32) {
        let name = name_of(number);
        self.register(tenant(&name, &[number]));
        self.put(&name, number);
    }

    fn snapshot(&self, name: &str) -> Arc<Tenant> {
        self.cache.get(name).expect("a registered tenant").tenant.clone()
    }

    fn use_key(&mut self, name: &str, number: u32) {
        self.now += 1;
        let entry = self.cache.get(name).unwrap();
        entry.value().key(dek_id(number)).unwrap().last_used.set(self.now);
    }

    /// As the keyring counts them.
    fn count_hits(&self, name: &str, number: u32, hits: u64) {
        let entry = self.cache.get(name).unwrap();
        let key = entry.value().key(dek_id(number)).unwrap();
        if key.is_flushed() {
            self.cache.note_use(&entry.tenant, key.dek_id);
        }
        key.hits.add(hits);
    }

    fn has(&self, name: &str, number: u32) -> bool {
        self.cache.get(name).is_some_and(|entry| entry.value().key(dek_id(number)).is_some())
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        self.cache.update(&self.snapshot(name), change);
    }

    /// Entries of the queues: by use, by unwrap, tenants.
    fn queued(&self) -> [usize; 3] {
        let queues = lock(&self.cache.queues);
        [queues.by_use.len(), queues.by_unwrap.len(), queues.tenants.len()]
    }
}

fn name_of(number: u32) -> String {
    format!("tenant-{number}")
}
