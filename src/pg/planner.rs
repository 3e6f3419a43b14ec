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
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    entry: *mut pg_sys::RangeTblEntry,
    /// Its number in the query's range table.
    pub number: u32,
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
        is_here.then_some(Column { table: var.varno as u32, number: var.varattno })
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
            let is_it = |node: &Node| self::column(*node) == Some(column);
            let of_others = |node: &Node| {
                self::column(*node).is_some_and(|of| pg_sys::bms_is_member(of.table as i32, others))
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
        let is_exact = is_exact(operator.inputcollid);
        (is_equality && is_exact && reads_as_it_is(a) && reads_as_it_is(b)).then_some((a, b))
    }
}

/// Whether only equal texts are equal.
fn is_exact(collation: pg_sys::Oid) -> bool {
    let is_known = [pg_sys::InvalidOid, pg_sys::DEFAULT_COLLATION_OID].contains(&collation);
    // SAFETY: a catalog look-up in a transaction on the main thread.
    is_known || unsafe { pg_sys::get_collation_isdeterministic(collation) }
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

/// The expressions of an equivalence class; none of one in which texts are equal that differ.
///
/// # Safety
/// `class` is one of the planner's.
unsafe fn members(class: *mut pg_sys::EquivalenceClass) -> Vec<Node> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*class).ec_has_volatile || !is_exact((*class).ec_collation) {
            return Vec::new();
        }
        let members = PgList::<pg_sys::EquivalenceMember>::from_pg((*class).ec_members);
        let members = members.iter_ptr().map(|member| (*member).em_expr.cast());
        members.filter(|member| reads_as_it_is(*member)).collect()
    }
}
