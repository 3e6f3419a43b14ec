//! ANALYZE of a protected column: how many values are null, how wide they are, and how many differ,
//! as far as tokens tell. Never a value, sealed or not, nor a token: `pg_statistic` is copied,
//! dumped and shown.

use crate::pg::compat;
use crate::pg::datum::{head, varlena_size};
use crate::pg::raw::column_function;
use crate::pg::statistics;
use cmk_envelope::column::{HEADER_MAX, SearchKey, Which};
use foldhash::fast::RandomState;
use pgrx::spi::Spi;
use pgrx::{pg_guard, pg_sys};
use std::collections::HashMap;

column_function!(column_analyze, |call| {
    // SAFETY: PostgreSQL passes the statistics of the column to be made.
    unsafe {
        let stats = call.datum(0).cast_mut_ptr::<pg_sys::VacAttrStats>();
        if is_in_extended_statistics((*stats).tupattnum) {
            return Ok(pg_sys::Datum::from(false));
        }
        let target = compat::statistics_target(stats);
        (*stats).minrows = 300 * target;
        (*stats).compute_stats = Some(compute);
    }
    Ok(pg_sys::Datum::from(true))
});

/// Whether a column of the table being analyzed is in a statistics object of several columns.
/// PostgreSQL would sort its values for that, which are opened to be sorted, and the ANALYZE would
/// fail as a whole. Of a column without statistics of its own it warns, and leaves the object out.
fn is_in_extended_statistics(column: i32) -> bool {
    const QUERY: &str = "SELECT true FROM pg_catalog.pg_statistic_ext
        WHERE stxrelid OPERATOR(pg_catalog.=) $1
          AND $2::pg_catalog.int2 OPERATOR(pg_catalog.=) ANY (stxkeys) LIMIT 1";
    // Not of an expression, which has no number.
    let Some(table) = statistics::table().filter(|_| column > 0) else { return false };
    let arguments = [table.into(), column.into()];
    let found = Spi::connect(|client| client.select(QUERY, None, &arguments).map(|it| it.len()));
    found.is_ok_and(|rows| rows > 0)
}

/// How many different values a sample has.
#[derive(Default)]
struct Distinct {
    /// How often each token occurs.
    tokens: HashMap<SearchKey, u32, RandomState>,
    /// Values without: each counts as different from all others.
    others: u32,
}

impl Distinct {
    fn add(&mut self, value: pg_sys::Datum) {
        match SearchKey::of(head(value, HEADER_MAX), Which::First) {
            Some(key) => *self.tokens.entry(key).or_default() += 1,
            None => self.others += 1,
        }
    }

    /// As `stadistinct` has it: a number, or, below zero, a fraction of all rows. The estimator is
    /// that of PostgreSQL's own types (Haas and Stokes, IBM Research Report RJ 10025).
    fn estimate(&self, present: f64, rows: f64, total: f64) -> f64 {
        let once = self.tokens.values().filter(|count| **count == 1).count();
        let once = (once + self.others as usize) as f64;
        let different = (self.tokens.len() + self.others as usize) as f64;
        if present == 0.0 || once == present {
            return -present / rows;
        }
        let all = total * present / rows;
        let estimate = present * different / ((present - once) + once * present / all.max(1.0));
        let estimate = estimate.clamp(different, all.max(different)).round();
        if estimate > 0.1 * total { -estimate / total } else { estimate }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn compute(
    stats: pg_sys::VacAttrStatsP,
    fetch: pg_sys::AnalyzeAttrFetchFunc,
    rows: i32,
    total: f64,
) {
    let Some(fetch) = fetch else { return };
    let (mut nulls, mut width, mut distinct) = (0_i32, 0_f64, Distinct::default());
    for row in 0..rows {
        compat::vacuum_delay_point();
        let mut is_null = false;
        // SAFETY: PostgreSQL's function, for one of its sample of rows; an ERROR becomes a panic,
        // so that what was counted is dropped.
        let value =
            unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(stats, row, &mut is_null)) };
        match is_null {
            true => nulls += 1,
            false => {
                width += varlena_size(value) as f64;
                distinct.add(value);
            }
        }
    }
    let present = f64::from(rows - nulls);
    if rows > 0 {
        let null_fraction = f64::from(nulls) / f64::from(rows);
        // SAFETY: the statistics to be filled in.
        unsafe {
            (*stats).stats_valid = true;
            (*stats).stanullfrac = null_fraction as f32;
            (*stats).stawidth = if present > 0.0 { (width / present) as i32 } else { 0 };
            (*stats).stadistinct = distinct.estimate(present, f64::from(rows), total) as f32;
        }
    }
}
