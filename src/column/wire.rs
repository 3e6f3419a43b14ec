//! `cmk_encrypt.wire_type = text`: clients are told the types that are protected, not ours.
//!
//! A driver that decides by a result's type what to make of it, or sends a parameter in the form of
//! the type that the server asks for, doesn't know ours. So the statement that a client sends is
//! changed before it is planned: each column of a result that is of a type of ours, or an array of
//! it, is shown by `cmk.show` as `text` (`varchar(n)` for `cmk_text(n)`), `bytea` or `jsonb`; each
//! parameter whose type PostgreSQL inferred to be ours becomes such a value, which is read as the
//! type's input function reads it. A column that becomes protected so changes no statement that is
//! prepared.
//!
//! What goes into a table, and what functions, views, COPY, EXPLAIN, EXECUTE and CALL read, is left
//! alone: [`statement`](crate::pg::statement) says whose statements these are. So are rows as
//! values (`SELECT t FROM t`), and queries that can't be nested where they would have to be: see
//! [`fit`].
//!
//! The rows are the same, and so are errors. Two things differ. What a result keeps on the server
//! (RETURNING, WITH HOLD) it keeps as it is shown, so that beyond `work_mem` plaintext lies in
//! temporary files, as it does of any other column. And a function that fetches from a cursor which
//! the client declared gets what the client would get.
//!
//! A prepared statement keeps its description while its plan lasts. Once the plan has to be made
//! anew, the setting as it is then counts: if it is another, PostgreSQL refuses the statement
//! (0A000), as it does whenever results change their type, and it has to be prepared again.

use super::catalog::{self, Types};
use super::kind::Kind;
use crate::pg::statement::Statement;
use crate::pg::tree::{self, ExprType};
use pgrx::{PgList, pg_sys};
use std::cell::LazyCell;

type Expr = *mut pg_sys::Expr;

/// A type of ours, or the array of one.
#[derive(Clone, Copy)]
struct Ours {
    kind: Kind,
    element: pg_sys::Oid,
    is_array: bool,
}

struct Catalog(LazyCell<Types>);

impl Catalog {
    /// Looks nothing up for types that PostgreSQL brings along.
    fn ours(&self, oid: pg_sys::Oid) -> Option<Ours> {
        if oid.to_u32() < pg_sys::FirstNormalObjectId {
            return None;
        }
        if let Some(kind) = self.0.kind(oid) {
            return Some(Ours { kind, element: oid, is_array: false });
        }
        // SAFETY: a catalog look-up in a transaction on the main thread.
        let element = unsafe { pg_sys::get_element_type(oid) };
        self.0.kind(element).map(|kind| Ours { kind, element, is_array: true })
    }
}

impl Ours {
    /// What clients are told.
    fn protected(self) -> pg_sys::Oid {
        self.in_array_if(match self.kind {
            Kind::Text => pg_sys::TEXTOID,
            Kind::Bytea => pg_sys::BYTEAOID,
            Kind::Jsonb => pg_sys::JSONBOID,
        })
    }

    fn in_array_if(self, oid: pg_sys::Oid) -> pg_sys::Oid {
        // SAFETY: a catalog look-up in a transaction on the main thread.
        if self.is_array { unsafe { pg_sys::get_array_type(oid) } } else { oid }
    }

    /// An expression of the type, as the client sees it; `None` if this database doesn't have
    /// `cmk.show`.
    ///
    /// # Safety
    /// `expression` is of this type.
    unsafe fn shown(self, expression: Expr) -> Option<Expr> {
        let show = tree::function_of_cmk(c"show", &[self.element])?;
        // SAFETY: the caller's promise.
        unsafe {
            let is = ExprType::of(expression);
            let one = Self { is_array: false, ..self };
            let text = ExprType { oid: one.protected(), modifier: -1, collation: is.collation };
            let limited = catalog::limit(self.kind, is.modifier).is_some();
            let to = match limited {
                true => ExprType { oid: pg_sys::VARCHAROID, modifier: is.modifier, ..text },
                false => text,
            };
            let shown = |expression| {
                let shown = tree::call(show, expression, text);
                if limited { tree::relabel(shown, to) } else { shown }
            };
            if !self.is_array {
                return Some(shown(expression));
            }
            let element = ExprType { oid: self.element, ..is };
            let array = ExprType { oid: self.in_array_if(to.oid), ..to };
            Some(tree::array(expression, element, array, shown))
        }
    }
}

/// The hook.
pub fn describe(statement: &mut Statement) {
    let catalog = Catalog(LazyCell::new(catalog::types));
    describe_parameters(&catalog, statement);
    // SAFETY: a query that nobody else looks at yet.
    unsafe { describe_results(&catalog, statement.query()) };
}

fn describe_parameters(catalog: &Catalog, statement: &mut Statement) {
    let mut is_any = false;
    for oid in statement.inferred_parameters() {
        if let Some(ours) = catalog.ours(*oid) {
            *oid = ours.protected();
            is_any = true;
        }
    }
    if !is_any {
        return;
    }
    statement.replace_parameters(&|parameter| {
        let ours = catalog.ours(parameter.paramtype)?;
        if parameter.paramkind != pg_sys::ParamKind::PARAM_EXTERN {
            return None;
        }
        let (oid, collation) = (parameter.paramtype, parameter.paramcollid);
        let to = ExprType { oid, modifier: parameter.paramtypmod, collation };
        // SAFETY: a copy of the parameter, with another type.
        unsafe {
            let new = pg_sys::copyObjectImpl((&raw const *parameter).cast());
            let new = new.cast::<pg_sys::Param>();
            (*new).paramtype = ours.protected();
            (*new).paramcollid = pg_sys::get_typcollation(ours.protected());
            Some(tree::through_text(new.cast(), to).cast())
        }
    });
}

/// # Safety
/// `query` is an analyzed statement that nobody else looks at yet.
unsafe fn describe_results(catalog: &Catalog, query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_select = (*query).commandType == pg_sys::CmdType::CMD_SELECT;
        let results = match is_select {
            true => &raw mut (*query).targetList,
            false => &raw mut (*query).returningList,
        };
        let of = |entry: *mut pg_sys::TargetEntry| match (*entry).resjunk {
            true => None,
            false => catalog.ours(pg_sys::exprType((*entry).expr.cast())),
        };
        let entries = PgList::<pg_sys::TargetEntry>::from_pg(*results);
        if !entries.iter_ptr().any(|entry| of(entry).is_some()) || is_select && !fit(query) {
            return;
        }
        let mut entries = PgList::<pg_sys::TargetEntry>::from_pg(*results);
        for at in 0..entries.len() {
            let Some(entry) = entries.get_ptr(at) else { continue };
            let Some(ours) = of(entry) else { continue };
            let Some(shown) = ours.shown((*entry).expr) else { continue };
            // Sorted and grouped is what the column is.
            if (*entry).ressortgroupref != 0 {
                let value = pg_sys::copyObjectImpl((*entry).expr.cast()).cast();
                let number = entries.len() as pg_sys::AttrNumber + 1;
                let hidden = pg_sys::makeTargetEntry(value, number, std::ptr::null_mut(), true);
                (*hidden).ressortgroupref = std::mem::take(&mut (*entry).ressortgroupref);
                entries.push(hidden);
            }
            (*entry).expr = shown;
        }
        *results = entries.into_pg();
    }
}

/// Whether the columns of a SELECT can be shown where they stand: makes it so, if there is a way.
///
/// DISTINCT and UNION compare the columns, so they must not see what is shown. OFFSET skips rows
/// that nobody sees, so they must not be shown: that could cost much, or fail. Such a query is
/// nested in one that only shows. That can't be where WITH writes.
///
/// # Safety
/// As [`describe_results`].
unsafe fn fit(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let compares = !(*query).setOperations.is_null()
            || !(*query).distinctClause.is_null() && !(*query).hasDistinctOn;
        let can_nest = !(*query).hasModifyingCTE && (*query).rowMarks.is_null();
        if can_nest && (compares || !(*query).limitOffset.is_null()) {
            tree::nest(query);
            return true;
        }
        !compares
    }
}
