//! The types and columns as PostgreSQL's catalogs have them.
//!
//! By schema and name, each time: `search_path` is empty in dumps, restores and workers, and object
//! ids change when the extension is dropped and created again.

use super::kind::Kind;
use crate::pg::protected_row::Row;
use cmk_error::{Error, Reason, quoted};
use pgrx::pg_sys;
use std::ffi::CStr;

/// The object ids of our types in this database; 0 for one that isn't there.
pub struct Types([(Kind, pg_sys::Oid); 3]);

pub fn types() -> Types {
    Types([Kind::Text, Kind::Bytea, Kind::Jsonb].map(|kind| (kind, type_oid(kind))))
}

/// Object id of a type of ours; 0: the extension isn't in this database.
pub fn type_oid(kind: Kind) -> pg_sys::Oid {
    // SAFETY: a catalog look-up in a transaction on the main thread; a C string.
    unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            1,
            pg_sys::Datum::from(kind.type_name().as_ptr()),
            pg_sys::Datum::from(pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE)),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        )
    }
}

impl Types {
    pub fn kind(&self, oid: pg_sys::Oid) -> Option<Kind> {
        let found = self.0.iter().find(|(_, of)| *of == oid && oid != pg_sys::InvalidOid);
        found.map(|(kind, _)| *kind)
    }
}

/// The operator `=` between a type of ours and another; `None` if there is none.
pub fn equals(ours: pg_sys::Oid, other: pg_sys::Oid) -> Option<pg_sys::Oid> {
    operator(c"=", ours, other)
}

/// The operator of indexes on tokens.
pub fn token_equals(ours: pg_sys::Oid) -> Option<pg_sys::Oid> {
    operator(c"===", ours, ours)
}

fn operator(name: &CStr, left: pg_sys::Oid, right: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction on the main thread; a C string.
    let found = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::OPERNAMENSP as i32,
            1,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(left),
            pg_sys::Datum::from(right),
            pg_sys::Datum::from(pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE)),
        )
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// The length that `cmk_text(n)` allows, in characters. A type modifier is that and the length of a
/// header, as with varchar.
pub fn limit(kind: Kind, modifier: i32) -> Option<usize> {
    let limit = usize::try_from(modifier).ok()?.checked_sub(pg_sys::VARHDRSZ)?;
    (kind == Kind::Text).then_some(limit)
}

/// An error about a column of a trigger's table, which is named as SQL names it.
pub fn of_table_column(reason: Reason, row: Row, column: pg_sys::AttrNumber) -> Error {
    // SAFETY: catalog look-ups in a transaction on the main thread; C strings or null.
    let names = unsafe {
        let names = [
            pg_sys::get_rel_name(row.table_oid()),
            pg_sys::get_attname(row.table_oid(), column, true),
        ];
        names.map(|name| match name.is_null() {
            true => String::new(),
            false => CStr::from_ptr(name).to_string_lossy().into_owned(),
        })
    };
    let [table, column] = names.map(|name| quoted(&name));
    Error::new(reason).with_info(format!("table={table} column={column}"))
}
