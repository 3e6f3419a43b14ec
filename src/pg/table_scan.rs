//! Reads tables of users as PostgreSQL reads its catalogs: without a planner, without policies, and
//! without running anything that their owners wrote.

use pgrx::pg_sys;

/// Whether a column holds a value of which `found` is true, among the rows that are committed now
/// and those of this transaction. Nulls are passed over.
pub fn any(
    table: pg_sys::Oid,
    column: pg_sys::AttrNumber,
    found: impl Fn(pg_sys::Datum) -> bool,
) -> bool {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: in a transaction on the main thread. An ERROR in between unwinds, and the
    // transaction's resource owner releases scan, snapshot and lock. The relation may be gone.
    unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return false;
        }
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        pg_sys::PushActiveSnapshot(snapshot);
        let no_key = std::ptr::null_mut();
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, snapshot, 0, no_key);
        let mut is_there = false;
        while !is_there {
            pgrx::check_for_interrupts!();
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let (mut is_null, number) = (false, column.into());
            let value = pg_sys::heap_getattr(tuple, number, (*relation).rd_att, &mut is_null);
            is_there = !is_null && found(value);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::PopActiveSnapshot();
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::relation_close(relation, lock);
        is_there
    }
}

/// Waits for the transactions that hold a lock to write to the table, as CREATE INDEX CONCURRENTLY
/// does. Takes none itself, so that others can begin to write.
pub fn wait_for_writers(table: pg_sys::Oid) {
    // SAFETY: on the main thread; waits interruptibly. The fields as SET_LOCKTAG_RELATION of
    // storage/lock.h fills them in.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: table.to_u32(),
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        pg_sys::WaitForLockers(tag, pg_sys::ShareLock as pg_sys::LOCKMODE, false);
    }
}
