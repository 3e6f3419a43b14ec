//! Cursors over commands: CALL, EXPLAIN ANALYZE, EXECUTE. The command runs when the cursor is first
//! fetched from. In a SECURITY DEFINER function it may be the caller's, so all that happens in it
//! needs the caller's grant too.
//!
//! And commands that may store what is printed in them, whoever runs them ([`may_store`]).

use super::{around, forget_with};
use crate::pg::identity::current_role;
use crate::pg::running;
use crate::pg::statement_number;
use cmk_keyring::tenant::Role;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
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
    statement_number::next();
    let here = 0_u8;
    // SAFETY: a statement that is about to run.
    let is_foreign = unsafe { enter(statement, (&raw const here) as usize) };
    // SAFETY: the same.
    let may_store = unsafe { may_store(statement) };
    if may_store {
        begin((&raw const here) as usize);
    }
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
    if may_store {
        running::pop((&raw const here) as usize);
    }
    if is_foreign {
        around::pop((&raw const here) as usize);
    }
}

/// A command that may store something begins, in a hook at this frame.
fn begin(frame: usize) {
    // SAFETY: looks at the running portal, if there is one.
    let context = unsafe {
        pg_sys::ActivePortal.as_ref().map_or(pg_sys::TopTransactionContext, |it| it.portalContext)
    };
    if forget_with(context) {
        running::push_command(frame, context);
    }
}

/// The library is being loaded in the middle of a statement. If that is deeper than where the
/// client's own rows are printed, a query may be around it that writes, and that began unseen. So
/// all that the statement does counts as stored, until its portal goes.
///
/// # Safety
/// From `_PG_init`, on the main thread.
pub(super) unsafe fn begin_at_load() {
    // SAFETY: looks at the running portal, if there is one; contexts have parents and names.
    let portal = unsafe {
        let Some(portal) = pg_sys::ActivePortal.as_ref() else { return };
        let mut context = pg_sys::CurrentMemoryContext;
        let mut executors = 0;
        while !context.is_null() && context != portal.portalContext {
            executors += usize::from(CStr::from_ptr((*context).name) == c"ExecutorState");
            if CStr::from_ptr((*context).name).to_bytes().starts_with(b"SPI ") {
                break;
            }
            context = (*context).parent;
        }
        if context == portal.portalContext && executors <= 1 {
            return;
        }
        portal
    };
    if forget_with(portal.portalContext) {
        running::push_command(usize::MAX, portal.portalContext);
    }
}

/// Whether a command may store or export what it evaluates, or runs code that may: any but those
/// whose rows go where the portal says. The row that CALL returns is sent after it is done; COMMIT
/// materializes WITH HOLD cursors, which are the client's.
///
/// # Safety
/// `statement` is about to run.
unsafe fn may_store(statement: *mut pg_sys::PlannedStmt) -> bool {
    use pg_sys::NodeTag::{
        T_DeclareCursorStmt, T_ExecuteStmt, T_FetchStmt, T_PrepareStmt, T_TransactionStmt,
        T_VariableSetStmt, T_VariableShowStmt,
    };
    // SAFETY: the caller's promise.
    let tag = unsafe { (*(*statement).utilityStmt).type_ };
    !matches!(
        tag,
        T_DeclareCursorStmt
            | T_ExecuteStmt
            | T_FetchStmt
            | T_PrepareStmt
            | T_TransactionStmt
            | T_VariableSetStmt
            | T_VariableShowStmt
    )
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
pub fn callers_role() -> Option<Role> {
    // SAFETY: looks at the state of this process.
    let (as_definer, outer) =
        unsafe { (pg_sys::InLocalUserIdChange(), Role(pg_sys::GetOuterUserId().to_u32())) };
    (as_definer && outer != current_role()).then_some(outer)
}

/// What runs in a portal from this frame on was started as `role`. Without memory for the callback
/// that forgets it, an ERROR may leave the entry behind, which denies too much.
fn remember(portal: &pg_sys::PortalData, role: Role, frame: usize) {
    forget_with(portal.portalContext);
    around::push(frame, portal.portalContext, role);
}
