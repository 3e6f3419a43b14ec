//! Asking KMS, and telling all processes what came of it.

use crate::shared::flight::Flight;
use crate::shared::record::{Change, jittered};
use crate::shared::{Landing, Shared, Step, Subject, Tag};
use crate::tenant::{DataKey, Tenant};
use crate::{Host, Keyring};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::locked::scrub_stack;
use cmk_error::{Error, Instant, KeyState, Reason, Result};
use cmk_kms::Kms;
use cmk_kms::context::EncryptionContext;
use std::time::Duration;

/// A data key, and what is known of it.
pub(crate) struct Fetched {
    pub dek: SecretKey,
    pub unwrapped_at: Instant,
    pub tag: Tag,
}

/// Why KMS is asked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    /// A query can't go on without.
    Need,
    /// The data key still serves; the query that came by waits no longer than this.
    Ahead(Duration),
    /// To see whether the tenant's key is usable.
    Check,
}

/// A call that failed.
pub(crate) struct Failed {
    pub error: Error,
    /// Another call overtook it, or its outcome isn't to be relied on: look again.
    pub overtaken: bool,
}

/// A flight that is abandoned if an interrupt cuts it short.
struct InFlight<'a, H: Host> {
    host: &'a H,
    flight: Flight,
    landed: bool,
}

impl<H: Host> InFlight<'_, H> {
    /// Says how the flight ended, and wakes who waits for it.
    fn land<R>(&mut self, outcome: impl FnOnce(&mut Shared<'_>) -> R) -> R {
        self.landed = true;
        let outcome = self.host.shared(outcome);
        if let Some(record) = self.flight.tag.record() {
            self.host.wake(record);
        }
        outcome
    }
}

impl<H: Host> Drop for InFlight<'_, H> {
    fn drop(&mut self) {
        if !self.landed {
            let flight = self.flight;
            self.land(|shared| shared.abandon(&flight, 0));
        }
    }
}

impl Keyring {
    /// Asks KMS whether the tenant's key is usable, if it is time to, by the data key that seals now. Returns
    /// false if nothing was asked.
    pub fn check_tenant(&self, host: &impl Host, tenant: &Tenant) -> bool {
        let Ok(data_key) = tenant.current_data_key() else { return false };
        let subject = Subject::new(host.database(), tenant);
        let (process, now, rules) = (host.process_id(), host.now_on_both(), host.policy().rules());
        let begun = host.shared(|shared| shared.begin_check(&subject, process, now, &rules));
        let Some(flight) = begun else { return false };
        drop(self.fly(host, tenant, data_key, &subject, flight, Purpose::Check));
        scrub_stack();
        true
    }

    /// Asks KMS to unwrap a data key. In a frame of its own, which [`scrub_stack`] can overwrite.
    #[inline(never)]
    pub(crate) fn fly(
        &self,
        host: &impl Host,
        tenant: &Tenant,
        data_key: &DataKey,
        subject: &Subject,
        flight: Flight,
        purpose: Purpose,
    ) -> Result<Fetched, Failed> {
        let fingerprint = subject.fingerprint(data_key);
        let limit = match purpose {
            Purpose::Ahead(limit) => Some(limit),
            Purpose::Need | Purpose::Check => None,
        };
        let call = || self.unwrap(host, tenant, data_key, limit);
        let needed = purpose != Purpose::Check;
        let finish = |shared: &mut Shared<'_>, landing: &Landing<'_>, dek: &SecretKey| {
            shared.finish(landing, Some((&fingerprint, dek)), needed)
        };
        let asked = self.ask(host, tenant, subject, flight, limit, call, finish, |_| true);
        let (dek, unwrapped_at) = asked?;
        Ok(Fetched { dek, unwrapped_at, tag: flight.tag })
    }

    /// Has KMS make a data key, and proves by an unwrap that it comes back. Returns it wrapped, and its commitment.
    ///
    /// # Errors
    /// What KMS refuses with, and what is remembered of an outage; `call_budget_spent`.
    pub fn make_data_key(
        &self,
        host: &impl Host,
        tenant: &Tenant,
    ) -> Result<(Vec<u8>, Commitment)> {
        let context = EncryptionContext::data_key(&tenant.name);
        let custody = &tenant.custody;
        let generate = || self.call_kms(|| host.kms(None).generate(custody, &context));
        let current = tenant.current_data_key().ok();
        // Who may not make data keys may still be let unwrap them: that decides whether the key is revoked.
        let counts = |error: &Error| current.is_none() || error.reason != Reason::KeyAccessDenied;
        let made = self.call(host, tenant, generate, counts);
        if let (Some(current), Err(error)) = (current, &made)
            && error.reason == Reason::KeyAccessDenied
        {
            let unwrap = || self.unwrap(host, tenant, current, None);
            drop(self.call(host, tenant, unwrap, |_| true));
            scrub_stack();
        }
        let wrapped = made?;
        let unwrap = || {
            let dek = self.call_kms(|| host.kms(None).unwrap(custody, &wrapped, &context))?;
            Ok(Commitment::to(&dek, tenant.name.as_bytes()))
        };
        let commitment = self.call(host, tenant, unwrap, |_| true);
        scrub_stack();
        Ok((wrapped, commitment?))
    }

    /// A call that isn't about a registered data key, by the same rules. Of failures that don't count, nobody else hears.
    fn call<R>(
        &self,
        host: &impl Host,
        tenant: &Tenant,
        mut call: impl FnMut() -> Result<R>,
        counts: impl Fn(&Error) -> bool,
    ) -> Result<R> {
        let subject = Subject::new(host.database(), tenant);
        let mut overtaken = false;
        loop {
            let (process, now, rules) =
                (host.process_id(), host.now_on_both(), host.policy().rules());
            let step = host.shared(|shared| shared.begin_call(&subject, process, now, &rules));
            let flight = match step {
                Step::Fetch(flight) => flight,
                Step::Wait(flight) => {
                    host.wait(flight);
                    continue;
                }
                Step::Refuse(error, _) => return Err(error),
                // There is none to take.
                Step::Take(_) => return Err(Reason::KmsServerError.into()),
            };
            let finish = |shared: &mut Shared<'_>, landing: &Landing<'_>, _: &R| {
                shared.finish(landing, None, false)
            };
            match self.ask(host, tenant, &subject, flight, None, &mut call, finish, &counts) {
                Err(failed) if failed.overtaken && !overtaken => overtaken = true,
                asked => return asked.map(|(answer, _)| answer).map_err(|failed| failed.error),
            }
        }
    }

    /// The one door to KMS: makes a call that took off, and tells all processes what came of it. Returns the answer and
    /// when the call began.
    #[allow(clippy::too_many_arguments)] // what is asked, of whom, for how long, and what follows
    fn ask<R>(
        &self,
        host: &impl Host,
        tenant: &Tenant,
        subject: &Subject,
        flight: Flight,
        limit: Option<Duration>,
        call: impl FnOnce() -> Result<R>,
        finish: impl FnOnce(&mut Shared<'_>, &Landing<'_>, &R) -> Result<Change, Option<Error>>,
        counts: impl Fn(&Error) -> bool,
    ) -> Result<(R, Instant), Failed> {
        let policy = host.policy();
        let rules = policy.rules();
        let mut in_flight = InFlight { host, flight, landed: false };
        let began = host.now();
        let answer = call();
        let now = host.now_on_both();
        let landing = Landing { flight: &flight, subject, began, now, rules: &rules };
        // An answer older than the TTL may not be used; asking again would only bring another.
        let answer = answer.and_then(|answer| match now.instant - began < policy.ttl {
            true => Ok(answer),
            false => Err(Reason::KmsTimeout.into()),
        });
        match answer {
            Ok(answer) => {
                let finished = in_flight.land(|shared| finish(shared, &landing, &answer));
                let change = finished.map_err(|error| Failed {
                    overtaken: error.is_none(),
                    error: error.unwrap_or(Reason::KmsServerError.into()),
                })?;
                // Before anything that an interrupt could end.
                host.erase_at(began + policy.ttl);
                host.tell(&tenant.name, change, None);
                Ok((answer, began))
            }
            // A refresh that takes longer than its query would wait says nothing about KMS.
            Err(error) if limit.is_some() && error.reason == Reason::KmsTimeout => {
                let later = now.instant + jittered(policy.failure_ttl);
                in_flight.land(|shared| shared.abandon(&flight, later));
                Err(Failed { error, overtaken: false })
            }
            Err(error) if !counts(&error) => {
                in_flight.land(|shared| shared.abandon(&flight, 0));
                Err(Failed { error, overtaken: false })
            }
            Err(error) => {
                let change = in_flight.land(|shared| shared.fail(&landing, &error));
                // A refusal is everybody's business, whoever met it.
                if host.is_alone() && error.reason.key_state() == Some(KeyState::Revoked) {
                    host.common(|shared| shared.note_revocation(subject, now.instant));
                }
                host.tell(&tenant.name, change.unwrap_or(Change::NONE), Some(&error));
                Err(Failed { error, overtaken: change.is_none() })
            }
        }
    }

    /// Unwraps a data key and checks that it is the registered one.
    fn unwrap(
        &self,
        host: &impl Host,
        tenant: &Tenant,
        data_key: &DataKey,
        limit: Option<Duration>,
    ) -> Result<SecretKey> {
        let wrapped = data_key.wrapped.as_deref().ok_or(Reason::TenantShredded)?;
        let context = EncryptionContext::data_key(&tenant.name);
        let dek = self.call_kms(|| host.kms(limit).unwrap(&tenant.custody, wrapped, &context))?;
        if Commitment::to(&dek, tenant.name.as_bytes()) == data_key.commitment {
            Ok(dek)
        } else {
            Err(Reason::CommitmentMismatch.into())
        }
    }

    /// Counts a call of a key provider.
    fn call_kms<R>(&self, call: impl FnOnce() -> Result<R>) -> Result<R> {
        self.stats.kms_calls.add(1);
        call().inspect_err(|_| self.stats.kms_failures.add(1))
    }
}
