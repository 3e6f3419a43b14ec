//! The scripted faults, as a client sees them, and the log that counts them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::types::DataKeySpec;
use serde_json::{Value, json};

use crate::target::{Target, code};

fn ours() -> Target {
    Target::fake_kms("eu-west-1")
}

fn counters(target: &Target) -> Value {
    target.control("GET", "counters", Value::Null)
}

#[tokio::test]
async fn a_fault_befalls_its_operation_its_key_and_its_number_of_calls() {
    let target = ours();
    let (key, other) = (target.key().await, target.key().await);
    let (blob, others) = (target.wrapped(&key).await, target.wrapped(&other).await);
    let fault = json!({"kind": "throttle", "times": 2, "arn": key, "operation": "Decrypt"});
    target.control("POST", "fault", fault);
    // The ciphertext names the key where the request does not.
    let decrypt = || target.kms.decrypt().ciphertext_blob(blob.clone());
    target.kms.describe_key().key_id(&key).send().await.expect("another operation");
    target.kms.decrypt().ciphertext_blob(others).send().await.expect("another key");
    assert_eq!(code(decrypt().send().await), "ThrottlingException");
    assert_eq!(code(decrypt().key_id(&key).send().await), "ThrottlingException");
    decrypt().send().await.expect("used up");
}

#[tokio::test]
async fn a_fault_without_a_number_lasts_until_cleared() {
    let target = ours();
    let fault = json!({"kind": "status", "times": null, "status": 503, "code": "Overloaded"});
    target.control("POST", "fault", fault);
    for _ in 0..3 {
        let error = target.kms.list_keys().send().await.expect_err("a fault");
        assert_eq!(error.raw_response().map(|raw| raw.status().as_u16()), Some(503));
        assert_eq!(code::<(), _>(Err(error)), "Overloaded");
    }
    target.control("DELETE", "faults", Value::Null);
    target.kms.list_keys().send().await.expect("cleared");
}

#[tokio::test]
async fn the_client_retries_a_throttled_call() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "throttle", "times": 2}));
    let retry = RetryConfig::standard()
        .with_max_attempts(3)
        .with_initial_backoff(Duration::from_millis(10));
    let client = Client::new(&target.config().into_builder().retry_config(retry).build());
    client.list_keys().send().await.expect("the third attempt");
    let counters = counters(&target);
    assert_eq!(counters["by_operation"], json!({"ListKeys": 3}));
    assert_eq!(counters["by_outcome"], json!({"Success": 1, "fault:throttle": 2}));
}

#[tokio::test]
async fn a_delay_delays_the_true_answer() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "delay", "times": 1, "millis": 300}));
    let start = Instant::now();
    target.kms.list_keys().send().await.expect("a late answer");
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(counters(&target)["by_outcome"], json!({"Success": 1}));
}

#[tokio::test]
async fn a_hanging_call_goes_on_when_the_faults_are_cleared() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "hang", "times": null}));
    let calling = tokio::spawn(target.kms.list_keys().send());
    until(|| counters(&target)["by_outcome"] == json!({"pending": 1})).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!calling.is_finished());
    target.control("DELETE", "faults", Value::Null);
    calling.await.expect("no panic").expect("the true answer");
    assert_eq!(counters(&target)["by_outcome"], json!({"Success": 1}));
}

#[tokio::test]
async fn a_hanging_call_is_abandoned_when_the_client_goes_away() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "hang", "times": null}));
    let call = tokio::time::timeout(Duration::from_millis(200), target.kms.list_keys().send());
    assert!(call.await.is_err(), "nobody answers");
    until(|| counters(&target)["by_outcome"] == json!({"abandoned": 1})).await;
}

/// Without the SDK, which does not say how the connection ended.
#[test]
fn a_reset_is_a_tcp_reset() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "reset", "times": 1}));
    let address = target.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("a connection");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nX-Amz-Target: TrentService.ListKeys\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let error = stream.read(&mut [0]).expect_err("no answer and no orderly end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(counters(&target)["by_outcome"], json!({"fault:reset": 1}));
}

#[tokio::test]
async fn the_client_sees_a_reset_as_no_answer() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "reset", "times": 1}));
    let error = target.kms.list_keys().send().await.expect_err("a reset");
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    target.kms.list_keys().send().await.expect("used up");
}

#[tokio::test]
async fn garbage_is_an_answer_that_cannot_be_read() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "garbage", "times": 1}));
    let error = target.kms.list_keys().send().await.expect_err("garbage");
    // To the SDK it is an error of the service, but one without a code.
    assert!(matches!(error, SdkError::ServiceError(_)), "{error:?}");
    assert_eq!(error.code(), None);
    assert_eq!(error.raw_response().map(|raw| raw.status().as_u16()), Some(200));
}

#[tokio::test]
async fn an_answer_can_name_another_key() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    target.control("POST", "fault", json!({"kind": "wrong_key_id", "times": 1}));
    let decrypt = || target.kms.decrypt().ciphertext_blob(blob.clone()).key_id(&key).send();
    let answered = decrypt().await.expect("Decrypt").key_id.expect("a key id");
    assert!(answered.starts_with("arn:aws:kms:") && answered != key, "{answered}");
    assert_eq!(decrypt().await.expect("Decrypt").key_id, Some(key.clone()));
}

#[tokio::test]
async fn an_answer_can_be_a_byte_short() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    target.control("POST", "fault", json!({"kind": "short_key", "times": 1}));
    for length in [31, 32] {
        let answer = target.kms.decrypt().ciphertext_blob(blob.clone()).send().await;
        assert_eq!(answer.expect("Decrypt").plaintext.expect("a key").as_ref().len(), length);
    }
}

#[tokio::test]
async fn a_key_can_decrypt_whatever_the_encryption_context() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    let decrypt = || {
        let call = target.kms.decrypt().ciphertext_blob(blob.clone()).key_id(&key);
        call.encryption_context("tenant", "another").send()
    };
    target.control("POST", "fault", json!({"kind": "any_context", "times": 1}));
    let answer = decrypt().await.expect("Decrypt");
    assert_eq!(answer.plaintext.expect("bytes").as_ref().len(), 32);
    assert_eq!(answer.key_id, Some(key.clone()));
    assert_eq!(code(decrypt().await), "InvalidCiphertextException");
}

#[tokio::test]
async fn the_log_says_what_was_asked() {
    let target = ours();
    let key = target.key().await;
    target.control("DELETE", "log", Value::Null);
    let call = target.kms.generate_data_key_without_plaintext().key_id(&key);
    let call = call.key_spec(DataKeySpec::Aes256).encryption_context("tenant", "acme");
    let blob = call.send().await.expect("a data key").ciphertext_blob.expect("a ciphertext");
    code(target.kms.decrypt().ciphertext_blob(blob).send().await);
    let log = target.control("GET", "log", Value::Null);
    assert_eq!(log[0]["operation"], "GenerateDataKeyWithoutPlaintext");
    assert_eq!(log[0]["key_arn"], *key);
    assert_eq!(log[0]["encryption_context"], json!({"tenant": "acme"}));
    assert_eq!(log[0]["access_key_id"], crate::target::ACCESS_KEY_ID);
    assert_eq!(log[0]["outcome"], "Success");
    assert_eq!(log[1]["key_arn"], *key, "the key that the ciphertext names");
    assert_eq!(log[1]["outcome"], "InvalidCiphertextException");
    assert_eq!(log.as_array().map(Vec::len), Some(2));
    let counters = counters(&target);
    assert_eq!(counters["total"], 2);
    assert_eq!(
        counters["by_key"],
        json!({key: {"GenerateDataKeyWithoutPlaintext": 1, "Decrypt": 1}})
    );
}

/// Waits for what another task brings about; ten seconds are for ever.
async fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
