//! A tenant's life: register, activate, rotate, suspend, resume, evict.

use crate::admin::{data_key, tenant as admin};
use crate::pg::datum::required;
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn register_tenant(
    tenant: Option<&str>,
    key_uri: Option<&str>,
    role_arn: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
    activate: default!(Option<bool>, true),
) -> SqlResult<&'static str> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let key_uri = required(key_uri, "key_uri").into_sql()?;
    let activate = required(activate, "activate").into_sql()?;
    admin::register(tenant, key_uri, role_arn, external_id, activate).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn activate_tenant(tenant: Option<&str>) -> SqlResult<&'static str> {
    required(tenant, "tenant").and_then(admin::activate).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_tenant(tenant: Option<&str>) -> SqlResult<i32> {
    required(tenant, "tenant").and_then(data_key::rotate).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn suspend_tenant(tenant: Option<&str>) -> SqlResult<()> {
    required(tenant, "tenant").and_then(admin::suspend).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn resume_tenant(tenant: Option<&str>) -> SqlResult<()> {
    required(tenant, "tenant").and_then(admin::resume).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn evict(tenant: Option<&str>) -> SqlResult<()> {
    required(tenant, "tenant").and_then(admin::evict).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn evict_all() -> SqlResult<()> {
    admin::evict_all().into_sql()
}
