//! Reads tenants and grants out of the registry's tables (`sql/registry.sql` declares them).

use super::catalog::{self, Key, Row, Table};
use super::{invalidation, shmem};
use cmk_crypto::commitment::Commitment;
use cmk_error::{Error, Reason, Result};
use cmk_keyring::shared::TenantId;
use cmk_keyring::tenant::{DataKey, DataKeyState, Permissions, Role, Tenant, TenantState};
use cmk_kms::key_uri::{ExternalId, KeyUri, RoleArn};
use cmk_kms::{AssumedRole, Custody};
use pgrx::{PgRelation, pg_sys};
use std::ffi::CStr;

pub const KEY_EVENT: &CStr = c"key_event";
pub const TENANT: Table = Table { name: c"tenant", index: c"tenant_pkey" };
pub const DATA_KEY: Table = Table { name: c"data_key", index: c"data_key_pkey" };
pub const ACCESS: Table = Table { name: c"access", index: c"access_tenant_role_key" };
/// Has no index, and one row, or two on a subscriber.
const HOME: Table = Table { name: c"home", index: c"home" };

/// The tenant as the registry has it.
///
/// # Errors
/// `not_installed`; `registry_copied`; `key_uri` and the like if a row was altered into nonsense.
pub fn tenant(name: &str) -> Result<Option<Tenant>> {
    // Before the read, so that no change of what is read goes unnoticed.
    watch()?;
    require_at_home().map_err(|error| error.for_tenant(name))?;
    let mut found = None;
    catalog::scan(&TENANT, &Key::Text(name), |row| {
        found = Some(tenant_of(name, row)?);
        Ok(())
    })?;
    if let Some(tenant) = &mut found {
        for_each_data_key(name, |data_key| {
            tenant.data_keys.push(data_key);
            Ok(())
        })?;
    }
    Ok(found)
}

/// # Errors
/// `not_installed`.
pub fn is_registered(name: &str) -> Result<bool> {
    let mut found = false;
    catalog::scan(&TENANT, &Key::Text(name), |_| {
        found = true;
        Ok(())
    })?;
    Ok(found)
}

fn for_each_data_key(tenant: &str, mut visit: impl FnMut(DataKey) -> Result<()>) -> Result<()> {
    catalog::scan(&DATA_KEY, &Key::Text(tenant), |row| visit(data_key_of(row)?))
}

/// Data keys of a name that no tenant has mean that the registry lost the tenant.
///
/// # Errors
/// `tenant_row_missing`.
pub fn require_no_data_keys(name: &str) -> Result<()> {
    let lost = Error::new(Reason::TenantRowMissing).for_tenant(name);
    for_each_data_key(name, |_| Err(lost.clone()))
}

/// Whether any tenant has a data key that isn't destroyed.
///
/// # Errors
/// `not_installed`.
pub fn has_data_keys() -> Result<bool> {
    // The first one ends the scan.
    let found = || Err(Error::new(Reason::KeysWouldBeLost));
    let scanned = catalog::scan(&DATA_KEY, &Key::Any, |row| match row.is_null(6) {
        true => Ok(()),
        false => found(),
    });
    match scanned {
        Err(error) if error.reason == Reason::KeysWouldBeLost => Ok(true),
        other => other.map(|()| false),
    }
}

/// Whether this registry was made for, or adopted by, this database.
///
/// # Errors
/// `registry_copied` if it came with CREATE DATABASE ... TEMPLATE.
pub fn require_at_home() -> Result<()> {
    // SAFETY: set once when the process connects to a database.
    let here = unsafe { pg_sys::MyDatabaseId };
    let mut at_home = false;
    catalog::scan(&HOME, &Key::Any, |row| {
        at_home |= row.column(1) == Some(here);
        Ok(())
    })?;
    if at_home { Ok(()) } else { Err(Reason::RegistryCopied.into()) }
}

/// From now on changes of the tables count.
///
/// # Errors
/// `not_installed`.
pub fn watch() -> Result<()> {
    let [tenant, data_key, access, home] =
        [TENANT, DATA_KEY, ACCESS, HOME].map(|table| catalog::oid_of(table.name));
    invalidation::watch([tenant?, data_key?, access?, home?]);
    Ok(())
}

/// A table of ours, if the extension is installed and all tables are its own. Whoever owns the database could put
/// others in their place after DROP EXTENSION, and a monitor is a superuser.
pub fn own_table(name: &CStr) -> Option<pg_sys::Oid> {
    let own = |name: &CStr| -> Option<pg_sys::Oid> {
        let table = catalog::oid_of(name).ok()?;
        // SAFETY: catalog look-ups in a transaction on the main thread.
        let (extension, of) = unsafe {
            let extension = pg_sys::get_extension_oid(c"cmk_encrypt".as_ptr(), true);
            (extension, pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table))
        };
        (extension != pg_sys::InvalidOid && of == extension).then_some(table)
    };
    let names = [TENANT.name, DATA_KEY.name, ACCESS.name, HOME.name, KEY_EVENT];
    names.iter().all(|name| own(name).is_some()).then(|| own(name)).flatten()
}

/// Locks a table of ours to the end of the transaction. With the lock, its name is its own: until then
/// PostgreSQL resolves a name anew when it had to wait for DROP EXTENSION.
///
/// # Errors
/// `not_installed`; `tenant_busy` while somebody locks the table, for whom nobody is to wait.
pub fn lock_own_table(name: &CStr, mode: u32) -> Result<()> {
    let table = own_table(name).ok_or(Reason::NotInstalled)?;
    // SAFETY: in a transaction on the main thread; the lock goes with the transaction.
    if !unsafe { pg_sys::ConditionalLockRelationOid(table, mode as pg_sys::LOCKMODE) } {
        return Err(Reason::TenantBusy.into());
    }
    // It may have been dropped just before.
    match own_table(name) == Some(table) {
        true => Ok(()),
        false => Err(Reason::NotInstalled.into()),
    }
}

/// What `role` may do with the values of `tenant`, by grants to it, to roles whose privileges it has, and
/// to every tenant.
///
/// Superusers hold every privilege implicitly; here they need an explicit grant like anyone, so that
/// reading a tenant's data takes an act that shows.
///
/// # Errors
/// `not_installed`.
pub fn permissions(role: Role, tenant: &str) -> Result<Permissions> {
    // SAFETY: set once when the process connects to a database.
    let database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    let id = TenantId::new(database, tenant);
    let mut granted = Permissions::default();
    // While something is taken back from this role and the table is locked, nobody waits to find out what is left.
    let reduced = shmem::with(|shared| shared.reduced_roles(database, &id));
    if reduced.into_iter().any(|of| holds(role, pg_sys::Oid::from(of))) {
        let table = catalog::oid_of(ACCESS.name)?;
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: in a transaction on the main thread; the lock goes with the transaction.
        if !unsafe { pg_sys::ConditionalLockRelationOid(table, mode) } {
            return Ok(granted);
        }
    }
    for (key, of) in [(Key::Text(tenant), Some(&id)), (Key::Null, None)] {
        catalog::scan(&ACCESS, &key, |row| {
            let grantee = row.grantee(2).map_or(pg_sys::InvalidOid, |grantee| grantee.oid());
            if holds(role, grantee) {
                let taken_back =
                    shmem::with(|shared| shared.taken_back(database, of, grantee.to_u32()));
                granted.encrypt |= row.column(3) == Some(true) && !taken_back.0;
                granted.decrypt |= row.column(4) == Some(true) && !taken_back.1;
            }
            Ok(())
        })?;
    }
    Ok(granted)
}

/// Both: the first would be true of a superuser for any role, the second also of memberships that are
/// not inherited.
fn holds(role: Role, grantee: pg_sys::Oid) -> bool {
    let role = pg_sys::Oid::from(role.0);
    if grantee == pg_sys::InvalidOid || role == pg_sys::InvalidOid {
        return false;
    }
    // SAFETY: catalog look-ups in a transaction on the main thread. A session may outlive its role, which PostgreSQL
    // would take for a member of itself.
    unsafe {
        !pg_sys::GetUserNameFromId(grantee, true).is_null()
            && pg_sys::has_privs_of_role(role, grantee)
            && pg_sys::is_member_of_role_nosuper(role, grantee)
    }
}

/// True of superusers, the owner and members of the owner's role.
pub fn current_role_owns(table: &PgRelation) -> bool {
    // SAFETY: an open relation; catalog look-ups in a transaction on the main thread.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), (*table.rd_rel).relowner) }
}

pub fn caller_is_superuser() -> bool {
    // SAFETY: a catalog look-up in a transaction on the main thread.
    unsafe { pg_sys::superuser() }
}

fn tenant_of(name: &str, row: &Row) -> Result<Tenant> {
    let damaged = || Error::new(Reason::KeyUri).for_tenant(name);
    let text = |column| row.column::<String>(column);
    let state = text(2).as_deref().and_then(TenantState::from_name).ok_or_else(damaged)?;
    let key = KeyUri::parse(&text(3).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let epoch = row.column(6).ok_or_else(damaged)?;
    let last_version = row.column(9).ok_or_else(damaged)?;
    let role = match (text(4), text(5)) {
        (Some(arn), Some(id)) => {
            let (arn, external_id) = (RoleArn::parse(&arn)?, ExternalId::parse(&id)?);
            Some(AssumedRole { arn, external_id, epoch })
        }
        (None, None) => None,
        _ => return Err(Error::new(Reason::ExternalId).for_tenant(name)),
    };
    Ok(Tenant {
        name: name.into(),
        state,
        epoch,
        custody: Custody { key, role },
        last_version,
        data_keys: Vec::new(),
    })
}

/// A row with a commitment of a wrong length can't be told from one of another data key.
fn data_key_of(row: &Row) -> Result<DataKey> {
    let damaged = || Error::new(Reason::CommitmentMismatch);
    let commitment = row.column::<Vec<u8>>(5).and_then(|bytes| bytes.try_into().ok());
    let state = row.column::<String>(3);
    Ok(DataKey {
        version: row.column(2).ok_or_else(damaged)?,
        state: state.as_deref().and_then(DataKeyState::from_name).ok_or_else(damaged)?,
        commitment: Commitment::from_bytes(commitment.ok_or_else(damaged)?),
        wrapped: row.column::<Vec<u8>>(6).map(Vec::into_boxed_slice),
    })
}
