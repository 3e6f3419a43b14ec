//! Statements that clients send, after they were analyzed and before they are planned.
//!
//! As in [`executor`](super::executor), another hook's ERROR jumps over the frame of the hook here,
//! which holds nothing that has to be dropped.

use super::settings::values::{WireType, column_wire_type};
use super::{compat, destination};
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

type State = *mut pg_sys::ParseState;
type Query = *mut pg_sys::Query;
type Node = *mut pg_sys::Node;
type AnalyzeHook = unsafe extern "C-unwind" fn(State, Query, *mut pg_sys::JumbleState);

static PREVIOUS: AtomicUsize = AtomicUsize::new(0);
static DESCRIBE: OnceLock<fn(&mut Statement)> = OnceLock::new();

/// Has `describe` called for every statement of a client that is to be described as if it had no
/// protected columns. Once per process, or in the postmaster for all its children.
pub fn install(describe: fn(&mut Statement)) {
    // SAFETY: called from _PG_init on the main thread, the time to set this hook.
    unsafe {
        let previous = pg_sys::post_parse_analyze_hook.map_or(0, |hook| hook as usize);
        PREVIOUS.store(previous, Relaxed);
        pg_sys::post_parse_analyze_hook = Some(on_analyzed);
    }
    DESCRIBE.get_or_init(|| describe);
}

unsafe extern "C-unwind" fn on_analyzed(
    state: State,
    query: Query,
    jumble: *mut pg_sys::JumbleState,
) {
    let address = PREVIOUS.load(Relaxed);
    if address != 0 {
        // SAFETY: another library's hook of this type, which was there before ours, with its
        // arguments.
        unsafe { std::mem::transmute::<usize, AnalyzeHook>(address)(state, query, jumble) };
    }
    if column_wire_type() == WireType::Text {
        on_wire(state, query);
    }
}

#[pg_guard]
extern "C-unwind" fn on_wire(state: State, query: Query) {
    // SAFETY: PostgreSQL passes what it has just analyzed.
    let statement = unsafe { Statement::of_client(state, query) };
    if let (Some(mut statement), Some(describe)) = (statement, DESCRIBE.get()) {
        describe(&mut statement);
    }
}

/// A client's own statement that may return rows or take parameters.
pub struct Statement {
    state: State,
    query: Query,
}

impl Statement {
    /// # Safety
    /// PostgreSQL has just analyzed them.
    unsafe fn of_client(state: State, query: Query) -> Option<Self> {
        // SAFETY: the caller's promise; a node's type is looked at before it is used as that.
        unsafe {
            if !is_clients(state) {
                return None;
            }
            let query = match (*query).commandType {
                pg_sys::CmdType::CMD_UTILITY => cursors_query((*query).utilityStmt)?,
                _ => query,
            };
            // What a dump reads has to be what a dump writes.
            (!destination::is_elsewhere()).then_some(Self { state, query })
        }
    }

    pub fn query(&self) -> Query {
        self.query
    }

    /// The types of parameters that PostgreSQL infers from the statement, which it has done by now.
    pub fn inferred_parameters(&mut self) -> &mut [pg_sys::Oid] {
        // SAFETY: only a parser with such parameters has this hook, and then its state is of this
        // type. The array has as many elements as it says, and is null if those are none.
        unsafe {
            if (*self.state).p_coerce_param_hook.is_none() {
                return &mut [];
            }
            let held = &*(*self.state).p_ref_hook_state.cast::<VariableParameters>();
            match (*held.types).is_null() {
                true => &mut [],
                false => std::slice::from_raw_parts_mut(*held.types, *held.count as usize),
            }
        }
    }

    /// Puts what `replace` returns in the place of each parameter for which it returns something,
    /// wherever it stands.
    pub fn replace_parameters(&mut self, replace: &dyn Fn(&pg_sys::Param) -> Option<Node>) {
        let replace: Replace = replace;
        // SAFETY: a query that nobody else looks at yet; changed where it lies.
        unsafe {
            let context = (&raw const replace).cast_mut().cast();
            compat::mutate_query(self.query, mutate, context, pg_sys::QTW_DONT_COPY_QUERY);
        }
    }
}

type Replace<'a> = &'a dyn Fn(&pg_sys::Param) -> Option<Node>;

/// PostgreSQL's `VarParamState`, which is private to its `parse_param.c`.
#[repr(C)]
struct VariableParameters {
    types: *mut *mut pg_sys::Oid,
    count: *mut i32,
}

/// Whether a client sent it, and whether it gets the rows.
///
/// Within a portal nobody analyzes a client's statement, but bodies of functions, views, and what
/// COPY or EXECUTE reads. Without one, bodies of functions are analyzed too: while a statement is
/// planned, and at commit, by deferred triggers. Their text is not the text that the client sent,
/// as a pointer. A statement that is analyzed anew when a client asks what it returns comes without
/// such a text, in the context of the client's message.
///
/// # Safety
/// `state` is a parser's.
unsafe fn is_clients(state: State) -> bool {
    // SAFETY: the caller's promise; variables of this process, on the main thread.
    unsafe {
        pg_sys::ActivePortal.is_null()
            && pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND
            && match pg_sys::debug_query_string.is_null() {
                true => pg_sys::CurrentMemoryContext == pg_sys::MessageContext,
                false => std::ptr::eq(pg_sys::debug_query_string, (*state).p_sourcetext),
            }
    }
}

/// The query of DECLARE CURSOR. Other commands have queries too, and don't send their rows:
/// EXPLAIN, CREATE TABLE AS.
///
/// # Safety
/// `command` is null or a node.
unsafe fn cursors_query(command: Node) -> Option<Query> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        if command.is_null() || (*command).type_ != pg_sys::NodeTag::T_DeclareCursorStmt {
            return None;
        }
        let query = (*command.cast::<pg_sys::DeclareCursorStmt>()).query;
        ((*query).type_ == pg_sys::NodeTag::T_Query).then_some(query.cast())
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn mutate(node: Node, context: *mut c_void) -> Node {
    // SAFETY: called for null or a node of the query, with the context from above; the node's type
    // is looked at before it is used as that.
    unsafe {
        match node.as_ref().map(|node| node.type_) {
            None => node,
            Some(pg_sys::NodeTag::T_Query) => {
                compat::mutate_query(node.cast(), mutate, context, 0).cast()
            }
            Some(pg_sys::NodeTag::T_Param) => {
                let replace = *context.cast::<Replace<'_>>();
                replace(&*node.cast()).unwrap_or(node)
            }
            Some(_) => compat::mutate_expression(node, mutate, context),
        }
    }
}
