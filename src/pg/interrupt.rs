//! Waiting the PostgreSQL way: visible in `pg_stat_activity`, and given up when asked.

use super::shared_memory::access;
use super::{compat, identity};
use pgrx::{check_for_interrupts, pg_sys};
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Handles query cancel, `statement_timeout`, termination and shutdown. Unwinds if the wait has to
/// be given up.
pub fn tick() {
    check_for_interrupts!();
    if GIVES_WAY.load(Relaxed) && has_to_go() {
        // SAFETY: on the main thread; as after a termination, PostgreSQL's exit callbacks undo the
        // transaction.
        unsafe { pg_sys::proc_exit(0) };
    }
}

/// Whether the next look at interrupts ends this process.
pub fn has_to_end() -> bool {
    // SAFETY: a flag of this process, which a signal handler sets.
    unsafe { (&raw const pg_sys::ProcDiePending).read_volatile() != 0 }
}

/// This process goes when somebody wants to drop or copy its database.
static GIVES_WAY: AtomicBool = AtomicBool::new(false);

pub fn give_way() {
    GIVES_WAY.store(true, Relaxed);
}

/// Whether somebody wants this process's database for themselves. Who is told so goes, and is
/// started again soon. In a transaction.
pub fn has_to_go() -> bool {
    let is_wanted = is_database_wanted();
    if is_wanted {
        access::counters().gave_way.fetch_add(1, Relaxed);
    }
    is_wanted
}

/// Whether somebody holds, or waits for, the lock on this database that DROP DATABASE, ALTER
/// DATABASE ... RENAME and CREATE DATABASE ... TEMPLATE take before they look who is connected. In
/// a transaction.
pub fn is_database_wanted() -> bool {
    let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: in a transaction on the main thread. The tag is that of LockSharedObject() for this
    // database; the lock is let go at once.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
            locktag_field3: identity::database(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let got = pg_sys::LockAcquire(&tag, mode, false, true);
        if got == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            return true;
        }
        pg_sys::LockRelease(&tag, mode, false);
        false
    }
}

/// The wait for a key provider's answer: `CmkKms` from PostgreSQL 17 on, before that `Extension`.
pub fn kms() -> u32 {
    named(&KMS, c"CmkKms")
}

/// The wait for another process's KMS call: `CmkKmsOfOther` from PostgreSQL 17 on, before that
/// `Extension`.
pub fn other_process() -> u32 {
    named(&OTHER_PROCESS, c"CmkKmsOfOther")
}

static KMS: AtomicU32 = AtomicU32::new(0);
static OTHER_PROCESS: AtomicU32 = AtomicU32::new(0);

fn named(event: &AtomicU32, name: &CStr) -> u32 {
    if event.load(Relaxed) == 0
        && let Some(new) = compat::new_wait_event(name)
    {
        event.store(new, Relaxed);
    }
    match event.load(Relaxed) {
        0 => pg_sys::PG_WAIT_EXTENSION,
        event => event,
    }
}

/// Shows a wait event while it lives.
pub struct WaitEvent(());

impl WaitEvent {
    pub fn start(event: u32) -> Self {
        report(event);
        Self(())
    }
}

impl Drop for WaitEvent {
    fn drop(&mut self) {
        report(0);
    }
}

/// What `pgstat_report_wait_start` and `_end` do, which C compiles inline.
fn report(wait_event: u32) {
    // SAFETY: PostgreSQL points it at this backend's PGPROC field or at a local variable, always
    // valid.
    unsafe { pg_sys::my_wait_event_info.write_volatile(wait_event) }
}

/// Sleeps, unless the process is asked for something.
pub fn pause(length: std::time::Duration) {
    tick();
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: on the main thread of a process of PostgreSQL, which has a latch.
    unsafe {
        let millis = length.as_millis() as std::ffi::c_long;
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    tick();
}

/// Whether interrupts are held off, as while a page or another lock of shared memory is held.
#[inline]
pub fn are_held() -> bool {
    // SAFETY: a variable of this process, on the main thread.
    unsafe { pg_sys::InterruptHoldoffCount > 0 }
}
