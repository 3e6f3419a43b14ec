//! Who calls. The signature is not verified, but the header must be complete.

use crate::error::ApiError;
use crate::store::{CALLER_ACCOUNT, Store};

/// The credential scope of an AWS signature, version 4: the part of the header that says who signed
/// for what.
#[derive(Clone, Debug)]
pub struct Scope {
    pub access_key_id: String,
    pub region: String,
    service: String,
}

impl Scope {
    /// `AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/SERVICE/aws4_request, SignedHeaders=…,
    /// Signature=…`
    ///
    /// None unless every part is there.
    pub fn parse(authorization: &str) -> Option<Self> {
        let parameters = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let parameter = |name: &str| {
            let mut all = parameters.split(',').filter_map(|part| part.trim().split_once('='));
            all.find(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value)
        };
        parameter("SignedHeaders")?;
        parameter("Signature")?;
        let mut scope = parameter("Credential")?.split('/');
        let mut next = || scope.next().filter(|part| !part.is_empty()).map(str::to_owned);
        let (access_key_id, _date, region, service) = (next()?, next()?, next()?, next()?);
        (next()? == "aws4_request").then_some(Self { access_key_id, region, service })
    }
}

/// An authenticated caller.
#[derive(Debug)]
pub struct Caller {
    pub access_key_id: String,
    pub region: String,
    pub account: String,
    /// The ARN that AWS prints: a user, or a role as assumed.
    pub arn: String,
    /// The ARN of the role behind a session.
    pub role_arn: Option<String>,
}

impl Caller {
    /// # Errors
    /// No usable header, signed for another service, an access key id that does not exist, or
    /// temporary credentials that were not issued here, have expired or lack their session token.
    pub fn authenticate(
        store: &Store,
        service: &str,
        scope: Option<&Scope>,
        session_token: Option<&str>,
    ) -> Result<Self, ApiError> {
        let scope = scope.ok_or_else(ApiError::missing_authentication)?;
        if scope.service != service {
            let message = format!("Credential should be scoped to correct service: '{service}'.");
            return Err(ApiError::new(400, "InvalidSignatureException", message));
        }
        let Scope { access_key_id, region, .. } = scope.clone();
        if access_key_id.starts_with("ASIA") {
            let session = store
                .session(&access_key_id)
                .filter(|session| session_token == Some(&session.token))
                .ok_or_else(ApiError::unrecognized_client)?;
            if session.has_expired() {
                let message = "The security token included in the request is expired";
                return Err(ApiError::new(400, "ExpiredTokenException", message));
            }
            Ok(Self {
                access_key_id,
                region,
                account: session.account().to_owned(),
                arn: session.arn(),
                role_arn: Some(session.role_arn.clone()),
            })
        } else {
            if !store.has_access_key(&access_key_id) {
                return Err(ApiError::unknown_access_key(service));
            }
            let arn = format!("arn:aws:iam::{CALLER_ACCOUNT}:user/{access_key_id}");
            Ok(Self { access_key_id, region, account: CALLER_ACCOUNT.into(), arn, role_arn: None })
        }
    }

    /// A list of principals names users by access key id and roles by ARN; None is anybody.
    pub fn is_among(&self, principals: Option<&[String]>) -> bool {
        let is = |principal: &String| {
            self.access_key_id == *principal || self.role_arn.as_ref() == Some(principal)
        };
        principals.is_none_or(|all| all.iter().any(is))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "AWS4-HMAC-SHA256 \
        Credential=AKIAFAKE/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=0f";

    #[test]
    fn a_whole_header_yields_principal_and_region() {
        let scope = Scope::parse(WHOLE).expect("whole");
        assert_eq!(
            (scope.access_key_id.as_str(), scope.region.as_str()),
            ("AKIAFAKE", "eu-west-1")
        );
    }

    #[test]
    fn a_header_that_lacks_a_part_is_no_header() {
        for lost in ["AWS4-HMAC-SHA256 ", "AKIAFAKE", "eu-west-1/", "/aws4_request", "Signature=0f"]
        {
            assert!(Scope::parse(&WHOLE.replace(lost, "")).is_none(), "without {lost}");
        }
    }
}
