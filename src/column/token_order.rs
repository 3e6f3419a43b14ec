//! What indexes on searchable columns are ordered by: tokens. PostgreSQL compares values there
//! while it holds a page, so nothing here takes a key, waits or looks anything up: it reads
//! headers.
//!
//! A value that isn't sealed yet is found by its own bytes, and comes before those that are. One
//! that is sealed without tokens could never be found, so it is refused.

use super::stored::looks_sealed;
use crate::pg::call::Call;
use crate::pg::datum::{content, head};
use crate::pg::raw::column_function;
use crate::pg::sort_support::{self, Sorter};
use cmk_envelope::column::{HEADER_MAX, SearchKey, Which};
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::cmp::Ordering;

/// In the order of an index.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Plain(&'a [u8]),
    Token(SearchKey),
    /// In no index.
    Sealed(&'a [u8]),
}

impl<'a> Place<'a> {
    #[inline]
    fn of(value: pg_sys::Datum, which: Which) -> Self {
        let start = head(value, HEADER_MAX);
        match SearchKey::of(start, which) {
            Some(key) => Self::Token(key),
            // SAFETY: a value of our type.
            None => match unsafe { content(value) } {
                sealed if looks_sealed(sealed) => Self::Sealed(sealed),
                plain => Self::Plain(plain),
            },
        }
    }

    /// # Errors
    /// `not_searchable`.
    #[inline]
    fn in_index(value: pg_sys::Datum, which: Which) -> Result<Self> {
        match Self::of(value, which) {
            Self::Sealed(_) => Err(Reason::NotSearchable.into()),
            place => Ok(place),
        }
    }
}

/// For operators, which raise nothing: a policy may hide the row.
#[inline]
fn order_of(call: Call, which: Which) -> Ordering {
    Place::of(call.datum(0), which).cmp(&Place::of(call.datum(1), which))
}

/// # Errors
/// `not_searchable`.
#[inline]
fn order(a: pg_sys::Datum, b: pg_sys::Datum, which: Which) -> Result<Ordering> {
    Ok(Place::in_index(a, which)?.cmp(&Place::in_index(b, which)?))
}

macro_rules! comparisons {
    ($which:expr, $($name:ident: $test:expr),*) => {
        $(column_function!($name, |call| {
            let test: fn(Ordering) -> bool = $test;
            Ok(pg_sys::Datum::from(test(order_of(call, $which))))
        });)*
    };
}
comparisons!(Which::First,
    column_token_eq: Ordering::is_eq, column_token_lt: Ordering::is_lt,
    column_token_le: Ordering::is_le, column_token_ge: Ordering::is_ge,
    column_token_gt: Ordering::is_gt);
comparisons!(Which::Last, column_token_next_eq: Ordering::is_eq);

column_function!(column_token_cmp, |call| {
    Ok(pg_sys::Datum::from(order(call.datum(0), call.datum(1), Which::First)? as i32))
});
column_function!(column_token_next_cmp, |call| {
    Ok(pg_sys::Datum::from(order(call.datum(0), call.datum(1), Which::Last)? as i32))
});

/// Sorts values for an index that is built.
struct Sort(Which);

impl Sorter for Sort {
    fn compare(&mut self, a: pg_sys::Datum, b: pg_sys::Datum) -> Result<Ordering> {
        order(a, b, self.0)
    }

    fn abbreviate(&mut self, value: pg_sys::Datum) -> Result<u64> {
        Ok(match Place::in_index(value, self.0)? {
            Place::Token(key) => key.abbreviated(),
            _ => 0,
        })
    }

    fn compare_abbreviated(&mut self, a: u64, b: u64) -> Result<Ordering> {
        Ok(a.cmp(&b))
    }
}

column_function!(column_token_sort, |call| {
    sort_support::set_up(call, |_| true, |_, _| Sort(Which::First));
    Ok(pg_sys::Datum::null())
});
column_function!(column_token_next_sort, |call| {
    sort_support::set_up(call, |_| true, |_, _| Sort(Which::Last));
    Ok(pg_sys::Datum::null())
});
