//! What happens when transactions begin to commit, are prepared or end, and when subtransactions
//! end.

use super::planner::at_execution;
use super::process::{THIS_PROCESS, keyring_in_use};
use super::registry::invalidation;
use super::report::IntoSql;
use super::shared_memory::access;
use super::{audit, brake, clock, job_lock, log_limit};
use cmk_error::{Error, Reason};
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Least time between two additions of this process's hits to what all processes know: 500 ms.
const FLUSH_EVERY: u64 = 500_000_000;

/// Once per process, or in the postmaster for all its children.
pub fn register_callbacks() {
    // SAFETY: called from _PG_init on the main thread.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction_end), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(on_release), std::ptr::null_mut());
    }
}

/// Whether this transaction began with this statement and each statement sees what is committed
/// then: not inside BEGIN … COMMIT, nor at an isolation level that keeps an older snapshot.
pub fn is_fresh() -> bool {
    // SAFETY: looks at the state of this process.
    unsafe {
        pg_sys::XactIsoLevel <= pg_sys::XACT_READ_COMMITTED as i32 && !pg_sys::IsTransactionBlock()
    }
}

/// Whether this transaction, or a subtransaction of it that was not rolled back, made the change of
/// this number.
pub fn is_own(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: a look at this process's transaction state.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xid) }
}

#[pg_guard]
extern "C-unwind" fn on_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    let committed = match event {
        SUBXACT_EVENT_COMMIT_SUB => true,
        SUBXACT_EVENT_ABORT_SUB => false,
        _ => return,
    };
    if !committed {
        at_execution::failed();
    }
    if brake::is_on() {
        brake::subtransaction_ended(committed);
    }
    if audit::is_pending() {
        audit::subtransaction_ended(committed);
    }
}

#[pg_guard]
extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
        XACT_EVENT_PREPARE,
    };
    static FLUSHED_AT: AtomicU64 = AtomicU64::new(0);
    if event == XACT_EVENT_PRE_COMMIT {
        brake::commit_begins();
        audit::commit_begins();
    }
    if event == XACT_EVENT_PRE_PREPARE
        && (invalidation::has_uncommitted_changes() || brake::is_on() || audit::is_pending())
    {
        Err::<(), _>(Error::new(Reason::CannotPrepare)).or_raise();
    }
    if !matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        return;
    }
    if audit::is_pending() {
        match event {
            XACT_EVENT_COMMIT => audit::committed(),
            _ => audit::rolled_back(),
        }
    }
    if event == XACT_EVENT_ABORT {
        at_execution::failed();
        job_lock::release_all();
    }
    log_limit::tell();
    let had_changes = invalidation::settle();
    if had_changes {
        access::settle_own(event == XACT_EVENT_COMMIT);
    }
    let Some(keyring) = keyring_in_use() else { return };
    if keyring.has_unflushed_hits() {
        let now = clock::now();
        if had_changes || now - FLUSHED_AT.load(Relaxed) >= FLUSH_EVERY {
            FLUSHED_AT.store(now, Relaxed);
            keyring.flush_hits(&THIS_PROCESS);
        }
    }
    if had_changes {
        keyring.cache().clear();
    }
}

/// At the end of a transaction, after its invalidations were sent: a process that finds no brake
/// any more finds them.
#[pg_guard]
extern "C-unwind" fn on_release(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _argument: *mut c_void,
) {
    if is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS {
        brake::release();
    }
}
