//! Replacing index keys.

use crate::admin::index_key as admin;
use crate::pg::datum::required;
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_index_key(tenant: Option<&str>) -> SqlResult<i32> {
    required(tenant, "tenant").and_then(admin::rotate).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn finish_index_rotation(tenant: Option<&str>) -> SqlResult<bool> {
    required(tenant, "tenant").and_then(admin::finish).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn cancel_index_rotation(tenant: Option<&str>) -> SqlResult<bool> {
    required(tenant, "tenant").and_then(admin::cancel).into_sql()
}
