//! Key management services: where tenants keep the keys that wrap data keys.
//!
//! A provider is the functions of [`Kms`], one file each. It answers with a plain data key or a
//! [`Reason`](cmk_error::Reason) and knows no registry, cache or PostgreSQL.

#[cfg(feature = "aws")]
pub mod aws;
pub mod context;
pub mod key_uri;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "aws")]
pub mod runtime;

use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use context::EncryptionContext;
use key_uri::{KeyUri, RoleArn};

/// Which customer managed key, and as whom we use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Custody {
    pub key: KeyUri,
    /// A role of the tenant's account to assume first; otherwise the server's own identity is used.
    pub role: Option<AssumedRole>,
}

/// A role and the external id that its trust policy asks for. Always both: without the external id, a
/// tenant who guesses another's role ARN could have us use it (the confused deputy, AWS IAM User Guide,
/// "The confused deputy problem").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssumedRole {
    pub arn: RoleArn,
    pub external_id: key_uri::ExternalId,
    /// The tenant's epoch. Another one means another session: an eviction is to ask the owner again, for the role too.
    pub epoch: i64,
}

/// What a key management service tells of a key beyond that it works, as far as it lets us see. Times in
/// seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// The owner scheduled the key's deletion.
    pub deletion_at: Option<i64>,
    /// Imported key material expires.
    pub material_expires_at: Option<i64>,
    /// Whether KMS rotates the key by itself.
    pub rotates: Option<bool>,
}

/// A key management service.
pub trait Kms {
    /// Makes a data key of 32 bytes and returns it wrapped under `custody.key`, bound to `context`. The
    /// plain data key is not returned: it comes back by [`unwrap`](Kms::unwrap), on the path that every
    /// later read takes.
    fn generate(&self, custody: &Custody, context: &EncryptionContext<'_>) -> Result<Vec<u8>>;

    /// Unwraps what [`generate`](Kms::generate) returned.
    ///
    /// # Errors
    /// Reasons with a [`key_state`](cmk_error::Reason::key_state) concern the tenant's key; others
    /// (`wrapped_key_rejected`, `kms_answer_mismatch`) this wrapped data key alone.
    fn unwrap(
        &self,
        custody: &Custody,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey>;

    /// What there is to warn of, for which the owner may grant more than the calls above take. Nothing is by
    /// default.
    fn describe(&self, _custody: &Custody) -> Result<KeyFacts> {
        Ok(KeyFacts::default())
    }
}
