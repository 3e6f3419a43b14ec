//! Reads tables of users as PostgreSQL reads its catalogs: without a planner, without policies, and
//! without running anything that their owners wrote.

use pgrx::{PgMemoryContexts, pg_sys};

/// Whether a column holds a value of which `found` is true, among the rows that are committed now
/// and those of this transaction. Nulls are passed over.
pub fn any(
    table: pg_sys::Oid,
    column: pg_sys::AttrNumber,
    found: impl Fn(pg_sys::Datum) -> bool,
) -> bool {
    let mut is_there = false;
    visit(table, &[column], Rows::Committed, |_, value| {
        is_there = found(value);
        !is_there
    });
    is_there
}

/// Which rows a scan shows.
#[derive(Clone, Copy, PartialEq)]
pub enum Rows {
    /// Those that are committed now, and those of this transaction.
    Committed,
    /// All but those that nobody can see any more: also rows that are being written, and rows that
    /// were deleted or replaced while somebody has an older snapshot.
    NotYetRemovable,
}

/// Rows between two moments at which the memory that they took is given back.
const ROWS_KEPT: usize = 1000;

/// Shows the values of some columns, as [`any`] does, with the place of each column among
/// `columns`, until `goes_on` says no.
pub fn visit(
    table: pg_sys::Oid,
    columns: &[pg_sys::AttrNumber],
    which: Rows,
    mut goes_on: impl FnMut(usize, pg_sys::Datum) -> bool,
) {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let mut memory = PgMemoryContexts::new("cmk_encrypt scan");
    // SAFETY: in a transaction on the main thread. An ERROR in between unwinds, and the
    // transaction's resource owner releases scan, snapshot and lock. The relation may be gone. What
    // `goes_on` allocates it does not keep.
    unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return;
        }
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        pg_sys::PushActiveSnapshot(snapshot);
        // Has what nobody sees any more known anew: what is at hand may be old.
        pg_sys::GetOldestNonRemovableTransactionId(relation);
        // As InitNonVacuumableSnapshot of utils/snapmgr.h fills it in.
        let mut not_removable = pg_sys::SnapshotData {
            snapshot_type: pg_sys::SnapshotType::SNAPSHOT_NON_VACUUMABLE,
            vistest: pg_sys::GlobalVisTestFor(relation),
            ..Default::default()
        };
        let by = match which {
            Rows::Committed => snapshot,
            Rows::NotYetRemovable => &raw mut not_removable,
        };
        let no_key = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, by, 0, no_key);
        let (mut is_done, mut rows) = (false, 0);
        while !is_done {
            pgrx::check_for_interrupts!();
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            is_done = memory.switch_to(|_| {
                let shown = columns.iter().enumerate().all(|(place, column)| {
                    let (mut is_null, number) = (false, (*column).into());
                    let descriptor = (*relation).rd_att;
                    let value = pg_sys::heap_getattr(tuple, number, descriptor, &mut is_null);
                    is_null || goes_on(place, value)
                });
                !shown
            });
            rows += 1;
            if rows % ROWS_KEPT == 0 {
                memory.reset();
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::PopActiveSnapshot();
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::relation_close(relation, lock);
    }
}

/// Locks a table against being dropped, emptied or rewritten, to the end of the transaction. False
/// if it is gone.
pub fn keep(table: pg_sys::Oid) -> bool {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: in a transaction on the main thread; the lock goes with the transaction.
    unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return false;
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
    true
}

/// Waits for every transaction of this database that is open now, but for those of autovacuum.
/// Who begins meanwhile isn't waited for, nor are prepared transactions.
pub fn wait_for_transactions() {
    const NOT_OF_VACUUM: i32 = (pg_sys::PROC_IS_AUTOVACUUM | pg_sys::PROC_IN_VACUUM) as i32;
    let mut count = 0;
    // SAFETY: on the main thread, in a transaction, which is left out; the array is of `count`
    // entries in the current memory context. The wait is one of PostgreSQL's lock manager:
    // interruptible, and it finds deadlocks.
    unsafe {
        let open = pg_sys::GetCurrentVirtualXIDs(
            pg_sys::TransactionId::INVALID,
            false,
            false,
            NOT_OF_VACUUM,
            &mut count,
        );
        for number in 0..count as usize {
            pg_sys::VirtualXactLock(*open.add(number), true);
        }
        pg_sys::pfree(open.cast());
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
