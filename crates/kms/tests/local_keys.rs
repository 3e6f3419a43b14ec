//! The local provider as its callers see it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod directory;

use cmk_error::Reason;
use cmk_kms::{EncryptionContext, Kms, Purpose, Route};
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
fn a_key_without_a_file_is_not_found() {
    let (directory, context) =
        (Directory::new("absent"), EncryptionContext::new("acme", Purpose::Values));
    let error = directory.on(|kms| kms.generate(&key("acme"), &context)).unwrap_err();
    assert_eq!(error.reason, Reason::KeyNotFound);
    let error = directory.on(|kms| kms.describe(&key("acme"))).unwrap_err();
    assert_eq!(error.reason, Reason::KeyNotFound);
    directory.put("acme", &[7; 32]);
    let facts = directory.on(|kms| kms.describe(&key("acme"))).unwrap();
    assert_eq!((facts.enabled, facts.can_wrap, facts.rotates), (Some(true), Some(true), None));
}

#[test]
fn wraps_a_data_key_that_it_did_not_make() {
    let directory = Directory::new("wrap");
    directory.put("acme", &[7; 32]);
    directory.put("other", &[8; 32]);
    let acme = EncryptionContext::new("acme", Purpose::Values);
    let (from, to) = (key("acme"), key("other"));
    let old = directory.on(|kms| kms.generate(&from, &acme)).unwrap();
    assert_eq!(directory.on(|kms| kms.route(&from, &to)), Route::UnwrapAndWrap);
    let refused = directory.on(|kms| kms.rewrap(&from, &old, &to, &acme)).unwrap_err();
    assert_eq!(refused.reason, Reason::KmsRejected);
    let dek = directory.on(|kms| kms.unwrap(&from, &old, &acme)).unwrap();
    let new = directory.on(|kms| kms.wrap(&to, &dek, &acme)).unwrap();
    let again = directory.on(|kms| kms.unwrap(&to, &new, &acme)).unwrap();
    assert_eq!(again.expose_secret(), dek.expose_secret());
}

#[test]
fn each_call_leaves_a_trace() {
    let directory = Directory::new("trace");
    directory.put("acme", &[7; 32]);
    let context = EncryptionContext::new("acme", Purpose::Index);
    drop(cmk_kms::trace::take());
    directory.on(|kms| kms.generate(&key("acme"), &context)).unwrap();
    directory.on(|kms| kms.unwrap(&key("absent"), &[], &context)).unwrap_err();
    directory.on(|kms| kms.describe(&key("acme"))).unwrap();
    let traces = cmk_kms::trace::take();
    let said: Vec<_> = traces
        .iter()
        .map(|it| format!("{} {} {} {:?}", it.operation, it.key_uri, it.outcome.name(), it.tenant))
        .collect();
    assert_eq!(
        said,
        [
            r#"generate local:acme success Some("acme")"#,
            r#"unwrap local:absent key_not_found Some("acme")"#,
            "describe local:acme success None",
        ]
    );
    assert_eq!(traces[0].purpose, Some(Purpose::Index));
    assert!(traces[0].began > 1_700_000_000_000_000);
}

#[test]
fn does_nothing_while_switched_off() {
    let context = EncryptionContext::new("acme", Purpose::Values);
    let error = directory::on(None, |kms| kms.generate(&key("acme"), &context)).unwrap_err();
    assert_eq!(error.reason, Reason::LocalKeysOff);
}
