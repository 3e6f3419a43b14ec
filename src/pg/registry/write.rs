//! Changes the registry's tables, through SQL: constraints, triggers and locks are PostgreSQL's
//! business.
//!
//! The functions that get here are SECURITY DEFINER with a pinned `search_path`; all names are
//! qualified.

use cmk_error::{Reason, Result};
use pgrx::datum::DatumWithOid;
use pgrx::spi::{self, Spi, SpiClient};
use pgrx::{FromDatum, IntoDatum, pg_sys};

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

/// Runs one statement and returns how many rows it changed or returned. Its transaction is on disk
/// when its commit returns, whatever `synchronous_commit` says: a suspension must not come undone
/// in a crash.
///
/// # Errors
/// `read_only`, `registry_unusable`. What PostgreSQL itself objects to is raised as PostgreSQL's
/// error.
pub fn execute(sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<usize> {
    require_writable()?;
    // SAFETY: sets a flag of this transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    Spi::connect_mut(|client| match client.update(sql, None, arguments) {
        Ok(rows) => Ok(rows.len()),
        // SPI itself refused: the statement isn't one for the tables that there are.
        Err(_) => Err(Reason::RegistryUnusable.into()),
    })
}

/// [`execute`] for a statement that returns one value; `None` if it returns no row, or null.
///
/// # Errors
/// As [`execute`].
pub fn returning<T: FromDatum + IntoDatum>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<T>> {
    require_writable()?;
    // SAFETY: sets a flag of this transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    let first = |client: &mut SpiClient<'_>| {
        let mut rows = client.update(sql, None, arguments)?;
        rows.next().map_or(Ok(None), |row| row.get::<T>(1))
    };
    Spi::connect_mut(first).map_err(|_: spi::Error| Reason::RegistryUnusable.into())
}

/// [`execute`] for a statement that changes one row.
///
/// # Errors
/// Also `registry_write`: a trigger or a rule of somebody else swallowed the row.
pub fn one(sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<()> {
    match execute(sql, arguments)? {
        1 => Ok(()),
        _ => Err(Reason::RegistryWrite.into()),
    }
}
