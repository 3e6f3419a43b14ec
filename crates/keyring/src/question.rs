//! The one door to KMS: every call goes through it, and what came of it is told to all processes.

use crate::process::Process;
use crate::shared::call::CallPermit;
use crate::shared::history::Change;
use crate::shared::identity::Subject;
use crate::shared::outcome::{EndedCall, Outcome};
use crate::shared::renewal::Patience;
use crate::shared::table::SharedKeyring;
use crate::tenant::Tenant;
use cmk_error::{Error, Instant, KeyState, Reason, Result};

/// A call that failed.
pub(crate) struct Failed {
    pub error: Error,
    /// It was superseded by another call, or its outcome isn't to be relied on: look again.
    pub superseded: bool,
}

/// What is asked of KMS, for whom.
pub(crate) struct Question<'a, P: Process> {
    pub process: &'a P,
    pub tenant: &'a Tenant,
    pub subject: &'a Subject,
    /// How long to wait; `None`: as long as the provider does.
    pub patience: Option<Patience>,
}

/// A call that is abandoned if an interrupt cuts it short.
struct OpenCall<'a, P: Process> {
    process: &'a P,
    permit: CallPermit,
    ended: bool,
}

impl<'a, P: Process> OpenCall<'a, P> {
    fn new(process: &'a P, permit: CallPermit) -> Self {
        // The process's own memory goes with it.
        if !process.has_uncommitted_registry_changes() {
            process.call_opened(permit);
        }
        Self { process, permit, ended: false }
    }

    /// Says how the call ended, and wakes who waits for it.
    fn end<R>(&mut self, outcome: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        self.ended = true;
        let outcome = self.process.transaction_memory(outcome);
        self.process.call_closed(&self.permit);
        if let Some(record) = self.permit.tag.record() {
            self.process.wake(record);
        }
        outcome
    }
}

impl<P: Process> Drop for OpenCall<'_, P> {
    fn drop(&mut self) {
        if !self.ended {
            let permit = self.permit;
            self.end(|shared| shared.abandon(&permit, 0));
        }
    }
}

/// A call that KMS has been asked, or is about to be: what comes of it is told to all processes.
pub(crate) struct Asked<'a, P: Process> {
    open: OpenCall<'a, P>,
    began: Instant,
}

impl<'a, P: Process> Asked<'a, P> {
    /// From now on.
    pub fn begin(process: &'a P, permit: CallPermit) -> Self {
        Self { open: OpenCall::new(process, permit), began: process.now() }
    }

    /// Whose call it is.
    pub fn process(&self) -> &'a P {
        self.open.process
    }

    /// Returns the answer and when the call began.
    pub fn end<R>(
        self,
        question: &Question<'_, P>,
        answer: Result<R>,
        succeed: impl FnOnce(&mut SharedKeyring<'_>, &EndedCall<'_>, &R) -> Outcome,
        counts: impl Fn(Option<&Error>) -> bool,
    ) -> Result<(R, Instant), Failed> {
        let Question { process, tenant, subject, patience } = *question;
        let policy = process.policy();
        let rules = policy.rules();
        let Self { mut open, began } = self;
        let permit = open.permit;
        let now = process.now_on_both();
        let took = now.instant - began;
        let ended = EndedCall { permit: &permit, subject, began, now, rules: &rules };
        // An answer older than the TTL may not be used; asking again would only bring another.
        let answer = answer.and_then(|answer| match took < policy.ttl {
            true => Ok(answer),
            false => Err(Reason::KmsTimeout.into()),
        });
        match answer {
            Ok(answer) if !counts(None) => {
                open.end(|shared| shared.abandon(&permit, 0));
                Ok((answer, began))
            }
            Ok(answer) => {
                let outcome = open.end(|shared| succeed(shared, &ended, &answer));
                let (error, superseded) = match outcome {
                    Outcome::Usable(change) => {
                        // Before anything that an interrupt could end.
                        process.erase_at(began + policy.ttl);
                        process.log_state_change(&tenant.name, change, None);
                        return Ok((answer, began));
                    }
                    Outcome::Revoked(error, _) => (error, false),
                    Outcome::Superseded | Outcome::Failing(_) | Outcome::Unrelated => {
                        // KMS did what it was asked.
                        (Reason::TenantBusy.into(), true)
                    }
                };
                Err(Failed { error, superseded })
            }
            // A refresh that takes longer than its query would wait says nothing about KMS.
            Err(error)
                if error.reason == Reason::KmsTimeout
                    && let Some(patience) = patience
                    && took >= patience.limit =>
            {
                let (now, pause) = (now.instant, policy.failure_ttl);
                open.end(|shared| shared.give_up_renewal(&permit, patience, took, now, pause));
                Err(Failed { error, superseded: false })
            }
            Err(error) if !counts(Some(&error)) => {
                open.end(|shared| shared.abandon(&permit, 0));
                Err(Failed { error, superseded: false })
            }
            Err(error) => {
                let outcome = open.end(|shared| shared.failed(&ended, &error));
                // A refusal is everybody's business, whoever met it.
                if process.has_uncommitted_registry_changes()
                    && error.reason.key_state() == Some(KeyState::Revoked)
                {
                    process.server_memory(|shared| shared.revoke(subject, now.instant));
                }
                let superseded = outcome == Outcome::Superseded;
                let change = match outcome {
                    Outcome::Usable(change)
                    | Outcome::Revoked(_, change)
                    | Outcome::Failing(change) => change,
                    Outcome::Superseded | Outcome::Unrelated => Change::NONE,
                };
                process.log_state_change(&tenant.name, change, Some(&error));
                Err(Failed { error, superseded })
            }
        }
    }
}

/// Makes a call that was allowed. Returns the answer and when the call began.
pub(crate) fn ask<R, P: Process>(
    question: &Question<'_, P>,
    permit: CallPermit,
    call: impl FnOnce() -> Result<R>,
    succeed: impl FnOnce(&mut SharedKeyring<'_>, &EndedCall<'_>, &R) -> Outcome,
    counts: impl Fn(Option<&Error>) -> bool,
) -> Result<(R, Instant), Failed> {
    let asked = Asked::begin(question.process, permit);
    asked.end(question, call(), succeed, counts)
}
