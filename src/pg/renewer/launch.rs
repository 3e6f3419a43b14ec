//! Starts a renewer where one is wanted, and wakes the one that is there.

use super::NAME;
use crate::pg::background::{self, Start};
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog};
use cmk_error::Instant;
use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::{IntoDatum, pg_sys};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;

/// For how long queries renew by themselves if there is no room for a renewer: a minute.
const NO_ROOM: u64 = 60_000_000_000;
/// Shortest time between two starts for a database, in nanoseconds: a second at first, and twice as
/// long after each that could not connect, as to a database that is gone.
const PAUSE: u64 = 1_000_000_000;
const PAUSE_MAX: u64 = 300_000_000_000;

/// The renewers, by the object ids of their databases.
#[derive(Default)]
pub struct Renewers(HashMap<u32, Renewer>);

struct Renewer {
    worker: DynamicBackgroundWorker,
    started_at: Instant,
    /// How long after that to start no other.
    pause: u64,
}

impl Renewers {
    /// Sees to it that one takes note in each database where something is wanted.
    pub fn wake(&mut self) {
        let mut databases = BTreeSet::new();
        access::in_chunks(|range| {
            access::read(|shared| shared.wanting_renewal(range.clone(), &mut databases));
        });
        let now = clock::now();
        for database in databases {
            match self.0.get(&database) {
                Some(renewer) if background::is_running(&renewer.worker) => wake(&renewer.worker),
                // One that ends without having taken note could not connect. Queries renew until
                // the next may be tried, and nothing is left to do in a database that is gone.
                Some(renewer) => {
                    let pause = renewer.pause;
                    forget(database);
                    if now >= renewer.started_at.saturating_add(pause) {
                        self.start(database, (pause * 2).min(PAUSE_MAX));
                    }
                }
                None => self.start(database, PAUSE),
            }
        }
        self.0.retain(|_, renewer| {
            background::is_running(&renewer.worker)
                || now < renewer.started_at.saturating_add(renewer.pause * 2)
        });
    }

    fn start(&mut self, database: u32, pause: u64) {
        let now = clock::now();
        match start(database) {
            Some(worker) => {
                self.0.insert(database, Renewer { worker, started_at: now, pause });
            }
            None => {
                let until = now.saturating_add(NO_ROOM);
                access::counters().no_renewer_until.store(until, Relaxed);
                elog::log_line(
                    "cmk_encrypt renewer: no room in max_worker_processes; queries renew data keys",
                );
            }
        }
    }
}

/// Nothing is wanted of a renewer in a database any more.
fn forget(database: u32) {
    access::in_chunks(|range| {
        access::with(|shared| shared.forget_renewals(range.clone(), database));
    });
}

fn wake(worker: &DynamicBackgroundWorker) {
    // One that is starting looks anyway.
    let Ok(pid) = worker.pid() else { return };
    // SAFETY: on the main thread of a process with shared memory; the latch of a process stays
    // where it is when the process ends, and may be set for nothing.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// `None` if `max_worker_processes` leaves no room.
fn start(database: u32) -> Option<DynamicBackgroundWorker> {
    background::start(&Start {
        name: NAME,
        kind: NAME,
        function: "cmk_encrypt_renewer_main",
        argument: pg_sys::Oid::from(database).into_datum(),
        extra: "",
    })
}
