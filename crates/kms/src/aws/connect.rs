//! Makes a client, with an identity of its own, over connections that all share.

use super::answer_limit::limited;
use super::assumed_role::AssumedRole;
use super::credentials::{self, Identity};
use super::endpoint;
use super::settings::AwsSettings;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use cmk_error::{Reason, Result};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// What tells clients of the same settings apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// Of the key.
    pub region: Box<str>,
    /// `None`: the server's own identity.
    pub role: Option<AssumedRole>,
}

/// A client and where it comes from.
#[derive(Clone)]
pub struct Made {
    /// Cheap to clone.
    pub client: Client,
    /// When it was made.
    pub at: Instant,
    /// Who we are to it.
    pub identity: Arc<Identity>,
}

/// What every client starts from: the SDK's defaults, and the connections of this process.
pub fn loader() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest()).http_client(connections())
}

/// A client whose chain of credentials providers has asked nobody yet.
///
/// # Errors
/// `endpoint` for an endpoint setting that isn't https, or http to a loopback address;
/// `credentials` if there is no chain.
pub async fn connect(
    loader: ConfigLoader,
    settings: &AwsSettings,
    ClientKey { region, role }: &ClientKey,
) -> Result<Made> {
    let kms_endpoint = settings.kms_endpoint.as_deref().map(endpoint::check).transpose()?;
    let sts_endpoint = settings.sts_endpoint.as_deref().map(endpoint::check).transpose()?;

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
    let mut loader = loader
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

/// What all clients of this process connect with: TLS and its root certificates, which take about
/// 10 ms and 5 MB to make (docs/performance.md).
///
/// The SDK makes one connector of it for each pair of connect and read timeout that it meets, and
/// so one for all calls to KMS and STS, however many clients there are.
fn connections() -> SharedHttpClient {
    static CONNECTIONS: LazyLock<SharedHttpClient> = LazyLock::new(|| {
        // No idle connections: between two calls nobody would look at one, and its TLS buffers
        // would keep the last plain data key in ordinary memory. A closed connection's memory is
        // zeroed as it is freed.
        let connections = aws_smithy_http_client::Builder::new()
            .pool_max_idle_per_host(0)
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        limited(connections)
    });
    CONNECTIONS.clone()
}
