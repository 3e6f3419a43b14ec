//! The protections of tables, remembered: the planner asks for them in every statement.

use super::protection;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Tables that a session remembers.
const REMEMBERED: usize = 1024;

/// What a constraint says, as far as the planner wants to know.
#[derive(Debug)]
pub struct Known {
    pub column: pg_sys::AttrNumber,
    pub label: String,
    pub options: Option<String>,
    /// The column that says whose a row is; `None` where that is no column.
    pub tenant: Option<pg_sys::AttrNumber>,
    /// Every row is sealed.
    pub is_valid: bool,
}

thread_local! {
    static TABLES: RefCell<HashMap<pg_sys::Oid, Rc<[Known]>>> = RefCell::new(HashMap::new());
}

/// Once per process, or in the postmaster for all its children.
pub fn register_callback() {
    // SAFETY: called from _PG_init on the main thread; the callback touches memory of this library
    // only.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0_usize));
    }
}

#[pg_guard]
extern "C-unwind" fn forget(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    // A message that comes while the memory is in use finds it so later: it is in use for look-ups
    // only, which end before the next.
    TABLES.with(|tables| {
        if let Ok(mut tables) = tables.try_borrow_mut() {
            match relation == pg_sys::InvalidOid {
                true => tables.clear(),
                false => drop(tables.remove(&relation)),
            }
        }
    });
}

/// How the columns of a table are protected.
///
/// # Safety
/// The table is locked by the query that is planned; in a transaction on the main thread.
pub unsafe fn of_table(table: pg_sys::Oid) -> Rc<[Known]> {
    if let Some(known) = TABLES.with_borrow(|tables| tables.get(&table).cloned()) {
        return known;
    }
    // SAFETY: the caller's promise. The relation's constraints are as many as it says.
    let known: Rc<[Known]> = unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return Rc::from([]);
        }
        let checks = match (*(*relation).rd_att).constr.as_ref() {
            Some(constraints) if constraints.num_check > 0 => {
                std::slice::from_raw_parts(constraints.check, constraints.num_check.into())
            }
            _ => &[],
        };
        let known = checks.iter().filter_map(|check| {
            let read = protection::read(check.ccbin)?;
            let tenant = read.tenant.and_then(|tenant| protection::one_column_of(tenant));
            let (column, label, options) = (read.column, read.label, read.options);
            Some(Known { column, label, options, tenant, is_valid: check.ccvalid })
        });
        let known = known.collect();
        pg_sys::RelationClose(relation);
        known
    };
    TABLES.with_borrow_mut(|tables| {
        if tables.len() >= REMEMBERED {
            tables.clear();
        }
        tables.insert(table, known.clone());
    });
    known
}
