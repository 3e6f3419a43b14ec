//! When the monitor does what about a tenant.

use cmk_keyring::shared::identity::TenantId;

/// Shortest time between two tries to renew data keys, in nanoseconds: of a key that KMS answers
/// for, and of one that it does not.
const RENEW_PAUSE: u64 = 1_000_000_000;
const RENEW_PAUSE_DARK: u64 = 5_000_000_000;

/// When to do what about a tenant.
pub struct Schedule {
    /// The tenant's name in shared memory.
    pub id: TenantId,
    checked_at: u64,
    /// Share of an interval by which the checks of tenants are kept apart.
    spread: f64,
    is_new: bool,
    /// When to give a warning that could not be written; `u64::MAX`: there is none.
    pub again_at: u64,
    /// When to ask KMS again what there is to warn of.
    pub describe_at: u64,
    /// Changes of the key's state when KMS was last asked for what there is to warn of.
    pub changes: u64,
    /// A call about it is under way.
    pub is_asked: bool,
    /// It waits for its turn to be described.
    pub is_to_describe: bool,
    /// KMS answered last time, be it by a refusal.
    pub answers: bool,
}

impl Schedule {
    /// Of a tenant that was first seen now.
    pub fn new(id: TenantId, now: u64) -> Self {
        Self {
            id,
            checked_at: now,
            spread: f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX),
            is_new: true,
            again_at: u64::MAX,
            describe_at: 0,
            changes: 0,
            is_asked: false,
            is_to_describe: false,
            answers: true,
        }
    }

    /// It is being checked.
    pub fn begin(&mut self, now: u64) {
        (self.checked_at, self.is_new, self.again_at) = (now, false, u64::MAX);
    }

    /// Within an interval at first, then 90 to 100 % of one after the last check. Sooner if data
    /// keys are to be renewed then; that is not tried without pause.
    pub fn check_at(&self, interval: u64, renew_at: u64) -> u64 {
        let share = if self.is_new { self.spread } else { 0.9 + self.spread / 10.0 };
        let renew_at = match (self.is_new, self.answers) {
            (true, _) => renew_at,
            (false, true) => renew_at.max(self.checked_at + RENEW_PAUSE),
            (false, false) => renew_at.max(self.checked_at + RENEW_PAUSE_DARK),
        };
        self.again_at.min(renew_at).min(self.checked_at + (interval as f64 * share) as u64)
    }
}
