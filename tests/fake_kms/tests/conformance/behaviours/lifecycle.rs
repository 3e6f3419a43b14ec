//! What becomes of keys, and what that does to the operations.

use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyManagerType, KeySpec, KeyState, KeyUsageType};

use super::{SECRET, acme, decrypt, encrypted};
use crate::target::{Target, code};

/// Every operation that uses a key, and the code of its error.
async fn refusals(target: &Target, key: &str, blob: &Blob) -> Vec<String> {
    let kms = &target.kms;
    let aes = DataKeySpec::Aes256;
    let plaintext = Blob::new(SECRET);
    vec![
        code(kms.encrypt().key_id(key).plaintext(plaintext).send().await),
        code(decrypt(target, blob, Some(key), acme()).await),
        code(decrypt(target, blob, None, acme()).await),
        code(kms.generate_data_key().key_id(key).key_spec(aes.clone()).send().await),
        code(kms.generate_data_key_without_plaintext().key_id(key).key_spec(aes).send().await),
        code(
            kms.re_encrypt()
                .ciphertext_blob(blob.clone())
                .set_source_encryption_context(acme())
                .destination_key_id(key)
                .send()
                .await,
        ),
    ]
}

pub async fn a_disabled_key_does_nothing_until_enabled(target: &Target) {
    let key = target.key().await;
    let blob = encrypted(target, &key).await;
    target.kms.disable_key().key_id(&key).send().await.expect("DisableKey");
    for refusal in refusals(target, &key, &blob).await {
        assert_eq!(refusal, "DisabledException");
    }
    target.kms.enable_key().key_id(&key).send().await.expect("EnableKey");
    decrypt(target, &blob, Some(&key), acme()).await.expect("Decrypt again");
}

pub async fn a_key_pending_deletion_does_nothing_until_rescued(target: &Target) {
    let kms = &target.kms;
    let key = target.key().await;
    let blob = encrypted(target, &key).await;
    let call = kms.schedule_key_deletion().key_id(&key).pending_window_in_days(7);
    let answer = call.send().await.expect("ScheduleKeyDeletion");
    assert_eq!(answer.key_state, Some(KeyState::PendingDeletion));
    // roto-aws answers as if the key were only disabled.
    let expected = target.aws_or_roto("KMSInvalidStateException", "DisabledException");
    for refusal in refusals(target, &key, &blob).await {
        assert_eq!(refusal, expected);
    }
    kms.cancel_key_deletion().key_id(&key).send().await.expect("CancelKeyDeletion");
    // Rescued, but disabled.
    let refusal = code(decrypt(target, &blob, Some(&key), acme()).await);
    assert_eq!(refusal, "DisabledException");
    kms.enable_key().key_id(&key).send().await.expect("EnableKey");
    decrypt(target, &blob, Some(&key), acme()).await.expect("Decrypt again");
}

pub async fn only_a_pending_deletion_can_be_cancelled(target: &Target) {
    let key = target.key().await;
    let refusal = code(target.kms.cancel_key_deletion().key_id(&key).send().await);
    assert_eq!(refusal, "KMSInvalidStateException");
}

pub async fn a_key_pending_deletion_changes_in_no_other_way(target: &Target) {
    let kms = &target.kms;
    let key = target.key().await;
    kms.schedule_key_deletion().key_id(&key).send().await.expect("ScheduleKeyDeletion");
    let again = kms.schedule_key_deletion().key_id(&key).send().await;
    let enabled = kms.enable_key().key_id(&key).send().await;
    if target.is_roto_aws() {
        // roto-aws schedules again, and calls an enabled key still pending deletion.
        again.expect("ScheduleKeyDeletion again on roto-aws");
        enabled.expect("EnableKey on roto-aws");
    } else {
        assert_eq!(code(again), "KMSInvalidStateException");
        assert_eq!(code(enabled), "KMSInvalidStateException");
    }
}

pub async fn deletion_waits_7_to_30_days(target: &Target) {
    let key = target.key().await;
    for days in [6, 31] {
        let call = target.kms.schedule_key_deletion().key_id(&key).pending_window_in_days(days);
        assert_eq!(code(call.send().await), "ValidationException", "{days} days");
    }
    let answer = target.kms.schedule_key_deletion().key_id(&key).send().await;
    let answer = answer.expect("ScheduleKeyDeletion");
    assert_eq!(answer.pending_window_in_days, Some(30), "the default");
}

pub async fn a_key_is_described_in_every_state(target: &Target) {
    let kms = &target.kms;
    let key = target.key().await;
    let described = async || {
        let answer = kms.describe_key().key_id(&key).send().await.expect("DescribeKey");
        answer.key_metadata.expect("metadata")
    };
    let metadata = described().await;
    assert_eq!(metadata.arn.as_ref(), Some(&key));
    assert!(key.ends_with(&format!(":key/{}", metadata.key_id)));
    assert_eq!(metadata.key_usage, Some(KeyUsageType::EncryptDecrypt));
    assert_eq!(metadata.key_spec, Some(KeySpec::SymmetricDefault));
    assert_eq!(metadata.key_manager, Some(KeyManagerType::Customer));
    assert_eq!((metadata.enabled, metadata.key_state), (true, Some(KeyState::Enabled)));
    kms.disable_key().key_id(&key).send().await.expect("DisableKey");
    let metadata = described().await;
    assert_eq!((metadata.enabled, metadata.key_state), (false, Some(KeyState::Disabled)));
    kms.schedule_key_deletion().key_id(&key).send().await.expect("ScheduleKeyDeletion");
    let metadata = described().await;
    assert_eq!((metadata.enabled, metadata.key_state), (false, Some(KeyState::PendingDeletion)));
    assert!(metadata.deletion_date.is_some());
}

pub async fn a_key_that_is_not_there_is_not_found(target: &Target) {
    let key = target.key().await;
    let account = key.split(':').nth(4).expect("an account");
    let nowhere = "00000000-0000-4000-8000-000000000000";
    for name in [
        nowhere.to_owned(),
        format!("arn:aws:kms:{}:{account}:key/{nowhere}", target.region),
        "alias/nothing".to_owned(),
        key.replace(target.region, "us-east-1"),
    ] {
        let call = target.kms.describe_key().key_id(&name);
        assert_eq!(code(call.send().await), "NotFoundException", "{name}");
        let call = target.kms.encrypt().key_id(&name).plaintext(Blob::new(SECRET));
        assert_eq!(code(call.send().await), "NotFoundException", "{name}");
    }
    // An existing key, asked for in a Region that it is not in
    let elsewhere = target.kms_in("us-east-1").describe_key().key_id(&key);
    assert_eq!(code(elsewhere.send().await), "NotFoundException");
}

pub async fn keys_are_listed(target: &Target) {
    let (one, two) = (target.key().await, target.key().await);
    let list = target.kms.list_keys().send().await.expect("ListKeys").keys.expect("keys");
    let mut arns: Vec<_> = list.into_iter().filter_map(|entry| entry.key_arn).collect();
    let mut expected = vec![one, two];
    arns.sort();
    expected.sort();
    assert_eq!(arns, expected);
}

pub async fn rotation_can_be_switched_on(target: &Target) {
    let kms = &target.kms;
    let key = target.key().await;
    let rotates = async || {
        let answer = kms.get_key_rotation_status().key_id(&key).send().await;
        answer.expect("GetKeyRotationStatus").key_rotation_enabled
    };
    assert!(!rotates().await);
    kms.enable_key_rotation().key_id(&key).send().await.expect("EnableKeyRotation");
    assert!(rotates().await);
}

pub async fn errors_carry_a_request_id(target: &Target) {
    let result = target.kms.describe_key().key_id("alias/nothing").send().await;
    let error = result.expect_err("no such alias");
    assert!(error.request_id().is_some_and(|id| id.len() >= 32));
    assert!(error.into_service_error().is_not_found_exception(), "a modelled error");
}

pub async fn answers_carry_a_request_id_of_their_own(target: &Target) {
    let ask = || async {
        let answer = target.kms.list_keys().send().await.expect("ListKeys");
        answer.request_id().expect("a request id").to_owned()
    };
    let (one, other) = (ask().await, ask().await);
    assert!(one.len() >= 32 && one != other, "{one} {other}");
}
