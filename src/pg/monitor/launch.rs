//! Keeps a monitor running for each database that the settings name.

use crate::pg::{clock, elog, identity};
use cmk_error::{Instant, quoted};
use pgrx::bgworkers::{
    BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::{IntoDatum, pg_sys};
use std::collections::HashMap;

/// Pause before a monitor that ended is started again, at first and at most, in nanoseconds; its
/// database may be missing.
const PAUSE: u64 = 5_000_000_000;
const PAUSE_MAX: u64 = 300_000_000_000;

/// The monitors, by their databases.
#[derive(Default)]
pub struct Launcher(HashMap<String, Launched>);

#[derive(Default)]
struct Launched {
    worker: Option<DynamicBackgroundWorker>,
    started_at: Instant,
    pause: u64,
}

impl Launcher {
    /// True if there is no monitor to look after.
    pub fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Starts what is missing and ends what isn't wanted any more.
    pub fn start(&mut self, wanted: &[String]) {
        self.0.retain(|database, monitor| {
            let stays = wanted.contains(database);
            if !stays && let Some(worker) = monitor.worker.take() {
                worker.terminate();
            }
            stays
        });
        let now = clock::now();
        for database in wanted {
            let monitor = self.0.entry(database.clone()).or_default();
            let alive = monitor.worker.as_ref().is_some_and(is_running);
            if !alive && now >= monitor.started_at.saturating_add(monitor.pause) {
                monitor.restart(database, now);
            }
        }
    }
}

impl Launched {
    /// One that lived for a while comes back soon; one that keeps failing, later and later.
    fn restart(&mut self, database: &str, now: Instant) {
        let lived = now - self.started_at > PAUSE_MAX;
        self.pause = if lived { PAUSE } else { (self.pause * 2).clamp(PAUSE, PAUSE_MAX) };
        self.started_at = now;
        self.worker = start(database);
        if self.worker.is_none() {
            let database = quoted(database);
            elog::log_line(&format!(
                "cmk_encrypt monitor: no room in max_worker_processes for database={database}"
            ));
        }
    }
}

fn is_running(worker: &DynamicBackgroundWorker) -> bool {
    !matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped))
}

/// `None` if `max_worker_processes` leaves no room; then later.
fn start(database: &str) -> Option<DynamicBackgroundWorker> {
    let me = identity::pid() as pg_sys::pid_t;
    BackgroundWorkerBuilder::new(&format!("cmk_encrypt monitor: {database}"))
        .set_type("cmk_encrypt monitor")
        .set_library("cmk_encrypt")
        .set_function("cmk_encrypt_monitor_main")
        .set_argument(me.into_datum())
        .set_extra(database)
        .set_restart_time(None)
        .set_notify_pid(me)
        .enable_spi_access()
        // After the line above, which would have it wait for the end of recovery.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .load_dynamic()
        .ok()
}
