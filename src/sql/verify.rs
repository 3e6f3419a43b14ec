//! `cmk.verify_tenant`.

use crate::admin::audit::audited;
use crate::admin::verify as admin;
use crate::pg::datum::required;
use crate::pg::report::IntoSql;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Whether a tenant's key does what it must: a row a check.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn verify_tenant(
    tenant: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(check_name, &'static str),
            name!(status, &'static str),
            name!(required, bool),
            name!(seen, String),
            name!(advice, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let checks = audited("verify_tenant", tenant, || admin::verify(tenant)).into_sql()?;
    let rows = checks
        .into_iter()
        .map(|check| (check.name, check.status.name(), check.required, check.seen, check.advice));
    Ok(TableIterator::new(rows))
}
