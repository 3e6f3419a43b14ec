//! Makes a client, with an identity of its own, over connections that all share.

use super::assumed_role::AssumedRole;
use super::connections::connections;
use super::credentials::{self, Identity};
use super::environment::{self, Way, Ways};
use super::failure;
use super::progress;
use super::settings::AwsSettings;
use super::sources::Sources;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use cmk_error::Result;
use std::sync::Arc;
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
    /// What a client of STS is made with: our own credentials, whatever role `client` assumes, and
    /// our own Region, wherever the key is.
    pub sts: SdkConfig,
    /// Where the key is.
    pub region: Box<str>,
    /// When it was made.
    pub at: Instant,
    /// Who we are to it.
    pub identity: Arc<Identity>,
    /// Of which provider it needs credentials first.
    pub provider: Option<&'static str>,
}

impl Made {
    /// The Region of STS.
    pub fn own_region(&self) -> &str {
        self.sts.region().map_or("", |region| region.as_ref())
    }

    /// What is asked from now on is asked there.
    pub fn begin(&self) {
        progress::in_regions(&self.region, self.own_region());
        progress::needs(self.provider);
    }
}

/// What every client starts from: the SDK's defaults, and the connections of this process. Where
/// credentials come from is not the SDK's to say.
///
/// # Errors
/// As [`connections`].
pub fn loader() -> Result<ConfigLoader> {
    let connections = connections()?;
    Ok(aws_config::defaults(BehaviorVersion::latest()).http_client(connections).no_credentials())
}

/// A client whose sources of credentials have not been asked yet.
///
/// # Errors
/// `endpoint` for a way to KMS or STS that isn't usable as it is configured.
pub async fn connect(
    loader: ConfigLoader,
    settings: &AwsSettings,
    ClientKey { region, role }: &ClientKey,
) -> Result<Made> {
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
    let profiles = environment::load_profiles().await;
    let mut loader = loader
        .region(Region::new(region.to_string()))
        .timeout_config(timeouts)
        .retry_config(retries)
        .identity_cache(identities);
    if profiles.is_err() {
        // The SDK would read them again, and wait where we don't.
        let nothing = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, "");
        loader = loader.profile_files(nothing.build());
    }
    let config = loader.load().await;
    let ways = Ways::find(settings, region, &config, profiles.as_ref().ok())?;

    let sts = on(&config, &ways.sts);
    let identity = match config.credentials_provider() {
        Some(given) => Identity::new(given),
        None => Identity::of(Sources::of_environment(&sts, &profiles).await),
    };
    let identity = Arc::new(identity);
    let own: Arc<dyn ProvideCredentials> = identity.clone();
    let own = SharedCredentialsProvider::from(own);
    let sts = sts.into_builder().credentials_provider(own.clone()).build();

    let kms = on(&config, &ways.kms).into_builder().credentials_provider(own).build();
    let mut kms = aws_sdk_kms::config::Builder::from(&kms);
    if let Some(role) = role {
        kms = kms.credentials_provider(credentials::assumed(role, &sts).await);
    }
    let client = Client::from_conf(kms.build());
    let provider = match role {
        Some(_) => Some(failure::ASSUME_ROLE),
        None => identity.configured(),
    };
    Ok(Made { client, sts, region: region.clone(), at: Instant::now(), identity, provider })
}

/// The same for this way alone, whatever else the environment says. An endpoint that was named has
/// no second form for IPv6.
fn on(config: &SdkConfig, way: &Way) -> SdkConfig {
    let mut on =
        config.to_builder().region(Region::new(way.region.clone())).service_config(Nothing);
    on.set_endpoint_url(way.endpoint.clone());
    if way.endpoint.is_some() {
        on.set_use_dual_stack(Some(false));
    }
    on.build()
}

/// No further settings of services.
#[derive(Debug)]
struct Nothing;

impl LoadServiceConfig for Nothing {
    fn load_config(&self, _key: ServiceConfigKey<'_>) -> Option<String> {
        None
    }
}
