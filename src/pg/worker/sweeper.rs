//! Zeroes shared data keys when they expire, also when nobody asks, and starts a monitor for each database
//! that the settings name. While it isn't running no data key is shared, so that none outlives its time.

use super::sleep;
use crate::pg::{clock, elog, settings, shmem};
use cmk_error::quoted;
use cmk_keyring::shared::vault;
use pgrx::bgworkers::{
    BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::{IntoDatum, pg_guard, pg_sys};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// How often to see whether the monitors are still there.
const LOOK: Duration = Duration::from_secs(1);
/// Longest sleep, should a wake-up ever be lost.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause before a monitor that ended is started again, at first and at most; its database may be missing.
const PAUSE: u64 = 5_000_000_000;
const PAUSE_MAX: u64 = 300_000_000_000;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_keyring_main(_argument: pg_sys::Datum) {
    super::handle_signals();
    let Some(header) = shmem::header() else { return };
    // SAFETY: the callback takes no argument; MyLatch is in shared memory from here on.
    unsafe {
        pg_sys::before_shmem_exit(Some(stop), pg_sys::Datum::from(0_usize));
        header.sweeper.store(pg_sys::MyLatch, SeqCst);
    }
    let mut monitors = HashMap::new();
    let mut crowded = false;
    loop {
        let next = sweep(header);
        if !crowded && shmem::words().recycled.load(Relaxed) > 0 {
            crowded = true;
            elog::log_line(
                "cmk_encrypt keyring: more tenants than cmk_encrypt.shared_keyring_size; states and counters of the least used are forgotten",
            );
        }
        let wanted = settings::monitor_databases();
        start_monitors(&mut monitors, &wanted);
        let look = if monitors.is_empty() { LONGEST } else { LOOK };
        sleep(Duration::from_nanos(next.saturating_sub(clock::now())).min(look));
    }
}

/// Zeroes what is past the TTL and returns when the next data key will be.
fn sweep(header: &shmem::Header) -> u64 {
    let ttl = settings::ttl();
    shmem::with(|shared| {
        let oldest = vault::expire(shared.slots, clock::now().saturating_sub(ttl));
        let next = oldest.map_or(u64::MAX, |unwrapped_at| unwrapped_at.saturating_add(ttl));
        // Under the lock, so that whoever puts a data key in sees it.
        header.next_sweep.store(next, SeqCst);
        next
    })
}

#[pg_guard]
extern "C-unwind" fn stop(_code: i32, _argument: pg_sys::Datum) {
    let Some(header) = shmem::header() else { return };
    shmem::with(|shared| {
        vault::clear(shared.slots);
        header.sweeper.store(std::ptr::null_mut(), SeqCst);
    });
}

/// Whether the sweeper still is the process of this number.
pub fn is_alive(process: i32) -> bool {
    let latch = shmem::header().map_or(std::ptr::null_mut(), |header| header.sweeper.load(SeqCst));
    // SAFETY: null, or a process's latch in shared memory, which outlives the process.
    unsafe { latch.as_ref() }.is_some_and(|latch| latch.owner_pid == process)
}

struct Monitor {
    worker: Option<DynamicBackgroundWorker>,
    started_at: u64,
    pause: u64,
}

fn start_monitors(monitors: &mut HashMap<String, Monitor>, wanted: &[String]) {
    monitors.retain(|database, monitor| {
        let stays = wanted.contains(database);
        if !stays && let Some(worker) = monitor.worker.take() {
            worker.terminate();
        }
        stays
    });
    let now = clock::now();
    for database in wanted {
        let new = Monitor { worker: None, started_at: 0, pause: 0 };
        let monitor = monitors.entry(database.clone()).or_insert(new);
        let alive = monitor.worker.as_ref().is_some_and(is_running);
        if !alive && now >= monitor.started_at.saturating_add(monitor.pause) {
            // One that lived for a while comes back soon; one that keeps failing, later and later.
            let lived = now - monitor.started_at > PAUSE_MAX;
            monitor.pause = if lived { PAUSE } else { (monitor.pause * 2).clamp(PAUSE, PAUSE_MAX) };
            monitor.started_at = now;
            monitor.worker = start(database);
            if monitor.worker.is_none() {
                let database = quoted(database);
                elog::log_line(&format!(
                    "cmk_encrypt monitor: no room in max_worker_processes for database={database}"
                ));
            }
        }
    }
}

fn is_running(worker: &DynamicBackgroundWorker) -> bool {
    !matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped))
}

/// `None` if `max_worker_processes` leaves no room; then later.
fn start(database: &str) -> Option<DynamicBackgroundWorker> {
    // SAFETY: set once when the process starts.
    let me = unsafe { pg_sys::MyProcPid };
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
