//! The policy: from a tenant's name to a cipher, asking no one twice.
//!
//! Every call checks, in this order: the tenant is registered, the current role holds a grant, the
//! tenant is active, the data key is at hand and younger than the TTL. What is missing is fetched one
//! step at a time through [`Host`] with no guard held, and then everything is checked again, because
//! the registry may have changed while we waited.
//!
//! The TTL is the revocation bound: counted from the *start* of the unwrap, on a clock that never goes
//! back, whatever else fails. How data keys are fetched and kept young is in `fetch`, how KMS is
//! asked in `flight`.

mod fetch;
mod flight;
mod host;

pub use host::{Host, Policy};

use crate::cache::{Cache, CachedKey, Counter, Entry};
use crate::crypto::aead::Cipher;
use crate::crypto::commitment::DekId;
use crate::crypto::nonce::NonceSource;
use crate::envelope::{self, Envelope};
use crate::error::{Error, Reason, Result};
use crate::registry::{DataKey, DataKeyState, Permissions, Role, Tenant, check_tenant_name};
use crate::shared::Subject;
use std::cell::RefCell;
use std::sync::Arc;

/// Registry changes that one call follows before it gives up.
const MAX_STEPS: usize = 64;

/// Counters of this process.
#[derive(Default)]
pub struct Stats {
    pub hits: Counter,
    pub misses: Counter,
    pub kms_calls: Counter,
    pub kms_failures: Counter,
}

pub struct Keyring {
    cache: Cache,
    stats: Stats,
    /// Hits that all processes know of.
    hits_told: Counter,
}

/// Which data key a call is for.
#[derive(Clone, Copy)]
enum Wanted {
    Seal,
    Open(DekId),
    Warm(DekId),
}

/// What a call lacks.
enum Missing {
    Tenant,
    Permissions(Arc<Tenant>, Role),
    Key(Arc<Tenant>),
    /// The data key is good, but old.
    YoungerKey(Arc<Tenant>),
}

thread_local! {
    static NONCES: RefCell<NonceSource> = const { RefCell::new(NonceSource::new()) };
}

impl Wanted {
    /// # Errors
    /// `unknown_data_key`, `tenant_pending`; `tenant_shredded` for a data key that was destroyed, whatever is cached.
    fn pick(self, tenant: &Tenant) -> Result<&DataKey> {
        let data_key = match self {
            Self::Seal => tenant.current_data_key(),
            Self::Open(id) | Self::Warm(id) => tenant.data_key(id),
        }?;
        if data_key.wrapped.is_some() { Ok(data_key) } else { Err(Reason::TenantShredded.into()) }
    }

    #[inline]
    fn find(self, entry: &Entry) -> Option<&CachedKey> {
        match self {
            Self::Seal => entry.keys.iter().find(|key| key.current),
            Self::Open(id) | Self::Warm(id) => entry.keys.iter().find(|key| key.dek_id == id),
        }
    }

    #[inline]
    fn is_allowed(self, permissions: Permissions) -> bool {
        match self {
            Self::Seal => permissions.encrypt,
            Self::Open(_) => permissions.decrypt,
            Self::Warm(_) => permissions.encrypt || permissions.decrypt,
        }
    }
}

impl Keyring {
    pub fn new() -> Self {
        Self { cache: Cache::new(), stats: Stats::default(), hits_told: Counter::default() }
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Seals `plaintext` for `tenant` into `out`, which is [`envelope::OVERHEAD`] bytes longer.
    ///
    /// # Errors
    /// See the module's header for the order of checks.
    #[inline]
    pub fn seal(
        &self,
        host: &impl Host,
        tenant: &str,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        self.with_key(host, tenant, Wanted::Seal, |key, cipher| {
            NONCES.with_borrow_mut(|nonces| {
                let pid = host.process_id();
                envelope::seal(
                    cipher,
                    key.dek_id,
                    nonces,
                    pid,
                    tenant.as_bytes(),
                    aad,
                    plaintext,
                    out,
                )
            })
        })
    }

    /// Opens `envelope` into `out`, which stays untouched on failure.
    ///
    /// # Errors
    /// See the module's header; then `not_authentic`.
    #[inline]
    pub fn open(
        &self,
        host: &impl Host,
        tenant: &str,
        aad: &[u8],
        envelope: &Envelope<'_>,
        out: &mut [u8],
    ) -> Result<()> {
        self.with_key(host, tenant, Wanted::Open(envelope.dek_id()), |_, cipher| {
            envelope.open(cipher, tenant.as_bytes(), aad, out)
        })
    }

    /// Fetches every data key of a tenant that isn't at hand, and returns how many there are.
    ///
    /// # Errors
    /// As [`Keyring::open`], for the first data key that fails.
    pub fn warm(&self, host: &impl Host, name: &str) -> Result<usize> {
        if self.cache.get(name).is_none_or(|entry| entry.generation != host.generation()) {
            self.fetch_tenant(host, name)?;
        }
        let live = |key: &&DataKey| key.state != DataKeyState::Destroyed;
        let ids: Vec<_> = match self.cache.get(name) {
            Some(entry) => {
                let keys = entry.tenant.data_keys.iter().rev().filter(live);
                keys.map(|key| key.commitment.dek_id()).collect()
            }
            None => Vec::new(),
        };
        if ids.is_empty() {
            self.with_key(host, name, Wanted::Seal, |_, _| Ok(()))?;
        }
        for id in &ids {
            self.with_key(host, name, Wanted::Warm(*id), |_, _| Ok(()))?;
        }
        Ok(ids.len())
    }

    #[inline]
    fn with_key<R>(
        &self,
        host: &impl Host,
        name: &str,
        wanted: Wanted,
        use_key: impl FnOnce(&CachedKey, &Cipher) -> Result<R>,
    ) -> Result<R> {
        let mut use_key = Some(use_key);
        let mut waited = false;
        for _ in 0..MAX_STEPS {
            let missing = match self.check(host, name, wanted, waited, &mut use_key) {
                Ok(done) => return done.map_err(|error| error.for_tenant(name)),
                Err(missing) => missing,
            };
            waited |= matches!(missing, Missing::Key(_));
            self.fetch(host, name, wanted, missing)?;
        }
        Err(Error::new(Reason::TenantBusy).for_tenant(name))
    }

    /// Everything a cache hit does. `Err` says what to fetch before the next try.
    #[inline]
    fn check<R>(
        &self,
        host: &impl Host,
        name: &str,
        wanted: Wanted,
        waited: bool,
        use_key: &mut Option<impl FnOnce(&CachedKey, &Cipher) -> Result<R>>,
    ) -> Result<Result<R>, Missing> {
        let generation = host.generation();
        let Some(entry) = self.cache.get(name) else { return Err(Missing::Tenant) };
        if entry.generation != generation {
            return Err(Missing::Tenant);
        }
        let role = host.role();
        match entry.permissions(role) {
            Some(permissions) if wanted.is_allowed(permissions) => {}
            Some(_) => return Ok(Err(Reason::NoGrant.into())),
            None => return Err(Missing::Permissions(entry.tenant.clone(), role)),
        }
        // Whose query it is, too: a cursor may be fetched from by somebody else.
        for starter in host.starters().into_iter().flatten().filter(|starter| *starter != role) {
            match entry.permissions(starter) {
                Some(permissions) if wanted.is_allowed(permissions) => {}
                Some(_) => return Ok(Err(Reason::NoGrant.into())),
                None => return Err(Missing::Permissions(entry.tenant.clone(), starter)),
            }
        }
        if let Err(reason) = entry.tenant.state.require_active() {
            return Ok(Err(reason.into()));
        }
        if entry.suspended {
            return Ok(Err(Reason::TenantSuspended.into()));
        }
        let now = host.now();
        let live = |key: &&CachedKey| now < key.unwrapped_at.value() + host.ttl();
        let Some(key) = wanted.find(&entry).filter(live) else {
            return Err(Missing::Key(entry.tenant.clone()));
        };
        if now >= key.refresh_at.value() {
            return Err(Missing::YoungerKey(entry.tenant.clone()));
        }
        let Some(cipher) = key.cipher.pin() else {
            return Err(Missing::Key(entry.tenant.clone()));
        };
        if !waited {
            self.stats.hits.add(1);
            key.hits.add(1);
        }
        key.last_used.set(now);
        match use_key.take() {
            Some(use_key) => Ok(use_key(key, &cipher)),
            None => Ok(Err(Reason::TenantBusy.into())),
        }
    }

    #[cold]
    fn fetch(&self, host: &impl Host, name: &str, wanted: Wanted, missing: Missing) -> Result<()> {
        match missing {
            Missing::Tenant => self.fetch_tenant(host, name),
            Missing::Permissions(tenant, role) => {
                let permissions = host.permissions(role, name)?;
                self.cache.update(&tenant, |entry| entry.put_permissions(role, permissions));
                Ok(())
            }
            Missing::Key(tenant) => {
                self.fetch_key(host, &tenant, wanted).map_err(|error| error.for_tenant(name))
            }
            Missing::YoungerKey(tenant) => {
                self.refresh_key(host, &tenant, wanted);
                Ok(())
            }
        }
    }

    fn fetch_tenant(&self, host: &impl Host, name: &str) -> Result<()> {
        let policy = host.policy();
        // What the registry says may drop data keys, and their hits with them.
        self.tell_hits(host);
        self.cache.expire(host.now().saturating_sub(policy.ttl));
        // Before the read: a change during it then makes the entry stale, not wrong.
        let (generation, registry) = (host.generation(), host.registry_generation());
        let unchanged = self.cache.get(name).is_some_and(|entry| entry.registry == registry);
        // If the registry didn't change it isn't read: somebody may have it locked, and brakes are for that case.
        if !unchanged {
            let Some(tenant) = host.tenant(name)? else {
                self.cache.remove_tenant(name);
                check_tenant_name(name)?;
                return Err(Error::new(Reason::UnknownTenant).for_tenant(name));
            };
            self.cache.put_tenant(tenant, registry, policy.capacity);
        }
        if let Some(snapshot) = self.snapshot(name) {
            self.heed(host, &snapshot, generation);
        }
        Ok(())
    }

    /// Takes in what holds before the registry says so. Data keys that were unwrapped before the tenant's key was found
    /// revoked, or the tenant evicted, go.
    fn heed(&self, host: &impl Host, tenant: &Arc<Tenant>, generation: u64) {
        let (database, subject) = (host.database(), Subject::new(host.database(), tenant));
        let (not_before, suspended, reduced) = host.common(|shared| {
            let (id, not_before) = (&subject.id, shared.revoked_at(&subject.id));
            (not_before, shared.is_suspended(database, id), shared.reduces_grants(database, id))
        });
        self.cache.update(tenant, |entry: &mut Entry| {
            entry.keys.retain(|key| key.unwrapped_at.value() > not_before);
            if reduced || entry.grants_reduced {
                entry.grants.clear();
            }
            (entry.suspended, entry.grants_reduced) = (suspended, reduced);
            entry.generation = generation;
        });
    }

    fn snapshot(&self, name: &str) -> Option<Arc<Tenant>> {
        self.cache.get(name).map(|entry| entry.tenant.clone())
    }

    #[inline]
    pub fn has_untold_hits(&self) -> bool {
        self.hits_told.value() != self.stats.hits.value()
    }

    /// Adds this process's hits to what all processes know.
    pub fn tell_hits(&self, host: &impl Host) {
        if !self.has_untold_hits() || host.is_alone() {
            return;
        }
        self.hits_told.set(self.stats.hits.value());
        let mut told = Vec::new();
        self.cache.for_each(|entry| {
            for key in &entry.keys {
                let fresh = key.hits.value() - key.hits_told.value();
                if fresh > 0 {
                    key.hits_told.add(fresh);
                    told.push((key.tag, fresh));
                }
            }
        });
        let now = host.now();
        host.shared(|shared| shared.add_hits(&told, now));
    }
}

impl Default for Keyring {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
