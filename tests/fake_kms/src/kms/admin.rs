//! Keys: creating, describing, enabling, deleting, rotating.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::find;
use super::wire::{CreateGrant, CreateKey, GetKeyPolicy, OneKey, ScheduleKeyDeletion};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::store::{EXTERNAL, Key, KeyState, NewKey, SYMMETRIC, Store};

type Answer = Result<Value, ApiError>;

pub fn create_key(store: &mut Store, caller: &Caller, request: CreateKey) -> Answer {
    let key = store.add_key(NewKey {
        region: caller.region.clone(),
        account: caller.account.clone(),
        key_id: None,
        usage: request.key_usage.unwrap_or_else(|| "ENCRYPT_DECRYPT".into()),
        spec: request.key_spec.unwrap_or_else(|| SYMMETRIC.into()),
        origin: request.origin.unwrap_or_else(|| "AWS_KMS".into()),
        description: request.description,
        multi_region: request.multi_region,
    });
    let arn = key.map_err(internal)?.arn.clone();
    describe(store, &arn)
}

pub fn list_keys(store: &Store, caller: &Caller) -> Value {
    let own = |key: &&Key| {
        key.region == caller.region
            && key.account == caller.account
            && key.state != KeyState::Deleted
    };
    let entry = |key: &Key| json!({"KeyId": key.id, "KeyArn": key.arn});
    json!({"Keys": store.keys().filter(own).map(entry).collect::<Vec<_>>(), "Truncated": false})
}

pub fn describe_key(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    let key = find(store, caller, "DescribeKey", request.key_id.as_deref())?;
    let arn = key.arn.clone();
    describe(store, &arn)
}

fn describe(store: &Store, arn: &str) -> Answer {
    let key = store.key(arn).ok_or_else(|| ApiError::no_such_key(arn))?;
    let mut metadata = metadata(key);
    if key.is_multi_region() {
        let (primary, replicas): (Vec<_>, Vec<_>) =
            store.replicas(key).partition(|key| key.is_primary);
        let entry = |key: &&Key| json!({"Arn": key.arn, "Region": key.region});
        metadata["MultiRegionConfiguration"] = json!({
            "MultiRegionKeyType": if key.is_primary { "PRIMARY" } else { "REPLICA" },
            "PrimaryKey": primary.first().map(entry),
            "ReplicaKeys": replicas.iter().map(entry).collect::<Vec<_>>(),
        });
    }
    Ok(json!({"KeyMetadata": metadata}))
}

pub fn enable_key(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    switch(find(store, caller, "EnableKey", request.key_id.as_deref())?, KeyState::Enabled)
}

pub fn disable_key(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    switch(find(store, caller, "DisableKey", request.key_id.as_deref())?, KeyState::Disabled)
}

fn switch(key: &mut Key, state: KeyState) -> Answer {
    if key.state != KeyState::Disabled {
        key.check_enabled()?;
    }
    key.state = state;
    Ok(json!({}))
}

pub fn schedule_key_deletion(
    store: &mut Store,
    caller: &Caller,
    request: ScheduleKeyDeletion,
) -> Answer {
    let key = find(store, caller, "ScheduleKeyDeletion", request.key_id.as_deref())?;
    let days = request.pending_window_in_days.unwrap_or(30);
    if !(7..=30).contains(&days) {
        return Err(ApiError::validation("PendingWindowInDays must be between 7 and 30"));
    }
    if [KeyState::PendingDeletion, KeyState::PendingReplicaDeletion].contains(&key.state) {
        key.check_enabled()?;
    }
    let arn = key.arn.clone();
    if has_replicas(store, &arn) {
        let key = store.key_mut(&arn).ok_or_else(|| ApiError::no_such_key(&arn))?;
        key.put_into(KeyState::PendingReplicaDeletion, None);
        return Ok(json!({
            "KeyId": arn,
            "KeyState": key.state,
            "PendingWindowInDays": days,
        }));
    }
    let key = store.key_mut(&arn).ok_or_else(|| ApiError::no_such_key(&arn))?;
    let date = OffsetDateTime::now_utc() + Duration::days(days.into());
    key.put_into(KeyState::PendingDeletion, Some(date));
    Ok(json!({
        "KeyId": key.arn,
        "KeyState": key.state,
        "DeletionDate": date.unix_timestamp(),
        "PendingWindowInDays": days,
    }))
}

/// Whether this is the primary of a multi-Region key with replicas.
fn has_replicas(store: &Store, arn: &str) -> bool {
    let key = store.key(arn).filter(|key| key.is_primary && key.is_multi_region());
    let is_left = |replica: &Key| !replica.is_primary && replica.state != KeyState::Deleted;
    key.is_some_and(|key| store.replicas(key).any(is_left))
}

pub fn cancel_key_deletion(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    let key = find(store, caller, "CancelKeyDeletion", request.key_id.as_deref())?;
    if ![KeyState::PendingDeletion, KeyState::PendingReplicaDeletion].contains(&key.state) {
        return Err(ApiError::invalid_state(format!("{} is not pending deletion.", key.arn)));
    }
    key.put_into(KeyState::Disabled, None);
    Ok(json!({"KeyId": key.arn}))
}

pub fn get_key_rotation_status(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    let key = find(store, caller, "GetKeyRotationStatus", request.key_id.as_deref())?;
    // Of imported material it says that it does not rotate.
    if key.spec != SYMMETRIC || key.is_in_custom_key_store() {
        return Err(ApiError::unsupported(format!("{} cannot be rotated.", key.arn)));
    }
    let rotates = key.rotates_now();
    let mut status = json!({"KeyId": key.arn, "KeyRotationEnabled": rotates});
    if rotates {
        status["RotationPeriodInDays"] = json!(365);
    }
    Ok(status)
}

pub fn enable_key_rotation(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    rotatable(find(store, caller, "EnableKeyRotation", request.key_id.as_deref())?)?.rotates = true;
    Ok(json!({}))
}

pub fn rotate_key_on_demand(store: &mut Store, caller: &Caller, request: OneKey) -> Answer {
    let key = rotatable(find(store, caller, "RotateKeyOnDemand", request.key_id.as_deref())?)?;
    key.rotate().map_err(internal)?;
    Ok(json!({"KeyId": key.arn}))
}

pub fn get_key_policy(store: &mut Store, caller: &Caller, request: GetKeyPolicy) -> Answer {
    let key = find(store, caller, "GetKeyPolicy", request.key_id.as_deref())?;
    if request.policy_name.is_some_and(|name| name != "default") {
        return Err(ApiError::not_found("No such policy exists"));
    }
    Ok(json!({"Policy": key.policy(), "PolicyName": "default"}))
}

/// As a dry run only: there are no grants here.
pub fn create_grant(store: &mut Store, caller: &Caller, request: CreateGrant) -> Answer {
    let key = find(store, caller, "CreateGrant", request.key_id.as_deref())?;
    if request.grantee_principal.is_none() || request.operations.is_none_or(|all| all.is_empty()) {
        return Err(ApiError::validation("granteePrincipal and operations must not be null"));
    }
    if key.state != KeyState::Disabled {
        key.check_enabled()?;
    }
    match request.dry_run {
        true => Err(ApiError::dry_run()),
        false => Err(ApiError::unsupported("grants are not implemented")),
    }
}

fn rotatable(key: &mut Key) -> Result<&mut Key, ApiError> {
    key.check_enabled()?;
    if key.spec != SYMMETRIC {
        return Err(ApiError::unsupported(format!("{} is not a symmetric key.", key.arn)));
    }
    if key.origin == EXTERNAL {
        return Err(ApiError::unsupported(format!("{} has imported key material.", key.arn)));
    }
    Ok(key)
}

fn metadata(key: &Key) -> Value {
    let mut metadata = json!({
        "Arn": key.arn,
        "KeyId": key.id,
        "AWSAccountId": key.account,
        "CreationDate": key.created_at.unix_timestamp(),
        "Description": key.description,
        "Enabled": key.state == KeyState::Enabled,
        "KeyState": key.state,
        "KeyUsage": key.usage,
        "KeySpec": key.spec,
        "CustomerMasterKeySpec": key.spec,
        "KeyManager": "CUSTOMER",
        "Origin": key.origin,
        "MultiRegion": key.is_multi_region(),
    });
    if key.spec == SYMMETRIC {
        metadata["EncryptionAlgorithms"] = json!([SYMMETRIC]);
    }
    if let Some(date) = key.deletion_date {
        metadata["DeletionDate"] = json!(date.unix_timestamp());
    }
    if key.origin == EXTERNAL {
        metadata["ExpirationModel"] = json!(match key.valid_to {
            Some(_) => "KEY_MATERIAL_EXPIRES",
            None => "KEY_MATERIAL_DOES_NOT_EXPIRE",
        });
    }
    if let Some(date) = key.valid_to {
        metadata["ValidTo"] = json!(date.unix_timestamp());
    }
    metadata
}

fn internal(error: getrandom::Error) -> ApiError {
    ApiError::new(500, "KMSInternalException", error.to_string())
}
