//! Golden wrapped data keys of the local provider.
//!
//! What one release has sealed opens in every later one.
//!
//! `tests/vectors/` was written once by an independent implementation (`tests/crosscheck/`) and
//! never changes. A failure here is a break of the format.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../tests/vectors/case.rs"]
mod case;

use case::{Case, cases};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use cmk_kms::context::EncryptionContext;
use cmk_kms::key_uri::KeyUri;
use cmk_kms::local::LocalKms;
use cmk_kms::{Custody, Kms};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

const LOCAL_KEY: &str = include_str!("../../../tests/vectors/local_key.json");

/// A directory of key files, removed on drop.
struct KeyDirectory(PathBuf);

impl KeyDirectory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cmk-golden-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Unwraps the data key of `case` through a key file of its own.
    fn unwrap(&self, case: &Case) -> Result<SecretKey> {
        let name = case.name();
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.0.join(format!("{name}.key")))
            .unwrap();
        file.write_all(&case.bytes("key")).unwrap();

        let kms = LocalKms { directory: Some(self.0.clone()) };
        let key = KeyUri::parse(&format!("local:{name}")).unwrap();
        let custody = Custody { key, role: None };
        let context = EncryptionContext::data_key(case.tenant());
        kms.unwrap(&custody, &case.bytes("wrapped"), &context)
    }
}

impl Drop for KeyDirectory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn golden_data_keys_unwrap() {
    let directory = KeyDirectory::new("valid");
    for case in cases(LOCAL_KEY, "valid", 5) {
        let dek = directory.unwrap(&case).unwrap();
        assert_eq!(dek.expose_secret().as_slice(), case.bytes("dek"), "{}", case.name());
        let commitment = Commitment::to(&dek, case.tenant().as_bytes());
        assert_eq!(commitment.as_bytes().as_slice(), case.bytes("commitment"), "{}", case.name());
    }
}

#[test]
fn invalid_data_keys_are_rejected_for_exactly_their_reason() {
    let directory = KeyDirectory::new("invalid");
    for case in cases(LOCAL_KEY, "invalid", 14) {
        let error = directory.unwrap(&case).expect_err(case.name());
        assert_eq!(error.reason.name(), case.text("reason"), "{}", case.name());
    }
}
