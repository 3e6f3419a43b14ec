//! What happens to the registry as a whole: destroyed on purpose, adopted after a copy.

use crate::admin::{data_key, registry};
use crate::pg::datum::required;
use crate::pg::report::{IntoSql, SqlResult};
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn destroy_data_keys(database: Option<&str>) -> SqlResult<i32> {
    let destroyed = required(database, "database").and_then(data_key::destroy_all).into_sql()?;
    Ok(destroyed as i32)
}

/// Not SECURITY DEFINER: it is the caller who must be a superuser, whatever was granted to them.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn adopt_registry() -> SqlResult<()> {
    registry::adopt().into_sql()
}
