//! PostgreSQL's planner: a hook before it, and what it asks a function's support function
//! (`nodes/supportnodes.h`).
//!
//! As in [`executor`](super::executor), another hook's ERROR jumps over the frame of the hook here,
//! which holds nothing that has to be dropped.

use super::compat;
use super::tree::{self, Expr};
use pgrx::{PgList, pg_guard, pg_sys};
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

type Node = *mut pg_sys::Node;
type Query = *mut pg_sys::Query;
type Parameters = pg_sys::ParamListInfo;
type Plan = *mut pg_sys::PlannedStmt;
type Hook = unsafe extern "C-unwind" fn(Query, *const c_char, c_int, Parameters) -> Plan;

static PREVIOUS: AtomicUsize = AtomicUsize::new(0);
static REWRITE: OnceLock<Rewrite> = OnceLock::new();

/// What a query's parts are to be before they are planned.
#[derive(Clone, Copy)]
pub struct Rewrite {
    /// `None` where there is nothing to do in this database; else what the others are given.
    pub begin: fn() -> Option<pg_sys::Oid>,
    /// What stands in the place of a `= ANY`; `None`: as it is.
    pub any: fn(pg_sys::Oid, *mut pg_sys::ScalarArrayOpExpr) -> Option<Expr>,
}

/// Once per process, or in the postmaster for all its children.
pub fn install(rewrite: Rewrite) {
    // SAFETY: called from _PG_init on the main thread, the time to set this hook.
    unsafe {
        PREVIOUS.store(pg_sys::planner_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::planner_hook = Some(on_plan);
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
            0 => pg_sys::standard_planner(query, text, options, parameters),
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

/// # Safety
/// `node` is null or a node.
unsafe fn tag(node: Node) -> Option<pg_sys::NodeTag> {
    // SAFETY: the caller's promise.
    unsafe { node.as_ref() }.map(|node| node.type_)
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

/// A table that a query is about, and a column of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its number in the query's range table.
    pub table: u32,
    pub number: pg_sys::AttrNumber,
}

/// The column of this query level that an expression is, perhaps relabelled.
///
/// # Safety
/// `node` is null or an expression.
pub unsafe fn column(mut node: Node) -> Option<Column> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        while tag(node) == Some(pg_sys::NodeTag::T_RelabelType) {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        if tag(node) != Some(pg_sys::NodeTag::T_Var) {
            return None;
        }
        let var = &*node.cast::<pg_sys::Var>();
        let is_here = var.varlevelsup == 0 && var.varattno > 0 && var.varno > 0;
        is_here.then(|| Column { table: var.varno as u32, number: var.varattno })
    }
}

/// Whether an expression is the same for all rows of this query level.
///
/// # Safety
/// `node` is an expression of the query.
pub unsafe fn is_constant(node: Node) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !pg_sys::contain_var_clause(node) && !pg_sys::contain_volatile_functions(node) }
}

/// Whether a query gives a column of a table another value, and looks at the row as it is then.
///
/// # Safety
/// `query` is one that is being planned.
pub unsafe fn looks_at_changed(query: Query, column: Column) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let query = &*query;
        let looks = !query.returningList.is_null() || !query.withCheckOptions.is_null();
        let changes = match query.commandType {
            pg_sys::CmdType::CMD_UPDATE => {
                let targets = PgList::<pg_sys::TargetEntry>::from_pg(query.targetList);
                let is_it = |entry: *mut pg_sys::TargetEntry| (*entry).resno == column.number;
                targets.iter_ptr().any(is_it)
            }
            // Its actions look at the old row and at the new one.
            command => command == MERGE,
        };
        looks && changes && query.resultRelation as u32 == column.table
    }
}

#[cfg(feature = "pg14")]
const MERGE: pg_sys::CmdType::Type = pg_sys::CmdType::CMD_UNKNOWN;
#[cfg(not(feature = "pg14"))]
const MERGE: pg_sys::CmdType::Type = pg_sys::CmdType::CMD_MERGE;

/// What columns of a table are compared with for equality, wherever that holds for every row of the
/// table that the query uses: `tenant = 'acme'` in WHERE, in a policy, in the ON of an inner join.
///
/// # Safety
/// `query` is one that is being planned.
pub unsafe fn equalities(query: Query, table: u32) -> Vec<(Node, Node)> {
    let mut found = Vec::new();
    // SAFETY: the caller's promise; the number is that of a table of the query.
    unsafe {
        walk_from((*query).jointree.cast(), &mut found);
        let tables = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
        if let Some(entry) = tables.get_ptr(table as usize - 1) {
            walk_quals((*entry).securityQuals.cast(), &mut found);
        }
    }
    found
}

/// # Safety
/// `node` is null or a part of a FROM clause.
unsafe fn walk_from(node: Node, found: &mut Vec<(Node, Node)>) {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        match tag(node) {
            Some(pg_sys::NodeTag::T_FromExpr) => {
                let from = &*node.cast::<pg_sys::FromExpr>();
                for item in tree::arguments(from.fromlist) {
                    walk_from(item, found);
                }
                walk_quals(from.quals, found);
            }
            Some(pg_sys::NodeTag::T_JoinExpr) => {
                let join = &*node.cast::<pg_sys::JoinExpr>();
                walk_from(join.larg, found);
                walk_from(join.rarg, found);
                // What an outer join compares does not keep rows out.
                use pg_sys::JoinType::{JOIN_INNER, JOIN_SEMI};
                if [JOIN_INNER, JOIN_SEMI].contains(&join.jointype) {
                    walk_quals(join.quals, found);
                }
            }
            _ => {}
        }
    }
}

/// # Safety
/// `node` is null, a condition, or a list of conditions that all hold.
unsafe fn walk_quals(node: Node, found: &mut Vec<(Node, Node)>) {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        match tag(node) {
            Some(pg_sys::NodeTag::T_List) => {
                for item in tree::arguments(node.cast()) {
                    walk_quals(item, found);
                }
            }
            Some(pg_sys::NodeTag::T_BoolExpr) => {
                let all = &*node.cast::<pg_sys::BoolExpr>();
                if all.boolop == pg_sys::BoolExprType::AND_EXPR {
                    walk_quals(all.args.cast(), found);
                }
            }
            Some(pg_sys::NodeTag::T_OpExpr) => found.extend(equality(node)),
            _ => {}
        }
    }
}

/// The two sides of `=`, where only what reads the same is equal.
///
/// # Safety
/// `node` is an expression.
pub unsafe fn equality(node: Node) -> Option<(Node, Node)> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that; catalog
    // look-ups in a transaction on the main thread.
    unsafe {
        if tag(node) != Some(pg_sys::NodeTag::T_OpExpr) {
            return None;
        }
        let operator = &*node.cast::<pg_sys::OpExpr>();
        let [a, b] = tree::arguments(operator.args)[..] else { return None };
        let is_equality = !pg_sys::get_mergejoin_opfamilies(operator.opno).is_null();
        let collation = operator.inputcollid;
        let is_exact = collation == pg_sys::InvalidOid
            || collation == pg_sys::DEFAULT_COLLATION_OID
            || pg_sys::get_collation_isdeterministic(collation);
        (is_equality && is_exact && reads_as_it_is(a) && reads_as_it_is(b)).then_some((a, b))
    }
}

/// # Safety
/// `node` is an expression.
unsafe fn reads_as_it_is(node: Node) -> bool {
    const TYPES: [pg_sys::Oid; 9] = [
        pg_sys::TEXTOID,
        pg_sys::VARCHAROID,
        pg_sys::NAMEOID,
        pg_sys::INT2OID,
        pg_sys::INT4OID,
        pg_sys::INT8OID,
        pg_sys::OIDOID,
        pg_sys::UUIDOID,
        pg_sys::BOOLOID,
    ];
    // SAFETY: the caller's promise; a catalog look-up in a transaction on the main thread.
    unsafe {
        let of = pg_sys::exprType(node);
        TYPES.contains(&of) || pg_sys::type_is_enum(of)
    }
}

/// The expressions of an equivalence class.
///
/// # Safety
/// `class` is one of the planner's.
pub unsafe fn members(class: *mut pg_sys::EquivalenceClass) -> Vec<Node> {
    // SAFETY: the caller's promise.
    unsafe {
        let members = PgList::<pg_sys::EquivalenceMember>::from_pg((*class).ec_members);
        members.iter_ptr().map(|member| (*member).em_expr.cast()).collect()
    }
}
