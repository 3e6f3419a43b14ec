//! File descriptors of KMS calls, within what PostgreSQL counts: it closes files of tables, which
//! it can open again, to make room for them.

use cmk_error::{Cause, Error, Reason, Result};
use pgrx::pg_sys;
use std::cell::Cell;

/// What a call opens, and closes when it is over: a connection, a second one where a host has
/// several addresses, and what the resolver reads.
const OF_CALL: usize = 4;

/// What the runtime of this process keeps: an epoll instance and an eventfd.
const OF_RUNTIME: usize = 2;

/// The descriptors of a call, while this lives.
pub struct Descriptors(usize);

impl Descriptors {
    /// # Errors
    /// `kms_unreachable` with `cause=fd` if other users of descriptors, such as foreign data
    /// wrappers, have taken all that PostgreSQL gives away.
    pub fn acquire() -> Result<Self> {
        thread_local! {
            /// The process keeps those of its runtime.
            static HAS_RUNTIME: Cell<bool> = const { Cell::new(false) };
        }
        if !HAS_RUNTIME.get() {
            std::mem::forget(Self::of(OF_RUNTIME)?);
            HAS_RUNTIME.set(true);
        }
        Self::of(OF_CALL)
    }

    fn of(count: usize) -> Result<Self> {
        let mut acquired = Self(0);
        for _ in 0..count {
            // SAFETY: on the main thread of a process that has access to files of tables.
            if !unsafe { pg_sys::AcquireExternalFD() } {
                let info = format!("cause={}", Cause::Fd.name());
                return Err(Error::new(Reason::KmsUnreachable).with_info(info));
            }
            acquired.0 += 1;
        }
        Ok(acquired)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        for _ in 0..self.0 {
            // SAFETY: as many as were acquired.
            unsafe { pg_sys::ReleaseExternalFD() };
        }
    }
}
