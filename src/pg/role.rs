//! The current role, which is asked for every value.

use cmk_keyring::tenant::Role;
use pgrx::pg_sys;

unsafe extern "C" {
    // Bound again because it can't raise an ERROR: pgrx's binding sets up a jump target around each call.
    safe fn GetUserId() -> pg_sys::Oid;
}

/// That of the innermost SECURITY DEFINER function, else that of SET ROLE, else that of the session.
#[inline]
pub fn current_role() -> Role {
    Role(GetUserId().to_u32())
}
