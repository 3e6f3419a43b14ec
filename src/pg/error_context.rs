//! What PostgreSQL adds to an error by itself: the statement in the server log, and CONTEXT, where
//! COPY quotes the line that it reads. Either may be the plaintext that was to be sealed, or name
//! an external id.

use super::log_limit;
use cmk_audit::limit::subject_of;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// A callback, in a form that may stand in a static: PostgreSQL only reads it.
#[repr(transparent)]
struct Callback(pg_sys::ErrorContextCallback);

// SAFETY: never written to; its pointers are null.
unsafe impl Sync for Callback {}

static HIDING: Callback = Callback(pg_sys::ErrorContextCallback {
    previous: std::ptr::null_mut(),
    callback: Some(on_error),
    arg: std::ptr::null_mut(),
});

unsafe extern "C-unwind" {
    // Bound again because they raise no ERROR.
    fn errhidestmt(hide: bool) -> i32;
    fn errhidecontext(hide: bool) -> i32;
}

/// When the statement began that sealed values last.
static SEALING: AtomicI64 = AtomicI64::new(0);
static PREVIOUS: AtomicUsize = AtomicUsize::new(0);

type LogHook = unsafe extern "C-unwind" fn(*mut pg_sys::ErrorData);

unsafe extern "C-unwind" {
    // Bound again because it raises no ERROR.
    safe fn GetCurrentStatementStartTimestamp() -> i64;
}

/// The running statement seals values: whatever error ends it, one of PostgreSQL's own on another
/// column included, is logged without the statement, and without the line that COPY reads.
#[inline]
pub fn statement_seals() {
    SEALING.store(GetCurrentStatementStartTimestamp(), Relaxed);
}

/// Once per process, or in the postmaster for all its children.
pub fn install() {
    // SAFETY: called from _PG_init on the main thread, the time to set this hook.
    unsafe {
        PREVIOUS.store(pg_sys::emit_log_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::emit_log_hook = Some(on_log);
    }
}

unsafe extern "C-unwind" fn on_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL's record of what is being logged.
    unsafe {
        // 0 in processes that run no statements.
        let began = SEALING.load(Relaxed);
        let is_ours = began != 0 && began == GetCurrentStatementStartTimestamp();
        if is_ours && (*error).elevel >= PgLogLevel::ERROR as i32 {
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
        }
        hide_options(&mut *error);
        if (*error).output_to_server && is_repeated(&*error) {
            (*error).output_to_server = false;
        }
        match PREVIOUS.load(Relaxed) {
            0 => {}
            address => std::mem::transmute::<usize, LogHook>(address)(error),
        }
    }
}

/// Has an error logged without the statement if that names an option of a key which is for its
/// owner and us alone. It may fail before any function of ours runs: its JSON may not be valid.
///
/// # Safety
/// Its texts are C strings or null, as is the text of the running query.
unsafe fn hide_options(error: &mut pg_sys::ErrorData) {
    const OPTION: &[u8] = b"external_id";
    if error.elevel < PgLogLevel::ERROR as i32 {
        return;
    }
    // SAFETY: the caller's promise.
    let names_it = |text: *const std::ffi::c_char| unsafe {
        !text.is_null()
            && CStr::from_ptr(text).to_bytes().windows(OPTION.len()).any(|part| part == OPTION)
    };
    // SAFETY: a variable of this process, on the main thread.
    let names_it_itself = names_it(unsafe { pg_sys::debug_query_string });
    error.hide_stmt |= names_it_itself;
    error.hide_ctx |= names_it_itself || names_it(error.context);
}

/// Whether it is an error of ours that the log has often enough. Ours is what
/// [`report`](super::report) made: others, such as RAISE in PL/pgSQL, may have such a DETAIL, but
/// not from that file.
///
/// # Safety
/// Its texts are C strings or null.
unsafe fn is_repeated(error: &pg_sys::ErrorData) -> bool {
    // Not FATAL: that ends the session.
    if error.elevel != PgLogLevel::ERROR as i32 {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if error.filename.is_null() || error.detail.is_null() {
            return false;
        }
        let is_ours = CStr::from_ptr(error.filename).to_bytes().ends_with(b"report.rs");
        let detail = CStr::from_ptr(error.detail).to_str().unwrap_or_default();
        is_ours && subject_of(detail).is_some_and(|subject| !log_limit::admits(subject))
    }
}

/// Called while PostgreSQL puts an error together.
#[pg_guard]
unsafe extern "C-unwind" fn on_error(_argument: *mut c_void) {
    // SAFETY: called for the error that is being reported.
    unsafe {
        errhidestmt(true);
        errhidecontext(true);
    }
}

/// The error that is raised next carries neither. Whoever catches an error restores what is hidden
/// here: PostgreSQL keeps the list of callbacks beside its jump targets.
pub fn hide() {
    // SAFETY: a static, which outlives every error; on the main thread.
    unsafe {
        pg_sys::error_context_stack = (&raw const HIDING.0).cast_mut();
    }
}

/// Runs `work`; any error in it, PostgreSQL's own ones too, carries neither.
pub fn hidden<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: variables of this process, on the main thread. What unwinds from here does so to a
    // jump target of PostgreSQL, which restores the list.
    let before = unsafe { pg_sys::error_context_stack };
    hide();
    let done = work();
    // SAFETY: as above.
    unsafe { pg_sys::error_context_stack = before };
    done
}
