//! The settings that the keyring goes by: TTLs, waits, budget, capacity.

use crate::shared::now::Rules;

/// Durations in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Hard TTL of a data key.
    pub ttl: u64,
    /// Age from which a data key is refreshed ahead of need, ± 10 %. Not below `ttl`: never.
    pub soft_ttl: u64,
    /// Longest that a refresh ahead of need may keep a query.
    pub refresh_wait: u64,
    /// How long a failure is remembered, ± 25 %.
    pub failure_ttl: u64,
    /// Longest that a KMS call takes.
    pub call_timeout: u64,
    /// KMS calls per minute for a tenant; 0: no limit.
    pub budget: u32,
    /// Data keys held at most.
    pub capacity: usize,
}

impl Policy {
    /// Those that processes have to agree on.
    pub fn rules(&self) -> Rules {
        Rules {
            ttl: self.ttl,
            failure_ttl: self.failure_ttl,
            call_timeout: self.call_timeout,
            budget: self.budget,
        }
    }

    /// Whether data keys are refreshed ahead of need.
    pub fn refreshes(&self) -> bool {
        self.soft_ttl < self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_ttl_that_is_not_below_the_ttl_means_never() {
        let policy = |soft_ttl| Policy {
            ttl: 300,
            soft_ttl,
            refresh_wait: 1,
            failure_ttl: 2,
            call_timeout: 3,
            budget: 4,
            capacity: 5,
        };
        assert_eq!([299, 300, 301].map(|soft| policy(soft).refreshes()), [true, false, false]);
        let Rules { ttl, failure_ttl, call_timeout, budget } = policy(7).rules();
        assert_eq!((ttl, failure_ttl, call_timeout, budget), (300, 2, 3, 4));
    }
}
