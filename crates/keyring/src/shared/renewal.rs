//! Renewing a data key ahead of need, so that no query waits for KMS: by the query that comes by if
//! KMS answers fast enough, else by a process that does nothing else.

use super::call::CallPermit;
use super::identity::{Fingerprint, Subject, TenantId};
use super::now::{Now, Rules, jittered};
use super::renewal_state::Renewals;
use super::single_flight::SharedDataKey;
use super::table::SharedKeyring;
use cmk_error::Instant;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// How long the renewer may take before a query renews by itself after all: 2 s.
const PATIENCE: u64 = 2_000_000_000;
/// Longest that a query waits for a renewal beyond what the settings say: 1 s.
const LONGEST: u64 = 1_000_000_000;
/// Most doublings of the pause after renewals that were given up: eight times the failure TTL.
const MOST_DOUBLINGS: u32 = 3;

/// What a process does about a data key that it has, but wants younger.
pub enum Renewal {
    /// Nothing now.
    Later,
    /// A younger one is here.
    Take(SharedDataKey),
    /// Have the renewer woken. It renews for all, and the query goes on.
    HandOver,
    /// Ask KMS, and wait so long for it at most.
    Ask(CallPermit, Patience),
}

/// How long a query waits for a renewal, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most.
    pub limit: u64,
    /// That is longer than the settings say, because KMS takes longer.
    pub is_stretched: bool,
}

impl SharedKeyring<'_> {
    /// What to do about a data key that the caller has, unwrapped at `unwrapped_at`, but wants
    /// younger. `wait` is how long a query may wait for it; 0: not at all.
    #[allow(clippy::too_many_arguments)]
    pub fn begin_renewal(
        &mut self,
        subject: &Subject,
        fingerprint: &Fingerprint,
        unwrapped_at: Instant,
        pid: u32,
        now: Now,
        rules: &Rules,
        wait: u64,
    ) -> Renewal {
        let at = self.record_of(subject, now.instant);
        if let Some(taken) = self.take(at, fingerprint, unwrapped_at, now.instant, rules) {
            return Renewal::Take(taken);
        }
        let can_hand_over =
            self.shares_data_keys && now.instant >= self.counters.no_renewer_until.load(Relaxed);
        let record = &mut self.records[at];
        if !record.may_refresh(now.instant) {
            return Renewal::Later;
        }
        let renewals = &mut record.renewals;
        let mut patience = Patience { limit: wait, is_stretched: false };
        if renewals.latency.exceeds(wait) {
            // Where the renewer succeeded without bringing this data key there is no place for it.
            if can_hand_over && renewals.handed_over_at <= unwrapped_at {
                if renewals.hand_over(now.instant) {
                    return Renewal::HandOver;
                }
                if now.instant - renewals.wanted_at < PATIENCE {
                    return Renewal::Later;
                }
                renewals.wanted_at = 0;
            }
            let limit = renewals.latency.nanos().saturating_mul(2).min(LONGEST).max(wait);
            if wait == 0 || limit < renewals.latency.nanos() {
                return Renewal::Later;
            }
            patience = Patience { limit, is_stretched: limit > wait };
        }
        match self.begin_within_budget(at, pid, now.instant, rules) {
            Some(permit) => Renewal::Ask(permit, patience),
            None => Renewal::Later,
        }
    }

    /// A renewal took longer than its query would wait. That says nothing of the key.
    pub fn give_up_renewal(
        &mut self,
        permit: &CallPermit,
        patience: Patience,
        took: u64,
        now: Instant,
        failure_ttl: u64,
    ) {
        let given_up = permit.tag.record().and_then(|at| self.records.get_mut(at)).map(|record| {
            let renewals = &mut record.renewals;
            if !patience.is_stretched {
                renewals.latency.is_at_least(took);
            }
            let doublings = renewals.given_up.min(MOST_DOUBLINGS);
            renewals.given_up = renewals.given_up.saturating_add(1);
            doublings
        });
        let pause = jittered(failure_ttl << given_up.unwrap_or_default());
        self.abandon(permit, now.saturating_add(pause));
    }

    /// Databases with tenants with a record in `range` for which the renewer is wanted and doesn't
    /// know it.
    pub fn wanting_renewal(&self, range: Range<usize>, databases: &mut BTreeSet<u32>) {
        let records = self.records.get(range.start..range.end.min(self.records.len()));
        let wanting = records.unwrap_or_default().iter().filter(|record| {
            let Renewals { wanted_at, is_noted, .. } = record.renewals;
            wanted_at != 0 && !is_noted
        });
        databases.extend(wanting.map(|record| record.database));
    }

    /// The tenants of a database with a record in `range` for which the renewer is wanted. They are
    /// told once.
    pub fn note_renewals(&mut self, range: Range<usize>, database: u32) -> Vec<TenantId> {
        let end = range.end.min(self.records.len());
        let records = self.records.get_mut(range.start..end).unwrap_or_default();
        let mut ids = Vec::new();
        for record in records.iter_mut().filter(|record| record.database == database) {
            let renewals = &mut record.renewals;
            if renewals.wanted_at != 0 && !renewals.is_noted {
                renewals.is_noted = true;
                ids.push(record.id);
            }
        }
        ids
    }

    /// There is no renewer for the tenants of a database with a record in `range`: nothing is
    /// wanted of it any more.
    pub fn forget_renewals(&mut self, range: Range<usize>, database: u32) {
        let end = range.end.min(self.records.len());
        let records = self.records.get_mut(range.start..end).unwrap_or_default();
        for record in records.iter_mut().filter(|record| record.database == database) {
            record.renewals.forget();
        }
    }
}
