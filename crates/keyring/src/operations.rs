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

use crate::Host;
use crate::cache::CachedKey;
use crate::cache::Entry;
use crate::keyring::{Keyring, Missing, Wanted};
use crate::shared::Subject;
use crate::tenant::{DataKey, DataKeyState, Tenant, check_tenant_name};
use cmk_crypto::aead::Cipher;
use cmk_crypto::nonce::NonceSource;
use cmk_envelope::Envelope;
use cmk_error::{Error, Reason, Result};
use std::cell::RefCell;
use std::sync::Arc;

/// Registry changes that one call follows before it gives up.
const MAX_STEPS: usize = 64;

thread_local! {
    static NONCES: RefCell<NonceSource> = const { RefCell::new(NonceSource::new()) };
}

impl Keyring {
    /// Seals `plaintext` for `tenant` into `out`, which is [`cmk_envelope::OVERHEAD`] bytes longer.
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
                cmk_envelope::seal(
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
}
