//! What callers ask of a key management service.

use crate::context::EncryptionContext;
use crate::customer_key::CustomerKey;
use crate::key_facts::{Identity, KeyFacts, Management, OwnIdentity};
use crate::onboarding::ServicePrincipal;
use crate::policies;
use crate::provider::{Answer, Call, Route};
use crate::providers::PROVIDERS;
use crate::runtime;
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

    /// Wraps a data key that we have, as [`generate`](Kms::generate) wraps one that it makes. To be
    /// asked only where the [`route`](Kms::route) is no shorter: it takes the data key over the
    /// wire.
    ///
    /// # Errors
    /// As [`generate`](Kms::generate).
    fn wrap(
        &self,
        key: &CustomerKey,
        dek: &SecretKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>>;

    /// The shortest way from one key to another that the services have. Nobody is asked: whether it
    /// is open to us has yet to be seen.
    fn route(&self, from: &CustomerKey, to: &CustomerKey) -> Route {
        from.provider_key().route(to.provider_key())
    }

    /// Wraps what `from` wrapped for `to`, without showing it to us. To be asked where the
    /// [`route`](Kms::route) says so.
    ///
    /// # Errors
    /// As [`unwrap`](Kms::unwrap), of either key; `kms_rejected` where the route is another.
    fn rewrap(
        &self,
        from: &CustomerKey,
        wrapped: &[u8],
        to: &CustomerKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>>;

    /// What there is to know of the key; may need more permissions than the calls above. A missing
    /// permission is no error, but listed. Nothing is known by default.
    ///
    /// # Errors
    /// As [`unwrap`](Kms::unwrap).
    fn describe(&self, _key: &CustomerKey) -> Result<KeyFacts> {
        Ok(KeyFacts::default())
    }

    /// Whether we could manage the key, as far as that shows; changes nothing. Nothing is known by
    /// default.
    ///
    /// # Errors
    /// As [`unwrap`](Kms::unwrap).
    fn management(&self, _key: &CustomerKey) -> Result<Management> {
        Ok(Management::default())
    }

    /// Whom the service takes this server for, before it assumes any role. `None` where there is no
    /// such thing.
    ///
    /// # Errors
    /// As [`unwrap`](Kms::unwrap).
    fn identity(&self, _key: &CustomerKey) -> Result<Option<Identity>> {
        Ok(None)
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
    /// As whom this server uses a key, for the policies of its owner.
    ///
    /// # Errors
    /// `no_key_policy`; `service_principal` if nobody says, or nonsense; as
    /// [`identity`](Kms::identity).
    pub fn service_principal(&self, key: &CustomerKey) -> Result<ServicePrincipal> {
        let provider = policies::of_key(key)?;
        match provider.named_principal(self.settings)? {
            Some(principal) => Ok(principal),
            None => provider.principal_of(self.identity(key)?),
        }
    }

    /// Whom the services take this server for, as far as they know such a thing.
    ///
    /// # Errors
    /// As [`Provider::own_identity`](crate::provider::Provider::own_identity).
    pub fn own_identities(&self, region: Option<&str>) -> Result<Vec<OwnIdentity>> {
        let call = self.call();
        let told = PROVIDERS.iter().map(|provider| self.wait(provider.own_identity(&call, region)));
        told.filter_map(Result::transpose).collect()
    }

    fn call(&self) -> Call<'_> {
        Call { settings: self.settings, limit: self.limit }
    }

    fn wait<R>(&self, answer: Answer<'_, R>) -> Result<R> {
        match answer {
            Answer::Ready(answer) => answer,
            Answer::Waiting(answer) => runtime::drive(answer, self.tick)?,
        }
    }
}

impl Kms for Providers<'_> {
    fn generate(&self, key: &CustomerKey, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        self.wait(key.provider_key().generate(&self.call(), context))
    }

    fn unwrap(
        &self,
        key: &CustomerKey,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.wait(key.provider_key().unwrap(&self.call(), wrapped, context))
    }

    fn wrap(
        &self,
        key: &CustomerKey,
        dek: &SecretKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        self.wait(key.provider_key().wrap(&self.call(), dek, context))
    }

    fn rewrap(
        &self,
        from: &CustomerKey,
        wrapped: &[u8],
        to: &CustomerKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        self.wait(from.provider_key().rewrap(&self.call(), wrapped, to.provider_key(), context))
    }

    fn describe(&self, key: &CustomerKey) -> Result<KeyFacts> {
        self.wait(key.provider_key().describe(&self.call()))
    }

    fn management(&self, key: &CustomerKey) -> Result<Management> {
        self.wait(key.provider_key().management(&self.call()))
    }

    fn identity(&self, key: &CustomerKey) -> Result<Option<Identity>> {
        self.wait(key.provider_key().identity(&self.call()))
    }
}
