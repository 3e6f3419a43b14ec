//! Notes every request that goes out to KMS and STS, for the [`trace`].
//!
//! At the level of HTTP: the SDK tells of an operation's last attempt only, and not at all of the
//! role that it assumes by the way.

use super::answer::{is_identifier, of_answer};
use super::answer_limit::TooLong;
use super::failure;
use super::progress;
use crate::trace::{self, About, Began, Outcome};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use cmk_error::{Reason, Result};
use serde::Deserialize;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::time::Duration;

/// `client`, whose requests to KMS and STS are noted. It is to be around the one that reads answers
/// to their end.
pub fn noted(client: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(NotingClient(client))
}

/// A request that went out.
#[derive(Debug)]
struct Request {
    service: &'static str,
    operation: Box<str>,
    began: Began,
    /// `None` until it is answered.
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    request_id: Option<Box<str>>,
    outcome: Outcome,
    took: Duration,
}

tokio::task_local! {
    /// Of the call that is being driven.
    static REQUESTS: RefCell<Vec<Request>>;
}

/// A call of an operation, with a progress of its own: what goes out in it is for it, until it
/// ends. Of several requests, the last one's answer is what the result was made of.
///
/// # Errors
/// As `call`.
pub async fn of_call<R>(
    about: About<'_>,
    operation: &'static str,
    call: impl Future<Output = Result<R>>,
) -> Result<R> {
    let noted = async {
        let noted = Noted { about, operation, began: Began::now(), ended: false };
        noted.end(call.await)
    };
    REQUESTS.scope(RefCell::default(), progress::of_call(noted)).await
}

struct Noted<'a> {
    about: About<'a>,
    operation: &'static str,
    began: Began,
    ended: bool,
}

impl Noted<'_> {
    fn end<R>(mut self, result: Result<R>) -> Result<R> {
        self.ended = true;
        match &result {
            Ok(_) => self.record(Outcome::Success),
            Err(error) => self.record(Outcome::Failure(error.reason)),
        }
        result
    }

    fn record(&self, last: Outcome) {
        let requests = REQUESTS.try_with(RefCell::take).unwrap_or_default();
        if requests.is_empty() {
            // Not even a request was possible: without credentials, for instance.
            trace::record(self.about.entry("kms", self.operation, last, self.began));
        }
        let count = requests.len();
        for (at, request) in requests.into_iter().enumerate() {
            let is_last = at + 1 == count;
            let outcome = match &request.answer {
                Some(Answer { outcome: Outcome::Success, .. }) if is_last => last,
                Some(answer) => answer.outcome,
                None if is_last => last,
                // Another attempt was made when its time was over.
                None => Outcome::Failure(Reason::KmsTimeout),
            };
            let Request { service, operation, began, answer, .. } = request;
            let mut entry = self.about.entry(service, operation, outcome, began);
            if let Some(Answer { request_id, took, .. }) = answer {
                (entry.request_id, entry.took) = (request_id, took);
            }
            trace::record(entry);
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Outcome::Interrupted);
        }
    }
}

#[derive(Debug)]
struct NotingClient(SharedHttpClient);

impl HttpClient for NotingClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(NotingConnector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct NotingConnector(SharedHttpConnector);

impl HttpConnector for NotingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Some((service, operation)) = operation_of(&request) else {
            return self.0.call(request);
        };
        let noted = Request { service, operation, began: Began::now(), answer: None };
        let number = REQUESTS.try_with(|requests| {
            let mut requests = requests.borrow_mut();
            requests.push(noted);
            requests.len() - 1
        });
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            let (request_id, outcome) = match &answer {
                Ok(answer) => (request_id(answer), outcome_of(answer)),
                Err(error) => (None, Outcome::Failure(reason_of(error))),
            };
            if let Ok(number) = number {
                let _ = REQUESTS.try_with(|requests| {
                    if let Some(request) = requests.borrow_mut().get_mut(number) {
                        let took = request.began.elapsed();
                        request.answer = Some(Answer { request_id, outcome, took });
                    }
                });
            }
            answer
        })
    }
}

/// Service and operation. `None` for what isn't KMS or STS: sources of credentials.
fn operation_of(request: &HttpRequest) -> Option<(&'static str, Box<str>)> {
    let (service, operation) = match request.headers().get("x-amz-target") {
        Some(target) => ("kms", target.strip_prefix("TrentService.")?),
        None => {
            let form = std::str::from_utf8(request.body().bytes()?).ok()?;
            let mut fields = form.split('&').filter_map(|field| field.split_once('='));
            ("sts", fields.find(|(name, _)| *name == "Action")?.1)
        }
    };
    is_identifier(operation).then(|| (service, operation.into()))
}

fn request_id(answer: &HttpResponse) -> Option<Box<str>> {
    let id = answer.headers().get("x-amzn-requestid")?;
    is_identifier(id).then(|| id.into())
}

fn outcome_of(answer: &HttpResponse) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        return Outcome::Success;
    }
    let (code, message) = error_of(answer.body().bytes().unwrap_or_default());
    match code.as_deref() {
        // What is asked for and answered so would have been done.
        Some("DryRunOperationException") => Outcome::Success,
        code => Outcome::Failure(of_answer(code, message.as_deref(), status.as_u16())),
    }
}

/// Code and message of an error, in JSON as of KMS or in XML as of STS.
fn error_of(body: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    struct JsonError {
        #[serde(rename = "__type")]
        code: Option<String>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    if let Ok(JsonError { code, message }) = serde_json::from_slice(body) {
        // `namespace#Code:url` (Smithy, "AWS JSON 1.1 protocol").
        let bare = |code: String| {
            let code = code.rsplit('#').next().unwrap_or_default();
            code.split(':').next().unwrap_or_default().to_owned()
        };
        return (code.map(bare), message);
    }
    let text = std::str::from_utf8(body).unwrap_or_default();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.to_owned())
    };
    (element("Code"), element("Message"))
}

fn reason_of(error: &ConnectorError) -> Reason {
    if let Some(known) = failure::configuration(error) {
        return known.reason;
    }
    let chain = std::iter::successors(Some(error as &(dyn StdError + 'static)), |&e| e.source());
    if error.is_timeout() {
        Reason::KmsTimeout
    } else if chain.into_iter().any(|error| error.is::<TooLong>()) {
        Reason::KmsServerError
    } else {
        Reason::KmsUnreachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_in_both_forms() {
        let both = |body: &[u8]| {
            let (code, message) = error_of(body);
            (code.unwrap_or_default(), message.unwrap_or_default())
        };
        let pair = |code: &str, message: &str| (code.to_owned(), message.to_owned());
        let json = br#"{"__type":"com.amazonaws.kms#DisabledException:","message":"off"}"#;
        assert_eq!(both(json), pair("DisabledException", "off"));
        let json = br#"{"__type":"AccessDeniedException","Message":"no"}"#;
        assert_eq!(both(json), pair("AccessDeniedException", "no"));
        let xml = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error>\
                    </ErrorResponse>";
        assert_eq!(both(xml), pair("AccessDenied", "no"));
        for nonsense in [&b""[..], b"\xff", b"[]", b"<Code>", b"null"] {
            assert_eq!(both(nonsense), pair("", ""));
        }
    }

    fn request(headers: &[(&'static str, &'static str)], body: &'static str) -> HttpRequest {
        let mut request = HttpRequest::new(body.into());
        for (name, value) in headers {
            request.headers_mut().insert(*name, *value);
        }
        request
    }

    #[test]
    fn requests_of_kms_and_sts_are_told_from_others() {
        let of = |request: HttpRequest| {
            operation_of(&request).map(|(service, operation)| format!("{service} {operation}"))
        };
        let kms = request(&[("x-amz-target", "TrentService.Decrypt")], "{}");
        assert_eq!(of(kms).as_deref(), Some("kms Decrypt"));
        let sts = request(&[], "Action=AssumeRole&Version=2011-06-15");
        assert_eq!(of(sts).as_deref(), Some("sts AssumeRole"));
        for other in [
            request(&[], ""),
            request(&[], "Action=a%20b"),
            request(&[("x-amz-target", "Other.Decrypt")], "Action=AssumeRole"),
            request(&[("x-amz-target", "TrentService.a b")], ""),
        ] {
            assert_eq!(of(other), None);
        }
    }
}
