//! A key: its state, its material and who may use it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::auth::Caller;
use crate::error::ApiError;

/// The one key spec that can encrypt here; keys of others exist to be refused.
pub const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
/// The origin of imported key material.
pub const EXTERNAL: &str = "EXTERNAL";

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum KeyState {
    Enabled,
    Disabled,
    PendingDeletion,
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
    pub created_at: OffsetDateTime,
    pub deletion_date: Option<OffsetDateTime>,
    /// When imported key material expires
    pub valid_to: Option<OffsetDateTime>,
    pub rotates: bool,
    /// The key material, newest last; ciphertexts name theirs by index.
    pub generations: Vec<[u8; 32]>,
    pub denied: Denied,
    /// Who may use the key; None is anybody.
    pub principals: Option<Vec<String>>,
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
        let NewKey { region, account, key_id, usage, spec, origin, description } = new;
        let id = key_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut key = Self {
            arn: format!("arn:aws:kms:{region}:{account}:key/{id}"),
            state: match origin.as_str() {
                EXTERNAL => KeyState::PendingImport,
                _ => KeyState::Enabled,
            },
            created_at: OffsetDateTime::now_utc(),
            deletion_date: None,
            valid_to: None,
            rotates: false,
            generations: Vec::new(),
            denied: Denied::Nothing,
            principals: None,
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
        self.rotates && self.state != KeyState::PendingDeletion
    }

    /// New material for new ciphertexts; old ones still open.
    pub fn rotate(&mut self) -> Result<(), getrandom::Error> {
        let mut material = [0; 32];
        getrandom::fill(&mut material)?;
        self.generations.push(material);
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
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => {
                Err(ApiError::new(400, "DisabledException", format!("{arn} is disabled.")))
            }
            KeyState::PendingDeletion => invalid("pending deletion"),
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
