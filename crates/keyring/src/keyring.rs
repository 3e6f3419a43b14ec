//! The checks of every call, in order: registered, granted, active, younger than the TTL.

use crate::cache::{Cache, CachedKey, Counter, Entry, InUse};
use crate::process::Process;
use crate::shared::limits::CHUNK;
use crate::tenant::{DataKey, Grant, Right, Role, Tenant};
use cmk_crypto::commitment::DekId;
use cmk_error::{Error, Instant, Reason, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Counters of this process.
#[derive(Default)]
pub struct Stats {
    /// Values sealed or opened under a data key that was at hand.
    pub hits: Counter,
    /// Values sealed.
    pub sealed: Counter,
    /// Times a data key had to be fetched.
    pub misses: Counter,
    /// Calls of KMS.
    pub kms_calls: Counter,
    /// Those of them that failed.
    pub kms_failures: Counter,
}

/// The data keys of one process, and how it gets more.
#[derive(Default)]
pub struct Keyring {
    pub(crate) cache: Cache,
    pub(crate) stats: Stats,
    /// Hits, and sealed values, that all processes know of.
    hits_flushed: Counter,
    sealed_flushed: Counter,
    /// The same of data keys dropped for want of room.
    drops_flushed: Counter,
}

/// The data key that a call works with.
pub(crate) struct KeyInUse<'a> {
    pub ready: &'a mut InUse,
    pub dek_id: DekId,
    pub unwrapped_at: Instant,
}

/// Which data key a call is for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Seal,
    Open(DekId),
    Warm(DekId),
    /// An index key, to make a token for that purpose.
    Token(DekId, TokenFor),
}

/// What a token is made for, which decides about the grant that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFor {
    /// To be stored beside a value that is sealed: the grant to encrypt.
    Sealing,
    /// To find values: the grant to decrypt.
    Searching,
    /// An application does with it what it likes: either grant.
    Either,
}

/// What a call lacks.
pub(crate) enum Missing {
    Tenant,
    Grant(Arc<Tenant>, Role),
    Key(Arc<Tenant>),
    /// The data key is good, but old.
    YoungerKey(Arc<Tenant>),
}

impl Wanted {
    /// What a role hears that has no grant for it.
    #[cold]
    fn refused(self) -> Error {
        Error::new(Reason::NoGrant).with_info(match self {
            Self::Seal | Self::Token(_, TokenFor::Sealing) => "needs=encrypt",
            Self::Open(_) | Self::Warm(_) | Self::Token(..) => "needs=decrypt",
        })
    }

    /// # Errors
    /// `unknown_data_key`, `tenant_pending`; `tenant_shredded` for a data key that was destroyed,
    /// whatever is cached.
    pub fn pick(self, tenant: &Tenant) -> Result<&DataKey> {
        let data_key = match self {
            Self::Seal => tenant.current_data_key(),
            Self::Open(id) => tenant.data_key(id),
            Self::Warm(id) | Self::Token(id, _) => tenant.any_key(id),
        }?;
        if data_key.wrapped.is_some() { Ok(data_key) } else { Err(Reason::TenantShredded.into()) }
    }

    #[inline]
    fn find(self, entry: &Entry) -> Option<&CachedKey> {
        match self {
            Self::Seal => entry.keys.iter().find(|key| key.current),
            Self::Open(id) | Self::Warm(id) | Self::Token(id, _) => {
                entry.keys.iter().find(|key| key.dek_id == id)
            }
        }
    }

    /// What a role needs for it.
    #[inline]
    fn right(self, grant: Grant) -> Right {
        match self {
            Self::Seal | Self::Token(_, TokenFor::Sealing) => grant.encrypt,
            Self::Open(_) | Self::Token(_, TokenFor::Searching) => grant.decrypt,
            Self::Warm(_) | Self::Token(_, TokenFor::Either) => grant.encrypt.max(grant.decrypt),
        }
    }

    /// # Errors
    /// `no_grant`, `tenant_mismatch`.
    #[inline]
    fn require(self, grant: Grant, process: &impl Process, tenant: &str) -> Result<()> {
        match self.right(grant) {
            Right::Always => Ok(()),
            right => self.require_bound(right, process, tenant),
        }
    }

    #[inline(never)]
    fn require_bound(self, right: Right, process: &impl Process, tenant: &str) -> Result<()> {
        match right {
            Right::Never => Err(self.refused()),
            _ => process.require_session_tenant(tenant),
        }
    }
}

impl Keyring {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What it counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Everything a cache hit does. `Err` says what to fetch before the next try.
    #[inline]
    pub(crate) fn check<R>(
        &self,
        process: &impl Process,
        name: &str,
        wanted: Wanted,
        waited: bool,
        use_key: &mut impl FnMut(KeyInUse<'_>, Instant) -> Result<R>,
    ) -> Result<Result<R>, Missing> {
        let generation = process.generation();
        let Some(entry) = self.cache.get(name) else { return Err(Missing::Tenant) };
        if entry.generation != generation {
            return Err(Missing::Tenant);
        }
        let role = process.role();
        let Some(grant) = entry.grant(role) else {
            return Err(Missing::Grant(entry.tenant.clone(), role));
        };
        if let Err(error) = wanted.require(grant, process, name) {
            return Ok(Err(error));
        }
        // Whose query it is, too: a cursor may be fetched from by somebody else.
        for starter in process.starters().into_iter().flatten().filter(|starter| *starter != role) {
            let Some(grant) = entry.grant(starter) else {
                return Err(Missing::Grant(entry.tenant.clone(), starter));
            };
            if let Err(error) = wanted.require(grant, process, name) {
                return Ok(Err(error));
            }
        }
        if let Err(reason) = entry.tenant.state.require_active() {
            return Ok(Err(reason.into()));
        }
        if entry.suspended {
            return Ok(Err(Reason::TenantSuspended.into()));
        }
        // What is sealed has the time in its nonce, and wants it exactly.
        let now = if matches!(wanted, Wanted::Seal) { process.now() } else { process.tick() };
        let live = |key: &&CachedKey| now < key.unwrapped_at.value() + process.ttl();
        let Some(key) = wanted.find(&entry).filter(live) else {
            return Err(Missing::Key(entry.tenant.clone()));
        };
        if now >= key.refresh_at.value() {
            return Err(Missing::YoungerKey(entry.tenant.clone()));
        }
        let Some(mut in_use) = key.ready.pin() else {
            return Err(Missing::Key(entry.tenant.clone()));
        };
        if key.is_flushed() {
            self.cache.note_use(&entry.tenant, key.dek_id);
        }
        if !waited {
            self.stats.hits.add(1);
            key.hits.add(1);
        }
        if matches!(wanted, Wanted::Seal) {
            self.stats.sealed.add(1);
            key.sealed.add(1);
        }
        key.last_used.set(now);
        let (dek_id, unwrapped_at) = (key.dek_id, key.unwrapped_at.value());
        // Before the cipher: letting go of a lock waits for everything that was written.
        drop(entry);
        Ok(use_key(KeyInUse { ready: &mut in_use, dek_id, unwrapped_at }, now))
    }

    /// Whether there are hits, sealed values, or data keys dropped for want of room, that the other
    /// processes don't know of.
    #[inline]
    pub fn has_unflushed_hits(&self) -> bool {
        self.hits_flushed.value() != self.stats.hits.value()
            || self.sealed_flushed.value() != self.stats.sealed.value()
            || self.drops_flushed.value() != self.cache.dropped_for_room()
    }

    /// Adds this process's hits, and what it sealed, to what all processes know.
    pub fn flush_hits(&self, process: &impl Process) {
        if !self.has_unflushed_hits() || process.has_uncommitted_registry_changes() {
            return;
        }
        let dropped = self.cache.dropped_for_room();
        let more = dropped - self.drops_flushed.value();
        self.drops_flushed.set(dropped);
        if more > 0 {
            process.read_server_memory(|shared| {
                shared.counters.dropped_for_room.fetch_add(more, Relaxed);
            });
        }
        self.hits_flushed.set(self.stats.hits.value());
        self.sealed_flushed.set(self.stats.sealed.value());
        let uses = self.cache.take_unflushed_uses();
        let now = process.now();
        for part in uses.chunks(CHUNK) {
            process.server_memory(|shared| shared.add_uses(part, now));
        }
    }
}
