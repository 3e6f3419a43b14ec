//! Roles of a tenant's account, which the server assumes.

use super::arn::{is_account, is_partition};
use cmk_error::{Error, Reason, Result};

/// A role and the external id that its trust policy asks for. Always both: without the external id,
/// a tenant who guesses another's role ARN could have us use it (the confused deputy, AWS IAM User
/// Guide, "The confused deputy problem").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssumedRole {
    /// Which role.
    pub arn: RoleArn,
    /// What we present with every AssumeRole.
    pub external_id: ExternalId,
    /// Another one means another session: an eviction is to ask the owner again, for the role too.
    pub session_epoch: i64,
}

/// The ARN of an IAM role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleArn(Box<str>);

impl RoleArn {
    /// # Errors
    /// `role_arn`.
    pub fn parse(arn: &str) -> Result<Self> {
        Self::is_valid(arn).then(|| Self(arn.into())).ok_or_else(|| Error::new(Reason::RoleArn))
    }

    /// IAM User Guide, "IAM identifiers": a path of up to 512 characters and a name of up to 64.
    fn is_valid(arn: &str) -> bool {
        let fields: Vec<_> = arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, resource] = fields[..] else { return false };
        let Some(name) = resource.strip_prefix("role/") else { return false };
        is_partition(partition)
            && is_account(account)
            && (1..=512 + 64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of AWS that it is in.
    pub fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// Whose role it is: 12 digits.
    pub fn account(&self) -> &str {
        self.0.split(':').nth(4).unwrap_or_default()
    }

    /// The path, `/` if there is none, and the name.
    pub fn path_and_name(&self) -> (&str, &str) {
        let resource = self.0.split_once(":role").map_or("", |(_, resource)| resource);
        let at = resource.rfind('/').map_or(0, |at| at + 1);
        resource.split_at(at)
    }
}

/// The external id of a trust policy: 2 to 1224 of `A-Z a-z 0-9 _ + = , . @ : / -` (AWS STS API
/// Reference, AssumeRole).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalId(Box<str>);

impl ExternalId {
    /// # Errors
    /// `external_id`.
    pub fn parse(id: &str) -> Result<Self> {
        let valid = (2..=1224).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b));
        valid.then(|| Self(id.into())).ok_or_else(|| Error::new(Reason::ExternalId))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_arns_are_strict() {
        for arn in [
            "arn:aws:iam::111122223333:role/path/cmk-access",
            "arn:aws-iso-e:iam::111122223333:role/cmk",
            "arn:aws-iso-f:iam::111122223333:role/cmk",
        ] {
            let role = RoleArn::parse(arn).unwrap();
            assert_eq!((role.as_str(), role.account()), (arn, "111122223333"));
            let (path, name) = role.path_and_name();
            assert!(arn.ends_with(&format!(":role{path}{name}")) && !name.contains('/'));
        }
        for arn in [
            "arn:aws:iam::111122223333:user/x",
            "arn:aws:iam:us-east-1:111122223333:role/x",
            "arn:aws-x:iam::111122223333:role/x",
            "arn:aws:iam::1:role/x",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::111122223333:role/a b",
            &*format!("arn:aws:iam::111122223333:role/{}", "a".repeat(512 + 65)),
        ] {
            assert_eq!(RoleArn::parse(arn).unwrap_err().reason, Reason::RoleArn);
        }
    }

    #[test]
    fn external_ids_are_strict() {
        assert!(ExternalId::parse("acme-7f3e").is_ok());
        for id in ["", "x", "a b", "a\nb", &*"x".repeat(1225)] {
            assert_eq!(ExternalId::parse(id).unwrap_err().reason, Reason::ExternalId);
        }
    }
}
