//! Who and where this process is: asked for every value, so read without pgrx's guards.

use cmk_keyring::tenant::Role;
use pgrx::pg_sys;

unsafe extern "C" {
    // Bound again because they can't raise an ERROR: pgrx's bindings set up a jump target around
    // each call.
    safe fn GetUserId() -> pg_sys::Oid;
    safe fn InSecurityRestrictedOperation() -> bool;
}

/// True inside ANALYZE, REFRESH MATERIALIZED VIEW and index builds, where a result would be stored.
#[inline]
pub fn in_security_restricted_operation() -> bool {
    InSecurityRestrictedOperation()
}

/// The current role: that of the innermost SECURITY DEFINER function, else that of SET ROLE, else
/// that of the session.
#[inline]
pub fn current_role() -> Role {
    Role(GetUserId().to_u32())
}

/// Who called, whatever SECURITY DEFINER functions are running: the role of SET ROLE, else that of
/// the session.
pub fn outer_role() -> pg_sys::Oid {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::GetOuterUserId() }
}

/// The operating system's number of this process.
#[inline]
pub fn pid() -> u32 {
    // SAFETY: set once when the process starts.
    unsafe { pg_sys::MyProcPid as u32 }
}

/// The object id of the database that this process is connected to; 0: none.
#[inline]
pub fn database() -> u32 {
    // SAFETY: set once when the process connects to a database.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

/// Whether the caller is a superuser, whatever was granted to them.
pub fn is_superuser() -> bool {
    // SAFETY: a catalog look-up in a transaction on the main thread.
    unsafe { pg_sys::superuser() }
}

/// Whether the session is a superuser's, whoever is the current role.
pub fn is_superusers_session() -> bool {
    // SAFETY: a catalog look-up in a transaction on the main thread.
    unsafe { pg_sys::superuser_arg(pg_sys::GetSessionUserId()) }
}

/// Whether this process applies what a logical replication subscription receives.
pub fn is_apply_worker() -> bool {
    // SAFETY: looks at the state of this process.
    unsafe { pg_sys::IsLogicalWorker() }
}
