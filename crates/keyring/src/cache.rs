//! Unwrapped data keys of this process, with what was known when they were unwrapped.
//!
//! Pure storage: the keyring decides what to do. Bounded by a number of data keys; the least recently
//! used go first. A miss costs O(log n): two heaps say which data key was used, and unwrapped, longest
//! ago. They are as old as the last look; what has become younger since is put back where it belongs.
//! A guard of the map is never held while anything waits.

use crate::shared::tag::Tag;
use crate::tenant::{Grant, Role, Tenant};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::DekId;
use cmk_crypto::locked::Locked;
use cmk_error::{Error, Instant};
use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use foldhash::fast::RandomState;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Roles whose grants are remembered for a tenant; a pool that switches roles needs a few.
const GRANTS_MAX: usize = 64;

/// Tenants to look at for those without a data key, when there are too many.
const KEYLESS_TRIES: usize = 8;

/// What this process knows of tenants, and their data keys.
pub struct Cache {
    tenants: DashMap<Box<str>, Entry, RandomState>,
    queues: Mutex<Queues>,
    totals: Arc<Totals>,
    dropped_for_room: Counter,
    /// Entries of the queues, and tenants, that were looked at: what a miss costs.
    #[cfg(test)]
    looks: Counter,
}

/// Which data keys might go next. An entry stands for a data key that may have been used or renewed since,
/// or dropped.
#[derive(Default)]
struct Queues {
    by_use: BinaryHeap<Reverse<(u64, KeyName)>>,
    by_unwrap: BinaryHeap<Reverse<(Instant, KeyName)>>,
    tenants: VecDeque<Arc<str>>,
}

type KeyName = (Arc<str>, DekId);

/// What outlives the single data key.
#[derive(Default)]
struct Totals {
    data_keys: AtomicUsize,
    /// Hits of data keys that are gone, which were not flushed.
    unflushed: Mutex<HashMap<Tag, u64, RandomState>>,
}

/// All this process knows of one tenant.
pub struct Entry {
    /// The tenant as the registry has it.
    pub tenant: Arc<Tenant>,
    /// The generation that all of this was read at.
    pub generation: u64,
    /// That of the registry alone.
    pub registry: u64,
    /// By a brake: the registry doesn't say so yet.
    pub suspended: bool,
    /// A brake took something from `grants`.
    pub grants_reduced: bool,
    /// What roles may do, as far as it was asked.
    pub grants: Vec<(Role, Grant)>,
    /// Unwrapped data keys.
    pub keys: Vec<CachedKey>,
    /// At most one for the customer managed key, which spares asking the other processes, and one a data
    /// key.
    pub failures: Vec<Failure>,
}

/// An unwrapped data key.
pub struct CachedKey {
    /// Erased at its deadline even if nobody asks.
    pub cipher: Locked<Cipher>,
    /// Its name in envelopes.
    pub dek_id: DekId,
    /// Of the shared record that counts its hits.
    pub tag: Tag,
    /// Its version in the registry.
    pub version: i32,
    /// It seals new values.
    pub current: bool,
    /// When the unwrap *began*: KMS looked at the key's state no earlier.
    pub unwrapped_at: Counter,
    /// When to look for a younger copy.
    pub refresh_at: Counter,
    /// When a value was last sealed or opened under it.
    pub last_used: Counter,
    /// Values sealed or opened.
    pub hits: Counter,
    /// Hits that all processes know of.
    pub hits_flushed: Counter,
    totals: Arc<Totals>,
}

/// What a [`CachedKey`] is made of.
pub struct NewKey {
    /// As in [`CachedKey`], and so are the others.
    pub cipher: Locked<Cipher>,
    /// Its name in envelopes.
    pub dek_id: DekId,
    /// Of the shared record that counts its hits.
    pub tag: Tag,
    /// Its version in the registry.
    pub version: i32,
    /// It seals new values.
    pub current: bool,
    /// When the unwrap began.
    pub unwrapped_at: Instant,
    /// When to look for a younger copy.
    pub refresh_at: Instant,
}

/// A remembered failure, so that a dead key is not asked for once a row.
#[derive(Clone)]
pub struct Failure {
    /// `None`: the customer managed key failed; otherwise just this data key.
    pub dek_id: Option<DekId>,
    /// What the caller is told.
    pub error: Error,
    /// When to ask again.
    pub until: Instant,
}

/// A statistic. Only this process writes it, so an update needs no locked instruction.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Begins at `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Its present value.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.value() + n);
    }

    /// Gives it another value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl CachedKey {
    /// Hits since the last time; they count as flushed from now on.
    fn take_unflushed(&self) -> Option<(Tag, u64)> {
        let fresh = self.hits.value() - self.hits_flushed.value();
        self.hits_flushed.add(fresh);
        (fresh > 0).then_some((self.tag, fresh))
    }
}

impl Drop for CachedKey {
    fn drop(&mut self) {
        self.totals.data_keys.fetch_sub(1, Relaxed);
        if let Some((tag, hits)) = self.take_unflushed() {
            *lock(&self.totals.unflushed).entry(tag).or_default() += hits;
        }
    }
}

impl Entry {
    /// What `role` may do; `None` if it wasn't asked.
    #[inline]
    pub fn grant(&self, role: Role) -> Option<Grant> {
        self.grants.iter().find(|(of, _)| *of == role).map(|(_, grant)| *grant)
    }

    /// Remembers what `role` may do.
    pub fn put_grant(&mut self, role: Role, grant: Grant) {
        if self.grants.len() == GRANTS_MAX {
            self.grants.clear();
        }
        self.grants.push((role, grant));
    }

    /// After this data key was unwrapped: the customer managed key works, and so does this one.
    pub fn forget_failures(&mut self, unwrapped: DekId) {
        self.failures.retain(|failure| failure.dek_id.is_some_and(|of| of != unwrapped));
    }

    /// Remembers a failure in place of an older one.
    pub fn put_failure(&mut self, failure: Failure) {
        self.failures.retain(|old| old.dek_id != failure.dek_id);
        self.failures.push(failure);
    }

    fn key(&self, dek_id: DekId) -> Option<&CachedKey> {
        self.keys.iter().find(|key| key.dek_id == dek_id)
    }

    /// Takes over a newer snapshot and drops every data key that it doesn't vouch for.
    fn renew(&mut self, tenant: Arc<Tenant>, registry: u64) {
        let same_customer_key =
            tenant.epoch == self.tenant.epoch && tenant.customer_key == self.tenant.customer_key;
        if !same_customer_key || tenant.state.require_active().is_err() {
            self.keys.clear();
        }
        if !same_customer_key {
            self.failures.clear();
        }
        let current = tenant.current_data_key().ok().map(|row| row.commitment.dek_id());
        self.keys.retain_mut(|key| {
            let registered = tenant.data_key(key.dek_id).ok().filter(|row| row.wrapped.is_some());
            key.current = current == Some(key.dek_id);
            registered.is_some()
        });
        self.tenant = tenant;
        self.registry = registry;
        self.grants.clear();
    }
}

impl Cache {
    /// Empty.
    pub fn new() -> Self {
        Self {
            tenants: DashMap::with_hasher(RandomState::default()),
            queues: Mutex::default(),
            totals: Arc::default(),
            dropped_for_room: Counter::default(),
            #[cfg(test)]
            looks: Counter::default(),
        }
    }

    /// What is known of a tenant.
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
            None => self.drop_keyless_tenants(capacity),
        }
        lock(&self.queues).tenants.push_back((&*name).into());
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
        self.tidy();
    }

    /// Forgets a tenant.
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

    /// Puts a data key in, used `now`, after making room for it.
    pub fn put_key(&self, snapshot: &Arc<Tenant>, new: NewKey, now: Instant, capacity: usize) {
        self.update(snapshot, |entry| entry.keys.retain(|old| old.dek_id != new.dek_id));
        self.make_room(capacity.max(1) - 1);
        let mut queues = lock(&self.queues);
        self.update(snapshot, |entry| {
            let name: KeyName = ((&*snapshot.name).into(), new.dek_id);
            queues.by_use.push(Reverse((now, name.clone())));
            queues.by_unwrap.push(Reverse((new.unwrapped_at, name)));
            self.totals.data_keys.fetch_add(1, Relaxed);
            entry.keys.push(CachedKey {
                cipher: new.cipher,
                dek_id: new.dek_id,
                tag: new.tag,
                version: new.version,
                current: new.current,
                unwrapped_at: Counter::new(new.unwrapped_at),
                refresh_at: Counter::new(new.refresh_at),
                last_used: Counter::new(now),
                hits: Counter::default(),
                hits_flushed: Counter::default(),
                totals: self.totals.clone(),
            });
        });
        drop(queues);
        self.tidy();
    }

    /// Data keys held.
    pub fn len(&self) -> usize {
        self.totals.data_keys.load(Relaxed)
    }

    /// True if it holds no data key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Data keys dropped for room so far.
    pub fn dropped_for_room(&self) -> u64 {
        self.dropped_for_room.value()
    }

    /// Drops every data key unwrapped at `oldest` or before.
    pub fn expire(&self, oldest: Instant) {
        let mut queues = lock(&self.queues);
        while let Some(Reverse((at, _))) = queues.by_unwrap.peek()
            && *at <= oldest
        {
            let Some(Reverse((_, name))) = queues.by_unwrap.pop() else { return };
            let unwrapped_at = self.with_key(&name, |key| key.unwrapped_at.value());
            match unwrapped_at {
                Some(at) if at > oldest => queues.by_unwrap.push(Reverse((at, name))),
                Some(_) => self.drop_key(&name),
                None => {}
            }
        }
    }

    /// Drops everything; data keys are zeroed.
    pub fn clear(&self) {
        self.tenants.clear();
        *lock(&self.queues) = Queues::default();
    }

    /// Shows all entries.
    pub fn for_each(&self, mut visit: impl FnMut(&Entry)) {
        self.tenants.iter().for_each(|entry| visit(&entry));
    }

    /// Hits since the last time, by the tag of their data keys, those included that are gone.
    pub fn take_unflushed_hits(&self) -> Vec<(Tag, u64)> {
        let gone = std::mem::take(&mut *lock(&self.totals.unflushed));
        let mut hits: Vec<_> = gone.into_iter().collect();
        self.for_each(|entry| hits.extend(entry.keys.iter().filter_map(CachedKey::take_unflushed)));
        hits
    }

    fn with_key<R>(
        &self,
        (tenant, dek_id): &KeyName,
        look: impl FnOnce(&CachedKey) -> R,
    ) -> Option<R> {
        #[cfg(test)]
        self.looks.add(1);
        self.tenants.get(&**tenant)?.value().key(*dek_id).map(look)
    }

    fn drop_key(&self, (tenant, dek_id): &KeyName) {
        if let Some(mut entry) = self.tenants.get_mut(&**tenant) {
            entry.keys.retain(|key| key.dek_id != *dek_id);
        }
    }

    /// Drops the least recently used data keys until `most` are left.
    fn make_room(&self, most: usize) {
        if self.len() <= most {
            return;
        }
        let mut queues = lock(&self.queues);
        while self.len() > most
            && let Some(Reverse((at, name))) = queues.by_use.pop()
        {
            match self.with_key(&name, |key| key.last_used.value()) {
                Some(used) if used > at => queues.by_use.push(Reverse((used, name))),
                Some(_) => {
                    self.drop_key(&name);
                    self.dropped_for_room.add(1);
                }
                None => {}
            }
        }
    }

    /// Keeps the number of tenants known without a data key (denied, suspended, failing) bounded
    /// too. It drops several where it can: among many tenants with a data key it may find none for
    /// a while.
    fn drop_keyless_tenants(&self, capacity: usize) {
        let mut queues = lock(&self.queues);
        for _ in 0..KEYLESS_TRIES {
            if self.tenants.len() <= capacity.max(1) {
                return;
            }
            let Some(name) = queues.tenants.pop_front() else { return };
            #[cfg(test)]
            self.looks.add(1);
            match self.tenants.get(&*name).map(|entry| entry.keys.is_empty()) {
                Some(false) => queues.tenants.push_back(name),
                Some(true) => drop(self.tenants.remove(&*name)),
                None => {}
            }
        }
    }

    /// Makes the queues anew when most of what they name is gone.
    fn tidy(&self) {
        let (data_keys, tenants) = (self.len(), self.tenants.len());
        let mut queues = lock(&self.queues);
        let longest = queues.by_use.len().max(queues.by_unwrap.len());
        if longest <= 2 * data_keys + 64 && queues.tenants.len() <= 2 * tenants + 64 {
            return;
        }
        let mut fresh = Queues::default();
        self.for_each(|entry| {
            #[cfg(test)]
            self.looks.add(1 + entry.keys.len() as u64);
            let tenant: Arc<str> = (&*entry.tenant.name).into();
            fresh.tenants.push_back(tenant.clone());
            for key in &entry.keys {
                let name = (tenant.clone(), key.dek_id);
                fresh.by_use.push(Reverse((key.last_used.value(), name.clone())));
                fresh.by_unwrap.push(Reverse((key.unwrapped_at.value(), name)));
            }
        });
        *queues = fresh;
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

/// Nothing that holds such a lock can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
