//! Queries and commands that are running, and where their rows go. What is printed inside one that
//! stores may be stored; what is printed inside one that the client didn't start isn't the
//! client's.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;

type Context = pg_sys::MemoryContext;

/// Where the rows of a query go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Into tables or files.
    Stored,
    /// To the client, or to whoever hands them on.
    Shown,
    /// To code: a function's or a procedure's.
    Code,
}

impl Rows {
    /// # Safety
    /// `query` was started.
    pub(super) unsafe fn of(query: *mut pg_sys::QueryDesc) -> Self {
        use pg_sys::CommandDest;
        // SAFETY: the caller's promise: a query has a plan, and somewhere its rows go.
        let (operation, has_writing_part, destination) = unsafe {
            let plan = (*query).plannedstmt.as_ref();
            let destination =
                (*query).dest.as_ref().map_or(CommandDest::DestNone, |dest| dest.mydest);
            ((*query).operation, plan.is_some_and(|plan| plan.hasModifyingCTE), destination)
        };
        if operation != pg_sys::CmdType::CMD_SELECT || has_writing_part {
            return Self::Stored;
        }
        match destination {
            CommandDest::DestRemote
            | CommandDest::DestRemoteExecute
            | CommandDest::DestRemoteSimple
            | CommandDest::DestTuplestore
            | CommandDest::DestTupleQueue => Self::Shown,
            _ => Self::Code,
        }
    }
}

struct Run {
    /// Where on the stack its hook is. An ERROR jumps over that frame; then what lies below it is
    /// over.
    frame: usize,
    /// With which the entry goes if it doesn't return.
    context: Context,
    rows: Rows,
}

thread_local! {
    /// From the outermost to the innermost.
    static RUNNING: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

/// A query begins to run, in a hook at this frame.
pub(super) fn push(frame: usize, context: Context, rows: Rows) {
    RUNNING.with_borrow_mut(|running| running.push(Run { frame, context, rows }));
}

/// A command begins that may store what it evaluates, in a hook at this frame. It goes with the
/// portal that runs it.
pub(super) fn push_command(frame: usize) {
    // SAFETY: looks at the running portal, if there is one.
    let context = unsafe {
        pg_sys::ActivePortal.as_ref().map_or(pg_sys::TopTransactionContext, |it| it.portalContext)
    };
    if super::forget_with(context) {
        push(frame, context, Rows::Stored);
    }
}

/// The library is being loaded in the middle of a statement. If that is deeper than where the
/// client's own rows are printed, a query may be around it that writes, and that began unseen. So
/// all that the statement does counts as stored, until its portal goes.
///
/// # Safety
/// From `_PG_init`, on the main thread.
pub(super) unsafe fn enter_at_load() {
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
    if super::forget_with(portal.portalContext) {
        push(usize::MAX, portal.portalContext, Rows::Stored);
    }
}

/// What began at this frame or below it is over.
pub(super) fn pop(frame: usize) {
    RUNNING.with_borrow_mut(|running| running.retain(|run| run.frame > frame));
}

/// The context goes, with whatever ran in it.
pub(super) fn forget(context: Context) {
    // Not where the thread's own data are gone already, in a process that exits.
    let _ = RUNNING.try_with(|running| running.borrow_mut().retain(|run| run.context != context));
}

/// Whether what is printed now may be for the client: nothing around it stores, and the outermost
/// query is not code's, such as that of a deferred trigger.
#[inline]
pub fn may_be_shown() -> bool {
    RUNNING.with_borrow_mut(|running| {
        // The stack grows downwards: what lies below this frame belongs to something that an ERROR
        // has ended.
        let here = 0_u8;
        if running.last().is_some_and(|run| run.frame <= (&raw const here) as usize) {
            running.retain(|run| run.frame > (&raw const here) as usize);
        }
        running.first().is_none_or(|run| run.rows != Rows::Code)
            && running.iter().all(|run| run.rows != Rows::Stored)
    })
}
