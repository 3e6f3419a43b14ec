//! `seal`, `open`, `warm`: check, fetch what is missing, check again. The checks:
//! [`Keyring::check`].
//!
//! Every call checks, in this order: the tenant is registered, the current role holds a grant, the
//! tenant is active, the data key is at hand and younger than the TTL. What is missing is fetched
//! one step at a time through [`Process`] with no guard held, and then everything is checked again,
//! because the registry may have changed while we waited.
//!
//! The TTL is the revocation bound: counted from the *start* of the unwrap, on a clock that never
//! goes back, whatever else fails.

use crate::cache::Entry;
use crate::keyring::{KeyInUse, Keyring, Missing, TokenFor, Wanted};
use crate::process::Process;
use crate::shared::brake;
use crate::shared::identity::TenantId;
use crate::tenant::{DataKey, DataKeyState, Tenant, check_tenant_name, index_key_id};
use cmk_crypto::commitment::DekId;
use cmk_crypto::nonce::Moment;
use cmk_crypto::run::InRuns;
use cmk_envelope::column::{self, ColumnBinding, ColumnEnvelope, ColumnTag, Token};
use cmk_envelope::{Binding, Envelope, seal};
use cmk_error::{Error, Instant, Reason, Result};
use std::sync::Arc;

/// Steps that a call takes before it gives up.
const MAX_STEPS: usize = 64;

/// When, and in which statement of the process, a value is sealed.
#[inline]
fn moment(process: &impl Process, now: Instant) -> Moment {
    Moment { pid: process.pid(), now, statement: process.statement() }
}

impl Keyring {
    /// Seals `plaintext` for `tenant` into `out`, which is [`cmk_envelope::OVERHEAD`] bytes longer.
    ///
    /// # Errors
    /// See the module's header for the order of checks.
    #[inline]
    pub fn seal(
        &self,
        process: &impl Process,
        tenant: &str,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        self.with_key(process, tenant, Wanted::Seal, |key, now| {
            let binding = Binding { tenant: tenant.as_bytes(), aad };
            let sealer = InRuns { cipher: key.ready.cipher()?, moment: moment(process, now) };
            seal(sealer, key.dek_id, &binding, plaintext, out)
        })
    }

    /// Opens `envelope` into `out`, which stays untouched on failure.
    ///
    /// # Errors
    /// See the module's header; then `not_authentic`.
    #[inline]
    pub fn open(
        &self,
        process: &impl Process,
        tenant: &str,
        aad: &[u8],
        envelope: &Envelope<'_>,
        out: &mut [u8],
    ) -> Result<()> {
        self.with_key(process, tenant, Wanted::Open(envelope.dek_id()), |key, _| {
            envelope.open(key.ready.cipher()?, &Binding { tenant: tenant.as_bytes(), aad }, out)
        })
    }

    /// Seals a value of a protected column for `tenant` into `out`, which is
    /// [`cmk_envelope::column::overhead`] bytes longer.
    ///
    /// # Errors
    /// See the module's header for the order of checks.
    #[inline]
    pub fn seal_column(
        &self,
        process: &impl Process,
        tenant: &str,
        binding: &ColumnBinding<'_>,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        self.with_key(process, tenant, Wanted::Seal, |key, now| {
            let sealer = InRuns { cipher: key.ready.cipher()?, moment: moment(process, now) };
            column::seal(sealer, key.dek_id, binding, plaintext, out)
        })
    }

    /// Opens a value of a protected column into `out`, which stays untouched on failure.
    ///
    /// # Errors
    /// See the module's header; then `not_authentic`.
    #[inline]
    pub fn open_column(
        &self,
        process: &impl Process,
        tenant: &str,
        envelope: &ColumnEnvelope<'_>,
        out: &mut [u8],
    ) -> Result<()> {
        self.with_key(process, tenant, Wanted::Open(envelope.dek_id()), |key, _| {
            envelope.open(key.ready.cipher()?, tenant.as_bytes(), out)
        })
    }

    /// What `look` sees of a tenant as the registry has it now, without a check of anything.
    ///
    /// # Errors
    /// `tenant_name`, `unknown_tenant`, `not_installed`; what `look` returns.
    pub fn look_at<R>(
        &self,
        process: &impl Process,
        name: &str,
        look: impl FnOnce(&Tenant) -> Result<R>,
    ) -> Result<R> {
        if self.cache.get(name).is_none_or(|entry| entry.generation != process.generation()) {
            self.fetch_tenant(process, name)?;
        }
        match self.cache.get(name) {
            Some(entry) => look(&entry.tenant),
            None => Err(Error::new(Reason::TenantBusy).for_tenant(name)),
        }
    }

    /// Checks everything that making a token for that purpose would, of a tenant that may have no
    /// index key: by the data key that seals now.
    ///
    /// # Errors
    /// See the module's header.
    pub fn require(&self, process: &impl Process, tenant: &str, purpose: TokenFor) -> Result<()> {
        let current = |tenant: &Tenant| Ok(tenant.current_data_key()?.commitment.dek_id());
        let current = self.look_at(process, tenant, current)?;
        self.with_key(process, tenant, Wanted::Token(current, purpose), |_, _| Ok(()))
    }

    /// The token of a normalized plaintext in a column, under one of the tenant's index keys, and
    /// until when it may be used: as long as the key might.
    ///
    /// # Errors
    /// See the module's header; `unknown_data_key`.
    #[inline]
    pub fn token(
        &self,
        process: &impl Process,
        tenant: &str,
        (index_key, purpose): (DekId, TokenFor),
        column: ColumnTag,
        normalized: &[u8],
    ) -> Result<(Token, Instant)> {
        self.with_key(process, tenant, Wanted::Token(index_key, purpose), |key, _| {
            let value = key.ready.token_key()?.token(&column.0, normalized);
            let until = key.unwrapped_at + process.ttl();
            Ok((Token { index_key: index_key_id(&index_key), value }, until))
        })
    }

    /// Does work that takes the keys which the registry says are in use. Once more, if one of them
    /// was destroyed between the look at the registry and the use, as by a replacement of an index
    /// key that is cancelled.
    ///
    /// # Errors
    /// Those of `work`.
    #[inline]
    pub fn with_keys_in_use<R>(
        &self,
        process: &impl Process,
        mut work: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        for _ in 1..MAX_STEPS {
            let before = process.registry_generation();
            match work() {
                Err(error) if error.reason == Reason::TenantShredded => {
                    let _ = process.generation();
                    if process.registry_generation() == before {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
        work()
    }

    /// Fetches every data key of a tenant that isn't at hand, and returns how many there are.
    ///
    /// # Errors
    /// As [`Keyring::open`], for the first data key that fails.
    pub fn warm(&self, process: &impl Process, name: &str) -> Result<usize> {
        self.with_keys_in_use(process, || {
            let live = |key: &&DataKey| key.state != DataKeyState::Destroyed;
            let ids: Vec<_> = self.look_at(process, name, |tenant| {
                let keys = tenant.data_keys.iter().rev().filter(live);
                Ok(keys.map(|key| key.commitment.dek_id()).collect())
            })?;
            if ids.is_empty() {
                self.with_key(process, name, Wanted::Seal, |_, _| Ok(()))?;
            }
            for id in &ids {
                self.with_key(process, name, Wanted::Warm(*id), |_, _| Ok(()))?;
            }
            Ok(ids.len())
        })
    }

    #[inline]
    fn with_key<R>(
        &self,
        process: &impl Process,
        name: &str,
        wanted: Wanted,
        mut use_key: impl FnMut(KeyInUse<'_>, Instant) -> Result<R>,
    ) -> Result<R> {
        let mut waited = false;
        for _ in 0..MAX_STEPS {
            let missing = match self.check(process, name, wanted, waited, &mut use_key) {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => return Err(error.for_tenant(name)),
                Err(missing) => missing,
            };
            waited |= matches!(missing, Missing::Key(_));
            self.fetch(process, name, wanted, missing)?;
        }
        Err(Error::new(Reason::TenantBusy).for_tenant(name))
    }

    #[cold]
    fn fetch(
        &self,
        process: &impl Process,
        name: &str,
        wanted: Wanted,
        missing: Missing,
    ) -> Result<()> {
        match missing {
            Missing::Tenant => self.fetch_tenant(process, name),
            Missing::Grant(tenant, role) => {
                let grant = process.grant(role, name)?;
                // Unless it was read under a brake that is lifted again by now.
                let generation = process.generation();
                self.cache.update(&tenant, |entry| {
                    if entry.generation == generation {
                        entry.put_grant(role, grant);
                    }
                });
                Ok(())
            }
            Missing::Key(tenant) => {
                self.fetch_key(process, &tenant, wanted).map_err(|error| error.for_tenant(name))
            }
            Missing::YoungerKey(tenant) => {
                self.refresh_key(process, &tenant, wanted);
                Ok(())
            }
        }
    }

    fn fetch_tenant(&self, process: &impl Process, name: &str) -> Result<()> {
        // Before the read: a change during it then makes the entry stale, not wrong.
        let (generation, registry) = (process.generation(), process.tenant_generation(name));
        let known = self.cache.get(name).filter(|entry| entry.registry == registry);
        let known = known.map(|entry| (entry.tenant.clone(), entry.id, entry.notices));
        // What the registry didn't change isn't read: somebody may have it locked, and brakes are
        // for that.
        let (snapshot, id, heeded) = match known {
            Some(known) => known,
            None => {
                let policy = process.policy();
                self.cache.expire(process.now().saturating_sub(policy.ttl));
                let Some(tenant) = process.tenant(name)? else {
                    self.cache.remove_tenant(name);
                    check_tenant_name(name)?;
                    return Err(Error::new(Reason::UnknownTenant).for_tenant(name));
                };
                let id = process.tenant_id(name);
                let snapshot = self.cache.put_tenant(tenant, id, registry, policy.capacity);
                (snapshot, id, None)
            }
        };
        let notices = process.notices_of(&id);
        if heeded != Some(notices) {
            self.heed_notices(process, &snapshot, &id, notices);
        }
        self.cache.update(&snapshot, |entry| entry.generation = generation);
        Ok(())
    }

    /// Takes in what holds before the registry says so. Data keys that were unwrapped before the
    /// tenant's key was found revoked, or the tenant evicted, go; remembered failures do, for the
    /// key may work again.
    fn heed_notices(
        &self,
        process: &impl Process,
        tenant: &Arc<Tenant>,
        id: &TenantId,
        notices: u64,
    ) {
        let database = process.database();
        let (not_before, suspended, reduced) = process.read_server_memory(|shared| {
            let not_before = shared.revoked_at(id);
            let suspended = brake::is_suspended(shared.brakes, database, id);
            (not_before, suspended, brake::reduces_grants(shared.brakes, database, id))
        });
        self.cache.update(tenant, |entry: &mut Entry| {
            entry.keys.retain(|key| key.unwrapped_at.value() > not_before);
            entry.failures.retain(|failure| failure.dek_id.is_some());
            if reduced || entry.grants_reduced {
                entry.grants.clear();
            }
            (entry.suspended, entry.grants_reduced) = (suspended, reduced);
            entry.notices = Some(notices);
        });
    }
}
