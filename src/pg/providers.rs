//! The key providers, as the settings of this moment have them; and what a wait for them looks
//! like.

use super::interrupt::{self, WaitEvent};
use super::settings::values;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use cmk_kms::{CustomerKey, EncryptionContext, KeyFacts, Kms, Providers};
use std::time::Duration;

/// Asks a key's provider, interruptibly.
pub struct InterruptibleKms {
    /// The caller's own limit, should it be sooner than the provider's timeouts.
    pub limit: Option<Duration>,
}

impl InterruptibleKms {
    fn ask<R>(&self, ask: impl FnOnce(&Providers<'_>) -> Result<R>) -> Result<R> {
        let _waiting = WaitEvent::start(interrupt::kms());
        let settings = values::kms();
        ask(&Providers { settings: &settings, limit: self.limit, tick: interrupt::tick })
    }
}

impl Kms for InterruptibleKms {
    fn generate(&self, key: &CustomerKey, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        self.ask(|kms| kms.generate(key, context))
    }

    fn unwrap(
        &self,
        key: &CustomerKey,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.ask(|kms| kms.unwrap(key, wrapped, context))
    }

    fn describe(&self, key: &CustomerKey) -> Result<KeyFacts> {
        self.ask(|kms| kms.describe(key))
    }
}
