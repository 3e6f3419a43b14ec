//! How many KMS calls a tenant may cost.

use cmk_error::Instant;

const MINUTE: u64 = 60_000_000_000;

/// A token bucket, as the time at which it is full again (the generic cell rate algorithm,
/// ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Budget {
    full_at: Instant,
}

impl Budget {
    /// Takes one call out of a budget of `per_minute`, all of which may be spent at once. False if
    /// there is none left. 0: no limit.
    pub fn spend(&mut self, now: Instant, per_minute: u32) -> bool {
        let Some(cost) = MINUTE.checked_div(per_minute.into()) else { return true };
        let full_at = self.full_at.max(now).saturating_add(cost);
        let affordable = full_at - now <= MINUTE;
        if affordable {
            self.full_at = full_at;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_minute_may_be_spent_at_once_and_comes_back_evenly() {
        let mut budget = Budget::default();
        let now = 7 * MINUTE;
        assert!((0..3).all(|_| budget.spend(now, 3)));
        assert!(!budget.spend(now, 3));
        assert!(!budget.spend(now + MINUTE / 3 - 1, 3));
        assert!(budget.spend(now + MINUTE / 3, 3));
        assert!(!budget.spend(now + MINUTE / 3, 3));
        // More than a minute's worth is never saved up.
        assert_eq!((0..9).filter(|_| budget.spend(now + 9 * MINUTE, 3)).count(), 3);
    }

    #[test]
    fn no_budget_is_no_limit() {
        let mut budget = Budget::default();
        assert!((0..10_000).all(|_| budget.spend(1, 0)));
    }
}
