//! One client a Region and assumed role, reused by all calls of this process until its identity is refused.

use super::answer_limit::limited;
use super::credentials::{self, Identity};
use crate::AssumedRole;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use cmk_error::{Error, Reason, Result};
use dashmap::DashMap;
use once_cell::sync::Lazy;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::{Host, Url};

/// Clients kept at most: one per tenant with a role of its own. Beyond it all are dropped and made anew.
const MAX_CLIENTS: usize = 64;

/// How often a client is made anew because its credentials aren't accepted, at most.
const PAUSE: Duration = Duration::from_secs(2);

/// Where KMS is and how long it may take. Part of a client's identity: a changed setting makes new
/// clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsSettings {
    /// `None`: the public endpoint of the key's Region.
    pub kms_endpoint: Option<String>,
    pub sts_endpoint: Option<String>,
    pub connect_timeout: Duration,
    pub attempt_timeout: Duration,
    pub operation_timeout: Duration,
    /// First attempt included.
    pub max_attempts: u32,
}

#[derive(PartialEq, Eq, Hash)]
struct ClientKey {
    settings: AwsSettings,
    region: Box<str>,
    role: Option<AssumedRole>,
}

/// The clients of this process.
#[derive(Default)]
pub struct Clients {
    by_key: DashMap<ClientKey, Made>,
}

/// A client, when it was made, and with which identity.
#[derive(Clone)]
struct Made {
    client: Client,
    at: Instant,
    identity: Arc<Identity>,
}

impl Clients {
    /// Makes a call. It may be refused for who we are, with credentials that are out of date: the file was rotated, the
    /// instance has another role. A chain of providers asks its sources once, so a new one is asked whom it takes us
    /// for. If that is somebody else, or a tenant's role is assumed, or our credentials are not accepted at all, then the call
    /// is made once more with a new client: what that one meets is the answer.
    ///
    /// # Errors
    /// `endpoint` for an endpoint setting that isn't https, or http to a loopback address; what the call returns.
    pub async fn call<R>(
        &self,
        settings: &AwsSettings,
        region: &str,
        role: Option<&AssumedRole>,
        call: impl AsyncFn(&Client) -> Result<R>,
    ) -> Result<R> {
        let key =
            ClientKey { settings: settings.clone(), region: region.into(), role: role.cloned() };
        let Some(known) = self.by_key.get(&key).map(|made| made.clone()) else {
            let made = connect(&key).await?;
            self.keep(key, &made);
            return call(&made.client).await;
        };
        let refused = match call(&known.client).await {
            Err(error) if error.reason == Reason::KeyAccessDenied => error,
            Err(error) if error.reason == Reason::Credentials && known.at.elapsed() > PAUSE => {
                error
            }
            answer => return answer,
        };
        let made = connect(&key).await?;
        if refused.reason == Reason::KeyAccessDenied {
            let current = made.identity.provide_credentials().await;
            current.map_err(|_| Error::new(Reason::Credentials))?;
            // A session of a tenant's role may be out of date although we are the same.
            if role.is_none() && made.identity.last() == known.identity.last() {
                return Err(refused);
            }
        }
        self.keep(key, &made);
        call(&made.client).await
    }

    fn keep(&self, key: ClientKey, made: &Made) {
        if self.by_key.len() >= MAX_CLIENTS {
            self.by_key.clear();
        }
        self.by_key.insert(key, made.clone());
    }
}

async fn connect(key: &ClientKey) -> Result<Made> {
    let ClientKey { settings, region, role } = key;
    let kms_endpoint = settings.kms_endpoint.as_deref().map(check_endpoint).transpose()?;
    let sts_endpoint = settings.sts_endpoint.as_deref().map(check_endpoint).transpose()?;

    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .operation_attempt_timeout(settings.attempt_timeout)
        .operation_timeout(settings.operation_timeout)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(settings.max_attempts)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_secs(1));
    let identities = IdentityCache::lazy().load_timeout(settings.operation_timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(connections())
        .region(Region::new(region.to_string()))
        .timeout_config(timeouts)
        .retry_config(retries)
        .identity_cache(identities);
    if let Some(endpoint) = sts_endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    let chain = config.credentials_provider().ok_or(Reason::Credentials)?;
    let identity = Arc::new(Identity::new(chain));
    let own: Arc<dyn ProvideCredentials> = identity.clone();
    let own = SharedCredentialsProvider::from(own);
    let config = config.to_builder().credentials_provider(own).build();

    // The general endpoint is that of STS (used for roles); KMS gets its own or its Region's.
    let mut kms = aws_sdk_kms::config::Builder::from(&config);
    kms.set_endpoint_url(kms_endpoint.map(str::to_owned));
    if let Some(role) = role {
        kms = kms.credentials_provider(credentials::assumed(role, &config).await);
    }
    Ok(Made { client: Client::from_conf(kms.build()), at: Instant::now(), identity })
}

/// What all clients of this process connect with: TLS and its root certificates, which take long to make.
fn connections() -> SharedHttpClient {
    static CONNECTIONS: Lazy<SharedHttpClient> = Lazy::new(|| {
        // No idle connections: between two calls nobody would look at one, and its TLS buffers would keep the
        // last plain data key in ordinary memory. A closed connection's memory is zeroed as it is freed.
        let connections = aws_smithy_http_client::Builder::new()
            .pool_max_idle_per_host(0)
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        limited(connections)
    });
    CONNECTIONS.clone()
}

/// Plain data keys travel in KMS's answers, so clear text goes to this machine only.
fn check_endpoint(endpoint: &str) -> Result<&str> {
    let refused = || Error::new(Reason::Endpoint);
    let url = Url::parse(endpoint).map_err(|_| refused())?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let bare = url.username().is_empty() && url.password().is_none();
    let safe = bare && (url.scheme() == "https" || url.scheme() == "http" && loopback);
    if safe { Ok(endpoint) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_this_machine() {
        for url in [
            "https://kms.example",
            "http://127.0.0.1:80/",
            "http://[::1]:4566",
            "http://localhost:1",
        ] {
            assert!(check_endpoint(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "https://",
            "http://kms.example",
            "http://127.0.0.1.example:80",
            "ftp://127.0.0.1",
            "http://127.0.0.1@evil.example",
            "http://127.0.0.1:1@evil.example",
        ] {
            assert_eq!(check_endpoint(url).unwrap_err().reason, Reason::Endpoint, "{url}");
        }
    }
}
