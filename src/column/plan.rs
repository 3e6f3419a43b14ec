//! How queries that compare a protected column are planned: the support function of `=`, and what
//! becomes of comparisons.
//!
//! Nothing here takes a key, or looks at a value. An index condition is made of calls of
//! `cmk.probe`, which run when the scan starts: they are VOLATILE, so that the planner does not run
//! them to estimate what they would find ([`index`]).
//!
//! Where the conditions on a table name the tenant (`tenant = 'acme' AND ssn = $1`, in WHERE, in a
//! policy, in a view), `ssn = $1` becomes `cmk.equal(ssn, $1, 'acme')`, which searches that
//! tenant's values, whatever `cmk_encrypt.tenant` says. So rows are the same with and without an
//! index. That is done when the planner knows all conditions on the table, and none is rewritten
//! any more.

mod index;

use super::catalog;
use super::kind::Kind;
use crate::pg::known_protection::{self, Known};
use crate::pg::planner::at_execution;
use crate::pg::planner::expression::{self, Column};
use crate::pg::planner::{Condition, Table};
use crate::pg::raw::column_function;
use crate::pg::tree::{self, Expr, ExprType};
use pgrx::pg_sys;
use std::rc::Rc;

type Node = *mut pg_sys::Node;

const BOOL: ExprType =
    ExprType { oid: pg_sys::BOOLOID, modifier: -1, collation: pg_sys::InvalidOid };

column_function!(column_plan, |call| {
    let request = call.datum(0).cast_mut_ptr::<pg_sys::Node>();
    // SAFETY: PostgreSQL's planner passes a request, whose tag says which it is.
    let answer = unsafe {
        match (*request).type_ {
            pg_sys::NodeTag::T_SupportRequestSimplify => {
                let request = &*request.cast();
                at_execution::defer(request).or_else(|| simplify(request))
            }
            pg_sys::NodeTag::T_SupportRequestIndexCondition => {
                index::condition(&mut *request.cast())
            }
            pg_sys::NodeTag::T_SupportRequestSelectivity => selectivity(&mut *request.cast()),
            _ => None,
        }
    };
    Ok(pg_sys::Datum::from(answer.unwrap_or(std::ptr::null_mut())))
});

/// A comparison of a column: `=`, `<>`, or the function that stands for `= ANY`.
struct Comparison {
    column: Node,
    value: Node,
    collation: pg_sys::Oid,
    is_negated: bool,
}

impl Comparison {
    /// A comparison that doesn't say for which tenant, of an operator or a function of ours.
    ///
    /// # Safety
    /// `node` is an expression.
    unsafe fn of(node: Node, our_type: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller's promise; the node's type is looked at before it is used as that;
        // catalog look-ups.
        unsafe {
            let is_ours = |node| pg_sys::exprType(node) == our_type;
            if (*node).type_ == pg_sys::NodeTag::T_FuncExpr {
                let call = &*node.cast::<pg_sys::FuncExpr>();
                let [column, value] = tree::arguments(call.args)[..] else { return None };
                let types = [our_type, pg_sys::exprType(value)];
                let is_any = tree::function_of_cmk(c"equal_any", &types) == Some(call.funcid);
                let collation = call.inputcollid;
                let is_negated = false;
                let comparison = Self { column, value, collation, is_negated };
                return (is_any && is_ours(column)).then_some(comparison);
            }
            if (*node).type_ != pg_sys::NodeTag::T_OpExpr {
                return None;
            }
            let operator = &*node.cast::<pg_sys::OpExpr>();
            let [a, b] = tree::arguments(operator.args)[..] else { return None };
            let (column, value) = match (is_ours(a) && expression::column(a).is_some(), is_ours(b))
            {
                (true, _) => (a, b),
                (false, true) => (b, a),
                _ => return None,
            };
            let equals = catalog::equals(our_type, pg_sys::exprType(value))?;
            let is =
                |other| operator.opno == other || pg_sys::get_commutator(operator.opno) == other;
            let is_negated = is(pg_sys::get_negator(equals));
            let collation = operator.inputcollid;
            (is(equals) || is_negated).then_some(Self { column, value, collation, is_negated })
        }
    }

    /// The call that says the same, and for which tenant if that is known.
    ///
    /// # Safety
    /// In a transaction on the main thread.
    unsafe fn call(&self, tenant: Option<Expr>) -> Option<Expr> {
        // SAFETY: the caller's promise; expressions of the types that the function takes.
        unsafe {
            let of = pg_sys::exprType(self.value);
            let is_any = pg_sys::get_element_type(of) != pg_sys::InvalidOid;
            let name = if is_any { c"equal_any" } else { c"equal" };
            let mut types = vec![pg_sys::exprType(self.column), of];
            let mut arguments = vec![self.column.cast(), self.value.cast()];
            if let Some(tenant) = tenant {
                types.push(pg_sys::TEXTOID);
                arguments.push(tenant);
            }
            let function = tree::function_of_cmk(name, &types)?;
            let is_equal = tree::explicit_call(function, &arguments, BOOL, self.collation);
            Some(if self.is_negated { tree::not(is_equal) } else { is_equal })
        }
    }
}

/// How a column of a table is protected.
///
/// # Safety
/// A table that the query has locked.
unsafe fn known(table: Table, number: pg_sys::AttrNumber) -> Option<(Rc<[Known]>, usize)> {
    // SAFETY: the caller's promise.
    let known = unsafe { known_protection::of_table(table.oid()?) };
    let found = known.iter().position(|it| it.column == number)?;
    Some((known, found))
}

/// What is compared with another column of its row, is compared by a function that isn't LEAKPROOF:
/// opening both may fail, which tells of a row that a security barrier hides.
///
/// # Safety
/// A request of the planner's.
unsafe fn simplify(request: &pg_sys::SupportRequestSimplify) -> Option<Node> {
    // SAFETY: the caller's promise: a call that is being planned.
    unsafe {
        let call = &*request.fcall;
        let [a, b] = tree::arguments(call.args)[..] else { return None };
        let tables = |node| pg_sys::pull_varnos(request.root, node);
        if !pg_sys::bms_overlap(tables(a), tables(b)) {
            return None;
        }
        let types = [pg_sys::exprType(a), pg_sys::exprType(b)];
        let function = tree::function_of_cmk(c"equal_columns", &types)?;
        let arguments = [a.cast(), b.cast()];
        Some(tree::explicit_call(function, &arguments, BOOL, call.inputcollid).cast())
    }
}

/// Has comparisons with a table's protected columns search the values of the tenant that its other
/// conditions name.
pub fn table(our_type: pg_sys::Oid, table: Table) {
    // SAFETY: the planner's hook: the query's tables are locked; conditions of that query.
    unsafe {
        let Some(oid) = table.oid() else { return };
        let known = known_protection::of_table(oid);
        if known.is_empty() {
            return;
        }
        let equalities = table.equalities();
        for protection in known.iter() {
            let Some(tenant) = protection.tenant else { continue };
            let tenant = Column { table: table.number, number: tenant };
            let column = Column { table: table.number, number: protection.column };
            table.replace_in_joins(&|info| in_join(our_type, table, (column, tenant), info));
            let Some(tenant) = constant_equal_to(&equalities, tenant) else { continue };
            table.replace(&|node| {
                let comparison = Comparison::of(node, our_type)?;
                let is_it = expression::column(comparison.column) == Some(column)
                    && !pg_sys::contain_var_clause(comparison.value);
                let tenant = is_it.then(|| tree::as_text(tree::copy(tenant).cast()));
                comparison.call(Some(tenant??))
            });
        }
    }
}

/// A comparison with a value of other tables, whose tenant is that of those.
///
/// # Safety
/// A condition of a query that is being planned.
unsafe fn in_join(
    our_type: pg_sys::Oid,
    table: Table,
    (column, tenant): (Column, Column),
    condition: Condition,
) -> Option<Expr> {
    // SAFETY: the caller's promise.
    unsafe {
        let comparison = Comparison::of(condition.clause(), our_type)?;
        // Between sealed values it doesn't matter who searches; and they may be hashed.
        let is_it = expression::column(comparison.column) == Some(column)
            && pg_sys::exprType(comparison.value) != our_type;
        let others = if is_it { table.others_in(comparison.value)? } else { return None };
        let tenant = table.equal_in_join(tenant, condition.clause(), others)?;
        comparison.call(Some(tree::as_text(tree::copy(tenant).cast())?))
    }
}

/// What a column is equal to, by way of other columns as it may be.
///
/// # Safety
/// Expressions of a query that is being planned.
unsafe fn constant_equal_to(equalities: &[(Node, Node)], column: Column) -> Option<Node> {
    let mut columns = vec![column];
    let mut at = 0;
    while let Some(column) = columns.get(at).copied() {
        for (a, b) in equalities {
            for (side, other) in [(*a, *b), (*b, *a)] {
                // SAFETY: the caller's promise.
                unsafe {
                    if expression::column(side) != Some(column) {
                        continue;
                    }
                    match expression::column(other) {
                        Some(other) if !columns.contains(&other) => columns.push(other),
                        None if expression::is_constant(other) => return Some(other),
                        _ => {}
                    }
                }
            }
        }
        at += 1;
    }
    None
}

/// How many rows the functions that stand for `=` and `= ANY` find: as many as those do.
///
/// # Safety
/// A request of the planner's.
unsafe fn selectivity(request: &mut pg_sys::SupportRequestSelectivity) -> Option<Node> {
    // SAFETY: the caller's promise; catalog look-ups.
    unsafe {
        let our_type = catalog::type_oid(Kind::Text);
        let [column, value, ..] = tree::arguments(request.args)[..] else { return None };
        let of = pg_sys::exprType(value);
        let element = pg_sys::get_element_type(of);
        let is_any = element != pg_sys::InvalidOid;
        let operator = catalog::equals(our_type, if is_any { element } else { of })?;
        let (column, value): (Expr, Expr) = (column.cast(), value.cast());
        request.selectivity = if is_any {
            let any = tree::equals_any(operator, column, value, request.inputcollid);
            pg_sys::scalararraysel(
                request.root,
                any,
                request.is_join,
                request.varRelid,
                request.jointype,
                request.sjinfo,
            )
        } else if request.is_join {
            pg_sys::join_selectivity(
                request.root,
                operator,
                tree::list(&[column, value]),
                request.inputcollid,
                request.jointype,
                request.sjinfo,
            )
        } else {
            pg_sys::restriction_selectivity(
                request.root,
                operator,
                tree::list(&[column, value]),
                request.inputcollid,
                request.varRelid,
            )
        };
        Some(std::ptr::from_mut(request).cast())
    }
}

/// What stands in the place of `column = ANY (array)`, which the planner never asks about itself,
/// and of `column <> ALL (array)`.
pub fn any(our_type: pg_sys::Oid, node: *mut pg_sys::ScalarArrayOpExpr) -> Option<Expr> {
    // SAFETY: PostgreSQL has analyzed it; catalog look-ups in a transaction on the main thread.
    unsafe {
        let [column, array] = tree::arguments((*node).args)[..] else { return None };
        let element = pg_sys::get_element_type(pg_sys::exprType(array));
        let equals = catalog::equals(our_type, element)?;
        let operator = if (*node).useOr { equals } else { pg_sys::get_negator(equals) };
        if pg_sys::exprType(column) != our_type || (*node).opno != operator {
            return None;
        }
        let (collation, is_negated) = ((*node).inputcollid, !(*node).useOr);
        Comparison { column, value: array, collation, is_negated }.call(None)
    }
}

/// Our type in this database, if it is there.
pub fn our_type() -> Option<pg_sys::Oid> {
    let found = catalog::type_oid(Kind::Text);
    (found != pg_sys::InvalidOid).then_some(found)
}
