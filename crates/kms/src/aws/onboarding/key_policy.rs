//! What the owner of a key allows us, and no more.
//!
//! Used as ourselves: statements of the key's policy. Used as a role of the owner's: the role's
//! trust policy and its permissions, and, if the role is in another account than the key, the key's
//! policy as well.

use super::OwnedKey;
use super::policy::{Condition, Policy, Statement};
use super::principal::Principal;
use crate::aws::assumed_role::AssumedRole;
use crate::aws::key_arn::KeyArn;
use crate::context::Purpose;
use crate::customer_key::CustomerKey;
use crate::onboarding::KeyUse;
use cmk_error::Result;
use serde_json::{Map, Value};

/// What is always asked of a key: to make a data key that nobody sees, and to unwrap it.
pub const USE: [&str; 2] = ["kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"];

/// What a monitor warns by. These calls have no encryption context.
pub const WATCH: [&str; 2] = ["kms:DescribeKey", "kms:GetKeyRotationStatus"];

/// What a key is to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The only one.
    Only,
    /// Data keys are being moved away from it.
    Former,
    /// Data keys are being moved to it: inside KMS where one caller may use both keys, else they
    /// are unwrapped and wrapped again.
    Next,
}

impl Part {
    /// What it has to allow beside [`USE`], under the same condition, until the move is over.
    pub const fn rewrap(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Only => None,
            Self::Former => Some(&["kms:ReEncryptFrom"]),
            Self::Next => Some(&["kms:ReEncryptTo", "kms:Encrypt"]),
        }
    }
}

/// The one place that says which actions a tenant's key has to allow: its statements, without who
/// and without with what.
pub fn statements(tenant: Option<&str>, purposes: &[Purpose], part: Part) -> Vec<Statement> {
    let condition = || Condition::of_context(tenant, purposes);
    let mut statements = vec![
        Statement::allow("CmkEncryptUse", &USE).when(condition()),
        Statement::allow("CmkEncryptWatch", &WATCH),
    ];
    if let Some(actions) = part.rewrap() {
        statements.push(Statement::allow("CmkEncryptRewrap", actions).when(condition()));
    }
    statements
}

/// What the owner of a key has to put in place.
pub struct Allowed {
    /// Which key.
    pub key: KeyArn,
    /// Statements to add to its policy, which may have others.
    pub key_policy: Option<Policy>,
    /// A role of the owner's, if we assume one.
    pub role: Option<AllowedRole>,
    /// The same for the key that the tenant is being moved to.
    pub next: Option<Box<Allowed>>,
}

/// A role that the owner makes for us.
pub struct AllowedRole {
    /// Which.
    pub role: AssumedRole,
    /// Who may assume it: we, with the external id.
    pub trust: Policy,
    /// What it may do.
    pub permissions: Policy,
}

impl Allowed {
    /// # Errors
    /// `service_principal` for a principal of another partition; as parsing the keys.
    pub fn new(used: &KeyUse<'_>, principal: &Principal) -> Result<Self> {
        let of = |key: &CustomerKey, part| {
            let owned = OwnedKey::of(key)?;
            owned.require_partition_of(principal)?;
            Ok(Self::of(owned, statements(Some(used.tenant), used.purposes, part), principal))
        };
        let Some(next) = used.next else { return of(used.key, Part::Only) };
        let next = Some(Box::new(of(next, Part::Next)?));
        Ok(Self { next, ..of(used.key, Part::Former)? })
    }

    fn of(owned: OwnedKey, statements: Vec<Statement>, principal: &Principal) -> Self {
        let in_key_policy = |arn: &str| {
            // "*" in a key's policy is the key.
            let statements = statements.iter().cloned().map(|it| it.to(arn).on("*"));
            Policy::new(statements.collect())
        };
        let key = owned.arn;
        let Some(role) = owned.role else {
            return Self {
                key_policy: Some(in_key_policy(principal.arn())),
                key,
                role: None,
                next: None,
            };
        };
        let same_account = role.arn.account() == key.account();
        let key_policy = (!same_account).then(|| in_key_policy(role.arn.as_str()));
        let external_id = Condition::default().and("sts:ExternalId", role.external_id.as_str());
        let trust = Statement::allow("CmkEncryptAssume", &["sts:AssumeRole"]);
        let trust = Policy::new(vec![trust.to(principal.arn()).when(external_id)]);
        let permissions = statements.into_iter().map(|it| it.on(key.as_str()));
        let permissions = Policy::new(permissions.collect());
        Self { key, key_policy, role: Some(AllowedRole { role, trust, permissions }), next: None }
    }

    /// `key`, and what there is of `key_policy`, `role`, `trust_policy`, `permissions_policy`,
    /// `next`.
    pub fn to_json(&self) -> Value {
        let mut members = Map::new();
        let mut put = |name: &str, value| members.insert(name.to_owned(), value);
        put("key", self.key.as_str().into());
        if let Some(policy) = &self.key_policy {
            put("key_policy", policy.to_json());
        }
        if let Some(AllowedRole { role, trust, permissions }) = &self.role {
            put("role", role.arn.as_str().into());
            put("trust_policy", trust.to_json());
            put("permissions_policy", permissions.to_json());
        }
        if let Some(next) = &self.next {
            put("next", next.to_json());
        }
        Value::Object(members)
    }

    /// The whole policy of the key, if it has no other statements: its owner's own account first,
    /// whose administrators would be locked out without it.
    pub fn whole_key_policy(&self) -> Policy {
        let root = format!("arn:{}:iam::{}:root", self.key.partition(), self.key.account());
        let owner = Statement::allow("OwnAccount", &["kms:*"]).to(&root).on("*");
        let ours = self.key_policy.iter().flat_map(|policy| policy.statement.iter().cloned());
        Policy::new([owner].into_iter().chain(ours).collect())
    }
}
