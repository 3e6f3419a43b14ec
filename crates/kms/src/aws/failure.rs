//! From a request that brought no answer, or credentials that nobody gave, to an [`Error`] that
//! names the layer.

use super::answer::{self, is_identifier};
use super::answer_limit::TooLong;
use super::layer::{self, find};
use super::progress::{self, Failed};
use super::watched::ClearText;
use crate::resources;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_http::endpoint::ResolveEndpointError;
use aws_smithy_runtime_api::client::endpoint::error::ResolveEndpointError as UnusableEndpoint;
use cmk_error::{Cause, Error, Reason};
use std::error::Error as StdError;

type Chained<'a> = &'a (dyn StdError + 'static);

/// `key=value` fields of an error, all of them identifiers of a checked shape.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn caused_by(cause: Cause) -> Self {
        Self::default().with("cause", cause.name())
    }

    fn with(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.and(&format!("{key}={value}")) }
    }

    /// Further fields, as they are.
    fn and(mut self, fields: &str) -> Self {
        if !fields.is_empty() {
            let space = if self.0.is_empty() { "" } else { " " };
            self.0 += &format!("{space}{fields}");
        }
        self
    }

    fn of(self, reason: Reason) -> Error {
        match self.0.is_empty() {
            true => Error::new(reason),
            false => Error::new(reason).with_info(self.0),
        }
    }
}

/// Where the last request went, and in which Region.
fn place(fields: Fields, failed: Option<&Failed>) -> Fields {
    let host = failed.map_or("", |failed| &failed.host);
    fields.with("host", host).with("region", &progress::region())
}

/// Time ran out, wherever the call was.
pub fn timed_out() -> Error {
    progress::cut_short();
    match progress::failed() {
        Some(failed @ Failed { provider: Some(provider), .. }) => {
            no_credentials(provider, &failed, "")
        }
        failed => {
            let cause = failed.as_ref().and_then(|failed| failed.cause);
            let cause = cause.unwrap_or(Cause::TimeoutResponse);
            let fields = Fields::caused_by(cause);
            place(fields, failed.as_ref()).of(reason_of(cause).unwrap_or(Reason::KmsTimeout))
        }
    }
}

/// What this process lacks is no matter of time.
fn reason_of(cause: Cause) -> Option<Reason> {
    matches!(cause, Cause::Fd | Cause::Runtime).then_some(Reason::KmsUnreachable)
}

/// This process lacks what a call takes.
pub fn no_resources(error: Chained<'_>) -> Error {
    resources::missing(layer::resources(error).unwrap_or(Cause::Runtime))
}

/// A request was not sent, or not answered.
pub fn undelivered(error: Chained<'_>, is_timeout: bool) -> Error {
    if let Some(known) = configuration(error) {
        return known;
    }
    if find::<CredentialsError>(error).is_some() {
        return Reason::Credentials.into();
    }
    let failed = progress::failed();
    if find::<TooLong>(error).is_some() {
        return place(Fields::default(), failed.as_ref()).of(Reason::KmsServerError);
    }
    if let Some(failed @ Failed { provider: Some(provider), .. }) = &failed {
        return no_credentials(provider, failed, "");
    }
    let cause = failed.as_ref().and_then(|failed| failed.cause);
    let cause = cause.unwrap_or_else(|| layer::of(error, false));
    let reason = match is_timeout {
        true => reason_of(cause).unwrap_or(Reason::KmsTimeout),
        false => Reason::KmsUnreachable,
    };
    place(Fields::caused_by(cause), failed.as_ref()).of(reason)
}

/// What was found out already, or what no retry mends.
pub fn configuration(error: Chained<'_>) -> Option<Error> {
    if let Some(known) = find::<Error>(error) {
        return Some(known.clone());
    }
    let endpoint = Fields::caused_by(Cause::Endpoint);
    if let Some(ClearText { host }) = find(error) {
        return Some(endpoint.with("host", host).of(Reason::Endpoint));
    }
    let unresolved =
        find::<ResolveEndpointError>(error).is_some() || find::<UnusableEndpoint>(error).is_some();
    unresolved.then(|| endpoint.with("region", &progress::region()).of(Reason::Endpoint))
}

/// An answer that makes no sense, or broke off.
pub fn nonsense(request_id: Option<&str>) -> Error {
    let fields = place(Fields::default(), progress::failed().as_ref());
    fields.with("request_id", checked(request_id)).of(Reason::KmsServerError)
}

/// A source of our own credentials isn't usable as it is configured.
pub fn broken(provider: &'static str, cause: Cause) -> CredentialsError {
    CredentialsError::provider_error(no_credentials_for(provider, cause, None, "", ""))
}

/// A source of our own credentials gave none, whatever it said instead.
pub fn of_source(provider: &'static str, error: CredentialsError) -> CredentialsError {
    if find::<Error>(&error).is_some() {
        return error;
    }
    let failed = configuration(&error).unwrap_or_else(|| {
        let answer = answered(&error);
        match progress::failed() {
            Some(failed) => no_credentials(provider, &failed, &answer),
            None => {
                let layer = layer::resources(&error);
                no_credentials_for(provider, cause_of(provider), layer, "", &answer)
            }
        }
    });
    CredentialsError::provider_error(failed)
}

/// STS gave no session of a tenant's role. What STS says is the owner's decision, not our
/// configuration.
pub fn of_assumed_role(error: CredentialsError) -> CredentialsError {
    if find::<Error>(&error).is_some() {
        return error;
    }
    let sts = find::<SdkError<AssumeRoleError, HttpResponse>>(&error);
    let fields = Fields::caused_by(Cause::AssumeRole);
    let failed = match (sts, progress::failed()) {
        (Some(SdkError::ServiceError(_)), _) => {
            let answer = sts.and_then(answer::refusal);
            let reason = match answer.as_ref().map(|answer| answer.reason) {
                Some(Reason::KmsRejected) | None => Reason::Credentials,
                Some(reason) => reason,
            };
            fields.and(answer.as_ref().and_then(Error::info).unwrap_or_default()).of(reason)
        }
        // An answer that makes no sense.
        (Some(SdkError::ResponseError(_)), failed) => {
            place(fields, failed.as_ref()).of(Reason::KmsServerError)
        }
        (Some(error), _) if find::<TooLong>(error).is_some() => {
            place(fields, None).of(Reason::KmsServerError)
        }
        (_, Some(failed)) => no_credentials(ASSUME_ROLE, &failed, ""),
        (_, None) => configuration(&error).unwrap_or_else(|| {
            let layer = Some(layer::of(&error, false));
            no_credentials_for(ASSUME_ROLE, Cause::AssumeRole, layer, "", "")
        }),
    };
    CredentialsError::provider_error(failed)
}

/// The provider that sessions of tenants' roles come from.
pub const ASSUME_ROLE: &str = "assume_role";

fn cause_of(provider: &str) -> Cause {
    match provider {
        ASSUME_ROLE => Cause::AssumeRole,
        "web_identity" => Cause::WebIdentity,
        _ => Cause::Credentials,
    }
}

/// Asked, it failed so.
fn no_credentials(provider: &'static str, failed: &Failed, answer: &str) -> Error {
    let cause = if failed.is_late { Cause::CredentialsTimeout } else { cause_of(provider) };
    no_credentials_for(provider, cause, failed.cause, &failed.host, answer)
}

fn no_credentials_for(
    provider: &'static str,
    cause: Cause,
    layer: Option<Cause>,
    host: &str,
    answer: &str,
) -> Error {
    // What this process lacks is not the source's fault.
    if let Some(lack @ (Cause::Fd | Cause::Runtime)) = layer {
        return Fields::caused_by(lack).with("provider", provider).of(Reason::Credentials);
    }
    let fields = match cause {
        Cause::Credentials => Fields(format!("cause={}:{provider}", cause.name())),
        cause if cause_of(provider) == cause => Fields::caused_by(cause),
        cause => Fields::caused_by(cause).with("provider", provider),
    };
    let is_of_sts = cause_of(provider) != Cause::Credentials;
    let region = if is_of_sts { progress::region() } else { String::new() };
    fields
        .with("layer", layer.map_or("", Cause::name))
        .with("host", host)
        .with("region", &region)
        .and(answer)
        .of(Reason::Credentials)
}

/// The code and the request id of STS's answer, if it was STS that answered.
fn answered(error: Chained<'_>) -> String {
    fn of<E>(error: Chained<'_>) -> Option<String>
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let error = find::<SdkError<E, HttpResponse>>(error)?;
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        let fields = Fields::default().with("kms_code", checked(code));
        Some(fields.with("request_id", checked(error.request_id())).0)
    }
    of::<AssumeRoleWithWebIdentityError>(error)
        .or_else(|| of::<AssumeRoleError>(error))
        .unwrap_or_default()
}

fn checked(text: Option<&str>) -> &str {
    text.filter(|it| is_identifier(it)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
