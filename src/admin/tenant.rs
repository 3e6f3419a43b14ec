//! A tenant's life: register, activate, rotate, change its options, suspend, resume, evict.
//!
//! `activate` and `rotate` skip a locked tenant instead of queueing behind a KMS call, so of two
//! DBAs at once one wins and the other hears `tenant_busy`.

use super::audit::{Act, record};
use super::{data_key, verify};
use crate::column::token_scan;
use crate::pg::brake::{self, Target};
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::tables::TENANT;
use crate::pg::registry::{read, write};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState, check_tenant_name, check_tenant_name_length};
use cmk_kms::{CustomerKey, Purpose};
use pgrx::datum::DatumWithOid;
use serde_json::{Value, json};

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
    made.as_ref().map_or(Ok(()), |made| verify::require_binding(&registered, made))?;
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
    let Some(made) = made else {
        record_registration(&registered, None)?;
        return Ok(TenantState::Pending);
    };
    data_key::put(&registered, 1, Purpose::Values, &made)?;
    if let Some(index_key) = &index_key {
        data_key::put(&registered, 2, Purpose::Index, index_key)?;
    }
    set_state(tenant, TenantState::Pending, TenantState::Active)?;
    record_registration(&registered, Some(index_key.is_some()))?;
    Ok(TenantState::Active)
}

/// `made`: data keys were made, an index key among them or not.
fn record_registration(tenant: &Tenant, made: Option<bool>) -> Result<()> {
    let state = if made.is_some() { TenantState::Active } else { TenantState::Pending };
    let mut after = json!({
        "state": state.name(),
        "key_uri": tenant.customer_key.uri(),
        "options": options_of(&tenant.customer_key),
    });
    if made == Some(true) {
        after["index_key"] = 2.into();
    }
    let (act, after) = ("register_tenant", Some(after));
    let data_key = made.map(|_| 1);
    record(&Act { act, tenant: Some(&tenant.name), data_key, before: None, after });
    Ok(())
}

pub(super) fn options_of(key: &CustomerKey) -> Value {
    serde_json::from_str(key.options()).unwrap_or_default()
}

/// An event about the tenant's state.
fn record_state(
    act: &'static str,
    tenant: &str,
    before: TenantState,
    after: TenantState,
    data_key: Option<i32>,
) -> Result<()> {
    let state = |state: TenantState| Some(json!({ "state": state.name() }));
    let (before, after) = (state(before), state(after));
    record(&Act { act, tenant: Some(tenant), data_key, before, after });
    Ok(())
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
    write::one(UPDATE, &[tenant.into(), key.options().into(), epoch.into()])?;
    record(&Act {
        act: "alter_tenant_options",
        tenant: Some(tenant),
        data_key: None,
        before: Some(json!({ "options": options_of(&registered.customer_key) })),
        after: Some(json!({ "options": options_of(&key) })),
    });
    Ok(())
}

/// Makes the first data key of a pending tenant. Returns its new state.
///
/// # Errors
/// As [`lock`]; what KMS refuses with.
pub fn activate(tenant: &str) -> Result<TenantState> {
    let locked = lock(tenant, Some(TenantState::Pending))?;
    let version = locked.next_version()?;
    let made = data_key::make(&locked, Purpose::Values)?;
    verify::require_binding(&locked, &made)?;
    data_key::put(&locked, version, Purpose::Values, &made)?;
    if token_scan::has_searchable_column()? {
        let made = data_key::make(&locked, Purpose::Index)?;
        data_key::put(&locked, version + 1, Purpose::Index, &made)?;
    }
    let (from, to) = (TenantState::Pending, TenantState::Active);
    set_state(tenant, from, to)?;
    record_state("activate_tenant", tenant, from, to, Some(version))?;
    Ok(to)
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
    wait_for_row(tenant)?;
    let (from, to) = (TenantState::Active, TenantState::Suspended);
    set_state(tenant, from, to)?;
    record_state("suspend_tenant", tenant, from, to, None)
}

/// New values are sealed under a new data key; the old one goes on opening old values. Returns the
/// version of the new one.
///
/// # Errors
/// As [`lock`]; what KMS refuses with.
pub fn rotate(tenant: &str) -> Result<i32> {
    let locked = lock(tenant, Some(TenantState::Active))?;
    let version = data_key::add(&locked, Purpose::Values)?;
    data_key::record_change("rotate_tenant", &locked, Purpose::Values, version);
    Ok(version)
}

/// Lifts a suspension.
///
/// # Errors
/// `unknown_tenant`, `tenant_state_conflict`, `read_only`, `registry_write`.
pub fn resume(tenant: &str) -> Result<()> {
    wait_for_row(tenant)?;
    let (from, to) = (TenantState::Suspended, TenantState::Active);
    set_state(tenant, from, to)?;
    record_state("resume_tenant", tenant, from, to, None)
}

/// From commit on, no process uses a data key of this tenant without asking KMS again.
///
/// # Errors
/// `unknown_tenant`, `read_only`, `registry_write`, `not_installed`; `tenant_busy` of one that was
/// registered just now.
pub fn evict(tenant: &str) -> Result<()> {
    let arguments = [tenant.into()];
    brake::evict(Some(tenant), &row_of_tenant(&arguments))?;
    if !wait_for_row(tenant)? {
        read::require_registered(tenant)?;
        return Err(Error::new(Reason::TenantBusy).for_tenant(tenant));
    }
    evict_copies(tenant)?;
    record_eviction("evict", Some(tenant))
}

/// From commit on, no copy of a data key that a process has is used: the tenant's row is locked.
///
/// # Errors
/// `registry_write`, `read_only`.
pub(super) fn evict_copies(tenant: &str) -> Result<()> {
    const UPDATE: &str = "UPDATE cmk.tenant SET epoch = $2 WHERE tenant OPERATOR(pg_catalog.=) $1";
    write::one(UPDATE, &[tenant.into(), new_epoch()?.into()])
}

/// [`evict`] for every tenant of this database.
///
/// # Errors
/// `read_only`, `registry_write`, `not_installed`.
pub fn evict_all() -> Result<()> {
    let (table, lock) = (TENANT.name, "FOR NO KEY UPDATE");
    let target = Target { table, rows: "cmk.tenant", arguments: &[], lock, is_whole: true };
    brake::evict(None, &target)?;
    // Those that somebody removed meanwhile are left out.
    const LOCK: &str = "SELECT FROM cmk.tenant t ORDER BY t.tenant FOR NO KEY UPDATE";
    const UPDATE: &str = "UPDATE cmk.tenant SET epoch = $1";
    let locked = write::execute(LOCK, &[])?;
    // A trigger of somebody else may swallow rows; others may have come.
    match write::execute(UPDATE, &[new_epoch()?.into()])? >= locked {
        true => record_eviction("evict_all", None),
        false => Err(Reason::RegistryWrite.into()),
    }
}

fn record_eviction(act: &'static str, tenant: Option<&str>) -> Result<()> {
    record(&Act { act, tenant, data_key: None, before: None, after: None });
    Ok(())
}

pub(super) fn row_of_tenant<'a>(tenant: &'a [DatumWithOid<'a>]) -> Target<'a> {
    let rows = "cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1";
    let (table, lock) = (TENANT.name, "FOR NO KEY UPDATE");
    Target { table, rows, arguments: tenant, lock, is_whole: false }
}

/// Random, so that no epoch comes back: an eviction that was rolled back may have left data keys
/// under its epoch in shared memory.
pub(super) fn new_epoch() -> Result<i64> {
    let random = getrandom::u64().map_err(|_| Reason::SystemRandom)?;
    Ok((random >> 1) as i64)
}

/// Waits until nobody else changes the tenant, and keeps others from it until the transaction ends:
/// what they are about to commit is what counts. False if there is no such tenant then.
fn wait_for_row(tenant: &str) -> Result<bool> {
    const LOCK: &str =
        "SELECT FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE";
    Ok(write::execute(LOCK, &[tenant.into()])? == 1)
}

/// Locks the tenant's row until the end of the transaction and returns the tenant as it is then. It
/// has to be in a certain state, or, without one, not shredded.
///
/// # Errors
/// `unknown_tenant`, `tenant_busy`, `tenant_state_conflict`, `data_keys_missing`, `read_only`.
pub(super) fn lock(tenant: &str, state: Option<TenantState>) -> Result<Tenant> {
    let found = lock_row(tenant)?;
    // Of a tenant that lost its data keys, no state allows to make another.
    found.require_all_data_keys()?;
    match state.map_or(found.state != TenantState::Shredded, |state| found.state == state) {
        true => Ok(found),
        false => Err(state_conflict(&found)),
    }
}

/// The same whatever state it is in, and whatever it lacks.
///
/// # Errors
/// `unknown_tenant`, `tenant_busy`, `read_only`.
pub(super) fn lock_row(tenant: &str) -> Result<Tenant> {
    const LOCK: &str = "
        SELECT FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED";
    let locked = write::execute(LOCK, &[tenant.into()])? == 1;
    let found = read::require_tenant(tenant)?;
    match locked {
        true => Ok(found),
        false => Err(Error::new(Reason::TenantBusy).for_tenant(tenant)),
    }
}

fn set_state(tenant: &str, from: TenantState, to: TenantState) -> Result<()> {
    const UPDATE: &str = "
        UPDATE cmk.tenant
           SET state = $3, epoch = $4, changed_at = pg_catalog.now(),
               suspended_at = CASE WHEN $3 OPERATOR(pg_catalog.=) 'suspended'
                                   THEN pg_catalog.clock_timestamp() END
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

pub(super) fn state_conflict(tenant: &Tenant) -> Error {
    let state = format!("state={}", tenant.state.name());
    Error::new(Reason::TenantStateConflict).for_tenant(&tenant.name).with_info(state)
}
