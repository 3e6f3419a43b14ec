//! What our background workers have in common.

use super::{compat, identity};
use pgrx::bgworkers::{
    BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::{check_for_interrupts, pg_sys};
use std::ffi::c_int;
use std::time::Duration;

unsafe extern "C-unwind" {
    // PostgreSQL's own handlers, set without pgrx's wrappers around them.
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// SIGTERM ends the worker at the next interrupt check, also in the middle of a KMS call.
pub fn handle_signals() {
    // SAFETY: at the start of a worker, with all signals blocked.
    unsafe {
        compat::set_signal_handler(libc::SIGTERM, die);
        compat::set_signal_handler(libc::SIGHUP, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Sleeps until the latch is set or `timeout` is over, then takes in what changed in the
/// configuration.
pub fn sleep(timeout: Duration) {
    let wake_on = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // Rounded up: waking before the time would only mean to sleep again.
    let millis = timeout.as_millis() as std::ffi::c_long + 1;
    // SAFETY: on the main thread of a worker.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, wake_on as c_int, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_for_interrupts!();
    // SAFETY: the flag is set by SignalHandlerForConfigReload; on the main thread.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// What a worker is to be started as.
pub struct Start<'a> {
    /// As `pg_stat_activity` shows it.
    pub name: &'a str,
    /// The kind of worker.
    pub kind: &'a str,
    /// Its main function.
    pub function: &'a str,
    /// What that is passed.
    pub argument: Option<pg_sys::Datum>,
    /// What else it can ask for.
    pub extra: &'a str,
}

/// Starts a worker that this process is told the end of. `None` if `max_worker_processes` leaves no
/// room.
pub fn start(start: &Start<'_>) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new(start.name)
        .set_type(start.kind)
        .set_library("cmk_encrypt")
        .set_function(start.function)
        .set_argument(start.argument)
        .set_extra(start.extra)
        .set_restart_time(None)
        .set_notify_pid(identity::pid() as pg_sys::pid_t)
        .enable_spi_access()
        // After the line above, which would have it wait for the end of recovery.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .load_dynamic()
        .ok()
}

/// True until it has ended.
pub fn is_running(worker: &DynamicBackgroundWorker) -> bool {
    !matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped))
}
