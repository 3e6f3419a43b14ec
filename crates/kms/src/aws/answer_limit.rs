//! An HTTP client that refuses answers longer than any true one.
//!
//! The SDK reads an answer to its end before it looks at it, whatever its status, and an allocation
//! that fails in Rust aborts the process, and with it the database server. So what stands between
//! this server and KMS may not choose how much is read.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use std::fmt;

/// In bytes. The longest true answer, a wrapped data key of 6144 bytes in base64 within JSON, has
/// about 9 kB.
const ANSWER_MAX: usize = 64 * 1024;

/// `client`, with a limit on what it reads.
pub fn limited(client: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(LimitedClient(client))
}

/// The answer is longer than any true one.
#[derive(Debug)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an answer of more than {ANSWER_MAX} bytes")
    }
}

impl std::error::Error for TooLong {}

#[derive(Debug)]
struct LimitedClient(SharedHttpClient);

impl HttpClient for LimitedClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(LimitedConnector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct LimitedConnector(SharedHttpConnector);

impl HttpConnector for LimitedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
            *answer.body_mut() = SdkBody::from(read(body).await?);
            Ok(answer)
        })
    }
}

/// Copies each piece as it comes: pieces keep the buffers alive that they were read into, and may
/// be a byte each.
async fn read(mut body: SdkBody) -> Result<Vec<u8>, ConnectorError> {
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ConnectorError::io)?;
        let Some(data) = frame.data_ref() else { continue };
        if content.len() + data.len() > ANSWER_MAX {
            return Err(ConnectorError::other(TooLong.into(), None));
        }
        content.extend_from_slice(data);
    }
    Ok(content)
}
