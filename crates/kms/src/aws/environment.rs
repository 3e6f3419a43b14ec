//! What the server's environment and the AWS profile say about the way to KMS and STS, where our
//! own settings say nothing (AWS SDKs and Tools Reference Guide, "Settings reference").

use super::endpoint;
use super::settings::AwsSettings;
use aws_config::SdkConfig;
use aws_config::profile::{Profile, ProfileSet};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::service_config::ServiceConfigKey;
use cmk_error::{Cause, Result};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where a service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// In which Region.
    pub region: String,
    /// `None`: the Region's own endpoint.
    pub endpoint: Option<String>,
}

/// The ways to the two services, for a key in `region`.
pub struct Ways {
    /// To the key.
    pub kms: Way,
    /// To sessions of roles, and to who we are.
    pub sts: Way,
}

impl Ways {
    /// # Errors
    /// `endpoint` for what isn't usable, with the name of who says so.
    pub fn find(
        settings: &AwsSettings,
        region: &str,
        config: &SdkConfig,
        profiles: Option<&ProfileSet>,
    ) -> Result<Self> {
        let profile = profiles.and_then(|all| all.get_profile(all.selected_profile()));
        let own = own_region(profile)?.unwrap_or_else(|| region.to_owned());
        let kms = settings.kms_endpoint.as_deref().map(|it| (it, "kms_endpoint_url"));
        let sts = settings.sts_endpoint.as_deref().map(|it| (it, "sts_endpoint_url"));
        Ok(Self {
            kms: way("KMS", region.to_owned(), kms, config, profile)?,
            sts: way("STS", own, sts, config, profile)?,
        })
    }
}

/// The Region that this server is in.
///
/// # Errors
/// `endpoint` for one that can't stand in a host name.
pub fn own_region(profile: Option<&Profile>) -> Result<Option<String>> {
    let named = |name: &'static str| variable(name).map(|region| (region, name));
    let of_profile = || profile?.get("region").map(|region| (region.to_owned(), "profile"));
    let found = named("AWS_REGION").or_else(|| named("AWS_DEFAULT_REGION")).or_else(of_profile);
    match found {
        Some((region, from)) if !endpoint::is_region(&region) => {
            Err(endpoint::refused(Cause::Endpoint, from))
        }
        found => Ok(found.map(|(region, _)| region)),
    }
}

/// The same where a key says nothing about it.
///
/// # Errors
/// As [`own_region`].
pub async fn default_region() -> Result<String> {
    /// AWS's tools begin there; every account has it.
    const FIRST: &str = "us-east-1";
    let profiles = load_profiles().await;
    let profile = profiles.as_ref().ok().and_then(|all| all.get_profile(all.selected_profile()));
    Ok(own_region(profile)?.unwrap_or_else(|| FIRST.to_owned()))
}

/// What a caller says is one.
///
/// # Errors
/// `endpoint` for one that can't stand in a host name.
pub fn named_region(region: &str) -> Result<String> {
    match endpoint::is_region(region) {
        true => Ok(region.to_owned()),
        false => Err(endpoint::refused(Cause::Endpoint, "region")),
    }
}

/// From the files that `AWS_CONFIG_FILE` and `AWS_SHARED_CREDENTIALS_FILE` name, or their usual
/// places; selected by `AWS_PROFILE`.
///
/// # Errors
/// For a file that can't be read, or that a reader would wait for.
pub async fn load_profiles() -> io::Result<ProfileSet> {
    let files = [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    for (name, usual) in files {
        let home = || variable("HOME").map(|home| Path::new(&home).join(".aws").join(usual));
        if let Some(path) = variable(name).map(PathBuf::from).or_else(home) {
            require_no_pipe(&path)?;
        }
    }
    let files = EnvConfigFiles::default();
    let loaded = aws_config::profile::load(&Fs::real(), &Env::real(), &files, None).await;
    loaded.map_err(io::Error::other)
}

/// Nobody reads a pipe to its end before somebody writes it, and no time limit ends such a wait.
///
/// # Errors
/// For a pipe or a socket.
pub fn require_no_pipe(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if kind.is_fifo() || kind.is_socket() => Err(io::ErrorKind::InvalidInput.into()),
        // Whoever reads it says what else is wrong.
        _ => Ok(()),
    }
}

/// Our setting, or else what the environment and the profile say. Who asks for FIPS endpoints, and
/// gives an endpoint too, gets neither: nobody knows whether that endpoint is one.
fn way(
    service: &str,
    region: String,
    setting: Option<(&str, &str)>,
    config: &SdkConfig,
    profile: Option<&Profile>,
) -> Result<Way> {
    let endpoint = match setting {
        Some((setting, name)) => Some(endpoint::of_setting(setting, &region, name)?),
        None => configured(service, config)
            .map(|found| endpoint::check(&found, &from(service)).map(|()| found))
            .transpose()?,
    };
    if asks_for_fips(profile)? && endpoint.is_some() {
        return Err(endpoint::refused(Cause::Fips, "AWS_USE_FIPS_ENDPOINT"));
    }
    Ok(Way { region, endpoint })
}

/// In the order of AWS's tools: the service's variable, the general one, the profile's entry for
/// the service, its general one; none of them with `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`.
fn configured(service: &str, config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env(ENDPOINT)
        .profile("endpoint_url")
        .build()
        .ok()?;
    config.service_config()?.load_config(key).filter(|found| !found.is_empty())
}

const ENDPOINT: &str = "AWS_ENDPOINT_URL";

fn from(service: &str) -> String {
    let of_service = format!("{ENDPOINT}_{service}");
    [of_service, ENDPOINT.to_owned()]
        .into_iter()
        .find(|name| variable(name).is_some())
        .unwrap_or_else(|| "profile".to_owned())
}

/// # Errors
/// `endpoint` for what is neither true nor false: the SDK would take it for false.
fn asks_for_fips(profile: Option<&Profile>) -> Result<bool> {
    const VARIABLE: &str = "AWS_USE_FIPS_ENDPOINT";
    let of_profile = || profile?.get("use_fips_endpoint").map(|it| (it.to_owned(), "profile"));
    let said = variable(VARIABLE).map(|value| (value, VARIABLE)).or_else(of_profile);
    let Some((said, from)) = said else { return Ok(false) };
    match said.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(endpoint::refused(Cause::Fips, from)),
    }
}

/// A variable of the server's environment; an empty one says nothing.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
