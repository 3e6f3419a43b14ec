//! What happens when transactions begin to commit, are prepared or end, and when subtransactions
//! end.

use super::process::{THIS_PROCESS, keyring_in_use};
use super::registry::invalidation;
use super::report::IntoSql;
use super::{brake, clock};
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

#[pg_guard]
extern "C-unwind" fn on_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
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
extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
        XACT_EVENT_PREPARE,
    };
    static FLUSHED_AT: AtomicU64 = AtomicU64::new(0);
    if event == XACT_EVENT_PRE_COMMIT {
        brake::commit_begins();
    }
    if event == XACT_EVENT_PRE_PREPARE
        && (invalidation::has_uncommitted_changes() || brake::is_on())
    {
        Err::<(), _>(Error::new(Reason::CannotPrepare)).or_raise();
    }
    if !matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        return;
    }
    let had_changes = invalidation::settle();
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
