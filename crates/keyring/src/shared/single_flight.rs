//! Take, wait, ask or refuse: what a process that lacks a data key does. Of many, one asks KMS.

use super::call::{AwaitedCall, CallPermit};
use super::identity::{Fingerprint, Subject};
use super::now::{Now, Rules};
use super::table::SharedKeyring;
use super::tag::Tag;
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, Instant, KeyState, Reason};

/// How long to go without asking again whether a spent budget allows a call: 100 ms.
const BUDGET_PAUSE: u64 = 100_000_000;

/// What to do about a data key that a process doesn't have.
pub enum Step {
    /// It is here.
    Take(SharedDataKey),
    /// Not before that time: a failure is remembered, or the budget is spent.
    Refuse(Error, Instant),
    /// Somebody else is asking KMS; look again when that is over.
    Wait(AwaitedCall),
    /// Ask KMS, then say how it went.
    Ask(CallPermit),
}

/// A data key that another process unwrapped.
pub struct SharedDataKey {
    /// The plain data key.
    pub dek: SecretKey,
    /// When the unwrap began.
    pub unwrapped_at: Instant,
    /// Of the record that it was taken from.
    pub tag: Tag,
}

impl SharedKeyring<'_> {
    /// What to do about a data key that the caller lacks.
    pub fn begin(
        &mut self,
        subject: &Subject,
        fingerprint: &Fingerprint,
        pid: u32,
        now: Now,
        rules: &Rules,
    ) -> Step {
        let at = self.record_of(subject, now.instant);
        let live = now.instant.saturating_sub(rules.ttl);
        if let Some(taken) = self.take(at, fingerprint, live, now.instant, rules) {
            return Step::Take(taken);
        }
        if let Some((error, until)) = self.records[at].remembered_failure(now.instant) {
            return Step::Refuse(error, until);
        }
        self.ask_or_wait(at, pid, now, rules)
    }

    /// Whether to ask KMS for the sake of the tenant's key alone. `None`: not now.
    pub fn begin_check(
        &mut self,
        subject: &Subject,
        pid: u32,
        now: Now,
        rules: &Rules,
    ) -> Option<CallPermit> {
        let at = self.record_of(subject, now.instant);
        match self.records[at].may_refresh(now.instant) {
            true => self.begin_within_budget(at, pid, now.instant, rules),
            false => None,
        }
    }

    /// Whether KMS may be asked to make a data key. As [`begin`](Self::begin), but there is nothing
    /// to take, and a refusal is no reason not to ask: an administrator wants to know whether it
    /// still stands.
    pub fn begin_call(&mut self, subject: &Subject, pid: u32, now: Now, rules: &Rules) -> Step {
        let at = self.record_of(subject, now.instant);
        let remembered = self.records[at].remembered_failure(now.instant);
        let outage =
            |(error, _): &(Error, Instant)| error.reason.key_state() != Some(KeyState::Revoked);
        match remembered.filter(outage) {
            Some((error, until)) => Step::Refuse(error, until),
            None => self.ask_or_wait(at, pid, now, rules),
        }
    }

    /// Takes a call of another key than the tenant's out of the tenant's budget. Whatever is
    /// remembered of the tenant's own key is no reason not to ask the other one. False if the
    /// budget is spent.
    pub fn spend_call(&mut self, subject: &Subject, now: Now, rules: &Rules) -> bool {
        let at = self.record_of(subject, now.instant);
        let record = &mut self.records[at];
        let affordable = record.budget.spend(now.instant, rules.budget);
        if !affordable {
            record.stats.refused += 1;
        }
        affordable
    }

    fn ask_or_wait(&mut self, at: usize, pid: u32, now: Now, rules: &Rules) -> Step {
        let record = &mut self.records[at];
        // Without shared slots the other process's result would not reach us, so ask KMS ourselves.
        // If what it meets is likely to be its own business, such as its credentials, each tries
        // for itself too.
        let shares = self.shares_data_keys && !record.concerned_one_process();
        if shares && record.call.in_progress(now.instant) && record.call.pid != pid {
            record.call.awaited = true;
            return Step::Wait(AwaitedCall { record: at, number: record.call.number });
        }
        match self.begin_within_budget(at, pid, now.instant, rules) {
            Some(permit) => Step::Ask(permit),
            None => Step::Refuse(Reason::CallBudgetSpent.into(), now.instant + BUDGET_PAUSE),
        }
    }

    /// The shared data key, if it was unwrapped after `newer_than`.
    pub(super) fn take(
        &mut self,
        at: usize,
        fingerprint: &Fingerprint,
        newer_than: Instant,
        now: Instant,
        rules: &Rules,
    ) -> Option<SharedDataKey> {
        let newer_than = newer_than.max(self.records[at].not_before());
        let (dek, unwrapped_at) = self.data_keys().take(fingerprint, newer_than, now)?;
        let record = &mut self.records[at];
        record.used_at = now;
        record.copy_lives(unwrapped_at.saturating_add(rules.ttl), Some(unwrapped_at));
        Some(SharedDataKey { dek, unwrapped_at, tag: Tag::new(at, record.generation) })
    }

    /// `None` if the tenant's call budget is spent.
    pub(super) fn begin_within_budget(
        &mut self,
        at: usize,
        pid: u32,
        now: Instant,
        rules: &Rules,
    ) -> Option<CallPermit> {
        let record = &mut self.records[at];
        if !record.budget.spend(now, rules.budget) {
            record.stats.refused += 1;
            return None;
        }
        let tag = Tag::new(at, record.generation);
        let until = now.saturating_add(rules.call_timeout);
        Some(record.call.begin(tag, self.counters.next_call(), pid, until))
    }

    /// The process that is still to end a call.
    pub fn caller_of(&self, awaited: AwaitedCall, now: Instant) -> Option<u32> {
        let call = &self.records.get(awaited.record)?.call;
        (call.number == awaited.number && call.in_progress(now)).then_some(call.pid)
    }
}
