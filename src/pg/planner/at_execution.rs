//! What must not be evaluated while a query is planned.
//!
//! To estimate how many rows a condition finds, PostgreSQL's planner runs STABLE functions whose
//! arguments it knows, in EXPLAIN too (`estimate_expression_value`). A function of ours would open
//! a value then, ask KMS, and raise. So our functions hide an argument from it when it simplifies
//! them, which it does before it estimates anything:
//!
//! `CASE WHEN cmk_internal.at_execution() IS NULL THEN argument END`
//!
//! The planner runs no function that returns a `record`, and so nothing that takes what it returns.
//! The call stays STABLE, and can be an index condition as before; its rows are estimated as those
//! of a value that isn't known yet. No plan is needed to have been made by a hook, so this holds as
//! well where the library is loaded by the very query that is planned.
//!
//! EXPLAIN starts a query without running it, and that looks which partitions can be left out.
//! There `at_execution` returns something, the argument is null, and so is what is made of it.

use super::super::compat;
use super::super::raw::raw_function;
use super::super::tree::{self, Expr, ExprType};
use super::expression::tag;
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

type Node = *mut pg_sys::Node;

/// Whether EXPLAIN is starting a query that it does not run.
static ONLY_EXPLAINED: AtomicBool = AtomicBool::new(false);

/// A query is about to start, with these flags of the executor's. Returns what [`started`] takes.
pub fn starts(flags: i32) -> bool {
    ONLY_EXPLAINED.swap(flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 != 0, Relaxed)
}

/// What was starting has started: within another query's start, if `outer` says so.
pub fn started(outer: bool) {
    ONLY_EXPLAINED.store(outer, Relaxed);
}

/// What was starting has failed.
pub fn failed() {
    started(false);
}

// `cmk_internal.at_execution()`
raw_function!(planner_at_execution, |call| {
    if ONLY_EXPLAINED.load(Relaxed) {
        return Ok(something());
    }
    // SAFETY: the running call.
    unsafe { (*call).isnull = true };
    Ok(pg_sys::Datum::null())
});

/// A record without columns, of a type that nobody registered: it can't be looked into.
fn something() -> pg_sys::Datum {
    const SIZE: usize = size_of::<pg_sys::HeapTupleHeaderData>().next_multiple_of(8);
    // SAFETY: a header is all that such a record is, and zeroes are valid in it.
    unsafe {
        let header = pg_sys::palloc0(SIZE).cast::<pg_sys::HeapTupleHeaderData>();
        pgrx::set_varsize_4b(header.cast(), SIZE as i32);
        (*header).t_choice.t_datum.datum_typeid = pg_sys::RECORDOID;
        (*header).t_choice.t_datum.datum_typmod = -1;
        (*header).t_hoff = SIZE as u8;
        pg_sys::Datum::from(header)
    }
}

// `cmk_internal.defer(internal)`, the support function of what opens values.
raw_function!(planner_defer, |call| {
    // SAFETY: PostgreSQL's planner passes a request, whose tag says which it is.
    let answer = unsafe {
        let request = (*(*call).args.as_ptr()).value.cast_mut_ptr::<pg_sys::Node>();
        match (*request).type_ {
            pg_sys::NodeTag::T_SupportRequestSimplify => defer(&*request.cast()),
            _ => None,
        }
    };
    Ok(pg_sys::Datum::from(answer.unwrap_or(std::ptr::null_mut())))
});

/// The same call with an argument that the planner doesn't know; `None` if there is no need to.
///
/// # Safety
/// A request of the planner's.
pub unsafe fn defer(request: &pg_sys::SupportRequestSimplify) -> Option<Node> {
    // SAFETY: the caller's promise: a call that is being planned, whose arguments are simplified.
    unsafe {
        // Without a query nothing is estimated.
        if request.root.is_null() {
            return None;
        }
        let call = &*request.fcall;
        let mut arguments = tree::arguments(call.args);
        let marker = tree::function_of(c"cmk_internal", c"at_execution", &[])?;
        let hidden = hidden(&arguments, marker)?;
        let argument = arguments.get_mut(hidden)?;
        *argument = hide((*argument).cast(), marker).cast();
        let arguments: Vec<Expr> = arguments.iter().map(|argument| argument.cast()).collect();
        let deferred = pg_sys::makeFuncExpr(
            call.funcid,
            call.funcresulttype,
            tree::list(&arguments),
            call.funccollid,
            call.inputcollid,
            call.funcformat,
        );
        (*deferred).funcvariadic = call.funcvariadic;
        (*deferred).location = call.location;
        Some(deferred.cast())
    }
}

/// Which argument is to be hidden. Of a call that could be run as it is the second one, which is
/// the value where the first is a tenant, or the only one. Of a comparison a sealed value, where
/// the planner would compare it with what statistics hold of another type's column.
///
/// # Safety
/// Expressions.
unsafe fn hidden(arguments: &[Node], marker: pg_sys::Oid) -> Option<usize> {
    // SAFETY: the caller's promise.
    let known = |argument: &Node| unsafe { !is_known_later(*argument, marker) };
    // SAFETY: the caller's promise. What is no type of PostgreSQL's own is one of ours here.
    let is_ours = |argument: &Node| unsafe {
        pg_sys::exprType(*argument).to_u32() >= pg_sys::FirstNormalObjectId
    };
    if arguments.iter().all(known) {
        return Some(usize::from(arguments.len() > 1));
    }
    let sealed = arguments.iter().position(|argument| known(argument) && is_ours(argument))?;
    let is_mixed = arguments.len() == 2 && !is_ours(&arguments[1 - sealed]);
    is_mixed.then_some(sealed)
}

/// # Safety
/// `argument` is an expression.
unsafe fn hide(argument: Expr, marker: pg_sys::Oid) -> Expr {
    // SAFETY: the caller's promise.
    unsafe {
        let record =
            ExprType { oid: pg_sys::RECORDOID, modifier: -1, collation: pg_sys::InvalidOid };
        let marker = tree::explicit_call(marker, &[], record, pg_sys::InvalidOid);
        tree::when(tree::is_null(marker), argument)
    }
}

/// Whether an expression holds something that is known only when the query runs.
///
/// # Safety
/// `node` is an expression.
unsafe fn is_known_later(node: Node, mut marker: pg_sys::Oid) -> bool {
    // SAFETY: the caller's promise.
    unsafe { has_later(node, (&raw mut marker).cast()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn has_later(node: Node, context: *mut c_void) -> bool {
    use pg_sys::NodeTag::{
        T_Aggref, T_AlternativeSubPlan, T_CaseTestExpr, T_FuncExpr, T_GroupingFunc, T_Param,
        T_PlaceHolderVar, T_SubLink, T_SubPlan, T_Var, T_WindowFunc,
    };
    // SAFETY: called for null or a node of the expression, with the context from above; the node's
    // type is looked at before it is used as that.
    unsafe {
        match tag(node) {
            None => false,
            Some(
                T_Var | T_PlaceHolderVar | T_Aggref | T_WindowFunc | T_GroupingFunc | T_SubLink
                | T_SubPlan | T_AlternativeSubPlan | T_CaseTestExpr,
            ) => true,
            Some(T_Param)
                if (*node.cast::<pg_sys::Param>()).paramkind != pg_sys::ParamKind::PARAM_EXTERN =>
            {
                true
            }
            Some(T_FuncExpr)
                if (*node.cast::<pg_sys::FuncExpr>()).funcid == *context.cast::<pg_sys::Oid>() =>
            {
                true
            }
            Some(_) => compat::walk_expression(node, has_later, context),
        }
    }
}
