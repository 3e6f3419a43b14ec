//! Parts of analyzed statements, made as PostgreSQL's parser makes them.

use pgrx::{IntoDatum, PgList, pg_sys};
use std::ffi::CStr;
use std::ptr::null_mut;

pub type Expr = *mut pg_sys::Expr;
type Query = *mut pg_sys::Query;

/// What an expression yields.
#[derive(Clone, Copy)]
pub struct ExprType {
    pub oid: pg_sys::Oid,
    pub modifier: i32,
    pub collation: pg_sys::Oid,
}

impl ExprType {
    /// # Safety
    /// `expression` is one, in a transaction on the main thread.
    pub unsafe fn of(expression: Expr) -> Self {
        let node = expression.cast_const().cast();
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                oid: pg_sys::exprType(node),
                modifier: pg_sys::exprTypmod(node),
                collation: pg_sys::exprCollation(node),
            }
        }
    }
}

/// How everything here is made: as a cast that nobody wrote. PostgreSQL doesn't show those.
const IMPLICIT: pg_sys::CoercionForm::Type = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;

/// # Safety
/// `T` is the type of the nodes that have this tag.
unsafe fn make<T>(tag: pg_sys::NodeTag) -> *mut T {
    // SAFETY: the caller's promise: zeroes are valid in nodes, whose first field is the tag.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>()).cast::<pg_sys::Node>();
        (*node).type_ = tag;
        node.cast()
    }
}

/// The elements of a list of nodes.
///
/// # Safety
/// `list` is null or such a list.
pub unsafe fn arguments(list: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the caller's promise.
    unsafe { PgList::<pg_sys::Node>::from_pg(list) }.iter_ptr().collect()
}

/// A list of expressions.
pub fn list(expressions: &[Expr]) -> *mut pg_sys::List {
    // SAFETY: appends to a new list.
    let push = |list, item: &Expr| unsafe { pg_sys::lappend(list, item.cast()) };
    expressions.iter().fold(null_mut(), push)
}

/// A function of schema `cmk` that takes arguments of these types; `None` if there is none.
pub fn function_of_cmk(name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    function_of(c"cmk", name, arguments)
}

/// The same of any schema.
pub fn function_of(schema: &CStr, name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: catalog look-ups in a transaction on the main thread; C strings.
    let found = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            1,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as i32)),
            pg_sys::Datum::from(pg_sys::get_namespace_oid(schema.as_ptr(), true)),
            pg_sys::Datum::null(),
        )
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// A call of a function of one argument.
///
/// # Safety
/// `argument` is an expression of the type that the function takes, and `result` what it returns.
pub unsafe fn call(function: pg_sys::Oid, argument: Expr, result: ExprType) -> Expr {
    // SAFETY: the caller's promise.
    unsafe {
        let arguments = pg_sys::lappend(null_mut(), argument.cast());
        let (out, in_) = (result.collation, ExprType::of(argument).collation);
        pg_sys::makeFuncExpr(function, result.oid, arguments, out, in_, IMPLICIT).cast()
    }
}

/// A call of a function, written as one.
///
/// # Safety
/// `arguments` are expressions of the types that the function takes, `result` is what it returns.
pub unsafe fn explicit_call(
    function: pg_sys::Oid,
    arguments: &[Expr],
    result: ExprType,
    compares_by: pg_sys::Oid,
) -> Expr {
    const EXPLICIT: pg_sys::CoercionForm::Type = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
    let arguments = list(arguments);
    let (type_oid, collation) = (result.oid, result.collation);
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::makeFuncExpr(function, type_oid, arguments, collation, compares_by, EXPLICIT).cast()
    }
}

/// A copy, which shares nothing.
///
/// # Safety
/// `expression` is one.
pub unsafe fn copy(expression: *mut pg_sys::Node) -> Expr {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::copyObjectImpl(expression.cast()).cast() }
}

/// A text literal; `None`: null.
pub fn text(value: Option<&str>) -> Expr {
    let datum = value.and_then(IntoDatum::into_datum);
    let (value, is_null) = (datum.unwrap_or(pg_sys::Datum::null()), datum.is_none());
    let collation = pg_sys::DEFAULT_COLLATION_OID;
    // SAFETY: makes a node.
    unsafe { pg_sys::makeConst(pg_sys::TEXTOID, -1, collation, -1, value, is_null, false).cast() }
}

/// An `int4` literal.
pub fn number(value: i32) -> Expr {
    let (value, none) = (pg_sys::Datum::from(value), pg_sys::InvalidOid);
    // SAFETY: makes a node.
    unsafe { pg_sys::makeConst(pg_sys::INT4OID, -1, none, 4, value, false, true).cast() }
}

/// An expression as text, by an assignment's cast; `None` if there is none.
///
/// # Safety
/// `expression` is one.
pub unsafe fn as_text(expression: *mut pg_sys::Node) -> Option<Expr> {
    // SAFETY: the caller's promise; catalog look-ups in a transaction on the main thread.
    unsafe {
        let of = pg_sys::exprType(expression);
        if of == pg_sys::TEXTOID {
            return Some(expression.cast());
        }
        let explicit = pg_sys::CoercionContext::COERCION_EXPLICIT;
        let text = pg_sys::coerce_to_target_type(
            null_mut(),
            expression,
            of,
            pg_sys::TEXTOID,
            -1,
            explicit,
            IMPLICIT,
            -1,
        );
        (!text.is_null()).then(|| text.cast())
    }
}

/// `left operator right`, which is true or false.
///
/// # Safety
/// Both are expressions of the types that the operator takes.
pub unsafe fn equals(operator: pg_sys::Oid, left: Expr, right: Expr, by: pg_sys::Oid) -> Expr {
    let (result, none) = (pg_sys::BOOLOID, pg_sys::InvalidOid);
    // SAFETY: the caller's promise; a catalog look-up in a transaction on the main thread.
    unsafe {
        let node = pg_sys::make_opclause(operator, result, false, left, right, none, by);
        pg_sys::set_opfuncid(node.cast());
        node
    }
}

/// `left operator ANY (right)`.
///
/// # Safety
/// Both are expressions of the types that the operator takes, the second an array of it.
pub unsafe fn equals_any(
    operator: pg_sys::Oid,
    left: Expr,
    right: Expr,
    collation: pg_sys::Oid,
) -> *mut pg_sys::ScalarArrayOpExpr {
    // SAFETY: the caller's promise; a catalog look-up in a transaction on the main thread.
    unsafe {
        let node = make::<pg_sys::ScalarArrayOpExpr>(pg_sys::NodeTag::T_ScalarArrayOpExpr);
        (*node).opno = operator;
        (*node).opfuncid = pg_sys::get_opcode(operator);
        (*node).useOr = true;
        (*node).inputcollid = collation;
        (*node).args = list(&[left, right]);
        (*node).location = -1;
        node
    }
}

/// `NOT condition`.
pub fn not(condition: Expr) -> Expr {
    // SAFETY: makes a node.
    unsafe { pg_sys::makeBoolExpr(pg_sys::BoolExprType::NOT_EXPR, list(&[condition]), -1).cast() }
}

/// `operand IS NULL`, of what is null as a whole.
///
/// # Safety
/// `operand` is an expression.
pub unsafe fn is_null(operand: Expr) -> Expr {
    // SAFETY: the caller's promise.
    unsafe {
        let node = make::<pg_sys::NullTest>(pg_sys::NodeTag::T_NullTest);
        (*node).arg = operand;
        (*node).nulltesttype = pg_sys::NullTestType::IS_NULL;
        (*node).location = -1;
        node.cast()
    }
}

/// `CASE WHEN condition THEN result END`.
///
/// # Safety
/// Both are expressions, the first one true or false.
pub unsafe fn when(condition: Expr, result: Expr) -> Expr {
    // SAFETY: the caller's promise.
    unsafe {
        let of = ExprType::of(result);
        let case = make::<pg_sys::CaseWhen>(pg_sys::NodeTag::T_CaseWhen);
        (*case).expr = condition;
        (*case).result = result;
        (*case).location = -1;
        let node = make::<pg_sys::CaseExpr>(pg_sys::NodeTag::T_CaseExpr);
        (*node).casetype = of.oid;
        (*node).casecollid = of.collation;
        (*node).args = list(&[case.cast()]);
        (*node).defresult = pg_sys::makeNullConst(of.oid, of.modifier, of.collation).cast();
        (*node).location = -1;
        node.cast()
    }
}

/// `ARRAY[...]`.
///
/// # Safety
/// `elements` are expressions of type `of`.
pub unsafe fn array_of(elements: &[Expr], of: ExprType) -> Expr {
    // SAFETY: the caller's promise; a catalog look-up in a transaction on the main thread.
    unsafe {
        let node = make::<pg_sys::ArrayExpr>(pg_sys::NodeTag::T_ArrayExpr);
        (*node).array_typeid = pg_sys::get_array_type(of.oid);
        (*node).array_collid = of.collation;
        (*node).element_typeid = of.oid;
        (*node).elements = list(elements);
        (*node).location = -1;
        node.cast()
    }
}

/// The same bytes as another type, which has them too.
///
/// # Safety
/// `argument` is an expression.
pub unsafe fn relabel(argument: Expr, to: ExprType) -> Expr {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::makeRelabelType(argument, to.oid, to.modifier, to.collation, IMPLICIT).cast() }
}

/// A value by way of its text, which is what a type's input function takes.
///
/// # Safety
/// `argument` is an expression.
pub unsafe fn through_text(argument: Expr, to: ExprType) -> Expr {
    // SAFETY: the caller's promise.
    unsafe {
        let node = make::<pg_sys::CoerceViaIO>(pg_sys::NodeTag::T_CoerceViaIO);
        (*node).arg = argument;
        (*node).resulttype = to.oid;
        (*node).resultcollid = to.collation;
        (*node).coerceformat = IMPLICIT;
        (*node).location = -1;
        node.cast()
    }
}

/// An array whose elements are what `each` makes of those of another.
///
/// # Safety
/// `argument` is an expression that yields an array of `element`, and `to` an array of what `each`
/// returns.
pub unsafe fn array(
    argument: Expr,
    element: ExprType,
    to: ExprType,
    each: impl FnOnce(Expr) -> Expr,
) -> Expr {
    // SAFETY: the caller's promise.
    unsafe {
        let one = make::<pg_sys::CaseTestExpr>(pg_sys::NodeTag::T_CaseTestExpr);
        (*one).typeId = element.oid;
        (*one).typeMod = element.modifier;
        (*one).collation = element.collation;
        let node = make::<pg_sys::ArrayCoerceExpr>(pg_sys::NodeTag::T_ArrayCoerceExpr);
        (*node).arg = argument;
        (*node).elemexpr = each(one.cast());
        (*node).resulttype = to.oid;
        (*node).resulttypmod = to.modifier;
        (*node).resultcollid = to.collation;
        (*node).coerceformat = IMPLICIT;
        (*node).location = -1;
        node.cast()
    }
}

/// Makes a query the subquery of one that selects its columns and does nothing else. So it keeps
/// its order: there is nothing above it that could change that.
///
/// # Safety
/// `query` is an analyzed SELECT, the statement itself, without rows to be locked and without
/// WITH clauses that write.
pub unsafe fn nest(query: Query) {
    // SAFETY: the caller's promise. The old query moves to memory of its own, and the new one takes
    // its place.
    unsafe {
        let inner = pg_sys::palloc(size_of::<pg_sys::Query>()).cast::<pg_sys::Query>();
        inner.copy_from_nonoverlapping(query, 1);
        let mut columns = PgList::<pg_sys::TargetEntry>::new();
        let mut names = null_mut();
        for entry in PgList::<pg_sys::TargetEntry>::from_pg((*inner).targetList).iter_ptr() {
            if (*entry).resjunk {
                continue;
            }
            let is = ExprType::of((*entry).expr);
            let column =
                pg_sys::makeVar(1, (*entry).resno, is.oid, is.modifier, is.collation, 0).cast();
            let column = pg_sys::makeTargetEntry(column, (*entry).resno, (*entry).resname, false);
            (*column).resorigtbl = (*entry).resorigtbl;
            (*column).resorigcol = (*entry).resorigcol;
            columns.push(column);
            let unnamed = c"?column?".as_ptr().cast_mut();
            let name = if (*entry).resname.is_null() { unnamed } else { (*entry).resname };
            names = pg_sys::lappend(names, pg_sys::makeString(name).cast());
        }
        let table = make::<pg_sys::RangeTblEntry>(pg_sys::NodeTag::T_RangeTblEntry);
        (*table).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*table).subquery = inner;
        (*table).eref = pg_sys::makeAlias(c"unnamed_subquery".as_ptr(), names);
        (*table).inFromCl = true;
        let reference = make::<pg_sys::RangeTblRef>(pg_sys::NodeTag::T_RangeTblRef);
        (*reference).rtindex = 1;

        query.write_bytes(0, 1);
        (*query).type_ = pg_sys::NodeTag::T_Query;
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).querySource = (*inner).querySource;
        (*query).queryId = (*inner).queryId;
        (*query).canSetTag = (*inner).canSetTag;
        (*query).stmt_location = (*inner).stmt_location;
        (*query).stmt_len = (*inner).stmt_len;
        (*query).rtable = pg_sys::lappend(null_mut(), table.cast());
        let from = pg_sys::lappend(null_mut(), reference.cast());
        (*query).jointree = pg_sys::makeFromExpr(from, null_mut());
        (*query).targetList = columns.into_pg();
    }
}
