//! Unwrapped data keys of this process, with what was known when they were unwrapped.
//!
//! Pure storage: [`keyring`](crate::keyring) decides what to do. Bounded by a number of data keys;
//! the least recently used go first. A guard of the map is never held while anything waits.

use crate::shared::Tag;
use crate::tenant::{Permissions, Role, Tenant};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::DekId;
use cmk_crypto::locked::Locked;
use cmk_error::{Error, Instant};
use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use foldhash::fast::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Roles whose permissions are remembered for a tenant; a pool that switches roles needs a few.
const GRANTS_MAX: usize = 64;

pub struct Cache {
    tenants: DashMap<Box<str>, Entry, RandomState>,
    evictions: Counter,
}

/// All this process knows of one tenant.
pub struct Entry {
    pub tenant: Arc<Tenant>,
    /// The generation that all of this was read at, and that of the registry alone.
    pub generation: u64,
    pub registry: u64,
    /// By a brake: the registry doesn't say so yet.
    pub suspended: bool,
    /// A brake took something from `grants`.
    pub grants_reduced: bool,
    pub grants: Vec<(Role, Permissions)>,
    pub keys: Vec<CachedKey>,
    /// At most one for the customer managed key, which spares asking the other processes, and one a data key.
    pub failures: Vec<Failure>,
}

pub struct CachedKey {
    /// Erased at its deadline even if nobody asks.
    pub cipher: Locked<Cipher>,
    pub dek_id: DekId,
    pub tag: Tag,
    pub version: i32,
    pub current: bool,
    /// When the unwrap *began*: KMS looked at the key's state no earlier.
    pub unwrapped_at: Counter,
    /// When to look for a younger copy.
    pub refresh_at: Counter,
    pub last_used: Counter,
    pub hits: Counter,
    /// Hits that all processes know of.
    pub hits_told: Counter,
}

/// A remembered failure, so that a dead key is not asked for once a row.
#[derive(Clone)]
pub struct Failure {
    /// `None`: the customer managed key failed; otherwise just this data key.
    pub dek_id: Option<DekId>,
    pub error: Error,
    pub until: Instant,
}

/// A statistic. Only this process writes it, so an update needs no locked instruction.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.value() + n);
    }

    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl Entry {
    #[inline]
    pub fn permissions(&self, role: Role) -> Option<Permissions> {
        self.grants.iter().find(|(of, _)| *of == role).map(|(_, permissions)| *permissions)
    }

    pub fn put_permissions(&mut self, role: Role, permissions: Permissions) {
        if self.grants.len() == GRANTS_MAX {
            self.grants.clear();
        }
        self.grants.push((role, permissions));
    }

    /// After this data key was unwrapped: the customer managed key works, and so does this one.
    pub fn forget_failures(&mut self, unwrapped: DekId) {
        self.failures.retain(|failure| failure.dek_id.is_some_and(|of| of != unwrapped));
    }

    pub fn put_failure(&mut self, failure: Failure) {
        self.failures.retain(|old| old.dek_id != failure.dek_id);
        self.failures.push(failure);
    }

    /// Takes over a newer snapshot and drops every data key that it doesn't vouch for.
    fn renew(&mut self, tenant: Arc<Tenant>, registry: u64) {
        let same_custody =
            tenant.epoch == self.tenant.epoch && tenant.custody == self.tenant.custody;
        if !same_custody || tenant.state.require_active().is_err() {
            self.keys.clear();
        }
        if !same_custody {
            self.failures.clear();
        }
        self.keys.retain_mut(|key| {
            let registered = tenant.data_key(key.dek_id).ok().filter(|row| row.wrapped.is_some());
            let current = tenant.current_data_key().ok();
            key.current = current.is_some_and(|row| row.commitment.dek_id() == key.dek_id);
            registered.is_some()
        });
        self.tenant = tenant;
        self.registry = registry;
        self.grants.clear();
    }
}

impl Cache {
    pub fn new() -> Self {
        Self {
            tenants: DashMap::with_hasher(RandomState::default()),
            evictions: Counter::default(),
        }
    }

    #[inline]
    pub fn get(&self, tenant: &str) -> Option<Ref<'_, Box<str>, Entry>> {
        self.tenants.get(tenant)
    }

    /// Records what the registry said at its generation `registry`.
    pub fn put_tenant(&self, tenant: Tenant, registry: u64, capacity: usize) {
        let tenant = Arc::new(tenant);
        let name = tenant.name.clone();
        match self.tenants.get_mut(&name) {
            Some(mut entry) => return entry.renew(tenant, registry),
            None => self.drop_a_keyless_tenant(capacity),
        }
        let entry = Entry {
            tenant,
            generation: 0,
            registry,
            suspended: false,
            grants_reduced: false,
            grants: Vec::new(),
            keys: Vec::new(),
            failures: Vec::new(),
        };
        self.tenants.insert(name, entry);
    }

    pub fn remove_tenant(&self, tenant: &str) {
        self.tenants.remove(tenant);
    }

    /// Changes an entry if it still holds the very snapshot that the caller decided by.
    pub fn update(&self, snapshot: &Arc<Tenant>, change: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.tenants.get_mut(&*snapshot.name)
            && Arc::ptr_eq(&entry.tenant, snapshot)
        {
            change(&mut entry);
        }
    }

    /// Puts a data key in, after making room for it.
    pub fn put_key(&self, snapshot: &Arc<Tenant>, key: CachedKey, capacity: usize) {
        self.update(snapshot, |entry| entry.keys.retain(|old| old.dek_id != key.dek_id));
        self.make_room(capacity.max(1) - 1);
        self.update(snapshot, |entry| entry.keys.push(key));
    }

    /// Data keys held.
    pub fn len(&self) -> usize {
        self.tenants.iter().map(|entry| entry.keys.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Data keys dropped for room so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.value()
    }

    /// Drops every data key unwrapped at `oldest` or before.
    pub fn expire(&self, oldest: Instant) {
        for mut entry in self.tenants.iter_mut() {
            entry.keys.retain(|key| key.unwrapped_at.value() > oldest);
        }
    }

    /// Drops everything; data keys are zeroed.
    pub fn clear(&self) {
        self.tenants.clear();
    }

    pub fn for_each(&self, mut visit: impl FnMut(&Entry)) {
        self.tenants.iter().for_each(|entry| visit(&entry));
    }

    /// Drops the least recently used data keys until `most` are left.
    fn make_room(&self, most: usize) {
        let surplus = self.len().saturating_sub(most);
        if surplus == 0 {
            return;
        }
        let mut by_age: Vec<(u64, Box<str>, DekId)> = Vec::new();
        for entry in self.tenants.iter() {
            let keys = entry.keys.iter();
            by_age.extend(keys.map(|key| (key.last_used.value(), entry.key().clone(), key.dek_id)));
        }
        by_age.sort_unstable();
        for (_, name, dek_id) in by_age.into_iter().take(surplus) {
            if let Some(mut entry) = self.tenants.get_mut(&name) {
                entry.keys.retain(|key| key.dek_id != dek_id);
                self.evictions.add(1);
            }
        }
    }

    /// Keeps the number of tenants known without a data key (denied, suspended, failing) bounded too.
    fn drop_a_keyless_tenant(&self, capacity: usize) {
        if self.tenants.len() > capacity.max(1) {
            let keyless = self.tenants.iter().find(|entry| entry.keys.is_empty());
            if let Some(name) = keyless.map(|entry| entry.key().clone()) {
                self.tenants.remove(&name);
            }
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}
