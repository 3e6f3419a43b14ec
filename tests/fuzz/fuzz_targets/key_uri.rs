//! Any text as a key URI, a role ARN and an external id: never panics, and what is accepted holds
//! nothing that could change a host name, a path or a request.

#![no_main]

use cmk_kms::key_uri::{ExternalId, KeyUri, RoleArn};
use libfuzzer_sys::fuzz_target;

fn only(text: &str, punctuation: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(&byte))
}

fuzz_target!(|text: &str| {
    match KeyUri::parse(text) {
        Ok(uri) => {
            assert_eq!(uri.to_string(), text);
            assert_eq!(KeyUri::parse(&uri.to_string()).as_ref(), Ok(&uri));
            match uri {
                KeyUri::Aws(arn) => {
                    assert_eq!(arn.as_str(), text);
                    assert!(only(text, b":-/"));
                    assert!(only(arn.region(), b"-"), "a Region becomes part of a host name");
                    assert_eq!(text.split(':').nth(3), Some(arn.region()));
                }
                KeyUri::Local(name) => {
                    assert_eq!(text.strip_prefix("local:"), Some(name.as_str()));
                    assert!(only(name.as_str(), b"_-"), "a name becomes part of a path");
                }
            }
        }
        Err(error) => assert_eq!(error.reason.name(), "key_uri"),
    }
    match RoleArn::parse(text) {
        Ok(arn) => {
            assert_eq!(arn.as_str(), text);
            assert!(only(text, b":+=,.@_/-"));
        }
        Err(error) => assert_eq!(error.reason.name(), "role_arn"),
    }
    match ExternalId::parse(text) {
        Ok(id) => {
            assert_eq!(id.as_str(), text);
            assert!((2..=1224).contains(&text.len()) && only(text, b"_+=,.@:/-"));
        }
        Err(error) => assert_eq!(error.reason.name(), "external_id"),
    }
});
