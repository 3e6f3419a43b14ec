//! Asking KMS, and telling all processes what came of it.

use crate::keyring::Keyring;
use crate::process::Process;
use crate::question::{Failed, Question, ask};
use crate::shared::call::CallPermit;
use crate::shared::identity::Subject;
use crate::shared::outcome::EndedCall;
use crate::shared::renewal::Patience;
use crate::shared::single_flight::{SharedDataKey, Step};
use crate::shared::table::SharedKeyring;
use crate::tenant::{DataKey, Tenant};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::scrub::scrub_stack;
use cmk_error::{Error, Instant, Reason, Result};
use cmk_kms::{CustomerKey, EncryptionContext, Kms, Purpose};
use std::time::Duration;

/// Why KMS is asked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Urgency {
    /// A query can't go on without.
    Now,
    /// The data key still serves; the query that came by waits no longer than this.
    Ahead(Patience),
}

/// How often a call is made whose outcome was superseded each time, as by evictions.
const MOST_CALLS: u32 = 16;

/// Calls whose outcomes were superseded: made again, within the time that one call may take.
pub(crate) struct Superseded {
    calls: u32,
    until: Instant,
}

impl Superseded {
    /// None yet.
    pub fn none(process: &impl Process) -> Self {
        Self { calls: 0, until: process.now() + process.policy().call_timeout }
    }

    /// Whether to make the call again: once in any case.
    pub fn again(&mut self, process: &impl Process, failed: &Failed) -> bool {
        self.calls += 1;
        let has_time = self.calls < MOST_CALLS && process.now() < self.until;
        failed.superseded && (self.calls == 1 || has_time)
    }
}

/// A data key as KMS makes it.
pub struct WrappedDataKey {
    /// What the registry stores.
    pub wrapped: Vec<u8>,
    /// To recognise it by when it is unwrapped.
    pub commitment: Commitment,
}

impl Keyring {
    /// Proves that `key`, which isn't the registered one, unwraps the data key that seals now. What
    /// KMS says of it is not said of the tenant: nobody else hears of it.
    ///
    /// # Errors
    /// `tenant_pending`, `data_keys_missing`; what KMS refuses with; `commitment_mismatch`;
    /// `call_budget_spent`.
    pub fn prove_key(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        key: &CustomerKey,
    ) -> Result<()> {
        let data_key = tenant.current_data_key()?;
        let unwrap = || self.unwrap(process, tenant, key, data_key, None).map(drop);
        let proven = self.call(process, tenant, unwrap, |_| false);
        scrub_stack();
        proven
    }

    /// Unwraps a data key under the tenant's key for the process alone, which is about to wrap it
    /// for another.
    ///
    /// # Errors
    /// What KMS refuses with, and what is remembered of an outage; `commitment_mismatch`;
    /// `call_budget_spent`.
    pub(crate) fn unwrap_for_one(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
    ) -> Result<SecretKey> {
        let unwrap = || self.unwrap(process, tenant, &tenant.customer_key, data_key, None);
        self.call(process, tenant, unwrap, |_| true)
    }

    /// Asks KMS to unwrap a data key. In a frame of its own, which [`scrub_stack`] can overwrite.
    #[inline(never)]
    pub(crate) fn unwrap_for_all(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
        subject: &Subject,
        permit: CallPermit,
        urgency: Urgency,
    ) -> Result<SharedDataKey, Failed> {
        let fingerprint = subject.fingerprint(data_key);
        let patience = match urgency {
            Urgency::Ahead(patience) => Some(patience),
            Urgency::Now => None,
        };
        let limit = patience.map(|patience| Duration::from_nanos(patience.limit));
        let question = Question { process, tenant, subject, patience };
        let unwrap = || self.unwrap(process, tenant, &tenant.customer_key, data_key, limit);
        let succeed = |shared: &mut SharedKeyring<'_>, ended: &EndedCall<'_>, dek: &SecretKey| {
            shared.succeeded(ended, Some((&fingerprint, dek)), true)
        };
        let (dek, unwrapped_at) = ask(&question, permit, unwrap, succeed, |_| true)?;
        Ok(SharedDataKey { dek, unwrapped_at, tag: permit.tag })
    }

    /// Has KMS make a data key, and proves by an unwrap that it comes back.
    ///
    /// # Errors
    /// What KMS refuses with, and what is remembered of an outage; `call_budget_spent`.
    pub fn make_data_key(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        purpose: Purpose,
    ) -> Result<WrappedDataKey> {
        let context = EncryptionContext::new(&tenant.name, purpose);
        let key = &tenant.customer_key;
        let generate = || self.call_kms(|| process.kms(None).generate(key, &context));
        let current = tenant.current(purpose);
        // Who may not make data keys may still be let unwrap them: that decides whether the key is
        // revoked.
        let denied = |error: Option<&Error>| {
            error.is_some_and(|error| error.reason == Reason::KeyAccessDenied)
        };
        let counts = |error: Option<&Error>| current.is_none() || !denied(error);
        let made = self.call(process, tenant, generate, counts);
        if let (Some(current), Err(error)) = (current, &made)
            && error.reason == Reason::KeyAccessDenied
        {
            let unwrap = || self.unwrap(process, tenant, key, current, None);
            drop(self.call(process, tenant, unwrap, |_| true));
            scrub_stack();
        }
        let wrapped = made?;
        let unwrap = || {
            let dek = self.call_kms(|| process.kms(None).unwrap(key, &wrapped, &context))?;
            Ok(Commitment::to(&dek, tenant.name.as_bytes()))
        };
        let commitment = self.call(process, tenant, unwrap, |_| true);
        scrub_stack();
        Ok(WrappedDataKey { commitment: commitment?, wrapped })
    }

    /// A call that isn't about a registered data key, by the same rules. Of failures that don't
    /// count, and of a success (`None`) that doesn't, nobody else hears.
    fn call<R>(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        mut call: impl FnMut() -> Result<R>,
        counts: impl Fn(Option<&Error>) -> bool,
    ) -> Result<R> {
        let subject = process.subject(tenant);
        let question = Question { process, tenant, subject: &subject, patience: None };
        let mut superseded = Superseded::none(process);
        loop {
            let (pid, now, rules) =
                (process.pid(), process.now_on_both(), process.policy().rules());
            let step =
                process.transaction_memory(|shared| shared.begin_call(&subject, pid, now, &rules));
            let permit = match step {
                Step::Ask(permit) => permit,
                Step::Wait(call) => {
                    process.wait(call);
                    continue;
                }
                Step::Refuse(error, _) => return Err(error),
                // There is none to take.
                Step::Take(_) => return Err(Reason::TenantBusy.into()),
            };
            let succeed = |shared: &mut SharedKeyring<'_>, ended: &EndedCall<'_>, _: &R| {
                shared.succeeded(ended, None, false)
            };
            match ask(&question, permit, &mut call, succeed, &counts) {
                Err(failed) if superseded.again(process, &failed) => {}
                asked => return asked.map(|(answer, _)| answer).map_err(|failed| failed.error),
            }
        }
    }

    /// Unwraps a data key and checks that it is the registered one.
    pub(crate) fn unwrap(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        key: &CustomerKey,
        data_key: &DataKey,
        limit: Option<Duration>,
    ) -> Result<SecretKey> {
        let wrapped = data_key.wrapped.as_deref().ok_or(Reason::TenantShredded)?;
        self.unwrap_bytes(process, tenant, key, data_key, wrapped, limit)
    }

    /// Unwraps what is said to be a data key's wrapped bytes, and checks that it is that one.
    pub(crate) fn unwrap_bytes(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        key: &CustomerKey,
        data_key: &DataKey,
        wrapped: &[u8],
        limit: Option<Duration>,
    ) -> Result<SecretKey> {
        let context = EncryptionContext::new(&tenant.name, data_key.purpose);
        let dek = self.call_kms(|| process.kms(limit).unwrap(key, wrapped, &context))?;
        recognised(dek, tenant, data_key)
    }

    /// Counts a call of a key provider.
    pub(crate) fn call_kms<R>(&self, call: impl FnOnce() -> Result<R>) -> Result<R> {
        self.stats.kms_calls.add(1);
        call().inspect_err(|_| self.stats.kms_failures.add(1))
    }
}

/// A data key that was unwrapped, if it is the registered one.
///
/// # Errors
/// `commitment_mismatch`.
pub(crate) fn recognised(dek: SecretKey, tenant: &Tenant, data_key: &DataKey) -> Result<SecretKey> {
    match Commitment::to(&dek, tenant.name.as_bytes()) == data_key.commitment {
        true => Ok(dek),
        false => Err(Reason::CommitmentMismatch.into()),
    }
}
