//! What happens to the registry as a whole.

use super::audit::{Act, record};
use crate::pg::registry::write;
use crate::pg::{guard, identity};
use cmk_error::{Reason, Result};

/// Makes a registry that CREATE DATABASE ... TEMPLATE copied the registry of this database.
///
/// # Errors
/// `registry_write` unless the caller is a superuser, whatever was granted to them; `read_only`.
pub fn adopt() -> Result<()> {
    const ADOPT: &str = "
        INSERT INTO cmk.home (database)
        SELECT d.oid FROM pg_catalog.pg_database d
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";
    if !identity::is_superuser() {
        return Err(Reason::RegistryWrite.into());
    }
    guard::permitted(|| write::execute("DELETE FROM cmk.home", &[]))?;
    write::one(ADOPT, &[])?;
    let act = "adopt_registry";
    record(&Act { act, tenant: None, data_key: None, before: None, after: None });
    Ok(())
}
