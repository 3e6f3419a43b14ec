//! PostgreSQL's error reporting, where pgrx's is in the way.

use pgrx::{PgLogLevel, pg_sys};
use std::ffi::{CString, c_char, c_int};

unsafe extern "C-unwind" {
    // PostgreSQL's elog.h, stable since version 13.
    pub fn errstart(level: c_int, domain: *const c_char) -> bool;
    pub fn errcode(sqlstate: c_int) -> c_int;
    pub fn errmsg(format: *const c_char, ...) -> c_int;
    pub fn errdetail(format: *const c_char, ...) -> c_int;
    pub fn errhint(format: *const c_char, ...) -> c_int;
    pub fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    fn errhidestmt(hide: bool) -> c_int;
    fn errhidecontext(hide: bool) -> c_int;
}

/// One line in the server log that clients don't see, without the statement that happened to be
/// running: its literals may be plaintext.
pub fn log_line(line: &str) {
    let Ok(line) = CString::new(line) else { return };
    // errfinish() would look at interrupts, and the caller is in the middle of something.
    let log = || {
        // SAFETY: on the main thread, in the order that ereport() of elog.h has; the strings are C
        // strings that outlive the calls.
        unsafe {
            pg_sys::InterruptHoldoffCount += 1;
            if errstart(PgLogLevel::LOG_SERVER_ONLY as c_int, std::ptr::null()) {
                errmsg(c"%s".as_ptr(), line.as_ptr());
                errhidestmt(true);
                errhidecontext(true);
                errfinish(c"elog.rs".as_ptr(), 0, c"log_line".as_ptr());
            }
            pg_sys::InterruptHoldoffCount -= 1;
        }
    };
    // SAFETY: nothing in there has to be dropped, should memory run out.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(log) };
}

/// A WARNING to the client and the server log, without the statement.
pub fn warn(message: &str, detail: &str, hint: &str) {
    let [Ok(message), Ok(detail), Ok(hint)] = [message, detail, hint].map(CString::new) else {
        return;
    };
    let warn = || {
        // SAFETY: as in log_line.
        unsafe {
            if errstart(PgLogLevel::WARNING as c_int, std::ptr::null()) {
                errmsg(c"%s".as_ptr(), message.as_ptr());
                errdetail(c"%s".as_ptr(), detail.as_ptr());
                errhint(c"%s".as_ptr(), hint.as_ptr());
                errhidestmt(true);
                errhidecontext(true);
                errfinish(c"elog.rs".as_ptr(), 0, c"warn".as_ptr());
            }
        }
    };
    // SAFETY: nothing in there has to be dropped, should memory run out.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(warn) };
}
