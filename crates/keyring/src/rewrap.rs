//! Wrapping a tenant's data keys for another customer managed key.
//!
//! What KMS says of the other key is not said of the tenant, whose own key is still in force. The
//! calls count into the tenant's budget all the same.

use crate::keyring::Keyring;
use crate::process::Process;
use crate::tenant::{DataKey, Tenant};
use cmk_crypto::scrub::scrub_stack;
use cmk_error::{Error, KeyState, Reason, Result};
use cmk_kms::{CustomerKey, EncryptionContext, Kms, Route};

/// A move to another key: one data key after the other.
pub struct Move<'a> {
    to: &'a CustomerKey,
    /// KMS refused to go the way that shows us no data key.
    is_refused: bool,
}

impl<'a> Move<'a> {
    /// Nobody was asked yet.
    pub fn to(key: &'a CustomerKey) -> Self {
        Self { to: key, is_refused: false }
    }
}

impl Keyring {
    /// Wraps a data key for another key, and proves that it comes back from there. By the first way
    /// that there is:
    ///
    /// 1. Of replicas of one multi-Region key the bytes are the same, and the key that wrapped them
    ///    is not asked. It may be gone.
    /// 2. KMS does it without showing us the data key.
    /// 3. The old key unwraps it and the new one wraps it, where the two can't see each other, or
    ///    KMS does not allow us the other way.
    ///
    /// # Errors
    /// What either key's KMS refuses with; with `key=next` it is the new one's. Of an outage of the
    /// old key also what is remembered. `commitment_mismatch`; `call_budget_spent`.
    pub fn rewrap(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
        to: &mut Move<'_>,
    ) -> Result<Vec<u8>> {
        let wrapped = data_key.wrapped.as_deref().ok_or(Reason::TenantShredded)?;
        let by_kms = match process.kms(None).route(&tenant.customer_key, to.to) {
            Route::SameBytes => Some(wrapped.to_vec()),
            Route::Rewrap => self.rewrap_by_kms(process, tenant, data_key, wrapped, to)?,
            Route::UnwrapAndWrap => None,
        };
        let new = match by_kms {
            Some(new) => new,
            None => {
                let new = self.unwrap_and_wrap(process, tenant, data_key, to.to);
                scrub_stack();
                new?
            }
        };
        spend(process, tenant)?;
        self.prove(process, tenant, data_key, &new, to.to)?;
        Ok(new)
    }

    /// Proves once more what [`rewrap`](Self::rewrap) returned, before it is put into force.
    ///
    /// Each data key costs a call, which the budget counts but does not refuse: else a tenant with
    /// more data keys than calls a minute could never be moved.
    ///
    /// # Errors
    /// What KMS refuses with, and `commitment_mismatch`, with `key=next`.
    pub fn confirm(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
        wrapped: &[u8],
        key: &CustomerKey,
    ) -> Result<()> {
        // Refused or not, it has been counted.
        let _ = spend(process, tenant);
        self.prove(process, tenant, data_key, wrapped, key)
    }

    /// Proves that `key` unwraps these bytes, and that they are the data key.
    fn prove(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
        wrapped: &[u8],
        key: &CustomerKey,
    ) -> Result<()> {
        let unwrapped = self.unwrap_bytes(process, tenant, key, data_key, wrapped, None);
        let proven = unwrapped.map(drop).map_err(of_next);
        scrub_stack();
        proven
    }

    /// `None` where KMS doesn't allow us that.
    fn rewrap_by_kms(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
        wrapped: &[u8],
        to: &mut Move<'_>,
    ) -> Result<Option<Vec<u8>>> {
        if to.is_refused {
            return Ok(None);
        }
        let from = &tenant.customer_key;
        spend(process, tenant)?;
        let context = EncryptionContext::new(&tenant.name, data_key.purpose);
        match self.call_kms(|| process.kms(None).rewrap(from, wrapped, to.to, &context)) {
            // Which of the two keys refused is for the long way to find out.
            Err(error) if refuses(&error) => {
                to.is_refused = true;
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// In a frame of its own, which [`scrub_stack`] can overwrite.
    #[inline(never)]
    fn unwrap_and_wrap(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
        to: &CustomerKey,
    ) -> Result<Vec<u8>> {
        let dek = self.unwrap_for_one(process, tenant, data_key)?;
        spend(process, tenant)?;
        let context = EncryptionContext::new(&tenant.name, data_key.purpose);
        self.call_kms(|| process.kms(None).wrap(to, &dek, &context)).map_err(of_next)
    }
}

/// Whether it was asked and said no, as against an outage, which the long way would meet, too.
fn refuses(error: &Error) -> bool {
    matches!(error.reason.key_state(), Some(KeyState::Revoked | KeyState::Misconfigured))
}

/// Takes a call out of the tenant's budget.
fn spend(process: &impl Process, tenant: &Tenant) -> Result<()> {
    let subject = process.subject(tenant);
    let (now, rules) = (process.now_on_both(), process.policy().rules());
    let affordable = process.transaction_memory(|shared| shared.spend_call(&subject, now, &rules));
    if affordable { Ok(()) } else { Err(Reason::CallBudgetSpent.into()) }
}

/// The error of a call of the key that the tenant is to move to.
fn of_next(error: Error) -> Error {
    let info = match error.info() {
        Some(info) => format!("key=next {info}"),
        None => "key=next".to_owned(),
    };
    error.with_info(info)
}

#[cfg(test)]
mod tests;
