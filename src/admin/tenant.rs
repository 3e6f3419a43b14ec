//! A tenant's life: register, activate, rotate, suspend, resume, evict.
//!
//! Everything is part of the caller's transaction: a rollback leaves nothing, a commit tells every
//! backend. `activate` and `rotate` skip a locked tenant instead of queueing behind a KMS call, so of two
//! DBAs at once one wins and the other hears `tenant_busy`.

use super::data_key::{add_data_key, put_data_key};
use crate::pg::backend::{BACKEND, keyring};
use crate::pg::brake::{self, Target};
use crate::pg::{registry, write};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState, check_tenant_name, check_tenant_name_length};
use cmk_kms::key_uri::{ExternalId, KeyUri, RoleArn};
use cmk_kms::{AssumedRole, Custody};
use pgrx::datum::DatumWithOid;

/// Registers a tenant and, if it is to be active, makes its first data key. Returns its state.
///
/// # Errors
/// `tenant_name`, `key_uri`, `role_arn`, `external_id`, `read_only`, `registry_copied`, `tenant_exists`,
/// `tenant_row_missing`; what KMS refuses with.
pub fn register(
    tenant: &str,
    key_uri: &str,
    role_arn: Option<&str>,
    external_id: Option<&str>,
    activate: bool,
) -> Result<&'static str> {
    check_tenant_name(tenant)?;
    let custody = parse_custody(key_uri, role_arn, external_id);
    let custody = custody.map_err(|error| error.for_tenant(tenant))?;
    write::require_writable()?;
    registry::require_at_home().map_err(|error| error.for_tenant(tenant))?;
    if registry::is_registered(tenant)? {
        return Err(Error::new(Reason::TenantExists).for_tenant(tenant));
    }
    registry::require_no_data_keys(tenant)?;

    // Before the first change of the registry, so that all processes know what KMS says.
    let made = activate.then(|| {
        let tenant = Tenant {
            name: tenant.into(),
            state: TenantState::Pending,
            epoch: 0,
            custody,
            last_version: 0,
            data_keys: Vec::new(),
        };
        keyring().make_data_key(&BACKEND, &tenant).map_err(|error| error.for_tenant(&tenant.name))
    });
    let made = made.transpose()?;
    const INSERT: &str = "
        INSERT INTO cmk.tenant (tenant, key_uri, role_arn, external_id) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    let arguments = [tenant.into(), key_uri.into(), role_arn.into(), external_id.into()];
    if write::execute(INSERT, &arguments)? == 0 {
        return Err(Error::new(Reason::TenantExists).for_tenant(tenant));
    }
    let Some(made) = made else { return Ok("pending") };
    put_data_key(tenant, 1, &made)?;
    set_state(tenant, "pending", "active")?;
    Ok("active")
}

/// # Errors
/// `key_uri`, `role_arn`, `external_id`.
fn parse_custody(
    key_uri: &str,
    role_arn: Option<&str>,
    external_id: Option<&str>,
) -> Result<Custody> {
    let key = KeyUri::parse(key_uri)?;
    let role = match (role_arn, external_id) {
        (Some(_), Some(_)) if matches!(key, KeyUri::Local(_)) => Err(Reason::RoleArn.into()),
        (Some(arn), Some(id)) => {
            let (arn, external_id) = (RoleArn::parse(arn)?, ExternalId::parse(id)?);
            Ok(Some(AssumedRole { arn, external_id, epoch: 0 }))
        }
        (None, None) => Ok(None),
        _ => Err(Error::new(Reason::ExternalId)),
    };
    Ok(Custody { key, role: role? })
}

/// Makes the first data key of a pending tenant. Returns its new state.
///
/// # Errors
/// As [`lock`]; what KMS refuses with.
pub fn activate(tenant: &str) -> Result<&'static str> {
    let locked = lock(tenant, TenantState::Pending)?;
    add_data_key(&locked)?;
    set_state(tenant, "pending", "active")?;
    Ok("active")
}

/// Takes effect in every session at once where it has to wait for other changes of the tenant: this is the brake.
///
/// # Errors
/// `tenant_name`, `unknown_tenant`, `tenant_state_conflict`, `read_only`, `not_installed`.
pub fn suspend(tenant: &str) -> Result<()> {
    check_tenant_name_length(tenant)?;
    let arguments = [tenant.into()];
    brake::suspend(tenant, &row_of_tenant(&arguments))?;
    // What others are about to commit is what counts: a resumption, perhaps.
    const LOCK: &str =
        "SELECT FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE";
    write::execute(LOCK, &arguments)?;
    set_state(tenant, "active", "suspended")
}

/// Lifts a suspension.
///
/// # Errors
/// `unknown_tenant`, `tenant_state_conflict`, `read_only`.
pub fn resume(tenant: &str) -> Result<()> {
    set_state(tenant, "suspended", "active")
}

/// From commit on, no process uses a data key of this tenant without asking KMS again.
///
/// # Errors
/// `unknown_tenant`, `read_only`, `not_installed`.
pub fn evict(tenant: &str) -> Result<()> {
    const UPDATE: &str = "UPDATE cmk.tenant SET epoch = $2 WHERE tenant OPERATOR(pg_catalog.=) $1";
    let arguments = [tenant.into()];
    brake::evict(Some(tenant), &row_of_tenant(&arguments))?;
    match write::execute(UPDATE, &[tenant.into(), new_epoch()?.into()])? {
        0 => Err(unknown(tenant)),
        _ => Ok(()),
    }
}

/// [`evict`] for every tenant of this database.
///
/// # Errors
/// `read_only`, `not_installed`.
pub fn evict_all() -> Result<()> {
    let (table, lock) = (registry::TENANT.name, "FOR NO KEY UPDATE");
    let target = Target { table, rows: "cmk.tenant", arguments: &[], lock };
    brake::evict(None, &target)?;
    write::execute("UPDATE cmk.tenant SET epoch = $1", &[new_epoch()?.into()])?;
    Ok(())
}

fn row_of_tenant<'a>(tenant: &'a [DatumWithOid<'a>]) -> Target<'a> {
    let rows = "cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1";
    let (table, lock) = (registry::TENANT.name, "FOR NO KEY UPDATE");
    Target { table, rows, arguments: tenant, lock }
}

/// Random, so that no epoch comes back: an eviction that was rolled back may have left data keys under its
/// epoch in shared memory.
fn new_epoch() -> Result<i64> {
    let random = getrandom::u64().map_err(|_| Reason::SystemRandom)?;
    Ok((random >> 1) as i64)
}

/// Locks the tenant's row until the end of the transaction and returns the tenant as it is then.
///
/// # Errors
/// `unknown_tenant`, `tenant_busy`, `tenant_state_conflict`, `data_keys_missing`, `read_only`.
pub(super) fn lock(tenant: &str, state: TenantState) -> Result<Tenant> {
    const LOCK: &str = "
        SELECT FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED";
    let locked = write::execute(LOCK, &[tenant.into()])? == 1;
    let found = registry::tenant(tenant)?.ok_or_else(|| unknown(tenant))?;
    match (locked, found.state == state) {
        // Of a tenant that lost its data keys, no state allows to make another.
        (true, _) if found.require_all_data_keys().is_err() => {
            Err(Error::new(Reason::DataKeysMissing).for_tenant(tenant))
        }
        (false, _) => Err(Error::new(Reason::TenantBusy).for_tenant(tenant)),
        (true, false) => Err(state_conflict(&found)),
        (true, true) => Ok(found),
    }
}

fn set_state(tenant: &str, from: &str, to: &str) -> Result<()> {
    const UPDATE: &str = "
        UPDATE cmk.tenant SET state = $3, epoch = $4, changed_at = pg_catalog.now()
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) $2";
    let arguments = [tenant.into(), from.into(), to.into(), new_epoch()?.into()];
    if write::execute(UPDATE, &arguments)? == 1 {
        return Ok(());
    }
    Err(match registry::tenant(tenant)? {
        Some(found) => state_conflict(&found),
        None => unknown(tenant),
    })
}

fn state_conflict(tenant: &Tenant) -> Error {
    let state = format!("state={}", tenant.state.name());
    Error::new(Reason::TenantStateConflict).for_tenant(&tenant.name).with_info(state)
}

/// A name that can't be registered is told apart from one that isn't.
pub fn unknown(tenant: &str) -> Error {
    match check_tenant_name(tenant) {
        Ok(()) => Error::new(Reason::UnknownTenant).for_tenant(tenant),
        Err(error) => error,
    }
}
