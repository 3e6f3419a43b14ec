//! Connections, and which part of the server a request is for.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::auth::Scope;
use crate::body::Body;
use crate::call::{self, Answer, Call, Protocol};
use crate::control;
use crate::server::Shared;

/// The largest body that is read; a KMS request is far smaller.
const BODY_LIMIT: usize = 1 << 20;

/// Why a request gets no answer.
#[derive(Debug)]
pub struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a scripted reset")
    }
}

impl std::error::Error for Reset {}

/// Accepts connections for ever. They are tasks of the current runtime and end with it.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&shared)))),
            Err(error) => eprintln!("fake_kms cannot accept a connection: {error}"),
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // So that a trickle arrives byte by byte.
    if let Err(error) = stream.set_nodelay(true) {
        eprintln!("fake_kms cannot send at once: {error}");
    }
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let answer: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(async move { respond(&shared, request).await });
        answer
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Without hyper's own shutdown, so that the socket comes back open and can still be reset.
    // Every error but ours means that the client is gone.
    let result = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if result.is_err_and(|error| std::error::Error::source(&error).is_some_and(|e| e.is::<Reset>()))
        && let Err(error) = connection.into_parts().io.into_inner().set_zero_linger()
    {
        eprintln!("fake_kms cannot reset a connection: {error}");
    }
}

async fn respond(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Reset> {
    let (head, body) = request.into_parts();
    let request_id = Uuid::new_v4().to_string();
    let answer = match Limited::new(body, BODY_LIMIT).collect().await {
        Err(error) => Answer::refusal(413, &error.to_string()),
        Ok(body) => {
            let body = body.to_bytes();
            if let Some(path) = head.uri.path().strip_prefix("/_control/") {
                control::answer(shared, head.method.as_str(), path, &body)
            } else if let Some(protocol) = Protocol::of(&head.headers, &body) {
                let call = Call {
                    request_id: request_id.clone(),
                    protocol,
                    scope: header(&head.headers, AUTHORIZATION.as_str()).and_then(Scope::parse),
                    session_token: header(&head.headers, "x-amz-security-token"),
                    body: &body,
                };
                call::answer(shared, call).await?
            } else {
                Answer::refusal(404, "neither KMS nor STS nor /_control/")
            }
        }
    };
    Ok(into_response(answer, &request_id))
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn into_response(answer: Answer, request_id: &str) -> Response<Body> {
    let mut response = Response::new(answer.body);
    // A scripted status may be any number, also one that HTTP does not know.
    *response.status_mut() =
        answer.status.try_into().unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.content_type));
    if let Ok(id) = request_id.parse() {
        headers.insert("x-amzn-requestid", id);
    }
    response
}
