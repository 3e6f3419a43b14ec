//! Whom AWS takes us for: GetCallerIdentity, which needs no permission.

use super::arn::{is_account, is_partition};
use super::classify::classify;
use super::connect::Made;
use super::progress;
use crate::key_facts::Identity;
use aws_sdk_sts::Client;
use cmk_error::{Reason, Result};

/// # Errors
/// `credentials`; what STS fails with; `kms_answer_mismatch` for an answer that names nobody.
pub async fn identity(made: &Made) -> Result<Identity> {
    progress::in_regions(made.own_region(), made.own_region());
    let answer = Client::new(&made.sts).get_caller_identity().send().await;
    let answer = answer.map_err(|error| classify(&error))?;
    let session = answer.arn.unwrap_or_default();
    of_session(&session).ok_or_else(|| Reason::KmsAnswerMismatch.into())
}

/// From `arn:PARTITION:sts::ACCOUNT:assumed-role/NAME/SESSION` to the role, whose path that form
/// has not; users and the like are principals as they are.
fn of_session(session: &str) -> Option<Identity> {
    let fields: Vec<_> = session.splitn(6, ':').collect();
    let ["arn", partition, service, "", account, resource] = fields[..] else { return None };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_/-:".contains(&b);
    let valid = is_partition(partition)
        && is_account(account)
        && (1..=1024).contains(&resource.len())
        && resource.bytes().all(is_plain);
    if !valid {
        return None;
    }
    let principal = match (service, resource.strip_prefix("assumed-role/")) {
        ("sts", Some(role)) => {
            let (name, _) = role.split_once('/')?;
            format!("arn:{partition}:iam::{account}:role/{name}")
        }
        ("sts" | "iam", None) => session.to_owned(),
        _ => return None,
    };
    let (session, account) = (session.into(), account.into());
    Some(Identity { principal: principal.into(), session, account })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_of_a_role() {
        for (session, principal) in [
            (
                "arn:aws:sts::111122223333:assumed-role/cmk/i-0123456789",
                Some("arn:aws:iam::111122223333:role/cmk"),
            ),
            (
                "arn:aws:iam::111122223333:user/path/cmk",
                Some("arn:aws:iam::111122223333:user/path/cmk"),
            ),
            ("arn:aws-cn:iam::111122223333:root", Some("arn:aws-cn:iam::111122223333:root")),
            ("arn:aws:sts::111122223333:assumed-role/cmk", None),
            ("arn:aws:s3::111122223333:x", None),
            ("arn:aws:iam::1:user/x", None),
            ("arn:aws:iam::111122223333:user/x y", None),
            ("", None),
        ] {
            let identity = of_session(session);
            assert_eq!(identity.as_ref().map(|it| &*it.principal), principal, "{session}");
        }
    }
}
