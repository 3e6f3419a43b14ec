//! The proxy that the server's environment names.
//!
//! Only what is encrypted goes through it. Requests in clear text are to this machine or to its
//! metadata service, whose answers are credentials: no proxy is to see them, whatever `HTTP_PROXY`
//! says.

use super::endpoint;
use aws_smithy_http_client::proxy::ProxyConfig;
use cmk_error::{Cause, Result};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use std::fmt;
use std::sync::Arc;

/// A proxy, and whom it is for.
#[derive(Clone)]
pub struct Proxy {
    matcher: Arc<Matcher>,
    config: ProxyConfig,
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

impl Proxy {
    /// From `HTTPS_PROXY` or `ALL_PROXY`, and `NO_PROXY`, or the same in lower case.
    ///
    /// # Errors
    /// `endpoint` for a value that isn't the URL of an HTTP proxy.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                get(name).filter(|value| !value.trim().is_empty()).map(|value| (*name, value))
            })
        };
        let Some((from, url)) = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
        else {
            return Ok(None);
        };
        let exempt = first(&["NO_PROXY", "no_proxy"]).map_or(String::new(), |(_, value)| value);
        Self::new(url.trim(), &exempt)
            .map(Some)
            .ok_or_else(|| endpoint::refused(Cause::Proxy, from))
    }

    fn new(url: &str, exempt: &str) -> Option<Self> {
        // As curl and others do.
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let config = ProxyConfig::https(url.as_str()).ok()?.no_proxy(exempt);
        let matcher = Matcher::builder().https(url).no(exempt).build();
        Some(Self { matcher: Arc::new(matcher), config })
    }

    /// For the client.
    pub fn config(&self) -> ProxyConfig {
        self.config.clone()
    }

    /// The proxy's host, if a request goes through it.
    pub fn of(&self, uri: &str) -> Option<Box<str>> {
        let uri: Uri = uri.parse().ok()?;
        let intercept = self.matcher.intercept(&uri)?;
        Some(endpoint::host(&intercept.uri().to_string()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(variables: &[(&str, &str)]) -> Result<Option<Proxy>> {
        Proxy::from_environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn of(variables: &[(&str, &str)], uri: &str) -> Option<String> {
        proxy(variables).unwrap().and_then(|proxy| proxy.of(uri)).map(Into::into)
    }

    #[test]
    fn only_what_is_encrypted_goes_through_it() {
        let kms = "https://kms.eu-west-1.amazonaws.com/";
        let there = Some("proxy.example".to_owned());
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            for url in
                ["http://proxy.example:3128", "proxy.example:3128", "http://u:p@proxy.example"]
            {
                assert_eq!(of(&[(name, url)], kms), there, "{name}={url}");
                assert_eq!(of(&[(name, url)], "http://169.254.169.254/latest"), None);
            }
        }
        assert_eq!(of(&[("HTTP_PROXY", "http://proxy.example")], kms), None);
        assert_eq!(of(&[("HTTPS_PROXY", " ")], kms), None);
        let with = |exempt| [("HTTPS_PROXY", "http://proxy.example"), ("NO_PROXY", exempt)];
        for exempt in ["*", ".amazonaws.com", "x, kms.eu-west-1.amazonaws.com"] {
            assert_eq!(of(&with(exempt), kms), None, "{exempt}");
        }
        assert_eq!(of(&with("example.org"), kms), there);
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_by_the_name_of_its_variable() {
        for url in ["socks5://proxy.example:1080", "http://", "http:// x"] {
            let error = proxy(&[("ALL_PROXY", url)]).unwrap_err();
            assert_eq!(error.detail(), "reason=endpoint cause=proxy from=ALL_PROXY", "{url}");
        }
    }
}
