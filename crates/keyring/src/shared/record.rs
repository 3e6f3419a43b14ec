//! What is known of one tenant's key: its state, how long not to ask again, and what it cost so
//! far.

use super::budget::Budget;
use super::call::CallSlot;
use super::circuit_breaker::CircuitBreaker;
use super::counters::SharedCounters;
use super::history::{Change, EncodedError, History, PastChange};
use super::identity::{Subject, TenantId};
use super::now::Now;
use super::renewal_state::Renewals;
use super::stats::Stats;
use super::telling::Telling;
use super::uses::Sealed;
use cmk_error::{Error, Instant, KeyState};
use std::sync::atomic::Ordering::Relaxed;

/// Plain memory, valid when it is all zero: of nobody.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Record {
    /// Of which tenant it is.
    pub id: TenantId,
    /// PostgreSQL's object id of the tenant's database.
    pub database: u32,
    /// Counts the tenants that this record was used for.
    pub generation: u16,
    pub(super) customer_key: u64,
    epoch: u64,
    last_used: Instant,
    pub(super) call: CallSlot,
    /// The first of the tenant's data keys: its place, from 1; 0: none.
    pub(super) first_data_key: u32,

    /// KMS was asked.
    was_asked: bool,
    /// What there is to warn of.
    pub warnings: Warnings,
    last_error: EncodedError,
    /// Since when the key is in this state: microseconds since the Unix epoch.
    since: i64,
    breaker: CircuitBreaker,
    /// When the key was last found revoked: a data key that was unwrapped by then must not be used.
    pub(super) revoked_at: Instant,
    /// When an eviction was asked for that had to wait for others.
    pub(super) evicted_at: Instant,
    /// When the last copy of a data key in any process is erased.
    pub copies_until: Instant,
    /// When the unwrap of the last of them began, or later.
    unwrapped_at: Instant,
    /// Before this there may be copies from a time when the tenant had another record.
    pub holders_known_from: Instant,
    /// Before this, no data key is fetched ahead of need.
    pub(super) refresh_after: Instant,
    /// How data keys are renewed ahead of need.
    pub renewals: Renewals,
    pub(super) budget: Budget,
    /// Changes of the key's state that were told.
    pub history: History,
    telling: Telling,
    /// When a value was last sealed or opened, as far as processes have flushed their hits.
    pub used_at: Instant,
    /// What the key cost so far.
    pub stats: Stats,
    /// What was sealed since that was last written down.
    pub(super) sealed: Sealed,
}

/// What the monitor last saw to warn of. All zero: it could not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Warnings(u8);

/// What will make a key unusable, or is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Warning {
    /// The owner scheduled the key's deletion.
    DeletionScheduled = 1,
    /// Imported key material expires soon.
    KeyMaterialExpires = 2,
    /// The service does not rotate the key by itself.
    RotationOff = 4,
}

impl Warning {
    /// In the order in which they are shown.
    pub const ALL: [Self; 3] =
        [Self::DeletionScheduled, Self::KeyMaterialExpires, Self::RotationOff];

    /// As in `cmk.key_event`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeletionScheduled => "deletion_scheduled",
            Self::KeyMaterialExpires => "key_material_expires",
            Self::RotationOff => "rotation_off",
        }
    }
}

impl Warnings {
    const SEEN: u8 = 128;
    /// The owner of the key shows nothing to warn of.
    pub const HIDDEN: Self = Self(0);

    /// What was seen.
    pub fn seen(warnings: impl IntoIterator<Item = Warning>) -> Self {
        Self(warnings.into_iter().fold(Self::SEEN, |all, warning| all | warning as u8))
    }

    /// `None` if they can't be seen.
    pub fn all(self) -> Option<impl Iterator<Item = Warning>> {
        let given = move |warning: &Warning| self.0 & *warning as u8 != 0;
        (self.0 & Self::SEEN != 0).then(|| Warning::ALL.into_iter().filter(given))
    }
}

/// The state of a tenant's key as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastState {
    /// `None`: usable.
    pub error: Option<Error>,
    /// Microseconds since the Unix epoch.
    pub since: i64,
}

impl LastState {
    /// What its error says.
    pub fn key_state(&self) -> KeyState {
        self.error.as_ref().and_then(|error| error.reason.key_state()).unwrap_or(KeyState::Usable)
    }
}

impl Record {
    /// Whether it is of this tenant with the key that it has now. What is known of another key
    /// says nothing of this one.
    pub fn is_of(&self, subject: &Subject) -> bool {
        self.id == subject.id && self.customer_key == subject.customer_key
    }

    /// Of whom it is, with the key that it is about.
    pub(super) fn subject(&self) -> Subject {
        let Self { id, database, customer_key, epoch, .. } = *self;
        Subject { id, database, customer_key, epoch }
    }

    /// Whether KMS was asked about this key.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// The lowest is recycled first: a revoked key whose copies may live, or a running call, last;
    /// among the others the least recently used first.
    pub(super) fn eviction_priority(&self, now: Instant) -> (bool, Instant) {
        let missed = self.is_revoked() && now < self.copies_until.max(self.breaker.closes_at());
        (missed || self.call.in_progress(now), self.last_used)
    }

    /// Somebody has a copy of a data key until then. When its unwrap began may not be known.
    pub(super) fn copy_lives(&mut self, until: Instant, unwrapped_at: Option<Instant>) {
        self.copies_until = self.copies_until.max(until);
        self.unwrapped_at = self.unwrapped_at.max(unwrapped_at.unwrap_or(until));
    }

    /// Until when a copy of a data key is used by statements that begin now: the TTL may have been
    /// lowered since it was made.
    pub fn warm_until(&self, ttl: u64) -> Instant {
        self.copies_until.min(self.unwrapped_at.saturating_add(ttl))
    }

    /// A data key of this tenant that was unwrapped at or before this time must not be used.
    pub(super) fn not_before(&self) -> Instant {
        self.revoked_at.max(self.evicted_at)
    }

    /// True if the last failure was that of a process alone.
    pub(super) fn concerned_one_process(&self) -> bool {
        self.last_error.error().is_some_and(|error| error.concerns_one_process())
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.last_error.state() == KeyState::Revoked
    }

    /// True while KMS is being asked for the tenant.
    pub fn is_being_asked(&self, now: Instant) -> bool {
        self.call.in_progress(now)
    }

    /// Gives the record to another tenant. What others must not miss of the old one goes into
    /// `counters`, and holds for the new one, of which it may have been.
    pub(super) fn recycle(&mut self, subject: &Subject, counters: &SharedCounters) {
        if self.id != TenantId::default() {
            counters.recycled.fetch_add(1, Relaxed);
        }
        counters.keep(&self.stats.totals());
        counters.remember_revocation(self.not_before());
        counters.remember_copy(self.copies_until);
        let copies_until = counters.forgotten_copies_until();
        *self = Self {
            id: subject.id,
            database: subject.database,
            customer_key: subject.customer_key,
            epoch: subject.epoch,
            generation: self.generation.wrapping_add(1),
            revoked_at: counters.forgotten_revoked_at(),
            copies_until,
            unwrapped_at: copies_until,
            holders_known_from: copies_until,
            ..Self::default()
        };
    }

    /// Takes in what the registry says now. Another customer key is one of which nothing is known;
    /// an eviction means to ask KMS again at once. True if there was either: then data keys of
    /// before go.
    pub(super) fn adopt(&mut self, subject: &Subject, now: Instant) -> bool {
        self.last_used = now;
        let (is_same_key, is_same_epoch) =
            (self.customer_key == subject.customer_key, self.epoch == subject.epoch);
        if !is_same_key {
            *self = Self {
                id: self.id,
                database: self.database,
                customer_key: subject.customer_key,
                epoch: subject.epoch,
                generation: self.generation,
                last_used: now,
                first_data_key: self.first_data_key,
                copies_until: self.copies_until,
                unwrapped_at: self.unwrapped_at,
                holders_known_from: self.holders_known_from,
                // What was unwrapped under the old key before it was revoked stays unusable.
                revoked_at: self.revoked_at,
                evicted_at: self.evicted_at,
                history: self.history,
                telling: self.telling.for_another_key(),
                used_at: self.used_at,
                stats: self.stats,
                ..Self::default()
            };
        } else if !is_same_epoch {
            self.epoch = subject.epoch;
            // It may be another tenant of that name, whose data keys count from 1 again.
            self.sealed = Sealed::default();
            (self.breaker, self.refresh_after) = (CircuitBreaker::default(), 0);
        }
        !(is_same_key && is_same_epoch)
    }

    /// The key's state; `None` before KMS was first asked.
    pub fn last_state(&self) -> Option<LastState> {
        self.was_asked.then(|| LastState { error: self.last_error.error(), since: self.since })
    }

    /// The failure that forbids asking KMS now, and until when.
    pub(super) fn remembered_failure(&self, now: Instant) -> Option<(Error, Instant)> {
        if !self.breaker.is_open(now) {
            return None;
        }
        self.last_error.error().map(|error| (error, self.breaker.closes_at()))
    }

    /// True if KMS may be asked ahead of need.
    pub(super) fn may_refresh(&self, now: Instant) -> bool {
        !self.breaker.is_open(now) && now >= self.refresh_after && !self.call.in_progress(now)
    }

    pub(super) fn succeeded(&mut self, now: Now) -> Entered {
        (self.breaker, self.refresh_after) = (CircuitBreaker::default(), 0);
        self.enter(EncodedError::default(), now)
    }

    pub(super) fn failed(&mut self, error: &Error, now: Now, failure_ttl: u64) -> Change {
        // A revoked key that is enabled again should work soon; an outage gains nothing by being
        // asked.
        let stretches = error.reason.key_state() != Some(KeyState::Revoked);
        self.breaker.failed(now.instant, failure_ttl, stretches);
        self.enter(EncodedError::of(error), now).told
    }

    /// A process failed for reasons of its own: shown, but nobody else is refused for it, and a
    /// revocation stays one.
    pub(super) fn failed_for_one(&mut self, error: &Error, now: Now) -> Change {
        if self.is_revoked() {
            return Change::NONE;
        }
        self.breaker.close();
        self.enter(EncodedError::of(error), now).told
    }

    fn enter(&mut self, error: EncodedError, now: Now) -> Entered {
        let from = self.was_asked.then(|| self.last_error.state());
        // Another reason for the same state keeps `since`.
        if from != Some(error.state()) {
            self.since = now.wall;
        }
        self.was_asked = true;
        self.last_error = error;
        let told = self.telling.tell(error.reason(), now.instant);
        if told != Change::NONE {
            self.history.add(&PastChange { at: now.wall, change: told, reason: error.reason() });
        }
        let is_usable = error.state() == KeyState::Usable;
        Entered { told, is_recovery: is_usable && from.is_some_and(|it| it != KeyState::Usable) }
    }
}

/// A key's state was learned.
pub(super) struct Entered {
    /// What there is to tell of it.
    pub told: Change,
    /// The key failed, and works again.
    pub is_recovery: bool,
}
