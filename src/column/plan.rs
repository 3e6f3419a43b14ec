//! How queries that compare a protected column are planned: the support function of `=`, and what
//! becomes of `= ANY`.
//!
//! Nothing here takes a key, or looks at a value. An index condition is made of calls of
//! `cmk.probe`, which run when the scan starts: they are VOLATILE, so that the planner does not run
//! them to estimate what they would find.
//!
//! `column = value` becomes `cmk.equal(column, value, tenant)` where the query says which tenant's
//! rows it is about. So rows are found the same way with and without an index.

use super::catalog;
use super::kind::Kind;
use super::options::Search;
use crate::pg::known_protection::{self, Known};
use crate::pg::planner::{self, Column};
use crate::pg::raw::column_function;
use crate::pg::tree::{self, Expr, ExprType};
use pgrx::{PgList, pg_sys};
use std::rc::Rc;

type Node = *mut pg_sys::Node;

const BOOL: ExprType =
    ExprType { oid: pg_sys::BOOLOID, modifier: -1, collation: pg_sys::InvalidOid };

column_function!(column_plan, |call| {
    let request = call.datum(0).cast_mut_ptr::<pg_sys::Node>();
    // SAFETY: PostgreSQL's planner passes a request, whose tag says which it is.
    let answer = unsafe {
        match (*request).type_ {
            pg_sys::NodeTag::T_SupportRequestSimplify => simplify(&*request.cast()),
            pg_sys::NodeTag::T_SupportRequestIndexCondition => index(&mut *request.cast()),
            pg_sys::NodeTag::T_SupportRequestSelectivity => selectivity(&mut *request.cast()),
            _ => None,
        }
    };
    Ok(pg_sys::Datum::from(answer.unwrap_or(std::ptr::null_mut())))
});

/// A comparison of a column: `=`, or one of the functions that stand for it.
struct Comparison {
    column: Node,
    value: Node,
    /// A third argument.
    tenant: Option<Node>,
    is_any: bool,
}

impl Comparison {
    /// # Safety
    /// `arguments` are those of such a comparison.
    unsafe fn of(arguments: &[Node], our_type: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller's promise; a catalog look-up.
        unsafe {
            let is_ours = |node| pg_sys::exprType(node) == our_type;
            let (column, value, tenant) = match *arguments {
                [a, b] if is_ours(a) && planner::column(a).is_some() => (a, b, None),
                [a, b] if is_ours(b) => (b, a, None),
                [a, b, tenant] => (a, b, Some(tenant).filter(|node| !is_null(*node))),
                _ => return None,
            };
            let element = pg_sys::get_element_type(pg_sys::exprType(value));
            let is_any = element != pg_sys::InvalidOid;
            Some(Self { column, value, tenant, is_any })
        }
    }

    /// The call that says the same, and for which tenant.
    ///
    /// # Safety
    /// In a transaction on the main thread.
    unsafe fn call(&self, tenant: Expr, collation: pg_sys::Oid) -> Option<Expr> {
        // SAFETY: the caller's promise; expressions of the types that the function takes.
        unsafe {
            let name = if self.is_any { c"equal_any" } else { c"equal" };
            let types = [pg_sys::exprType(self.column), pg_sys::exprType(self.value)];
            let types = [types[0], types[1], pg_sys::TEXTOID];
            let function = tree::function_of_cmk(name, &types)?;
            let arguments = [self.column.cast(), self.value.cast(), tenant];
            Some(tree::explicit_call(function, &arguments, BOOL, collation))
        }
    }
}

/// # Safety
/// `node` is an expression.
unsafe fn is_null(node: Node) -> bool {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_Const && (*node.cast::<pg_sys::Const>()).constisnull
    }
}

/// How a column of a query's table is protected.
///
/// # Safety
/// `entry` is a table that the query has locked.
unsafe fn known(
    entry: *const pg_sys::RangeTblEntry,
    number: pg_sys::AttrNumber,
) -> Option<(Rc<[Known]>, usize)> {
    // SAFETY: the caller's promise.
    unsafe {
        let entry = entry.as_ref()?;
        if entry.rtekind != pg_sys::RTEKind::RTE_RELATION {
            return None;
        }
        let known = known_protection::of_table(entry.relid);
        let found = known.iter().position(|it| it.column == number)?;
        Some((known, found))
    }
}

/// `column = value`, with the tenant that the query names.
///
/// # Safety
/// A request of the planner's.
unsafe fn simplify(request: &pg_sys::SupportRequestSimplify) -> Option<Node> {
    // SAFETY: the caller's promise: a call that is being planned, in a query of which the tables
    // are locked.
    unsafe {
        let root = request.root.as_ref()?;
        let call = &*request.fcall;
        let arguments = tree::arguments(call.args);
        let comparison = Comparison::of(&arguments, catalog::type_oid(Kind::Text))?;
        if comparison.tenant.is_some() || !planner::is_constant(comparison.value) {
            return None;
        }
        let Column { table, number } = planner::column(comparison.column)?;
        let tables = PgList::<pg_sys::RangeTblEntry>::from_pg((*root.parse).rtable);
        let (known, at) = known(tables.get_ptr(table as usize - 1)?, number)?;
        let tenant = Column { table, number: known[at].tenant? };
        if planner::looks_at_changed(root.parse, tenant) {
            return None;
        }
        let tenant = constant_equal_to(&planner::equalities(root.parse, table), tenant)?;
        let tenant = tree::as_text(tree::copy(tenant).cast())?;
        comparison.call(tenant, call.inputcollid).map(|expression| expression.cast())
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
                    if planner::column(side) != Some(column) {
                        continue;
                    }
                    match planner::column(other) {
                        Some(other) if !columns.contains(&other) => columns.push(other),
                        None if planner::is_constant(other) => return Some(other),
                        _ => {}
                    }
                }
            }
        }
        at += 1;
    }
    None
}

/// What an index on tokens is to be searched for.
///
/// # Safety
/// A request of the planner's.
unsafe fn index(request: &mut pg_sys::SupportRequestIndexCondition) -> Option<Node> {
    // SAFETY: the caller's promise: a comparison that is being planned, of which an argument is a
    // column of an index, in a query of which the tables are locked.
    unsafe {
        let our_type = catalog::type_oid(Kind::Text);
        let token_equals = catalog::token_equals(our_type)?;
        if pg_sys::get_op_opfamily_strategy(token_equals, request.opfamily) == 0 {
            return None;
        }
        let arguments = match (*request.node).type_ {
            pg_sys::NodeTag::T_OpExpr => (*request.node.cast::<pg_sys::OpExpr>()).args,
            pg_sys::NodeTag::T_FuncExpr => (*request.node.cast::<pg_sys::FuncExpr>()).args,
            _ => return None,
        };
        let arguments = tree::arguments(arguments);
        let column = *arguments.get(request.indexarg as usize)?;
        let given = match (arguments.as_slice(), request.indexarg) {
            ([_, value, ..], 0) => *value,
            ([value, _], 1) => *value,
            _ => return None,
        };
        let given_tenant = arguments.get(2).copied().filter(|tenant| !is_null(*tenant));
        if !pg_sys::is_pseudo_constant_for_index(request.root, given, request.index) {
            return None;
        }
        let table = (*(*request.index).rel).relid;
        let entry = *(*request.root).simple_rte_array.add(table as usize);
        let (known, at) = known(entry, planner::column(column)?.number)?;
        let known = &known[at];
        Search::parse(known.options.as_deref().map(str::as_bytes)).ok()??;
        let tenant = given_tenant.or_else(|| tenant_of(request, table, known, given));
        if tenant.is_none() && pg_sys::contain_var_clause(given) {
            return None;
        }
        let tenant = match tenant {
            Some(tenant) => Some(tree::as_text(tree::copy(tenant).cast())?),
            None => None,
        };
        let probes = probes(known, given, tenant, our_type, pg_sys::exprCollation(column))?;
        let column = tree::copy(column);
        let condition = tree::equals_any(token_equals, column, probes, request.indexcollation);
        request.lossy = true;
        Some(tree::list(&[condition.cast()]).cast())
    }
}

/// The tenant, of what the planner knows about the table: a condition beside this one, or, for a
/// value of another table, that table's column that is equal to the tenant's.
///
/// # Safety
/// As [`index`].
unsafe fn tenant_of(
    request: &pg_sys::SupportRequestIndexCondition,
    table: u32,
    known: &Known,
    given: Node,
) -> Option<Node> {
    let tenant = Column { table, number: known.tenant? };
    // SAFETY: the caller's promise; lists of the planner's own.
    unsafe {
        let rel = &*(*request.index).rel;
        let conditions = PgList::<pg_sys::RestrictInfo>::from_pg(rel.baserestrictinfo);
        let clauses = conditions.iter_ptr().map(|info| (*info).clause.cast());
        let equalities: Vec<_> = clauses.filter_map(|clause| planner::equality(clause)).collect();
        if let Some(constant) = constant_equal_to(&equalities, tenant) {
            return Some(constant);
        }
        let others = pg_sys::pull_varnos(request.root, given);
        if let Some(other) = tenant_in_join(request, tenant, others) {
            return Some(other);
        }
        let classes = (*request.root).eq_classes;
        for class in PgList::<pg_sys::EquivalenceClass>::from_pg(classes).iter_ptr() {
            let members: Vec<Node> = planner::members(class);
            if !members.iter().any(|member| planner::column(*member) == Some(tenant)) {
                continue;
            }
            let of_others = |member: &&Node| {
                planner::column(**member)
                    .is_some_and(|of| pg_sys::bms_is_member(of.table as i32, others))
            };
            if let Some(member) = members.iter().find(of_others) {
                return Some(*member);
            }
        }
        None
    }
}

/// The same of an outer join, whose conditions are in no equivalence class: a condition that the
/// same join has.
///
/// # Safety
/// As [`index`].
unsafe fn tenant_in_join(
    request: &pg_sys::SupportRequestIndexCondition,
    tenant: Column,
    others: pg_sys::Relids,
) -> Option<Node> {
    // SAFETY: the caller's promise; lists of the planner's own.
    unsafe {
        let conditions = (*(*request.index).rel).joininfo;
        let conditions: Vec<_> =
            PgList::<pg_sys::RestrictInfo>::from_pg(conditions).iter_ptr().collect();
        let of_node = |info: &&*mut pg_sys::RestrictInfo| (***info).clause.cast() == request.node;
        let this = *conditions.iter().find(of_node)?;
        let is_beside = |info: &&*mut pg_sys::RestrictInfo| {
            (***info).is_pushed_down == (*this).is_pushed_down
                && pg_sys::bms_equal((***info).required_relids, (*this).required_relids)
        };
        let clauses = conditions.iter().filter(is_beside).map(|info| (**info).clause.cast());
        let of_others = |node: &Node| {
            planner::column(*node).is_some_and(|of| pg_sys::bms_is_member(of.table as i32, others))
        };
        clauses.filter_map(|clause| planner::equality(clause)).find_map(|(a, b)| {
            let sides = [(a, b), (b, a)].into_iter();
            let mut found = sides.filter(|(side, _)| planner::column(*side) == Some(tenant));
            found.find_map(|(_, other)| Some(other).filter(of_others))
        })
    }
}

/// An array of what finds a value: by the current index key, by the one before, and as it is where
/// rows may not be sealed yet.
///
/// # Safety
/// Expressions of a query that is being planned.
unsafe fn probes(
    known: &Known,
    given: Node,
    tenant: Option<Expr>,
    our_type: pg_sys::Oid,
    collation: pg_sys::Oid,
) -> Option<Expr> {
    // SAFETY: the caller's promise; catalog look-ups; arguments of the types that functions take.
    unsafe {
        let of = pg_sys::exprType(given);
        let element = pg_sys::get_element_type(of);
        let (label, options) =
            (tree::text(Some(&known.label)), tree::text(known.options.as_deref()));
        let text = pg_sys::TEXTOID;
        let array = ExprType { oid: pg_sys::get_array_type(our_type), modifier: -1, collation };
        if element != pg_sys::InvalidOid {
            let function = tree::function_of_cmk(c"probes_any", &[of, text, text, text])?;
            let tenant = tenant.unwrap_or_else(|| tree::text(None));
            let arguments = [tree::copy(given), tenant, label, options];
            return Some(tree::explicit_call(function, &arguments, array, collation));
        }
        let given = if of == our_type { given } else { tree::as_text(given)?.cast() };
        let of = pg_sys::exprType(given);
        let Some(tenant) = tenant else {
            let function = tree::function_of_cmk(c"probes", &[of, text, text])?;
            let arguments = [tree::copy(given), label, options];
            return Some(tree::explicit_call(function, &arguments, array, collation));
        };
        let types = [of, text, pg_sys::INT4OID, text, text];
        let function = tree::function_of_cmk(c"probe", &types)?;
        let one = ExprType { oid: our_type, modifier: -1, collation };
        let slots: &[i32] = if known.is_valid { &[1, 2] } else { &[1, 2, 0] };
        let probe = |slot: &i32| {
            let tenant = tree::copy(tenant.cast());
            let (label, options) = (tree::copy(label.cast()), tree::copy(options.cast()));
            let arguments = [tree::copy(given), tenant, tree::number(*slot), label, options];
            tree::explicit_call(function, &arguments, one, collation)
        };
        let probes: Vec<Expr> = slots.iter().map(probe).collect();
        Some(tree::array_of(&probes, one))
    }
}

/// How many rows the functions that stand for `=` and `= ANY` find: as many as those do.
///
/// # Safety
/// A request of the planner's.
unsafe fn selectivity(request: &mut pg_sys::SupportRequestSelectivity) -> Option<Node> {
    // SAFETY: the caller's promise; catalog look-ups.
    unsafe {
        let our_type = catalog::type_oid(Kind::Text);
        let [column, value, _] = tree::arguments(request.args)[..] else { return None };
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
        let comparison = Comparison { column, value: array, tenant: None, is_any: true };
        let is_any = comparison.call(tree::text(None), (*node).inputcollid)?;
        Some(if (*node).useOr { is_any } else { tree::not(is_any) })
    }
}

/// Our type in this database, if it is there.
pub fn our_type() -> Option<pg_sys::Oid> {
    let found = catalog::type_oid(Kind::Text);
    (found != pg_sys::InvalidOid).then_some(found)
}
