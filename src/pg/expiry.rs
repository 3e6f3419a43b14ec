//! Data keys of this process die on time even while it sleeps: a timer's signal handler zeroes them.
//!
//! PostgreSQL's own timeouts won't do: it cancels them on errors and measures them by the wall clock. This
//! is a POSIX timer of our own on the clock of the TTL, with a real-time signal, of which PostgreSQL uses
//! none. The handler does what a signal handler may: atomics, the slots of [`locked`], `clock_gettime` and
//! `timer_settime`.

use super::{clock, elog, shmem};
use cmk_crypto::locked;
use cmk_error::Instant;
use cmk_keyring::shared::Tag;
use std::mem::{MaybeUninit, zeroed};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

/// How soon to come back for a data key that was in use.
const SOON: u64 = 10_000_000;

/// Process id that `TIMER` belongs to: timers aren't inherited.
static OWNER: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);
static TIMER: AtomicUsize = AtomicUsize::new(0);
/// When the timer goes off; `u64::MAX`: it doesn't.
static ARMED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Data keys that this process holds of each record: its generation in the upper half, the number in the
/// lower.
static HELD: [AtomicU32; RECORDS_MAX] = [const { AtomicU32::new(0) }; RECORDS_MAX];
pub const RECORDS_MAX: usize = 65_536;

/// Sees to it that overdue data keys are zeroed at `deadline`, or before if that was asked for.
pub fn at(deadline: Instant) {
    if start() && deadline < ARMED.load(SeqCst) {
        arm(deadline);
    }
}

/// False if the system has no timer left (they count against `RLIMIT_SIGPENDING`); then data keys die when they are
/// next asked for, and the log says so, once.
fn start() -> bool {
    let pid = std::process::id();
    if OWNER.load(Relaxed) == pid {
        return true;
    }
    locked::on_erase(release);
    // SAFETY: on the main thread; all pointers are to locals.
    let started = unsafe {
        let signal = libc::SIGRTMIN() + 8;
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        let mut event: libc::sigevent = zeroed();
        // To this thread, the one that uses the slots; others may have been started by other extensions.
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_notify_thread_id = libc::gettid();
        event.sigev_signo = signal;
        let mut timer = MaybeUninit::uninit();
        libc::sigaction(signal, &action, std::ptr::null_mut()) == 0
            && libc::timer_create(clock::CLOCK, &mut event, timer.as_mut_ptr()) == 0
            && {
                TIMER.store(timer.assume_init() as usize, SeqCst);
                true
            }
    };
    if started {
        ARMED.store(u64::MAX, SeqCst);
        OWNER.store(pid, Relaxed);
        FAILED.store(false, Relaxed);
    } else if !FAILED.swap(true, Relaxed) {
        elog::log_line(
            "cmk_encrypt cannot make a timer: data keys in a sleeping session are erased when it wakes only",
        );
    }
    started
}

/// False once the system refused a timer.
pub fn has_timer() -> bool {
    !FAILED.load(Relaxed)
}

fn arm(deadline: Instant) {
    ARMED.store(deadline, SeqCst);
    // SAFETY: plain numbers; zero is a valid itimerspec.
    let mut at: libc::itimerspec = unsafe { zeroed() };
    at.it_value.tv_sec = (deadline / 1_000_000_000) as libc::time_t;
    at.it_value.tv_nsec = (deadline % 1_000_000_000) as libc::c_long;
    let timer = TIMER.load(SeqCst) as libc::timer_t;
    // SAFETY: a timer of this process.
    unsafe { libc::timer_settime(timer, libc::TIMER_ABSTIME, &at, std::ptr::null_mut()) };
}

extern "C" fn on_signal(_signal: libc::c_int) {
    // SAFETY: errno of this thread, put back for the code that was interrupted.
    let errno = unsafe { *libc::__errno_location() };
    ARMED.store(u64::MAX, SeqCst);
    let now = clock::now();
    if let Some(next) = locked::erase_overdue(now) {
        arm(next.max(now + SOON));
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Counts a copy of a data key in this process.
pub fn hold(tag: Tag) {
    if let Some((held, holders)) = counters(tag)
        && add(held, tag.generation()) == 1
    {
        add(holders, tag.generation());
    }
}

/// One copy less. Runs in signal handlers.
fn release(tag: u64) {
    let tag = Tag(tag);
    if let Some((held, holders)) = counters(tag)
        && subtract(held, tag.generation()) == Some(0)
    {
        subtract(holders, tag.generation());
    }
}

fn counters(tag: Tag) -> Option<(&'static AtomicU32, &'static AtomicU32)> {
    let record = tag.record()?;
    Some((HELD.get(record)?, shmem::holders(record)?))
}

/// How many processes hold a data key of this use of a record.
pub fn holders(tag: Tag) -> Option<u16> {
    let value = shmem::holders(tag.record()?)?.load(Relaxed);
    Some(if (value >> 16) as u16 == tag.generation() { value as u16 } else { 0 })
}

/// Counts one more. A counter of an older generation begins anew; one of a younger generation has no place for it.
fn add(counter: &AtomicU32, generation: u16) -> u16 {
    let count = |value: u32| {
        let age = generation.wrapping_sub((value >> 16) as u16) as i16;
        match age {
            0 => Some((value as u16).saturating_add(1)),
            1.. => Some(1),
            _ => None,
        }
    };
    let join = |value| Some(u32::from(generation) << 16 | u32::from(count(value)?));
    counter.fetch_update(SeqCst, SeqCst, join).ok().and_then(count).unwrap_or(0)
}

/// Counts one less, unless the counter belongs to another generation.
fn subtract(counter: &AtomicU32, generation: u16) -> Option<u16> {
    let less = |value: u32| {
        let ours = (value >> 16) as u16 == generation && value as u16 > 0;
        ours.then(|| value - 1)
    };
    counter.fetch_update(SeqCst, SeqCst, less).ok().map(|value| value as u16 - 1)
}
