//! From what a service answered to a [`Reason`].
//!
//! Codes, not variants: `AccessDeniedException` and `ThrottlingException` are not part of the SDK's
//! error enums. Nothing of an error's text gets out except identifiers of a checked shape.

use super::denied_by::denied_by;
use super::invalid_state;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use cmk_error::{Error, Reason};
use std::error::Error as StdError;

/// The reason, with the error code and request id that the tenant finds in CloudTrail. `None` if
/// it isn't an answer that failed.
pub fn refusal<E>(error: &SdkError<E, HttpResponse>) -> Option<Error>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let SdkError::ServiceError(answer) = error else { return None };
    let refused = answer.err();
    let (code, status) = (refused.code(), answer.raw().status().as_u16());
    let mut info: Vec<_> = [("kms_code", code), ("request_id", error.request_id())]
        .into_iter()
        .filter_map(|(key, value)| value.filter(|v| is_identifier(v)).map(|v| format!("{key}={v}")))
        .collect();
    info.extend(who_refused(refused));
    let reason = of_answer(code, refused.message(), status);
    Some(match info.is_empty() {
        true => Error::new(reason),
        false => Error::new(reason).with_info(info.join(" ")),
    })
}

/// What the text of a refusal tells of who refused, in a word of ours.
fn who_refused(error: &impl ProvideErrorMetadata) -> Option<String> {
    let text = error.message().unwrap_or_default();
    match error.code()? {
        "KMSInvalidStateException" | "CustomKeyStoreInvalidStateException" => {
            invalid_state::key_store(text).map(|word| format!("key_store={word}"))
        }
        "AccessDeniedException" | "AccessDenied" => {
            denied_by(text).map(|policy| format!("denied_by={policy}"))
        }
        _ => None,
    }
}

/// AWS KMS API Reference, "Common Errors" and the errors of Decrypt and
/// GenerateDataKeyWithoutPlaintext.
pub(super) fn of_answer(code: Option<&str>, message: Option<&str>, status: u16) -> Reason {
    match code.unwrap_or_default() {
        "AccessDeniedException" | "AccessDenied" => Reason::KeyAccessDenied,
        "DisabledException" => Reason::KeyDisabled,
        "NotFoundException" => Reason::KeyNotFound,
        "KMSInvalidStateException" | "CustomKeyStoreInvalidStateException" => {
            invalid_state::reason(message.unwrap_or_default())
        }
        "XksKeyNotFoundException" => Reason::KeyNotFound,
        "XksKeyInvalidConfigurationException" => Reason::KeyInvalidState,
        code if code.starts_with("XksProxy") || code.starts_with("CloudHsmCluster") => {
            Reason::KmsServerError
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => Reason::WrappedKeyRejected,
        "InvalidKeyUsageException" | "UnsupportedOperationException" => Reason::KeyUnusable,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Reason::KmsThrottled,
        "KMSInternalException" | "KeyUnavailableException" | "DependencyTimeoutException" => {
            Reason::KmsServerError
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "NotAuthorized"
        | "OptInRequired" => Reason::Credentials,
        _ if status == 429 => Reason::KmsThrottled,
        // A success that makes no sense arrives here without a code.
        _ if !(300..500).contains(&status) => Reason::KmsServerError,
        _ => Reason::KmsRejected,
    }
}

/// Codes and request ids only: letters, digits and hyphens.
pub(super) fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_custom_key_stores_are_told_apart() {
        let of = |code, message| of_answer(Some(code), Some(message), 400);
        for code in ["KMSInvalidStateException", "CustomKeyStoreInvalidStateException"] {
            assert_eq!(of(code, "proxy denied access"), Reason::KeyAccessDenied);
            assert_eq!(of(code, "the key store is not connected"), Reason::KmsServerError);
        }
        for code in [
            "CloudHsmClusterNotActiveException",
            "XksProxyUriUnreachableException",
            "XksProxyInvalidResponseException",
            "XksProxyIncorrectAuthenticationCredentialException",
        ] {
            assert_eq!(of(code, ""), Reason::KmsServerError);
        }
        assert_eq!(of("XksKeyNotFoundException", ""), Reason::KeyNotFound);
        assert_eq!(of("XksKeyInvalidConfigurationException", ""), Reason::KeyInvalidState);
        assert_eq!(of("UnsupportedOperationException", ""), Reason::KeyUnusable);
    }

    #[test]
    fn unknown_codes_go_by_status() {
        assert_eq!(of_answer(Some("Odd"), None, 503), Reason::KmsServerError);
        assert_eq!(of_answer(None, None, 200), Reason::KmsServerError);
        assert_eq!(of_answer(None, None, 429), Reason::KmsThrottled);
        assert_eq!(of_answer(Some("ValidationException"), None, 400), Reason::KmsRejected);
    }
}
