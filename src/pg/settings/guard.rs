//! Whether the settings can be defined now.

use crate::pg::compat;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Settings that every session may make as it likes, and roles and databases may have their own of.
pub(super) const ANYBODYS: [&CStr; 4] = [OUTPUT, INPUT, TENANT, WIRE_TYPE];
pub(super) const OUTPUT: &CStr = c"cmk_encrypt.output";
pub(super) const INPUT: &CStr = c"cmk_encrypt.input";
pub(super) const TENANT: &CStr = c"cmk_encrypt.tenant";
pub(super) const WIRE_TYPE: &CStr = c"cmk_encrypt.wire_type";

/// Whether they can be defined such that the server's values hold.
///
/// Before the library is loaded anybody may put placeholders under our names. PostgreSQL refuses
/// such values when the settings are defined; but one from `PGOPTIONS`, `ALTER ROLE` or `ALTER
/// DATABASE` has by then pushed the server's own value out, and the compiled-in default would take
/// its place. So the library refuses to load. Preloaded, it defines its settings first, and the
/// question doesn't arise.
///
/// # Errors
/// `settings_overridden`; `loaded_too_late` in the middle of a parallel query, where no setting can
/// be defined.
pub fn check_may_define() -> Result<()> {
    // SAFETY: a variable of this process, on the main thread.
    if unsafe { pg_sys::IsInParallelMode() } {
        return Err(Reason::LoadedTooLate.into());
    }
    let overridden = compat::all_settings().iter().any(|&setting| {
        // SAFETY: PostgreSQL's array holds valid settings, each with a C string for its name.
        let (name, source) = unsafe { (CStr::from_ptr((*setting).name), (*setting).reset_source) };
        let name = name.to_bytes();
        name.starts_with(b"cmk_encrypt.")
            && !ANYBODYS.iter().any(|of| of.to_bytes() == name)
            && source > pg_sys::GucSource::PGC_S_ARGV
    });
    if overridden { Err(Reason::SettingsOverridden.into()) } else { Ok(()) }
}

/// Whether this process had the library before its first statement, by `shared_preload_libraries`
/// or `session_preload_libraries`.
pub fn was_preloaded() -> bool {
    WAS_PRELOADED.load(Relaxed)
}

static WAS_PRELOADED: AtomicBool = AtomicBool::new(false);

/// When the library is loaded: remembers whether a statement is running.
pub fn note_load() {
    // SAFETY: a variable of this process, on the main thread: null or the statement's text.
    WAS_PRELOADED.store(unsafe { pg_sys::debug_query_string.is_null() }, Relaxed);
}

/// True in the postmaster, while it loads `shared_preload_libraries`.
pub fn is_preloading() -> bool {
    // SAFETY: a variable of this process, on the main thread.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}
