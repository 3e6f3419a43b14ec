//! The policy: from a tenant's name to a cipher, asking no one twice.
//!
//! Every call checks, in this order: the tenant is registered, the current role holds a grant, the
//! tenant is active, the data key is at hand and younger than the TTL. What is missing is fetched one
//! step at a time through [`Host`] with no guard held, and then everything is checked again, because
//! the registry may have changed while we waited.
//!
//! The TTL is the revocation bound: counted from the *start* of the unwrap, on a clock that never goes
//! back, whatever else fails.

use crate::cache::{Cache, CachedKey, Counter, Entry, Failure, Instant};
use crate::crypto::aead::Cipher;
use crate::crypto::commitment::{Commitment, DekId};
use crate::crypto::key::SecretKey;
use crate::crypto::locked::{Locked, scrub_stack};
use crate::crypto::nonce::NonceSource;
use crate::envelope::{self, Envelope};
use crate::error::{Error, KeyState, Reason, Result};
use crate::kms::Kms;
use crate::kms::context::EncryptionContext;
use crate::registry::{DataKey, Permissions, Role, Tenant, check_tenant_name};
use std::cell::RefCell;
use std::sync::Arc;

/// Registry changes that one call follows before it gives up.
const MAX_STEPS: usize = 64;

/// What the keyring needs of the process it lives in. Only `tenant`, `permissions` and `kms` may wait.
pub trait Host {
    /// Nanoseconds; see [`Instant`].
    fn now(&self) -> Instant;
    fn process_id(&self) -> u32;
    /// The role on whose behalf the call is made.
    fn role(&self) -> Role;
    /// Changes whenever the registry or a role membership may have changed.
    fn generation(&self) -> u64;
    fn policy(&self) -> Policy;
    fn tenant(&self, name: &str) -> Result<Option<Tenant>>;
    fn permissions(&self, role: Role, tenant: &str) -> Result<Permissions>;
    fn kms(&self) -> impl Kms;
}

/// The settings that bound the cache.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Hard TTL of a data key, in nanoseconds.
    pub ttl: u64,
    /// How long a failure is remembered, ± 25 %, in nanoseconds.
    pub failure_ttl: u64,
    /// Data keys held at most.
    pub capacity: usize,
}

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
}

/// Which data key a call is for.
#[derive(Clone, Copy)]
enum Wanted {
    ToSeal,
    ToOpen(DekId),
}

/// What a call lacks.
enum Missing {
    Tenant,
    Permissions(Arc<Tenant>),
    Key(Arc<Tenant>),
}

thread_local! {
    static NONCES: RefCell<NonceSource> = const { RefCell::new(NonceSource::new()) };
}

impl Wanted {
    fn pick(self, tenant: &Tenant) -> Result<&DataKey> {
        match self {
            Self::ToSeal => tenant.current_data_key(),
            Self::ToOpen(id) => tenant.data_key(id),
        }
    }

    #[inline]
    fn find(self, entry: &Entry) -> Option<&CachedKey> {
        match self {
            Self::ToSeal => entry.keys.iter().find(|key| key.current),
            Self::ToOpen(id) => entry.keys.iter().find(|key| key.dek_id == id),
        }
    }

    #[inline]
    fn is_allowed(self, permissions: Permissions) -> bool {
        match self {
            Self::ToSeal => permissions.encrypt,
            Self::ToOpen(_) => permissions.decrypt,
        }
    }
}

impl Keyring {
    pub fn new() -> Self {
        Self { cache: Cache::new(), stats: Stats::default() }
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
        self.with_key(host, tenant, Wanted::ToSeal, |key| {
            NONCES.with_borrow_mut(|nonces| {
                let pid = host.process_id();
                envelope::seal(
                    &key.cipher,
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
        self.with_key(host, tenant, Wanted::ToOpen(envelope.dek_id()), |key| {
            envelope.open(&key.cipher, tenant.as_bytes(), aad, out)
        })
    }

    #[inline]
    fn with_key<R>(
        &self,
        host: &impl Host,
        name: &str,
        wanted: Wanted,
        use_key: impl FnOnce(&CachedKey) -> Result<R>,
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
        use_key: &mut Option<impl FnOnce(&CachedKey) -> Result<R>>,
    ) -> Result<Result<R>, Missing> {
        let generation = host.generation();
        let Some(entry) = self.cache.get(name) else { return Err(Missing::Tenant) };
        if entry.generation != generation {
            return Err(Missing::Tenant);
        }
        let Some(permissions) = entry.permissions(host.role()) else {
            return Err(Missing::Permissions(entry.tenant.clone()));
        };
        if !wanted.is_allowed(permissions) {
            return Ok(Err(Reason::NoGrant.into()));
        }
        if let Err(reason) = entry.tenant.state.require_active() {
            return Ok(Err(reason.into()));
        }
        let now = host.now();
        let live = |key: &&CachedKey| now < key.unwrapped_at + host.policy().ttl;
        let Some(key) = wanted.find(&entry).filter(live) else {
            return Err(Missing::Key(entry.tenant.clone()));
        };
        if !waited {
            self.stats.hits.add(1);
            key.hits.add(1);
        }
        key.last_used.set(now);
        match use_key.take() {
            Some(use_key) => Ok(use_key(key)),
            None => Ok(Err(Reason::TenantBusy.into())),
        }
    }

    #[cold]
    fn fetch(&self, host: &impl Host, name: &str, wanted: Wanted, missing: Missing) -> Result<()> {
        match missing {
            Missing::Tenant => self.fetch_tenant(host, name),
            Missing::Permissions(tenant) => {
                let role = host.role();
                let permissions = host.permissions(role, name)?;
                self.cache.update(&tenant, |entry| entry.put_permissions(role, permissions));
                Ok(())
            }
            Missing::Key(tenant) => {
                self.fetch_key(host, &tenant, wanted).map_err(|error| error.for_tenant(name))
            }
        }
    }

    fn fetch_tenant(&self, host: &impl Host, name: &str) -> Result<()> {
        let policy = host.policy();
        self.cache.expire(host.now().saturating_sub(policy.ttl));
        // Before the read: a change during it then makes the entry stale, not wrong.
        let generation = host.generation();
        match host.tenant(name)? {
            Some(tenant) => self.cache.put_tenant(tenant, generation, policy.capacity),
            None => {
                self.cache.remove_tenant(name);
                check_tenant_name(name)?;
                return Err(Error::new(Reason::UnknownTenant).for_tenant(name));
            }
        }
        Ok(())
    }

    fn fetch_key(&self, host: &impl Host, tenant: &Arc<Tenant>, wanted: Wanted) -> Result<()> {
        let policy = host.policy();
        let data_key = wanted.pick(tenant)?;
        let dek_id = data_key.commitment.dek_id();
        self.check_failure(&tenant.name, dek_id, host.now())?;

        self.stats.misses.add(1);
        let unwrapped_at = host.now();
        let unwrapped = self.unwrap_and_expand(host, tenant, data_key);
        scrub_stack();
        let now = host.now();
        // An answer older than the TTL may not be used; asking again would only bring another.
        let unwrapped = unwrapped.and_then(|cipher| match now - unwrapped_at < policy.ttl {
            true => Ok(cipher),
            false => Err(Reason::KmsTimeout.into()),
        });
        match unwrapped {
            Ok(cipher) => {
                let key = CachedKey {
                    cipher,
                    dek_id,
                    version: data_key.version,
                    current: tenant.current_data_key().is_ok_and(|current| current == data_key),
                    unwrapped_at,
                    last_used: Counter::default(),
                    hits: Counter::default(),
                };
                key.last_used.set(now);
                self.cache.expire(now.saturating_sub(policy.ttl));
                self.cache.put_key(tenant, key, policy.capacity);
                self.cache.update(tenant, |entry| entry.forget_failures(dek_id));
                Ok(())
            }
            Err(error) => {
                self.remember(tenant, dek_id, &error, now + jittered(policy.failure_ttl));
                Err(error)
            }
        }
    }

    /// In a frame of its own, which [`scrub_stack`] can overwrite.
    #[inline(never)]
    fn unwrap_and_expand(
        &self,
        host: &impl Host,
        tenant: &Tenant,
        data_key: &DataKey,
    ) -> Result<Locked<Cipher>> {
        self.unwrap(host, tenant, data_key).map(|dek| Locked::new(Cipher::new(&dek)))
    }

    /// Unwraps a data key and checks that it is the registered one.
    pub fn unwrap(
        &self,
        host: &impl Host,
        tenant: &Tenant,
        data_key: &DataKey,
    ) -> Result<SecretKey> {
        let wrapped = data_key.wrapped.as_deref().ok_or(Reason::TenantShredded)?;
        let context = EncryptionContext::data_key(&tenant.name);
        let dek = self.call_kms(|| host.kms().unwrap(&tenant.custody, wrapped, &context))?;
        if Commitment::to(&dek, tenant.name.as_bytes()) == data_key.commitment {
            Ok(dek)
        } else {
            Err(Reason::CommitmentMismatch.into())
        }
    }

    /// Counts a call of a key provider.
    pub fn call_kms<R>(&self, call: impl FnOnce() -> Result<R>) -> Result<R> {
        self.stats.kms_calls.add(1);
        call().inspect_err(|_| self.stats.kms_failures.add(1))
    }

    fn check_failure(&self, name: &str, dek_id: DekId, now: Instant) -> Result<()> {
        let entry = self.cache.get(name);
        let failures = entry.iter().flat_map(|entry| &entry.failures);
        let concerns = |of: &Failure| now < of.until && of.dek_id.is_none_or(|of| of == dek_id);
        match failures.into_iter().find(|failure| concerns(failure)) {
            Some(failure) => Err(failure.error.clone()),
            None => Ok(()),
        }
    }

    /// A revoked key takes all its data keys with it; any other failure leaves them to their TTL.
    fn remember(&self, tenant: &Arc<Tenant>, dek_id: DekId, error: &Error, until: Instant) {
        let state = error.reason.key_state();
        self.cache.update(tenant, |entry| {
            if state == Some(KeyState::Revoked) {
                entry.keys.clear();
            }
            let dek_id = state.is_none().then_some(dek_id);
            entry.failures.retain(|failure| failure.dek_id != dek_id);
            entry.failures.push(Failure { dek_id, error: error.clone(), until });
        });
    }
}

impl Default for Keyring {
    fn default() -> Self {
        Self::new()
    }
}

/// `nanos` ± 25 %, so that many processes don't come back at once.
fn jittered(nanos: u64) -> u64 {
    let random = u128::from(getrandom::u32().unwrap_or(u32::MAX / 2));
    nanos - nanos / 4 + ((u128::from(nanos / 2) * random) >> 32) as u64
}

#[cfg(test)]
#[path = "keyring/tests.rs"]
mod tests;
