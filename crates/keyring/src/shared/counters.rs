//! What all processes see without a lock: the recheck counter, call numbers, bounds of recycled
//! records, the salt.

use super::identity::Salt;
use cmk_error::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Valid when it is all zero, but for the salt.
#[derive(Default)]
#[repr(C)]
pub struct SharedCounters {
    /// Counts what every process must look at before it uses a data key again: a key was found
    /// revoked or works again, a tenant was evicted, a brake pulled or lifted.
    pub notices: AtomicU64,
    /// Numbers KMS calls.
    calls: AtomicU64,
    /// Of all records that were taken from one tenant and given to another: the last time that a
    /// key was found revoked, and when the last copy of a data key is erased.
    revoked_at: AtomicU64,
    copies_until: AtomicU64,
    /// How many such records there were.
    pub recycled: AtomicU64,
    salt: [AtomicU64; 2],
}

impl SharedCounters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            notices: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            revoked_at: AtomicU64::new(0),
            copies_until: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            salt: [const { AtomicU64::new(0) }; 2],
        }
    }

    /// The server's salt, which [`draw_salt`](Self::draw_salt) set.
    pub fn salt(&self) -> Salt {
        let [high, low] = [0, 1].map(|i| self.salt[i].load(Relaxed));
        Salt((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// Draws a salt, unless there is one. Where the operating system has no random bytes, names are
    /// hashed without.
    pub fn draw_salt(&self) {
        if self.salt.iter().all(|word| word.load(Relaxed) == 0) {
            for word in &self.salt {
                word.store(getrandom::u64().unwrap_or(0), Relaxed);
            }
        }
    }

    /// Has every process look before it uses a data key again.
    pub fn notify(&self) {
        self.notices.fetch_add(1, Relaxed);
    }

    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Relaxed) + 1
    }

    /// A data key of a tenant without a record that was unwrapped at or before this time must not
    /// be used.
    pub(super) fn forgotten_revoked_at(&self) -> Instant {
        self.revoked_at.load(Relaxed)
    }

    /// When the last copy of a data key is erased of tenants without a record.
    pub fn forgotten_copies_until(&self) -> Instant {
        self.copies_until.load(Relaxed)
    }

    pub(super) fn remember_revocation(&self, at: Instant) {
        self.revoked_at.fetch_max(at, Relaxed);
    }

    pub(super) fn remember_copy(&self, until: Instant) {
        self.copies_until.fetch_max(until, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_salt_is_the_same_for_every_process_and_all_of_it_counts() {
        let counters = SharedCounters::new();
        counters.salt[0].store(0x0102_0304_0506_0708, Relaxed);
        counters.salt[1].store(0x1112_1314_1516_1718, Relaxed);
        let expected = [1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 22, 23, 24];
        assert_eq!(counters.salt().0, expected);
    }

    #[test]
    fn a_salt_of_which_half_is_zero_is_one() {
        let counters = SharedCounters::new();
        counters.salt[1].store(7, Relaxed);
        counters.draw_salt();
        assert_eq!(counters.salt().0[8..], [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(counters.salt().0[..8], [0; 8]);
    }

    #[test]
    fn nothing_that_is_remembered_of_others_goes_back() {
        let counters = SharedCounters::new();
        for at in [7, 5] {
            counters.remember_revocation(at);
            counters.remember_copy(at + 1);
        }
        assert_eq!((counters.forgotten_revoked_at(), counters.forgotten_copies_until()), (7, 8));
    }
}
