//! Locks of ours that no SQL of anybody can take: on a number that belongs to a table, not on the
//! table or its rows. Those may be locked by roles that may write all tables. `pg_locks` shows
//! them.

use crate::pg::identity;
use pgrx::pg_sys;

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// As SET_LOCKTAG_OBJECT of `storage/lock.h` fills it in. No catalog has the number of a table of
/// ours, so this is no object of PostgreSQL's.
fn tag(table: pg_sys::Oid, number: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: identity::database(),
        locktag_field2: table.to_u32(),
        locktag_field3: number,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// To the end of the transaction. False if somebody else has it.
pub fn try_acquire(table: pg_sys::Oid, number: u32) -> bool {
    lock(table, number, true) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// The same, after a wait that can be cancelled.
pub fn acquire(table: pg_sys::Oid, number: u32) {
    lock(table, number, false);
}

fn lock(table: pg_sys::Oid, number: u32, is_try: bool) -> pg_sys::LockAcquireResult::Type {
    // SAFETY: in a transaction on the main thread; the lock goes with the transaction.
    unsafe { pg_sys::LockAcquire(&tag(table, number), MODE, false, is_try) }
}
