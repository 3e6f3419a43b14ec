//! What differs between the versions of PostgreSQL: the only file that asks which one it is.

use pgrx::pg_sys;
use std::ffi::{CStr, c_int, c_void};

/// The arguments of `ExecutorRun` after the query, passed to a macro; PostgreSQL 18 has one less.
#[cfg(not(feature = "pg18"))]
macro_rules! with_run_arguments {
    ($macro:ident) => {
        $macro! { direction: Direction, count: u64, once: bool }
    };
}
#[cfg(feature = "pg18")]
macro_rules! with_run_arguments {
    ($macro:ident) => {
        $macro! { direction: Direction, count: u64 }
    };
}
pub(super) use with_run_arguments;

/// Settings that later versions have beside those that a worker overrides.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const MORE_TIMEOUTS: &[&CStr] = &[c"transaction_timeout"];
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
pub const MORE_TIMEOUTS: &[&CStr] = &[];

/// A wait event of our own, from PostgreSQL 17 on.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub fn new_wait_event(name: &CStr) -> Option<u32> {
    // SAFETY: a C string; on the main thread.
    Some(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) })
}
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
pub fn new_wait_event(_name: &CStr) -> Option<u32> {
    None
}

/// PostgreSQL's own array of settings, valid until a setting is added.
pub fn all_settings() -> &'static [*mut pg_sys::config_generic] {
    // SAFETY: on the main thread; length and array belong together.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let (settings, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let (settings, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        std::slice::from_raw_parts(settings, count as usize)
    }
}

/// A misspelt setting of ours is an error, not a silent placeholder; a warning on PostgreSQL 14.
pub fn reserve_prefix(prefix: &'static CStr) {
    #[cfg(feature = "pg14")]
    {
        unsafe extern "C-unwind" {
            fn EmitWarningsOnPlaceholders(class_name: *const std::ffi::c_char);
        }
        // SAFETY: a C string; called on the main thread from _PG_init.
        unsafe { EmitWarningsOnPlaceholders(prefix.as_ptr()) }
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: a C string; called on the main thread from _PG_init.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

type Hook = unsafe extern "C-unwind" fn();

/// Has `hook` called when it is time to ask for shared memory, and returns the one that was there
/// before. PostgreSQL 14 has no such time: it is now.
///
/// # Safety
/// In `_PG_init` of a preloaded library.
#[cfg(not(feature = "pg14"))]
pub unsafe fn on_shared_memory_request(hook: Hook) -> Option<Hook> {
    // SAFETY: the caller's promise.
    unsafe {
        let previous = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(hook);
        previous
    }
}
#[cfg(feature = "pg14")]
pub unsafe fn on_shared_memory_request(hook: Hook) -> Option<Hook> {
    // SAFETY: the caller's promise.
    unsafe { hook() };
    None
}

/// Sets a signal handler as PostgreSQL's own processes do.
///
/// # Safety
/// At the start of a worker, with all signals blocked.
pub unsafe fn set_signal_handler(signal: c_int, handler: unsafe extern "C-unwind" fn(c_int)) {
    // SAFETY: the caller's promise.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::pqsignal(signal, Some(handler));
    }
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Rows to look at are 300 times this, for one column's statistics.
///
/// # Safety
/// `stats` is what PostgreSQL passed to a type's analyze function.
#[allow(clippy::unnecessary_cast, reason = "16 bits in PostgreSQL 16, 32 in the others")]
pub unsafe fn statistics_target(stats: pg_sys::VacAttrStatsP) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let target = &mut (*stats).attstattarget;
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        let target = &mut (*(*stats).attr).attstattarget;
        if *target < 0 {
            *target = pg_sys::default_statistics_target as _;
        }
        *target as c_int
    }
}

/// Where a long look at a table waits, and is cancelled.
pub fn vacuum_delay_point() {
    // SAFETY: in ANALYZE, on the main thread.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::vacuum_delay_point(true);
        #[cfg(not(feature = "pg18"))]
        pg_sys::vacuum_delay_point();
    }
}

/// A function that returns what is to stand in the place of a node.
pub type Mutator = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> *mut pg_sys::Node;

/// A copy of an expression with other parts.
///
/// # Safety
/// `node` is a node that `mutator` may be called for the parts of, with `context`.
pub unsafe fn mutate_expression(
    node: *mut pg_sys::Node,
    mutator: Mutator,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let mutated =
            pg_sys::expression_tree_mutator(node, Some(without_arguments(mutator)), context);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let mutated = pg_sys::expression_tree_mutator_impl(node, Some(mutator), context);
        mutated
    }
}

/// The same of a query, which is changed where it lies if the flags say so.
///
/// # Safety
/// As [`mutate_expression`].
pub unsafe fn mutate_query(
    query: *mut pg_sys::Query,
    mutator: Mutator,
    context: *mut c_void,
    flags: u32,
) -> *mut pg_sys::Query {
    let flags = flags as c_int;
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let mutated =
            pg_sys::query_tree_mutator(query, Some(without_arguments(mutator)), context, flags);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let mutated = pg_sys::query_tree_mutator_impl(query, Some(mutator), context, flags);
        mutated
    }
}

/// As PostgreSQL 15 and earlier declare it; they call it with both arguments.
#[cfg(any(feature = "pg14", feature = "pg15"))]
fn without_arguments(mutator: Mutator) -> unsafe extern "C-unwind" fn() -> *mut pg_sys::Node {
    // SAFETY: pointers to functions.
    unsafe { std::mem::transmute(mutator) }
}

/// A function that looks at a node, and returns true to end the walk.
pub type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

/// Whether `walker` returns true for a part of an expression.
///
/// # Safety
/// `node` is a node that `walker` may be called for the parts of, with `context`.
pub unsafe fn walk_expression(
    node: *mut pg_sys::Node,
    walker: Walker,
    context: *mut c_void,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let ended = pg_sys::expression_tree_walker(node, Some(walker), context);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let ended = pg_sys::expression_tree_walker_impl(node, Some(walker), context);
        ended
    }
}

/// The same of a query.
///
/// # Safety
/// As [`walk_expression`].
pub unsafe fn walk_query(query: *mut pg_sys::Query, walker: Walker, context: *mut c_void) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let ended = pg_sys::query_tree_walker(query, Some(walker), context, 0);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let ended = pg_sys::query_tree_walker_impl(query, Some(walker), context, 0);
        ended
    }
}

/// The number of a column's table in the query's range table.
#[cfg(feature = "pg14")]
pub fn table_of(column: &pg_sys::Var) -> u32 {
    column.varno
}

/// The same.
#[cfg(not(feature = "pg14"))]
pub fn table_of(column: &pg_sys::Var) -> u32 {
    column.varno as u32
}
