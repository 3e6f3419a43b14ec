//! From what went wrong to a [`Reason`].
//!
//! Codes, not variants: `AccessDeniedException` and `ThrottlingException` are not part of the SDK's
//! error enums. Nothing of an error's text gets out except identifiers of a checked shape.

use super::answer_limit::TooLong;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use cmk_error::{Error, Reason};
use std::error::Error as StdError;

/// The reason, with the error code and request id that the tenant finds in CloudTrail.
pub fn classify<E>(error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let reason = match error {
        SdkError::TimeoutError(_) => Reason::KmsTimeout,
        SdkError::ResponseError(_) => Reason::KmsServerError,
        SdkError::ConstructionFailure(_) => Reason::KmsRejected,
        SdkError::DispatchFailure(failure) => match credentials_error(error) {
            Some(error) => return error,
            None if failure.is_timeout() => Reason::KmsTimeout,
            None if is_too_long(error) => Reason::KmsServerError,
            None if lacks_resources(error) => {
                return Error::new(Reason::KmsUnreachable).with_info(Error::OWN_RESOURCES);
            }
            None => Reason::KmsUnreachable,
        },
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            of_answer(answer.err().code(), answer.err().message(), status)
        }
        _ => Reason::KmsServerError,
    };
    let info = [
        ("kms_code", error.as_service_error().and_then(|e| e.code())),
        ("request_id", error.request_id()),
    ];
    let info: Vec<_> = info
        .into_iter()
        .filter_map(|(key, value)| value.filter(|v| is_identifier(v)).map(|v| format!("{key}={v}")))
        .collect();
    match info.is_empty() {
        true => Error::new(reason),
        false => Error::new(reason).with_info(info.join(" ")),
    }
}

/// Whether it is this process that has no descriptor, thread or memory left.
fn lacks_resources(error: &(dyn StdError + 'static)) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::ENOBUFS];
    let mut chain = std::iter::successors(Some(error), |&error| error.source());
    chain.any(|error| {
        let error = error.downcast_ref::<std::io::Error>();
        error.and_then(std::io::Error::raw_os_error).is_some_and(|code| codes.contains(&code))
    })
}

fn is_too_long(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| error.is::<TooLong>())
}

/// AWS KMS API Reference, "Common Errors" and the errors of Decrypt and
/// GenerateDataKeyWithoutPlaintext.
fn of_answer(code: Option<&str>, message: Option<&str>, status: u16) -> Reason {
    match code.unwrap_or_default() {
        "AccessDeniedException" | "AccessDenied" => Reason::KeyAccessDenied,
        "DisabledException" => Reason::KeyDisabled,
        "NotFoundException" => Reason::KeyNotFound,
        "KMSInvalidStateException" => of_key_state(message.unwrap_or_default()),
        "InvalidCiphertextException" | "IncorrectKeyException" => Reason::WrappedKeyRejected,
        "InvalidKeyUsageException" => Reason::KeyUnusable,
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

/// `KMSInvalidStateException` tells the state in its message only (KMS Developer Guide, "Key
/// states").
fn of_key_state(message: &str) -> Reason {
    let says = |state: &str| {
        let squeezed: String = message.chars().filter(char::is_ascii_alphabetic).collect();
        squeezed.to_ascii_lowercase().contains(state)
    };
    if says("pendingdeletion") || says("pendingreplicadeletion") {
        Reason::KeyPendingDeletion
    } else if says("disabled") {
        Reason::KeyDisabled
    } else if says("pendingimport") {
        Reason::KeyInvalidState
    } else {
        // Creating, updating, and every failure of a custom or external key store: an outage.
        Reason::KmsServerError
    }
}

/// What getting credentials failed with, if that is what failed. STS refusing the tenant's role is
/// the tenant's decision, not our configuration.
fn credentials_error(error: &(dyn StdError + 'static)) -> Option<Error> {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    let mut chain = chain.skip_while(|error| !error.is::<CredentialsError>());
    let failed = chain.next()?.downcast_ref::<CredentialsError>()?;
    let sts =
        chain.find_map(|error| error.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>());
    let reason = match (sts.map(|error| classify(error).reason), failed) {
        (Some(Reason::KmsRejected) | None, CredentialsError::ProviderTimedOut(_)) => {
            Reason::KmsTimeout
        }
        (Some(Reason::KmsRejected) | None, _) => Reason::Credentials,
        (Some(reason), _) => reason,
    };
    // Where STS itself answered, CloudTrail has the request.
    let answer = sts.filter(|error| error.as_service_error().is_some()).map(classify);
    Some(match answer.as_ref().and_then(Error::info) {
        Some(info) => Error::new(reason).with_info(format!("cause=assume_role {info}")),
        None => Error::new(reason),
    })
}

/// Codes and request ids only: letters, digits and hyphens.
fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_states_are_told_apart() {
        for (message, reason) in [
            (
                "arn:aws:kms:us-east-1:111122223333:key/x is pending deletion.",
                Reason::KeyPendingDeletion,
            ),
            (
                "arn:aws:kms:us-east-1:111122223333:key/x is pending import.",
                Reason::KeyInvalidState,
            ),
            ("key is in state PendingDeletion", Reason::KeyPendingDeletion),
            ("key is in state Creating", Reason::KmsServerError),
            ("the external key store is not connected", Reason::KmsServerError),
            ("", Reason::KmsServerError),
        ] {
            assert_eq!(of_answer(Some("KMSInvalidStateException"), Some(message), 400), reason);
        }
    }

    #[test]
    fn unknown_codes_go_by_status() {
        assert_eq!(of_answer(Some("Odd"), None, 503), Reason::KmsServerError);
        assert_eq!(of_answer(None, None, 200), Reason::KmsServerError);
        assert_eq!(of_answer(None, None, 429), Reason::KmsThrottled);
        assert_eq!(of_answer(Some("ValidationException"), None, 400), Reason::KmsRejected);
    }
}
