//! What the keyring needs of the process it lives in.

use crate::shared::record::Change;
use crate::shared::{Awaited, Now, Rules, Shared, Tag};
use crate::tenant::{Permissions, Role, Tenant};
use cmk_error::{Error, Instant, Result};
use cmk_kms::Kms;
use std::time::Duration;

/// Only `tenant`, `permissions`, `kms` and `wait` may wait, and so unwind.
pub trait Host {
    /// Nanoseconds; see [`Instant`].
    fn now(&self) -> Instant;
    /// Microseconds since the Unix epoch, for people.
    fn wall_clock(&self) -> i64;
    fn process_id(&self) -> u32;
    fn database(&self) -> u32;
    /// The role on whose behalf the call is made.
    fn role(&self) -> Role;
    /// Other roles that need the rights too: those that the queries around the call were started as, as far as they
    /// are known and might be somebody else's.
    fn starters(&self) -> [Option<Role>; 2];
    /// Changes whenever the registry or a role membership may have changed, or something that holds before the registry
    /// says so: a key was found revoked, a tenant evicted, a [brake](crate::shared::brake) pulled or lifted.
    fn generation(&self) -> u64;
    /// Changes for the former only.
    fn registry_generation(&self) -> u64;
    fn policy(&self) -> Policy;
    /// That of the policy; asked for every value.
    fn ttl(&self) -> u64;
    fn tenant(&self, name: &str) -> Result<Option<Tenant>>;
    fn permissions(&self, role: Role, tenant: &str) -> Result<Permissions>;
    /// The provider, which gives up after `limit` if that is sooner than its own timeouts.
    fn kms(&self, limit: Option<Duration>) -> impl Kms;

    /// True while what this process sees is not yet everybody's: its transaction changed the registry.
    fn is_alone(&self) -> bool;
    /// Runs `work` on what the processes of the server know in common, under its lock; while this one is alone, on
    /// memory of its own.
    fn shared<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R;
    /// The same, but on what is known in common in any case.
    fn common<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R;
    /// Returns soon after another process's flight is over, whatever took off after it.
    fn wait(&self, flight: Awaited);
    /// The flight entered in a record is over.
    fn wake(&self, record: usize);
    /// This process holds one more copy of a data key of the record, until
    /// [`on_erase`](cmk_crypto::locked::on_erase) is told the tag that this returns.
    fn hold(&self, tag: Tag) -> Tag;
    /// Has [`erase_overdue`](cmk_crypto::locked::erase_overdue) called at that time, whatever this
    /// process does then.
    fn erase_at(&self, deadline: Instant);
    /// The state of a tenant's key changed.
    fn tell(&self, tenant: &str, change: Change, error: Option<&Error>);

    fn now_on_both(&self) -> Now {
        Now { instant: self.now(), wall: self.wall_clock() }
    }
}

/// The settings that bound the cache. Durations in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Hard TTL of a data key.
    pub ttl: u64,
    /// Age from which a data key is refreshed ahead of need, ± 10 %. Not below `ttl`: never.
    pub soft_ttl: u64,
    /// Longest that a refresh ahead of need may keep a query.
    pub refresh_wait: u64,
    /// How long a failure is remembered, ± 25 %.
    pub failure_ttl: u64,
    /// Longest that a KMS call takes.
    pub patience: u64,
    /// KMS calls a minute and tenant; 0: no limit.
    pub budget: u32,
    /// Data keys held at most.
    pub capacity: usize,
}

impl Policy {
    pub fn rules(&self) -> Rules {
        Rules {
            ttl: self.ttl,
            failure_ttl: self.failure_ttl,
            patience: self.patience,
            budget: self.budget,
        }
    }
}
