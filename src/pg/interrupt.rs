//! Waiting the PostgreSQL way: visible in `pg_stat_activity`, and given up when asked.

use pgrx::{check_for_interrupts, pg_sys};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Handles query cancel, `statement_timeout`, termination and shutdown. Unwinds if the wait is over.
pub fn tick() {
    check_for_interrupts!();
}

/// The wait for a key provider's answer: `CmkKms` from PostgreSQL 17 on, before that `Extension`.
pub fn kms() -> u32 {
    named(&KMS, c"CmkKms")
}

/// The wait for another process's KMS call: `CmkKmsOfOther` from PostgreSQL 17 on, before that `Extension`.
pub fn other_process() -> u32 {
    named(&OTHER_PROCESS, c"CmkKmsOfOther")
}

static KMS: AtomicU32 = AtomicU32::new(0);
static OTHER_PROCESS: AtomicU32 = AtomicU32::new(0);

fn named(event: &AtomicU32, name: &CStr) -> u32 {
    if event.load(Relaxed) == 0 {
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        // SAFETY: a C string; on the main thread.
        event.store(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) }, Relaxed);
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        let _ = name;
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
    // SAFETY: PostgreSQL points it at this backend's PGPROC field or at a local variable, always valid.
    unsafe { pg_sys::my_wait_event_info.write_volatile(wait_event) }
}
