//! As whom the policies of keys name us.

use crate::aws::arn::{is_account, is_partition};
use cmk_error::{Error, Reason, Result};

/// The ARN of an IAM role or user. Not that of a whole account: its owner would allow everybody in
/// it, as far as that account's policies go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    arn: Box<str>,
    partition: Box<str>,
    account: Box<str>,
}

impl Principal {
    /// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`, or `user/PATH/NAME` (IAM User Guide, "IAM
    /// identifiers").
    ///
    /// # Errors
    /// `service_principal`, without the text.
    pub fn parse(arn: &str) -> Result<Self> {
        let fields: Vec<_> = arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, resource] = fields[..] else {
            return Err(unknown("malformed"));
        };
        let name = resource.strip_prefix("role/").or_else(|| resource.strip_prefix("user/"));
        let valid = is_partition(partition)
            && is_account(account)
            && name.is_some_and(|name| is_name(name, 512 + 64));
        match valid {
            true => {
                Ok(Self { arn: arn.into(), partition: partition.into(), account: account.into() })
            }
            false => Err(unknown("malformed")),
        }
    }

    /// As policies have it.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Of the account.
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// Whose it is: 12 digits.
    pub fn account(&self) -> &str {
        &self.account
    }
}

/// A path and a name, of the characters that IAM takes for names. It takes more for paths, which
/// nobody uses and no language quotes alike.
fn is_name(name: &str, longest: usize) -> bool {
    (1..=longest).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b))
        && !name.ends_with('/')
}

/// # Errors
/// Nothing but this one: `service_principal`, with the cause.
pub fn unknown(cause: &str) -> Error {
    Error::new(Reason::ServicePrincipal).with_info(format!("cause={cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_users_are_named_as_they_are() {
        for arn in [
            "arn:aws:iam::444455556666:role/postgres",
            "arn:aws:iam::444455556666:role/service/db/postgres",
            "arn:aws-us-gov:iam::444455556666:user/postgres",
        ] {
            let principal = Principal::parse(arn).unwrap();
            assert_eq!((principal.arn(), principal.account()), (arn, "444455556666"));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for arn in [
            "",
            "*",
            "444455556666",
            "arn:aws:iam::444455556666:root",
            "arn:aws:iam::444455556666:role/",
            "arn:aws:iam::444455556666:role/a/",
            "arn:aws:iam::444455556666:role/*",
            "arn:aws:iam::444455556666:role/a\"",
            "arn:aws:iam::444455556666:role/a$(id)",
            "arn:aws:iam::444455556666:role/a\n",
            "arn:aws:iam::444455556666:group/a",
            "arn:aws:iam::4444:role/a",
            "arn:aws-x:iam::444455556666:role/a",
            "arn:aws:sts::444455556666:assumed-role/postgres/i-0123456789abcdef0",
        ] {
            let error = Principal::parse(arn).unwrap_err();
            assert_eq!(error.detail(), "reason=service_principal cause=malformed", "{arn}");
        }
    }
}
