//! Asking KMS whether tenants' keys are usable, several at a time: a check is begun, answered by
//! whoever asks KMS, and ended.

use crate::keyring::Keyring;
use crate::process::Process;
use crate::question::{Asked, Question};
use crate::shared::identity::Subject;
use crate::shared::outcome::EndedCall;
use crate::shared::table::SharedKeyring;
use crate::tenant::{DataKey, Tenant};
use crate::unwrap::recognised;
use cmk_crypto::key::SecretKey;
use cmk_crypto::scrub::scrub_stack;
use cmk_error::Result;
use cmk_kms::Wrapped;

/// A check of a tenant's key by the data key that seals now. Dropped before its
/// [end](Keyring::end_check), the call is abandoned: another process may ask.
pub struct Check<'a, P: Process> {
    tenant: Tenant,
    data_key: DataKey,
    subject: Subject,
    asked: Asked<'a, P>,
}

impl<P: Process> Check<'_, P> {
    /// Whose key it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

impl Keyring {
    /// Begins a check of a tenant's key, if it is time to; with what KMS is to unwrap. `None` if
    /// nothing is to be asked.
    pub fn begin_check<'a, P: Process>(
        &self,
        process: &'a P,
        tenant: Tenant,
    ) -> Option<(Check<'a, P>, Wrapped)> {
        let data_key = tenant.current_data_key().ok()?.clone();
        let wrapped = Wrapped {
            key: tenant.customer_key.clone(),
            bytes: data_key.wrapped.clone()?,
            tenant: tenant.name.clone(),
            purpose: data_key.purpose,
        };
        let subject = process.subject(&tenant);
        let (pid, now, rules) = (process.pid(), process.now_on_both(), process.policy().rules());
        let permit =
            process.transaction_memory(|shared| shared.begin_check(&subject, pid, now, &rules))?;
        let asked = Asked::begin(process, permit);
        Some((Check { tenant, data_key, subject, asked }, wrapped))
    }

    /// Takes in what KMS answered, and makes it known to all processes.
    pub fn end_check<P: Process>(&self, check: Check<'_, P>, answer: Result<SecretKey>) {
        self.take_in(check, answer);
        scrub_stack();
    }

    /// In a frame of its own, which [`scrub_stack`] can overwrite.
    #[inline(never)]
    fn take_in<P: Process>(&self, check: Check<'_, P>, answer: Result<SecretKey>) {
        let Check { tenant, data_key, subject, asked } = check;
        let answer = self.call_kms(|| answer).and_then(|dek| recognised(dek, &tenant, &data_key));
        let fingerprint = subject.fingerprint(&data_key);
        let succeed = |shared: &mut SharedKeyring<'_>, ended: &EndedCall<'_>, dek: &SecretKey| {
            shared.succeeded(ended, Some((&fingerprint, dek)), false)
        };
        let (process, subject) = (asked.process(), &subject);
        let question = Question { process, tenant: &tenant, subject, patience: None };
        drop(asked.end(&question, answer, succeed, |_| true));
    }
}
