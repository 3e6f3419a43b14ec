//! The two clocks.

use cmk_error::Instant;
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
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a timespec; the clock exists on every kernel that PostgreSQL supports.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
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
