//! What all processes see without a lock: the recheck counter, call numbers, bounds of recycled
//! records, the salt, and what monitoring asks for.

use super::identity::{Salt, TenantId};
use super::stats::{Totals, TotalsKept};
use cmk_error::Instant;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Valid when it is all zero, but for the salt.
#[repr(C)]
pub struct SharedCounters {
    /// Counts what every process must look at before it uses a data key again: a key was found
    /// revoked or works again, a tenant was evicted, a brake pulled or lifted.
    notices: AtomicU64,
    /// Those of them that concern all tenants, and those that concern some, by their ids.
    notices_for_all: AtomicU64,
    notices_for_some: [AtomicU64; PLACES],
    /// Numbers KMS calls.
    calls: AtomicU64,
    /// Of all records that were taken from one tenant and given to another: the last time that a
    /// key was found revoked, and when the last copy of a data key is erased.
    revoked_at: AtomicU64,
    copies_until: AtomicU64,
    /// How many such records there were.
    pub recycled: AtomicU64,
    salt: [AtomicU64; 2],
    /// Data keys that processes dropped for want of room in their caches.
    pub dropped_for_room: AtomicU64,
    /// How often a monitor ended because somebody wanted its database for themselves.
    pub gave_way: AtomicU64,
    /// A data key is to be renewed that no query waits for.
    pub renewal_wanted: AtomicBool,
    /// Until when no renewer can be started.
    pub no_renewer_until: AtomicU64,
    /// The `refresh_wait` of which the log says that KMS takes longer, and 1; 0: of none.
    pub short_wait_logged: AtomicU64,
    /// What tenants cost whose records were recycled, and what was set back to zero: totals of the
    /// server never fall.
    past: TotalsKept,
    /// Of each database that is watched: its object id, and when its monitor was last seen.
    monitors: [(AtomicU32, AtomicU64); MONITORS],
}

/// Places where tenants' notices are counted: a few tenants share one.
const PLACES: usize = 4096;

/// Databases whose monitors are remembered. More than a server has background workers for.
const MONITORS: usize = 64;

impl Default for SharedCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedCounters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            notices: AtomicU64::new(0),
            notices_for_all: AtomicU64::new(0),
            notices_for_some: [const { AtomicU64::new(0) }; PLACES],
            calls: AtomicU64::new(0),
            revoked_at: AtomicU64::new(0),
            copies_until: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            salt: [const { AtomicU64::new(0) }; 2],
            dropped_for_room: AtomicU64::new(0),
            gave_way: AtomicU64::new(0),
            renewal_wanted: AtomicBool::new(false),
            no_renewer_until: AtomicU64::new(0),
            short_wait_logged: AtomicU64::new(0),
            past: TotalsKept::new(),
            monitors: [const { (AtomicU32::new(0), AtomicU64::new(0)) }; MONITORS],
        }
    }

    /// The monitor of a database was seen at work; at 0: it ended.
    pub fn monitor_seen(&self, database: u32, at: Instant) {
        // Whoever takes a free place at the same time as another looks on.
        let place = self.monitors.iter().find(|(of, _)| {
            let of = match of.compare_exchange(0, database, Relaxed, Relaxed) {
                Ok(_) => database,
                Err(of) => of,
            };
            of == database
        });
        if let Some((_, seen_at)) = place {
            seen_at.store(at, Relaxed);
        }
    }

    /// When the monitor of a database was last seen at work; `None`: there is none.
    pub fn monitor_seen_at(&self, database: u32) -> Option<Instant> {
        let of = self.monitors.iter().find(|(of, _)| of.load(Relaxed) == database);
        of.map(|(_, seen_at)| seen_at.load(Relaxed)).filter(|at| *at != 0)
    }

    /// What is no longer in any record.
    pub(super) fn keep(&self, totals: &Totals) {
        self.past.add(totals);
    }

    /// What tenants cost that have no record any more.
    pub fn past(&self) -> Totals {
        self.past.totals()
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

    /// Has every process look before it uses a data key of this tenant again.
    pub fn notify(&self, tenant: &TenantId) {
        self.place_of(tenant).fetch_add(1, Relaxed);
        // After it: whoever sees this sees the other.
        self.notices.fetch_add(1, Release);
    }

    /// The same of any tenant.
    pub fn notify_all(&self) {
        self.notices_for_all.fetch_add(1, Relaxed);
        self.notices.fetch_add(1, Release);
    }

    /// How often any process had to look.
    #[inline]
    pub fn notices(&self) -> u64 {
        self.notices.load(Acquire)
    }

    /// How often it had to look at this tenant, or at one that shares its place.
    pub fn notices_of(&self, tenant: &TenantId) -> u64 {
        self.place_of(tenant).load(Relaxed) + self.notices_for_all.load(Relaxed)
    }

    fn place_of(&self, tenant: &TenantId) -> &AtomicU64 {
        &self.notices_for_some[usize::from(u16::from_be_bytes([tenant.0[0], tenant.0[1]])) % PLACES]
    }

    /// Whether the log is yet to be told that KMS takes longer than this `refresh_wait`. True once.
    pub fn is_first_short_wait(&self, wait: u64) -> bool {
        let logged = wait.saturating_add(1);
        self.short_wait_logged.swap(logged, Relaxed) != logged
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
    fn each_database_has_a_monitor_of_its_own() {
        let counters = SharedCounters::new();
        for (database, at) in [(5, 10), (6, 11), (5, 12)] {
            counters.monitor_seen(database, at);
        }
        assert_eq!([5, 6, 7].map(|of| counters.monitor_seen_at(of)), [Some(12), Some(11), None]);
        counters.monitor_seen(5, 0);
        assert_eq!([5, 6].map(|of| counters.monitor_seen_at(of)), [None, Some(11)]);
    }

    #[test]
    fn more_databases_than_places_harm_nobody() {
        let counters = SharedCounters::new();
        (1..=MONITORS as u32 + 1).for_each(|database| counters.monitor_seen(database, 7));
        assert_eq!(counters.monitor_seen_at(MONITORS as u32), Some(7));
        assert_eq!(counters.monitor_seen_at(MONITORS as u32 + 1), None);
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
