//! `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, with `role_arn` and `external_id`.

use super::assumed_role::{AssumedRole, ExternalId, RoleArn};
use super::key::{self, AwsKey};
use super::key_arn::KeyArn;
use crate::key_facts::OwnIdentity;
use crate::options::Options;
use crate::provider::{Answer, Call, Provider, ProviderKey};
use cmk_error::{Error, Reason, Result};
use std::sync::Arc;

/// AWS KMS.
pub struct Aws;

impl Provider for Aws {
    fn scheme(&self) -> &'static str {
        "arn"
    }

    /// # Errors
    /// `key_uri`, `key_options`, `role_arn`; `external_id` also for one without the other.
    fn parse_key(
        &self,
        uri: &str,
        options: Options,
        session_epoch: i64,
    ) -> Result<Arc<dyn ProviderKey>> {
        let (arn, role) = parse(uri, options, session_epoch)?;
        Ok(Arc::new(AwsKey { arn, role }))
    }

    fn own_identity<'a>(
        &'a self,
        call: &'a Call<'a>,
        region: Option<&'a str>,
    ) -> Answer<'a, Option<OwnIdentity>> {
        key::own_identity(call, region)
    }
}

/// A key, and the role as which it is used, if not as ourselves.
///
/// # Errors
/// As [`Provider::parse_key`].
pub fn parse(
    uri: &str,
    mut options: Options,
    session_epoch: i64,
) -> Result<(KeyArn, Option<AssumedRole>)> {
    let arn = KeyArn::parse(uri).ok_or_else(|| Error::new(Reason::KeyUri))?;
    let (role, id) = (options.take_text("role_arn"), options.take_text("external_id"));
    // First: a misspelt option explains why the other one seems to be missing.
    options.finish()?;
    let role = match (role, id) {
        (Some(arn), Some(id)) => {
            let (arn, external_id) = (RoleArn::parse(&arn)?, ExternalId::parse(&id)?);
            Some(AssumedRole { arn, external_id, session_epoch })
        }
        (None, None) => None,
        _ => return Err(Reason::ExternalId.into()),
    };
    Ok((arn, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn detail(options: &str) -> String {
        match Options::parse(options).and_then(|options| Aws.parse_key(KEY, options, 0)) {
            Ok(key) => format!("{}", key.assumes_role()),
            Err(error) => error.detail(),
        }
    }

    #[test]
    fn a_role_comes_with_an_external_id() {
        assert_eq!(detail("{}"), "false");
        let role = r#""role_arn": "arn:aws:iam::111122223333:role/cmk""#;
        let id = r#""external_id": "acme-7f3e""#;
        assert_eq!(detail(&format!("{{{role}, {id}}}")), "true");
        for alone in [role, id] {
            assert_eq!(detail(&format!("{{{alone}}}")), "reason=external_id");
        }
        assert_eq!(detail(&format!(r#"{{{id}, "role_arn": "cmk"}}"#)), "reason=role_arn");
        assert_eq!(detail(&format!(r#"{{{role}, "external_id": ""}}"#)), "reason=external_id");
        let misspelt = format!(r#"{{{role}, "external-id": "acme-7f3e"}}"#);
        assert_eq!(detail(&misspelt), "reason=key_options option=external-id");
        let number = format!(r#"{{{role}, "external_id": 7}}"#);
        assert_eq!(detail(&number), "reason=key_options option=external_id cause=type");
    }
}
