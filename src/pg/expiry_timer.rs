//! Data keys of this process die on time even while it sleeps: a timer's signal handler zeroes
//! them.
//!
//! PostgreSQL's own timeouts won't do: it cancels them on errors and measures them by the wall
//! clock. This is a POSIX timer of our own on the clock of the TTL, with a real-time signal that
//! nobody else in the process uses; PostgreSQL uses none. The handler does what a signal handler
//! may: atomics, the slots of [`locked`], `clock_gettime` and `timer_settime`.

use super::{clock, elog, holders};
use cmk_crypto::locked;
use cmk_error::Instant;
use std::ffi::c_int;
use std::mem::{MaybeUninit, zeroed};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize};

/// How soon to come back for a data key that was in use: 10 ms.
const SOON: u64 = 10_000_000;

/// Process id that `TIMER` belongs to: timers aren't inherited.
static OWNER: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);
static TIMER: AtomicUsize = AtomicUsize::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// When the timer goes off; `u64::MAX`: it doesn't.
static ARMED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sees to it that overdue data keys are zeroed at `deadline`, or before if that was asked for.
pub fn at(deadline: Instant) {
    if start() && deadline < ARMED.load(SeqCst) {
        arm(deadline);
    }
}

/// False if the system has no timer left (they count against `RLIMIT_SIGPENDING`) or no signal;
/// then data keys die when they are next asked for, and the log says so, once.
fn start() -> bool {
    let pid = std::process::id();
    if OWNER.load(Relaxed) == pid && is_ours(SIGNAL.load(Relaxed)) {
        return true;
    }
    locked::on_erase(holders::release);
    if OWNER.swap(0, Relaxed) == pid {
        // Somebody else took the signal, and must not get ours.
        // SAFETY: a timer of this process, which made it.
        unsafe { libc::timer_delete(TIMER.load(SeqCst) as libc::timer_t) };
    }
    let started = free_signal().and_then(make_timer);
    match started {
        Some((signal, timer)) => {
            SIGNAL.store(signal, Relaxed);
            TIMER.store(timer as usize, SeqCst);
            ARMED.store(u64::MAX, SeqCst);
            OWNER.store(pid, Relaxed);
            FAILED.store(false, Relaxed);
            // What the old timer was to erase.
            let now = clock::now();
            if let Some(next) = locked::erase_overdue(now) {
                arm(next.max(now + SOON));
            }
        }
        None if !FAILED.swap(true, Relaxed) => elog::log_line(
            "cmk_encrypt cannot make a timer: data keys in a sleeping session are erased when it wakes only",
        ),
        None => {}
    }
    started.is_some()
}

/// What the process does on a signal.
fn handler_of(signal: c_int) -> Option<usize> {
    // SAFETY: a look at this process's table of handlers; zero is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        let known = libc::sigaction(signal, std::ptr::null(), &mut action) == 0;
        known.then_some(action.sa_sigaction)
    }
}

/// False if somebody else in the process took the signal since.
fn is_ours(signal: c_int) -> bool {
    handler_of(signal) == Some(on_signal as *const () as usize)
}

/// A real-time signal that nobody in this process handles. Not the first ones, which C libraries
/// and debuggers like to take.
fn free_signal() -> Option<c_int> {
    const AVOIDED: c_int = 8;
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let mut candidates = (first + AVOIDED..=last).chain(first..first + AVOIDED);
    candidates.find(|&signal| is_ours(signal) || handler_of(signal) == Some(libc::SIG_DFL))
}

fn make_timer(signal: c_int) -> Option<(c_int, libc::timer_t)> {
    // SAFETY: on the main thread; all pointers are to locals.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        let mut event: libc::sigevent = zeroed();
        // To this thread, the one that uses the slots; others may have been started by other
        // extensions.
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_notify_thread_id = libc::gettid();
        event.sigev_signo = signal;
        let mut timer = MaybeUninit::uninit();
        let made = libc::sigaction(signal, &action, std::ptr::null_mut()) == 0
            && libc::timer_create(clock::CLOCK, &mut event, timer.as_mut_ptr()) == 0;
        made.then(|| (signal, timer.assume_init()))
    }
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
