//! What an index on tokens is searched for.

use super::{Column, Known, Node, constant_equal_to, known};
use crate::column::catalog;
use crate::column::kind::Kind;
use crate::column::options::Search;
use crate::pg::collation::is_deterministic;
use crate::pg::planner::{Table, expression};
use crate::pg::registry::read;
use crate::pg::tree::{self, Expr, ExprType};
use pgrx::pg_sys;

/// What an index on tokens is to be searched for.
///
/// # Safety
/// A request of the planner's.
pub unsafe fn condition(request: &mut pg_sys::SupportRequestIndexCondition) -> Option<Node> {
    // SAFETY: the caller's promise: a comparison that is being planned, of which an argument is a
    // column of an index, in a query of which the tables are locked.
    unsafe {
        let our_type = catalog::type_oid(Kind::Text);
        let token_equals = catalog::token_equals(our_type)?;
        if pg_sys::get_op_opfamily_strategy(token_equals, request.opfamily) == 0 {
            return None;
        }
        let (arguments, collation) = match (*request.node).type_ {
            pg_sys::NodeTag::T_OpExpr => {
                let operator = &*request.node.cast::<pg_sys::OpExpr>();
                (operator.args, operator.inputcollid)
            }
            pg_sys::NodeTag::T_FuncExpr => {
                let call = &*request.node.cast::<pg_sys::FuncExpr>();
                (call.args, call.inputcollid)
            }
            _ => return None,
        };
        // Texts that are equal though they differ have different tokens.
        if !is_deterministic(collation) {
            return None;
        }
        let arguments = tree::arguments(arguments);
        let column = *arguments.get(request.indexarg as usize)?;
        let given = match (arguments.as_slice(), request.indexarg) {
            ([_, value, ..], 0) => *value,
            ([value, _], 1) => *value,
            _ => return None,
        };
        let given_tenant = arguments.get(2).copied();
        for value in [Some(given), given_tenant].into_iter().flatten() {
            if !pg_sys::is_pseudo_constant_for_index(request.root, value, request.index) {
                return None;
            }
        }
        let table = Table::of(request);
        let (known, at) = known(table, expression::column(column)?.number)?;
        let known = &known[at];
        let search = Search::parse(known.options.as_deref().map(str::as_bytes)).ok()??;
        let is_join = pg_sys::contain_var_clause(given);
        let beside = || {
            let tenant = Column { table: table.number, number: known.tenant? };
            constant_equal_to(&table.equalities(), tenant)
        };
        let named = given_tenant.or_else(beside);
        let in_join = || {
            let tenant = Column { table: table.number, number: known.tenant? };
            table.equal_in_join(tenant, request.node, table.others_in(given)?)
        };
        let tenant = named.or_else(|| if is_join { in_join() } else { None });
        if tenant.is_none() && is_join {
            return None;
        }
        // What the index finds is what the comparison is true of, unless tokens don't decide, or it
        // is a join's, which may search for more than the tenant that is known here.
        request.lossy = search.rule.is_shortened || is_join;
        let tenant = match tenant {
            Some(tenant) => Some(tree::as_text(tree::copy(tenant).cast())?),
            None => None,
        };
        table.depend_on(read::data_keys_oid().ok()?);
        let probes = Probes { known, given, our_type, collation: pg_sys::exprCollation(column) };
        let (column, collation) = (tree::copy(column), request.indexcollation);
        let condition = match probes.only(tenant) {
            Some(probe) => tree::equals(token_equals, column, probe, collation),
            None => {
                let probes = probes.all(tenant)?;
                tree::equals_any(token_equals, column, probes, collation).cast()
            }
        };
        Some(tree::list(&[condition]).cast())
    }
}

/// What finds a value in an index.
struct Probes<'a> {
    known: &'a Known,
    given: Node,
    our_type: pg_sys::Oid,
    collation: pg_sys::Oid,
}

/// As `cmk.probe` numbers what finds a value: as it is, by the current index key, by the other one,
/// by the only one that there is.
const SLOTS: [i32; 3] = [1, 2, 0];
const ONLY: i32 = 3;

impl Probes<'_> {
    /// One probe that finds all, where every row is sealed, and no tenant of this database has
    /// another index key in use. The plan is made anew when that changes.
    ///
    /// # Safety
    /// Expressions of a query that is being planned.
    unsafe fn only(&self, tenant: Option<Expr>) -> Option<Expr> {
        // SAFETY: the caller's promise.
        unsafe {
            let of = pg_sys::exprType(self.given);
            let is_any = pg_sys::get_element_type(of) != pg_sys::InvalidOid;
            let suffices = self.known.is_valid && !is_any && !read::has_other_index_keys().ok()?;
            if suffices { self.one(ONLY, tenant?) } else { None }
        }
    }

    /// An array of probes.
    ///
    /// # Safety
    /// As [`Probes::only`].
    unsafe fn all(&self, tenant: Option<Expr>) -> Option<Expr> {
        // SAFETY: the caller's promise; catalog look-ups; arguments of the types that functions
        // take.
        unsafe {
            let (label, options) = self.names();
            let text = pg_sys::TEXTOID;
            let oid = pg_sys::get_array_type(self.our_type);
            let array = ExprType { oid, ..self.one_type() };
            let of = pg_sys::exprType(self.given);
            if pg_sys::get_element_type(of) != pg_sys::InvalidOid {
                let function = tree::function_of_cmk(c"probes_any", &[of, text, text, text])?;
                let tenant = tenant.unwrap_or_else(|| tree::text(None));
                let arguments = [tree::copy(self.given), tenant, label, options];
                return Some(tree::explicit_call(function, &arguments, array, self.collation));
            }
            let Some(tenant) = tenant else {
                let (given, of) = self.given()?;
                let function = tree::function_of_cmk(c"probes", &[of, text, text])?;
                let arguments = [given, label, options];
                return Some(tree::explicit_call(function, &arguments, array, self.collation));
            };
            let slots = if self.known.is_valid { &SLOTS[..2] } else { &SLOTS[..] };
            let probe = |slot: &i32| self.one(*slot, tree::copy(tenant.cast()));
            let probes = slots.iter().map(probe).collect::<Option<Vec<_>>>()?;
            Some(tree::array_of(&probes, self.one_type()))
        }
    }

    /// # Safety
    /// As [`Probes::only`].
    unsafe fn one(&self, slot: i32, tenant: Expr) -> Option<Expr> {
        // SAFETY: the caller's promise; arguments of the types that the function takes.
        unsafe {
            let (given, of) = self.given()?;
            let text = pg_sys::TEXTOID;
            let types = [of, text, pg_sys::INT4OID, text, text];
            let function = tree::function_of_cmk(c"probe", &types)?;
            let (label, options) = self.names();
            let arguments = [given, tenant, tree::number(slot), label, options];
            Some(tree::explicit_call(function, &arguments, self.one_type(), self.collation))
        }
    }

    fn one_type(&self) -> ExprType {
        ExprType { oid: self.our_type, modifier: -1, collation: self.collation }
    }

    fn names(&self) -> (Expr, Expr) {
        (tree::text(Some(&self.known.label)), tree::text(self.known.options.as_deref()))
    }

    /// A copy of the value that is searched for, as text or as our type.
    ///
    /// # Safety
    /// As [`Probes::only`].
    unsafe fn given(&self) -> Option<(Expr, pg_sys::Oid)> {
        // SAFETY: the caller's promise.
        unsafe {
            let copy = tree::copy(self.given);
            match pg_sys::exprType(self.given) == self.our_type {
                true => Some((copy, self.our_type)),
                false => Some((tree::as_text(copy.cast())?, pg_sys::TEXTOID)),
            }
        }
    }
}
