//! Locks on the registry's tables, and whose they are.

use super::scan;
use super::tables::{
    ACCESS, AUDIT_CHAIN, AUDIT_EVENT, DATA_KEY, DATA_KEY_USE, HOME, KEY_EVENT, TENANT,
};
use cmk_error::{Reason, Result};
use pgrx::{PgRelation, pg_sys};
use std::ffi::CStr;

/// A table of ours, if the extension is installed and all tables are its own. Whoever owns the
/// database could put others in their place after DROP EXTENSION, and a monitor is a superuser.
pub fn own_table(name: &CStr) -> Option<pg_sys::Oid> {
    let own = |name: &CStr| -> Option<pg_sys::Oid> {
        let table = scan::oid_of(name).ok()?;
        // SAFETY: catalog look-ups in a transaction on the main thread.
        let (extension, of) = unsafe {
            let extension = pg_sys::get_extension_oid(c"cmk_encrypt".as_ptr(), true);
            (extension, pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table))
        };
        (extension != pg_sys::InvalidOid && of == extension).then_some(table)
    };
    let names = [
        TENANT.name,
        DATA_KEY.name,
        ACCESS.name,
        HOME.name,
        DATA_KEY_USE,
        KEY_EVENT,
        AUDIT_EVENT,
        AUDIT_CHAIN,
    ];
    names.iter().all(|name| own(name).is_some()).then(|| own(name)).flatten()
}

/// Locks a table of ours to the end of the transaction. With the lock, its name is its own: until
/// then PostgreSQL resolves a name anew when it had to wait for DROP EXTENSION.
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

/// True of superusers, the owner and members of the owner's role.
pub fn current_role_owns(table: &PgRelation) -> bool {
    // SAFETY: an open relation; catalog look-ups in a transaction on the main thread.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), (*table.rd_rel).relowner) }
}
