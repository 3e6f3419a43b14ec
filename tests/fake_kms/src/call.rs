//! One API call from arrival to answer: entered in the log, perhaps faulted, then performed.

use std::collections::HashMap;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Value, json};

use crate::auth::{Caller, Scope};
use crate::body::Body;
use crate::error::ApiError;
use crate::fault::{Fault, Kind};
use crate::http::{Reset, header};
use crate::server::Shared;
use crate::{kms, sts};

const AWS_JSON: &str = "application/x-amz-json-1.1";

/// An HTTP answer of any of the three interfaces.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Body,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: body.to_string().into() }
    }

    pub fn refusal(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"error": message}))
    }
}

/// The protocol of a call and what the protocol says about it.
pub enum Protocol {
    /// awsJson 1.1, with the operation's name
    Kms(String),
    /// awsQuery, with the form
    Sts(HashMap<String, String>),
}

impl Protocol {
    pub fn of(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        if let Some(target) = header(headers, "x-amz-target") {
            return target.strip_prefix("TrentService.").map(|name| Self::Kms(name.into()));
        }
        let form = "application/x-www-form-urlencoded";
        header(headers, CONTENT_TYPE.as_str())?
            .starts_with(form)
            .then(|| Self::Sts(form_urlencoded::parse(body).into_owned().collect()))
    }

    fn operation(&self) -> &str {
        match self {
            Self::Kms(operation) => operation,
            Self::Sts(form) => form.get("Action").map_or("", String::as_str),
        }
    }

    fn content_type(&self) -> &'static str {
        match self {
            Self::Kms(_) => AWS_JSON,
            Self::Sts(_) => sts::CONTENT_TYPE,
        }
    }

    fn error(&self, error: &ApiError, request_id: &str) -> Answer {
        match self {
            Self::Kms(_) => Answer {
                status: error.status,
                content_type: self.content_type(),
                body: json!({"__type": error.code, "message": error.message}).to_string().into(),
            },
            Self::Sts(_) => sts::error(error, request_id),
        }
    }
}

pub struct Call<'a> {
    /// Goes into the log and into the answer.
    pub request_id: String,
    pub protocol: Protocol,
    pub scope: Option<Scope>,
    pub session_token: Option<&'a str>,
    pub body: &'a [u8],
}

/// # Errors
/// [`Reset`] when a fault says that the connection is to break.
pub async fn answer(shared: &Shared, call: Call<'_>) -> Result<Answer, Reset> {
    let operation = call.protocol.operation();
    let subject = match &call.protocol {
        Protocol::Kms(_) => kms::subject(&shared.store.lock(), call.scope.as_ref(), call.body),
        Protocol::Sts(form) => sts::subject(form),
    };
    let access_key_id = call.scope.as_ref().map(|scope| scope.access_key_id.clone());
    let entry = shared.log.enter(
        &call.request_id,
        operation,
        subject.arns.first().filter(|_| matches!(call.protocol, Protocol::Kms(_))).cloned(),
        subject.encryption_context,
        access_key_id,
    );
    let mut taken = shared.faults.take(operation, &subject.arns);
    let fault = match &mut taken {
        None => None,
        Some(taken) => match taken.fault.kind {
            Kind::Delay => {
                tokio::time::sleep(Duration::from_millis(taken.fault.millis)).await;
                None
            }
            Kind::Hang => {
                taken.until_cleared().await;
                None
            }
            _ => Some(&taken.fault),
        },
    };
    if let Some(fault) = fault
        && let Some(result) = instead(fault, &call)
    {
        entry.close(fault.kind.outcome());
        return result;
    }
    let answer = match perform(shared, &call, fault) {
        Ok(answer) => {
            entry.close(fault.map_or("Success", |fault| fault.kind.outcome()));
            answer
        }
        Err(error) => {
            entry.close(&error.code);
            call.protocol.error(&error, &call.request_id)
        }
    };
    Ok(match fault {
        Some(fault) => reshape(answer, fault),
        None => answer,
    })
}

/// What a fault answers without performing the call at all.
fn instead(fault: &Fault, call: &Call) -> Option<Result<Answer, Reset>> {
    let Call { protocol, request_id, .. } = call;
    let error = |status, code, message| {
        let answer = protocol.error(&ApiError::new(status, code, message), request_id);
        Some(Ok(reshape(answer, fault)))
    };
    match fault.kind {
        Kind::Reset => Some(Err(Reset)),
        Kind::Throttle => error(400, "ThrottlingException", "Rate exceeded"),
        // A padded answer is the true one unless it has a status.
        Kind::Padded if fault.status.is_none() => None,
        Kind::Status | Kind::Padded => error(
            fault.status.unwrap_or(500),
            fault.code.as_deref().unwrap_or("KMSInternalException"),
            "A scripted fault",
        ),
        Kind::Endless => Some(Ok(Answer {
            status: fault.status.unwrap_or(200),
            content_type: protocol.content_type(),
            body: Body::spaces(fault.length),
        })),
        Kind::Garbage => Some(Ok(Answer {
            status: 200,
            content_type: AWS_JSON,
            body: "<html>this is not what you asked for".to_owned().into(),
        })),
        Kind::Delay
        | Kind::Hang
        | Kind::WrongKeyId
        | Kind::ShortKey
        | Kind::AnyContext
        | Kind::Expires
        | Kind::Trickle => None,
    }
}

/// The same answer, in the length or at the pace that the fault wants.
fn reshape(answer: Answer, fault: &Fault) -> Answer {
    let body = match fault.kind {
        Kind::Padded => answer.body.padded(fault.bytes.unwrap_or_default(), fault.chunked),
        Kind::Trickle => {
            let body = answer.body.padded(fault.bytes.unwrap_or_default(), fault.chunked);
            let pause = Duration::from_millis(fault.millis);
            body.trickling(fault.piece.unwrap_or(1), pause)
        }
        _ => answer.body,
    };
    Answer { body, ..answer }
}

fn perform(shared: &Shared, call: &Call, fault: Option<&Fault>) -> Result<Answer, ApiError> {
    let store = &mut *shared.store.lock();
    let authenticate =
        |service| Caller::authenticate(store, service, call.scope.as_ref(), call.session_token);
    match &call.protocol {
        Protocol::Kms(operation) => {
            let caller = authenticate("kms")?;
            let answer = kms::perform(store, &caller, operation, call.body);
            let ignores = fault.is_some_and(|fault| fault.kind == Kind::AnyContext);
            let mut body = match answer {
                Err(error) if ignores && error.code == "InvalidCiphertextException" => {
                    kms::opened_anyhow(store, call.scope.as_ref(), call.body)
                }
                answer => answer?,
            };
            if let Some(fault) = fault {
                kms::falsify(&mut body, fault.kind);
            }
            Ok(Answer { status: 200, content_type: AWS_JSON, body: body.to_string().into() })
        }
        Protocol::Sts(form) => {
            let caller = authenticate("sts")?;
            let expiration = fault
                .filter(|fault| fault.kind == Kind::Expires)
                .and_then(|fault| fault.expiration.as_deref());
            sts::perform(store, &caller, form, expiration, &call.request_id)
        }
    }
}
