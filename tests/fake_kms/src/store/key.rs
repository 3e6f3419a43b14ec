//! A key: its state, its material and who may use it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::key_store::{CLOUDHSM, EXTERNAL_KEY_STORE, Trouble};
use crate::auth::Caller;
use crate::error::ApiError;

/// The one key spec that can encrypt here; keys of others exist to be refused.
pub const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
/// The origin of imported key material.
pub const EXTERNAL: &str = "EXTERNAL";
/// What the ids of multi-Region keys begin with, and those of no others.
const MULTI_REGION: &str = "mrk-";

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum KeyState {
    Enabled,
    Disabled,
    PendingDeletion,
    /// The primary of a multi-Region key, to be deleted once its replicas are gone.
    PendingReplicaDeletion,
    /// Past the waiting period: AWS knows nothing of the key any more.
    Deleted,
    PendingImport,
    Unavailable,
    Creating,
    Updating,
}

pub struct NewKey {
    pub region: String,
    pub account: String,
    /// A random UUID if None
    pub key_id: Option<String>,
    pub usage: String,
    pub spec: String,
    pub origin: String,
    pub description: String,
    pub multi_region: bool,
}

pub struct Key {
    pub arn: String,
    pub id: String,
    pub region: String,
    pub account: String,
    pub usage: String,
    pub spec: String,
    pub origin: String,
    pub description: String,
    pub state: KeyState,
    /// What its custom key store makes of calls.
    pub trouble: Option<Trouble>,
    pub created_at: OffsetDateTime,
    pub deletion_date: Option<OffsetDateTime>,
    /// When imported key material expires
    pub valid_to: Option<OffsetDateTime>,
    pub rotates: bool,
    /// The key material, newest last; ciphertexts name theirs by index. Replicas of a multi-Region
    /// key share it.
    pub generations: Arc<Mutex<Vec<[u8; 32]>>>,
    /// Among replicas; a key without any is its own.
    pub is_primary: bool,
    pub denied: Denied,
    /// Who may use the key; None is anybody.
    pub principals: Option<Vec<String>>,
    /// What GetKeyPolicy shows; None is what AWS gives a new key. It decides nothing here.
    pub policy: Option<String>,
}

/// The actions that the key's policy denies to everybody.
#[derive(Default)]
pub enum Denied {
    #[default]
    Nothing,
    Everything,
    Actions(BTreeSet<String>),
}

impl Denied {
    /// Changes the named actions, or everything if none is named.
    pub fn set(&mut self, deny: bool, actions: Option<Vec<String>>) {
        *self = match (actions, std::mem::take(self)) {
            (None, _) if deny => Self::Everything,
            (None, _) => Self::Nothing,
            (Some(actions), Self::Actions(mut denied)) => {
                for action in actions {
                    if deny {
                        denied.insert(action);
                    } else {
                        denied.remove(&action);
                    }
                }
                Self::Actions(denied)
            }
            (Some(actions), Self::Nothing) if deny => Self::Actions(actions.into_iter().collect()),
            (Some(_), unchanged) => unchanged,
        }
    }

    fn covers(&self, action: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Actions(denied) => {
                // AWS authorizes ReEncrypt as two actions; its name stands for both.
                denied.contains(action)
                    || action.starts_with("ReEncrypt") && denied.contains("ReEncrypt")
            }
        }
    }
}

impl Key {
    pub fn generate(new: NewKey) -> Result<Self, getrandom::Error> {
        let NewKey { region, account, key_id, usage, spec, origin, description, multi_region } =
            new;
        let id = key_id.unwrap_or_else(|| match multi_region {
            true => format!("{MULTI_REGION}{}", Uuid::new_v4().simple()),
            false => Uuid::new_v4().to_string(),
        });
        let mut key = Self {
            arn: format!("arn:aws:kms:{region}:{account}:key/{id}"),
            state: match origin.as_str() {
                EXTERNAL => KeyState::PendingImport,
                _ => KeyState::Enabled,
            },
            trouble: None,
            created_at: OffsetDateTime::now_utc(),
            deletion_date: None,
            valid_to: None,
            rotates: false,
            generations: Arc::default(),
            is_primary: true,
            denied: Denied::Nothing,
            principals: None,
            policy: None,
            id,
            region,
            account,
            usage,
            spec,
            origin,
            description,
        };
        key.rotate()?;
        Ok(key)
    }

    /// A key of the same material in another Region. State, policy and principals are its own.
    pub fn replica_in(&self, region: &str) -> Self {
        Self {
            arn: format!("arn:aws:kms:{region}:{}:key/{}", self.account, self.id),
            id: self.id.clone(),
            region: region.to_owned(),
            account: self.account.clone(),
            usage: self.usage.clone(),
            spec: self.spec.clone(),
            origin: self.origin.clone(),
            description: String::new(),
            state: KeyState::Enabled,
            trouble: None,
            created_at: OffsetDateTime::now_utc(),
            deletion_date: None,
            valid_to: self.valid_to,
            rotates: self.rotates,
            generations: Arc::clone(&self.generations),
            is_primary: false,
            denied: Denied::Nothing,
            principals: None,
            policy: None,
        }
    }

    pub fn is_multi_region(&self) -> bool {
        self.id.starts_with(MULTI_REGION)
    }

    /// The policy that AWS gives a key that is made without one, unless another was set.
    pub fn policy(&self) -> String {
        let default = || {
            json!({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [{
                "Sid": "Enable IAM User Permissions",
                "Effect": "Allow",
                "Principal": {"AWS": format!("arn:aws:iam::{}:root", self.account)},
                "Action": "kms:*",
                "Resource": "*",
            }]})
            .to_string()
        };
        self.policy.clone().unwrap_or_else(default)
    }

    /// Puts the key into a state, however it got there. Pending deletion it has a date, by default
    /// after the longest waiting period.
    pub fn put_into(&mut self, state: KeyState, deletion_date: Option<OffsetDateTime>) {
        let default = || OffsetDateTime::now_utc() + Duration::days(30);
        self.deletion_date =
            (state == KeyState::PendingDeletion).then(|| deletion_date.unwrap_or_else(default));
        self.state = state;
    }

    /// From now on the key is one whose owner imported the material, which AWS never rotates.
    pub fn import(&mut self, valid_to: Option<OffsetDateTime>) {
        self.origin = EXTERNAL.into();
        self.valid_to = valid_to;
        self.rotates = false;
    }

    /// What AWS tells of automatic rotation: none while the key is pending deletion.
    pub fn rotates_now(&self) -> bool {
        let pending = [KeyState::PendingDeletion, KeyState::PendingReplicaDeletion];
        self.rotates && !pending.contains(&self.state)
    }

    /// Whether it is in a key store of its owner's.
    pub fn is_in_custom_key_store(&self) -> bool {
        [EXTERNAL_KEY_STORE, CLOUDHSM].contains(&self.origin.as_str())
    }

    /// New material for new ciphertexts; old ones still open.
    pub fn rotate(&mut self) -> Result<(), getrandom::Error> {
        let mut material = [0; 32];
        getrandom::fill(&mut material)?;
        self.generations.lock().push(material);
        Ok(())
    }

    /// # Errors
    /// AccessDeniedException unless the caller is among the principals and the action is not
    /// denied.
    pub fn authorize(&self, caller: &Caller, action: &str) -> Result<(), ApiError> {
        let because = if self.denied.covers(action) {
            "with an explicit deny in a resource-based policy".to_owned()
        } else if !caller.is_among(self.principals.as_deref()) {
            format!("because no resource-based policy allows the kms:{action} action")
        } else {
            return Ok(());
        };
        Err(ApiError::access_denied(format!(
            "User: {} is not authorized to perform: kms:{action} on resource: {} {because}",
            caller.arn, self.arn
        )))
    }

    /// # Errors
    /// The error of AWS for each state in which a key can't be used for cryptography.
    pub fn check_enabled(&self) -> Result<(), ApiError> {
        let arn = &self.arn;
        let invalid = |state| Err(ApiError::invalid_state(format!("{arn} is {state}.")));
        match self.state {
            KeyState::Enabled => match self.trouble {
                Some(trouble) => Err(ApiError::invalid_state(trouble.message())),
                None => Ok(()),
            },
            KeyState::Disabled => {
                Err(ApiError::new(400, "DisabledException", format!("{arn} is disabled.")))
            }
            KeyState::PendingDeletion => invalid("pending deletion"),
            KeyState::PendingReplicaDeletion => invalid("pending replica deletion"),
            KeyState::PendingImport => invalid("pending import"),
            KeyState::Creating => invalid("creating"),
            KeyState::Updating => invalid("updating"),
            KeyState::Unavailable => {
                let message = format!("{arn} is unavailable.");
                Err(ApiError::new(500, "KeyUnavailableException", message))
            }
            KeyState::Deleted => Err(ApiError::no_such_key(arn)),
        }
    }

    /// # Errors
    /// InvalidKeyUsageException unless this is a symmetric encryption key.
    pub fn check_usage(&self, operation: &str) -> Result<(), ApiError> {
        if self.usage == "ENCRYPT_DECRYPT" && self.spec == SYMMETRIC {
            return Ok(());
        }
        let Self { arn, usage, spec, .. } = self;
        let message =
            format!("{arn} key usage is {usage}, spec {spec}, not valid for {operation}.");
        Err(ApiError::new(400, "InvalidKeyUsageException", message))
    }
}
