//! What the first calls of a process take with them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use cmk_kms::aws::AwsSettings;
use cmk_kms::{CustomerKey, EncryptionContext, Kms, Providers, Purpose, Settings};
use fake_kms::Server;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const ACCESS_KEY: &str = "AKIAFAKEFIRSTCALL000";

/// Runs the test in a process of its own, which has made no call yet, in this environment.
fn alone(test: &str, variables: &[(&str, &str)], work: impl FnOnce()) {
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|id| id == ACCESS_KEY) {
        return work();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    for unwanted in ["AWS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(unwanted);
    }
    let status = command
        .args(["--exact", test, "--nocapture"])
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", "fake-secret-for-tests")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .status();
    assert!(status.unwrap().success(), "{test}");
}

/// `done`, or why not.
fn generate(endpoint: &str, connect_timeout: Duration, arn: &str) -> String {
    let second = Duration::from_secs(1);
    let settings = Settings {
        aws: AwsSettings {
            kms_endpoint: Some(endpoint.to_owned()),
            sts_endpoint: Some(endpoint.to_owned()),
            service_principal: None,
            connect_timeout,
            attempt_timeout: second * 5,
            operation_timeout: second * 5,
            max_attempts: 1,
            max_clients: 8,
        },
        #[cfg(feature = "local")]
        local: Default::default(),
    };
    let kms = Providers { settings: &settings, limit: None, tick: || () };
    let key = CustomerKey::parse(arn, "{}", 0).unwrap();
    let context = EncryptionContext::new("acme", Purpose::Values);
    kms.generate(&key, &context).map_or_else(|error| error.detail(), |_| "done".to_owned())
}

#[test]
fn certificates_are_read_for_what_is_encrypted_only() {
    let test = "certificates_are_read_for_what_is_encrypted_only";
    let no_bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    alone(test, &[("AWS_CA_BUNDLE", no_bundle)], || {
        let (server, second) = (Server::start().unwrap(), Duration::from_secs(1));
        let key = json!({"region": "eu-west-1", "account": "111122223333"});
        let key = server.control("POST", "key", key).unwrap();
        let arn = key["arn"].as_str().unwrap();
        let clear = server.url();
        let encrypted = clear.replace("http:", "https:");
        let refused = "reason=endpoint cause=trust from=AWS_CA_BUNDLE";
        for (endpoint, told) in [(&clear, "done"), (&encrypted, refused)].repeat(2) {
            assert_eq!(generate(endpoint, second, arn), told, "{endpoint}");
        }
    });
}

/// Anonymous pages of this process, in KiB. Those of a program that was just built don't count,
/// which are dirty too.
#[cfg(target_os = "linux")]
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_has_the_certificates_once_whatever_the_settings() {
    let test = "a_process_has_the_certificates_once_whatever_the_settings";
    alone(test, &[], || {
        let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let ask = |seconds| generate("https://127.0.0.1:1", Duration::from_secs(seconds), arn);
        let before = memory();
        assert!(ask(1).contains("cause=refused"));
        let first = memory() - before;
        assert!(first <= 3 << 10, "{first} KiB for the first call");
        for seconds in 2..22 {
            ask(seconds);
        }
        let more = memory().saturating_sub(before + first);
        assert!(more <= 1 << 10, "{more} KiB for other settings");
    });
}
