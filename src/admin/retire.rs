//! Old data keys, destroyed once nothing needs them.
//!
//! That nothing does is proven for this database, in an order that no writer can get around:
//!
//! 1. A scan of all columns that can hold envelopes finds which of the tenant's retired data keys
//!    seal nothing that is committed.
//! 2. Every transaction that is open after that scan is waited for. One of them may have sealed a
//!    value before the data key was retired and not stored it yet, and may see rows as they were
//!    before they were re-encrypted.
//! 3. With the tenant's row locked, a second scan finds what those transactions committed, and what
//!    anybody with an older snapshot can still see and copy. Whoever began later seals under the
//!    current data key.
//!
//! What is outside of the columns of this database, no scan can know. The caller says that it was
//! looked at.

use super::audit::{Act, record};
use super::tenant::{evict_copies, lock};
use crate::column::data_key_scan;
use crate::pg::guard::permitted;
use crate::pg::registry::tables::DATA_KEY;
use crate::pg::registry::{invalidation, lock as registry_lock, read, write};
use crate::pg::{latest, table_scan, transaction};
use cmk_crypto::commitment::DekId;
use cmk_error::{Error, Reason, Result, quoted};
use cmk_keyring::tenant::{DataKey, DataKeyState, Tenant, is_visible};
use cmk_kms::Purpose;
use pgrx::pg_sys;
use pgrx::spi::Spi;
use serde_json::json;
use std::collections::BTreeMap;

/// What became of an old data key.
pub struct Old {
    pub version: i32,
    pub commitment: Vec<u8>,
    pub destroyed: bool,
    /// A column with a value that it seals.
    pub needed_by: Option<String>,
}

/// Destroys the retired data keys of a tenant that no value of this database needs. With `dry_run`
/// it looks once, and destroys nothing. Index keys and current data keys stay.
///
/// # Errors
/// `retirement_unchecked` if the caller does not say what else was looked at; `retirement_blocked`
/// inside a transaction that changed the registry, and while there is a table or transaction that
/// cannot be looked into; as [`lock`].
pub fn retire(tenant: &str, also_checked: Option<&str>, dry_run: bool) -> Result<Vec<Old>> {
    let named = |error: Error| error.for_tenant(tenant);
    let retired = old_keys(&read::require_tenant(tenant)?);
    if dry_run {
        let needed = data_key_scan::needed(&ids(&retired))?;
        return Ok(report(&retired, &needed, &[]));
    }
    if !also_checked.is_some_and(|what| what.chars().any(is_visible)) {
        return Err(named(Reason::RetirementUnchecked.into()));
    }
    if also_checked.is_some_and(|what| what.len() > ALSO_CHECKED_MAX) {
        return Err(named(Error::new(Reason::RetirementUnchecked).with_info("cause=too_long")));
    }
    write::require_writable()?;
    if !transaction::is_fresh() {
        let info = "obstacle=\"this transaction is not this statement alone, READ COMMITTED\"";
        return Err(named(Error::new(Reason::RetirementBlocked).with_info(info)));
    }
    if invalidation::has_uncommitted_changes() {
        let info = "obstacle=\"this transaction changed the registry\"";
        return Err(named(Error::new(Reason::RetirementBlocked).with_info(info)));
    }
    // One at a time: each waits for the other's transaction.
    let one_at_a_time = pg_sys::ShareUpdateExclusiveLock;
    registry_lock::lock_own_table(DATA_KEY.name, one_at_a_time).map_err(named)?;
    refuse_obstacles().map_err(named)?;
    let mut needed = data_key_scan::needed(&ids(&retired))?;
    if needed.len() == retired.len() {
        return Ok(report(&retired, &needed, &[]));
    }
    // Before the lock, since that may take long.
    table_scan::wait_for_transactions();
    let still = old_keys(&lock(tenant, None)?);
    refuse_obstacles().map_err(named)?;
    let is_free = |key: &DataKey| !needed.contains_key(&key.commitment.dek_id());
    let free: Vec<_> = retired.iter().filter(|key| is_free(key) && still.contains(key)).collect();
    let ids: Vec<_> = free.iter().map(|key| key.commitment.dek_id()).collect();
    let late = data_key_scan::needed_by_anybody(&ids)?;
    let is_late = |key: &&&DataKey| late.contains_key(&key.commitment.dek_id());
    let versions: Vec<i32> =
        free.iter().filter(|key| !is_late(key)).map(|key| key.version).collect();
    if !versions.is_empty() {
        destroy(tenant, &versions)?;
    }
    needed.extend(late);
    let old = report(&retired, &needed, &versions);
    for destroyed in old.iter().filter(|old| old.destroyed) {
        write_down(tenant, destroyed, also_checked);
    }
    Ok(old)
}

/// Longest text of what else was looked at, in bytes: it becomes part of an event for ever.
const ALSO_CHECKED_MAX: usize = 4096;

/// An event for each data key that is gone, with the word of whoever destroyed it.
fn write_down(tenant: &str, destroyed: &Old, also_checked: Option<&str>) {
    let commitment: String =
        destroyed.commitment.iter().map(|byte| format!("{byte:02x}")).collect();
    record(&Act {
        act: "retire_keys",
        tenant: Some(tenant),
        data_key: Some(destroyed.version),
        before: Some(json!({ "state": "retired", "commitment": commitment })),
        after: Some(json!({ "state": "destroyed", "also_checked": also_checked })),
    });
}

/// The data keys that open old values only, the oldest first.
fn old_keys(tenant: &Tenant) -> Vec<DataKey> {
    let keys = tenant.data_keys.iter();
    let is_old =
        |key: &&DataKey| key.purpose == Purpose::Values && key.state == DataKeyState::Retired;
    let mut old: Vec<_> = keys.filter(is_old).cloned().collect();
    old.sort_by_key(|key| key.version);
    old
}

fn ids(keys: &[DataKey]) -> Vec<DekId> {
    keys.iter().map(|key| key.commitment.dek_id()).collect()
}

fn report(keys: &[DataKey], needed: &BTreeMap<DekId, String>, destroyed: &[i32]) -> Vec<Old> {
    let old = |key: &DataKey| {
        let needed_by = needed.get(&key.commitment.dek_id()).cloned();
        let commitment = key.commitment.as_bytes().to_vec();
        let destroyed = destroyed.contains(&key.version);
        Old { version: key.version, commitment, destroyed, needed_by }
    };
    keys.iter().map(old).collect()
}

/// Leaves no copy of them in the caches of this server, either: all of the tenant's data keys are
/// unwrapped anew, as after `cmk.evict`.
fn destroy(tenant: &str, versions: &[i32]) -> Result<()> {
    const DESTROY: &str = "
        UPDATE cmk.data_key
           SET state = 'destroyed', wrapped = NULL, next_wrapped = NULL, next_wrapped_by = NULL
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND purpose OPERATOR(pg_catalog.=) 'values'
           AND state OPERATOR(pg_catalog.=) 'retired'
           AND version OPERATOR(pg_catalog.=) ANY ($2)";
    let count = versions.len();
    let arguments = [tenant.into(), versions.to_vec().into()];
    match permitted(|| write::execute(DESTROY, &arguments))? {
        destroyed if destroyed == count => evict_copies(tenant),
        _ => Err(Error::new(Reason::RegistryWrite).for_tenant(tenant)),
    }
}

/// # Errors
/// `retirement_blocked`, which names what cannot be looked into.
fn refuse_obstacles() -> Result<()> {
    const QUERY: &str = "SELECT o.line FROM cmk_internal.retirement_obstacles() o (line)";
    let found = latest::with_snapshot(|| {
        Spi::connect(|client| {
            let mut rows = client.select(QUERY, Some(1), &[])?;
            rows.next().map_or(Ok(None), |row| row.get::<String>(1))
        })
    });
    match found.map_err(|_: pgrx::spi::Error| Error::new(Reason::RegistryUnusable))? {
        None => Ok(()),
        Some(line) => {
            let info = format!("obstacle={}", quoted(&line));
            Err(Error::new(Reason::RetirementBlocked).with_info(info))
        }
    }
}
