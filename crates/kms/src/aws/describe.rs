//! DescribeKey and GetKeyRotationStatus, either of which the owner may withhold.

use super::classify::classify;
use super::key_arn::KeyArn;
use crate::key_facts::KeyFacts;
use aws_sdk_kms::Client;
use aws_sdk_kms::types::{
    KeyManagerType, KeyMetadata, KeySpec, KeyState, KeyUsageType, MultiRegionConfiguration,
    OriginType,
};
use cmk_error::{Reason, Result};

/// Longest text that is passed on, in bytes; the longest true one is an ARN.
const TEXT_MAX: usize = 256;

/// Most replicas that are passed on: as many Regions will not exist for a while.
const REPLICAS_MAX: usize = 64;

/// # Errors
/// What KMS refuses with, other than for want of a permission.
pub async fn describe(client: &Client, arn: &KeyArn) -> Result<KeyFacts> {
    // In this order: KMS says "off" for keys that can't rotate, imported ones and those about to be
    // deleted. A deletion that is scheduled in between is seen below.
    let rotation = client.get_key_rotation_status().key_id(arn.as_str()).send().await;
    let rotation = rotation.map_err(|error| classify(&error));
    let described = client.describe_key().key_id(arn.as_str()).send().await;
    let described = described.map_err(|error| classify(&error));
    let mut facts = match described {
        Ok(described) => described.key_metadata.map(|key| of(&key)).unwrap_or_default(),
        Err(error) if error.reason == Reason::KeyAccessDenied => {
            KeyFacts { not_permitted: vec!["kms:DescribeKey"], ..KeyFacts::default() }
        }
        Err(error) => return Err(error),
    };
    match rotation {
        Ok(rotation) if rotates(&facts) => {
            facts.rotates = Some(rotation.key_rotation_enabled);
            facts.rotation_days = rotation.rotation_period_in_days;
        }
        Err(error) if error.reason == Reason::KeyAccessDenied => {
            facts.not_permitted.push("kms:GetKeyRotationStatus");
        }
        // Of a key that can't rotate, the answer means nothing. Anything else is no reason to hide
        // what is known.
        Ok(_) | Err(_) => {}
    }
    Ok(facts)
}

/// Whether it is a key that KMS could rotate.
fn rotates(facts: &KeyFacts) -> bool {
    facts.origin.as_deref() == Some(OriginType::AwsKms.as_str()) && !facts.deletion_is_scheduled
}

fn of(key: &KeyMetadata) -> KeyFacts {
    let arn = key.arn.as_deref().and_then(KeyArn::parse);
    let (spec, usage) = (key.key_spec.as_ref(), key.key_usage.as_ref());
    let symmetric =
        || spec == Some(&KeySpec::SymmetricDefault) && usage == Some(&KeyUsageType::EncryptDecrypt);
    let kind = spec.zip(usage).map(|(spec, usage)| (spec.as_str(), usage.as_str()));
    let kind = kind.and_then(|(spec, usage)| Some((text(spec)?, text(usage)?)));
    let manager = key.key_manager.as_ref();
    KeyFacts {
        enabled: Some(key.enabled),
        state: key.key_state.as_ref().and_then(|state| text(state.as_str())),
        can_wrap: kind.is_some().then(symmetric),
        kind: kind.map(|(spec, usage)| format!("{spec} {usage}").into()),
        owner_managed: manager.map(|manager| *manager == KeyManagerType::Customer),
        account: key.aws_account_id.as_deref().and_then(text),
        region: arn.map(|arn| arn.region().into()),
        origin: key.origin.as_ref().and_then(|origin| text(origin.as_str())),
        multi_region: key.multi_region,
        replicas: key.multi_region_configuration.as_ref().map(replicas).unwrap_or_default(),
        rotates: None,
        rotation_days: None,
        deletion_is_scheduled: key.deletion_date.is_some()
            || matches!(
                key.key_state,
                Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion)
            ),
        deletion_at: key.deletion_date.map(|at| at.secs()),
        material_expires_at: key.valid_to.map(|at| at.secs()),
        not_permitted: Vec::new(),
    }
}

fn replicas(configuration: &MultiRegionConfiguration) -> Vec<Box<str>> {
    let primary = configuration.primary_key.iter();
    let all = primary.chain(configuration.replica_keys());
    let arns = all.filter_map(|key| key.arn.as_deref().and_then(KeyArn::parse));
    let mut arns: Vec<Box<str>> = arns.take(REPLICAS_MAX).map(|arn| arn.as_str().into()).collect();
    arns.sort_unstable();
    arns
}

/// A word of the service's, if it is one.
fn text(word: &str) -> Option<Box<str>> {
    let is_plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    ((1..=TEXT_MAX).contains(&word.len()) && is_plain).then(|| word.into())
}
