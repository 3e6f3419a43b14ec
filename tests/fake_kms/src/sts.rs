//! AssumeRole and GetCallerIdentity (awsQuery: a form in, XML out).

use std::collections::HashMap;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::auth::Caller;
use crate::call::Answer;
use crate::error::ApiError;
use crate::kms::Subject;
use crate::store::{Session, Store};

pub const CONTENT_TYPE: &str = "text/xml";

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

type Form = HashMap<String, String>;

/// # Errors
/// The error that AWS answers in this situation.
///
/// With an `expiration`, AssumeRole tells that one. The session ends when it would have ended.
pub fn perform(
    store: &mut Store,
    caller: &Caller,
    form: &Form,
    expiration: Option<&str>,
    request_id: &str,
) -> Result<Answer, ApiError> {
    match form.get("Action").map(String::as_str) {
        Some("AssumeRole") => assume_role(store, caller, form, expiration, request_id),
        Some("GetCallerIdentity") => Ok(get_caller_identity(caller, request_id)),
        action => {
            let message = format!("Could not find operation {}", action.unwrap_or_default());
            Err(ApiError::new(400, "InvalidAction", message))
        }
    }
}

/// Faults can be scripted for one role.
pub fn subject(form: &Form) -> Subject {
    Subject { arns: form.get("RoleArn").cloned().into_iter().collect(), encryption_context: None }
}

/// # Errors
/// AccessDenied for an unknown role as for a wrong external id: AWS does not tell them apart.
fn assume_role(
    store: &mut Store,
    caller: &Caller,
    form: &Form,
    expiration: Option<&str>,
    request_id: &str,
) -> Result<Answer, ApiError> {
    let role_arn = required(form, "RoleArn")?;
    let name = required(form, "RoleSessionName")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&name.len()) || !name.chars().all(is_plain) {
        return Err(invalid("roleSessionName"));
    }
    let seconds = match form.get("DurationSeconds") {
        None => 3600,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| (900..=43200).contains(seconds))
            .ok_or_else(|| invalid("durationSeconds"))?,
    };
    if !store.trusts(role_arn, caller, form.get("ExternalId").map(String::as_str)) {
        let message = format!(
            "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
            caller.arn
        );
        return Err(ApiError::new(403, "AccessDenied", message));
    }
    let id = Uuid::new_v4().simple().to_string();
    let session = Session {
        access_key_id: format!("ASIAFAKE{}", id[..12].to_uppercase()),
        token: format!("fake-session-token-{id}"),
        role_arn: role_arn.to_owned(),
        name: name.to_owned(),
        expires_at: OffsetDateTime::now_utc().truncate_to_second() + Duration::seconds(seconds),
    };
    let true_expiration = session
        .expires_at
        .format(&Rfc3339)
        .map_err(|error| ApiError::new(500, "InternalFailure", error.to_string()))?;
    let expiration = escape(expiration.unwrap_or(&true_expiration));
    let result = format!(
        "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>fake-secret-{id}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
         <AssumedRoleUser><AssumedRoleId>AROAFAKE:{name}</AssumedRoleId>\
         <Arn>{}</Arn></AssumedRoleUser>",
        session.access_key_id,
        session.token,
        escape(&session.arn()),
    );
    store.add_session(session);
    Ok(success("AssumeRole", &result, request_id))
}

fn get_caller_identity(caller: &Caller, request_id: &str) -> Answer {
    let Caller { arn, account, access_key_id, .. } = caller;
    let (arn, user) = (escape(arn), escape(access_key_id));
    let result = format!("<Arn>{arn}</Arn><UserId>{user}</UserId><Account>{account}</Account>");
    success("GetCallerIdentity", &result, request_id)
}

pub fn error(error: &ApiError, request_id: &str) -> Answer {
    let kind = if error.status < 500 { "Sender" } else { "Receiver" };
    let (code, message) = (escape(&error.code), escape(&error.message));
    xml(
        error.status,
        format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{kind}</Type><Code>{code}</Code>\
             <Message>{message}</Message></Error><RequestId>{request_id}</RequestId>\
             </ErrorResponse>"
        ),
    )
}

fn success(operation: &str, result: &str, request_id: &str) -> Answer {
    xml(
        200,
        format!(
            "<{operation}Response xmlns=\"{NAMESPACE}\"><{operation}Result>{result}</{operation}Result>\
             <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
             </{operation}Response>"
        ),
    )
}

fn xml(status: u16, body: String) -> Answer {
    Answer { status, content_type: CONTENT_TYPE, body: body.into() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn required<'a>(form: &'a Form, name: &str) -> Result<&'a str, ApiError> {
    form.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| invalid(name))
}

fn invalid(member: &str) -> ApiError {
    let message = format!("1 validation error detected: Value at '{member}' is not valid");
    ApiError::new(400, "ValidationError", message)
}
