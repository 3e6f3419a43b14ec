//! A tenant's life: register, activate, rotate, change its options, suspend, resume, evict.
//!
//! `activate` and `rotate` skip a locked tenant instead of queueing behind a KMS call, so of two
//! DBAs at once one wins and the other hears `tenant_busy`.

use super::data_key;
use crate::column::token_scan;
use crate::pg::brake::{self, Target};
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::tables::TENANT;
use crate::pg::registry::{read, write};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState, check_tenant_name, check_tenant_name_length};
use cmk_kms::{CustomerKey, Purpose};
use pgrx::datum::DatumWithOid;

/// Registers a tenant and, if it is to be active, makes its first data key, and an index key if the
/// database has a searchable column. Returns its state.
///
/// `options` is a JSON object; which ones there are is the provider's business.
///
/// # Errors
/// `tenant_name`, `key_uri`, `key_options`, `role_arn`, `external_id`, `read_only`,
/// `registry_copied`, `tenant_exists`, `tenant_row_missing`; what KMS refuses with.
pub fn register(tenant: &str, key_uri: &str, options: &str, activate: bool) -> Result<TenantState> {
    check_tenant_name(tenant)?;
    let named = |error: Error| error.for_tenant(tenant);
    // Drawn anew, so that no session of a role is used that an earlier attempt left.
    let epoch = new_epoch()?;
    let customer_key = CustomerKey::parse(key_uri, options, epoch).map_err(named)?;
    write::require_writable()?;
    read::require_at_home().map_err(named)?;
    if read::is_registered(tenant)? {
        return Err(named(Reason::TenantExists.into()));
    }
    read::require_no_data_keys(tenant)?;
    let registered = Tenant {
        name: tenant.into(),
        state: TenantState::Pending,
        epoch,
        customer_key,
        last_version: 0,
        data_keys: Vec::new(),
    };
    // Before the first change of the registry, so that all processes know what KMS says.
    let make = || keyring().make_data_key(&THIS_PROCESS, &registered, Purpose::Values);
    let made = activate.then(make).transpose().map_err(named)?;
    let make_index_key = || data_key::make(&registered, Purpose::Index);
    let needs_index_key = activate && token_scan::has_searchable_column()?;
    let index_key = needs_index_key.then(make_index_key).transpose()?;
    const INSERT: &str = "
        INSERT INTO cmk.tenant (tenant, key_uri, options, epoch)
        VALUES ($1, $2, $3::pg_catalog.text::pg_catalog.jsonb, $4) ON CONFLICT DO NOTHING";
    let key = &registered.customer_key;
    let arguments = [tenant.into(), key.uri().into(), key.options().into(), epoch.into()];
    if write::execute(INSERT, &arguments)? == 0 {
        let exists = read::is_registered(tenant)?;
        let reason = if exists { Reason::TenantExists } else { Reason::RegistryWrite };
        return Err(named(reason.into()));
    }
    let Some(made) = made else { return Ok(TenantState::Pending) };
    data_key::put(&registered, 1, Purpose::Values, &made)?;
    if let Some(index_key) = index_key {
        data_key::put(&registered, 2, Purpose::Index, &index_key)?;
    }
    set_state(tenant, TenantState::Pending, TenantState::Active)?;
    Ok(TenantState::Active)
}

/// Changes the options of a tenant's key. KMS has to unwrap the current data key that way before
/// anything changes; of a pending tenant there is none to unwrap.
///
/// # Errors
/// `key_options`, `role_arn`, `external_id`; as [`lock`]; what KMS refuses with, and then all is as
/// before.
pub fn alter_options(tenant: &str, options: &str) -> Result<()> {
    let named = |error: Error| error.for_tenant(tenant);
    let registered = lock(tenant, None)?;
    let epoch = new_epoch()?;
    let key = CustomerKey::parse(registered.customer_key.uri(), options, epoch).map_err(named)?;
    if key == registered.customer_key {
        return Ok(());
    }
    if registered.state != TenantState::Pending {
        keyring().prove_key(&THIS_PROCESS, &registered, &key).map_err(named)?;
    }
    const UPDATE: &str = "
        UPDATE cmk.tenant
           SET options = $2::pg_catalog.text::pg_catalog.jsonb, epoch = $3,
               changed_at = pg_catalog.now()
         WHERE tenant OPERATOR(pg_catalog.=) $1";
    write::one(UPDATE, &[tenant.into(), key.options().into(), epoch.into()])
}

/// Makes the first data key of a pending tenant. Returns its new state.
///
/// # Errors
/// As [`lock`]; what KMS refuses with.
pub fn activate(tenant: &str) -> Result<TenantState> {
    let locked = lock(tenant, Some(TenantState::Pending))?;
    let version = data_key::add(&locked, Purpose::Values)?;
    if token_scan::has_searchable_column()? {
        let made = data_key::make(&locked, Purpose::Index)?;
        data_key::put(&locked, version + 1, Purpose::Index, &made)?;
    }
    set_state(tenant, TenantState::Pending, TenantState::Active)?;
    Ok(TenantState::Active)
}

/// Takes effect in every session at once where it has to wait for other changes of the tenant: this
/// is the brake.
///
/// # Errors
/// `tenant_name`, `unknown_tenant`, `tenant_state_conflict`, `read_only`, `registry_write`,
/// `not_installed`.
pub fn suspend(tenant: &str) -> Result<()> {
    check_tenant_name_length(tenant)?;
    let arguments = [tenant.into()];
    brake::suspend(tenant, &row_of_tenant(&arguments))?;
    // What others are about to commit is what counts: a resumption, perhaps.
    const LOCK: &str =
        "SELECT FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE";
    write::execute(LOCK, &arguments)?;
    set_state(tenant, TenantState::Active, TenantState::Suspended)
}

/// New values are sealed under a new data key; the old one goes on opening old values. Returns the
/// version of the new one.
///
/// # Errors
/// As [`lock`]; what KMS refuses with.
pub fn rotate(tenant: &str) -> Result<i32> {
    data_key::add(&lock(tenant, Some(TenantState::Active))?, Purpose::Values)
}

/// Lifts a suspension.
///
/// # Errors
/// `unknown_tenant`, `tenant_state_conflict`, `read_only`, `registry_write`.
pub fn resume(tenant: &str) -> Result<()> {
    set_state(tenant, TenantState::Suspended, TenantState::Active)
}

/// From commit on, no process uses a data key of this tenant without asking KMS again.
///
/// # Errors
/// `unknown_tenant`, `read_only`, `registry_write`, `not_installed`.
pub fn evict(tenant: &str) -> Result<()> {
    const UPDATE: &str = "UPDATE cmk.tenant SET epoch = $2 WHERE tenant OPERATOR(pg_catalog.=) $1";
    let arguments = [tenant.into()];
    brake::evict(Some(tenant), &row_of_tenant(&arguments))?;
    match write::execute(UPDATE, &[tenant.into(), new_epoch()?.into()])? {
        0 => read::require_registered(tenant).and(Err(Reason::RegistryWrite.into())),
        _ => Ok(()),
    }
}

/// [`evict`] for every tenant of this database.
///
/// # Errors
/// `read_only`, `registry_write`, `not_installed`.
pub fn evict_all() -> Result<()> {
    let (table, lock) = (TENANT.name, "FOR NO KEY UPDATE");
    let target = Target { table, rows: "cmk.tenant", arguments: &[], lock };
    brake::evict(None, &target)?;
    // Returns the rows that a trigger of somebody else swallowed.
    const UPDATE: &str = "
        WITH evicted AS (UPDATE cmk.tenant SET epoch = $1 RETURNING tenant)
        SELECT FROM cmk.tenant t
         WHERE NOT EXISTS (SELECT FROM evicted e WHERE e.tenant OPERATOR(pg_catalog.=) t.tenant)";
    match write::execute(UPDATE, &[new_epoch()?.into()])? {
        0 => Ok(()),
        _ => Err(Reason::RegistryWrite.into()),
    }
}

fn row_of_tenant<'a>(tenant: &'a [DatumWithOid<'a>]) -> Target<'a> {
    let rows = "cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1";
    let (table, lock) = (TENANT.name, "FOR NO KEY UPDATE");
    Target { table, rows, arguments: tenant, lock }
}

/// Random, so that no epoch comes back: an eviction that was rolled back may have left data keys
/// under its epoch in shared memory.
fn new_epoch() -> Result<i64> {
    let random = getrandom::u64().map_err(|_| Reason::SystemRandom)?;
    Ok((random >> 1) as i64)
}

/// Locks the tenant's row until the end of the transaction and returns the tenant as it is then. It
/// has to be in a certain state, or, without one, not shredded.
///
/// # Errors
/// `unknown_tenant`, `tenant_busy`, `tenant_state_conflict`, `data_keys_missing`, `read_only`.
pub(super) fn lock(tenant: &str, state: Option<TenantState>) -> Result<Tenant> {
    const LOCK: &str = "
        SELECT FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED";
    let locked = write::execute(LOCK, &[tenant.into()])? == 1;
    let found = read::require_tenant(tenant)?;
    if !locked {
        return Err(Error::new(Reason::TenantBusy).for_tenant(tenant));
    }
    // Of a tenant that lost its data keys, no state allows to make another.
    found.require_all_data_keys()?;
    match state.map_or(found.state != TenantState::Shredded, |state| found.state == state) {
        true => Ok(found),
        false => Err(state_conflict(&found)),
    }
}

fn set_state(tenant: &str, from: TenantState, to: TenantState) -> Result<()> {
    const UPDATE: &str = "
        UPDATE cmk.tenant SET state = $3, epoch = $4, changed_at = pg_catalog.now()
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) $2";
    let arguments = [tenant.into(), from.name().into(), to.name().into(), new_epoch()?.into()];
    match write::execute(UPDATE, &arguments)? {
        1 => Ok(()),
        _ => match read::require_tenant(tenant)? {
            // A trigger or a rule of somebody else swallowed the row.
            found if found.state == from => Err(Reason::RegistryWrite.into()),
            found => Err(state_conflict(&found)),
        },
    }
}

fn state_conflict(tenant: &Tenant) -> Error {
    let state = format!("state={}", tenant.state.name());
    Error::new(Reason::TenantStateConflict).for_tenant(&tenant.name).with_info(state)
}
