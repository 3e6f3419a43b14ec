//! Multi-Region keys: one material, replicas that stand alone.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyMetadata, MultiRegionKeyType};
use serde_json::json;

use crate::target::{Target, code};

const HERE: &str = "eu-west-1";
const THERE: &str = "us-east-1";

/// A server with a key here and its replica there.
fn pair() -> (Target, String, String) {
    let target = Target::fake_kms(HERE);
    let arn = |answer: serde_json::Value| answer["arn"].as_str().expect("an ARN").to_owned();
    let request = json!({"region": HERE, "account": "444455556666", "multi_region": true});
    let primary = arn(target.control("POST", "key", request));
    let replica =
        arn(target.control("POST", "replicate", json!({"arn": primary, "region": THERE})));
    (target, primary, replica)
}

async fn described(kms: &aws_sdk_kms::Client, key: &str) -> KeyMetadata {
    let answer = kms.describe_key().key_id(key).send().await.expect("DescribeKey");
    answer.key_metadata.expect("metadata")
}

async fn opens(kms: &aws_sdk_kms::Client, blob: &Blob, key: &str) -> bool {
    let answer = kms.decrypt().ciphertext_blob(blob.clone()).key_id(key).send().await;
    answer.is_ok_and(|answer| answer.key_id.as_deref() == Some(key))
}

#[tokio::test]
async fn replicas_have_one_id_and_know_each_other() {
    let (target, primary, replica) = pair();
    assert_eq!(primary.replace(HERE, THERE), replica);
    assert!(primary.contains(":key/mrk-"));
    let here = described(&target.kms, &primary).await;
    let there = described(&target.kms_in(THERE), &replica).await;
    assert_eq!((here.multi_region, there.multi_region), (Some(true), Some(true)));
    for (key, kind) in [(here, MultiRegionKeyType::Primary), (there, MultiRegionKeyType::Replica)] {
        let of = key.multi_region_configuration.expect("a configuration");
        assert_eq!(of.multi_region_key_type, Some(kind));
        assert_eq!(of.primary_key().and_then(|key| key.arn()), Some(primary.as_str()));
        let replicas: Vec<_> = of.replica_keys().iter().filter_map(|key| key.arn()).collect();
        assert_eq!(replicas, [replica.as_str()]);
    }
    let single = described(&target.kms, &target.key().await).await;
    assert_eq!((single.multi_region, single.multi_region_configuration), (Some(false), None));
}

#[tokio::test]
async fn what_one_wrapped_another_opens_also_after_a_rotation() {
    let (target, primary, replica) = pair();
    let there = target.kms_in(THERE);
    let old = target.wrapped(&primary).await;
    target.kms.rotate_key_on_demand().key_id(&primary).send().await.expect("RotateKeyOnDemand");
    for blob in [old, target.wrapped(&primary).await] {
        assert!(opens(&target.kms, &blob, &primary).await);
        assert!(opens(&there, &blob, &replica).await);
        let unnamed = there.decrypt().ciphertext_blob(blob).send().await.expect("Decrypt");
        assert_eq!(unnamed.key_id, Some(replica.clone()));
    }
}

#[tokio::test]
async fn a_replica_stands_alone() {
    let (target, primary, replica) = pair();
    let there = target.kms_in(THERE);
    let blob = target.wrapped(&primary).await;
    target.control("POST", "key_state", json!({"arn": primary, "state": "Deleted"}));
    assert!(!opens(&target.kms, &blob, &primary).await);
    assert!(opens(&there, &blob, &replica).await);
    target.control("POST", "deny", json!({"arn": replica, "deny": true}));
    let denied = there.decrypt().ciphertext_blob(blob).key_id(&replica).send().await;
    assert_eq!(code(denied), "AccessDeniedException");
}

#[tokio::test]
async fn another_multi_region_key_does_not_open() {
    let (target, primary, _) = pair();
    let request = json!({"region": HERE, "account": "444455556666", "multi_region": true});
    let other = target.control("POST", "key", request);
    let blob = target.wrapped(&primary).await;
    let call = target.kms.decrypt().ciphertext_blob(blob);
    let call = call.key_id(other["arn"].as_str().expect("an ARN"));
    assert_eq!(code(call.send().await), "IncorrectKeyException");
}
