//! The key providers, as the settings of this moment have them; and what a wait for them looks
//! like.

use super::descriptors::Descriptors;
use super::interrupt::{self, WaitEvent};
use super::kms_trail::Trail;
use super::settings::values;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use cmk_kms::onboarding::ServicePrincipal;
use cmk_kms::{
    CustomerKey, EncryptionContext, Identity, KeyFacts, Kms, Management, OwnIdentity, Providers,
};
use std::time::Duration;

/// Asks a key's provider, interruptibly.
pub struct InterruptibleKms {
    /// The caller's own limit, should it be sooner than the provider's timeouts.
    pub limit: Option<Duration>,
}

impl InterruptibleKms {
    fn ask<R>(&self, ask: impl FnOnce(&Providers<'_>) -> Result<R>) -> Result<R> {
        let _trail = Trail::begin();
        let _descriptors = Descriptors::acquire()?;
        let _waiting = WaitEvent::start(interrupt::kms());
        let settings = values::kms();
        ask(&Providers { settings: &settings, limit: self.limit, tick: interrupt::tick })
    }
}

impl InterruptibleKms {
    /// As whom this server uses a key, for the policies of its owner.
    ///
    /// # Errors
    /// As [`Providers::service_principal`].
    pub fn service_principal(&self, key: &CustomerKey) -> Result<ServicePrincipal> {
        self.ask(|kms| kms.service_principal(key))
    }

    /// Whom the services take this server for.
    ///
    /// # Errors
    /// As [`Providers::own_identities`].
    pub fn own_identities(&self, region: Option<&str>) -> Result<Vec<OwnIdentity>> {
        self.ask(|kms| kms.own_identities(region))
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

    fn wrap(
        &self,
        key: &CustomerKey,
        dek: &SecretKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        self.ask(|kms| kms.wrap(key, dek, context))
    }

    fn rewrap(
        &self,
        from: &CustomerKey,
        wrapped: &[u8],
        to: &CustomerKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        self.ask(|kms| kms.rewrap(from, wrapped, to, context))
    }

    fn describe(&self, key: &CustomerKey) -> Result<KeyFacts> {
        self.ask(|kms| kms.describe(key))
    }

    fn management(&self, key: &CustomerKey) -> Result<Management> {
        self.ask(|kms| kms.management(key))
    }

    fn identity(&self, key: &CustomerKey) -> Result<Option<Identity>> {
        self.ask(|kms| kms.identity(key))
    }
}
