//! Who calls, and from where: for the audit trail.

use super::executor;
use super::identity::current_role;
use super::report;
use cmk_audit::text::clean;
use cmk_keyring::tenant::Role;
use pgrx::datum::Inet;
use pgrx::{direct_function_call, pg_sys};
use std::ffi::{CStr, c_char};

/// As a session has it at this moment.
pub struct Actor {
    pub session_role: String,
    pub acting_role: String,
    pub client_address: Option<String>,
    pub application_name: Option<String>,
    pub database: String,
}

impl Actor {
    /// In a transaction.
    pub fn now() -> Self {
        // SAFETY: looks at the state of this process.
        let session = unsafe { pg_sys::GetSessionUserId() };
        Self {
            session_role: name_of(Role(session.to_u32())),
            acting_role: name_of(callers_role()),
            client_address: client_address(),
            // SAFETY: a setting's value, a C string or null.
            application_name: unsafe { text(pg_sys::application_name) }
                .map(|name| clean(&name))
                .filter(|name| !name.is_empty()),
            database: report::database_name(),
        }
    }
}

/// The current role of whoever called the function that we are in. That of a SECURITY DEFINER
/// function is its owner by now: then the role that the calling query was started as, unless that
/// is the owner, too; else the one outside of all such functions.
fn callers_role() -> Role {
    let current = current_role();
    // SAFETY: looks at the state of this process.
    let (as_definer, outer) =
        unsafe { (pg_sys::InLocalUserIdChange(), Role(pg_sys::GetOuterUserId().to_u32())) };
    match executor::innermost_starter() {
        _ if !as_definer => current,
        Some(starter) if starter != current => starter,
        _ => outer,
    }
}

fn name_of(Role(oid): Role) -> String {
    // SAFETY: a catalog look-up in a transaction on the main thread; without that role, it returns
    // a null pointer.
    let name = unsafe { text(pg_sys::GetUserNameFromId(pg_sys::Oid::from(oid), true)) };
    name.unwrap_or_else(|| oid.to_string())
}

/// `[local]` for a Unix socket, as in the server log; nothing for a process without a client.
fn client_address() -> Option<String> {
    // SAFETY: a variable of this process; the function takes no argument.
    unsafe {
        if pg_sys::MyProcPort.is_null() {
            return None;
        }
        let address: Option<Inet> = direct_function_call(pg_sys::inet_client_addr, &[]);
        Some(address.map_or_else(|| "[local]".to_owned(), |address| clean(&address.0)))
    }
}

/// # Safety
/// A C string or null.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
