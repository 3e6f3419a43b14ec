//! Cursors over commands: CALL, EXPLAIN ANALYZE, EXECUTE. The command runs when the cursor is first
//! fetched from. In a SECURITY DEFINER function it may be the caller's, so all that happens in it
//! needs the caller's grant too.

use super::around;
use crate::pg::datum::alloc;
use crate::pg::identity::current_role;
use crate::pg::settings::values::{Output, column_output};
use cmk_keyring::tenant::Role;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static PREVIOUS: AtomicUsize = AtomicUsize::new(0);

type UtilityHook = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

unsafe extern "C-unwind" {
    // Bound again without pgrx's guard, as in the file above.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        source: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// # Safety
/// From `_PG_init`, on the main thread.
pub(super) unsafe fn install() {
    // SAFETY: the caller's promise.
    unsafe {
        PREVIOUS.store(pg_sys::ProcessUtility_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::ProcessUtility_hook = Some(on_utility);
    }
}

/// Whether a statement is one of those that a portal was made for.
pub(super) fn is_of_portal(
    portal: &pg_sys::PortalData,
    statement: *mut pg_sys::PlannedStmt,
) -> bool {
    // SAFETY: a portal's list of statements, if it has one, with as many cells as it says.
    let cells = unsafe {
        let Some(list) = portal.stmts.as_ref() else { return false };
        std::slice::from_raw_parts(list.elements, list.length as usize)
    };
    // SAFETY: a list of pointers.
    cells.iter().any(|cell| unsafe { cell.ptr_value } == statement.cast())
}

#[allow(clippy::too_many_arguments, reason = "PostgreSQL's hook")]
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    source: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let here = 0_u8;
    // SAFETY: a statement that is about to run.
    let is_foreign = unsafe { enter(statement, (&raw const here) as usize) };
    // SAFETY: the same.
    let forced = unsafe { force_ciphertext(statement) };
    // SAFETY: called in place of, and calling, PostgreSQL's own function with its arguments.
    unsafe {
        let next: UtilityHook = match PREVIOUS.load(Relaxed) {
            0 => standard_ProcessUtility,
            address => std::mem::transmute::<usize, UtilityHook>(address),
        };
        next(
            statement,
            source,
            read_only_tree,
            context,
            parameters,
            environment,
            destination,
            completion,
        );
    }
    if let Some(level) = forced {
        // SAFETY: the level that was begun above; an ERROR ends it with the transaction.
        unsafe { pg_sys::AtEOXact_GUC(true, level) };
    }
    if is_foreign {
        around::pop((&raw const here) as usize);
    }
}

/// COPY TO, CREATE TABLE AS and REFRESH MATERIALIZED VIEW store or export what they read, so that
/// protected columns are ciphertext in them. As a setting, because parallel workers get those.
///
/// # Safety
/// `statement` is about to run.
unsafe fn force_ciphertext(statement: *mut pg_sys::PlannedStmt) -> Option<i32> {
    if column_output() == Output::Ciphertext {
        return None;
    }
    // SAFETY: a utility statement; its type is looked at before it is used as that.
    unsafe {
        let node = (*statement).utilityStmt;
        let stores = match (*node).type_ {
            pg_sys::NodeTag::T_CopyStmt => !(*node.cast::<pg_sys::CopyStmt>()).is_from,
            pg_sys::NodeTag::T_CreateTableAsStmt | pg_sys::NodeTag::T_RefreshMatViewStmt => true,
            _ => false,
        };
        stores.then(|| {
            let level = pg_sys::NewGUCNestLevel();
            set_for_level(c"cmk_encrypt.output", c"ciphertext");
            level
        })
    }
}

/// Makes a setting until the level of settings ends, whoever may make it.
pub fn set_for_level(name: &CStr, value: &CStr) {
    // SAFETY: C strings; on the main thread.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// True if it is a cursor's command that somebody else may have declared.
///
/// # Safety
/// `statement` is about to run.
unsafe fn enter(statement: *mut pg_sys::PlannedStmt, here: usize) -> bool {
    // SAFETY: looks at the running portal, if there is one.
    let Some(portal) = (unsafe { pg_sys::ActivePortal.as_ref() }) else { return false };
    let fills = portal.strategy == pg_sys::PortalStrategy::PORTAL_UTIL_SELECT;
    match callers_role().filter(|_| fills && is_of_portal(portal, statement)) {
        Some(caller) => {
            remember(portal, caller, here);
            true
        }
        None => false,
    }
}

/// The library is being loaded, perhaps by what a cursor runs that was declared by somebody else.
/// What a client itself runs is in a portal without a name.
///
/// # Safety
/// From `_PG_init`, on the main thread.
pub(super) unsafe fn enter_at_load() {
    use pg_sys::PortalStrategy::{
        PORTAL_ONE_MOD_WITH, PORTAL_ONE_RETURNING, PORTAL_ONE_SELECT, PORTAL_UTIL_SELECT,
    };
    // SAFETY: looks at the running portal, if there is one, and its name.
    let (portal, has_name) = unsafe {
        let Some(portal) = pg_sys::ActivePortal.as_ref() else { return };
        (portal, *portal.name != 0)
    };
    let may_be_callers = match portal.strategy {
        PORTAL_ONE_RETURNING | PORTAL_ONE_MOD_WITH | PORTAL_UTIL_SELECT => true,
        // That of EXECUTE.
        PORTAL_ONE_SELECT => !portal.visible,
        _ => false,
    };
    if let Some(caller) = callers_role().filter(|_| has_name && may_be_callers) {
        // Until the portal goes.
        remember(portal, caller, usize::MAX);
    }
}

/// In a SECURITY DEFINER function the role that called it, if it is another than the owner.
fn callers_role() -> Option<Role> {
    // SAFETY: looks at the state of this process.
    let (as_definer, outer) =
        unsafe { (pg_sys::InLocalUserIdChange(), Role(pg_sys::GetOuterUserId().to_u32())) };
    (as_definer && outer != current_role()).then_some(outer)
}

/// What runs in a portal from this frame on was started as `role`.
fn remember(portal: &pg_sys::PortalData, role: Role, frame: usize) {
    // SAFETY: the callback's record lies in the context that it is about, so it lives until it is
    // called. Without memory for it, an ERROR may leave the entry behind, which denies too much.
    unsafe {
        let size = size_of::<pg_sys::MemoryContextCallback>();
        if let Some(memory) = alloc(portal.portalContext, size) {
            let callback = memory.cast::<pg_sys::MemoryContextCallback>().as_ptr();
            callback.write(pg_sys::MemoryContextCallback {
                func: Some(forget),
                arg: portal.portalContext.cast(),
                next: std::ptr::null_mut(),
            });
            pg_sys::MemoryContextRegisterResetCallback(portal.portalContext, callback);
        }
    }
    around::push(frame, portal.portalContext, role);
}

#[pg_guard]
extern "C-unwind" fn forget(context: *mut c_void) {
    around::forget(context.cast());
}
