//! What the owner of a key and we have to allow each other, in the words of the key's provider.

use crate::context::Purpose;
use crate::customer_key::CustomerKey;
use crate::key_facts::Identity;
use crate::provider::Provider;
use crate::settings::Settings;
use cmk_error::Result;
use serde_json::Value;
use std::time::Duration;

/// A provider whose keys have policies that their owners write.
pub trait Onboarding: Provider {
    /// As whom we use keys, if the settings say it.
    ///
    /// # Errors
    /// `service_principal` for nonsense.
    fn named_principal(&self, settings: &Settings) -> Result<Option<ServicePrincipal>>;

    /// The same, as the provider itself tells.
    ///
    /// # Errors
    /// `service_principal` if that can't be named in a policy.
    fn principal_of(&self, identity: Option<Identity>) -> Result<ServicePrincipal>;

    /// What the owner of the key has to allow `principal`, and no more.
    ///
    /// # Errors
    /// `service_principal` for a principal that no policy of this key can name.
    fn key_policy(&self, used: &KeyUse<'_>, principal: &ServicePrincipal) -> Result<Value>;

    /// What we have to be allowed on our own side to use these keys.
    ///
    /// # Errors
    /// As parsing the keys.
    fn service_policy(&self, used: &[KeyUse<'_>]) -> Result<Value>;

    /// A document for the owner of the key.
    ///
    /// # Errors
    /// `onboarding_format` for a format that there isn't; as [`key_policy`](Self::key_policy).
    fn document(
        &self,
        used: &KeyUse<'_>,
        principal: &ServicePrincipal,
        bounds: &Bounds,
        format: &str,
    ) -> Result<String>;
}

/// Which key a tenant's data keys are wrapped by, and what for.
pub struct KeyUse<'a> {
    /// The tenant's name, as encryption contexts have it.
    pub tenant: &'a str,
    /// The key that wraps its data keys.
    pub key: &'a CustomerKey,
    /// The key that they are being moved to.
    pub next: Option<&'a CustomerKey>,
    /// What its data keys are for.
    pub purposes: &'a [Purpose],
}

/// As whom we use keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePrincipal {
    /// As the provider's policies name it.
    pub name: Box<str>,
    /// It was told by a provider that doesn't know its whole name.
    pub is_guess: bool,
}

/// How long what was allowed is used after it was withdrawn, and the like, by the settings.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest that a data key is used without asking for it again.
    pub cache_ttl: Duration,
    /// Age at which a data key in use is asked for again.
    pub soft_ttl: Duration,
    /// Longest that a failure is remembered.
    pub failure_ttl: Duration,
    /// How often a key that nobody uses is looked at; `None` if nobody looks.
    pub monitor_interval: Option<Duration>,
}
