//! What the server knows: keys, roles and the sessions it issued. All in memory.

mod key;
mod key_store;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use time::OffsetDateTime;

pub use key::{EXTERNAL, Key, KeyState, NewKey, SYMMETRIC};
pub use key_store::Trouble;

use crate::auth::Caller;
use crate::error::ApiError;

/// The account of every caller with a permanent access key.
pub const CALLER_ACCOUNT: &str = "111122223333";

#[derive(Default)]
pub struct Store {
    /// By ARN
    keys: BTreeMap<String, Key>,
    /// By role ARN
    roles: HashMap<String, Trust>,
    /// By access key id
    sessions: HashMap<String, Session>,
    /// The permanent access key ids that exist; None is any.
    pub access_keys: Option<Vec<String>>,
}

impl Store {
    pub fn add_key(&mut self, new: NewKey) -> Result<&mut Key, getrandom::Error> {
        let key = Key::generate(new)?;
        let arn = key.arn.clone();
        Ok(self.keys.entry(arn).insert_entry(key).into_mut())
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// The key with this ARN in whatever state, a deleted one too.
    pub fn key(&self, arn: &str) -> Option<&Key> {
        self.keys.get(arn)
    }

    /// The keys that have the same material, this one included.
    pub fn replicas(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.keys.values().filter(|other| Arc::ptr_eq(&other.generations, &key.generations))
    }

    /// A replica of a multi-Region key.
    pub fn replicate(&mut self, arn: &str, region: &str) -> Option<&Key> {
        let replica = self.keys.get(arn)?.replica_in(region);
        let arn = replica.arn.clone();
        Some(self.keys.entry(arn).insert_entry(replica).into_mut())
    }

    /// The same, to change it.
    pub fn key_mut(&mut self, arn: &str) -> Option<&mut Key> {
        self.keys.get_mut(arn)
    }

    pub fn trust(&mut self, role_arn: String, trust: Trust) {
        self.roles.insert(role_arn, trust);
    }

    /// Whether the role exists and lets in this caller, who presents this external id.
    pub fn trusts(&self, role_arn: &str, caller: &Caller, external_id: Option<&str>) -> bool {
        self.roles.get(role_arn).is_some_and(|trust| {
            let presented =
                trust.external_id.is_none() || trust.external_id.as_deref() == external_id;
            presented && caller.is_among(trust.allow.as_deref())
        })
    }

    pub fn add_session(&mut self, session: Session) {
        self.sessions.insert(session.access_key_id.clone(), session);
    }

    pub fn session(&self, access_key_id: &str) -> Option<&Session> {
        self.sessions.get(access_key_id)
    }

    /// Ends the sessions of a role that have not ended yet, and says how many.
    pub fn end_sessions(&mut self, role_arn: &str) -> usize {
        let mut ended = 0;
        for session in self.sessions.values_mut() {
            if session.role_arn == role_arn && !session.has_expired() {
                session.expires_at = OffsetDateTime::UNIX_EPOCH;
                ended += 1;
            }
        }
        ended
    }

    /// Whether a permanent access key id belongs to anybody.
    pub fn has_access_key(&self, access_key_id: &str) -> bool {
        let listed = |ids: &Vec<String>| ids.iter().any(|id| id == access_key_id);
        self.access_keys.as_ref().is_none_or(listed)
    }
}

/// Who may assume a role.
pub struct Trust {
    /// What AssumeRole has to present, if anything
    pub external_id: Option<String>,
    /// Who may ask; None is anybody.
    pub allow: Option<Vec<String>>,
}

/// Temporary credentials.
pub struct Session {
    pub access_key_id: String,
    pub token: String,
    pub role_arn: String,
    pub name: String,
    pub expires_at: OffsetDateTime,
}

impl Session {
    pub fn has_expired(&self) -> bool {
        OffsetDateTime::now_utc() >= self.expires_at
    }

    pub fn account(&self) -> &str {
        self.role_arn.split(':').nth(4).unwrap_or_default()
    }

    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`
    pub fn arn(&self) -> String {
        let role = self.role_arn.rsplit('/').next().unwrap_or_default();
        format!("arn:aws:sts::{}:assumed-role/{role}/{}", self.account(), self.name)
    }
}

/// The key that a request names by ARN or, in the caller's own account and Region, by id.
///
/// # Errors
/// As AWS: NotFoundException for aliases, other Regions and names of no known form.
pub fn key_arn(region: &str, account: &str, key_id: &str) -> Result<String, ApiError> {
    if let Some(rest) = key_id.strip_prefix("arn:") {
        let parts: Vec<&str> = rest.splitn(5, ':').collect();
        return match parts[..] {
            [_, "kms", named, _, resource] if named == region && resource.starts_with("key/") => {
                Ok(key_id.to_owned())
            }
            [_, "kms", named, _, resource] if named == region && resource.starts_with("alias/") => {
                Err(ApiError::not_found(format!("Alias {key_id} is not found.")))
            }
            [_, "kms", named, ..] => Err(ApiError::not_found(format!("Invalid arn {named}"))),
            _ => Err(ApiError::not_found(format!("Invalid arn {key_id}"))),
        };
    }
    if key_id.starts_with("alias/") {
        let alias = format!("arn:aws:kms:{region}:{account}:{key_id}");
        return Err(ApiError::not_found(format!("Alias {alias} is not found.")));
    }
    let is_id = !key_id.is_empty() && key_id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_id {
        return Err(ApiError::not_found(format!("Invalid keyId '{key_id}'")));
    }
    Ok(format!("arn:aws:kms:{region}:{account}:key/{key_id}"))
}
