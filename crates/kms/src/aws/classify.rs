//! From what went wrong with a request to an [`Error`].

use super::{answer, failure};
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use cmk_error::{Error, Reason};
use std::error::Error as StdError;

/// The reason: what the service answered, or where the request failed.
pub fn classify<E>(error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match error {
        SdkError::TimeoutError(_) => failure::timed_out(),
        SdkError::ResponseError(_) => failure::nonsense(error.request_id()),
        SdkError::ConstructionFailure(_) => {
            failure::configuration(error).unwrap_or(Reason::KmsRejected.into())
        }
        SdkError::DispatchFailure(failed) => failure::undelivered(error, failed.is_timeout()),
        _ => answer::refusal(error).unwrap_or(Reason::KmsServerError.into()),
    }
}
