//! Destroying old data keys that nothing needs, and which keys values need.

use crate::admin::audit::audited;
use crate::admin::{reencrypt, retire as admin};
use crate::column::data_key_scan;
use crate::pg::clock;
use crate::pg::datum::required;
use crate::pg::raw::column_function;
use crate::pg::report::{IntoSql, SqlResult};
use cmk_crypto::commitment::DekId;
use pgrx::JsonB;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn retire_keys(
    tenant: Option<&str>,
    also_checked: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, false),
) -> Result<
    TableIterator<
        'static,
        (
            name!(version, i32),
            name!(commitment, Vec<u8>),
            name!(destroyed, bool),
            name!(needed_by, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let dry_run = required(dry_run, "dry_run").into_sql()?;
    let retire = || admin::retire(tenant, also_checked, dry_run);
    let old = audited("retire_keys", tenant, retire).into_sql()?;
    let rows =
        old.into_iter().map(|old| (old.version, old.commitment, old.destroyed, old.needed_by));
    Ok(TableIterator::new(rows))
}

// `cmk_internal.reencrypt_begin(relation, attnum)`: declared in sql/reencrypt/, STRICT.
column_function!(reencrypt_begin, |call| {
    let (table, column) = (call.datum(0).value() as u32, call.datum(1).value() as i16);
    reencrypt::begin(pg_sys::Oid::from(table), column)?;
    Ok(pg_sys::Datum::null())
});

// `cmk_internal.reencrypt_end()`.
column_function!(reencrypt_end, |_call| {
    reencrypt::end();
    Ok(pg_sys::Datum::null())
});

/// `cmk_internal.waited_for_processor`, declared in `sql/reencrypt/values.sql`: in seconds.
#[pg_extern(sql = false)]
fn waited_for_processor() -> f64 {
    clock::waited_for_processor().as_secs_f64()
}

/// `cmk_internal.outdated_values`, declared there, too.
#[pg_extern(sql = false)]
fn outdated_values(relation: pg_sys::Oid, attnum: i16) -> SqlResult<JsonB> {
    let counts = data_key_scan::outdated(relation, attnum).into_sql()?;
    let name = |id: Option<DekId>| -> String {
        id.iter().flat_map(|id| id.0).map(|byte| format!("{byte:02x}")).collect()
    };
    let counts = counts.into_iter().map(|(id, number)| (name(id), number.into()));
    Ok(JsonB(serde_json::Value::Object(counts.collect())))
}

/// `cmk_internal.has_outdated_values`, declared there, too.
#[pg_extern(sql = false)]
fn has_outdated_values(relation: pg_sys::Oid, attnum: i16) -> SqlResult<bool> {
    data_key_scan::has_outdated(relation, attnum).into_sql()
}

/// `cmk_internal.sealed_values`, declared in `sql/protect/keys.sql`.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn sealed_values(
    relation: pg_sys::Oid,
    attnum: i16,
) -> Result<
    TableIterator<
        'static,
        (
            name!(dek_id, Vec<u8>),
            name!(index_key, Option<Vec<u8>>),
            name!(next_index_key, Option<Vec<u8>>),
            name!(number, i64),
        ),
    >,
    ErrorReport,
> {
    let counts = data_key_scan::sealed(relation, attnum).into_sql()?;
    let bytes = |id: [u8; 4]| id.to_vec();
    let rows = counts.into_iter().map(move |((id, first, next), number)| {
        (id.0.to_vec(), first.map(bytes), next.map(bytes), number)
    });
    Ok(TableIterator::new(rows))
}
