//! What PostgreSQL adds to an error by itself: the statement in the server log, and CONTEXT, where
//! COPY quotes the line that it reads. Either may be the plaintext that was to be sealed.

use pgrx::{PgLogLevel, pg_guard, pg_sys};
use std::ffi::c_void;
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
        match PREVIOUS.load(Relaxed) {
            0 => {}
            address => std::mem::transmute::<usize, LogHook>(address)(error),
        }
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
