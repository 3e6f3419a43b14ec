//! How a table's protected columns are protected, as their CHECK constraints say it:
//!
//! ```sql
//! CHECK (cmk.sealed(ssn, 'users.ssn', tenant_id::text, NULL))
//! ```
//!
//! The value, the label that its envelopes carry, the tenant, and options. Where the tenant is a
//! function of the row that must not run while a dump is restored, the constraint's third argument
//! is null, and the function stands in the WHEN of the sealing trigger:
//! `WHEN (cmk.seals('users.ssn', tenant_of(new.order_id)) OR true)`. That condition is in every
//! sealing trigger: PostgreSQL takes it for always true without looking at the rest, but knows from
//! it that the trigger depends on the tenant's column, follows its renaming and refuses to drop it.

use pgrx::{FromDatum, PgList, pg_sys};
use std::ffi::{CStr, c_char};

type Node = *mut pg_sys::Node;

/// What one constraint says.
pub struct Protection {
    /// The column, counted from 1.
    pub column: pg_sys::AttrNumber,
    pub label: String,
    /// An expression over the row, of type `text`; `None`: see the file's header.
    pub tenant: Option<Node>,
    pub options: Option<String>,
}

/// What the expression of a CHECK constraint says, if it is one of ours.
///
/// # Safety
/// `expression` is null or a `pg_node_tree`; in a transaction on the main thread.
pub unsafe fn read(expression: *const c_char) -> Option<Protection> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        if expression.is_null() {
            return None;
        }
        let mut node = pg_sys::stringToNode(expression).cast::<pg_sys::Node>();
        if is(node, pg_sys::NodeTag::T_List) {
            node = PgList::<pg_sys::Node>::from_pg(node.cast()).get_ptr(0)?;
        }
        let arguments = call_of(node, c"sealed")?;
        let [value, label, tenant, options] = arguments[..] else { return None };
        Some(Protection {
            column: column_of(value)?,
            label: constant_text(label)?,
            tenant: (!is_null_constant(tenant)).then_some(tenant),
            options: constant_text(options),
        })
    }
}

/// What the CHECK constraints of a table say of its protected columns.
///
/// # Safety
/// `relation` is open; in a transaction on the main thread.
pub unsafe fn of_table(relation: pg_sys::Relation) -> Vec<Protection> {
    // SAFETY: the caller's promise: the table's constraints, as many as its descriptor says.
    unsafe {
        let Some(constraints) = (*(*relation).rd_att).constr.as_ref() else { return Vec::new() };
        if constraints.num_check == 0 {
            return Vec::new();
        }
        let checks = std::slice::from_raw_parts(constraints.check, constraints.num_check.into());
        checks.iter().filter_map(|check| read(check.ccbin)).collect()
    }
}

/// The tenant of a column's values, found by its label, as the WHEN of the sealing trigger has it.
///
/// # Safety
/// As [`read`].
pub unsafe fn tenant_in_when(condition: *const c_char, label: &str) -> Option<Node> {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if condition.is_null() {
            return None;
        }
        find_tenant(pg_sys::stringToNode(condition).cast(), label)
    }
}

/// The same, of whichever trigger of an open table says it.
///
/// # Safety
/// `relation` is open; in a transaction on the main thread.
pub unsafe fn tenant_in_trigger(relation: pg_sys::Relation, label: &str) -> Option<Node> {
    // SAFETY: the caller's promise: the table's triggers, as many as it says.
    unsafe {
        let triggers = (*relation).trigdesc.as_ref()?;
        let triggers = std::slice::from_raw_parts(triggers.triggers, triggers.numtriggers as usize);
        triggers.iter().find_map(|trigger| tenant_in_when(trigger.tgqual, label))
    }
}

/// The SQL of an expression over rows of a table, which names its columns without the table. `None`
/// if there is no such table any more: an older snapshot may still show its constraints.
///
/// # Safety
/// `node` is such an expression, or that of a trigger's WHEN over the new row; in a transaction on
/// the main thread.
pub unsafe fn sql_of(node: Node, table: pg_sys::Oid) -> Option<String> {
    // In a trigger's WHEN, the old row is the first table and the new one the second.
    const NEW: i32 = 2;
    // SAFETY: the caller's promise; a copy is changed.
    unsafe {
        let node = pg_sys::copyObjectImpl(node.cast()).cast::<pg_sys::Node>();
        pg_sys::ChangeVarNodes(node, NEW, 1, 0);
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return None;
        }
        let context = pg_sys::deparse_context_for(name, table);
        let sql = pg_sys::deparse_expression(node, context, false, false);
        Some(CStr::from_ptr(sql).to_string_lossy().into_owned())
    }
}

/// # Safety
/// `node` is null or a node.
unsafe fn find_tenant(node: Node, label: &str) -> Option<Node> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        if is(node, pg_sys::NodeTag::T_BoolExpr) {
            let arguments = (*node.cast::<pg_sys::BoolExpr>()).args;
            let arguments = PgList::<pg_sys::Node>::from_pg(arguments);
            return arguments.iter_ptr().find_map(|argument| find_tenant(argument, label));
        }
        let arguments = call_of(node, c"seals")?;
        let [of, tenant] = arguments[..] else { return None };
        let found = constant_text(of).as_deref() == Some(label) && !is_null_constant(tenant);
        found.then_some(tenant)
    }
}

/// The column that an expression is, perhaps relabelled.
///
/// # Safety
/// `node` is a node.
pub unsafe fn column_of(mut node: Node) -> Option<pg_sys::AttrNumber> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        while is(node, pg_sys::NodeTag::T_RelabelType) {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        is(node, pg_sys::NodeTag::T_Var).then(|| (*node.cast::<pg_sys::Var>()).varattno)
    }
}

/// The one column that an expression depends on, and reads as it is: alone, or cast to text.
///
/// # Safety
/// `node` is a node.
pub unsafe fn one_column_of(mut node: Node) -> Option<pg_sys::AttrNumber> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        while is(node, pg_sys::NodeTag::T_CoerceViaIO) {
            node = (*node.cast::<pg_sys::CoerceViaIO>()).arg.cast();
        }
        if is(node, pg_sys::NodeTag::T_FuncExpr) {
            // Some types have a function for that cast.
            let call = &*node.cast::<pg_sys::FuncExpr>();
            let is_cast = call.funcresulttype == pg_sys::TEXTOID
                && call.funcformat != pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
            let [argument] = super::tree::arguments(call.args)[..] else { return None };
            return is_cast.then(|| column_of(argument)).flatten();
        }
        column_of(node)
    }
}

/// The arguments of a call of a function of schema `cmk`.
///
/// # Safety
/// `node` is null or a node.
unsafe fn call_of(node: Node, function: &CStr) -> Option<Vec<Node>> {
    // SAFETY: the caller's promise; catalog look-ups in a transaction on the main thread.
    unsafe {
        if !is(node, pg_sys::NodeTag::T_FuncExpr) {
            return None;
        }
        let call = &*node.cast::<pg_sys::FuncExpr>();
        let name = pg_sys::get_func_name(call.funcid);
        let schema = pg_sys::get_namespace_oid(c"cmk".as_ptr(), true);
        let is_ours = !name.is_null()
            && CStr::from_ptr(name) == function
            && pg_sys::get_func_namespace(call.funcid) == schema;
        is_ours.then(|| PgList::<pg_sys::Node>::from_pg(call.args).iter_ptr().collect())
    }
}

/// # Safety
/// `node` is null or a node.
unsafe fn is(node: Node, tag: pg_sys::NodeTag) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !node.is_null() && (*node).type_ == tag }
}

/// # Safety
/// `node` is a node.
unsafe fn is_null_constant(node: Node) -> bool {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe { is(node, pg_sys::NodeTag::T_Const) && (*node.cast::<pg_sys::Const>()).constisnull }
}

/// # Safety
/// `node` is a node.
unsafe fn constant_text(node: Node) -> Option<String> {
    // SAFETY: the caller's promise; the node's type is looked at before it is used as that.
    unsafe {
        if !is(node, pg_sys::NodeTag::T_Const) {
            return None;
        }
        let constant = &*node.cast::<pg_sys::Const>();
        if constant.consttype != pg_sys::TEXTOID {
            return None;
        }
        String::from_datum(constant.constvalue, constant.constisnull)
    }
}
