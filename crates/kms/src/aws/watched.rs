//! An HTTP client that says how far a request has come, and lets clear text go to this machine
//! only, wherever the address comes from.

use super::endpoint;
use super::layer;
use super::progress::Requesting;
use super::proxy::Proxy;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use std::fmt;

/// `client`, watched. `proxy`: the one that it goes through.
pub fn watched(client: SharedHttpClient, proxy: Option<Proxy>) -> SharedHttpClient {
    SharedHttpClient::new(WatchedClient { client, proxy })
}

/// The address is not one that clear text may go to.
#[derive(Debug)]
pub struct ClearText {
    /// Whose it is.
    pub host: Box<str>,
}

impl fmt::Display for ClearText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clear text to another machine")
    }
}

impl std::error::Error for ClearText {}

#[derive(Debug)]
struct WatchedClient {
    client: SharedHttpClient,
    proxy: Option<Proxy>,
}

impl HttpClient for WatchedClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = self.client.http_connector(settings, components);
        SharedHttpConnector::new(WatchedConnector { connector, proxy: self.proxy.clone() })
    }
}

#[derive(Debug)]
struct WatchedConnector {
    connector: SharedHttpConnector,
    proxy: Option<Proxy>,
}

impl HttpConnector for WatchedConnector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let host: Box<str> = endpoint::host(request.uri()).into();
        if !endpoint::may_be_asked(request.uri()) {
            return HttpConnectorFuture::ready(Err(ConnectorError::user(
                ClearText { host }.into(),
            )));
        }
        let proxy = self.proxy.as_ref().and_then(|proxy| proxy.of(request.uri()));
        let connection = CaptureSmithyConnection::new();
        let connection = match request.extension::<CaptureSmithyConnection>() {
            Some(captured) => captured.clone(),
            None => {
                request.add_extension(connection.clone());
                connection
            }
        };
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let by_proxy = proxy.is_some();
            let requesting = Requesting::begin(host, proxy, || connection.get().is_some());
            let answer = answer.await;
            match &answer {
                Ok(_) => requesting.answered(),
                Err(error) => requesting.failed(layer::of(error, by_proxy), error.is_timeout()),
            }
            answer
        })
    }
}
