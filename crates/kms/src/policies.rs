//! The providers of this build whose keys have policies, and what those have to allow.

use crate::customer_key::CustomerKey;
use crate::onboarding::{KeyUse, Onboarding};
use cmk_error::{Error, Reason, Result};
use serde_json::Value;

/// One row for each provider that tells owners of keys something.
static PROVIDERS: &[&dyn Onboarding] = &[
    #[cfg(feature = "aws")]
    &crate::aws::Aws,
];

fn is_of(provider: &dyn Onboarding, key: &CustomerKey) -> bool {
    key.uri().split_once(':').is_some_and(|(scheme, _)| scheme == provider.scheme())
}

/// What the provider of this key tells its owner.
///
/// # Errors
/// `no_key_policy` if the provider's keys have none.
pub fn of_key(key: &CustomerKey) -> Result<&'static dyn Onboarding> {
    let found = PROVIDERS.iter().copied().find(|provider| is_of(*provider, key));
    found.ok_or_else(|| Error::new(Reason::NoKeyPolicy))
}

/// What we have to be allowed on our own side, for those of these keys whose provider has policies.
/// One does; a second one takes an argument that says which is meant.
///
/// # Errors
/// `no_key_policy` if this build has no such provider.
pub fn of_service(used: Vec<KeyUse<'_>>) -> Result<Value> {
    let provider = *PROVIDERS.first().ok_or_else(|| Error::new(Reason::NoKeyPolicy))?;
    let used: Vec<_> = used.into_iter().filter(|used| is_of(provider, used.key)).collect();
    provider.service_policy(&used)
}
