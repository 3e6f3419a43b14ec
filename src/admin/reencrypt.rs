//! What re-encryption of a column asks of its caller, and the lock that keeps a second one out.

use crate::pg::job_lock;
use crate::pg::registry::{lock, write};
use crate::pg::relation;
use cmk_error::{Error, Reason, Result};
use pgrx::pg_sys;

/// Locks a column of a table that the caller owns until [`end`], or until a transaction is rolled
/// back.
///
/// # Errors
/// `read_only`, `not_owner`; `reencrypt_running` if another session, or this one, holds the lock.
pub fn begin(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Result<()> {
    write::require_writable()?;
    let absent = || Reason::NotReencryptable.into();
    let relation = relation::open(table, pg_sys::AccessShareLock, absent)?;
    if !lock::current_role_owns(&relation) {
        return Err(Reason::NotOwner.into());
    }
    match job_lock::acquire(table, column) {
        true => Ok(()),
        false => Err(Error::new(Reason::ReencryptRunning)),
    }
}

/// Lets go of all columns that [`begin`] locked.
pub fn end() {
    job_lock::release_all();
}
