//! What a key management service tells of a key, beyond that it works.

/// What a service tells of a key, as far as it lets us see. `None` is "not known": no such thing
/// there, or no permission to see it. Times in seconds since the Unix epoch. Texts are the
/// service's own words: letters, digits, `_`, `-`, and in URIs also `:` and `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// Whether it can be used now.
    pub enabled: Option<bool>,
    /// The service's word for its state: `Enabled`, `PendingDeletion`.
    pub state: Option<Box<str>>,
    /// Whether it is of the kind that wraps data keys: symmetric, to encrypt and decrypt.
    pub can_wrap: Option<bool>,
    /// What it is, in the service's words: `SYMMETRIC_DEFAULT ENCRYPT_DECRYPT`.
    pub kind: Option<Box<str>>,
    /// Whether its owner decides about it. Keys that the service keeps for itself never let
    /// anybody else in.
    pub owner_managed: Option<bool>,
    /// Whose it is.
    pub account: Option<Box<str>>,
    /// Where it is.
    pub region: Option<Box<str>>,
    /// Where its material comes from: `AWS_KMS`, `EXTERNAL`.
    pub origin: Option<Box<str>>,
    /// Whether there may be replicas of it, with the same material, in other Regions.
    pub multi_region: Option<bool>,
    /// The URIs of all of those that are known, this key included.
    pub replicas: Vec<Box<str>>,
    /// Whether the service rotates the key by itself.
    pub rotates: Option<bool>,
    /// How often, in days.
    pub rotation_days: Option<i32>,
    /// The owner scheduled the key's deletion.
    pub deletion_is_scheduled: bool,
    /// For when, if that is known: of a key with replicas it isn't before they are gone.
    pub deletion_at: Option<i64>,
    /// Imported key material expires.
    pub material_expires_at: Option<i64>,
    /// The permissions that we lack, and without which something above can't be seen.
    pub not_permitted: Vec<&'static str>,
}

impl KeyFacts {
    /// Whether the key's owner shows nothing of it.
    pub fn are_withheld(&self) -> bool {
        self.enabled.is_none() && !self.not_permitted.is_empty()
    }
}

/// Who may manage the key: what a key's owner is to see of our own rights, because we should have
/// none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Management {
    /// What the key's policy lets us do beyond using the key; `None` if we may not see it.
    pub policy: Option<PolicyView>,
    /// Whether we could give grants for the key away; `None` if the service didn't say.
    pub can_create_grants: Option<bool>,
}

/// A key's policy, as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyView {
    /// The managing actions that it allows us, in the order of the service's list of them.
    pub allows: Vec<&'static str>,
    /// It leaves the decision to the identity policies of this account, which is ours: what those
    /// allow can't be seen from here.
    pub left_to_account: Option<Box<str>>,
    /// A statement allows an action to anybody at all, without a condition.
    pub open_to_anybody: bool,
}

/// Whom a service takes us for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As a policy names us: the ARN of a user or of a role.
    pub principal: Box<str>,
    /// As the service's trail names us: a session of that role.
    pub session: Box<str>,
    /// Our account.
    pub account: Box<str>,
}

/// Whom a service takes this server for, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnIdentity {
    /// Whom.
    pub identity: Identity,
    /// Where the credentials come from, in a word of ours; `None` if that isn't known.
    pub credentials: Option<&'static str>,
    /// Where the service was asked.
    pub region: Box<str>,
}
