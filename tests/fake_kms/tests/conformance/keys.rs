//! Keys as only our server can have them: in any state, of any kind, in any account.

use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeySpec, KeyState, KeyUsageType, OriginType};
use serde_json::{Value, json};

use crate::target::{Target, code};

fn ours() -> Target {
    Target::fake_kms("eu-west-1")
}

fn arn(answer: Value) -> String {
    answer["arn"].as_str().expect("an ARN").to_owned()
}

#[tokio::test]
async fn every_state_has_its_error_and_its_message() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    for (state, code, message) in [
        ("Disabled", "DisabledException", format!("{key} is disabled.")),
        ("PendingDeletion", "KMSInvalidStateException", format!("{key} is pending deletion.")),
        ("PendingImport", "KMSInvalidStateException", format!("{key} is pending import.")),
        ("Creating", "KMSInvalidStateException", format!("{key} is creating.")),
        ("Updating", "KMSInvalidStateException", format!("{key} is updating.")),
        ("Unavailable", "KeyUnavailableException", format!("{key} is unavailable.")),
        ("Deleted", "NotFoundException", format!("Key '{key}' does not exist")),
    ] {
        target.control("POST", "key_state", json!({"arn": key, "state": state}));
        let call = target.kms.decrypt().ciphertext_blob(blob.clone()).key_id(&key);
        let error = call.send().await.expect_err(state);
        assert_eq!((error.code(), error.message()), (Some(code), Some(message.as_str())));
    }
    target.control("POST", "key_state", json!({"arn": key, "state": "Enabled"}));
    target.kms.decrypt().ciphertext_blob(blob).send().await.expect("enabled again");
}

#[tokio::test]
async fn a_ciphertext_does_not_reveal_whether_its_key_exists() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    let elsewhere = target.kms_in("us-east-1").decrypt().ciphertext_blob(blob.clone());
    assert_eq!(code(elsewhere.send().await), "AccessDeniedException");
    target.control("POST", "key_state", json!({"arn": key, "state": "Deleted"}));
    let deleted = target.kms.decrypt().ciphertext_blob(blob);
    assert_eq!(code(deleted.send().await), "AccessDeniedException");
    assert_eq!(code(target.kms.describe_key().key_id(&key).send().await), "NotFoundException");
}

#[tokio::test]
async fn a_key_for_something_else_does_not_encrypt() {
    let target = ours();
    let (kms, aes) = (&target.kms, DataKeySpec::Aes256);
    let call = kms.create_key().key_usage(KeyUsageType::GenerateVerifyMac);
    let answer = call.key_spec(KeySpec::Hmac256).send().await.expect("CreateKey");
    let created = answer.key_metadata.and_then(|metadata| metadata.arn).expect("an ARN");
    let request = json!({
        "region": "eu-west-1", "account": "444455556666", "usage": "SIGN_VERIFY", "spec": "RSA_2048"
    });
    for key in [created, arn(target.control("POST", "key", request))] {
        let encrypt = kms.encrypt().key_id(&key).plaintext(Blob::new("x"));
        assert_eq!(code(encrypt.send().await), "InvalidKeyUsageException");
        let generate = kms.generate_data_key().key_id(&key).key_spec(aes.clone());
        assert_eq!(code(generate.send().await), "InvalidKeyUsageException");
    }
}

#[tokio::test]
async fn a_key_lives_in_the_account_and_region_given() {
    let target = ours();
    let request = json!({"region": "us-east-1", "account": "444455556666", "key_id": "fake-key"});
    let key = arn(target.control("POST", "key", request));
    assert_eq!(key, "arn:aws:kms:us-east-1:444455556666:key/fake-key");
    assert_eq!(code(target.kms.describe_key().key_id(&key).send().await), "NotFoundException");
    let there = target.kms_in("us-east-1");
    let answer = there.describe_key().key_id(&key).send().await.expect("DescribeKey");
    let account = answer.key_metadata.and_then(|metadata| metadata.aws_account_id);
    assert_eq!(account.as_deref(), Some("444455556666"));
    // A bare id means the caller's own account, and the key is not in that.
    assert_eq!(code(there.describe_key().key_id("fake-key").send().await), "NotFoundException");
}

#[tokio::test]
async fn a_key_without_material_waits_for_it() {
    let target = ours();
    let call = target.kms.create_key().origin(OriginType::External);
    let metadata = call.send().await.expect("CreateKey").key_metadata.expect("metadata");
    assert_eq!(metadata.key_state, Some(KeyState::PendingImport));
    let encrypt = target.kms.encrypt().key_id(metadata.key_id).plaintext(Blob::new("x"));
    assert_eq!(code(encrypt.send().await), "KMSInvalidStateException");
}

#[tokio::test]
async fn old_ciphertexts_survive_a_rotation() {
    let target = ours();
    let key = target.key().await;
    let old = target.wrapped(&key).await;
    target.kms.rotate_key_on_demand().key_id(&key).send().await.expect("RotateKeyOnDemand");
    for blob in [old, target.wrapped(&key).await] {
        target.kms.decrypt().ciphertext_blob(blob).key_id(&key).send().await.expect("Decrypt");
    }
}
