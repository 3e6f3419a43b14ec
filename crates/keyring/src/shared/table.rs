//! The memory that the processes of a server share, for as long as its lock is held.

use super::brake::Brake;
use super::counters::SharedCounters;
use super::data_keys::{self, DataKeySlot, DataKeys};
use super::identity::{Subject, TenantId};
use super::limits::probe;
use super::record::{Record, Warnings};
use super::stats::Totals;
use super::tag::Tag;
use super::uses::{Sealed, Uses};
use cmk_error::Instant;
use std::ops::Range;

/// The tables. All of it is plain memory of fixed size, valid when it is all zero. Nothing here
/// waits, allocates much or can panic.
pub struct SharedKeyring<'a> {
    /// What needs no lock.
    pub counters: &'a SharedCounters,
    /// One per tenant.
    pub records: &'a mut [Record],
    /// Empty where nothing is shared.
    pub slots: &'a mut [DataKeySlot],
    /// Whether this process may use and put in data keys. It clears them in any case.
    pub shares_data_keys: bool,
    /// Empty where nothing is shared.
    pub brakes: &'a mut [Brake],
}

impl SharedKeyring<'_> {
    pub(super) fn data_keys(&mut self) -> DataKeys<'_> {
        DataKeys { slots: self.slots, records: self.records, shares: self.shares_data_keys }
    }

    fn place_of(&self, id: &TenantId) -> Option<usize> {
        probe(self.records.len(), &id.0).find(|&at| self.records[at].id == *id)
    }

    /// The record of a tenant, if there is one.
    pub fn find(&self, id: &TenantId) -> Option<(Tag, &Record)> {
        let at = self.place_of(id)?;
        let record = &self.records[at];
        Some((Tag::new(at, record.generation), record))
    }

    /// A data key of this tenant that was unwrapped at or before this time must not be used.
    pub fn revoked_at(&self, id: &TenantId) -> Instant {
        let forgotten = || self.counters.forgotten_revoked_at();
        self.find(id).map_or_else(forgotten, |(_, record)| record.not_before())
    }

    /// The number of the tenant's record, which is made if need be, at the cost of the least
    /// recently used.
    pub(super) fn record_of(&mut self, subject: &Subject, now: Instant) -> usize {
        let at = self.place_of(&subject.id).unwrap_or_else(|| self.make_record(subject, now));
        if self.records[at].adopt(subject, now) {
            self.data_keys().clear_all_of(at);
        }
        at
    }

    fn make_record(&mut self, subject: &Subject, now: Instant) -> usize {
        let priority = |&at: &usize| self.records[at].eviction_priority(now);
        let at = probe(self.records.len(), &subject.id.0).min_by_key(priority).unwrap_or(0);
        self.data_keys().clear_all_of(at);
        self.records[at].recycle(subject, self.counters);
        at
    }

    /// The key of a tenant is revoked: a data key that was unwrapped at or before `now` must not be
    /// used.
    pub fn revoke(&mut self, subject: &Subject, now: Instant) {
        let was_revoked = match self.place_of(&subject.id) {
            // What is said of another key than the tenant has now is nobody's business any more.
            Some(at) if !self.records[at].is_of(subject) => return,
            Some(at) => {
                self.data_keys().clear_all_of(at);
                let record = &mut self.records[at];
                record.revoked_at = record.revoked_at.max(now);
                record.is_revoked()
            }
            None => {
                self.counters.remember_revocation(now);
                false
            }
        };
        // While it stays revoked nobody gets a data key that others would have to drop.
        if !was_revoked {
            self.counters.notify(&subject.id);
        }
    }

    /// A data key of the tenant that was unwrapped at or before `now` must not be used, by anybody.
    pub fn evict(&mut self, id: &TenantId, now: Instant) {
        self.begin_eviction(now);
        if let Some(at) = self.place_of(id) {
            self.evict_at(at, now);
        }
        self.counters.notify(id);
    }

    /// For tenants without a record, and calls on their way that began from one that was recycled.
    pub fn begin_eviction(&self, now: Instant) {
        self.counters.remember_revocation(now);
    }

    /// As [`evict`](Self::evict) for all tenants of a database with a record in `range`. Comes
    /// after [`begin_eviction`](Self::begin_eviction) and before [`SharedCounters::notify_all`].
    pub fn evict_range(&mut self, range: Range<usize>, database: u32, now: Instant) {
        for at in range.start..range.end.min(self.records.len()) {
            if self.records[at].database == database {
                self.evict_at(at, now);
            }
        }
    }

    fn evict_at(&mut self, at: usize, now: Instant) {
        self.records[at].evicted_at = now;
        self.data_keys().clear_all_of(at);
    }

    /// A process with uncommitted changes of the registry has a copy of a data key until then.
    pub fn remember_copy(&mut self, subject: &Subject, until: Instant) {
        match self.place_of(&subject.id) {
            Some(at) => {
                let record = &mut self.records[at];
                record.copy_lives(until, None);
                record.holders_known_from = record.holders_known_from.max(until);
            }
            None => self.counters.remember_copy(until),
        }
    }

    /// Uses by the tag that their data keys were taken with.
    pub fn add_uses(&mut self, uses: &[(Tag, Uses)], now: Instant) {
        for (tag, uses) in uses {
            if let Some(record) = tag.record().and_then(|at| self.records.get_mut(at))
                && record.generation == tag.generation()
            {
                record.sealed.add(uses.sealed);
                if uses.hits > 0 {
                    record.stats.hits += uses.hits;
                    record.used_at = now;
                }
            }
        }
    }

    /// What a database's tenants with a record in `range` have sealed since the last time.
    pub fn take_sealed(&mut self, range: Range<usize>, database: u32) -> Vec<(TenantId, Sealed)> {
        let end = range.end.min(self.records.len());
        let records = self.records.get_mut(range.start..end).unwrap_or_default();
        let some = |record: &&mut Record| record.database == database && record.sealed.values > 0;
        let take = |record: &mut Record| {
            let sealed = record.sealed;
            record.sealed.values = 0;
            (record.id, sealed)
        };
        records.iter_mut().filter(some).map(take).collect()
    }

    /// Gives back what [`take_sealed`](Self::take_sealed) took, for the next time.
    pub fn give_back_sealed(&mut self, id: &TenantId, sealed: Sealed) {
        if let Some(at) = self.place_of(id) {
            self.records[at].sealed.add(sealed);
        }
    }

    /// Counts that a process looked here for a data key, or looked again after a wait.
    pub fn count_look(&mut self, subject: &Subject, again: bool, now: Instant) {
        let at = self.record_of(subject, now);
        let stats = &mut self.records[at].stats;
        match again {
            false => stats.misses += 1,
            true => stats.waits += 1,
        }
    }

    /// Sets the counters of a database's tenants with a record in `range` back to zero.
    pub fn reset_stats(&mut self, range: Range<usize>, database: u32) {
        let end = range.end.min(self.records.len());
        let records = self.records.get_mut(range.start..end).unwrap_or_default();
        for record in records.iter_mut().filter(|record| record.database == database) {
            self.counters.keep(&record.stats.totals());
            record.stats.reset();
        }
    }

    /// What the tenants with a record in `range` cost.
    pub fn totals(&self, range: Range<usize>) -> Totals {
        let records = self.records.get(range.start..range.end.min(self.records.len()));
        let mut totals = Totals::default();
        let costs = records.unwrap_or_default().iter().map(|record| record.stats.totals());
        costs.for_each(|cost| totals.add(&cost));
        totals
    }

    /// What there is to warn of a tenant's key, as the monitor last saw.
    pub fn put_warnings(&mut self, subject: &Subject, warnings: Warnings) {
        let record = self.place_of(&subject.id).map(|at| &mut self.records[at]);
        if let Some(record) = record.filter(|record| record.is_of(subject)) {
            record.warnings = warnings;
        }
    }

    /// The records in `range` of a database's tenants with changes that were not made known yet.
    pub fn unannounced(&self, range: Range<usize>, database: u32) -> Vec<Record> {
        let records = self.records.get(range.start..range.end.min(self.records.len()));
        let changed = |record: &&Record| {
            record.database == database && record.history.changes != record.history.announced
        };
        records.unwrap_or_default().iter().filter(changed).copied().collect()
    }

    /// The changes up to those that `record` has were made known.
    pub fn announced(&mut self, record: &Record) {
        if let Some(at) = self.place_of(&record.id)
            && self.records[at].generation == record.generation
        {
            self.records[at].history.announced = record.history.changes;
        }
    }

    /// When the oldest shared data key of each tenant with a record in `range` was unwrapped, if
    /// one was used since.
    pub fn in_use(&self, range: Range<usize>) -> Vec<(TenantId, Instant)> {
        data_keys::in_use(self.slots, self.records, range)
    }

    /// Zeroes data keys in `range` of the table that were unwrapped at `oldest` or before. Returns
    /// when the oldest one left there was unwrapped.
    pub fn expire(&mut self, range: Range<usize>, oldest: Instant) -> Option<Instant> {
        self.data_keys().expire(range, oldest)
    }

    /// Zeroes every data key, whatever state the tables are in.
    pub fn clear_data_keys(&mut self) {
        self.data_keys().clear_everything();
    }
}
