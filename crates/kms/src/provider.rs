//! What a provider of keys is.

use crate::context::EncryptionContext;
use crate::key_facts::KeyFacts;
use crate::options::Options;
use crate::settings::Settings;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// A kind of key management service.
pub trait Provider: Sync {
    /// What its key URIs begin with, up to the first colon (RFC 3986, section 3.1).
    fn scheme(&self) -> &'static str;

    /// A key of this provider. `uri` is the whole URI, of this scheme and not longer than the
    /// longest accepted. Another `session_epoch` means that nothing the owner allowed before, such
    /// as a session of an assumed role, is used for this key.
    ///
    /// # Errors
    /// `key_uri`; `key_options` for an option that the provider doesn't take; a reason of the
    /// provider's own for one that it takes and can't use. No error repeats the offending text.
    fn parse_key(
        &self,
        uri: &str,
        options: Options,
        session_epoch: i64,
    ) -> Result<Arc<dyn ProviderKey>>;
}

/// A customer managed key, and what its provider does with it.
pub trait ProviderKey: Debug + Send + Sync {
    /// As [`Kms::generate`](crate::Kms::generate).
    ///
    /// # Errors
    /// As there.
    fn generate(&self, call: &Call<'_>, context: &EncryptionContext<'_>) -> Result<Vec<u8>>;

    /// As [`Kms::unwrap`](crate::Kms::unwrap).
    ///
    /// # Errors
    /// As there.
    fn unwrap(
        &self,
        call: &Call<'_>,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey>;

    /// As [`Kms::describe`](crate::Kms::describe). Nothing is known by default.
    ///
    /// # Errors
    /// As there.
    fn describe(&self, _call: &Call<'_>) -> Result<KeyFacts> {
        Ok(KeyFacts::default())
    }

    /// Whether the key is used as a role of its owner's, whose sessions outlive a withdrawal for a
    /// while.
    fn assumes_role(&self) -> bool {
        false
    }
}

/// The circumstances of one call.
pub struct Call<'a> {
    /// The server's settings as they are now.
    pub settings: &'a Settings,
    /// The caller's own limit, should it be sooner than the provider's timeouts.
    pub limit: Option<Duration>,
    /// Called every few tens of milliseconds while waiting; may unwind to cancel.
    pub tick: fn(),
}
