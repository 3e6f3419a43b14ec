//! Any text as a key URI, as options and as an option's value: never panics, and what is accepted
//! holds nothing that could change a host name, a path or a request.

#![no_main]

use cmk_kms::CustomerKey;
use cmk_kms::options::Options;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const AWS_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ROLE: &str = "arn:aws:iam::111122223333:role/cmk";
const EXTERNAL_ID: &str = "acme-7f3e";

fn only(text: &str, punctuation: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(&byte))
}

fn uri(text: &str) {
    match CustomerKey::parse(text, "{}", 0) {
        Ok(key) => {
            assert_eq!((key.uri(), key.options()), (text, "{}"));
            assert_eq!(CustomerKey::parse(key.uri(), key.options(), 1).as_ref(), Ok(&key));
            match text.strip_prefix("local:") {
                Some(name) => assert!(only(name, b"_-"), "a name becomes part of a path"),
                None => {
                    assert!(only(text, b":-/"));
                    let region = text.split(':').nth(3).expect("an ARN has a Region");
                    assert!(only(region, b"-"), "a Region becomes part of a host name");
                }
            }
        }
        Err(error) => assert_eq!(error.reason.name(), "key_uri"),
    }
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
    // Whatever is accepted for AWS has both options, and nothing else.
    match CustomerKey::parse(AWS_KEY, text, 0) {
        Ok(key) if !key.assumes_role() => assert_eq!(key.options(), "{}"),
        Ok(key) => {
            assert!(only(key.options(), br#"{"_":",+=.@/-}"#));
            assert!(key.options().starts_with(r#"{"external_id":""#));
            assert!(key.options().contains(r#"","role_arn":"arn:"#));
        }
        Err(error) => {
            let reasons = ["key_options", "role_arn", "external_id"];
            assert!(reasons.contains(&error.reason.name()), "{error}");
        }
    }
}

/// The text as one of the two options, beside a good other one.
fn option(name: &str, text: &str) -> bool {
    let mut options = json!({"role_arn": ROLE, "external_id": EXTERNAL_ID});
    options[name] = text.into();
    let options = options.to_string();
    match CustomerKey::parse(AWS_KEY, &options, 0) {
        Ok(key) => {
            assert_eq!(key.options(), options);
            assert!(key.assumes_role());
            true
        }
        Err(error) if error.reason.name() == "key_options" => {
            assert!(options.len() > 8 * 1024, "too long for any option");
            false
        }
        Err(error) => {
            assert_eq!(error.reason.name(), name);
            false
        }
    }
}

fuzz_target!(|text: &str| {
    uri(text);
    options(text);
    if option("role_arn", text) {
        assert!(only(text, b":+=,.@_/-"));
    }
    if option("external_id", text) {
        assert!((2..=1224).contains(&text.len()) && only(text, b"_+=,.@:/-"));
    }
});
