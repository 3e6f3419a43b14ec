//! Who may do what: policies, principals, dry runs, authentication.

use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, GrantOperation};
use serde_json::{Value, json};

use crate::target::{ACCESS_KEY_ID, Target, code};

fn ours() -> Target {
    Target::fake_kms("eu-west-1")
}

#[tokio::test]
async fn a_denied_key_says_who_may_not_do_what() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    target.control("POST", "deny", json!({"arn": key, "deny": true}));
    let call = target.kms.decrypt().ciphertext_blob(blob.clone()).key_id(&key);
    let error = call.send().await.expect_err("denied");
    assert_eq!(error.code(), Some("AccessDeniedException"));
    assert_eq!(
        error.message().map(str::to_owned),
        Some(format!(
            "User: arn:aws:iam::111122223333:user/{ACCESS_KEY_ID} is not authorized to perform: \
             kms:Decrypt on resource: {key} with an explicit deny in a resource-based policy"
        ))
    );
    assert_eq!(error.raw_response().map(|raw| raw.status().as_u16()), Some(400));
    assert_eq!(code(target.kms.describe_key().key_id(&key).send().await), "AccessDeniedException");
    target.control("POST", "deny", json!({"arn": key, "deny": false}));
    target.kms.decrypt().ciphertext_blob(blob).send().await.expect("allowed again");
}

#[tokio::test]
async fn a_deny_of_one_operation_leaves_the_others() {
    let target = ours();
    let (key, other) = (target.key().await, target.key().await);
    let blob = target.wrapped(&key).await;
    let deny = json!({"arn": key, "deny": true, "operations": ["Decrypt", "ReEncryptFrom"]});
    target.control("POST", "deny", deny);
    let decrypt = || target.kms.decrypt().ciphertext_blob(blob.clone());
    assert_eq!(code(decrypt().send().await), "AccessDeniedException");
    let move_away =
        target.kms.re_encrypt().ciphertext_blob(blob.clone()).destination_key_id(&other);
    assert_eq!(code(move_away.send().await), "AccessDeniedException");
    target.wrapped(&key).await;
    let allow = json!({"arn": key, "deny": false, "operations": ["Decrypt"]});
    target.control("POST", "deny", allow);
    decrypt().send().await.expect("Decrypt is allowed again");
}

#[tokio::test]
async fn a_key_can_be_kept_to_its_principals() {
    let target = ours();
    let key = target.key().await;
    let describe = || target.kms.describe_key().key_id(&key);
    let allow = json!({"arn": key, "allow": ["AKIAFAKESOMEBODYELSE"]});
    target.control("POST", "principals", allow);
    let error = describe().send().await.expect_err("not a principal");
    assert_eq!(error.code(), Some("AccessDeniedException"));
    let message = error.message().expect("a message");
    assert!(message.contains("because no resource-based policy allows the kms:DescribeKey action"));
    target.control("POST", "principals", json!({"arn": key, "allow": [ACCESS_KEY_ID]}));
    describe().send().await.expect("a principal");
    target.control("POST", "principals", json!({"arn": key, "allow": null}));
    describe().send().await.expect("anybody");
}

#[tokio::test]
async fn an_access_key_can_cease_to_exist() {
    let target = ours();
    let list = async || target.kms.list_keys().send().await;
    target.control("POST", "access_keys", json!({"allow": ["AKIAFAKESOMEBODYELSE"]}));
    assert_eq!(code(list().await), "UnrecognizedClientException");
    target.control("POST", "access_keys", json!({"allow": [ACCESS_KEY_ID]}));
    list().await.expect("it exists");
    target.control("POST", "access_keys", json!({"allow": []}));
    assert_eq!(code(list().await), "UnrecognizedClientException");
    target.control("POST", "access_keys", json!({"allow": null}));
    list().await.expect("any");
}

#[tokio::test]
async fn a_dry_run_fails_in_one_way_where_the_call_would_succeed() {
    let target = ours();
    let key = target.key().await;
    let blob = target.wrapped(&key).await;
    let (kms, aes) = (&target.kms, DataKeySpec::Aes256);
    let plaintext = Blob::new("x");
    for refusal in [
        code(kms.encrypt().key_id(&key).plaintext(plaintext).dry_run(true).send().await),
        code(kms.decrypt().ciphertext_blob(blob.clone()).dry_run(true).send().await),
        code(
            kms.re_encrypt()
                .ciphertext_blob(blob.clone())
                .destination_key_id(&key)
                .dry_run(true)
                .send()
                .await,
        ),
        code(kms.generate_data_key().key_id(&key).key_spec(aes.clone()).dry_run(true).send().await),
        code(
            kms.generate_data_key_without_plaintext()
                .key_id(&key)
                .key_spec(aes)
                .dry_run(true)
                .send()
                .await,
        ),
    ] {
        assert_eq!(refusal, "DryRunOperationException");
    }
    let wrong = kms.decrypt().ciphertext_blob(blob.clone()).encryption_context("a", "b");
    assert_eq!(code(wrong.dry_run(true).send().await), "InvalidCiphertextException");
    target.control("POST", "deny", json!({"arn": key, "deny": true}));
    let denied = kms.decrypt().ciphertext_blob(blob).dry_run(true);
    assert_eq!(code(denied.send().await), "AccessDeniedException");
}

#[tokio::test]
async fn a_policy_is_shown_and_decides_nothing() {
    let target = ours();
    let key = target.key().await;
    let shown = || async {
        let answer = target.kms.get_key_policy().key_id(&key).send().await.expect("GetKeyPolicy");
        assert_eq!(answer.policy_name(), Some("default"));
        serde_json::from_str::<Value>(answer.policy().expect("a policy")).expect("JSON")
    };
    let default = shown().await;
    let root = json!({"AWS": "arn:aws:iam::111122223333:root"});
    assert_eq!(default["Statement"][0]["Principal"], root);
    let nobody = json!({"Version": "2012-10-17", "Statement": []});
    target.control("POST", "policy", json!({"arn": key, "policy": nobody.to_string()}));
    assert_eq!(shown().await, nobody);
    target.wrapped(&key).await;
    target.control(
        "POST",
        "deny",
        json!({"arn": key, "deny": true, "operations": ["GetKeyPolicy"]}),
    );
    let denied = target.kms.get_key_policy().key_id(&key).send().await;
    assert_eq!(code(denied), "AccessDeniedException");
}

#[tokio::test]
async fn a_grant_is_only_tried() {
    let target = ours();
    let key = target.key().await;
    let grant = |dry_run| {
        let call = target.kms.create_grant().key_id(&key).operations(GrantOperation::Decrypt);
        call.grantee_principal("arn:aws:iam::111122223333:role/cmk").dry_run(dry_run).send()
    };
    assert_eq!(code(grant(true).await), "DryRunOperationException");
    assert_eq!(code(grant(false).await), "UnsupportedOperationException");
    target.control(
        "POST",
        "deny",
        json!({"arn": key, "deny": true, "operations": ["CreateGrant"]}),
    );
    assert_eq!(code(grant(true).await), "AccessDeniedException");
}

#[tokio::test]
async fn the_log_has_the_request_ids_of_the_answers() {
    let target = ours();
    let key = target.key().await;
    let answer = target.kms.describe_key().key_id(&key).send().await.expect("DescribeKey");
    let refused = target.kms.describe_key().key_id("alias/x").send().await.expect_err("no alias");
    let log = target.control("GET", "log", Value::Null);
    let ids = [answer.request_id(), refused.request_id()].map(|id| id.expect("a request id"));
    assert_eq!((&log[1]["request_id"], &log[2]["request_id"]), (&json!(ids[0]), &json!(ids[1])));
}

#[test]
fn a_call_without_a_usable_signature_is_refused() {
    let target = ours();
    let scope = "AWS4-HMAC-SHA256 Credential=AKIAFAKE/20260101/eu-west-1";
    let rest = "aws4_request, SignedHeaders=host, Signature=0f";
    for (authorization, expected) in [
        ("".to_owned(), "MissingAuthenticationTokenException"),
        ("Authorization: Bearer fake\r\n".into(), "MissingAuthenticationTokenException"),
        (format!("Authorization: {scope}\r\n"), "MissingAuthenticationTokenException"),
        (format!("Authorization: {scope}/s3/{rest}\r\n"), "InvalidSignatureException"),
        (format!("Authorization: {scope}/kms/{rest}\r\n"), "\"Keys\":[]"),
    ] {
        let headers = format!("X-Amz-Target: TrentService.ListKeys\r\n{authorization}");
        let answer = target.raw(&headers, "{}");
        assert!(answer.contains(expected), "{authorization:?} got {answer}");
    }
}
