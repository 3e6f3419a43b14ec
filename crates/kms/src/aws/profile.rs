//! What the AWS profile says about credentials (AWS SDKs and Tools Reference Guide, "Shared config
//! and credentials files"). Profiles that run a program or wait for a login are told apart, because
//! a database server does neither.

use aws_config::profile::{Profile, ProfileSet};
use aws_credential_types::Credentials;

/// Where a profile has its credentials from.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it begins.
    pub base: Base,
    /// Roles that are assumed one after the other.
    pub roles: Vec<Role>,
}

/// The first credentials of a profile.
#[derive(Debug, PartialEq, Eq)]
pub enum Base {
    /// The profile says nothing about credentials, or there is none.
    Nothing,
    /// They stand there.
    Keys(Credentials),
    /// A token, and the role that it is exchanged for.
    WebIdentity {
        /// Which role.
        role_arn: String,
        /// Where the token is.
        token_file: String,
        /// How the session is to be called.
        session_name: Option<String>,
    },
    /// `credential_source`: variables of the environment.
    Environment,
    /// `credential_source`: the metadata service of the instance.
    Imds,
    /// `credential_source`: that of the container.
    Container,
    /// A program or a login.
    Unsupported,
    /// The profile contradicts itself, or names another one that isn't there.
    Broken,
}

/// A role that a profile assumes.
#[derive(Debug, PartialEq, Eq)]
pub struct Role {
    /// Which one.
    pub arn: String,
    /// What its trust policy may ask for.
    pub external_id: Option<String>,
    /// How the session is to be called.
    pub session_name: Option<String>,
}

/// Whether this profile, or one that it builds on, runs a program or waits for a login.
const UNSUPPORTED: [&str; 6] = [
    "credential_process",
    "login_session",
    "sso_session",
    "sso_start_url",
    "sso_account_id",
    "sso_role_name",
];

impl Origin {
    /// Of the selected profile. `is_asked_for`: it was named, so that its absence is a mistake.
    pub fn of(profiles: &ProfileSet, is_asked_for: bool) -> Self {
        let (mut name, mut seen, mut roles) = (profiles.selected_profile(), Vec::new(), Vec::new());
        if profiles.get_profile(name).is_none() && !is_asked_for {
            return Self { base: Base::Nothing, roles };
        }
        let base = loop {
            let Some(profile) = profiles.get_profile(name).filter(|_| !seen.contains(&name)) else {
                break Base::Broken;
            };
            // Keys of a profile that another one builds on come before what it builds on itself.
            if !seen.is_empty()
                && let Some(keys) = keys(profile)
            {
                break keys;
            }
            seen.push(name);
            let Some(role) = role(profile) else { break base(profile) };
            roles.push(role);
            match (profile.get("source_profile"), profile.get("credential_source")) {
                (Some(source), None) if source == name => break base(profile),
                (Some(source), None) => name = source,
                (None, Some(_)) => break base(profile),
                _ => break Base::Broken,
            }
        };
        roles.reverse();
        let base = if base == Base::Nothing && !roles.is_empty() { Base::Broken } else { base };
        Self { base, roles }
    }
}

fn role(profile: &Profile) -> Option<Role> {
    if profile.get("web_identity_token_file").is_some() {
        return None;
    }
    Some(Role {
        arn: profile.get("role_arn")?.to_owned(),
        external_id: profile.get("external_id").map(str::to_owned),
        session_name: profile.get("role_session_name").map(str::to_owned),
    })
}

fn base(profile: &Profile) -> Base {
    if let Some(source) = profile.get("credential_source") {
        return match source {
            "Environment" => Base::Environment,
            "Ec2InstanceMetadata" => Base::Imds,
            "EcsContainer" => Base::Container,
            _ => Base::Broken,
        };
    }
    if let Some(token_file) = profile.get("web_identity_token_file") {
        return match profile.get("role_arn") {
            Some(role_arn) => Base::WebIdentity {
                role_arn: role_arn.to_owned(),
                token_file: token_file.to_owned(),
                session_name: profile.get("role_session_name").map(str::to_owned),
            },
            None => Base::Broken,
        };
    }
    if UNSUPPORTED.iter().any(|key| profile.get(key).is_some()) {
        return Base::Unsupported;
    }
    keys(profile).unwrap_or(Base::Nothing)
}

/// Half a pair of keys is a mistake.
fn keys(profile: &Profile) -> Option<Base> {
    let (id, secret) = (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key"));
    match (id, secret) {
        (None, None) => None,
        (Some(id), Some(secret)) => {
            let token = profile.get("aws_session_token").map(str::to_owned);
            Some(Base::Keys(Credentials::new(id, secret, token, None, "Profile")))
        }
        _ => Some(Base::Broken),
    }
}

#[cfg(test)]
mod tests;
