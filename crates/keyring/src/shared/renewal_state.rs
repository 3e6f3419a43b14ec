//! What is remembered of how a tenant's data keys are renewed ahead of need.

use cmk_error::Instant;

/// How long KMS takes to answer about a tenant's key, in nanoseconds. The first call of a process
/// takes longer than those that follow, so it falls at once and rises by halves. 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Latency(u64);

impl Latency {
    /// In nanoseconds.
    pub fn nanos(self) -> u64 {
        self.0
    }

    pub(super) fn measured(&mut self, took: u64) {
        self.0 = match self.0 {
            0 => took.max(1),
            known if took <= known => took.max(1),
            known => known + (took - known) / 2,
        };
    }

    pub(super) fn is_at_least(&mut self, took: u64) {
        self.0 = self.0.max(took);
    }

    /// Whether a call is likely to take longer than `wait`: KMS varies.
    pub(super) fn exceeds(self, wait: u64) -> bool {
        wait == 0 || self.0 > wait / 2
    }
}

/// What a record knows of renewals. All zero: nothing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Renewals {
    /// How long KMS takes.
    pub latency: Latency,
    /// Since when the renewer is wanted; 0: it isn't.
    pub(super) wanted_at: Instant,
    /// When the call began with which it last succeeded.
    pub(super) handed_over_at: Instant,
    /// Renewals in a row that were given up.
    pub(super) given_up: u32,
    /// The renewer has taken note.
    pub(super) is_noted: bool,
}

impl Renewals {
    /// A call about the tenant's key ended that began at `began`; of another kind than a renewal
    /// that was given up.
    pub(super) fn ended(&mut self, began: Instant, succeeded: bool) {
        if self.wanted_at != 0 && succeeded {
            self.handed_over_at = began;
        }
        (self.wanted_at, self.is_noted, self.given_up) = (0, false, 0);
    }

    /// The renewer is not wanted any more.
    pub(super) fn forget(&mut self) {
        (self.wanted_at, self.is_noted) = (0, false);
    }

    /// True the first time. False while the renewer is at it.
    pub(super) fn hand_over(&mut self, now: Instant) -> bool {
        let is_new = self.wanted_at == 0;
        if is_new {
            (self.wanted_at, self.is_noted) = (now, false);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_falls_at_once_and_rises_by_halves() {
        let mut latency = Latency::default();
        let mut seen = |took| {
            latency.measured(took);
            latency.nanos()
        };
        assert_eq!([400, 100, 100, 500, 150, 0].map(&mut seen), [400, 100, 100, 300, 150, 1]);
    }

    #[test]
    fn a_call_that_may_take_twice_as_long_as_usual_is_not_one_to_wait_for() {
        let exceeds = |latency, wait| Latency(latency).exceeds(wait);
        assert_eq!([49, 50, 51].map(|nanos| exceeds(nanos, 100)), [false, false, true]);
        assert!(!exceeds(0, 1), "nothing is known: it is tried");
        assert!(exceeds(0, 0), "no query waits at all");
    }
}
