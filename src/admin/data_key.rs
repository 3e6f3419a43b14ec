//! Data keys: made, rotated, destroyed on purpose.

use super::audit::{Act, record};
use crate::pg::guard;
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::write;
use cmk_error::{Reason, Result};
use cmk_keyring::tenant::{DataKey, DataKeyState, Tenant};
use cmk_keyring::unwrap::WrappedDataKey;
use cmk_kms::Purpose;
use serde_json::json;

/// The only way to what DROP EXTENSION, DELETE and TRUNCATE are refused for. Returns how many data
/// keys there were.
///
/// # Errors
/// `database_name` unless it is this database's, `read_only`.
pub fn destroy_all(database: &str) -> Result<usize> {
    const CURRENT: &str = "SELECT WHERE pg_catalog.current_database() OPERATOR(pg_catalog.=) $1";
    if write::execute(CURRENT, &[database.into()])? == 0 {
        return Err(Reason::DatabaseName.into());
    }
    let destroyed = guard::permitted(|| write::execute("DELETE FROM cmk.data_key", &[]))?;
    let (act, after) = ("destroy_data_keys", Some(json!({ "data_keys_destroyed": destroyed })));
    record(&Act { act, tenant: None, data_key: None, before: None, after });
    Ok(destroyed)
}

/// An event: `version` is the current data key of that purpose from now on.
pub(super) fn record_change(act: &'static str, tenant: &Tenant, purpose: Purpose, version: i32) {
    let current = |key: &DataKey| key.purpose == purpose && key.state == DataKeyState::Current;
    let before = tenant.data_keys.iter().find(|key| current(key));
    record(&Act {
        act,
        tenant: Some(&tenant.name),
        data_key: Some(version),
        before: before.map(|key| json!({ "current": key.version })),
        after: Some(json!({ "current": version })),
    });
}

/// Has KMS make a data key, and stores it as the current one of its purpose. Returns its version.
pub(super) fn add(tenant: &Tenant, purpose: Purpose) -> Result<i32> {
    let version = tenant.next_version()?;
    put(tenant, version, purpose, &make(tenant, purpose)?)?;
    Ok(version)
}

/// Has KMS make a data key.
pub(super) fn make(tenant: &Tenant, purpose: Purpose) -> Result<WrappedDataKey> {
    let made = keyring().make_data_key(&THIS_PROCESS, tenant, purpose);
    made.map_err(|error| error.for_tenant(&tenant.name))
}

pub(super) fn put(
    tenant: &Tenant,
    version: i32,
    purpose: Purpose,
    made: &WrappedDataKey,
) -> Result<()> {
    retire(tenant, purpose)?;
    insert(tenant, version, purpose, "current", made)
}

/// The current data key of a purpose becomes one that seals nothing any more.
pub(super) fn retire(tenant: &Tenant, purpose: Purpose) -> Result<()> {
    const RETIRE: &str = "
        UPDATE cmk.data_key SET state = 'retired'
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND purpose OPERATOR(pg_catalog.=) $2
           AND state OPERATOR(pg_catalog.=) 'current'";
    write::execute(RETIRE, &[(&*tenant.name).into(), purpose.name().into()]).map(|_| ())
}

/// Stores a data key in the state given.
pub(super) fn insert(
    tenant: &Tenant,
    version: i32,
    purpose: Purpose,
    state: &str,
    made: &WrappedDataKey,
) -> Result<()> {
    let (name, purpose) = (&*tenant.name, purpose.name());
    const INSERT: &str = "
        INSERT INTO cmk.data_key (tenant, version, purpose, commitment, wrapped, wrapped_by, state)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let arguments = [
        name.into(),
        version.into(),
        purpose.into(),
        made.commitment.as_bytes().as_slice().into(),
        made.wrapped.as_slice().into(),
        tenant.customer_key.uri().into(),
        state.into(),
    ];
    write::one(INSERT, &arguments)?;
    const COUNT: &str = "
        UPDATE cmk.tenant SET last_version = $2 WHERE tenant OPERATOR(pg_catalog.=) $1";
    write::one(COUNT, &[name.into(), version.into()])
}
