//! Expressions of a query that is being planned.

use crate::pg::collation::is_deterministic;
use crate::pg::{compat, tree};
use pgrx::pg_sys;

type Node = *mut pg_sys::Node;

/// # Safety
/// `node` is null or a node.
pub unsafe fn tag(node: Node) -> Option<pg_sys::NodeTag> {
    // SAFETY: the caller's promise.
    unsafe { node.as_ref() }.map(|node| node.type_)
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
        is_here.then_some(Column { table: compat::table_of(var), number: var.varattno })
    }
}

/// Whether an expression is the same for all rows of this query level, and can stand in two places.
///
/// # Safety
/// `node` is an expression of a query that is being planned, whose sub-selects are planned already.
pub unsafe fn is_constant(node: Node) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        !pg_sys::contain_var_clause(node)
            && !pg_sys::contain_volatile_functions(node)
            && !pg_sys::contain_subplans(node)
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
        let is_exact = is_deterministic(operator.inputcollid);
        (is_equality && is_exact && reads_as_it_is(a) && reads_as_it_is(b)).then_some((a, b))
    }
}

/// # Safety
/// `node` is an expression.
pub unsafe fn reads_as_it_is(node: Node) -> bool {
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
