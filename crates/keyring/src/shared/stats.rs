//! What a tenant's key cost so far.

use cmk_error::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the server started or `cmk.reset_stats()`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Stats {
    /// Values sealed or opened under a data key that was at hand.
    pub hits: u64,
    /// Times a process had to look beyond its own cache.
    pub misses: u64,
    /// Calls of KMS.
    pub kms_calls: u64,
    /// Those of them that failed.
    pub kms_failures: u64,
    /// Times a process waited for another one's KMS call.
    pub waits: u64,
    /// Calls that the budget forbade.
    pub refused: u64,
    /// Microseconds since the Unix epoch; 0: never.
    pub last_success: i64,
    /// Microseconds since the Unix epoch; 0: never.
    pub last_failure: i64,
    /// How long the calls took.
    pub latency: Histogram,
}

impl Stats {
    /// Counts a call that began at `began` and ended `now`, which is `wall` for people.
    pub(super) fn count_call(&mut self, began: Instant, now: Instant, wall: i64, succeeded: bool) {
        self.kms_calls += 1;
        self.latency.add(now.saturating_sub(began));
        if succeeded {
            self.last_success = wall;
        } else {
            self.kms_failures += 1;
            self.last_failure = wall;
        }
    }

    /// Counters only: when KMS last answered is no count.
    pub fn reset(&mut self) {
        let Self { last_success, last_failure, .. } = *self;
        *self = Self { last_success, last_failure, ..Self::default() };
    }
}

impl Stats {
    /// Its counters.
    pub fn totals(&self) -> Totals {
        let Self { hits, misses, kms_calls, kms_failures, waits, refused, .. } = *self;
        Totals([hits, misses, kms_calls, kms_failures, waits, refused])
    }
}

/// Sums over tenants: hits, misses, calls of KMS, those that failed, waits, refused calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals(pub [u64; 6]);

impl Totals {
    /// Adds what another tenant cost.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
}

/// The same, for all processes.
#[derive(Default)]
#[repr(C)]
pub(super) struct TotalsKept([AtomicU64; 6]);

impl TotalsKept {
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 6])
    }

    pub fn add(&self, totals: &Totals) {
        for (kept, more) in self.0.iter().zip(totals.0) {
            kept.fetch_add(more, Relaxed);
        }
    }

    pub fn totals(&self) -> Totals {
        Totals(self.0.each_ref().map(|kept| kept.load(Relaxed)))
    }
}

/// Durations in buckets of a half octave, from half a millisecond to half a minute: an error of at
/// most a factor of √2.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
}

const BUCKETS: usize = 32;
/// Upper bound of the first bucket, in nanoseconds.
const FIRST: f64 = 500_000.0;

impl Histogram {
    /// Counts a duration.
    pub fn add(&mut self, nanos: u64) {
        let octaves = (nanos as f64 / FIRST).max(1.0).log2();
        let bucket = ((octaves * 2.0).ceil() as usize).min(BUCKETS - 1);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
    }

    /// The upper bound of the bucket in which the given share of all durations ends: in
    /// milliseconds, to three digits after the point.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().map(|&count| u64::from(count)).sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted
        });
        let bound = |bucket: usize| FIRST / 1e3 * (bucket as f64 / 2.0).exp2();
        found.filter(|_| total > 0).map(|bucket| bound(bucket).ceil() / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_half_octave() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        for millis in 1..=1000 {
            histogram.add(millis * 1_000_000);
        }
        for (share, millis) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let found = histogram.percentile(share).unwrap();
            assert!((millis..millis * 1.4143).contains(&found), "{share}: {found}");
        }
        histogram.add(0);
        histogram.add(u64::MAX);
        assert!(histogram.percentile(1.0).unwrap() > 20_000.0);
    }

    #[test]
    fn each_duration_has_a_bucket_whose_bound_is_shown() {
        let shown = |nanos| {
            let mut histogram = Histogram::default();
            histogram.add(nanos);
            histogram.percentile(1.0).unwrap()
        };
        // Rounded up to microseconds.
        assert_eq!([0, 500_000, 500_001].map(shown), [0.5, 0.5, 0.708]);
        assert_eq!([707_000, 708_000, 1_000_000].map(shown), [0.708, 1.0, 1.0]);
        assert_eq!([u64::MAX, 60_000_000_000].map(shown), [23_170.476; 2]);
    }

    #[test]
    fn a_percentile_is_where_its_share_of_all_durations_ends() {
        let mut histogram = Histogram::default();
        (0..9).for_each(|_| histogram.add(500_000));
        histogram.add(1_000_000);
        assert_eq!(histogram.percentile(0.9), Some(0.5));
        assert_eq!(histogram.percentile(0.91), Some(1.0));
    }

    #[test]
    fn calls_are_counted_by_how_they_ended_and_a_reset_forgets_no_time() {
        let mut stats = Stats { hits: 1, misses: 2, waits: 3, refused: 4, ..Stats::default() };
        stats.count_call(1_000_000, 2_000_000, 77, true);
        stats.count_call(1_000_000, 2_000_000, 88, false);
        assert_eq!((stats.kms_calls, stats.kms_failures), (2, 1));
        assert_eq!((stats.last_success, stats.last_failure), (77, 88));
        assert_eq!(stats.latency.percentile(1.0), Some(1.0));
        stats.reset();
        let Stats { hits, misses, waits, refused, kms_calls, kms_failures, .. } = stats;
        assert_eq!([hits, misses, waits, refused, kms_calls, kms_failures], [0; 6]);
        assert_eq!((stats.last_success, stats.last_failure), (77, 88));
        assert_eq!(stats.latency.percentile(1.0), None);
    }
}
