//! This backend: its keyring, and what the keyring asks of it.

use super::call::Call;
use super::providers::InterruptibleKms;
use super::registry::{invalidation, read};
use super::settings::values;
use super::shared_memory::access;
use super::{
    clock, executor, expiry_timer, holders, identity, interrupt, report, statement_number,
};
use cmk_error::{Error, Instant, Reason, Result, quoted};
use cmk_keyring::keyring::Keyring;
use cmk_keyring::policy::Policy;
use cmk_keyring::process::Process;
use cmk_keyring::shared::call::{AwaitedCall, CallPermit};
use cmk_keyring::shared::history::Change;
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::shared::table::SharedKeyring;
use cmk_keyring::shared::tag::Tag;
use cmk_keyring::tenant::{Grant, Role, Tenant, check_tenant_name, read_tenant_name};
use cmk_kms::Kms;
use once_cell::sync::Lazy;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::time::Duration;

/// Made on first use, so never in the postmaster.
static KEYRING: Lazy<Keyring> = Lazy::new(|| {
    // SAFETY: on the main thread of a backend; the callback takes no argument.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0_usize)) };
    Keyring::new()
});

thread_local! {
    /// The KMS calls that this process is making, as the shared keyring has them.
    static OPEN_CALLS: RefCell<Vec<CallPermit>> = const { RefCell::new(Vec::new()) };
}

/// This process's keyring.
pub fn keyring() -> &'static Keyring {
    &KEYRING
}

/// The same, unless it was never used.
pub fn keyring_in_use() -> Option<&'static Keyring> {
    Lazy::get(&KEYRING)
}

/// Zeroes every data key before the process goes, and lets go of whoever waits for it.
#[pg_guard]
extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    KEYRING.flush_hits(&THIS_PROCESS);
    KEYRING.cache().clear();
    for permit in OPEN_CALLS.take() {
        access::with(|shared| shared.abandon(&permit, 0));
        if let Some(record) = permit.tag.record() {
            THIS_PROCESS.wake(record);
        }
    }
}

/// The PostgreSQL backend that calls.
pub struct ThisProcess {
    /// The role that the query was started as which the call is part of; see [`executor`].
    starter: Option<Role>,
    /// The role of a query around it that runs as another role than it was started as.
    around: Option<Role>,
}

/// A role that nobody is, and that holds no grant.
const NOBODY: Role = Role(0);

/// For calls that are no part of a query, or concern nobody's values.
pub const THIS_PROCESS: ThisProcess = ThisProcess { starter: None, around: None };

impl ThisProcess {
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

impl ThisProcess {
    /// For a function that gets its call as a [`Call`].
    #[inline]
    pub fn of(call: Call) -> Self {
        // SAFETY: the running call.
        unsafe { Self::called(call.raw()) }
    }

    /// The same for what is printed. The client chose how protected columns are printed to it, so
    /// inside a SECURITY DEFINER function whoever called that needs the grant, too.
    pub fn printing(mut self) -> Self {
        let Some(caller) = executor::callers_role() else { return self };
        match (self.starter, self.around) {
            (_, None) => self.around = Some(caller),
            (_, Some(around)) if around == caller => {}
            (None, _) => self.starter = Some(caller),
            (Some(starter), _) if starter == caller || starter == self.role() => {
                self.starter = Some(caller);
            }
            _ => self.around = Some(NOBODY),
        }
        self
    }

    /// The same later on, in a function that PostgreSQL calls without saying for whom.
    #[inline]
    pub fn later(&self) -> Self {
        Self { starter: self.starter, around: executor::around() }
    }
}

/// What a bound grant does not allow, with the tenant that the session names.
#[cold]
pub fn tenant_mismatch() -> Error {
    let error = Error::new(Reason::TenantMismatch);
    let session = values::column_tenant();
    let name = session.as_ref().and_then(|name| read_tenant_name(name.to_bytes()).ok());
    match name.filter(|name| check_tenant_name(name).is_ok()) {
        Some(name) => error.with_info(format!("session_tenant={}", quoted(name))),
        None if session.is_none() => error.with_info("cause=unset"),
        None => error.with_info("cause=tenant_name"),
    }
}

impl Process for ThisProcess {
    #[inline]
    fn now(&self) -> Instant {
        clock::now()
    }

    #[inline]
    fn tick(&self) -> Instant {
        clock::tick()
    }

    fn wall_clock(&self) -> i64 {
        clock::wall()
    }

    #[inline]
    fn pid(&self) -> u32 {
        identity::pid()
    }

    fn database(&self) -> u32 {
        identity::database()
    }

    #[inline]
    fn statement(&self) -> u64 {
        statement_number::number()
    }

    #[inline]
    fn role(&self) -> Role {
        identity::current_role()
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

    fn tenant_generation(&self, name: &str) -> u64 {
        invalidation::tenant_generation(name)
    }

    fn notices_of(&self, tenant: &TenantId) -> u64 {
        access::counters().notices_of(tenant)
    }

    #[inline]
    fn ttl(&self) -> u64 {
        values::ttl()
    }

    fn policy(&self) -> Policy {
        values::policy()
    }

    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        read::tenant(name)
    }

    fn grant(&self, role: Role, tenant: &str) -> Result<Grant> {
        read::grant(role, tenant)
    }

    #[inline]
    fn require_session_tenant(&self, tenant: &str) -> Result<()> {
        match values::is_column_tenant(Some(tenant.as_bytes())) {
            true => Ok(()),
            false => Err(tenant_mismatch()),
        }
    }

    fn kms(&self, limit: Option<Duration>) -> impl Kms {
        InterruptibleKms { limit }
    }

    fn has_uncommitted_registry_changes(&self) -> bool {
        invalidation::has_uncommitted_changes()
    }

    fn server_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        access::with(work)
    }

    fn read_server_memory<R>(&self, work: impl FnOnce(&SharedKeyring<'_>) -> R) -> R {
        access::read(work)
    }

    fn transaction_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        match self.has_uncommitted_registry_changes() {
            true => access::with_own(work),
            false => access::with(work),
        }
    }

    fn tenant_id(&self, name: &str) -> TenantId {
        read::tenant_id(name)
    }

    fn call_opened(&self, permit: CallPermit) {
        OPEN_CALLS.with_borrow_mut(|calls| calls.push(permit));
    }

    fn call_closed(&self, permit: &CallPermit) {
        OPEN_CALLS.with_borrow_mut(|calls| calls.retain(|open| open != permit));
    }

    fn wait(&self, awaited: AwaitedCall) {
        /// How often to see whether the other process is still there.
        const LOOK: Duration = Duration::from_millis(200);
        let Some(point) = access::wait_point(awaited.record) else { return };
        // SAFETY: a condition variable in shared memory, initialised; in a transaction on the main
        // thread. If an interrupt ends the wait, the transaction's abort takes us off the list.
        unsafe {
            pg_sys::ConditionVariablePrepareToSleep(point);
            while let Some(pid) = access::read(|shared| shared.caller_of(awaited, clock::now())) {
                if pg_sys::BackendPidGetProc(pid as i32).is_null() {
                    // It ended without a word.
                    if access::with(|shared| shared.abandon_call_of(awaited, pid)) {
                        self.wake(awaited.record);
                    }
                    break;
                }
                let millis = LOOK.as_millis() as std::ffi::c_long;
                pg_sys::ConditionVariableTimedSleep(point, millis, interrupt::other_process());
            }
            pg_sys::ConditionVariableCancelSleep();
        }
    }

    fn wake(&self, record: usize) {
        if let Some(point) = access::wait_point(record) {
            // SAFETY: a condition variable in shared memory, initialised.
            unsafe { pg_sys::ConditionVariableBroadcast(point) };
        }
    }

    fn hold(&self, tag: Tag) -> Tag {
        match self.has_uncommitted_registry_changes() {
            true => Tag::NONE,
            false => {
                holders::hold(tag);
                tag
            }
        }
    }

    fn erase_at(&self, deadline: Instant) {
        expiry_timer::at(deadline);
        access::expire_by(deadline);
    }

    fn want_renewal(&self) {
        access::want_renewal();
    }

    fn log_short_wait(&self, tenant: &str, latency: u64, is_handed_over: bool) {
        let wait = values::policy().refresh_wait;
        if access::counters().is_first_short_wait(wait) {
            report::log_short_wait(tenant, wait, latency, is_handed_over);
        }
    }

    fn log_state_change(&self, tenant: &str, change: Change, error: Option<&Error>) {
        if change.is_news() {
            report::log_change(tenant, change, error);
        }
    }
}
