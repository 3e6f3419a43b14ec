//! Which role a running query was started as.
//!
//! Grants are checked when a value is opened. A role without a grant could declare a cursor over
//! our functions and have a SECURITY DEFINER function of a granted role fetch from it: then the
//! current role is the granted one. So the role that the executor started as has to hold the grant
//! too.
//!
//! A function finds its executor by the memory context that its call state was made in: the
//! executor's own, or one below it. PL/pgSQL evaluates simple expressions without an executor, in
//! contexts of its own. There the current role counts, and so does the role of a query around it
//! that is being run as another role than it was started as: the function may be called by such a
//! cursor.
//!
//! Cursors over CALL, EXPLAIN ANALYZE and the like run a whole command when they are first fetched
//! from ([`utility`]).
//!
//! Every query of the server passes here, and its errors are none of our business: PostgreSQL's
//! functions are called without pgrx's guards, which would make their ERRORs anew and lose half of
//! them. An ERROR jumps over the frames of the hooks, so they hold nothing that has to be dropped.

mod around;
mod utility;

pub use around::around;
pub use utility::callers_role;

use super::compat::with_run_arguments;
use super::datum::alloc;
use super::destination;
use super::identity::current_role;
use super::planner::at_execution;
use super::running;
use super::settings::level::Level;
use super::settings::values::{Output, column_output};
use super::statement_number;
use cmk_keyring::tenant::Role;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

type Context = pg_sys::MemoryContext;
type Query = *mut pg_sys::QueryDesc;
type Direction = pg_sys::ScanDirection::Type;

thread_local! {
    /// Executors that are alive: their memory context, and the role that each was started as.
    static STARTED: RefCell<Vec<(Context, Role)>> = const { RefCell::new(Vec::new()) };
}

/// What was last found, for the next value of the same query: its memory context and the role. No
/// context: nothing. Asked for every value, so not a thread's own: PostgreSQL has one.
static LAST_CONTEXT: AtomicUsize = AtomicUsize::new(0);
static LAST_ROLE: AtomicU32 = AtomicU32::new(0);

static PREVIOUS_START: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_RUN: AtomicUsize = AtomicUsize::new(0);

static PREVIOUS_FINISH: AtomicUsize = AtomicUsize::new(0);

type StartHook = unsafe extern "C-unwind" fn(Query, c_int);
type FinishHook = unsafe extern "C-unwind" fn(Query);

unsafe extern "C-unwind" {
    fn standard_ExecutorStart(query: Query, flags: c_int);
    fn standard_ExecutorFinish(query: Query);
}

/// Once per process, or in the postmaster for all its children.
pub fn install() {
    // SAFETY: called from _PG_init on the main thread, the time to set these hooks.
    unsafe {
        PREVIOUS_START.store(pg_sys::ExecutorStart_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::ExecutorStart_hook = Some(on_start);
        PREVIOUS_RUN.store(pg_sys::ExecutorRun_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::ExecutorRun_hook = Some(on_run);
        let previous = pg_sys::ExecutorFinish_hook.map_or(0, |hook| hook as usize);
        PREVIOUS_FINISH.store(previous, Relaxed);
        pg_sys::ExecutorFinish_hook = Some(on_finish);
        utility::install();
        utility::enter_at_load();
        utility::begin_at_load();
        // The library may be loaded by a query that is just starting and calls our functions.
        let mut context = pg_sys::CurrentMemoryContext;
        while !context.is_null() {
            // PL/pgSQL's, for simple expressions of the whole transaction, is nobody's query.
            let is_shared = (*context).parent == pg_sys::TopTransactionContext;
            if CStr::from_ptr((*context).name) == c"ExecutorState" && !is_shared {
                remember(context, current_role());
            }
            context = (*context).parent;
        }
    }
}

unsafe extern "C-unwind" fn on_start(query: Query, flags: c_int) {
    statement_number::next();
    // SAFETY: a query that is about to start.
    let role = unsafe { starting_role(query) };
    let outer = at_execution::starts(flags);
    // SAFETY: called in place of, and calling, the executor's own function with its arguments.
    unsafe {
        match PREVIOUS_START.load(Relaxed) {
            0 => standard_ExecutorStart(query, flags),
            address => std::mem::transmute::<usize, StartHook>(address)(query, flags),
        }
        at_execution::started(outer);
        if let Some(state) = (*query).estate.as_ref() {
            remember(state.es_query_cxt, role);
        }
    }
}

/// Some cursors start their query when they are first fetched from: those over DML with RETURNING,
/// and over EXECUTE. In a SECURITY DEFINER function such a query may be its caller's, so it counts
/// as started by the caller.
///
/// # Safety
/// `query` is about to start.
unsafe fn starting_role(query: Query) -> Role {
    use pg_sys::PortalStrategy::{PORTAL_ONE_MOD_WITH, PORTAL_ONE_RETURNING};
    // SAFETY: looks at the query, the running portal, if there is one, and its list of statements.
    unsafe {
        // A foreign key is looked up as the owner of the other table, for somebody who could learn
        // from it which values there are.
        let is_look_up = (*query).operation == pg_sys::CmdType::CMD_SELECT;
        if is_look_up && pg_sys::InNoForceRLSOperation() {
            return Role(pg_sys::GetOuterUserId().to_u32());
        }
        let Some(portal) = pg_sys::ActivePortal.as_ref() else { return current_role() };
        let fills = matches!(portal.strategy, PORTAL_ONE_RETURNING | PORTAL_ONE_MOD_WITH);
        let its_own = utility::is_of_portal(portal, (*query).plannedstmt);
        // EXECUTE runs its query in a portal that nobody sees; so does a client's simple query, but
        // not within a SECURITY DEFINER function.
        match pg_sys::InLocalUserIdChange() && its_own && (fills || !portal.visible) {
            true => Role(pg_sys::GetOuterUserId().to_u32()),
            false => current_role(),
        }
    }
}

/// # Safety
/// A live memory context, on the main thread.
unsafe fn remember(context: Context, role: Role) {
    // Without memory for the callback the query goes by the current role alone.
    if forget_with(context) {
        STARTED.with_borrow_mut(|started| started.push((context, role)));
    }
}

/// Has all that is remembered of a context forgotten when it goes. False if there is no memory.
fn forget_with(context: Context) -> bool {
    // SAFETY: a live context. The callback's record lies in it, so it lives until it is called.
    unsafe {
        let size = size_of::<pg_sys::MemoryContextCallback>();
        let Some(memory) = alloc(context, size) else { return false };
        let callback = memory.cast::<pg_sys::MemoryContextCallback>().as_ptr();
        let arg = context.cast();
        callback.write(pg_sys::MemoryContextCallback {
            func: Some(forget),
            arg,
            next: std::ptr::null_mut(),
        });
        pg_sys::MemoryContextRegisterResetCallback(context, callback);
    }
    true
}

/// The context goes, with whatever query ran in it; its address may be another's next.
#[pg_guard]
extern "C-unwind" fn forget(context: *mut c_void) {
    let context: Context = context.cast();
    // Not where the thread's own data are gone already, in a process that exits.
    let _ = STARTED.try_with(|started| {
        started.borrow_mut().retain(|(of, _)| *of != context);
    });
    statement_number::next();
    around::forget(context);
    running::forget(context);
    LAST_CONTEXT.store(0, Relaxed);
}

macro_rules! on_run {
    ($($name:ident: $type:ty),*) => {
        type RunHook = unsafe extern "C-unwind" fn(Query, $($type),*);

        unsafe extern "C-unwind" {
            fn standard_ExecutorRun(query: Query, $($name: $type),*);
        }

        unsafe extern "C-unwind" fn on_run(query: Query, $($name: $type),*) {
            let here = 0_u8;
            // SAFETY: a query that was started.
            let entered = unsafe { enter(query, (&raw const here) as usize) };
            // SAFETY: called in place of, and calling, the executor's own function with its
            // arguments.
            unsafe {
                match PREVIOUS_RUN.load(Relaxed) {
                    0 => standard_ExecutorRun(query, $($name),*),
                    address => std::mem::transmute::<usize, RunHook>(address)(query, $($name),*),
                }
            }
            entered.leave((&raw const here) as usize);
        }
    };
}
with_run_arguments!(on_run);

/// AFTER triggers run here.
unsafe extern "C-unwind" fn on_finish(query: Query) {
    let here = 0_u8;
    // SAFETY: a query that was started.
    let entered = unsafe { enter(query, (&raw const here) as usize) };
    // SAFETY: called in place of, and calling, the executor's own function with its argument.
    unsafe {
        match PREVIOUS_FINISH.load(Relaxed) {
            0 => standard_ExecutorFinish(query),
            address => std::mem::transmute::<usize, FinishHook>(address)(query),
        }
    }
    entered.leave((&raw const here) as usize);
}

/// What was remembered of a query when it began to run. Without a destructor, because an ERROR
/// jumps over it.
#[derive(Clone, Copy)]
struct Entered {
    is_foreign: bool,
    /// A level of settings that was begun for it.
    settings: Option<Level>,
}

impl Entered {
    fn leave(self, here: usize) {
        if let Some(level) = self.settings {
            level.end();
        }
        running::pop(here);
        if self.is_foreign {
            around::pop(here);
        }
    }
}

/// Remembers a query that is being run: where its rows go; and whether it runs as another role than
/// it was started as: all that happens in it needs that role's grant too.
///
/// # Safety
/// `query` was started.
unsafe fn enter(query: Query, here: usize) -> Entered {
    // SAFETY: the caller's promise.
    let state = unsafe { (*query).estate.as_ref() };
    let context = state.map_or(std::ptr::null_mut(), |state| state.es_query_cxt);
    // SAFETY: the caller's promise.
    unsafe { running::push_query(here, context, query) };
    let starter = started_as(context).filter(|starter| *starter != current_role());
    if let Some(starter) = starter {
        around::push(here, context, starter);
    }
    // SAFETY: the caller's promise.
    let settings = unsafe { hide_from_workers(query) };
    Entered { is_foreign: starter.is_some(), settings }
}

/// Parallel workers don't know what their leader is doing, but have its settings: where nothing may
/// be shown, they print ciphertext.
///
/// # Safety
/// `query` was started.
unsafe fn hide_from_workers(query: Query) -> Option<Level> {
    // SAFETY: the caller's promise; on the main thread.
    unsafe {
        let is_parallel = (*query).plannedstmt.as_ref().is_some_and(|it| it.parallelModeNeeded);
        let is_elsewhere = || destination::is_elsewhere() || !destination::is_client();
        (is_parallel && column_output() == Output::Plaintext && is_elsewhere()).then(|| {
            let level = Level::begin();
            level.set(c"cmk_encrypt.output", c"ciphertext");
            level
        })
    }
}

/// The role that the query was started as which calls a function. `None` if it isn't called by an
/// executor.
///
/// # Safety
/// `call` is that of the running function.
#[inline]
pub unsafe fn starter(call: pg_sys::FunctionCallInfo) -> Option<Role> {
    // SAFETY: the caller's promise; PostgreSQL fills in where the call state lies.
    let context = unsafe { (*call).flinfo.as_ref()?.fn_mcxt };
    match LAST_CONTEXT.load(Relaxed) == context as usize {
        true => Some(Role(LAST_ROLE.load(Relaxed))),
        false => find(context),
    }
}

#[cold]
fn find(context: Context) -> Option<Role> {
    if let Some(Role(oid)) = started_as(context) {
        // We are told only when an executor's own context ends, so cache only those; one below it
        // may go before.
        LAST_CONTEXT.store(context as usize, Relaxed);
        LAST_ROLE.store(oid, Relaxed);
        return Some(Role(oid));
    }
    let mut at = context;
    while !at.is_null() {
        // SAFETY: a live context, and so are its parents.
        at = unsafe { (*at).parent };
        let role = started_as(at);
        if role.is_some() {
            return role;
        }
    }
    None
}

/// The role that the innermost running query was started as. Within a function that has run no
/// query, that is the role that called it.
pub fn innermost_starter() -> Option<Role> {
    started_as(running::innermost()?)
}

/// The role that the executor of this memory context was started as.
fn started_as(context: Context) -> Option<Role> {
    STARTED.with_borrow(|started| {
        let found = started.iter().rev().find(|(of, _)| *of == context);
        found.map(|(_, role)| *role)
    })
}
