//! Unwrapped data keys of this process, with what was known when they were unwrapped.
//!
//! Pure storage: the keyring decides what to do. Bounded by a number of data keys; the least
//! recently used go first. A miss costs O(log n): two heaps say which data key was used, and
//! unwrapped, longest ago. The heaps are updated lazily: an entry that turns out younger is pushed
//! back. A guard of the map is never held while anything waits.

mod entry;
#[cfg(test)]
mod tests;

pub use entry::{CachedKey, Counter, Entry, Failure, InUse, NewKey, Ready};

use crate::shared::identity::TenantId;
use crate::shared::tag::Tag;
use crate::shared::uses::Uses;
use crate::tenant::Tenant;
use cmk_crypto::commitment::DekId;
use cmk_error::Instant;
use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use entry::{Totals, lock};
use foldhash::fast::RandomState;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// Tenants to look at for those without a data key, when there are too many.
const KEYLESS_TRIES: usize = 8;

/// What this process knows of tenants, and their data keys.
pub struct Cache {
    tenants: DashMap<Box<str>, Entry, RandomState>,
    queues: Mutex<Queues>,
    totals: Arc<Totals>,
    /// The tenants of data keys that were used since their uses were flushed, and of some that are
    /// gone: a flush looks at no others.
    used: Mutex<HashMap<DekId, Arc<Tenant>, RandomState>>,
    dropped_for_room: Counter,
    /// Entries of the queues, and tenants, that were looked at: what a miss costs.
    #[cfg(test)]
    looks: Counter,
}

/// Which data keys might go next. An entry stands for a data key that may have been used or renewed
/// since, or dropped.
#[derive(Default)]
struct Queues {
    by_use: BinaryHeap<Reverse<(u64, KeyName)>>,
    by_unwrap: BinaryHeap<Reverse<(Instant, KeyName)>>,
    tenants: VecDeque<Arc<str>>,
}

type KeyName = (Arc<str>, DekId);

impl Cache {
    /// Empty.
    pub fn new() -> Self {
        Self {
            tenants: DashMap::with_hasher(RandomState::default()),
            queues: Mutex::default(),
            totals: Arc::default(),
            used: Mutex::default(),
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

    /// Records what the registry said of a tenant at its generation `registry`.
    pub fn put_tenant(
        &self,
        tenant: Tenant,
        id: TenantId,
        registry: u64,
        capacity: usize,
    ) -> Arc<Tenant> {
        let tenant = Arc::new(tenant);
        let (name, snapshot) = (tenant.name.clone(), tenant.clone());
        match self.tenants.get_mut(&name) {
            Some(mut entry) => {
                entry.renew(tenant, registry);
                return snapshot;
            }
            None => self.drop_keyless_tenants(capacity),
        }
        lock(&self.queues).tenants.push_back((&*name).into());
        let entry = Entry {
            tenant,
            id,
            generation: 0,
            registry,
            notices: None,
            suspended: false,
            grants_reduced: false,
            grants: Vec::new(),
            keys: Vec::new(),
            failures: Vec::new(),
        };
        self.tenants.insert(name, entry);
        self.tidy();
        snapshot
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
                ready: new.ready,
                dek_id: new.dek_id,
                tag: new.tag,
                version: new.version,
                current: new.current,
                unwrapped_at: Counter::new(new.unwrapped_at),
                refresh_at: Counter::new(new.refresh_at),
                last_used: Counter::new(now),
                hits: Counter::default(),
                hits_flushed: Counter::default(),
                sealed: Counter::default(),
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
            let unwrapped_at = self.with_key(&name.0, name.1, |key| key.unwrapped_at.value());
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

    /// A data key is about to be used for the first time since its uses were flushed.
    #[cold]
    pub(crate) fn note_use(&self, tenant: &Arc<Tenant>, dek_id: DekId) {
        let mut used = lock(&self.used);
        used.insert(dek_id, tenant.clone());
        if used.len() > 2 * self.len() + 64 {
            used.retain(|dek_id, tenant| self.with_key(&tenant.name, *dek_id, |_| ()).is_some());
        }
    }

    /// Uses since the last time, by the tag of their data keys, those included that are gone.
    pub fn take_unflushed_uses(&self) -> Vec<(Tag, Uses)> {
        let used = std::mem::take(&mut *lock(&self.used));
        let used = used.iter().filter_map(|(dek_id, tenant)| {
            self.with_key(&tenant.name, *dek_id, CachedKey::take_unflushed).flatten()
        });
        let used: Vec<_> = used.collect();
        let gone = std::mem::take(&mut *lock(&self.totals.unflushed));
        gone.into_iter().chain(used).collect()
    }

    fn with_key<R>(
        &self,
        tenant: &str,
        dek_id: DekId,
        look: impl FnOnce(&CachedKey) -> R,
    ) -> Option<R> {
        #[cfg(test)]
        self.looks.add(1);
        self.tenants.get(tenant)?.value().key(dek_id).map(look)
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
            match self.with_key(&name.0, name.1, |key| key.last_used.value()) {
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
