//! What the cache has of one tenant, and of one data key.

use crate::shared::identity::TenantId;
use crate::shared::tag::Tag;
use crate::shared::uses::{Sealed, Uses};
use crate::tenant::{Grant, Role, Tenant};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::DekId;
use cmk_crypto::locked::{Locked, Pinned};
use cmk_crypto::token::TokenKey;
use cmk_error::{Error, Instant, Reason, Result};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Roles whose grants are remembered for a tenant; a pool that switches roles needs a few.
const GRANTS_MAX: usize = 64;

/// What outlives the single data key.
#[derive(Default)]
pub(super) struct Totals {
    pub data_keys: AtomicUsize,
    /// Uses of data keys that are gone, which were not flushed.
    pub unflushed: Mutex<HashMap<Tag, Uses, RandomState>>,
}

/// All this process knows of one tenant.
pub struct Entry {
    /// The tenant as the registry has it.
    pub tenant: Arc<Tenant>,
    /// The tenant's name in shared memory.
    pub id: TenantId,
    /// The generation at which all of this was known to hold.
    pub generation: u64,
    /// That of the tenant in the registry, when it was read.
    pub registry: u64,
    /// The tenant's notices that were taken in.
    pub notices: Option<u64>,
    /// By a brake: the registry doesn't say so yet.
    pub suspended: bool,
    /// A brake took something from `grants`.
    pub grants_reduced: bool,
    /// What roles may do, as far as it was asked.
    pub grants: Vec<(Role, Grant)>,
    /// Unwrapped data keys.
    pub keys: Vec<CachedKey>,
    /// At most one for the customer managed key, which spares asking the other processes, and one
    /// per data key.
    pub failures: Vec<Failure>,
}

/// An unwrapped data key.
pub struct CachedKey {
    /// Erased at its deadline even if nobody asks.
    pub ready: Ready,
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
    /// Values sealed, at hand or not, that not all processes know of.
    pub sealed: Counter,
    pub(super) totals: Arc<Totals>,
}

/// A data key, ready for what its purpose is.
pub enum Ready {
    /// It seals and opens values.
    Values(Locked<Cipher>),
    /// It makes tokens.
    Index(Locked<TokenKey>),
}

impl Ready {
    /// As [`Locked::pin`].
    #[inline]
    pub fn pin(&self) -> Option<InUse> {
        match self {
            Self::Values(cipher) => cipher.pin().map(InUse::Values),
            Self::Index(key) => key.pin().map(InUse::Index),
        }
    }

    /// As [`Locked::postpone`].
    pub fn postpone(&self, deadline: u64) {
        match self {
            Self::Values(cipher) => cipher.postpone(deadline),
            Self::Index(key) => key.postpone(deadline),
        }
    }
}

/// A data key while it is used.
pub enum InUse {
    /// It seals and opens values.
    Values(Pinned<Cipher>),
    /// It makes tokens.
    Index(Pinned<TokenKey>),
}

impl InUse {
    /// # Errors
    /// `unknown_data_key` of an index key: it opens nothing.
    #[inline]
    pub fn cipher(&mut self) -> Result<&mut Pinned<Cipher>> {
        match self {
            Self::Values(cipher) => Ok(cipher),
            Self::Index(_) => Err(Reason::UnknownDataKey.into()),
        }
    }

    /// # Errors
    /// `unknown_data_key` of a data key for values.
    #[inline]
    pub fn token_key(&self) -> Result<&TokenKey> {
        match self {
            Self::Index(key) => Ok(key),
            Self::Values(_) => Err(Reason::UnknownDataKey.into()),
        }
    }
}

/// What a [`CachedKey`] is made of.
pub struct NewKey {
    /// As in [`CachedKey`], and so are the others.
    pub ready: Ready,
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

/// A remembered failure, so that a dead key is not asked for once per row.
#[derive(Clone)]
pub struct Failure {
    /// `None`: the customer managed key failed; otherwise just this data key.
    pub dek_id: Option<DekId>,
    /// What the caller is told.
    pub error: Error,
    /// When to ask again.
    pub until: Instant,
}

/// A number that only this process writes, counts and times, so that an update needs no locked
/// instruction.
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
    /// Whether there is nothing for [`take_unflushed`](Self::take_unflushed).
    #[inline]
    pub(crate) fn is_flushed(&self) -> bool {
        self.hits.value() == self.hits_flushed.value() && self.sealed.value() == 0
    }

    /// Uses since the last time; they count as flushed from now on.
    pub(super) fn take_unflushed(&self) -> Option<(Tag, Uses)> {
        let (hits, values) = (self.hits.value() - self.hits_flushed.value(), self.sealed.value());
        self.hits_flushed.add(hits);
        self.sealed.set(0);
        let version = if values > 0 { self.version } else { 0 };
        let uses = Uses { hits, sealed: Sealed { values, version } };
        (!uses.is_empty()).then_some((self.tag, uses))
    }
}

impl Drop for CachedKey {
    fn drop(&mut self) {
        self.totals.data_keys.fetch_sub(1, Relaxed);
        if let Some((tag, uses)) = self.take_unflushed() {
            lock(&self.totals.unflushed).entry(tag).or_default().add(uses);
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

    pub(super) fn key(&self, dek_id: DekId) -> Option<&CachedKey> {
        self.keys.iter().find(|key| key.dek_id == dek_id)
    }

    /// Takes over a newer snapshot and drops every data key that it doesn't vouch for. Notices are
    /// yet to be looked at.
    pub(super) fn renew(&mut self, tenant: Arc<Tenant>, registry: u64) {
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
            let registered = tenant.any_key(key.dek_id).ok().filter(|row| row.wrapped.is_some());
            key.current = current == Some(key.dek_id);
            registered.is_some()
        });
        self.tenant = tenant;
        self.registry = registry;
        self.notices = None;
        self.grants.clear();
    }
}

/// Nothing that holds such a lock can panic half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
