//! Key URIs, parsed once and strictly.
//!
//! A Region out of a key ARN becomes part of a host name, so nothing but known shapes gets through.
//! Aliases are refused: their owner, or anyone who may update them, can point them at another key.

use cmk_error::{Error, Reason, Result};
use std::fmt;

/// Names a customer managed key: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `local:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyUri {
    Aws(KeyArn),
    Local(LocalName),
}

/// Longer than any key URI is.
const URI_MAX: usize = 512;

impl KeyUri {
    /// # Errors
    /// `key_uri`. The offending text is not repeated in the error.
    pub fn parse(uri: &str) -> Result<Self> {
        // Before anything is taken apart: the caller may pass a gigabyte.
        if uri.len() > URI_MAX {
            return Err(Reason::KeyUri.into());
        }
        let parsed = match uri.strip_prefix("local:") {
            Some(name) => LocalName::parse(name).map(Self::Local),
            None => KeyArn::parse(uri).map(Self::Aws),
        };
        parsed.ok_or_else(|| Error::new(Reason::KeyUri))
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws(arn) => f.write_str(&arn.arn),
            Self::Local(name) => write!(f, "local:{}", name.0),
        }
    }
}

/// The ARN of a KMS key (AWS KMS Developer Guide, "Key identifiers").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyArn {
    arn: Box<str>,
    region: Box<str>,
}

impl KeyArn {
    fn parse(arn: &str) -> Option<Self> {
        let mut fields = arn.split(':');
        let mut next = || fields.next();
        let ("arn", partition, "kms", region, account, resource, None) =
            (next()?, next()?, next()?, next()?, next()?, next()?, next())
        else {
            return None;
        };
        let id = resource.strip_prefix("key/")?;
        let valid = is_region(region)
            && partition == partition_of(region)
            && is_account(account)
            && (is_uuid(id) || is_multi_region_id(id));
        valid.then(|| Self { arn: arn.into(), region: region.into() })
    }

    pub fn as_str(&self) -> &str {
        &self.arn
    }

    pub fn region(&self) -> &str {
        &self.region
    }
}

/// The name of a key of the embedded provider: 1 to 64 of `A-Z a-z 0-9 _ -`, so that it can't leave its
/// directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalName(Box<str>);

impl LocalName {
    fn parse(name: &str) -> Option<Self> {
        let valid = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        valid.then(|| Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
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

    fn is_valid(arn: &str) -> bool {
        // Longer than any is; before it is taken apart.
        if arn.len() > 1024 {
            return false;
        }
        let fields: Vec<_> = arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, resource] = fields[..] else { return false };
        let Some(name) = resource.strip_prefix("role/") else { return false };
        ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-eusc"].contains(&partition)
            && is_account(account)
            && (1..=512 + 64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The external id of a trust policy: 2 to 1224 of `A-Z a-z 0-9 _ + = , . @ : / -` (AWS STS API, AssumeRole).
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

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`: two or three words of lower-case letters and a number.
fn is_region(region: &str) -> bool {
    let parts: Vec<_> = region.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    (2..=3).contains(&words.len())
        && words
            .iter()
            .all(|w| (2..=12).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// A Region belongs to exactly one partition (AWS General Reference).
fn partition_of(region: &str) -> &'static str {
    const PREFIXES: [(&str, &str); 5] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-isob-", "aws-iso-b"),
        ("us-iso-", "aws-iso"),
        ("eusc-", "aws-eusc"),
    ];
    PREFIXES.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, p)| p)
}

fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(id: &str) -> bool {
    let lengths = id.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && id.split('-').all(is_lower_hex)
}

fn is_multi_region_id(id: &str) -> bool {
    id.strip_prefix("mrk-").is_some_and(|hex| hex.len() == 32 && is_lower_hex(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn accepts_key_arns_and_local_names() {
        for uri in [
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/{ID}"),
            format!("arn:aws-cn:kms:cn-north-1:111122223333:key/{ID}"),
            "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab".into(),
            "local:acme-2".into(),
        ] {
            assert_eq!(KeyUri::parse(&uri).unwrap().to_string(), uri);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for uri in [
            "".into(),
            "arn:aws:kms:us-east-1:111122223333:alias/acme".into(),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}\n"),
            format!("arn:aws:kms:evil.example/us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1.evil:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1#:111122223333:key/{ID}"),
            format!("arn:aws:kms:US-EAST-1:111122223333:key/{ID}"),
            format!("arn:aws:kms::111122223333:key/{ID}"),
            format!("arn:aws-cn:kms:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:11112222333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}:x"),
            format!("arn:aws:s3:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{}", ID.to_uppercase()),
            ID.into(),
            "local:".into(),
            "local:../acme".into(),
            "local:a/b".into(),
            "local:a.key".into(),
            format!("local:{}", "a".repeat(65)),
        ] {
            assert_eq!(KeyUri::parse(&uri).unwrap_err().reason, Reason::KeyUri, "{uri:?}");
        }
    }

    #[test]
    fn role_and_external_id_are_strict() {
        assert!(RoleArn::parse("arn:aws:iam::111122223333:role/path/cmk-access").is_ok());
        for arn in [
            "arn:aws:iam::111122223333:user/x",
            "arn:aws:iam:us-east-1:111122223333:role/x",
            "arn:aws:iam::1:role/x",
            "arn:aws:iam::111122223333:role/a b",
        ] {
            assert_eq!(RoleArn::parse(arn).unwrap_err().reason, Reason::RoleArn);
        }
        assert!(ExternalId::parse("acme-7f3e").is_ok());
        for id in ["", "x", "a b", "a\nb"] {
            assert_eq!(ExternalId::parse(id).unwrap_err().reason, Reason::ExternalId);
        }
    }
}
