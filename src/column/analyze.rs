//! ANALYZE of a protected column: how many values are null and how wide they are. Never a value,
//! sealed or not: `pg_statistic` is copied, dumped and shown.

use crate::pg::compat;
use crate::pg::datum::varlena_size;
use crate::pg::raw::column_function;
use pgrx::{pg_guard, pg_sys};

column_function!(column_analyze, |call| {
    // SAFETY: PostgreSQL passes the statistics of the column to be made.
    unsafe {
        let stats = call.datum(0).cast_mut_ptr::<pg_sys::VacAttrStats>();
        let target = compat::statistics_target(stats);
        (*stats).minrows = 300 * target;
        (*stats).compute_stats = Some(compute);
    }
    Ok(pg_sys::Datum::from(true))
});

/// Every value counts as different from all others: equal plaintexts don't show.
#[pg_guard]
unsafe extern "C-unwind" fn compute(
    stats: pg_sys::VacAttrStatsP,
    fetch: pg_sys::AnalyzeAttrFetchFunc,
    rows: i32,
    _total: f64,
) {
    let Some(fetch) = fetch else { return };
    let (mut nulls, mut width) = (0_i32, 0_f64);
    for row in 0..rows {
        compat::vacuum_delay_point();
        let mut is_null = false;
        // SAFETY: PostgreSQL's function, for one of its sample of rows.
        let value = unsafe { fetch(stats, row, &mut is_null) };
        match is_null {
            true => nulls += 1,
            false => width += varlena_size(value) as f64,
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
            (*stats).stadistinct = (null_fraction - 1.0) as f32;
        }
    }
}
