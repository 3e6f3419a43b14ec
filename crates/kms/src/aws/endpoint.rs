//! Which endpoints are safe to talk to.

use cmk_error::{Cause, Error, Reason, Result};
use std::net::IpAddr;
use url::{Host, Url};

/// An endpoint setting for one Region: `{region}` stands for its name.
///
/// # Errors
/// As [`check`].
pub fn of_setting(setting: &str, region: &str, from: &str) -> Result<String> {
    let endpoint = setting.replace("{region}", region);
    check(&endpoint, from).map(|()| endpoint)
}

/// Plain data keys travel in KMS's answers, so clear text goes to this machine only. `from` says
/// who named the endpoint.
///
/// # Errors
/// `endpoint` for one that isn't https, or http to a loopback address.
pub fn check(endpoint: &str, from: &str) -> Result<()> {
    match is_safe(endpoint) {
        true => Ok(()),
        false => Err(refused(Cause::Endpoint, from)),
    }
}

/// `endpoint`, for what `from` says.
pub fn refused(cause: Cause, from: &str) -> Error {
    Error::new(Reason::Endpoint).with_info(format!("cause={} from={from}", cause.name()))
}

fn is_safe(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    let bare = url.username().is_empty() && url.password().is_none();
    // A misspelt {region}, or one where it means nothing.
    bare && !endpoint.contains(['{', '}'])
        && match url.scheme() {
            "https" => true,
            "http" => is_here(&url),
            _ => false,
        }
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Where credentials are handed out in clear text, on the link of the machine itself: the metadata
/// service of EC2, the credentials of ECS tasks and those of EKS Pod Identity (AWS SDKs and Tools
/// Reference Guide, "IMDS credential provider" and "Container credential provider").
const METADATA: [&str; 5] =
    ["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Whether a request may be sent there, be it to KMS, to STS or to a source of credentials.
pub fn may_be_asked(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    let of_metadata = || {
        let address = host_of(&url).parse::<IpAddr>();
        METADATA.iter().any(|known| address == known.parse())
    };
    url.scheme() == "https" || url.scheme() == "http" && (is_here(&url) || of_metadata())
}

/// Whether a request that [may be sent](may_be_asked) goes in clear text.
pub fn is_clear_text(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| url.scheme() == "http")
}

/// The host of a URI, as errors name it: letters, digits, `.`, `:`, `_` and `-`.
pub fn host(uri: &str) -> String {
    Url::parse(uri).map(|url| host_of(&url)).unwrap_or_default()
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".:_-".contains(&b);
    match host.len() <= 253 && host.bytes().all(is_plain) {
        true => host.to_owned(),
        false => String::new(),
    }
}

/// A Region as it may stand in a host name.
pub fn is_region(region: &str) -> bool {
    (1..=32).contains(&region.len())
        && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !region.starts_with('-')
        && !region.ends_with('-')
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
            assert!(check(url, "test").is_ok() && may_be_asked(url), "{url}");
            assert_eq!(is_clear_text(url), url.starts_with("http:"), "{url}");
        }
        for url in [
            "",
            "https://",
            "http://kms.example",
            "http://127.0.0.1.example:80",
            "ftp://127.0.0.1",
            "http://127.0.0.1@evil.example",
            "http://127.0.0.1:1@evil.example",
            "http://169.254.169.255/",
        ] {
            let error = check(url, "test").unwrap_err();
            assert_eq!(error.detail(), "reason=endpoint cause=endpoint from=test", "{url}");
            assert!(!may_be_asked(url), "{url}");
        }
        // Credentials, but no data keys, come from there.
        for url in
            ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://169.254.170.23"]
        {
            assert!(check(url, "test").is_err() && may_be_asked(url), "{url}");
        }
    }

    #[test]
    fn an_endpoint_setting_serves_several_regions() {
        let of = |setting: &str| of_setting(setting, "eu-west-1", "test").ok();
        let vpc = "https://vpce-1.kms.{region}.vpce.amazonaws.com";
        let there = "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com";
        assert_eq!(of(vpc).as_deref(), Some(there));
        assert_eq!(of(there).as_deref(), Some(there));
        assert_eq!(of("http://{region}.example"), None);
        assert_eq!(of("https://kms.{Region}.example"), None);
    }

    #[test]
    fn hosts_are_told_without_what_could_forge_a_field() {
        for (uri, told) in [
            ("https://kms.eu-west-1.amazonaws.com/", "kms.eu-west-1.amazonaws.com"),
            ("http://[::1]:8080/x", "::1"),
            ("https://user:secret@proxy.example:3128", "proxy.example"),
            ("not a uri", ""),
        ] {
            assert_eq!(host(uri), told);
        }
        assert!(is_region("eu-west-1") && is_region("us-gov-west-1"));
        for odd in ["", "eu west", "eu.west", "-eu", "eu-", "EU-WEST-1", &"x".repeat(33)] {
            assert!(!is_region(odd), "{odd}");
        }
    }
}
