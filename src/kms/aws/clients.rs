//! One client a Region and assumed role, reused by all calls of this process.

use crate::error::{Error, Reason, Result};
use crate::kms::AssumedRole;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use dashmap::DashMap;
use std::time::Duration;
use url::{Host, Url};

/// Clients kept at most: one per tenant with a role of its own. Beyond it all are dropped and made anew.
const MAX_CLIENTS: usize = 64;

/// Lifetime asked for an assumed role's credentials: the least that STS allows, because a trust policy
/// that the tenant changes takes effect when the last session ends.
const SESSION: Duration = Duration::from_secs(900);

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
    by_key: DashMap<ClientKey, Client>,
}

impl Clients {
    /// # Errors
    /// `endpoint` for an endpoint setting that isn't https, or http to a loopback address.
    pub async fn client(
        &self,
        settings: &AwsSettings,
        region: &str,
        role: Option<&AssumedRole>,
    ) -> Result<Client> {
        let key =
            ClientKey { settings: settings.clone(), region: region.into(), role: role.cloned() };
        if let Some(client) = self.by_key.get(&key) {
            return Ok(client.clone());
        }
        let client = connect(settings, region, role).await?;
        if self.by_key.len() >= MAX_CLIENTS {
            self.by_key.clear();
        }
        self.by_key.insert(key, client.clone());
        Ok(client)
    }
}

async fn connect(
    settings: &AwsSettings,
    region: &str,
    role: Option<&AssumedRole>,
) -> Result<Client> {
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
    // No idle connections: between two calls nobody would look at one, and its TLS buffers would keep the
    // last plain data key in ordinary memory. A closed connection's memory is zeroed as it is freed.
    let connections = aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(0)
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(connections)
        .region(Region::new(region.to_owned()))
        .timeout_config(timeouts)
        .retry_config(retries)
        .identity_cache(identities);
    if let Some(endpoint) = sts_endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;

    // The general endpoint is that of STS (used for roles); KMS gets its own or its Region's.
    let mut kms = aws_sdk_kms::config::Builder::from(&config);
    kms.set_endpoint_url(kms_endpoint.map(str::to_owned));
    if let Some(role) = role {
        kms = kms.credentials_provider(assume(role, &config).await);
    }
    Ok(Client::from_conf(kms.build()))
}

async fn assume(role: &AssumedRole, config: &SdkConfig) -> AssumeRoleProvider {
    AssumeRoleProvider::builder(role.arn.as_str())
        .external_id(role.external_id.as_str())
        .session_name("cmk_encrypt")
        .session_length(SESSION)
        .configure(config)
        .build()
        .await
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
