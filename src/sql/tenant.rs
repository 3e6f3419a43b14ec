//! A tenant's life: register, activate, rotate, change its options, suspend, resume, evict.

use crate::admin::tenant as admin;
use crate::pg::datum::{JsonbArg, required};
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn register_tenant(
    tenant: Option<&str>,
    key_uri: Option<&str>,
    options: default!(Option<JsonbArg>, "'{}'"),
    activate: default!(Option<bool>, true),
) -> SqlResult<&'static str> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let key_uri = required(key_uri, "key_uri").into_sql()?;
    let options = required(options, "options").into_sql()?;
    let activate = required(activate, "activate").into_sql()?;
    let register = |options| admin::register(tenant, key_uri, options, activate);
    let registered = options.text().map_err(|error| error.for_tenant(tenant)).and_then(register);
    registered.map(|state| state.name()).into_sql()
}

/// Changes the options of a tenant's key.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn alter_tenant_options(tenant: Option<&str>, options: Option<JsonbArg>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let options = required(options, "options").into_sql()?;
    let options = options.text().map_err(|error| error.for_tenant(tenant));
    options.and_then(|options| admin::alter_options(tenant, options)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn activate_tenant(tenant: Option<&str>) -> SqlResult<&'static str> {
    let state = required(tenant, "tenant").and_then(admin::activate);
    state.map(|state| state.name()).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_tenant(tenant: Option<&str>) -> SqlResult<i32> {
    required(tenant, "tenant").and_then(admin::rotate).into_sql()
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
