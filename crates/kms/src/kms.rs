//! What callers ask of a key management service.

use crate::context::EncryptionContext;
use crate::customer_key::CustomerKey;
use crate::key_facts::KeyFacts;
use crate::provider::Call;
use crate::settings::Settings;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use std::time::Duration;

/// A key management service.
pub trait Kms {
    /// Makes a data key of 32 bytes and returns it wrapped under `key`, bound to `context`. The
    /// plain data key is not returned: it comes back by [`unwrap`](Kms::unwrap), on the path that
    /// every later read takes.
    ///
    /// # Errors
    /// Reasons with a [`key_state`](cmk_error::Reason::key_state) concern the key; others
    /// (`kms_answer_mismatch`) this call alone.
    fn generate(&self, key: &CustomerKey, context: &EncryptionContext<'_>) -> Result<Vec<u8>>;

    /// Unwraps what [`generate`](Kms::generate) returned.
    ///
    /// # Errors
    /// Reasons with a [`key_state`](cmk_error::Reason::key_state) concern the key; others
    /// (`wrapped_key_rejected`, `kms_answer_mismatch`) this wrapped data key alone.
    fn unwrap(
        &self,
        key: &CustomerKey,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey>;

    /// Facts to warn of; may need more permissions than the calls above. None by default.
    ///
    /// # Errors
    /// As [`unwrap`](Kms::unwrap).
    fn describe(&self, _key: &CustomerKey) -> Result<KeyFacts> {
        Ok(KeyFacts::default())
    }
}

/// Asks whichever provider a key belongs to.
pub struct Providers<'a> {
    /// The server's settings as they are now.
    pub settings: &'a Settings,
    /// The caller's own limit, should it be sooner than the provider's timeouts.
    pub limit: Option<Duration>,
    /// Called every few tens of milliseconds while waiting; may unwind to cancel.
    pub tick: fn(),
}

impl Providers<'_> {
    fn call(&self) -> Call<'_> {
        Call { settings: self.settings, limit: self.limit, tick: self.tick }
    }
}

impl Kms for Providers<'_> {
    fn generate(&self, key: &CustomerKey, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        key.provider_key().generate(&self.call(), context)
    }

    fn unwrap(
        &self,
        key: &CustomerKey,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        key.provider_key().unwrap(&self.call(), wrapped, context)
    }

    fn describe(&self, key: &CustomerKey) -> Result<KeyFacts> {
        key.provider_key().describe(&self.call())
    }
}
