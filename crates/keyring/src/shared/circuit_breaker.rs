//! How long KMS is not asked again after it failed for a tenant.

use super::now::jittered;
use cmk_error::Instant;

/// Failures in a row after which the pauses between calls begin to stretch.
const STRETCHES_AFTER: u32 = 3;
/// Most doublings of a pause: eight times the failure TTL.
const MOST_DOUBLINGS: u32 = 3;

/// Open, it lets no call through. All zero: closed.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CircuitBreaker {
    closes_at: Instant,
    failures_in_a_row: u32,
}

impl CircuitBreaker {
    /// Whether KMS is not to be asked.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        now < self.closes_at
    }

    /// When KMS may be asked again.
    pub(super) fn closes_at(&self) -> Instant {
        self.closes_at
    }

    /// Opens it for `failure_ttl` ± 25 %; if it `stretches`, for twice, four and eight times as
    /// long from the fourth failure in a row on.
    pub(super) fn failed(&mut self, now: Instant, failure_ttl: u64, stretches: bool) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let doublings = match stretches {
            true => self.failures_in_a_row.saturating_sub(STRETCHES_AFTER).min(MOST_DOUBLINGS),
            false => 0,
        };
        self.closes_at = now.saturating_add(jittered(failure_ttl << doublings));
    }

    /// Closes it, and goes on counting failures.
    pub(super) fn close(&mut self) {
        self.closes_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after so many failures in a row, in units of the failure TTL.
    fn pauses(stretches: bool) -> Vec<f64> {
        const TTL: u64 = 1_000_000;
        let mut breaker = CircuitBreaker::default();
        let pause = |number: u64| {
            breaker.failed(number, TTL, stretches);
            (breaker.closes_at() - number) as f64 / TTL as f64
        };
        (1..=8).map(pause).collect()
    }

    #[test]
    fn pauses_stretch_from_the_fourth_failure_on_and_not_without_end() {
        for (pause, times) in pauses(true).into_iter().zip([1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0])
        {
            assert!((0.75..=1.25).contains(&(pause / times)), "{pause} {times}");
        }
        assert!(pauses(false).into_iter().all(|pause| (0.75..=1.25).contains(&pause)));
    }

    #[test]
    fn it_is_open_until_its_time_and_a_success_begins_anew() {
        let mut breaker = CircuitBreaker::default();
        assert!(!breaker.is_open(0));
        breaker.failed(10, 1000, true);
        let closes_at = breaker.closes_at();
        assert!(breaker.is_open(closes_at - 1) && !breaker.is_open(closes_at));
        breaker.close();
        assert!(!breaker.is_open(10));
    }
}
