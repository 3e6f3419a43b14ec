//! Looks whether a database is there before a monitor connects to it: who connects to one that
//! isn't leaves a FATAL in the log, which is an alarm where an operator names databases before
//! making them. Whoever is connected to a database can't go to another, so this is a process of its
//! own.

use super::session::{Database, connect, transaction};
use crate::pg::background::handle_signals;
use crate::pg::shared_memory::layout::{SCOUTS, header};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::{pg_guard, pg_sys};
use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;

/// What is known of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Found {
    /// Nothing.
    Unknown = 0,
    /// It can be connected to.
    There = 1,
    /// It isn't there, or lets nobody in.
    Missing = 2,
}

/// What the scout of this number found.
pub fn found(number: usize) -> Found {
    let found = header().and_then(|header| header.scouts.get(number));
    match found.map(|found| found.load(SeqCst)) {
        Some(1) => Found::There,
        Some(2) => Found::Missing,
        _ => Found::Unknown,
    }
}

/// Forgets what it found.
pub fn forget(number: usize) {
    put(number, Found::Unknown);
}

fn put(number: usize, found: Found) {
    if let Some(place) = header().and_then(|header| header.scouts.get(number)) {
        place.store(found as u8, SeqCst);
    }
}

/// Whether there is a scout of this number: there are no more databases than monitors could watch.
pub fn exists(number: usize) -> bool {
    number < SCOUTS
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_scout_main(number: pg_sys::Datum) {
    handle_signals();
    connect(Database::None);
    let is_there = transaction(|| can_connect(BackgroundWorker::get_extra()));
    put(number.value(), if is_there { Found::There } else { Found::Missing });
}

/// In a transaction. As the launcher of autovacuum does: without a database, and in a new cluster,
/// there may be no index to look with.
fn can_connect(database: &str) -> bool {
    // SAFETY: in a transaction on the main thread; the shared catalogs can be read without a
    // database. A tuple is looked at before the next one is read.
    unsafe {
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, mode);
        let (no_index, no_keys) = (pg_sys::InvalidOid, std::ptr::null_mut());
        let scan =
            pg_sys::systable_beginscan(catalog, no_index, false, std::ptr::null_mut(), 0, no_keys);
        let mut lets_in = false;
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let found = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if CStr::from_ptr(found.datname.data.as_ptr()).to_bytes() == database.as_bytes() {
                // A DROP that was interrupted leaves a limit of -2.
                lets_in = found.datallowconn && found.datconnlimit != -2;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, mode);
        lets_in
    }
}
