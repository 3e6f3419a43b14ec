//! Data keys: made, rotated, destroyed on purpose.

use super::tenant::lock;
use crate::pg::backend::{BACKEND, keyring};
use crate::pg::{guard, write};
use cmk_crypto::commitment::Commitment;
use cmk_error::{Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState};

/// New values are sealed under a new data key; the old one goes on opening old values. Returns the version of the new one.
///
/// # Errors
/// As [`lock`]; what KMS refuses with.
pub fn rotate(tenant: &str) -> Result<i32> {
    add_data_key(&lock(tenant, TenantState::Active)?)
}

/// The only way to what DROP EXTENSION, DELETE and TRUNCATE are refused for. Returns how many data keys there were.
///
/// # Errors
/// `database_name` unless it is this database's, `read_only`.
pub fn destroy_all(database: &str) -> Result<usize> {
    const CURRENT: &str = "SELECT WHERE pg_catalog.current_database() OPERATOR(pg_catalog.=) $1";
    if write::execute(CURRENT, &[database.into()])? == 0 {
        return Err(Reason::DatabaseName.into());
    }
    guard::permitted(|| write::execute("DELETE FROM cmk.data_key", &[]))
}

/// Has KMS make a data key, and stores it as the current one. Returns its version.
pub(super) fn add_data_key(tenant: &Tenant) -> Result<i32> {
    let version = tenant.next_version()?;
    let made = keyring().make_data_key(&BACKEND, tenant);
    put_data_key(&tenant.name, version, &made.map_err(|error| error.for_tenant(&tenant.name))?)?;
    Ok(version)
}

pub(super) fn put_data_key(
    tenant: &str,
    version: i32,
    (wrapped, commitment): &(Vec<u8>, Commitment),
) -> Result<()> {
    const RETIRE: &str = "
        UPDATE cmk.data_key SET state = 'retired'
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'current'";
    write::execute(RETIRE, &[tenant.into()])?;
    const INSERT: &str = "
        INSERT INTO cmk.data_key (tenant, version, commitment, wrapped) VALUES ($1, $2, $3, $4)";
    let commitment = commitment.as_bytes().as_slice();
    let arguments = [tenant.into(), version.into(), commitment.into(), wrapped.as_slice().into()];
    // Nothing but a trigger of somebody else could keep the row out.
    if write::execute(INSERT, &arguments)? != 1 {
        return Err(Reason::RegistryWrite.into());
    }
    const COUNT: &str = "
        UPDATE cmk.tenant SET last_version = $2 WHERE tenant OPERATOR(pg_catalog.=) $1";
    write::execute(COUNT, &[tenant.into(), version.into()])?;
    Ok(())
}
