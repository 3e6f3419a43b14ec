//! What is known of one tenant's key: its state, how long not to ask again, and what it cost so far.

use super::flight;
use super::histogram::Histogram;
use super::{Now, Subject, TenantId, Words};
use cmk_error::{Error, Instant, KeyState, Reason};
use std::sync::atomic::Ordering::Relaxed;

/// Failures in a row after which the circuit breaker begins to stretch the pauses between calls.
const BREAKER_AFTER: u32 = 3;
/// Most doublings of a pause: eight times the failure TTL.
const BREAKER_DOUBLINGS: u32 = 3;
const MINUTE: u64 = 60_000_000_000;
const INFO_MAX: usize = 158;
/// Changes that a record remembers.
const HISTORY: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Record {
    pub id: TenantId,
    pub database: u32,
    /// Counts the tenants that this record was used for.
    pub generation: u16,
    pub(super) custody: u64,
    epoch: u64,
    pub(super) last_used: Instant,
    pub(super) flight: flight::Slot,

    /// Once KMS has said anything at all.
    known: bool,
    note: Note,
    /// Since when the key is in this state: microseconds since the Unix epoch.
    since: i64,
    /// Until when KMS is not asked again.
    until: Instant,
    /// Failures in a row.
    streak: u32,
    /// When the key was last found revoked: what was unwrapped before is not to be used.
    pub revoked_at: Instant,
    /// When an eviction was asked for that had to wait for others.
    pub(super) evicted_at: Instant,
    /// When the last copy of a data key in any process is erased.
    pub copies_until: Instant,
    /// Before this there may be copies from a time when the tenant had another record.
    pub holders_known_from: Instant,
    /// Before this, no data key is fetched ahead of need.
    pub refresh_after: Instant,
    /// The budget: a token bucket as the time at which it is full again (the generic cell rate algorithm,
    /// ITU-T I.371).
    full_at: Instant,
    /// Changes of state so far, and how many of them were made known by the monitor.
    pub changes: u64,
    pub announced: u64,
    /// The last of them; number n at n modulo the length.
    history: [Passage; HISTORY],
    /// When a value was last sealed or opened, as far as processes have told.
    pub used_at: Instant,
    pub stats: Stats,
}

/// A change of state, in plain memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Passage {
    /// Microseconds since the Unix epoch.
    at: i64,
    /// Places in [`KeyState::NAMES`], from 1; 0: unknown.
    from: u8,
    to: u8,
    /// Place in [`Reason::ALL`], from 1; 0: none.
    reason: u8,
}

/// An [`Error`] in plain memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Note {
    /// Its place in [`Reason::ALL`], from 1; 0: none.
    reason: u8,
    info_len: u8,
    info: [u8; INFO_MAX],
}

/// Counters since the server started or `cmk.reset_stats()`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Stats {
    /// Values sealed or opened under a data key that was at hand.
    pub hits: u64,
    /// Times a process had to look beyond its own cache.
    pub misses: u64,
    pub kms_calls: u64,
    pub kms_failures: u64,
    /// Times a process waited for another one's KMS call.
    pub waits: u64,
    /// Calls that the budget forbade.
    pub refused: u64,
    /// Microseconds since the Unix epoch; 0: never.
    pub last_success: i64,
    pub last_failure: i64,
    pub latency: Histogram,
}

/// The state of a tenant's key as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `None`: usable.
    pub error: Option<Error>,
    /// Microseconds since the Unix epoch.
    pub since: i64,
}

/// A change of state that is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    pub change: Change,
    pub reason: Option<Reason>,
}

/// A change of state: from one to another, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: Option<&'static str>,
    pub to: Option<&'static str>,
    /// Still revoked, but otherwise: a key that was disabled is to be deleted.
    pub other_reason: bool,
}

impl Change {
    pub const NONE: Self = Self { from: None, to: None, other_reason: false };

    /// The first sight of a key that works is no news.
    pub fn is_news(&self) -> bool {
        let first_and_usable = self.from.is_none() && self.to == Some(KeyState::USABLE);
        self.other_reason || self.from != self.to && !first_and_usable
    }
}

impl Default for Note {
    fn default() -> Self {
        Self { reason: 0, info_len: 0, info: [0; INFO_MAX] }
    }
}

impl Note {
    fn of(error: &Error) -> Self {
        let reason = Reason::ALL.iter().position(|reason| *reason == error.reason);
        // Identifiers, all ASCII; one that doesn't fit is left out.
        let text = error.info().filter(|info| info.len() <= INFO_MAX).unwrap_or_default();
        let mut info = [0; INFO_MAX];
        info[..text.len()].copy_from_slice(text.as_bytes());
        Self { reason: reason.map_or(0, |at| at as u8 + 1), info_len: text.len() as u8, info }
    }

    fn error(&self) -> Option<Error> {
        let reason = reason_at(self.reason)?;
        let info = self.info.get(..usize::from(self.info_len)).unwrap_or_default();
        Some(match std::str::from_utf8(info) {
            Ok(info) if !info.is_empty() => Error::new(reason).with_info(info),
            _ => Error::new(reason),
        })
    }

    fn state(&self) -> &'static str {
        let state = reason_at(self.reason).and_then(Reason::key_state);
        state.map_or(KeyState::USABLE, KeyState::name)
    }
}

impl Stats {
    pub(super) fn called(&mut self, now: Now, began: Instant, succeeded: bool) {
        self.kms_calls += 1;
        self.latency.add(now.instant.saturating_sub(began));
        if succeeded {
            self.last_success = now.wall;
        } else {
            self.kms_failures += 1;
            self.last_failure = now.wall;
        }
    }
}

impl Record {
    pub(super) fn is_of(&self, subject: &Subject) -> bool {
        self.id == subject.id && self.custody == subject.custody
    }

    /// How badly a record is missed if another tenant gets it; then the time of its last use.
    pub(super) fn worth(&self, now: Instant) -> (bool, Instant) {
        let missed = self.is_revoked() && now < self.copies_until.max(self.until);
        (missed || self.flight.is_up(now), self.last_used)
    }

    /// What was unwrapped until then is not to be used.
    pub(super) fn not_before(&self) -> Instant {
        self.revoked_at.max(self.evicted_at)
    }

    /// True if the last failure was that of a process alone.
    pub(super) fn concerned_one_process(&self) -> bool {
        self.note.error().is_some_and(|error| error.concerns_one_process())
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.note.state() == KeyState::Revoked.name()
    }

    /// True while KMS is being asked for the tenant.
    pub fn is_flying(&self, now: Instant) -> bool {
        self.flight.is_up(now)
    }

    /// Gives the record to another tenant. What others must not miss of the old one goes into `words`, and holds
    /// for the new one, of which it may have been.
    pub(super) fn recycle(&mut self, subject: &Subject, words: &Words) {
        if self.id != TenantId::default() {
            words.recycled.fetch_add(1, Relaxed);
        }
        words.forgotten_revoked_at.fetch_max(self.not_before(), Relaxed);
        words.forgotten_copies_until.fetch_max(self.copies_until, Relaxed);
        let copies_until = words.forgotten_copies_until.load(Relaxed);
        let generation = self.generation.wrapping_add(1);
        *self = Self {
            id: subject.id,
            database: subject.database,
            custody: subject.custody,
            epoch: subject.epoch,
            generation,
            revoked_at: words.forgotten_revoked_at.load(Relaxed),
            copies_until,
            holders_known_from: copies_until,
            ..Self::default()
        };
    }

    /// Takes in what the registry says now. Another custody is another key, of which nothing is known; an
    /// eviction means to ask KMS again at once. True if there was one.
    pub(super) fn follow(&mut self, subject: &Subject, now: Instant) -> bool {
        let evicted = self.epoch != subject.epoch;
        self.last_used = now;
        if self.custody != subject.custody {
            *self = Self {
                id: self.id,
                database: self.database,
                custody: subject.custody,
                epoch: subject.epoch,
                generation: self.generation,
                last_used: now,
                copies_until: self.copies_until,
                holders_known_from: self.holders_known_from,
                evicted_at: self.evicted_at,
                changes: self.changes,
                announced: self.announced,
                history: self.history,
                used_at: self.used_at,
                stats: self.stats,
                ..Self::default()
            };
        } else if evicted {
            self.epoch = subject.epoch;
            (self.until, self.refresh_after, self.streak) = (0, 0, 0);
        }
        evicted
    }

    /// The key's state; `None` before KMS was first asked.
    pub fn seen(&self) -> Option<Seen> {
        self.known.then(|| Seen { error: self.note.error(), since: self.since })
    }

    /// The changes that were not made known yet, oldest first; of many, the last ones.
    pub fn unannounced(&self) -> impl Iterator<Item = Past> + '_ {
        let first = self.announced.max(self.changes.saturating_sub(HISTORY as u64));
        (first..self.changes).map(|number| {
            let passage = self.history[number as usize % HISTORY];
            let (from, to) = (passage.from, passage.to);
            let state = |place| at_place(&KeyState::NAMES, place);
            Past {
                at: passage.at,
                change: Change { from: state(from), to: state(to), other_reason: from == to },
                reason: reason_at(passage.reason),
            }
        })
    }

    /// The failure that forbids asking KMS now, and until when.
    pub(super) fn remembered(&self, now: Instant) -> Option<(Error, Instant)> {
        self.note.error().filter(|_| now < self.until).map(|error| (error, self.until))
    }

    /// True if KMS may be asked ahead of need.
    pub(super) fn may_refresh(&self, now: Instant) -> bool {
        now >= self.until && now >= self.refresh_after && !self.flight.is_up(now)
    }

    pub(super) fn succeeded(&mut self, now: Now) -> Change {
        self.until = 0;
        self.streak = 0;
        self.refresh_after = 0;
        self.enter(Note::default(), now)
    }

    pub(super) fn failed(
        &mut self,
        error: &Error,
        state: KeyState,
        now: Now,
        failure_ttl: u64,
    ) -> Change {
        self.streak = self.streak.saturating_add(1);
        // A revoked key that is enabled again should work soon; an outage gains nothing by being asked.
        let doublings = match state {
            KeyState::Revoked => 0,
            _ => (self.streak.saturating_sub(BREAKER_AFTER)).min(BREAKER_DOUBLINGS),
        };
        self.until = now.instant.saturating_add(jittered(failure_ttl << doublings));
        self.enter(Note::of(error), now)
    }

    /// A process failed for reasons of its own: shown, but nobody else is refused for it, and a revocation stays one.
    pub(super) fn failed_for_one(&mut self, error: &Error, now: Now) -> Change {
        if self.is_revoked() {
            return Change::NONE;
        }
        self.until = 0;
        self.enter(Note::of(error), now)
    }

    fn enter(&mut self, note: Note, now: Now) -> Change {
        let from = self.known.then(|| self.note.state());
        let to = Some(note.state());
        let other_reason =
            from == to && to == Some(KeyState::Revoked.name()) && note.reason != self.note.reason;
        let change = Change { from, to, other_reason };
        // Another reason for the same state keeps `since`.
        if from != to {
            self.since = now.wall;
        }
        if from != to || other_reason {
            let place =
                |state: Option<&str>| state.and_then(KeyState::number).map_or(0, |at| at + 1);
            self.history[self.changes as usize % HISTORY] = Passage {
                at: now.wall,
                from: place(change.from),
                to: place(change.to),
                reason: note.reason,
            };
            self.changes += 1;
        }
        self.known = true;
        self.note = note;
        change
    }

    /// Takes one call out of the tenant's budget of `per_minute`, all of which may be spent at once.
    pub(super) fn spend(&mut self, now: Instant, per_minute: u32) -> bool {
        let Some(cost) = MINUTE.checked_div(per_minute.into()) else { return true };
        let full_at = self.full_at.max(now).saturating_add(cost);
        let affordable = full_at - now <= MINUTE;
        if affordable {
            self.full_at = full_at;
        }
        affordable
    }

    /// Counters only: when KMS last answered is no count.
    pub fn reset_stats(&mut self) {
        let Stats { last_success, last_failure, .. } = self.stats;
        self.stats = Stats { last_success, last_failure, ..Stats::default() };
    }
}

/// What stands at a place of a table, counted from 1.
fn at_place<T: Copy>(table: &[T], place: u8) -> Option<T> {
    table.get(usize::from(place).checked_sub(1)?).copied()
}

fn reason_at(place: u8) -> Option<Reason> {
    at_place(Reason::ALL, place)
}

/// `nanos` ± 25 %, so that many processes don't come back at once.
pub fn jittered(nanos: u64) -> u64 {
    let random = u128::from(getrandom::u32().unwrap_or(u32::MAX / 2));
    nanos - nanos / 4 + ((u128::from(nanos / 2) * random) >> 32) as u64
}
