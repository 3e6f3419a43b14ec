//! What happens to the registry as a whole: destroyed on purpose, adopted after a copy.

use crate::admin::audit::audited;
use crate::admin::{data_key, registry};
use crate::pg::datum::required;
use crate::pg::report::{IntoSql, SqlResult};
use cmk_audit::event::EVERY_TENANT;
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn destroy_data_keys(database: Option<&str>) -> SqlResult<i32> {
    let database = required(database, "database").into_sql()?;
    let destroy = || data_key::destroy_all(database);
    let destroyed = audited("destroy_data_keys", EVERY_TENANT, destroy).into_sql()?;
    Ok(destroyed as i32)
}

/// Not SECURITY DEFINER: it is the caller who must be a superuser, whatever was granted to them.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn adopt_registry() -> SqlResult<()> {
    audited("adopt_registry", EVERY_TENANT, registry::adopt).into_sql()
}
