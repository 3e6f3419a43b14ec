//! Opens a table by a number that a caller gave, which may be anything.

use cmk_error::{Error, Result};
use pgrx::{PgRelation, pg_sys};

/// The table, index or view of that number, locked while it is open.
///
/// # Errors
/// `absent`, if there is none.
pub fn open(
    relation: pg_sys::Oid,
    mode: u32,
    absent: impl FnOnce() -> Error,
) -> Result<PgRelation> {
    let mode = mode as pg_sys::LOCKMODE;
    // SAFETY: in a transaction on the main thread. The first opening finds out whether it is there,
    // and holds it for the second, which would raise an ERROR of PostgreSQL's own.
    unsafe {
        let found = pg_sys::try_relation_open(relation, mode);
        if found.is_null() {
            return Err(absent());
        }
        let opened = PgRelation::with_lock(relation, mode);
        pg_sys::relation_close(found, mode);
        Ok(opened)
    }
}
