//! Waiting the PostgreSQL way: visible in `pg_stat_activity`, and given up when asked.

use pgrx::{check_for_interrupts, pg_sys};

/// Handles query cancel, `statement_timeout`, termination and shutdown. Unwinds if the wait is over.
pub fn tick() {
    check_for_interrupts!();
}

/// Shows `wait_event_type = Extension` while it lives.
pub struct WaitEvent(());

impl WaitEvent {
    pub fn start() -> Self {
        report(pg_sys::PG_WAIT_EXTENSION);
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
