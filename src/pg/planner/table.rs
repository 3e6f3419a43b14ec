//! A table in a query that is being planned, and the conditions on it.

use super::expression::{self, Column, equality, reads_as_it_is, tag};
use crate::pg::collation::is_deterministic;
use crate::pg::compat;
use crate::pg::tree::{self, Expr};
use pgrx::{PgList, pg_guard, pg_sys};
use std::ffi::c_void;

type Node = *mut pg_sys::Node;

/// A condition that is being planned.
#[derive(Clone, Copy)]
pub struct Condition(*mut pg_sys::RestrictInfo);

impl Condition {
    /// What has to be true.
    pub fn clause(self) -> Node {
        // SAFETY: the planner's own.
        unsafe { (*self.0).clause.cast() }
    }
}

/// A table in a query that is being planned.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Table {
    pub(super) root: *mut pg_sys::PlannerInfo,
    pub(super) rel: *mut pg_sys::RelOptInfo,
    pub(super) entry: *mut pg_sys::RangeTblEntry,
    /// Its number in the query's range table.
    pub number: u32,
}

impl Table {
    /// Of an index that the planner asks about.
    ///
    /// # Safety
    /// A request of the planner's.
    pub unsafe fn of(request: &pg_sys::SupportRequestIndexCondition) -> Self {
        // SAFETY: the caller's promise: the index's table is in the query's range table.
        unsafe {
            let (root, rel) = (request.root, (*request.index).rel);
            let number = (*rel).relid;
            Self { root, rel, entry: *(*root).simple_rte_array.add(number as usize), number }
        }
    }

    /// The object id of the table; `None` of a subquery and the like.
    pub fn oid(self) -> Option<pg_sys::Oid> {
        // SAFETY: the planner's own entry.
        let entry = unsafe { &*self.entry };
        (entry.rtekind == pg_sys::RTEKind::RTE_RELATION).then_some(entry.relid)
    }

    /// What its columns are compared with for equality, in conditions that every row has to fulfil.
    pub fn equalities(self) -> Vec<(Node, Node)> {
        // SAFETY: the planner's own list of conditions.
        unsafe {
            let conditions = PgList::<pg_sys::RestrictInfo>::from_pg((*self.rel).baserestrictinfo);
            let clauses = conditions.iter_ptr().map(|info| (*info).clause.cast());
            clauses.filter_map(|clause| equality(clause)).collect()
        }
    }

    /// Puts what `replace` returns in the place of the comparisons in the table's conditions for
    /// which it returns something.
    pub fn replace(self, replace: &dyn Fn(Node) -> Option<Expr>) {
        // SAFETY: the planner's own list of conditions, which plans are made of later.
        unsafe {
            let conditions = PgList::<pg_sys::RestrictInfo>::from_pg((*self.rel).baserestrictinfo);
            for info in conditions.iter_ptr() {
                replace_in(info.cast(), replace);
            }
        }
    }

    /// Puts what `replace` returns in the place of the conditions that the table has in common with
    /// others, and for which it returns something.
    pub fn replace_in_joins(self, replace: &dyn Fn(Condition) -> Option<Expr>) {
        // SAFETY: the planner's own list of conditions, which plans are made of later.
        unsafe {
            for info in PgList::<pg_sys::RestrictInfo>::from_pg((*self.rel).joininfo).iter_ptr() {
                if let Some(replaced) = replace(Condition(info)) {
                    (*info).clause = replaced;
                }
            }
        }
    }

    /// The other tables that an expression is of; `None` if there are none, or it is of this one.
    ///
    /// # Safety
    /// `node` is an expression of the query.
    pub unsafe fn others_in(self, node: Node) -> Option<pg_sys::Relids> {
        // SAFETY: the caller's promise.
        unsafe {
            let of = pg_sys::pull_varnos(self.root, node);
            let is_of_others = !of.is_null() && !pg_sys::bms_is_member(self.number as i32, of);
            is_of_others.then_some(of)
        }
    }

    /// What a column of the table is equal to among columns of `others`, wherever `condition`
    /// holds: in an equivalence class, or, of an outer join, in a condition that the same join has.
    ///
    /// # Safety
    /// `condition` is one that is being planned.
    pub unsafe fn equal_in_join(
        self,
        column: Column,
        condition: Node,
        others: pg_sys::Relids,
    ) -> Option<Node> {
        // SAFETY: the caller's promise; lists of the planner's own.
        unsafe {
            let is_it = |node: &Node| expression::column(*node) == Some(column);
            let of_others = |node: &Node| {
                expression::column(*node)
                    .is_some_and(|of| pg_sys::bms_is_member(of.table as i32, others))
            };
            let conditions: Vec<_> =
                PgList::<pg_sys::RestrictInfo>::from_pg((*self.rel).joininfo).iter_ptr().collect();
            let this = conditions.iter().find(|info| (***info).clause.cast() == condition);
            let beside = conditions.iter().filter(|info| {
                this.is_some_and(|this| {
                    (***info).is_pushed_down == (**this).is_pushed_down
                        && pg_sys::bms_equal((***info).required_relids, (**this).required_relids)
                })
            });
            let equalities = beside.filter_map(|info| equality((**info).clause.cast()));
            let pairs = equalities.flat_map(|(a, b)| [(a, b), (b, a)]);
            let mut found = pairs.filter(|(side, other)| is_it(side) && of_others(other));
            if let Some((_, other)) = found.next() {
                return Some(other);
            }
            let classes = PgList::<pg_sys::EquivalenceClass>::from_pg((*self.root).eq_classes);
            classes.iter_ptr().find_map(|class| {
                let members = members(class);
                let has_it = members.iter().any(is_it);
                members.into_iter().find(|member| has_it && of_others(member))
            })
        }
    }

    /// Has the plan made anew whenever a table of ours changes.
    pub fn depend_on(self, table: pg_sys::Oid) {
        // SAFETY: the planner's own list.
        unsafe {
            let all = &mut (*(*self.root).glob).relationOids;
            if !pg_sys::list_member_oid(*all, table) {
                *all = pg_sys::lappend_oid(*all, table);
            }
        }
    }
}

/// # Safety
/// `node` is a condition, or the OR or AND of conditions.
unsafe fn replace_in(node: Node, replace: Replace<'_>) {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        match tag(node) {
            Some(pg_sys::NodeTag::T_RestrictInfo) => {
                let info = &mut *node.cast::<pg_sys::RestrictInfo>();
                let context = (&raw const replace).cast_mut().cast();
                info.clause = with_replaced(info.clause.cast(), context).cast();
                replace_in(info.orclause.cast(), replace);
            }
            Some(pg_sys::NodeTag::T_BoolExpr) => {
                for part in tree::arguments((*node.cast::<pg_sys::BoolExpr>()).args) {
                    replace_in(part, replace);
                }
            }
            _ => {}
        }
    }
}

type Replace<'a> = &'a dyn Fn(Node) -> Option<Expr>;

#[pg_guard]
unsafe extern "C-unwind" fn with_replaced(node: Node, context: *mut c_void) -> Node {
    // SAFETY: called for null or a node of a condition, with the context from above.
    unsafe {
        let replace = *context.cast::<Replace<'_>>();
        match tag(node) {
            None => node,
            // What a sub-select is compared with has to stay what it is.
            Some(pg_sys::NodeTag::T_SubPlan | pg_sys::NodeTag::T_AlternativeSubPlan) => node,
            Some(pg_sys::NodeTag::T_OpExpr | pg_sys::NodeTag::T_FuncExpr) => match replace(node) {
                Some(replaced) => replaced.cast(),
                None => compat::mutate_expression(node, with_replaced, context),
            },
            Some(_) => compat::mutate_expression(node, with_replaced, context),
        }
    }
}

/// The expressions of an equivalence class; none of one in which texts are equal that differ.
///
/// # Safety
/// `class` is one of the planner's.
unsafe fn members(class: *mut pg_sys::EquivalenceClass) -> Vec<Node> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*class).ec_has_volatile || !is_deterministic((*class).ec_collation) {
            return Vec::new();
        }
        let members = PgList::<pg_sys::EquivalenceMember>::from_pg((*class).ec_members);
        let members = members.iter_ptr().map(|member| (*member).em_expr.cast());
        members.filter(|member| reads_as_it_is(*member)).collect()
    }
}
