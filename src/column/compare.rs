//! Operators, and the functions of the default operator classes: all compare plaintexts, as the
//! type that is protected does.
//!
//! The classes serve sorting, grouping and joining. An index would have to be in the order of the
//! plaintexts, and would tell it: the classes refuse to be indexed.

use super::equal::{are_sealed_alike, comparable};
use super::kind::Kind;
use super::open::Clear;
use super::sought::{Sought, Values};
use super::stored::Stored;
use crate::pg::array;
use crate::pg::call::Call;
use crate::pg::interrupt;
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::scratch;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::cmp::Ordering;

/// An index within another type (an array, a row) compares while it holds a page, and interrupts:
/// nothing may wait there, and no index may be in the order of plaintexts.
///
/// # Errors
/// `index_refused`.
#[inline]
fn refuse_index() -> Result<()> {
    match interrupt::are_held() {
        true => Err(Reason::IndexRefused.into()),
        false => Ok(()),
    }
}

/// Two values, opened; `None` if they are the same bytes, which takes no key.
fn both<'a>(call: Call, process: &ThisProcess) -> Result<Option<(Clear<'a>, Clear<'a>)>> {
    let (a, b) = (call.bytes(0), call.bytes(1));
    if a == b {
        return Ok(None);
    }
    refuse_index()?;
    Ok(Some((comparable(process, a)?, comparable(process, b)?)))
}

fn equal(kind: Kind, call: Call) -> Result<bool> {
    let (a, b) = (call.bytes(0), call.bytes(1));
    if a == b {
        return Ok(true);
    }
    refuse_index()?;
    scratch::with(|| {
        let (process, collation) = (ThisProcess::of(call), call.collation());
        let has = |sought, value| {
            let found = Sought::with(
                call,
                sought,
                None,
                || Ok(vec![Some(sought)]),
                |sought| sought.has(kind, &process, value, collation),
            );
            Ok(found? == Some(true))
        };
        match (Stored::parse(a)?, Stored::parse(b)?) {
            (Stored::Plain(a), Stored::Plain(b)) => kind.are_equal(a, b, collation),
            (Stored::Sealed(a), Stored::Sealed(b)) => {
                are_sealed_alike(kind, &process, &a, &b, collation)
            }
            (Stored::Sealed(_), Stored::Plain(_)) => has(b, a),
            (Stored::Plain(_), Stored::Sealed(_)) => has(a, b),
        }
    })
}

/// `=` for what the planner knows more of: `cmk.equal(column, value, tenant)`, and
/// `cmk.equal_any(column, values[, tenant])`.
fn equal_to(call: Call, read: fn(Call) -> Result<Values<'static>>) -> Result<pg_sys::Datum> {
    if call.is_null(0) || call.is_null(1) {
        return Ok(call.return_null());
    }
    refuse_index()?;
    let found = scratch::with(|| {
        let tenant = if call.count() > 2 { call.nullable_bytes(2) } else { None };
        let process = ThisProcess::of(call);
        Sought::with(
            call,
            call.bytes(1),
            tenant,
            || read(call),
            |sought| sought.has(Kind::Text, &process, call.bytes(0), call.collation()),
        )
    });
    match found? {
        None => Ok(call.return_null()),
        Some(found) => Ok(pg_sys::Datum::from(found)),
    }
}
column_function!(column_equal, |call| match call.is_null(2) {
    true => Ok(call.return_null()),
    false => equal_to(call, |call| Ok(vec![Some(call.bytes(1))])),
});
column_function!(column_equal_any, |call| {
    if call.count() > 2 && call.is_null(2) {
        return Ok(call.return_null());
    }
    // As `= ANY`: not even null is one of no values.
    if call.is_null(0) && !call.is_null(1) && array::elements(call.datum(1))?.is_empty() {
        return Ok(pg_sys::Datum::from(false));
    }
    equal_to(call, |call| array::elements(call.datum(1)))
});

fn order(kind: Kind, call: Call) -> Result<Ordering> {
    scratch::with(|| match both(call, &ThisProcess::of(call))? {
        None => Ok(Ordering::Equal),
        Some((a, b)) => {
            let order = kind.compare(a.as_slice(), b.as_slice(), call.collation());
            free(a, b);
            order
        }
    })
}

/// Zeroes the plaintexts.
fn free(a: Clear<'_>, b: Clear<'_>) {
    a.free();
    b.free();
}

fn hash(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    refuse_index()?;
    scratch::with(|| {
        let clear = comparable(&ThisProcess::of(call), call.bytes(0))?;
        let hash = kind.hash(clear.as_slice(), call.collation());
        clear.free();
        hash
    })
}

fn extended_hash(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    refuse_index()?;
    scratch::with(|| {
        let clear = comparable(&ThisProcess::of(call), call.bytes(0))?;
        let hash = kind.extended_hash(clear.as_slice(), call.datum(1), call.collation());
        clear.free();
        hash
    })
}

macro_rules! operators {
    ($kind:expr, $eq:ident $ne:ident $lt:ident $le:ident $gt:ident $ge:ident $cmp:ident
     $hash:ident $extended:ident) => {
        column_function!($eq, |call| Ok(pg_sys::Datum::from(equal($kind, call)?)));
        column_function!($ne, |call| Ok(pg_sys::Datum::from(!equal($kind, call)?)));
        column_function!($lt, |call| Ok(pg_sys::Datum::from(order($kind, call)?.is_lt())));
        column_function!($le, |call| Ok(pg_sys::Datum::from(order($kind, call)?.is_le())));
        column_function!($gt, |call| Ok(pg_sys::Datum::from(order($kind, call)?.is_gt())));
        column_function!($ge, |call| Ok(pg_sys::Datum::from(order($kind, call)?.is_ge())));
        column_function!($cmp, |call| Ok(pg_sys::Datum::from(order($kind, call)? as i32)));
        column_function!($hash, |call| hash($kind, call));
        column_function!($extended, |call| extended_hash($kind, call));
    };
}

operators!(Kind::Text, column_text_eq column_text_ne column_text_lt column_text_le column_text_gt
    column_text_ge column_text_cmp column_text_hash column_text_hash_extended);
operators!(Kind::Bytea, column_bytea_eq column_bytea_ne column_bytea_lt column_bytea_le
    column_bytea_gt column_bytea_ge column_bytea_cmp column_bytea_hash
    column_bytea_hash_extended);
operators!(Kind::Jsonb, column_jsonb_eq column_jsonb_ne column_jsonb_lt column_jsonb_le
    column_jsonb_gt column_jsonb_ge column_jsonb_cmp column_jsonb_hash
    column_jsonb_hash_extended);

// The classes' support function for options, which PostgreSQL calls before it builds an index, and
// whenever it reads the definition of one.
column_function!(column_refuse_index, |_call| Err(Reason::IndexRefused.into()));
