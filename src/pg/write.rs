//! Changes the registry's tables, through SQL: constraints, triggers and locks are PostgreSQL's business.
//!
//! The functions that get here are SECURITY DEFINER with a pinned `search_path`; all names are qualified.

use cmk_error::{Reason, Result};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::Spi;

/// # Errors
/// `read_only` in a read-only transaction and on a standby.
pub fn require_writable() -> Result<()> {
    // SAFETY: a variable of this backend.
    let read_only = unsafe { pg_sys::XactReadOnly };
    if read_only || in_recovery() { Err(Reason::ReadOnly.into()) } else { Ok(()) }
}

/// True on a standby.
pub fn in_recovery() -> bool {
    // SAFETY: a look at shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Runs one statement and returns how many rows it changed or returned. Its transaction is on disk when its commit
/// returns, whatever `synchronous_commit` says: a suspension must not come undone in a crash.
///
/// # Errors
/// `read_only`. What PostgreSQL itself objects to is raised as PostgreSQL's error.
pub fn execute(sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<usize> {
    require_writable()?;
    // SAFETY: sets a flag of this transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    Ok(Spi::connect_mut(|client| {
        let done = client.update(sql, None, arguments);
        done.expect("a fixed statement on the registry's own tables").len()
    }))
}
