//! Settings made for a while: PostgreSQL undoes them when their level ends, and with the
//! transaction should an ERROR come between.

use crate::pg::identity::is_superuser;
use pgrx::pg_sys;
use std::ffi::CStr;

/// A level that was begun. Without a destructor, because an ERROR jumps over it.
#[derive(Clone, Copy)]
pub struct Level(i32);

impl Level {
    pub fn begin() -> Self {
        // SAFETY: on the main thread.
        Self(unsafe { pg_sys::NewGUCNestLevel() })
    }

    pub fn end(self) {
        // SAFETY: the level that was begun.
        unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
    }

    /// Makes a setting that anybody may make.
    pub fn set(self, name: &CStr, value: &CStr) {
        set(name, value, pg_sys::GucContext::PGC_USERSET);
    }

    /// Makes a setting, unless the current role may not make it.
    pub fn set_if_allowed(self, name: &CStr, value: &CStr) {
        set(
            name,
            value,
            match is_superuser() {
                true => pg_sys::GucContext::PGC_SUSET,
                false => pg_sys::GucContext::PGC_USERSET,
            },
        );
    }
}

fn set(name: &CStr, value: &CStr, context: pg_sys::GucContext::Type) {
    // SAFETY: C strings; on the main thread. What isn't allowed is said at a level that nobody
    // sees.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            pg_sys::DEBUG5 as i32,
            false,
        );
    }
}
