//! Any text as a key URI, as options and as an option's value: never panics, and what is accepted
//! holds nothing that could change a host name, a path or a request.

#![no_main]

use cmk_kms::CustomerKey;
use cmk_kms::aws::assumed_role::{ExternalId, RoleArn};
use cmk_kms::aws::key_arn::KeyArn;
use cmk_kms::options::Options;
use libfuzzer_sys::fuzz_target;

fn only(text: &str, punctuation: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(&byte))
}

fn local_key(text: &str) {
    match CustomerKey::parse(text, "{}", 0) {
        Ok(key) => {
            assert_eq!((key.uri(), key.options()), (text, "{}"));
            assert_eq!(CustomerKey::parse(key.uri(), key.options(), 1).as_ref(), Ok(&key));
            let name = text.strip_prefix("local:").expect("the one provider here");
            assert!(only(name, b"_-"), "a name becomes part of a path");
        }
        Err(error) => assert_eq!(error.reason.name(), "key_uri"),
    }
}

fn key_arn(text: &str) {
    let Some(arn) = KeyArn::parse(text) else { return };
    assert_eq!(arn.as_str(), text);
    assert!(only(text, b":-/"));
    assert_eq!(text.split(':').nth(3), Some(arn.region()));
    assert!(only(arn.region(), b"-"), "a Region becomes part of a host name");
}

fn options(text: &str) {
    match Options::parse(text) {
        Ok(options) => {
            let canonical = options.to_canonical_json();
            let again = Options::parse(&canonical).expect("canonical options are options");
            assert_eq!(again.to_canonical_json(), canonical);
            assert_eq!(options.finish().is_ok(), canonical == "{}");
        }
        Err(error) => assert_eq!(error.reason.name(), "key_options"),
    }
}

fuzz_target!(|text: &str| {
    local_key(text);
    key_arn(text);
    options(text);
    match RoleArn::parse(text) {
        Ok(role) => assert!(role.as_str() == text && only(text, b":+=,.@_/-")),
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
