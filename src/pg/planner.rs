//! PostgreSQL's planner: a hook before it, and what it asks a function's support function
//! (`nodes/supportnodes.h`).
//!
//! As in [`executor`](super::executor), another hook's ERROR jumps over the frame of the hook here,
//! which holds nothing that has to be dropped.

pub mod at_execution;
pub mod expression;
mod table;

use super::compat;
use super::tree::{self, Expr};
use expression::tag;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
pub use table::{Condition, Table};

type Node = *mut pg_sys::Node;
type Query = *mut pg_sys::Query;
type Parameters = pg_sys::ParamListInfo;
type Plan = *mut pg_sys::PlannedStmt;
type Hook = unsafe extern "C-unwind" fn(Query, *const c_char, c_int, Parameters) -> Plan;
type Root = *mut pg_sys::PlannerInfo;
type Rel = *mut pg_sys::RelOptInfo;
type Entry = *mut pg_sys::RangeTblEntry;
type TableHook = unsafe extern "C-unwind" fn(Root, Rel, pg_sys::Index, Entry);

unsafe extern "C-unwind" {
    // Without pgrx's jump target: an ERROR jumps over the hook's frame.
    fn standard_planner(
        query: Query,
        text: *const c_char,
        options: c_int,
        parameters: Parameters,
    ) -> Plan;
}

static PREVIOUS_TABLE: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: AtomicUsize = AtomicUsize::new(0);
static REWRITE: OnceLock<Rewrite> = OnceLock::new();

/// What is done to queries while they are planned.
#[derive(Clone, Copy)]
pub struct Rewrite {
    /// `None` where there is nothing to do in this database; else what the others are given.
    pub begin: fn() -> Option<pg_sys::Oid>,
    /// What stands in the place of a `= ANY`; `None`: as it is. Before anything is planned.
    pub any: fn(pg_sys::Oid, *mut pg_sys::ScalarArrayOpExpr) -> Option<Expr>,
    /// Changes the conditions on a table, when all there are is known.
    pub table: fn(pg_sys::Oid, Table),
}

/// Once per process, or in the postmaster for all its children.
pub fn install(rewrite: Rewrite) {
    // SAFETY: called from _PG_init on the main thread, the time to set this hook.
    unsafe {
        PREVIOUS.store(pg_sys::planner_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::planner_hook = Some(on_plan);
        let previous = pg_sys::set_rel_pathlist_hook.map_or(0, |hook| hook as usize);
        PREVIOUS_TABLE.store(previous, Relaxed);
        pg_sys::set_rel_pathlist_hook = Some(on_table);
    }
    REWRITE.get_or_init(|| rewrite);
}

unsafe extern "C-unwind" fn on_plan(
    query: Query,
    text: *const c_char,
    options: c_int,
    parameters: Parameters,
) -> Plan {
    let query = rewritten(query);
    // SAFETY: another library's hook of this type, which was there before ours, or PostgreSQL's own
    // planner, with our arguments.
    unsafe {
        match PREVIOUS.load(Relaxed) {
            0 => standard_planner(query, text, options, parameters),
            address => {
                let hook = std::mem::transmute::<usize, Hook>(address);
                hook(query, text, options, parameters)
            }
        }
    }
}

#[pg_guard]
extern "C-unwind" fn rewritten(query: Query) -> Query {
    let Some(rewrite) = REWRITE.get() else { return query };
    let Some(our_type) = (rewrite.begin)() else { return query };
    let mut state = State { our_type, rewrite: *rewrite };
    // SAFETY: a query that is about to be planned; what is changed is a copy.
    unsafe {
        let context = (&raw mut state).cast();
        match compat::walk_query(query, has_any, context) {
            true => compat::mutate_query(query, with_any, context, 0),
            false => query,
        }
    }
}

struct State {
    our_type: pg_sys::Oid,
    rewrite: Rewrite,
}

#[pg_guard]
unsafe extern "C-unwind" fn has_any(node: Node, context: *mut c_void) -> bool {
    // SAFETY: called for null or a node of the query, with the context from above; the node's type
    // is looked at before it is used as that.
    unsafe {
        match tag(node) {
            None => false,
            Some(pg_sys::NodeTag::T_Query) => compat::walk_query(node.cast(), has_any, context),
            Some(pg_sys::NodeTag::T_ScalarArrayOpExpr) => {
                let of = tree::arguments((*node.cast::<pg_sys::ScalarArrayOpExpr>()).args);
                let our_type = (*context.cast::<State>()).our_type;
                of.first().is_some_and(|first| pg_sys::exprType(*first) == our_type)
                    || compat::walk_expression(node, has_any, context)
            }
            Some(_) => compat::walk_expression(node, has_any, context),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn with_any(node: Node, context: *mut c_void) -> Node {
    // SAFETY: as in has_any.
    unsafe {
        match tag(node) {
            None => node,
            Some(pg_sys::NodeTag::T_Query) => {
                compat::mutate_query(node.cast(), with_any, context, 0).cast()
            }
            Some(pg_sys::NodeTag::T_ScalarArrayOpExpr) => {
                let copy = compat::mutate_expression(node, with_any, context);
                let State { our_type, rewrite } = *context.cast::<State>();
                let replaced = (rewrite.any)(our_type, copy.cast());
                replaced.map_or(copy, <*mut pg_sys::Expr>::cast)
            }
            Some(_) => compat::mutate_expression(node, with_any, context),
        }
    }
}

unsafe extern "C-unwind" fn on_table(root: Root, rel: Rel, number: pg_sys::Index, entry: Entry) {
    let address = PREVIOUS_TABLE.load(Relaxed);
    // SAFETY: another library's hook of this type, which was there before ours, with its arguments.
    unsafe {
        if address != 0 {
            std::mem::transmute::<usize, TableHook>(address)(root, rel, number, entry);
        }
        if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION {
            change_table(Table { root, rel, entry, number });
        }
    }
}

#[pg_guard]
extern "C-unwind" fn change_table(table: Table) {
    if let Some(rewrite) = REWRITE.get()
        && let Some(our_type) = (rewrite.begin)()
    {
        (rewrite.table)(our_type, table);
    }
}
