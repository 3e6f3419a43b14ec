//! How a KMS call ended, and what follows for everybody.

use super::flight::{self, Flight, Tag};
use super::record::{Change, Record, Seen};
use super::{Fingerprint, Now, Rules, Shared, Subject, TenantId, vault};
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, Instant, KeyState, Result};
use std::sync::atomic::Ordering::Relaxed;

/// The end of a KMS call.
#[derive(Clone, Copy)]
pub struct Landing<'a> {
    pub flight: &'a Flight,
    pub subject: &'a Subject,
    /// When the call began.
    pub began: Instant,
    pub now: Now,
    pub rules: &'a Rules,
}

impl Shared<'_> {
    /// KMS did what it was asked. With a data key that was unwrapped, it is kept if it is `needed` or became so
    /// meanwhile; without one, only the tenant's key was of interest.
    ///
    /// # Errors
    /// If the key was, or may have been, found revoked after the call began, or the tenant was evicted: then what came
    /// back is not to be used. With the reason, or without one where it isn't known that the key is revoked; KMS is to be
    /// asked again.
    pub fn finish(
        &mut self,
        landing: &Landing<'_>,
        unwrapped: Option<(&Fingerprint, &SecretKey)>,
        needed: bool,
    ) -> Result<Change, Option<Error>> {
        let Landing { flight, subject, began, now, rules } = *landing;
        let copies_until = began.saturating_add(rules.ttl);
        let Some(record) = record_of(self.records, flight.tag, subject) else {
            // Given to another tenant meanwhile.
            self.words.forgotten_copies_until.fetch_max(copies_until, Relaxed);
            let forgotten = self.words.forgotten_revoked_at.load(Relaxed);
            return if forgotten < began { Ok(Change::NONE) } else { Err(None) };
        };
        let needed = needed || record.flight.awaited;
        record.flight.land(flight);
        record.stats.called(now, began, true);
        if record.evicted_at >= began {
            return Err(None);
        }
        if record.revoked_at >= began {
            match record.seen() {
                // A later call succeeded since.
                Some(Seen { error: None, .. }) => {}
                seen => return Err(seen.and_then(|seen| seen.error)),
            }
        }
        if let Some((fingerprint, dek)) = unwrapped {
            record.copies_until = record.copies_until.max(copies_until);
            if needed {
                vault::put(self.slots, subject, fingerprint, dek, began, now.instant);
            }
            let oldest = now.instant.saturating_sub(rules.ttl);
            vault::renew(self.slots, subject, began, oldest);
        }
        Ok(record.succeeded(now))
    }

    /// A KMS call failed. What concerns one data key alone says nothing of the tenant's key. `None` if another
    /// call overtook this one, which is old news then, unless the key is revoked.
    pub fn fail(&mut self, landing: &Landing<'_>, error: &Error) -> Option<Change> {
        let Landing { flight, subject, began, now, rules } = *landing;
        let state = error.reason.key_state();
        let revoked = state == Some(KeyState::Revoked);
        if revoked {
            self.note_revocation(subject, now.instant);
        }
        let Some(record) = record_of(self.records, flight.tag, subject) else {
            return Some(Change::NONE);
        };
        let last = record.flight.land(flight);
        record.stats.called(now, began, false);
        match state {
            None => Some(Change::NONE),
            Some(_) if error.concerns_one_process() => {
                Some(if last { record.failed_for_one(error, now) } else { Change::NONE })
            }
            Some(state) if last || revoked => {
                Some(record.failed(error, state, now, rules.failure_ttl))
            }
            Some(_) => None,
        }
    }

    /// The key of a tenant is revoked: what was unwrapped before `now` is not to be used.
    pub fn note_revocation(&mut self, subject: &Subject, now: Instant) {
        vault::drop_tenant(self.slots, &subject.id);
        let known = match self.find(&subject.id) {
            Some((_, record)) => {
                record.revoked_at = now;
                record.is_revoked()
            }
            None => {
                self.words.forgotten_revoked_at.fetch_max(now, Relaxed);
                false
            }
        };
        // While it stays revoked nobody gets a data key that others would have to drop.
        if !known {
            self.words.revocations.fetch_add(1, Relaxed);
        }
    }

    /// What was unwrapped for these tenants before now is not to be used, by anybody: all of a database, or one of it.
    pub fn evict_now(&mut self, database: u32, tenant: Option<&TenantId>, now: Instant) {
        let chosen = |id: &TenantId| tenant.is_none_or(|one| one == id);
        let theirs = |record: &&mut Record| record.database == database && chosen(&record.id);
        for record in self.records.iter_mut().filter(theirs) {
            record.evicted_at = now;
            vault::drop_tenant(self.slots, &record.id);
        }
        // Those without a record, and calls on their way that began from one that was recycled.
        self.words.forgotten_revoked_at.fetch_max(now, Relaxed);
        self.words.revocations.fetch_add(1, Relaxed);
    }

    /// A process that is alone has a copy of a data key until then.
    pub fn note_copy(&mut self, subject: &Subject, until: Instant) {
        match self.find(&subject.id) {
            Some((_, record)) => {
                record.copies_until = record.copies_until.max(until);
                record.holders_known_from = record.holders_known_from.max(until);
            }
            None => {
                self.words.forgotten_copies_until.fetch_max(until, Relaxed);
            }
        }
    }

    /// The flight ended without an outcome: it was cancelled, or it took longer than its query would wait.
    pub fn abandon(&mut self, flight: &Flight, refresh_after: Instant) {
        if let Some(record) = flight.tag.record().and_then(|at| self.records.get_mut(at))
            && record.flight.land(flight)
        {
            record.stats.kms_calls += 1;
            record.refresh_after = record.refresh_after.max(refresh_after);
        }
    }

    /// Ends the flights of a process that goes. Returns the records that somebody may be waiting for.
    pub fn abandon_all(&mut self, process: u32) -> impl Iterator<Item = usize> {
        self.records.iter_mut().enumerate().filter_map(move |(at, record)| {
            let theirs = record.flight.process == process;
            if theirs {
                record.flight = flight::Slot::default();
            }
            theirs.then_some(at)
        })
    }
}

/// The record that a flight took off from, if it is still about the same key.
fn record_of<'a>(records: &'a mut [Record], tag: Tag, subject: &Subject) -> Option<&'a mut Record> {
    records.get_mut(tag.record()?).filter(|record| record.is_of(subject))
}
