//! The two clocks, the rules that a call goes by, and jitter.

use cmk_error::Instant;

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What everything is decided by.
    pub instant: Instant,
    /// For people: microseconds since the Unix epoch.
    pub wall: i64,
}

/// The rules that one call goes by; durations in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Hard TTL.
    pub ttl: u64,
    /// How long a failure is remembered, before jitter and before the circuit breaker stretches it.
    pub failure_ttl: u64,
    /// How long a call may last before another process may take over.
    pub call_timeout: u64,
    /// KMS calls per minute for a tenant; 0: no limit.
    pub budget: u32,
}

/// `nanos` ± 25 %, so that many processes don't come back at once.
pub fn jittered(nanos: u64) -> u64 {
    let random = u128::from(getrandom::u32().unwrap_or(u32::MAX / 2));
    nanos - nanos / 4 + ((u128::from(nanos / 2) * random) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_quarter_either_way() {
        let drawn: Vec<_> = (0..1000).map(|_| jittered(1000)).collect();
        assert!(drawn.iter().all(|nanos| (750..=1250).contains(nanos)));
        assert!(drawn.iter().any(|nanos| *nanos < 850) && drawn.iter().any(|nanos| *nanos > 1150));
        assert_eq!(jittered(0), 0);
    }
}
