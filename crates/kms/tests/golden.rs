//! Golden wrapped data keys of the local provider.
//!
//! What one release has sealed opens in every later one.
//!
//! `tests/vectors/` was written once by an independent implementation (`tests/crosscheck/`) and
//! never changes. A failure here is a break of the format.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../tests/vectors/case.rs"]
mod case;
mod directory;

use case::{Case, cases};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use cmk_kms::local::wrapped;
use cmk_kms::{EncryptionContext, Kms, Purpose};
use directory::{Directory, key};

/// From before data keys had a purpose: all were bound to the one that was called `dek`.
const LOCAL_KEY: &str = include_str!("../../../tests/vectors/local_key.json");

const PURPOSES: &str = include_str!("../../../tests/vectors/local_key_purposes.json");

/// Under a context that nothing but this test makes: no caller of the provider can ask for `dek`.
fn unwrap_of_old(case: &Case) -> Result<SecretKey> {
    let tenant = serde_json::to_string(case.tenant()).unwrap();
    let context = format!(r#"{{"cmk_encrypt":"v1","purpose":"dek","tenant":{tenant}}}"#);
    let key = SecretKey::from_slice(&case.bytes("key")).unwrap();
    wrapped::unwrap(&key, context.as_bytes(), &case.bytes("wrapped"))
}

/// As the extension does it, through a key file.
fn unwrap_in(directory: &Directory, case: &Case) -> Result<SecretKey> {
    directory.put(case.name(), &case.bytes("key"));
    let purpose = Purpose::from_name(case.text("purpose")).unwrap();
    let context = EncryptionContext::new(case.tenant(), purpose);
    directory.on(|kms| kms.unwrap(&key(case.name()), &case.bytes("wrapped"), &context))
}

fn assert_is(case: &Case, dek: &SecretKey) {
    assert_eq!(dek.expose_secret().as_slice(), case.bytes("dek"), "{}", case.name());
    let commitment = Commitment::to(dek, case.tenant().as_bytes());
    assert_eq!(commitment.as_bytes().as_slice(), case.bytes("commitment"), "{}", case.name());
}

#[test]
fn golden_data_keys_unwrap() {
    for case in cases(LOCAL_KEY, "valid", 5) {
        assert_is(&case, &unwrap_of_old(&case).unwrap());
    }
    let directory = Directory::new("golden-valid");
    for case in cases(PURPOSES, "valid", 6) {
        assert_is(&case, &unwrap_in(&directory, &case).unwrap());
    }
}

#[test]
fn invalid_data_keys_are_rejected_for_exactly_their_reason() {
    for case in cases(LOCAL_KEY, "invalid", 14) {
        let error = unwrap_of_old(&case).expect_err(case.name());
        assert_eq!(error.reason.name(), case.text("reason"), "{}", case.name());
    }
    let directory = Directory::new("golden-invalid");
    for case in cases(PURPOSES, "invalid", 7) {
        let error = unwrap_in(&directory, &case).expect_err(case.name());
        assert_eq!(error.reason.name(), case.text("reason"), "{}", case.name());
    }
}
