//! What all requests of this process go out through.
//!
//! Certificates are read for the first request that is encrypted. A process that asks loopback or
//! metadata addresses only, or nobody, has none.

use super::answer_limit::limited;
use super::endpoint;
use super::environment::variable;
use super::proxy::Proxy;
use super::requests::noted;
use super::resolver::Resolver;
use super::trust;
use super::watched::watched;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use cmk_error::Result;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The client of this process, made on first use.
///
/// # Errors
/// `endpoint` for a proxy, or for a certificate bundle that is no file; the next call looks again.
/// What a bundle holds is told by the first request that is encrypted.
pub fn connections() -> Result<SharedHttpClient> {
    static CONNECTIONS: Mutex<Option<SharedHttpClient>> = Mutex::new(None);
    let mut made = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = &*made {
        return Ok(made.clone());
    }
    let proxy = Proxy::from_environment(variable)?;
    trust::check(variable)?;
    let connections = SharedHttpClient::new(Connections::through(proxy.clone()));
    Ok(made.insert(noted(watched(limited(connections), proxy))).clone())
}

/// The two kinds of connections.
#[derive(Clone, Debug)]
struct Connections {
    clear: Arc<Kept>,
    encrypted: Arc<Kept>,
}

impl Connections {
    fn through(proxy: Option<Proxy>) -> Self {
        let kept = |proxy, trust| Arc::new(Kept { proxy, trust, last: Mutex::new(None) });
        Self {
            // The SDK has no connector with a resolver of ours and without TLS. This one trusts
            // nobody.
            clear: kept(None, || Ok(TrustStore::empty())),
            encrypted: kept(proxy, || trust::store(variable)),
        }
    }
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let (connections, settings) = (self.clone(), settings.clone());
        SharedHttpConnector::new(Connecting { connections, settings })
    }
}

/// Of which kind, the request says.
#[derive(Debug)]
struct Connecting {
    connections: Connections,
    settings: HttpConnectorSettings,
}

impl HttpConnector for Connecting {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Connections { clear, encrypted } = &self.connections;
        let kept = if endpoint::is_clear_text(request.uri()) { clear } else { encrypted };
        match kept.connector(&self.settings) {
            Ok(connector) => connector.call(request),
            Err(error) => HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        }
    }
}

/// One kind's connector: one at a time, because each has a root store of its own. Timeouts differ
/// after a change of settings, and between KMS and some sources of credentials.
#[derive(Debug)]
struct Kept {
    proxy: Option<Proxy>,
    trust: fn() -> Result<TrustStore>,
    last: Mutex<Option<(Timeouts, SharedHttpConnector)>>,
}

/// To connect and to read.
type Timeouts = (Option<Duration>, Option<Duration>);

impl Kept {
    /// # Errors
    /// As [`trust::store`]; the next call looks again.
    fn connector(&self, settings: &HttpConnectorSettings) -> Result<SharedHttpConnector> {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, connector)) if *of == timeouts => return Ok(connector.clone()),
            // First, so that there are never two root stores.
            _ => *last = None,
        }
        let connector = SharedHttpConnector::new(self.make(settings)?);
        *last = Some((timeouts, connector.clone()));
        Ok(connector)
    }

    fn make(&self, settings: &HttpConnectorSettings) -> Result<Connector> {
        let trust = TlsContext::builder().with_trust_store((self.trust)()?).build();
        // No idle connections: between two calls nobody would look at one, and its TLS buffers
        // would keep the last plain data key in ordinary memory. A closed connection's memory is
        // zeroed as it is freed.
        let mut connector = Connector::builder()
            .pool_max_idle_per_host(0)
            .connector_settings(settings.clone())
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(trust.map_err(|_| trust::refused())?);
        connector.set_proxy_config(self.proxy.as_ref().map(Proxy::config));
        Ok(connector.build_with_resolver(Resolver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    fn settings(connect: u64) -> HttpConnectorSettings {
        HttpConnectorSettings::builder().connect_timeout(Duration::from_secs(connect)).build()
    }

    #[test]
    fn certificates_are_read_for_new_timeouts_only_and_again_after_a_failure() {
        static READ: AtomicU32 = AtomicU32::new(0);
        let trust = || match READ.fetch_add(1, Relaxed) {
            0 => Err(trust::refused()),
            _ => Ok(TrustStore::empty()),
        };
        let kept = Kept { proxy: None, trust, last: Mutex::new(None) };
        kept.connector(&settings(1)).unwrap_err();
        for (connect, read) in [(1, 2), (1, 2), (2, 3), (2, 3), (1, 4)] {
            kept.connector(&settings(connect)).unwrap();
            assert_eq!(READ.load(Relaxed), read, "{connect} s");
        }
    }
}
