//! Reads the registry's tables the way PostgreSQL reads its catalogs: an index scan under a fresh
//! catalog snapshot.
//!
//! Not through SQL, on purpose: no planner, no `search_path`, no hooks, no privileges of the
//! current user in the way, and always the newest committed rows plus this transaction's own,
//! whatever the snapshot of the running statement.

use super::tables::{Table, data_key};
use crate::pg::grantee::Grantee;
use cmk_error::{Error, Reason, Result};
use pgrx::pg_sys;
use pgrx::{FromDatum, IntoDatum};
use std::ffi::CStr;

/// What to look for.
pub enum Key<'a> {
    /// In the first column.
    Text(&'a str),
    /// No value in the first column.
    Null,
    /// In the column `dek_id` of `cmk.data_key`.
    DekId(&'a [u8]),
    /// Every row, without an index.
    Any,
    /// Every row that the index has.
    Indexed,
}

/// A row, valid for the call that it is passed to.
pub struct Row {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    pub fn is_null(&self, number: usize) -> bool {
        self.nulls.get(number - 1).is_none_or(|null| *null)
    }

    /// Column `number`, counted from 1; `None` for null, and if the table has no such column of
    /// that type: then it isn't ours. Copies what is by reference into the current memory context.
    pub fn column<T: FromDatum + IntoDatum>(&self, number: usize) -> Option<T> {
        // SAFETY: the descriptor of the table that is being scanned; the function checks the
        // number.
        let found = unsafe { pg_sys::SPI_gettypeid(self.descriptor, number as i32) };
        if found != T::type_oid() {
            return None;
        }
        // SAFETY: heap_deform_tuple filled both; the type was checked.
        unsafe { T::from_datum(*self.values.get(number - 1)?, *self.nulls.get(number - 1)?) }
    }
}

impl Row {
    /// The text of column `number`, of type `jsonb`; `None` for null, and if the table has another
    /// type there.
    pub fn json_text(&self, number: usize) -> Option<String> {
        // SAFETY: the descriptor of the table that is being scanned; the function checks the
        // number.
        let found = unsafe { pg_sys::SPI_gettypeid(self.descriptor, number as i32) };
        if found != pg_sys::JSONBOID || self.is_null(number) {
            return None;
        }
        let value = *self.values.get(number - 1)?;
        // SAFETY: a jsonb, as was checked; its output function returns a C string in the current
        // memory context.
        let text = unsafe {
            let output = pg_sys::Oid::from(pg_sys::F_JSONB_OUT);
            CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value))
        };
        text.to_str().ok().map(str::to_owned)
    }

    /// Column `number`, of type `cmk.grantee`; `None` for null, and if the table has another type
    /// there.
    pub fn grantee(&self, number: usize) -> Option<Grantee> {
        // SAFETY: the descriptor of the table that is being scanned; the function checks the
        // number.
        let found = unsafe { pg_sys::SPI_gettypeid(self.descriptor, number as i32) };
        // SAFETY: catalog look-ups in a transaction on the main thread.
        let (len, in_cmk) = unsafe {
            let schema = pg_sys::get_namespace_oid(c"cmk".as_ptr(), true);
            let ours = pg_sys::GetSysCacheOid(
                pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
                1,
                pg_sys::Datum::from(c"grantee".as_ptr()),
                pg_sys::Datum::from(schema),
                pg_sys::Datum::null(),
                pg_sys::Datum::null(),
            );
            (pg_sys::get_typlen(found), ours == found)
        };
        let value = *self.values.get(number - 1)?;
        let is_null = *self.nulls.get(number - 1)?;
        if !in_cmk || usize::try_from(len).ok() != Some(size_of::<Grantee>()) || is_null {
            return None;
        }
        // SAFETY: a value of our own type, of the length that was checked.
        Some(unsafe { value.cast_mut_ptr::<Grantee>().read_unaligned() })
    }
}

/// Object id of a table of schema `cmk`.
///
/// # Errors
/// `not_installed`.
pub fn oid_of(relation: &CStr) -> Result<pg_sys::Oid> {
    // SAFETY: C strings; in a transaction on the main thread.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"cmk".as_ptr(), true);
        pg_sys::get_relname_relid(relation.as_ptr(), schema)
    };
    if oid == pg_sys::InvalidOid { Err(Reason::NotInstalled.into()) } else { Ok(oid) }
}

/// Calls `visit` for each row whose column is `key`.
///
/// # Errors
/// `not_installed`, or what `visit` returns, with which the scan ends.
pub fn scan(table: &Table, key: &Key<'_>, visit: impl FnMut(&Row) -> Result<()>) -> Result<()> {
    // Output functions run without an active snapshot where a cursor's rows were stored; a wrapped
    // data key that is stored out of line takes one.
    // SAFETY: on the main thread; the snapshot goes with the transaction should an ERROR jump over
    // the pop.
    unsafe {
        if pg_sys::ActiveSnapshotSet() {
            return scan_under_snapshot(table, key, visit);
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let outcome = scan_under_snapshot(table, key, visit);
        pg_sys::PopActiveSnapshot();
        outcome
    }
}

fn scan_under_snapshot(
    table: &Table,
    key: &Key<'_>,
    mut visit: impl FnMut(&Row) -> Result<()>,
) -> Result<()> {
    let table_oid = oid_of(table.name)?;
    let index_oid = match key {
        Key::Any => pg_sys::InvalidOid,
        _ => oid_of(table.index)?,
    };
    // SAFETY: in a transaction on the main thread. The relation is locked while it is scanned; the
    // scan key and the descriptor outlive the scan. An ERROR in between unwinds, and the
    // transaction's resource owner releases scan and lock.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table_oid, lock);
        let descriptor = (*relation).rd_att;
        let columns = (*descriptor).natts as usize;
        // Without indexes (ignore_system_indexes), PostgreSQL's sequential scan would never find a
        // null.
        let matches_null = matches!(key, Key::Null) && pg_sys::IgnoreSystemIndexes;
        let by_index = !matches!(key, Key::Any) && !matches_null;
        let by_key = by_index && !matches!(key, Key::Indexed);
        let mut scan_key = scan_key(key);
        let scan = pg_sys::systable_beginscan(
            relation,
            index_oid,
            by_index,
            std::ptr::null_mut(),
            by_key.into(),
            &mut scan_key,
        );
        let mut outcome = Ok(());
        while outcome.is_ok() {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let mut row = Row {
                values: vec![pg_sys::Datum::null(); columns],
                nulls: vec![true; columns],
                descriptor,
            };
            pg_sys::heap_deform_tuple(
                tuple,
                descriptor,
                row.values.as_mut_ptr(),
                row.nulls.as_mut_ptr(),
            );
            if !matches_null || row.nulls.first() == Some(&true) {
                outcome = visit(&row);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        outcome
    }
}

/// Whether a row whose first column is `key` fulfils `condition`. The first one ends the scan.
///
/// # Errors
/// `not_installed`.
pub fn any(table: &Table, key: &Key<'_>, condition: impl Fn(&Row) -> bool) -> Result<bool> {
    let mut found = false;
    let scanned = scan(table, key, |row| {
        found = condition(row);
        // Any error ends a scan; this one goes nowhere.
        if found { Err(Error::new(Reason::TenantExists)) } else { Ok(()) }
    });
    if found { Ok(true) } else { scanned.map(|()| false) }
}

fn scan_key(key: &Key<'_>) -> pg_sys::ScanKeyData {
    let mut data = pg_sys::ScanKeyData::default();
    let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
    let null = pg_sys::Datum::null();
    let (column, procedure) = match key {
        Key::DekId(_) => (data_key::DEK_ID, pg_sys::F_BYTEAEQ),
        _ => (1, pg_sys::F_TEXTEQ),
    };
    let (flags, argument) = match key {
        Key::Text(text) => (0, text.into_datum().unwrap_or(null)),
        Key::DekId(id) => (0, id.into_datum().unwrap_or(null)),
        Key::Null | Key::Any | Key::Indexed => {
            ((pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL) as i32, null)
        }
    };
    // SAFETY: initialises `data`; the columns are text COLLATE "C", compared by texteq, and bytea,
    // where the collation doesn't matter.
    unsafe {
        pg_sys::ScanKeyEntryInitialize(
            &mut data,
            flags,
            column as pg_sys::AttrNumber,
            equal,
            pg_sys::InvalidOid,
            pg_sys::C_COLLATION_OID,
            pg_sys::Oid::from(procedure),
            argument,
        );
    }
    data
}
