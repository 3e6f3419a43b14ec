//! Zeroes shared data keys when they expire, also when nobody asks, starts a monitor for each
//! database that the settings name, and renewers where they are wanted. While it isn't running no
//! data key is shared, so that none outlives its time.

use super::background::{handle_signals, sleep};
use super::monitor::launch::Launcher;
use super::renewer::launch::Renewers;
use super::settings::values;
use super::shared_memory::access;
use super::shared_memory::layout::{Header, header};
use super::{clock, elog, identity};
use cmk_error::Instant;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_int;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// As `pg_stat_activity` shows it.
pub const NAME: &str = "cmk_encrypt keyring worker";

/// How often to see whether the monitors are still there.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest sleep: data keys that expire one after the other are looked for together.
const SHORTEST: Duration = Duration::from_millis(10);
/// Longest sleep, should a wake-up ever be lost.
const LONGEST: Duration = Duration::from_secs(60);

/// In the postmaster, while it loads the library. Not while pg_upgrade runs it: a monitor would
/// write into databases that are being copied, and keep one from being dropped and made anew.
pub fn register() {
    // SAFETY: a variable of the postmaster, which the command line has set by now.
    if unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    BackgroundWorkerBuilder::new(NAME)
        .set_type(NAME)
        .set_library("cmk_encrypt")
        .set_function("cmk_encrypt_keyring_worker_main")
        .set_start_time(BgWorkerStartTime::PostmasterStart)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_shmem_access(None)
        .load();
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_keyring_worker_main(_argument: pg_sys::Datum) {
    handle_signals();
    let Some(header) = header() else { return };
    header.worker_pid.store(identity::pid() as c_int, SeqCst);
    // SAFETY: the callback takes no argument; MyLatch is in shared memory from here on.
    unsafe {
        pg_sys::before_shmem_exit(Some(stop), pg_sys::Datum::from(0_usize));
        header.worker_latch.store(pg_sys::MyLatch, SeqCst);
    }
    let (mut launcher, mut renewers) = (Launcher::default(), Renewers::default());
    let mut crowded = false;
    loop {
        let next = expire(header);
        if !crowded && access::counters().recycled.load(Relaxed) > 0 {
            crowded = true;
            elog::log_line(
                "cmk_encrypt keyring worker: more tenants than cmk_encrypt.shared_keyring_size; states and counters of the least used are forgotten",
            );
        }
        launcher.start(&values::monitor_databases());
        if header.counters.renewal_wanted.swap(false, SeqCst) {
            renewers.wake();
        }
        let look = if launcher.is_idle() { LONGEST } else { LOOK };
        sleep(Duration::from_nanos(next.saturating_sub(clock::now())).clamp(SHORTEST, look));
    }
}

/// Zeroes what is past the TTL and returns when the next data key will be.
fn expire(header: &Header) -> Instant {
    // Whoever puts a data key in while we look says when it expires, be it where we have looked
    // already.
    header.worker_is_looking.store(true, SeqCst);
    header.next_expiry.store(Instant::MAX, SeqCst);
    let ttl = values::ttl();
    let oldest = clock::now().saturating_sub(ttl);
    let mut next = Instant::MAX;
    access::in_chunks(|range| {
        let left = access::with(|shared| shared.expire(range.clone(), oldest));
        next = next.min(left.map_or(Instant::MAX, |at| at.saturating_add(ttl)));
    });
    header.worker_is_looking.store(false, SeqCst);
    header.next_expiry.fetch_min(next, SeqCst).min(next)
}

#[pg_guard]
extern "C-unwind" fn stop(_code: c_int, _argument: pg_sys::Datum) {
    let Some(header) = header() else { return };
    // From here on nothing is shared.
    header.worker_latch.store(std::ptr::null_mut(), SeqCst);
    header.worker_pid.store(0, SeqCst);
    access::with(|shared| shared.clear_data_keys());
}
