//! How a KMS call ended, and what follows for everybody.

use super::call::{AwaitedCall, CallPermit, CallSlot};
use super::data_keys::NewDataKey;
use super::history::Change;
use super::identity::{Fingerprint, Subject};
use super::now::{Now, Rules};
use super::record::{Entered, LastState};
use super::table::SharedKeyring;
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, Instant, KeyState};

/// The end of a KMS call.
#[derive(Clone, Copy)]
pub struct EndedCall<'a> {
    /// What allowed it.
    pub permit: &'a CallPermit,
    /// On whose behalf it was made.
    pub subject: &'a Subject,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub now: Now,
    /// The rules of the process that made it.
    pub rules: &'a Rules,
}

/// What the end of a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The key works: use what came back.
    Usable(Change),
    /// The key was found revoked, by this call or after it began: what came back is not to be used.
    Revoked(Error, Change),
    /// KMS fails, throttles or takes us for somebody else: cached data keys go on.
    Failing(Change),
    /// It was superseded by another call, or the tenant was evicted meanwhile: ask again.
    Superseded,
    /// It says nothing about the key: it concerns one data key, or the record is another tenant's
    /// now.
    Unrelated,
}

impl SharedKeyring<'_> {
    /// KMS did what it was asked. With a data key that was unwrapped, it is kept if it is `needed`
    /// or became so meanwhile; without one, only the tenant's key was of interest.
    pub fn succeeded(
        &mut self,
        ended: &EndedCall<'_>,
        unwrapped: Option<(&Fingerprint, &SecretKey)>,
        needed: bool,
    ) -> Outcome {
        let EndedCall { permit, subject, began, now, rules } = *ended;
        let copies_until = began.saturating_add(rules.ttl);
        let Some(at) = self.still_of(permit, subject) else {
            // Given to another tenant meanwhile, or about another key.
            self.remember_copy(subject, copies_until);
            return match self.counters.forgotten_revoked_at() < began {
                true => Outcome::Usable(Change::NONE),
                false => Outcome::Superseded,
            };
        };
        let record = &mut self.records[at];
        let needed = needed || record.call.awaited;
        record.call.end(permit);
        record.stats.count_call(began, now.instant, now.wall, true);
        record.renewals.latency.measured(now.instant.saturating_sub(began));
        record.renewals.ended(began, true);
        if record.evicted_at >= began {
            return Outcome::Superseded;
        }
        if record.revoked_at >= began {
            match record.last_state() {
                // A later call succeeded since.
                Some(LastState { error: None, .. }) => {}
                Some(LastState { error: Some(error), .. }) => {
                    return Outcome::Revoked(error, Change::NONE);
                }
                None => return Outcome::Superseded,
            }
        }
        if let Some((fingerprint, dek)) = unwrapped {
            record.copy_lives(copies_until, Some(began));
            let oldest = now.instant.saturating_sub(rules.ttl);
            let mut data_keys = self.data_keys();
            if needed {
                let new = NewDataKey { fingerprint, dek, unwrapped_at: began };
                data_keys.put(at, &new, now.instant);
            }
            data_keys.renew(at, began, oldest);
        }
        let Entered { told, is_recovery } = self.records[at].succeeded(now);
        if is_recovery {
            // Processes remember the failure; what they remember ends now.
            self.counters.notify(&subject.id);
        }
        Outcome::Usable(told)
    }

    /// KMS refused, or didn't answer.
    pub fn failed(&mut self, ended: &EndedCall<'_>, error: &Error) -> Outcome {
        let EndedCall { permit, subject, began, now, rules } = *ended;
        let state = error.reason.key_state();
        if state == Some(KeyState::Revoked) {
            self.revoke(subject, now.instant);
        }
        let Some(at) = self.still_of(permit, subject) else {
            return match state {
                Some(KeyState::Revoked) => Outcome::Revoked(error.clone(), Change::NONE),
                _ => Outcome::Unrelated,
            };
        };
        let record = &mut self.records[at];
        let is_last = record.call.end(permit);
        record.stats.count_call(began, now.instant, now.wall, false);
        record.renewals.ended(began, false);
        match state {
            None => Outcome::Unrelated,
            Some(KeyState::Revoked) => {
                Outcome::Revoked(error.clone(), record.failed(error, now, rules.failure_ttl))
            }
            Some(_) if error.concerns_one_process() => match is_last {
                true => Outcome::Failing(record.failed_for_one(error, now)),
                false => Outcome::Unrelated,
            },
            // A call that began later knows better.
            Some(_) if !is_last => Outcome::Superseded,
            Some(_) => Outcome::Failing(record.failed(error, now, rules.failure_ttl)),
        }
    }

    /// The call ended without an outcome: it was cancelled, or it took longer than its query would
    /// wait. Nobody fetches ahead of need before `refresh_after`.
    pub fn abandon(&mut self, permit: &CallPermit, refresh_after: Instant) {
        if let Some(record) = permit.tag.record().and_then(|at| self.records.get_mut(at))
            && record.call.end(permit)
        {
            record.stats.kms_calls += 1;
            record.refresh_after = record.refresh_after.max(refresh_after);
        }
    }

    /// The process that makes a call died. False if the call is over anyway.
    pub fn abandon_call_of(&mut self, awaited: AwaitedCall, pid: u32) -> bool {
        let call = self.records.get_mut(awaited.record).map(|record| &mut record.call);
        let lost = call.filter(|call| call.number == awaited.number && call.pid == pid);
        lost.map(|call| *call = CallSlot::default()).is_some()
    }

    /// The record in which a call was entered, if it is still about the same key.
    fn still_of(&self, permit: &CallPermit, subject: &Subject) -> Option<usize> {
        let at = permit.tag.record()?;
        self.records.get(at).filter(|record| record.is_of(subject)).map(|_| at)
    }
}
