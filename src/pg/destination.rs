//! Whether what an output function prints is on its way to this session's client.
//!
//! PostgreSQL calls an output function to send a value, and as well to log it, to put it into an
//! error, to copy it into a file or to make it part of a text that is then stored. A plaintext may
//! go only to the client that asked for it.

use super::identity::in_security_restricted_operation;
use super::running;
use pgrx::pg_sys;
use std::ffi::CStr;

unsafe extern "C" {
    // Bound again because they can't raise an ERROR and are called for every value.
    safe fn HistoricSnapshotActive() -> bool;
    safe fn ActiveSnapshotSet() -> bool;
}

/// Where it can't be: logical decoding, a dump, what is stored by the way.
#[inline]
pub fn is_elsewhere() -> bool {
    // SAFETY: variables of this process, on the main thread.
    let (is_walsender, row_security) = unsafe { (pg_sys::am_walsender, pg_sys::row_security) };
    is_walsender
        // What pg_dump sets.
        || !row_security
        || HistoricSnapshotActive()
        || in_security_restricted_operation()
        || is_dump()
}

/// Whether row security is off, as pg_dump and what it writes set it.
pub fn is_dump_or_restore() -> bool {
    // SAFETY: a variable of this process, on the main thread.
    unsafe { !pg_sys::row_security }
}

/// pg_dump by its name, for the one case where it leaves row security on.
fn is_dump() -> bool {
    // SAFETY: a setting: null or a C string.
    unsafe {
        let name = pg_sys::application_name;
        if name.is_null() || *name.cast::<u8>() != b'p' {
            return false;
        }
        matches!(CStr::from_ptr(name).to_bytes(), b"pg_dump" | b"pg_dumpall")
    }
}

/// The running portal's way of running says who gets the rows.
#[inline]
pub fn is_client() -> bool {
    use pg_sys::PortalStrategy::{
        PORTAL_ONE_MOD_WITH, PORTAL_ONE_RETURNING, PORTAL_ONE_SELECT, PORTAL_UTIL_SELECT,
    };
    if running::is_deleting() {
        return true;
    }
    if !running::may_be_shown() {
        return false;
    }
    // SAFETY: variables of this process, on the main thread; a live portal or null.
    let (worker, portal) =
        unsafe { (pg_sys::ParallelWorkerNumber >= 0, pg_sys::ActivePortal.as_ref()) };
    // A worker has no portal. Where its leader's statement is none whose rows go to the client, the
    // leader's setting, which the worker has, says ciphertext.
    let Some(portal) = portal else { return worker };
    match portal.strategy {
        PORTAL_ONE_SELECT => true,
        // First the whole command runs, and its rows are stored; then they are sent.
        PORTAL_ONE_RETURNING | PORTAL_ONE_MOD_WITH | PORTAL_UTIL_SELECT => {
            !portal.holdStore.is_null() && !ActiveSnapshotSet()
        }
        _ => false,
    }
}
