//! Which endpoints are safe to talk to.

use cmk_error::{Error, Reason, Result};
use url::{Host, Url};

/// Plain data keys travel in KMS's answers, so clear text goes to this machine only.
///
/// # Errors
/// `endpoint` for one that isn't https, or http to a loopback address.
pub fn check(endpoint: &str) -> Result<&str> {
    let refused = || Error::new(Reason::Endpoint);
    let url = Url::parse(endpoint).map_err(|_| refused())?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let bare = url.username().is_empty() && url.password().is_none();
    let safe = bare && (url.scheme() == "https" || url.scheme() == "http" && loopback);
    if safe { Ok(endpoint) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_this_machine() {
        for url in [
            "https://kms.example",
            "http://127.0.0.1:80/",
            "http://[::1]:4566",
            "http://localhost:1",
        ] {
            assert!(check(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "https://",
            "http://kms.example",
            "http://127.0.0.1.example:80",
            "ftp://127.0.0.1",
            "http://127.0.0.1@evil.example",
            "http://127.0.0.1:1@evil.example",
        ] {
            assert_eq!(check(url).unwrap_err().reason, Reason::Endpoint, "{url}");
        }
    }
}
