//! Functions about protected columns, beside those of the types (`sql/columns/`).

use crate::column::{seal_batch, stats};
use crate::pg::datum::required;
use crate::pg::error_context;
use crate::pg::latest;
use crate::pg::protection;
use crate::pg::report::{IntoSql, SqlResult};
use crate::pg::settings;
use cmk_error::{Error, Reason, Result};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// What this session sealed and opened of protected columns.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
fn column_stats() -> TableIterator<'static, (name!(seals, i64), name!(opens, i64))> {
    let (seals, opens) = stats::totals();
    TableIterator::once((seals as i64, opens as i64))
}

/// Whether the library was loaded before the session's first statement: then its hooks see all of
/// them.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
fn is_preloaded() -> bool {
    settings::guard::was_preloaded()
}

/// How the columns of this database are protected, as the sealing trigger reads it.
#[pg_extern(schema = "cmk", stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn protections() -> TableIterator<
    'static,
    (
        name!(relation, pg_sys::Oid),
        name!(attnum, i16),
        name!(label, String),
        name!(tenant, Option<String>),
        name!(options, Option<String>),
        name!(constraint_oid, pg_sys::Oid),
        name!(validated, bool),
    ),
> {
    TableIterator::new(constraints().or_raise().into_iter().filter_map(
        |(constraint, table, expression, validated)| {
            let expression = CString::new(expression).ok()?;
            // SAFETY: the expression of a constraint, out of the catalog.
            unsafe {
                let read = protection::read(expression.as_ptr())?;
                let tenant = match read.tenant {
                    None => None,
                    Some(tenant) => Some(protection::sql_of(tenant, table)?),
                };
                let (label, options) = (read.label, read.options);
                Some((table, read.column, label, tenant, options, constraint, validated))
            }
        },
    ))
}

type Constraint = (pg_sys::Oid, pg_sys::Oid, String, bool);

/// CHECK constraints that call `cmk.sealed`.
///
/// # Errors
/// `not_installed` if PostgreSQL can't say.
fn constraints() -> Result<Vec<Constraint>> {
    const QUERY: &CStr = c"
        SELECT DISTINCT c.oid, c.conrelid, c.conbin::pg_catalog.text, c.convalidated
          FROM pg_catalog.pg_constraint c
          JOIN pg_catalog.pg_depend d
            ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
           AND d.objid OPERATOR(pg_catalog.=) c.oid
           AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          JOIN pg_catalog.pg_proc p
            ON p.oid OPERATOR(pg_catalog.=) d.refobjid
          JOIN pg_catalog.pg_namespace n
            ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
         WHERE c.contype OPERATOR(pg_catalog.=) 'c'
           AND p.proname OPERATOR(pg_catalog.=) 'sealed'
           AND n.nspname OPERATOR(pg_catalog.=) 'cmk'";
    // SAFETY: oid, oid, text and bool.
    let rows = latest::select_as_query(QUERY, |rows, row| unsafe {
        Some((rows.get(row, 1)?, rows.get(row, 2)?, rows.get(row, 3)?, rows.get(row, 4)?))
    });
    rows.map(|rows| rows.into_iter().flatten().collect()).map_err(|_| Reason::NotInstalled.into())
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe)]
fn seal_batch(
    relation: Option<pg_sys::Oid>,
    attnum: Option<i16>,
    first_block: Option<i64>,
    last_block: Option<i64>,
    skip: Option<Vec<Option<String>>>,
) -> SqlResult<i64> {
    let seal = || {
        let relation = required(relation, "relation")?;
        let attnum = required(attnum, "attnum")?;
        let first = required(first_block, "first_block")?;
        let last = required(last_block, "last_block")?;
        let skip = required(skip, "skip")?;
        seal_batch::seal_batch(relation, attnum, first..last, &skip)
    };
    seal().into_sql()
}

/// The error of that name in the table of errors, for functions that are written in SQL.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
fn raise(reason: Option<&str>, info: default!(Option<&str>, "NULL")) -> SqlResult<()> {
    let named = reason.and_then(Reason::from_name);
    let error = match named {
        None => Error::new(Reason::ReasonName),
        Some(reason) => match info {
            Some(info) => Error::new(reason).with_info(info),
            None => Error::new(reason),
        },
    };
    // The functions that call this one say nothing to whoever called them.
    error_context::hide();
    Err(error).into_sql()
}
