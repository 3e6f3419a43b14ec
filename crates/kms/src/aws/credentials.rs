//! Where credentials come from, and the longest time that they are used without asking again.

use super::assumed_role::AssumedRole;
use super::failure;
use super::progress::Asking;
use super::sources::{SESSION_NAME, Sources};
use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// Lifetime asked for an assumed role's credentials: the least that STS allows, because a trust
/// policy that the tenant changes takes effect when the last session ends.
const SESSION: Duration = Duration::from_secs(900);

/// Longest that our own credentials are used without asking for them anew.
const OWN: Duration = Duration::from_secs(3600);

/// The server's own identity: where its credentials come from, and a hash of those that it last
/// had.
#[derive(Debug)]
pub struct Identity {
    chain: Capped,
    sources: Option<Arc<Sources>>,
    last: Mutex<Option<Fingerprint>>,
}

/// A hash of credentials, to compare them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Identity {
    /// Nobody has been asked yet.
    pub fn new(chain: SharedCredentialsProvider) -> Self {
        let chain = Capped { provider: chain, longest: OWN };
        Self { chain, sources: None, last: Mutex::new(None) }
    }

    /// Of these sources.
    pub fn of(sources: Sources) -> Self {
        let sources = Arc::new(sources);
        let provider: Arc<dyn ProvideCredentials> = sources.clone();
        let sources = Some(sources);
        Self { sources, ..Self::new(SharedCredentialsProvider::from(provider)) }
    }

    /// Which of the sources gave the last credentials.
    pub fn provider(&self) -> Option<&'static str> {
        self.sources.as_ref().and_then(|sources| sources.last())
    }

    /// Which of the sources will be asked.
    pub fn configured(&self) -> Option<&'static str> {
        self.sources.as_ref().and_then(|sources| sources.configured())
    }

    /// The credentials that it last gave; `None` if it wasn't asked or had none.
    pub fn last(&self) -> Option<Fingerprint> {
        *self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ProvideCredentials for Identity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials = self.chain.provide_credentials().await?;
            let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *last = Some(fingerprint(&credentials));
            Ok(credentials)
        })
    }
}

fn fingerprint(credentials: &Credentials) -> Fingerprint {
    let mut hash = Sha256::new();
    let token = credentials.session_token().unwrap_or_default();
    for part in [credentials.access_key_id(), credentials.secret_access_key(), token] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Fingerprint(hash.finalize().into())
}

/// A role of the tenant's account, assumed with the server's own identity.
pub async fn assumed(role: &AssumedRole, config: &SdkConfig) -> SharedCredentialsProvider {
    let provider = AssumeRoleProvider::builder(role.arn.as_str())
        .external_id(role.external_id.as_str())
        .session_name(SESSION_NAME)
        .session_length(SESSION)
        .configure(config)
        .build()
        .await;
    let provider = SharedCredentialsProvider::new(Assumed(provider));
    SharedCredentialsProvider::new(Capped { provider, longest: SESSION })
}

/// Sessions of a tenant's role, and what stands in their way in our own words.
#[derive(Debug)]
struct Assumed(AssumeRoleProvider);

impl ProvideCredentials for Assumed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let asking = Asking::begin(failure::ASSUME_ROLE);
            let answer = self.0.provide_credentials().await.map_err(failure::of_assumed_role);
            asking.answered();
            answer
        })
    }
}

/// A provider of credentials that expire after `longest` at the latest, whatever it says: an answer
/// that says the year 9999 would undo the revocation bound.
#[derive(Debug)]
struct Capped {
    provider: SharedCredentialsProvider,
    longest: Duration,
}

impl ProvideCredentials for Capped {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let mut credentials = self.provider.provide_credentials().await?;
            let latest = SystemTime::now() + self.longest;
            if let Some(expiry) = credentials.expiry_mut() {
                *expiry = latest.min(*expiry);
            }
            Ok(credentials)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_believed_within_the_limit_only() {
        let longest = Duration::from_secs(900);
        let now = SystemTime::now();
        for (claimed, within) in [(60, 59..=60), (900_000_000, 899..=901)] {
            let expiry = Some(now + Duration::from_secs(claimed));
            let said = Credentials::new("AKIAFAKE", "fake", None, expiry, "test");
            let capped = Capped { provider: SharedCredentialsProvider::new(said), longest };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(capped.provide_credentials()).unwrap();
            let left = got.expiry().unwrap().duration_since(now).unwrap().as_secs();
            assert!(within.contains(&left), "{left}");
        }
    }
}
