//! Moving a tenant to another customer managed key.

use crate::admin::audit::audited;
use crate::admin::rewrap as admin;
use crate::pg::datum::{JsonbArg, required};
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function, which pgrx wants in full
fn rewrap_tenant(
    tenant: Option<&str>,
    key_uri: Option<&str>,
    options: default!(Option<JsonbArg>, "'{}'"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(data_keys, i32),
            name!(rewrapped, i32),
            name!(remaining, i32),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let key_uri = required(key_uri, "key_uri").into_sql()?;
    let options = required(options, "options").into_sql()?;
    let progress = audited("rewrap_tenant", tenant, || {
        let options = options.text().map_err(|error| error.for_tenant(tenant))?;
        admin::begin(tenant, key_uri, options)
    });
    let admin::Progress { data_keys, rewrapped, problem } = progress.into_sql()?;
    let remaining = data_keys.saturating_sub(rewrapped);
    let [data_keys, rewrapped, remaining] =
        [data_keys, rewrapped, remaining].map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    let problem = problem.map(|error| error.to_string());
    Ok(TableIterator::once((data_keys, rewrapped, remaining, problem)))
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn confirm_rewrap(tenant: Option<&str>) -> SqlResult<i32> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let moved = audited("confirm_rewrap", tenant, || admin::confirm(tenant)).into_sql()?;
    Ok(i32::try_from(moved).unwrap_or(i32::MAX))
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn cancel_rewrap(tenant: Option<&str>) -> SqlResult<bool> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("cancel_rewrap", tenant, || admin::cancel(tenant)).into_sql()
}
