//! Keeps a monitor running for each database that the settings name.

use super::scout::{self, Found};
use crate::pg::background::{self, Start, is_running};
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog, identity};
use cmk_error::{Instant, quoted};
use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::{IntoDatum, pg_sys};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Pause before a monitor that ended is started again, at first and at most, in nanoseconds; its
/// database may be missing.
const PAUSE: u64 = 5_000_000_000;
const PAUSE_MAX: u64 = 300_000_000_000;

/// The monitors, by their databases.
#[derive(Default)]
pub struct Launcher(HashMap<String, Launched>);

#[derive(Default)]
struct Launched {
    /// The number of its scouts.
    number: usize,
    scout: Option<DynamicBackgroundWorker>,
    worker: Option<DynamicBackgroundWorker>,
    started_at: Instant,
    pause: u64,
    /// How often monitors had given way when it was started.
    gave_way: u64,
    /// The log says that it isn't there.
    is_missing: bool,
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
            let number = self.free_number();
            let new = || Launched { number, ..Launched::default() };
            self.0.entry(database.clone()).or_insert_with(new).go_on(database, now);
        }
    }

    fn free_number(&self) -> usize {
        let is_free = |number: &usize| self.0.values().all(|monitor| monitor.number != *number);
        (0..).find(is_free).unwrap_or_default()
    }
}

impl Launched {
    /// First a scout looks whether the database is there, then a monitor connects to it.
    fn go_on(&mut self, database: &str, now: Instant) {
        if let Some(scout) = &self.scout {
            if is_running(scout) {
                return;
            }
            self.scout = None;
            match scout::found(self.number) {
                Found::There => {
                    self.is_missing = false;
                    self.worker = self.started(start(database, Kind::Monitor), database);
                }
                Found::Missing if !self.is_missing => {
                    self.is_missing = true;
                    let database = quoted(database);
                    elog::log_line(&format!(
                        "cmk_encrypt monitor: no database that lets it in is named {database}"
                    ));
                }
                // It said so, or was ended before it knew.
                Found::Missing | Found::Unknown => {}
            }
        }
        let is_alive = self.worker.as_ref().is_some_and(is_running);
        if !is_alive && now >= self.started_at.saturating_add(self.pause) {
            self.restart(database, now);
        }
    }

    /// One that lived for a while, or gave way to somebody who wanted its database, comes back
    /// soon; one that keeps failing, later and later.
    fn restart(&mut self, database: &str, now: Instant) {
        let gave_way = access::counters().gave_way.load(Relaxed);
        let failed = now - self.started_at <= PAUSE_MAX && gave_way == self.gave_way;
        self.pause = if failed { (self.pause * 2).clamp(PAUSE, PAUSE_MAX) } else { PAUSE };
        self.gave_way = gave_way;
        self.started_at = now;
        self.worker = None;
        if scout::exists(self.number) {
            scout::forget(self.number);
            self.scout = self.started(start(database, Kind::Scout(self.number)), database);
        } else {
            self.worker = self.started(start(database, Kind::Monitor), database);
        }
    }

    fn started(
        &self,
        worker: Option<DynamicBackgroundWorker>,
        database: &str,
    ) -> Option<DynamicBackgroundWorker> {
        if worker.is_none() {
            let database = quoted(database);
            elog::log_line(&format!(
                "cmk_encrypt monitor: no room in max_worker_processes for database={database}"
            ));
        }
        worker
    }
}

/// What to start for a database.
enum Kind {
    Scout(usize),
    Monitor,
}

/// `None` if `max_worker_processes` leaves no room; then later.
fn start(database: &str, kind: Kind) -> Option<DynamicBackgroundWorker> {
    let me = identity::pid() as pg_sys::pid_t;
    let (kind, function, argument) = match kind {
        Kind::Monitor => ("cmk_encrypt monitor", "cmk_encrypt_monitor_main", me.into_datum()),
        Kind::Scout(number) => {
            ("cmk_encrypt scout", "cmk_encrypt_scout_main", (number as i32).into_datum())
        }
    };
    let name = format!("{kind}: {database}");
    background::start(&Start { name: &name, kind, function, argument, extra: database })
}
