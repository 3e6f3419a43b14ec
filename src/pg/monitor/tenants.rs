//! The tenants whose keys a background worker looks after.

use crate::pg::latest::with_snapshot;
use crate::pg::registry::tables::{DATA_KEY, TENANT};
use crate::pg::registry::{lock, read};
use cmk_error::{Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState};
use pgrx::{Spi, pg_sys};
use std::collections::HashSet;

/// The names of the database's active tenants.
///
/// # Errors
/// `not_installed`; `registry_copied`; `registry_unusable`; `tenant_busy` while somebody locks the
/// table.
pub fn active_tenants() -> Result<HashSet<String>> {
    read::watch()?;
    lock::lock_own_table(TENANT.name, pg_sys::AccessShareLock)?;
    read::require_at_home()?;
    let query = "SELECT tenant FROM cmk.tenant WHERE state OPERATOR(pg_catalog.=) 'active'";
    let names = |client: &pgrx::spi::SpiClient<'_>| {
        let rows = client.select(query, None, &[])?;
        rows.map(|row| row.get::<String>(1)).collect::<pgrx::spi::Result<Vec<_>>>()
    };
    let names = with_snapshot(|| Spi::connect(names)).map_err(|_| Reason::RegistryUnusable)?;
    Ok(names.into_iter().flatten().collect())
}

/// A tenant, if it is active. Read first, so that KMS is asked without locks: in a transaction of
/// its own, with no snapshot held.
pub fn active_tenant(name: &str) -> Option<Tenant> {
    for table in [TENANT, DATA_KEY] {
        lock::lock_own_table(table.name, pg_sys::AccessShareLock).ok()?;
    }
    let found = read::tenant(name).ok().flatten();
    found.filter(|tenant| tenant.state == TenantState::Active)
}
