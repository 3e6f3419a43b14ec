//! This backend: its keyring, and what the keyring asks of it.

use super::interrupt::{self, WaitEvent};
use super::report::IntoSql;
use super::role::current_role;
use super::{brake, clock, executor, expiry, invalidation, registry, report, settings, shmem};
use cmk_crypto::key::SecretKey;
use cmk_error::Instant;
use cmk_error::{Error, Reason, Result};
use cmk_keyring::shared::record::Change;
use cmk_keyring::shared::{Awaited, Shared, Tag};
use cmk_keyring::tenant::{Permissions, Role, Tenant};
use cmk_keyring::{Host, Keyring, Policy};
use cmk_kms::aws::{AwsKms, Clients};
use cmk_kms::context::EncryptionContext;
use cmk_kms::key_uri::KeyUri;
use cmk_kms::{Custody, KeyFacts, Kms};
use once_cell::sync::Lazy;
use pgrx::{pg_guard, pg_sys};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Made on first use, so never in the postmaster.
static KEYRING: Lazy<Keyring> = Lazy::new(|| {
    // SAFETY: on the main thread of a backend; the callback takes no argument.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0_usize)) };
    Keyring::new()
});

static CLIENTS: Lazy<Clients> = Lazy::new(Clients::default);

/// Least time between two additions of this process's hits to what all processes know.
const TELL_EVERY: u64 = 500_000_000;

pub fn keyring() -> &'static Keyring {
    &KEYRING
}

/// Once per process, or in the postmaster for all its children.
pub fn register_callbacks() {
    brake::register_callbacks();
    // SAFETY: called from _PG_init on the main thread.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction_end), std::ptr::null_mut());
    }
}

#[pg_guard]
extern "C-unwind" fn on_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    match event {
        _ if !brake::is_on() => {}
        SUBXACT_EVENT_COMMIT_SUB => brake::subtransaction_ended(true),
        SUBXACT_EVENT_ABORT_SUB => brake::subtransaction_ended(false),
        _ => {}
    }
}

#[pg_guard]
extern "C-unwind" fn on_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
        XACT_EVENT_PREPARE,
    };
    static TOLD_AT: AtomicU64 = AtomicU64::new(0);
    if event == XACT_EVENT_PRE_COMMIT {
        brake::commit_begins();
    }
    if event == XACT_EVENT_PRE_PREPARE && (invalidation::is_uncommitted() || brake::is_on()) {
        let refused: Result<()> = Err(Reason::CannotPrepare.into());
        refused.or_raise();
    }
    if !matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        return;
    }
    let was_alone = invalidation::settle();
    let Some(keyring) = Lazy::get(&KEYRING) else { return };
    if keyring.has_untold_hits() {
        let now = BACKEND.now();
        if was_alone || now - TOLD_AT.load(Relaxed) >= TELL_EVERY {
            TOLD_AT.store(now, Relaxed);
            keyring.tell_hits(&BACKEND);
        }
    }
    if was_alone {
        keyring.cache().clear();
    }
}

/// Zeroes every data key before the process goes, and lets go of whoever waits for it.
#[pg_guard]
extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    KEYRING.tell_hits(&BACKEND);
    KEYRING.cache().clear();
    end_flights_of(BACKEND.process_id());
}

/// Also when a process ended without a word.
fn end_flights_of(process: u32) {
    let ended: Vec<_> = shmem::with(|shared| shared.abandon_all(process).collect());
    ended.into_iter().for_each(|record| BACKEND.wake(record));
}

/// The PostgreSQL backend that calls.
pub struct Backend {
    /// The role that the query was started as which the call is part of; see [`executor`].
    starter: Option<Role>,
    /// The role of a query around it that runs as another role than it was started as.
    around: Option<Role>,
}

/// For calls that are no part of a query, or concern nobody's values.
pub const BACKEND: Backend = Backend { starter: None, around: None };

impl Backend {
    /// For a call of an SQL function.
    ///
    /// # Safety
    /// `call` is that of the running function.
    #[inline]
    pub unsafe fn called(call: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: passes the caller's promise on.
        Self { starter: unsafe { executor::starter(call) }, around: executor::around() }
    }
}

unsafe extern "C" {
    // Bound again because it can't raise an ERROR and is called for every value: pgrx's binding sets up a
    // jump target around each call.
    safe fn InSecurityRestrictedOperation() -> bool;
}

/// True inside ANALYZE, REFRESH MATERIALIZED VIEW and index builds, where a result would be stored.
#[inline]
pub fn in_security_restricted_operation() -> bool {
    InSecurityRestrictedOperation()
}

impl Host for Backend {
    #[inline]
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wall_clock(&self) -> i64 {
        clock::wall()
    }

    #[inline]
    fn process_id(&self) -> u32 {
        // SAFETY: set once when the process starts.
        unsafe { pg_sys::MyProcPid as u32 }
    }

    fn database(&self) -> u32 {
        // SAFETY: set once when the process connects to a database.
        unsafe { pg_sys::MyDatabaseId.to_u32() }
    }

    #[inline]
    fn role(&self) -> Role {
        current_role()
    }

    #[inline]
    fn starters(&self) -> [Option<Role>; 2] {
        [self.starter, self.around]
    }

    #[inline]
    fn generation(&self) -> u64 {
        invalidation::generation()
    }

    fn registry_generation(&self) -> u64 {
        invalidation::registry_generation()
    }

    #[inline]
    fn ttl(&self) -> u64 {
        settings::ttl()
    }

    fn policy(&self) -> Policy {
        settings::policy()
    }

    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        registry::tenant(name)
    }

    fn permissions(&self, role: Role, tenant: &str) -> Result<Permissions> {
        registry::permissions(role, tenant)
    }

    fn kms(&self, limit: Option<Duration>) -> impl Kms {
        Providers { limit }
    }

    fn is_alone(&self) -> bool {
        invalidation::is_uncommitted()
    }

    fn shared<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
        if self.is_alone() { shmem::with_own(work) } else { shmem::with(work) }
    }

    fn common<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
        shmem::with(work)
    }

    fn wait(&self, awaited: Awaited) {
        /// How often to see whether the other process is still there.
        const LOOK: Duration = Duration::from_millis(200);
        let Some(point) = shmem::wait_point(awaited.record) else { return };
        // SAFETY: a condition variable in shared memory, initialised; in a transaction on the main thread. If
        // an interrupt ends the wait, the transaction's abort takes us off the list.
        unsafe {
            pg_sys::ConditionVariablePrepareToSleep(point);
            while let Some(process) = shmem::with(|shared| shared.flying(awaited, clock::now())) {
                if pg_sys::BackendPidGetProc(process as i32).is_null() {
                    end_flights_of(process);
                    break;
                }
                let millis = LOOK.as_millis() as std::ffi::c_long;
                pg_sys::ConditionVariableTimedSleep(point, millis, interrupt::other_process());
            }
            pg_sys::ConditionVariableCancelSleep();
        }
    }

    fn wake(&self, record: usize) {
        if let Some(point) = shmem::wait_point(record) {
            // SAFETY: a condition variable in shared memory, initialised.
            unsafe { pg_sys::ConditionVariableBroadcast(point) };
        }
    }

    fn hold(&self, tag: Tag) -> Tag {
        match self.is_alone() {
            true => Tag::NONE,
            false => {
                expiry::hold(tag);
                tag
            }
        }
    }

    fn erase_at(&self, deadline: Instant) {
        expiry::at(deadline);
        shmem::sweep_by(deadline);
    }

    fn tell(&self, tenant: &str, change: Change, error: Option<&Error>) {
        if change.is_news() {
            report::log_change(tenant, change, error);
        }
    }
}

/// Picks the provider by the key's URI, and shows the wait.
pub struct Providers {
    limit: Option<Duration>,
}

impl Providers {
    fn call<R>(&self, custody: &Custody, call: impl FnOnce(&dyn Kms) -> Result<R>) -> Result<R> {
        let _waiting = WaitEvent::start(interrupt::kms());
        match &custody.key {
            KeyUri::Local(_) => call(&settings::local_kms()),
            KeyUri::Aws(_) => call(&AwsKms {
                clients: &CLIENTS,
                settings: settings::aws(),
                limit: self.limit,
                tick: interrupt::tick,
            }),
        }
    }
}

impl Kms for Providers {
    fn generate(&self, custody: &Custody, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        self.call(custody, |kms| kms.generate(custody, context))
    }

    fn unwrap(
        &self,
        custody: &Custody,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.call(custody, |kms| kms.unwrap(custody, wrapped, context))
    }

    fn describe(&self, custody: &Custody) -> Result<KeyFacts> {
        self.call(custody, |kms| kms.describe(custody))
    }
}
