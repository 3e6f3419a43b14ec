//! The two clocks.

use cmk_error::Instant;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Monotonic, and on Linux it counts a suspended machine's sleep, which must not lengthen a data
/// key's life. Read in the vDSO from Linux 5.3 on; before, each look is a system call of some
/// hundred nanoseconds.
#[cfg(target_os = "linux")]
pub const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
pub const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Nanoseconds since the machine started.
#[inline]
pub fn now() -> Instant {
    read(CLOCK)
}

/// The same as of the last tick of the kernel's timer, 1 to 10 ms ago at most unless a hypervisor
/// holds that up: for what asks so often that reading a counter of the processor would be a cost.
///
/// Linux has no clock that counts sleep and is read this cheaply. But one that doesn't tells when
/// [`now`] has to be read again: it goes on with every tick; and whoever falls asleep between two
/// ticks wakes up with another time there, because the kernel sets it once more when all processes
/// have stopped, before the machine sleeps.
#[cfg(target_os = "linux")]
#[inline]
pub fn tick() -> Instant {
    /// Which tick it was last, and what time.
    static LAST: AtomicU64 = AtomicU64::new(0);
    static TIME: AtomicU64 = AtomicU64::new(0);
    // First, so that a time is never kept under a later tick than its own.
    let tick = read(libc::CLOCK_MONOTONIC_COARSE);
    if tick == 0 {
        // There is no such clock here.
        return now();
    }
    if tick != LAST.load(Relaxed) {
        TIME.store(now(), Relaxed);
        LAST.store(tick, Relaxed);
    }
    TIME.load(Relaxed)
}
#[cfg(not(target_os = "linux"))]
pub use now as tick;

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a timespec; the clock exists on every kernel that PostgreSQL supports.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Microseconds since the Unix epoch. For people: nothing is decided by it.
pub fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

/// How long this process was ready to run and had no processor, as Linux counts it; zero where it
/// does not.
pub fn waited_for_processor() -> Duration {
    // Nanoseconds on a processor, nanoseconds waiting for one, how often.
    let counted = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let waited = counted.split_whitespace().nth(1).and_then(|waited| waited.parse().ok());
    Duration::from_nanos(waited.unwrap_or_default())
}
