//! The server's own sources of credentials, in the SDK's order: variables of the environment,
//! the profile, a web identity token, the container's, the instance's metadata.
//!
//! The chain is put together here, because the SDK's own asks STS where nobody can tell it to, and
//! doesn't say which of its providers failed.

use super::environment::{self, variable};
use super::failure;
use super::layer;
use super::profile::{Base, Origin, Role};
use super::progress::Asking;
use super::web_identity::WebIdentity;
use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileSet;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use cmk_error::Cause;
use std::io;
use std::path::Path;
use std::sync::Mutex;

/// How often the metadata service is asked, at most: each attempt takes it up to 2 seconds, and a
/// call has 5.
const METADATA_ATTEMPTS: u32 = 2;

/// How our sessions of roles are called unless somebody says otherwise.
pub const SESSION_NAME: &str = "cmk_encrypt";

/// Providers of credentials, by the names that errors and `cmk.identity()` have for them.
mod name {
    pub const ENVIRONMENT: &str = "environment";
    pub const PROFILE: &str = "profile";
    pub const WEB_IDENTITY: &str = "web_identity";
    pub const CONTAINER: &str = "container";
    pub const IMDS: &str = "imds";
    pub const NONE: &str = "none";
}

/// The first one that is configured is asked; its answer is the answer.
#[derive(Debug)]
pub struct Sources {
    all: Vec<Source>,
    last: Mutex<Option<&'static str>>,
}

#[derive(Debug)]
struct Source {
    name: &'static str,
    /// It is meant: if it has none, nobody else is asked.
    is_configured: bool,
    provider: Result<SharedCredentialsProvider, Cause>,
}

impl Sources {
    /// Of this process. `sts`: how STS is to be asked.
    pub async fn of_environment(sts: &SdkConfig, profiles: &io::Result<ProfileSet>) -> Self {
        let find = Find { sts, providers: provider_config(sts) };
        let is_set = |name: &str| variable(name).is_some();
        let mut all = vec![Source {
            name: name::ENVIRONMENT,
            is_configured: is_set("AWS_ACCESS_KEY_ID") || is_set("AWS_SECRET_ACCESS_KEY"),
            provider: Ok(find.environment()),
        }];
        let is_asked_for = is_set("AWS_PROFILE");
        let origin = profiles.as_ref().map(|profiles| Origin::of(profiles, is_asked_for));
        match origin {
            Ok(Origin { base: Base::Nothing, .. }) => {}
            Ok(origin) => all.push(find.of_profile(origin).await),
            Err(error) => {
                let cause = layer::resources(error).unwrap_or(Cause::Credentials);
                all.push(broken(name::PROFILE, cause));
            }
        }
        if let Some(token_file) = variable("AWS_WEB_IDENTITY_TOKEN_FILE") {
            all.push(match variable("AWS_ROLE_ARN") {
                Some(role_arn) => {
                    let session_name = variable("AWS_ROLE_SESSION_NAME");
                    let provider = find.web_identity(role_arn, token_file, session_name);
                    configured(name::WEB_IDENTITY, provider)
                }
                None => broken(name::WEB_IDENTITY, Cause::WebIdentity),
            });
        }
        let token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let readable = token.map_or(Ok(()), |it| environment::require_no_pipe(Path::new(&it)));
        all.push(Source {
            name: name::CONTAINER,
            is_configured: is_set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
                || is_set("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            provider: readable.map(|()| find.container()).map_err(|_| Cause::Credentials),
        });
        let disabled = variable("AWS_EC2_METADATA_DISABLED");
        if !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            all.push(configured(name::IMDS, find.imds()));
        }
        Self { all, last: Mutex::new(None) }
    }

    /// The one that gave credentials last.
    pub fn last(&self) -> Option<&'static str> {
        *self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The one that is asked.
    pub fn configured(&self) -> Option<&'static str> {
        self.first().map(|source| source.name)
    }

    fn first(&self) -> Option<&Source> {
        self.all.iter().find(|source| source.is_configured)
    }

    async fn ask(&self) -> provider::Result {
        let Some(source) = self.first() else {
            return Err(failure::broken(name::NONE, Cause::Credentials));
        };
        let asking = Asking::begin(source.name);
        let answer = match &source.provider {
            Ok(provider) => provider.provide_credentials().await,
            Err(cause) => Err(failure::broken(source.name, *cause)),
        };
        let answer = answer.map_err(|error| failure::of_source(source.name, error));
        asking.answered();
        if answer.is_ok() {
            let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *last = Some(source.name);
        }
        answer
    }
}

impl ProvideCredentials for Sources {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}

fn configured(name: &'static str, provider: SharedCredentialsProvider) -> Source {
    Source { name, is_configured: true, provider: Ok(provider) }
}

fn broken(name: &'static str, cause: Cause) -> Source {
    Source { name, is_configured: true, provider: Err(cause) }
}

/// With the connections, and the patience, of STS.
fn provider_config(sts: &SdkConfig) -> ProviderConfig {
    let mut config = ProviderConfig::without_region().with_region(sts.region().cloned());
    if let Some(http_client) = sts.http_client() {
        config = config.with_http_client(http_client);
    }
    config
}

/// Makes providers.
struct Find<'a> {
    sts: &'a SdkConfig,
    providers: ProviderConfig,
}

impl Find<'_> {
    fn environment(&self) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new())
    }

    fn web_identity(
        &self,
        role_arn: String,
        token_file: String,
        session_name: Option<String>,
    ) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(WebIdentity {
            sts: aws_sdk_sts::Client::new(self.sts),
            role_arn,
            token_file: token_file.into(),
            session_name: session_name.unwrap_or_else(|| SESSION_NAME.to_owned()),
        })
    }

    fn container(&self) -> SharedCredentialsProvider {
        let provider = EcsCredentialsProvider::builder().configure(&self.providers).build();
        SharedCredentialsProvider::new(provider)
    }

    fn imds(&self) -> SharedCredentialsProvider {
        let client = imds::Client::builder()
            .configure(&self.providers)
            .max_attempts(METADATA_ATTEMPTS)
            .build();
        let provider = ImdsCredentialsProvider::builder()
            .configure(&self.providers)
            .imds_client(client)
            .build();
        SharedCredentialsProvider::new(provider)
    }

    async fn of_profile(&self, origin: Origin) -> Source {
        let (base, provider) = match origin.base {
            Base::Keys(keys) => (name::PROFILE, SharedCredentialsProvider::new(keys)),
            Base::WebIdentity { role_arn, token_file, session_name } => {
                let provider = self.web_identity(role_arn, token_file, session_name);
                (name::WEB_IDENTITY, provider)
            }
            Base::Environment => (name::ENVIRONMENT, self.environment()),
            Base::Imds => (name::IMDS, self.imds()),
            Base::Container => (name::CONTAINER, self.container()),
            Base::Unsupported => return broken(name::PROFILE, Cause::UnsupportedProfile),
            Base::Broken | Base::Nothing => return broken(name::PROFILE, Cause::Credentials),
        };
        if origin.roles.is_empty() {
            return configured(base, provider);
        }
        let mut provider = named(base, provider);
        for role in origin.roles {
            provider = named(failure::ASSUME_ROLE, self.assumed(role, provider).await);
        }
        configured(name::PROFILE, provider)
    }

    async fn assumed(
        &self,
        role: Role,
        by: SharedCredentialsProvider,
    ) -> SharedCredentialsProvider {
        let mut builder = AssumeRoleProvider::builder(role.arn)
            .session_name(role.session_name.unwrap_or_else(|| SESSION_NAME.to_owned()))
            .configure(self.sts);
        if let Some(external_id) = role.external_id {
            builder = builder.external_id(external_id);
        }
        SharedCredentialsProvider::new(builder.build_from_provider(by).await)
    }
}

/// A provider that another one asks.
#[derive(Debug)]
struct Named {
    name: &'static str,
    provider: SharedCredentialsProvider,
}

fn named(name: &'static str, provider: SharedCredentialsProvider) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Named { name, provider })
}

impl ProvideCredentials for Named {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let asking = Asking::begin(self.name);
            let answer = self.provider.provide_credentials().await;
            let answer = answer.map_err(|error| failure::of_source(self.name, error));
            asking.answered();
            answer
        })
    }
}
