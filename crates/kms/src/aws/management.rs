//! Whether we could manage a key: its policy, and a CreateGrant that changes nothing.

use super::assumed_role::AssumedRole;
use super::classify::classify;
use super::connect::Made;
use super::identity;
use super::key_arn::KeyArn;
use super::policy::{self, Principal};
use crate::key_facts::{Management, PolicyView};
use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::types::GrantOperation;
use cmk_error::{Reason, Result};

/// Takes `kms:GetKeyPolicy`, and is to be denied `kms:CreateGrant`.
///
/// # Errors
/// What STS and KMS fail with, other than for want of a permission.
pub async fn management(
    made: &Made,
    arn: &KeyArn,
    role: Option<&AssumedRole>,
) -> Result<Management> {
    let principal: Box<str> = match role {
        Some(role) => role.arn.as_str().into(),
        None => identity::identity(made).await?.principal,
    };
    let account = principal.split(':').nth(4).unwrap_or_default();
    let us = Principal { arn: &principal, account };
    let can_create_grants = create_grant(made, arn, &principal).await?;
    Ok(Management { policy: key_policy(made, arn, &us).await?, can_create_grants })
}

/// `None` if we may not see it.
async fn key_policy(made: &Made, arn: &KeyArn, us: &Principal<'_>) -> Result<Option<PolicyView>> {
    let answer = made.client.get_key_policy().key_id(arn.as_str()).send().await;
    match answer.map_err(|error| classify(&error)) {
        Ok(answer) => policy::view(answer.policy().unwrap_or_default(), us).map(Some),
        Err(error) if error.reason == Reason::KeyAccessDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// With `DryRun`, KMS says whether it would, and does not (KMS Developer Guide, "Testing your
/// permissions").
async fn create_grant(made: &Made, arn: &KeyArn, to: &str) -> Result<Option<bool>> {
    let asked = made
        .client
        .create_grant()
        .key_id(arn.as_str())
        .grantee_principal(to)
        .operations(GrantOperation::Decrypt)
        .dry_run(true)
        .send()
        .await;
    let Err(error) = asked else {
        // Nobody answers so who knows what DryRun is. What it did can't be told.
        return Ok(None);
    };
    if error.as_service_error().and_then(|error| error.code()) == Some("DryRunOperationException") {
        return Ok(Some(true));
    }
    match classify(&error) {
        error if error.reason == Reason::KeyAccessDenied => Ok(Some(false)),
        // Of a key in another state, or a service without DryRun, it says nothing.
        error if error.reason == Reason::KmsRejected => Ok(None),
        error => Err(error),
    }
}
