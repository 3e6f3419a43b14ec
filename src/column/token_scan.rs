//! Looks through all values of searchable columns, without a key and without a lock that keeps
//! writers out.

use super::check::header_of;
use super::options::Search;
use super::tags;
use crate::pg::{latest, table_scan};
use cmk_envelope::column::{INDEX_KEY_ID_LEN, Tokens};
use cmk_error::Result;
use pgrx::pg_sys;
use std::ffi::CStr;

/// The index keys that a value's tokens are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokensOf {
    pub first: [u8; INDEX_KEY_ID_LEN],
    pub next: Option<[u8; INDEX_KEY_ID_LEN]>,
}

impl From<Tokens> for TokensOf {
    fn from(tokens: Tokens) -> Self {
        let (first, next) = (tokens.first.index_key, tokens.next.map(|next| next.index_key));
        Self { first, next }
    }
}

struct Column {
    table: pg_sys::Oid,
    number: pg_sys::AttrNumber,
    /// The names of both, as SQL has them.
    name: String,
}

/// Whether the database has a searchable column, be there rows or not.
///
/// # Errors
/// `registry_unusable`.
pub fn has_searchable_column() -> Result<bool> {
    const QUERY: &CStr = c"SELECT FROM cmk.protections() p WHERE p.options IS NOT NULL LIMIT 1";
    latest::select(QUERY, &[], |_, _| ()).map(|found| !found.is_empty())
}

/// The searchable columns of all tables that hold rows, as they are now: the transaction may have
/// begun before others came, whose values are looked at all the same.
///
/// # Errors
/// `registry_unusable`.
fn columns() -> Result<Vec<Column>> {
    const QUERY: &CStr = c"
        SELECT p.relation, p.attnum, p.options,
               pg_catalog.format('%s.%I', p.relation::pg_catalog.regclass, a.attname)
          FROM cmk.protections() p
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) p.relation
           AND a.attnum OPERATOR(pg_catalog.=) p.attnum
          JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.relation
         WHERE p.options IS NOT NULL AND c.relkind OPERATOR(pg_catalog.=) 'r'
           AND (c.relpersistence OPERATOR(pg_catalog.<>) 't'
                OR c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())";
    // SAFETY: oid, int2, text and text.
    let read = latest::select(QUERY, &[], |rows, row| unsafe {
        let (table, number) = (rows.get(row, 1)?, rows.get(row, 2)?);
        Some((Column { table, number, name: rows.get(row, 4)? }, rows.get::<String>(row, 3)))
    });
    let columns = read?.into_iter().flatten();
    // With other options, no row would be let in.
    let is_searchable = |options: &Option<String>| {
        matches!(Search::parse(options.as_deref().map(str::as_bytes)), Ok(Some(_)))
    };
    Ok(columns.filter(|(_, options)| is_searchable(options)).map(|(column, _)| column).collect())
}

/// The name of a searchable column that holds a value of the tenant whose tokens are of other
/// index keys; `None` if there is none.
///
/// # Errors
/// `registry_unusable`.
pub fn find_other(tenant: &str, tokens: &TokensOf) -> Result<Option<String>> {
    let tenant = tags::of_tenant(tenant.as_bytes());
    for Column { table, number, name } in columns()? {
        let is_other = |value| match header_of(value) {
            None => false,
            Some(header) => {
                header.tenant == tenant && header.tokens.map(TokensOf::from) != Some(*tokens)
            }
        };
        if table_scan::any(table, number, is_other) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The tables with a searchable column that hold a value of the tenant.
///
/// # Errors
/// `registry_unusable`.
pub fn tables_of(tenant: &str) -> Result<Vec<pg_sys::Oid>> {
    let tenant = tags::of_tenant(tenant.as_bytes());
    let is_its = |value| header_of(value).is_some_and(|header| header.tenant == tenant);
    let columns = columns()?.into_iter();
    let with_values = columns.filter(|it| table_scan::any(it.table, it.number, is_its));
    Ok(with_values.map(|column| column.table).collect())
}

/// Waits until everybody who writes to a table with a searchable column is done. Who begins
/// meanwhile isn't waited for.
///
/// # Errors
/// `registry_unusable`.
pub fn wait_for_writers() -> Result<()> {
    for column in columns()? {
        table_scan::wait_for_writers(column.table);
    }
    Ok(())
}
