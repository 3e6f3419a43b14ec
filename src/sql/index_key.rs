//! Replacing index keys.

use crate::admin::audit::audited;
use crate::admin::index_key as admin;
use crate::pg::datum::required;
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_index_key(tenant: Option<&str>) -> SqlResult<i32> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("rotate_index_key", tenant, || admin::rotate(tenant)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn finish_index_rotation(tenant: Option<&str>) -> SqlResult<bool> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("finish_index_rotation", tenant, || admin::finish(tenant)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn cancel_index_rotation(tenant: Option<&str>) -> SqlResult<bool> {
    let tenant = required(tenant, "tenant").into_sql()?;
    audited("cancel_index_rotation", tenant, || admin::cancel(tenant)).into_sql()
}
