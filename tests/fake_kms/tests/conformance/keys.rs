//! Keys as only our server can have them: in any state, of any kind, in any account.

use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{
    DataKeySpec, ExpirationModelType, KeyMetadata, KeySpec, KeyState, KeyUsageType, OriginType,
};
use serde_json::{Value, json};

use crate::target::{Target, code};

fn ours() -> Target {
    Target::fake_kms("eu-west-1")
}

async fn described(target: &Target, key: &str) -> KeyMetadata {
    let answer = target.kms.describe_key().key_id(key).send().await.expect("DescribeKey");
    answer.key_metadata.expect("metadata")
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

#[tokio::test]
async fn a_key_put_into_pending_deletion_has_a_date_until_it_is_taken_out() {
    let target = ours();
    let key = target.key().await;
    let date = || async { described(&target, &key).await.deletion_date.map(|date| date.secs()) };
    assert_eq!(date().await, None);
    let pending = json!({"arn": key, "state": "PendingDeletion", "deletion_date": 2_000_000_000});
    target.control("POST", "key_state", pending);
    assert_eq!(date().await, Some(2_000_000_000));
    target.control("POST", "key_state", json!({"arn": key, "state": "Enabled"}));
    assert_eq!(date().await, None);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    target.control("POST", "key_state", json!({"arn": key, "state": "PendingDeletion"}));
    let days = (date().await.expect("a default") - now.as_secs() as i64) as f64 / 86_400.0;
    assert!((29.9..30.1).contains(&days), "{days} days");
}

#[tokio::test]
async fn a_key_pending_deletion_does_not_rotate() {
    let target = ours();
    let key = target.key().await;
    let rotates = async || {
        let answer = target.kms.get_key_rotation_status().key_id(&key).send().await;
        answer.expect("GetKeyRotationStatus").key_rotation_enabled
    };
    target.kms.enable_key_rotation().key_id(&key).send().await.expect("EnableKeyRotation");
    assert!(rotates().await);
    target.kms.schedule_key_deletion().key_id(&key).send().await.expect("ScheduleKeyDeletion");
    assert!(!rotates().await);
    target.kms.cancel_key_deletion().key_id(&key).send().await.expect("CancelKeyDeletion");
    assert!(rotates().await, "as before");
}

#[tokio::test]
async fn imported_material_may_expire_and_never_rotates() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    let metadata = described(&target, &key).await;
    assert_eq!((metadata.valid_to, metadata.expiration_model), (None, None));
    for (valid_to, model) in [
        (Some(2_000_000_000), ExpirationModelType::KeyMaterialExpires),
        (None, ExpirationModelType::KeyMaterialDoesNotExpire),
    ] {
        target.control("POST", "key_material", json!({"arn": key, "valid_to": valid_to}));
        let metadata = described(&target, &key).await;
        assert_eq!(metadata.origin, Some(OriginType::External));
        assert_eq!(metadata.valid_to.map(|date| date.secs()), valid_to);
        assert_eq!(metadata.expiration_model, Some(model));
    }
    let enabled = target.kms.enable_key_rotation().key_id(&key).send().await;
    assert_eq!(code(enabled), "UnsupportedOperationException");
    target
        .kms
        .decrypt()
        .ciphertext_blob(blob)
        .key_id(&key)
        .send()
        .await
        .expect("the same material");
}
