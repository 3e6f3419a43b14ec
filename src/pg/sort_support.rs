//! Sort support: how a type has PostgreSQL sort its values (`utils/sortsupport.h`).

use super::call::Call;
use super::error_context;
use super::report::IntoSql;
use super::scratch;
use cmk_error::Result;
use pgrx::{PgMemoryContexts, pg_guard, pg_sys};
use std::cmp::Ordering;

/// What sorts values.
pub trait Sorter {
    /// Compares two values.
    ///
    /// # Errors
    /// Those of opening them.
    fn compare(&mut self, a: pg_sys::Datum, b: pg_sys::Datum) -> Result<Ordering>;

    /// What stands for a value while it is in memory.
    ///
    /// # Errors
    /// Those of opening it.
    fn abbreviate(&mut self, value: pg_sys::Datum) -> Result<u64>;

    /// Compares two values by what stands for them.
    ///
    /// # Errors
    /// Those of comparing.
    fn compare_abbreviated(&mut self, a: u64, b: u64) -> Result<Ordering>;
}

/// Runs `work` on what sorts, with scratch memory.
///
/// # Safety
/// `support` was set up by [`set_up`] for an `S`.
#[inline]
unsafe fn with<S, R>(support: pg_sys::SortSupport, work: impl FnOnce(&mut S) -> Result<R>) -> R {
    // SAFETY: the caller's promise.
    let sorter = unsafe { &mut *(*support).ssup_extra.cast::<S>() };
    let done = scratch::with(|| work(sorter));
    if done.is_err() {
        error_context::hide();
    }
    done.or_raise()
}

#[pg_guard]
unsafe extern "C-unwind" fn compare<S: Sorter>(
    a: pg_sys::Datum,
    b: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> i32 {
    // SAFETY: called by a sort that was set up here.
    unsafe { with(support, |sorter: &mut S| sorter.compare(a, b)) as i32 }
}

#[pg_guard]
unsafe extern "C-unwind" fn abbreviate<S: Sorter>(
    value: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> pg_sys::Datum {
    // SAFETY: as in compare.
    pg_sys::Datum::from(unsafe { with(support, |sorter: &mut S| sorter.abbreviate(value)) })
}

#[pg_guard]
unsafe extern "C-unwind" fn compare_abbreviated<S: Sorter>(
    a: pg_sys::Datum,
    b: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> i32 {
    let (a, b) = (a.value() as u64, b.value() as u64);
    // SAFETY: as in compare.
    unsafe { with(support, |sorter: &mut S| sorter.compare_abbreviated(a, b)) as i32 }
}

/// However alike values begin, what stands for them tells them apart.
unsafe extern "C-unwind" fn never_abort(_count: i32, _support: pg_sys::SortSupport) -> bool {
    false
}

/// Sets up a sort: `make` gets the collation and how many bytes the sort may keep.
pub fn set_up<S: Sorter>(
    call: Call,
    may_abbreviate: impl FnOnce(pg_sys::Oid) -> bool,
    make: impl FnOnce(pg_sys::Oid, usize) -> S,
) {
    let support = call.datum(0).cast_mut_ptr::<pg_sys::SortSupportData>();
    // SAFETY: PostgreSQL passes what it wants filled in; the context outlives the sort.
    unsafe {
        let limit = (pg_sys::work_mem as usize).saturating_mul(1024);
        let sorter = make((*support).ssup_collation, limit);
        let mut context = PgMemoryContexts::For((*support).ssup_cxt);
        (*support).ssup_extra = context.leak_and_drop_on_delete(sorter).cast();
        (*support).comparator = Some(compare::<S>);
        if (*support).abbreviate && may_abbreviate((*support).ssup_collation) {
            (*support).comparator = Some(compare_abbreviated::<S>);
            (*support).abbrev_converter = Some(abbreviate::<S>);
            (*support).abbrev_abort = Some(never_abort);
            (*support).abbrev_full_comparator = Some(compare::<S>);
        }
    }
}
