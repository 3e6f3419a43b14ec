//! Queries and commands that are running, and where their rows go. What is printed inside one that
//! stores may be stored; what is printed inside one that the client didn't start isn't the
//! client's.

use pgrx::pg_sys;
use std::cell::RefCell;

type Context = pg_sys::MemoryContext;

/// Where the rows of a query go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Into tables or files.
    Stored,
    /// Away: of a DELETE that stores nothing. Its triggers may.
    Deleted,
    /// To the client, or to whoever hands them on.
    Shown,
    /// To code: a function's or a procedure's.
    Code,
}

impl Rows {
    /// # Safety
    /// `query` was started.
    pub unsafe fn of(query: *mut pg_sys::QueryDesc) -> Self {
        // SAFETY: the caller's promise: a query has a plan.
        let (operation, has_modifying_cte) = unsafe {
            let plan = (*query).plannedstmt.as_ref();
            ((*query).operation, plan.is_some_and(|plan| plan.hasModifyingCTE))
        };
        // SAFETY: the caller's promise.
        let is_shown = unsafe { returns_to_client(query) };
        match operation {
            pg_sys::CmdType::CMD_DELETE if !has_modifying_cte => Self::Deleted,
            pg_sys::CmdType::CMD_SELECT if !has_modifying_cte && is_shown => Self::Shown,
            pg_sys::CmdType::CMD_SELECT if !has_modifying_cte => Self::Code,
            _ => Self::Stored,
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
    /// Whether what it returns goes to the client, even if it stores rows as well.
    returns_to_client: bool,
}

thread_local! {
    /// From the outermost to the innermost.
    static RUNNING: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

/// A query begins to run, in a hook at this frame.
///
/// # Safety
/// `query` was started.
pub unsafe fn push_query(frame: usize, context: Context, query: *mut pg_sys::QueryDesc) {
    // SAFETY: the caller's promise.
    let (rows, returns_to_client) = unsafe { (Rows::of(query), returns_to_client(query)) };
    let run = Run { frame, context, rows, returns_to_client };
    RUNNING.with_borrow_mut(|running| running.push(run));
}

fn push(frame: usize, context: Context, rows: Rows) {
    let run = Run { frame, context, rows, returns_to_client: false };
    RUNNING.with_borrow_mut(|running| running.push(run));
}

/// # Safety
/// `query` was started.
unsafe fn returns_to_client(query: *mut pg_sys::QueryDesc) -> bool {
    use pg_sys::CommandDest;
    // SAFETY: the caller's promise: its rows go somewhere.
    let destination = unsafe { (*query).dest.as_ref().map(|dest| dest.mydest) };
    matches!(
        destination,
        Some(
            CommandDest::DestRemote
                | CommandDest::DestRemoteExecute
                | CommandDest::DestRemoteSimple
                | CommandDest::DestTuplestore
                | CommandDest::DestTupleQueue
        )
    )
}

/// A command begins that may store what it evaluates, in a hook at this frame. It goes with the
/// memory of the portal that runs it.
pub fn push_command(frame: usize, context: Context) {
    push(frame, context, Rows::Stored);
}

/// What began at this frame or below it is over.
pub fn pop(frame: usize) {
    RUNNING.with_borrow_mut(|running| running.retain(|run| run.frame > frame));
}

/// The context goes, with whatever ran in it.
pub fn forget(context: Context) {
    // Not where the thread's own data are gone already, in a process that exits.
    let _ = RUNNING.try_with(|running| running.borrow_mut().retain(|run| run.context != context));
}

/// Looks at what is running, from the outermost to the innermost.
fn look<R>(at: impl FnOnce(&[Run]) -> R) -> R {
    RUNNING.with_borrow_mut(|running| {
        // The stack grows downwards: what lies below this frame belongs to something that an ERROR
        // has ended.
        let here = 0_u8;
        if running.last().is_some_and(|run| run.frame <= (&raw const here) as usize) {
            running.retain(|run| run.frame > (&raw const here) as usize);
        }
        at(running)
    })
}

/// The memory context of the innermost query or command.
pub fn innermost() -> Option<Context> {
    look(|running| running.last().map(|run| run.context))
}

/// Whether what is printed now may be for the client: nothing around it stores, and the outermost
/// query is not code's, such as that of a deferred trigger.
#[inline]
pub fn may_be_shown() -> bool {
    look(|running| {
        running.first().is_none_or(|run| run.rows != Rows::Code)
            && running.iter().all(|run| !matches!(run.rows, Rows::Stored | Rows::Deleted))
    })
}

/// Whether nothing runs but a DELETE, outside of its triggers: what is printed there decides which
/// rows go, or goes to the client.
pub fn is_deleting() -> bool {
    look(|running| matches!(running, [run] if run.rows == Rows::Deleted)) && !is_in_trigger()
}

fn is_in_trigger() -> bool {
    unsafe extern "C" {
        // Bound again because it can't raise an ERROR; it doesn't look at the call.
        fn pg_trigger_depth(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    }
    // SAFETY: returns a variable of this process, on the main thread.
    unsafe { pg_trigger_depth(std::ptr::null_mut()).value() as i32 > 0 }
}

/// Whether the one query that is running is a client's, and nothing is around it.
pub fn is_clients_own() -> bool {
    look(|running| matches!(running, [run] if run.returns_to_client))
}
