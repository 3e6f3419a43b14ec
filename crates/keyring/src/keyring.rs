//! A keyring, and everything that a cache hit does.

use crate::Host;
use crate::cache::{Cache, CachedKey, Counter, Entry};
use crate::tenant::{DataKey, Permissions, Role, Tenant};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::DekId;
use cmk_error::{Reason, Result};
use std::sync::Arc;

/// Counters of this process.
#[derive(Default)]
pub struct Stats {
    pub hits: Counter,
    pub misses: Counter,
    pub kms_calls: Counter,
    pub kms_failures: Counter,
}

pub struct Keyring {
    pub(crate) cache: Cache,
    pub(crate) stats: Stats,
    /// Hits that all processes know of.
    hits_told: Counter,
}

/// Which data key a call is for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Seal,
    Open(DekId),
    Warm(DekId),
}

/// What a call lacks.
pub(crate) enum Missing {
    Tenant,
    Permissions(Arc<Tenant>, Role),
    Key(Arc<Tenant>),
    /// The data key is good, but old.
    YoungerKey(Arc<Tenant>),
}

impl Wanted {
    /// # Errors
    /// `unknown_data_key`, `tenant_pending`; `tenant_shredded` for a data key that was destroyed, whatever is cached.
    pub(crate) fn pick(self, tenant: &Tenant) -> Result<&DataKey> {
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

    /// Everything a cache hit does. `Err` says what to fetch before the next try.
    #[inline]
    pub(crate) fn check<R>(
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
