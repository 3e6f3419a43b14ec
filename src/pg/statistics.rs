//! ANALYZE, by hand or by autovacuum. An ERROR there ends the statistics of the whole table, and
//! autovacuum tries again and again.

use pgrx::pg_sys;
use std::ffi::CStr;

/// The table of which statistics are being collected. `None` also where nobody knows, because
/// `track_activities` is off.
pub fn table() -> Option<pg_sys::Oid> {
    // SAFETY: this process's own entry, which it alone writes, or null.
    let entry = unsafe { pg_sys::MyBEEntry.as_ref() }?;
    let analyzes =
        entry.st_progress_command == pg_sys::ProgressCommandType::PROGRESS_COMMAND_ANALYZE;
    analyzes.then_some(entry.st_progress_command_target)
}

/// Whether statistics are being collected.
#[cold]
pub fn are_collected() -> bool {
    if table().is_some() {
        return true;
    }
    // SAFETY: live contexts, with parents and names.
    unsafe {
        let mut context = pg_sys::CurrentMemoryContext;
        while !context.is_null() {
            if CStr::from_ptr((*context).name) == c"Analyze" {
                return true;
            }
            context = (*context).parent;
        }
    }
    false
}
