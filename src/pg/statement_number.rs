//! Tells the statements of this process apart, for what may not outlive one.
//!
//! A statement is at most what a client sent at once. Within that, each query that an executor
//! starts or ends and each command begins a new one, be it a function's: that is finer than what a
//! client calls a statement, and never coarser.

use pgrx::pg_sys;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64};

unsafe extern "C-unwind" {
    // Bound again because it can't raise an ERROR: pgrx's binding sets up a jump target.
    safe fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
}

/// Asked for every value, so not a thread's own: PostgreSQL has one.
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// When PostgreSQL got what it is working at.
static BEGAN: AtomicI64 = AtomicI64::new(0);

/// The number of the statement that is running.
#[inline]
pub fn number() -> u64 {
    let began = GetCurrentStatementStartTimestamp();
    if began != BEGAN.load(Relaxed) {
        BEGAN.store(began, Relaxed);
        next();
    }
    NUMBER.load(Relaxed)
}

/// A query or a command begins or ends.
#[inline]
pub fn next() {
    NUMBER.store(NUMBER.load(Relaxed) + 1, Relaxed);
}
