//! Trying a tenant's key out. What KMS answers is told to whoever asks, and to nobody else: no
//! cache, no record and no remembered failure is touched or asked, so that it is the answer of this
//! moment. Nothing of it is kept.

use crate::keyring::Keyring;
use crate::process::Process;
use crate::tenant::{DataKey, Tenant};
use cmk_crypto::scrub::scrub_stack;
use cmk_error::{Error, Reason, Result};
use cmk_kms::{EncryptionContext, Kms, Purpose};

/// The tenant of an encryption context that is nobody's: no tenant can have this name.
const NOBODY: &str = "*";

/// What became of an unwrap under another encryption context than that of the wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherContext {
    /// What is wrapped is bound to its context.
    RefusedByBinding,
    /// The key's policy did not get that far.
    RefusedByPolicy,
    /// Whoever may unwrap for one tenant may for all: KMS, or what is between it and us, is broken.
    Accepted,
}

impl Keyring {
    /// Has KMS make a data key that nobody uses.
    ///
    /// # Errors
    /// What KMS refuses with.
    pub fn try_generate(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        purpose: Purpose,
    ) -> Result<Vec<u8>> {
        let context = EncryptionContext::new(&tenant.name, purpose);
        process.kms(None).generate(&tenant.customer_key, &context)
    }

    /// Whether a wrapped data key comes back; if it is a registered one, as what it was.
    ///
    /// # Errors
    /// What KMS refuses with; `commitment_mismatch`; `tenant_shredded` of one that was destroyed.
    pub fn try_unwrap(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        data_key: &DataKey,
    ) -> Result<()> {
        let unwrapped = self.unwrap(process, tenant, &tenant.customer_key, data_key, None);
        let tried = unwrapped.map(drop);
        scrub_stack();
        tried
    }

    /// The same of bytes that [`try_generate`](Self::try_generate) returned.
    ///
    /// # Errors
    /// What KMS refuses with.
    pub fn try_unwrap_new(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        wrapped: &[u8],
        purpose: Purpose,
    ) -> Result<()> {
        let context = EncryptionContext::new(&tenant.name, purpose);
        let unwrapped = process.kms(None).unwrap(&tenant.customer_key, wrapped, &context);
        let tried = unwrapped.map(drop);
        scrub_stack();
        tried
    }

    /// Whether KMS refuses to unwrap for another tenant what it unwraps for this one. Whether the
    /// key's policy asks for the context can be told only if it refuses first.
    ///
    /// # Errors
    /// What says nothing about the context: an outage, a key that is gone by now.
    pub fn try_other_context(
        &self,
        process: &impl Process,
        tenant: &Tenant,
        wrapped: &[u8],
        purpose: Purpose,
    ) -> Result<OtherContext> {
        let context = EncryptionContext::new(NOBODY, purpose);
        let unwrapped = process.kms(None).unwrap(&tenant.customer_key, wrapped, &context);
        let tried: Result<(), Error> = unwrapped.map(drop);
        scrub_stack();
        match tried {
            Ok(()) => Ok(OtherContext::Accepted),
            Err(error) => match error.reason {
                Reason::WrappedKeyRejected => Ok(OtherContext::RefusedByBinding),
                Reason::KeyAccessDenied => Ok(OtherContext::RefusedByPolicy),
                // It opened something, just not for the key or of the length that it should.
                Reason::KmsAnswerMismatch => Ok(OtherContext::Accepted),
                _ => Err(error),
            },
        }
    }
}
