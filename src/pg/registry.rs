//! Reads tenants and grants out of the registry's tables (`sql/registry.sql` declares them).

use super::catalog::{self, Key, Row, Table};
use super::invalidation;
use crate::crypto::commitment::Commitment;
use crate::error::{Error, Reason, Result};
use crate::kms::arn::{ExternalId, KeyUri, RoleArn};
use crate::kms::{AssumedRole, Custody};
use crate::registry::{DataKey, DataKeyState, Permissions, Role, Tenant, TenantState};
use pgrx::{PgRelation, pg_sys};
use std::ffi::CStr;

pub const KEY_EVENT: &CStr = c"key_event";
pub const TENANT: Table = Table { name: c"tenant", index: c"tenant_pkey" };
pub const DATA_KEY: Table = Table { name: c"data_key", index: c"data_key_pkey" };
const ACCESS: Table = Table { name: c"access", index: c"access_tenant_role_key" };

/// # Errors
/// `not_installed`; `key_uri` and the like if a row was altered into nonsense.
pub fn tenant(name: &str) -> Result<Option<Tenant>> {
    // Before the read, so that no change of what is read goes unnoticed.
    watch()?;
    let mut found = None;
    catalog::scan(&TENANT, &Key::Text(name), |row| {
        found = Some(tenant_of(name, row)?);
        Ok(())
    })?;
    if let Some(tenant) = &mut found {
        catalog::scan(&DATA_KEY, &Key::Text(name), |row| {
            tenant.data_keys.push(data_key_of(row)?);
            Ok(())
        })?;
    }
    Ok(found)
}

/// From now on changes of the tables count.
///
/// # Errors
/// `not_installed`.
pub fn watch() -> Result<()> {
    let [tenant, data_key, access] =
        [TENANT, DATA_KEY, ACCESS].map(|table| catalog::oid_of(table.name));
    invalidation::watch([tenant?, data_key?, access?]);
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
    let names = [TENANT.name, DATA_KEY.name, ACCESS.name, KEY_EVENT];
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
    let mut granted = Permissions::default();
    for key in [Key::Text(tenant), Key::Null] {
        catalog::scan(&ACCESS, &key, |row| {
            let grantee: Option<pg_sys::Oid> = row.column(2);
            if grantee.is_some_and(|grantee| holds(role, grantee)) {
                granted.encrypt |= row.column(3) == Some(true);
                granted.decrypt |= row.column(4) == Some(true);
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
    // SAFETY: catalog look-ups in a transaction on the main thread.
    unsafe {
        pg_sys::has_privs_of_role(role, grantee) && pg_sys::is_member_of_role_nosuper(role, grantee)
    }
}

/// True of superusers, the owner and members of the owner's role.
pub fn current_role_owns(table: &PgRelation) -> bool {
    // SAFETY: an open relation; catalog look-ups in a transaction on the main thread.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), (*table.rd_rel).relowner) }
}

/// False for a number that no role has, and for 0, the text form of which is `-`.
pub fn role_exists(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up in a transaction on the main thread.
    unsafe { !pg_sys::GetUserNameFromId(role, true).is_null() }
}

fn tenant_of(name: &str, row: &Row) -> Result<Tenant> {
    let damaged = || Error::new(Reason::KeyUri).for_tenant(name);
    let text = |column| row.column::<String>(column);
    let state = text(2).as_deref().and_then(TenantState::from_name).ok_or_else(damaged)?;
    let key = KeyUri::parse(&text(3).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let epoch = row.column(6).ok_or_else(damaged)?;
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
