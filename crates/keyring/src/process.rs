//! What the keyring needs of the process it lives in.

use crate::policy::Policy;
use crate::shared::call::{AwaitedCall, CallPermit};
use crate::shared::history::Change;
use crate::shared::identity::{Subject, TenantId};
use crate::shared::now::Now;
use crate::shared::table::SharedKeyring;
use crate::shared::tag::Tag;
use crate::tenant::{Grant, Role, Tenant};
use cmk_error::{Error, Instant, Result};
use cmk_kms::Kms;
use std::time::Duration;

/// Only `tenant`, `grant`, `kms` and `wait` may block; an interrupt then unwinds out of them.
pub trait Process {
    /// Nanoseconds; see [`Instant`].
    fn now(&self) -> Instant;
    /// The same to a tick of the machine's clock, at most 10 ms late.
    fn tick(&self) -> Instant {
        self.now()
    }
    /// Microseconds since the Unix epoch, for people.
    fn wall_clock(&self) -> i64;
    /// The operating system's number of the process.
    fn pid(&self) -> u32;
    /// PostgreSQL's object id of the database.
    fn database(&self) -> u32;
    /// A number that differs from statement to statement of this process.
    fn statement(&self) -> u64;
    /// The role on whose behalf the call is made.
    fn role(&self) -> Role;
    /// Other roles that need the grant too: those that the queries around the call were started as,
    /// as far as they are known and might be somebody else's.
    fn starters(&self) -> [Option<Role>; 2];
    /// Lets the tenant through that the session names as its own; asked where a grant is bound to
    /// that.
    ///
    /// # Errors
    /// `tenant_mismatch`.
    fn require_session_tenant(&self, tenant: &str) -> Result<()>;
    /// Changes whenever the registry or a role membership may have changed, or something that holds
    /// before the registry says so: a key was found revoked or works again, a tenant was evicted, a
    /// [brake](crate::shared::brake) pulled or lifted.
    fn generation(&self) -> u64;
    /// Changes with the registry and role memberships only.
    fn registry_generation(&self) -> u64;
    /// The same, but not with what the registry says of other tenants alone.
    fn tenant_generation(&self, name: &str) -> u64;
    /// Changes with what holds of this tenant before the registry says so.
    fn notices_of(&self, tenant: &TenantId) -> u64;
    /// The settings.
    fn policy(&self) -> Policy;
    /// That of the policy; asked for every value.
    fn ttl(&self) -> u64;
    /// The tenant as the registry has it.
    ///
    /// # Errors
    /// `not_installed`, `registry_copied`, and what a damaged row is reported with.
    fn tenant(&self, name: &str) -> Result<Option<Tenant>>;
    /// What a role may do with a tenant's values.
    ///
    /// # Errors
    /// `not_installed`.
    fn grant(&self, role: Role, tenant: &str) -> Result<Grant>;
    /// The provider, which gives up after `limit` if that is sooner than its own timeouts.
    fn kms(&self, limit: Option<Duration>) -> impl Kms;

    /// True while what this process sees is not yet everybody's: its transaction changed the
    /// registry.
    fn has_uncommitted_registry_changes(&self) -> bool;
    /// Runs `work` on what the processes of the server know in common, under its lock.
    fn server_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R;
    /// Read-only, under a shared lock, so that others may look at the same time.
    fn read_server_memory<R>(&self, work: impl FnOnce(&SharedKeyring<'_>) -> R) -> R;
    /// The same as [`server_memory`](Self::server_memory), but on memory of this process alone
    /// while it has uncommitted changes of the registry: what it learns then is nobody else's.
    fn transaction_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R;
    /// The name of one of this database's tenants in shared memory.
    fn tenant_id(&self, name: &str) -> TenantId;

    /// This process began a KMS call in the server's memory. Should the process end before it is
    /// [closed](Self::call_closed), the call is to be abandoned.
    fn call_opened(&self, permit: CallPermit);
    /// The call is over, if it was opened.
    fn call_closed(&self, permit: &CallPermit);
    /// Returns soon after another process's call is over, whatever call began after it.
    fn wait(&self, call: AwaitedCall);
    /// The call entered in a record is over.
    fn wake(&self, record: usize);
    /// This process holds one more copy of a data key of the record, until
    /// [`on_erase`](cmk_crypto::locked::on_erase) is told the tag that this returns.
    fn hold(&self, tag: Tag) -> Tag;
    /// Has [`erase_overdue`](cmk_crypto::locked::erase_overdue) called at that time, whatever this
    /// process does then.
    fn erase_at(&self, deadline: Instant);
    /// A data key is to be renewed that no query waits for: has the renewer see to it.
    fn want_renewal(&self);
    /// KMS takes so many nanoseconds to answer, longer than a query may wait for a renewal. If it
    /// is handed over, no query waits; else one does, for as long as it takes.
    fn log_short_wait(&self, tenant: &str, latency: u64, is_handed_over: bool);
    /// The state of a tenant's key changed.
    fn log_state_change(&self, tenant: &str, change: Change, error: Option<&Error>);

    /// Now, on both clocks.
    fn now_on_both(&self) -> Now {
        Now { instant: self.now(), wall: self.wall_clock() }
    }

    /// The tenant as this process's snapshot of the registry has it.
    fn subject(&self, tenant: &Tenant) -> Subject {
        Subject::new(self.tenant_id(&tenant.name), self.database(), tenant)
    }
}
