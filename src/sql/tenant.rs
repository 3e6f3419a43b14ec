//! A tenant's life: register, activate, rotate, change its options, suspend, resume, evict, shred,
//! remove.

use crate::admin::audit::audited;
use crate::admin::{rotation, shred, tenant as admin};
use crate::pg::datum::{JsonbArg, required};
use crate::pg::report::{IntoSql, SqlResult};
use cmk_audit::event::EVERY_TENANT;
use pgrx::JsonB;
use pgrx::datum::Interval;
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
    let registered = audited("register_tenant", tenant, || {
        let options = options.text().map_err(|error| error.for_tenant(tenant))?;
        admin::register(tenant, key_uri, options, activate)
    });
    registered.map(|state| state.name()).into_sql()
}

/// Changes the options of a tenant's key.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn alter_tenant_options(tenant: Option<&str>, options: Option<JsonbArg>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let options = required(options, "options").into_sql()?;
    let altered = audited("alter_tenant_options", tenant, || {
        let options = options.text().map_err(|error| error.for_tenant(tenant))?;
        admin::alter_options(tenant, options)
    });
    altered.into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn activate_tenant(tenant: Option<&str>) -> SqlResult<&'static str> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let state = audited("activate_tenant", tenant, || admin::activate(tenant));
    state.map(|state| state.name()).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_tenant(tenant: Option<&str>) -> SqlResult<i32> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("rotate_tenant", tenant, || admin::rotate(tenant)).into_sql()
}

/// When the monitor rotates a tenant's data key.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn alter_tenant_rotation(
    tenant: Option<&str>,
    rotate_after: default!(Option<Interval>, "NULL"),
    rotate_after_values: default!(Option<i64>, "NULL"),
) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let alter = || rotation::alter(tenant, rotate_after, rotate_after_values);
    audited("alter_tenant_rotation", tenant, alter).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn suspend_tenant(tenant: Option<&str>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("suspend_tenant", tenant, || admin::suspend(tenant)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn resume_tenant(tenant: Option<&str>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("resume_tenant", tenant, || admin::resume(tenant)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn evict(tenant: Option<&str>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("evict", tenant, || admin::evict(tenant)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn evict_all() -> SqlResult<()> {
    audited("evict_all", EVERY_TENANT, admin::evict_all).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn shred_tenant(
    tenant: Option<&str>,
    confirm: Option<&str>,
    immediately: default!(Option<bool>, false),
) -> SqlResult<JsonB> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let confirm = required(confirm, "confirm").into_sql()?;
    let immediately = required(immediately, "immediately").into_sql()?;
    audited("shred_tenant", tenant, || shred::shred(tenant, confirm, immediately)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn remove_tenant(tenant: Option<&str>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("remove_tenant", tenant, || shred::remove(tenant)).into_sql()
}
