//! What happens to the registry as a whole: destroyed on purpose, adopted after a copy.

use crate::error::{Error, Reason, Result};
use crate::pg::datum::required;
use crate::pg::report::SqlResult;
use crate::pg::{guard, registry, write};
use pgrx::prelude::*;

/// The only way to what DROP EXTENSION, DELETE and TRUNCATE are refused for. Returns how many data keys there were.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn destroy_data_keys(database: Option<&str>) -> SqlResult<i32> {
    const CURRENT: &str = "SELECT WHERE pg_catalog.current_database() OPERATOR(pg_catalog.=) $1";
    let database = required(database, "database")?;
    if write::execute(CURRENT, &[database.into()])? == 0 {
        return Err(Error::new(Reason::DatabaseName).into());
    }
    let deleted: Result<usize> =
        guard::permitted(|| write::execute("DELETE FROM cmk.data_key", &[]));
    Ok(deleted? as i32)
}

/// Not SECURITY DEFINER: it is the caller who must be a superuser, whatever was granted to him.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn adopt_registry() -> SqlResult<()> {
    const ADOPT: &str = "
        INSERT INTO cmk.home
        SELECT d.oid FROM pg_catalog.pg_database d
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";
    if !registry::caller_is_superuser() {
        return Err(Error::new(Reason::RegistryWrite).into());
    }
    let deleted: Result<usize> = guard::permitted(|| write::execute("DELETE FROM cmk.home", &[]));
    deleted?;
    write::execute(ADOPT, &[])?;
    Ok(())
}
