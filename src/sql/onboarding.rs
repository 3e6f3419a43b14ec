//! What the owner of a tenant's key is asked for.

use crate::admin::onboarding as admin;
use crate::pg::datum::required;
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::JsonB;
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn key_policy(tenant: Option<&str>) -> SqlResult<JsonB> {
    required(tenant, "tenant").and_then(admin::key_policy).map(JsonB).into_sql()
}

#[pg_extern(schema = "cmk", stable, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn service_policy(tenant: default!(Option<&str>, "NULL")) -> SqlResult<JsonB> {
    admin::service_policy(tenant).map(JsonB).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn onboarding(
    tenant: Option<&str>,
    format: default!(Option<&str>, "'guide'"),
) -> SqlResult<String> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let format = required(format, "format").into_sql()?;
    admin::document(tenant, format).into_sql()
}
