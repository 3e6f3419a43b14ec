//! The local provider as its callers see it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod directory;

use cmk_error::Reason;
use cmk_kms::{EncryptionContext, KeyFacts, Kms, Purpose};
use directory::{Directory, key};

#[test]
fn unwraps_what_it_wrapped_under_the_same_key_and_context_only() {
    let directory = Directory::new("roundtrip");
    directory.put("acme", &[7; 32]);
    directory.put("other", &[8; 32]);
    let acme = EncryptionContext::new("acme", Purpose::Values);
    let wrapped = directory.on(|kms| kms.generate(&key("acme"), &acme)).unwrap();
    directory.on(|kms| kms.unwrap(&key("acme"), &wrapped, &acme)).unwrap();
    for (name, context) in [
        ("acme", EncryptionContext::new("globex", Purpose::Values)),
        ("acme", EncryptionContext::new("acme", Purpose::Index)),
        ("other", acme),
    ] {
        let error = directory.on(|kms| kms.unwrap(&key(name), &wrapped, &context)).unwrap_err();
        assert_eq!(error.reason, Reason::WrappedKeyRejected);
    }
}

#[test]
fn a_key_without_a_file_is_not_found_and_has_no_facts() {
    let (directory, context) =
        (Directory::new("absent"), EncryptionContext::new("acme", Purpose::Values));
    let error = directory.on(|kms| kms.generate(&key("acme"), &context)).unwrap_err();
    assert_eq!(error.reason, Reason::KeyNotFound);
    let facts = directory.on(|kms| kms.describe(&key("acme")));
    assert_eq!(facts.unwrap(), KeyFacts::default());
}

#[test]
fn does_nothing_while_switched_off() {
    let context = EncryptionContext::new("acme", Purpose::Values);
    let error = directory::on(None, |kms| kms.generate(&key("acme"), &context)).unwrap_err();
    assert_eq!(error.reason, Reason::LocalKeysOff);
}
