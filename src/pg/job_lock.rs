//! A lock that a session holds on a column while it re-encrypts it: over the commits of its
//! batches, and not beyond the statement that took it.
//!
//! It keeps two sessions from doing the same work; nothing depends on it for its correctness. It
//! is an advisory lock by its method, so that PostgreSQL lets go of it when the session ends, but
//! its tag is that of a column, which no advisory lock of SQL can have. `pg_locks` shows it.

use pgrx::pg_sys;
use std::cell::RefCell;

thread_local! {
    static HELD: RefCell<Vec<(pg_sys::Oid, pg_sys::AttrNumber)>> =
        const { RefCell::new(Vec::new()) };
}

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// As SET_LOCKTAG_OBJECT of `storage/lock.h` fills it in.
fn tag(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: set once when the process connects to a database.
        locktag_field1: unsafe { pg_sys::MyDatabaseId.to_u32() },
        locktag_field2: pg_sys::RelationRelationId.to_u32(),
        locktag_field3: table.to_u32(),
        locktag_field4: column as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// False if somebody holds it, be it this session.
pub fn acquire(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> bool {
    if HELD.with_borrow(|held| held.contains(&(table, column))) {
        return false;
    }
    // SAFETY: on the main thread of a backend; does not wait. An ERROR, for want of shared memory,
    // leaves nothing behind.
    let acquired = unsafe { pg_sys::LockAcquire(&tag(table, column), MODE, true, true) };
    let acquired = acquired != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
    if acquired {
        HELD.with_borrow_mut(|held| held.push((table, column)));
    }
    acquired
}

/// Lets go of all: when the work is done, and when a transaction is rolled back, as a cancelled
/// procedure's is.
pub fn release_all() {
    for (table, column) in HELD.take() {
        // SAFETY: on the main thread. Of a lock that is gone, as after pg_advisory_unlock_all(), it
        // only warns.
        unsafe { pg_sys::LockRelease(&tag(table, column), MODE, true) };
    }
}
