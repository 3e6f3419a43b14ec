//! What the processes of a server know in common: one [`Record`] a tenant key, and the unwrapped data keys
//! themselves.
//!
//! Everything here is plain memory of fixed size, valid when it is all zero, so that it can lie in
//! PostgreSQL's shared memory. The caller holds a lock for as long as it has a [`Shared`]; nothing in here
//! waits, allocates much or can panic. Where the library isn't preloaded, the same code runs on memory of
//! one process, without room for data keys: everything works, with more KMS calls.

pub mod brake;
pub mod flight;
pub mod histogram;
mod landing;
pub mod record;
mod subject;
pub mod vault;

use brake::Brake;
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, Instant, KeyState, Reason};
use flight::Flight;
use record::Record;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use subject::word;
use vault::Slot;

pub use flight::Tag;
pub use landing::Landing;
pub use subject::{Fingerprint, Subject, TenantId};

/// Places of a table that one entry may take.
const PLACES: usize = 64;

/// How long to go without asking again whether a spent budget allows a call.
const BUDGET_PAUSE: u64 = 100_000_000;

/// The rules that one call goes by; durations in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Hard TTL.
    pub ttl: u64,
    /// How long a failure is remembered, before jitter and before the circuit breaker stretches it.
    pub failure_ttl: u64,
    /// How long a flight may last before another process may take over.
    pub patience: u64,
    /// KMS calls a minute and tenant; 0: no limit.
    pub budget: u32,
}

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    /// For people: microseconds since the Unix epoch.
    pub wall: i64,
}

/// Words shared by all processes that need no lock.
#[derive(Default)]
#[repr(C)]
pub struct Words {
    /// Counts revocations; whoever holds a data key looks at its record when it changes.
    pub revocations: AtomicU64,
    /// Numbers flights.
    flights: AtomicU64,
    /// Of all records that were taken from one tenant and given to another: the last time that a key was found
    /// revoked, and when the last copy of a data key is erased.
    forgotten_revoked_at: AtomicU64,
    pub forgotten_copies_until: AtomicU64,
    /// How many such records there were.
    pub recycled: AtomicU64,
}

/// The memory, under its lock.
pub struct Shared<'a> {
    pub words: &'a Words,
    pub records: &'a mut [Record],
    /// Empty where data keys are not shared.
    pub slots: &'a mut [Slot],
    /// Empty where nothing is shared.
    pub brakes: &'a mut [Brake],
}

/// What to do about a data key that a process doesn't have.
pub enum Step {
    /// It is here.
    Take(Taken),
    /// Not before that time: a failure is remembered, or the budget is spent.
    Refuse(Error, Instant),
    /// Somebody else is asking KMS; look again when that is over.
    Wait(Awaited),
    /// Ask KMS, then say how it went.
    Fetch(Flight),
}

/// A flight of another process: its number, and the record where it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    pub record: usize,
    pub flight: u64,
}

/// A data key that another process unwrapped.
pub struct Taken {
    pub dek: SecretKey,
    pub unwrapped_at: Instant,
    pub tag: Tag,
}

impl Words {
    pub const fn new() -> Self {
        Self {
            revocations: AtomicU64::new(0),
            flights: AtomicU64::new(0),
            forgotten_revoked_at: AtomicU64::new(0),
            forgotten_copies_until: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
        }
    }
}

impl Shared<'_> {
    /// What to do about a data key that the caller lacks.
    pub fn begin(
        &mut self,
        subject: &Subject,
        fingerprint: &Fingerprint,
        process: u32,
        now: Now,
        rules: &Rules,
    ) -> Step {
        let at = self.record_of(subject, now.instant);
        let live = now.instant.saturating_sub(rules.ttl);
        if let Some(taken) = self.take(at, fingerprint, live, now.instant, rules) {
            return Step::Take(taken);
        }
        if let Some((error, until)) = self.records[at].remembered(now.instant) {
            return Step::Refuse(error, until);
        }
        self.ask(at, process, now, rules)
    }

    /// What to do about a data key that the caller has, but wants younger. `None`: nothing now.
    pub fn begin_refresh(
        &mut self,
        subject: &Subject,
        fingerprint: &Fingerprint,
        unwrapped_at: Instant,
        process: u32,
        now: Now,
        rules: &Rules,
    ) -> Option<Step> {
        let at = self.record_of(subject, now.instant);
        if let Some(taken) = self.take(at, fingerprint, unwrapped_at, now.instant, rules) {
            return Some(Step::Take(taken));
        }
        if !self.records[at].may_refresh(now.instant) {
            return None;
        }
        self.launch(at, process, now.instant, rules).map(Step::Fetch)
    }

    /// Whether to ask KMS for the sake of the tenant's key alone. `None`: not now.
    pub fn begin_check(
        &mut self,
        subject: &Subject,
        process: u32,
        now: Now,
        rules: &Rules,
    ) -> Option<Flight> {
        let at = self.record_of(subject, now.instant);
        match self.records[at].may_refresh(now.instant) {
            true => self.launch(at, process, now.instant, rules),
            false => None,
        }
    }

    /// Whether KMS may be asked to make a data key. As [`begin`](Self::begin), but there is nothing to take, and a
    /// refusal is no reason not to ask: an administrator wants to know whether it still stands.
    pub fn begin_call(&mut self, subject: &Subject, process: u32, now: Now, rules: &Rules) -> Step {
        let at = self.record_of(subject, now.instant);
        let remembered = self.records[at].remembered(now.instant);
        let outage =
            |(error, _): &(Error, Instant)| error.reason.key_state() != Some(KeyState::Revoked);
        match remembered.filter(outage) {
            Some((error, until)) => Step::Refuse(error, until),
            None => self.ask(at, process, now, rules),
        }
    }

    fn ask(&mut self, at: usize, process: u32, now: Now, rules: &Rules) -> Step {
        let record = &mut self.records[at];
        // Waiting would be of no use if the other could not share what it gets.
        // Nor if what it meets is likely to be its own business: then each tries for itself.
        let shares = !self.slots.is_empty() && !record.concerned_one_process();
        if shares && record.flight.is_up(now.instant) && record.flight.process != process {
            record.flight.awaited = true;
            return Step::Wait(Awaited { record: at, flight: record.flight.number });
        }
        match self.launch(at, process, now.instant, rules) {
            Some(flight) => Step::Fetch(flight),
            None => Step::Refuse(Reason::CallBudgetSpent.into(), now.instant + BUDGET_PAUSE),
        }
    }

    /// The shared data key, if it was unwrapped after `newer_than`.
    fn take(
        &mut self,
        at: usize,
        fingerprint: &Fingerprint,
        newer_than: Instant,
        now: Instant,
        rules: &Rules,
    ) -> Option<Taken> {
        let record = &mut self.records[at];
        let slot = vault::find(self.slots, fingerprint, newer_than.max(record.not_before()))?;
        slot.last_used = now;
        let dek = SecretKey::from_slice(&slot.dek).ok()?;
        record.used_at = now;
        record.copies_until = record.copies_until.max(slot.unwrapped_at.saturating_add(rules.ttl));
        let tag = Tag::new(at, record.generation);
        Some(Taken { dek, unwrapped_at: slot.unwrapped_at, tag })
    }

    /// `None` if the tenant's call budget is spent.
    fn launch(&mut self, at: usize, process: u32, now: Instant, rules: &Rules) -> Option<Flight> {
        let record = &mut self.records[at];
        if !record.spend(now, rules.budget) {
            record.stats.refused += 1;
            return None;
        }
        let number = self.words.flights.fetch_add(1, Relaxed) + 1;
        let tag = Tag::new(at, record.generation);
        Some(record.flight.take_off(tag, number, process, now.saturating_add(rules.patience)))
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

    /// Hits by the tag that their data keys were taken with.
    pub fn add_hits(&mut self, hits: &[(Tag, u64)], now: Instant) {
        for (tag, count) in hits {
            if let Some(record) = tag.record().and_then(|at| self.records.get_mut(at))
                && record.generation == tag.generation()
            {
                record.stats.hits += count;
                record.used_at = now;
            }
        }
    }

    /// Tenants whose shared data keys were used since they were unwrapped, and when that was.
    pub fn in_use(&mut self) -> Vec<(TenantId, Instant)> {
        let mut ages = vault::ages(self.slots);
        ages.retain(|(id, unwrapped_at)| {
            self.find(id).is_some_and(|(_, record)| record.used_at > *unwrapped_at)
        });
        ages
    }

    /// The record of a tenant, if there is one.
    pub fn find(&mut self, id: &TenantId) -> Option<(Tag, &mut Record)> {
        let at = probe(self.records.len(), &id.0).find(|&at| self.records[at].id == *id)?;
        let record = &mut self.records[at];
        Some((Tag::new(at, record.generation), record))
    }

    /// What a tenant unwrapped until then is not to be used.
    pub fn revoked_at(&mut self, id: &TenantId) -> Instant {
        let forgotten = self.words.forgotten_revoked_at.load(Relaxed);
        self.find(id).map_or(forgotten, |(_, record)| record.not_before())
    }

    /// The process that is still to end a flight.
    pub fn flying(&self, awaited: Awaited, now: Instant) -> Option<u32> {
        let flight = &self.records.get(awaited.record)?.flight;
        (flight.number == awaited.flight && flight.is_up(now)).then_some(flight.process)
    }

    /// The number of the tenant's record, which is made if need be, at the cost of the least recently used.
    pub fn record_of(&mut self, subject: &Subject, now: Instant) -> usize {
        let places = || probe(self.records.len(), &subject.id.0);
        let at = match places().find(|&at| self.records[at].id == subject.id) {
            Some(at) => at,
            None => {
                let worth = |&at: &usize| self.records[at].worth(now);
                let oldest = places().min_by_key(worth).unwrap_or(0);
                self.records[oldest].recycle(subject, self.words);
                oldest
            }
        };
        if self.records[at].follow(subject, now) {
            vault::drop_other_epochs(self.slots, subject);
        }
        at
    }
}

/// Where in a table of `len` places something may lie that is named by a hash: so few that to look at all of
/// them is cheap, so many that a table is nearly full before they are.
fn probe(len: usize, hash: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let first = word(hash) as usize % len.max(1);
    (0..len.min(PLACES)).map(move |i| (first + i) % len)
}

#[cfg(test)]
mod tests;
