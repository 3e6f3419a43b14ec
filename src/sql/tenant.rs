//! A tenant's life: register, activate, rotate, suspend, resume, evict.
//!
//! Everything is part of the caller's transaction: a rollback leaves nothing, a commit tells every
//! backend. `activate` and `rotate` skip a locked tenant instead of queueing behind a KMS call, so of two
//! DBAs at once one wins and the other hears `tenant_busy`.

use crate::crypto::commitment::Commitment;
use crate::crypto::locked::scrub_stack;
use crate::error::{Error, Reason, Result};
use crate::keyring::Host;
use crate::kms::Kms;
use crate::kms::arn::{ExternalId, KeyUri, RoleArn};
use crate::kms::context::EncryptionContext;
use crate::pg::backend::{Backend, keyring};
use crate::pg::datum::required;
use crate::pg::report::SqlResult;
use crate::pg::{registry, write};
use crate::registry::{Tenant, TenantState, check_tenant_name};
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn register_tenant(
    tenant: Option<&str>,
    key_uri: Option<&str>,
    role_arn: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
    activate: default!(Option<bool>, true),
) -> SqlResult<&'static str> {
    let (tenant, key_uri) = (required(tenant, "tenant")?, required(key_uri, "key_uri")?);
    check_tenant_name(tenant)?;
    check_custody(key_uri, role_arn, external_id).map_err(|error| error.for_tenant(tenant))?;

    const INSERT: &str = "
        INSERT INTO cmk.tenant (tenant, key_uri, role_arn, external_id) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    let arguments = [tenant.into(), key_uri.into(), role_arn.into(), external_id.into()];
    if write::execute(INSERT, &arguments)? == 0 {
        return Err(Error::new(Reason::TenantExists).for_tenant(tenant).into());
    }
    if required(activate, "activate")? { Ok(make_active(tenant)?) } else { Ok("pending") }
}

/// # Errors
/// `key_uri`, `role_arn`, `external_id`.
fn check_custody(key_uri: &str, role_arn: Option<&str>, external_id: Option<&str>) -> Result<()> {
    let key = KeyUri::parse(key_uri)?;
    match (role_arn, external_id) {
        (Some(_), Some(_)) if matches!(key, KeyUri::Local(_)) => Err(Reason::RoleArn.into()),
        (Some(arn), Some(id)) => RoleArn::parse(arn).and(ExternalId::parse(id)).map(drop),
        (None, None) => Ok(()),
        _ => Err(Reason::ExternalId.into()),
    }
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn activate_tenant(tenant: Option<&str>) -> SqlResult<&'static str> {
    Ok(make_active(required(tenant, "tenant")?)?)
}

fn make_active(tenant: &str) -> Result<&'static str> {
    let locked = lock(tenant, TenantState::Pending)?;
    add_data_key(&locked)?;
    set_state(tenant, "pending", "active")?;
    Ok("active")
}

/// New values are sealed under a new data key; the old one goes on opening old values.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_tenant(tenant: Option<&str>) -> SqlResult<i32> {
    let locked = lock(required(tenant, "tenant")?, TenantState::Active)?;
    Ok(add_data_key(&locked)?)
}

/// Waits for other changes of the tenant rather than giving up: this is the brake.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn suspend_tenant(tenant: Option<&str>) -> SqlResult<()> {
    Ok(set_state(required(tenant, "tenant")?, "active", "suspended")?)
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn resume_tenant(tenant: Option<&str>) -> SqlResult<()> {
    Ok(set_state(required(tenant, "tenant")?, "suspended", "active")?)
}

/// From commit on, no backend uses a data key of this tenant without asking KMS again.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn evict(tenant: Option<&str>) -> SqlResult<()> {
    let tenant = required(tenant, "tenant")?;
    const UPDATE: &str = "UPDATE cmk.tenant SET epoch = $2 WHERE tenant = $1";
    if write::execute(UPDATE, &[tenant.into(), new_epoch()?.into()])? == 0 {
        return Err(unknown(tenant).into());
    }
    Ok(())
}

/// `cmk.evict` for every tenant of this database. Waits for other changes of each.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn evict_all() -> SqlResult<()> {
    write::execute("UPDATE cmk.tenant SET epoch = $1", &[new_epoch()?.into()])?;
    Ok(())
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
/// `unknown_tenant`, `tenant_busy`, `tenant_state_conflict`, `read_only`.
fn lock(tenant: &str, state: TenantState) -> Result<Tenant> {
    const LOCK: &str = "SELECT FROM cmk.tenant WHERE tenant = $1 FOR UPDATE SKIP LOCKED";
    let locked = write::execute(LOCK, &[tenant.into()])? == 1;
    let found = registry::tenant(tenant)?.ok_or_else(|| unknown(tenant))?;
    match (locked, found.state == state) {
        (false, _) => Err(Error::new(Reason::TenantBusy).for_tenant(tenant)),
        (true, false) => Err(state_conflict(&found)),
        (true, true) => Ok(found),
    }
}

fn set_state(tenant: &str, from: &str, to: &str) -> Result<()> {
    const UPDATE: &str = "
        UPDATE cmk.tenant SET state = $3, epoch = $4, changed_at = pg_catalog.now()
         WHERE tenant = $1 AND state = $2";
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

/// Has KMS make a data key, proves by an unwrap that it comes back, and only then stores it as the
/// current one. Returns its version.
fn add_data_key(tenant: &Tenant) -> Result<i32> {
    let named = |error: Error| error.for_tenant(&tenant.name);
    let context = EncryptionContext::data_key(&tenant.name);
    let (kms, custody) = (Backend.kms(None), &tenant.custody);
    let call = || kms.generate(custody, &context);
    let wrapped = keyring().call_kms(call).map_err(named)?;
    let unwrapped = || kms.unwrap(custody, &wrapped, &context);
    let commit = |dek| Commitment::to(&dek, tenant.name.as_bytes());
    let commitment = keyring().call_kms(unwrapped).map(commit).map_err(named)?;
    scrub_stack();

    let newest = tenant.data_keys.iter().map(|key| key.version).max().unwrap_or(0);
    let next = newest.checked_add(1).ok_or_else(|| Error::new(Reason::TenantStateConflict));
    let version = next.map_err(named)?;
    const RETIRE: &str = "
        UPDATE cmk.data_key SET state = 'retired' WHERE tenant = $1 AND state = 'current'";
    write::execute(RETIRE, &[(&*tenant.name).into()])?;
    const INSERT: &str = "
        INSERT INTO cmk.data_key (tenant, version, commitment, wrapped) VALUES ($1, $2, $3, $4)";
    let commitment = commitment.as_bytes().as_slice();
    let arguments =
        [(&*tenant.name).into(), version.into(), commitment.into(), wrapped.as_slice().into()];
    write::execute(INSERT, &arguments)?;
    Ok(version)
}

/// A name that can't be registered is told apart from one that isn't.
pub fn unknown(tenant: &str) -> Error {
    match check_tenant_name(tenant) {
        Ok(()) => Error::new(Reason::UnknownTenant).for_tenant(tenant),
        Err(error) => error,
    }
}
