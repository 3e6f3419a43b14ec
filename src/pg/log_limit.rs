//! Limits what one process logs of the same thing, such as an error that a client meets again and
//! again. What clients are told is not limited.

use super::elog::log_line;
use super::settings::values;
use super::{clock, identity};
use cmk_audit::limit::{LeftOut, Limiter};
use cmk_audit::line;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

#[derive(Default)]
struct Log {
    limiter: Limiter,
    /// What was left out, and the log has not been told.
    left_out: Vec<LeftOut>,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

/// There may be something to tell.
static OWES: AtomicBool = AtomicBool::new(false);

/// Whether to log something about `subject`.
pub fn admits(subject: &str) -> bool {
    let most = values::log_repeats();
    if most == 0 {
        return true;
    }
    LOG.with(|log| {
        // An error while this is borrowed is logged.
        let Ok(mut log) = log.try_borrow_mut() else { return true };
        let Log { limiter, left_out } = &mut *log;
        let admits = limiter.admits(subject, most, clock::now(), &mut |it| left_out.push(it));
        if !admits && !OWES.swap(true, Relaxed) {
            tell_at_exit();
        }
        admits
    })
}

/// Between statements: says how much was left out of what is over.
#[inline]
pub fn tell() {
    if OWES.load(Relaxed) {
        tell_until(clock::now());
    }
}

fn tell_until(now: u64) {
    let left_out = LOG.try_with(|log| {
        let Ok(mut log) = log.try_borrow_mut() else { return Vec::new() };
        let Log { limiter, left_out } = &mut *log;
        limiter.ended(now, &mut |it| left_out.push(it));
        OWES.store(limiter.owes(), Relaxed);
        std::mem::take(left_out)
    });
    for left_out in left_out.unwrap_or_default() {
        log_line(&line::of_left_out(&left_out));
    }
}

fn tell_at_exit() {
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.swap(identity::pid(), Relaxed) != identity::pid() {
        // SAFETY: on the main thread of a backend; the callback takes no argument.
        unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0_usize)) };
    }
}

#[pg_guard]
extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    tell_until(u64::MAX);
}
