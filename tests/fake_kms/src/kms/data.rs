//! Encrypt, Decrypt, ReEncrypt and the data keys.

use serde_json::{Value, json};

use super::blob::{Blob, seal};
use super::wire::{Base64, Decrypt, Encrypt, GenerateDataKey, ReEncrypt};
use super::{find, find_usable};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::log::EncryptionContext;
use crate::store::{Key, SYMMETRIC, Store};

pub fn encrypt(store: &mut Store, caller: &Caller, request: Encrypt) -> Result<Value, ApiError> {
    let key = find_usable(store, caller, "Encrypt", request.key_id.as_deref())?;
    if !(1..=4096).contains(&request.plaintext.len()) {
        return Err(length_error("plaintext", "between 1 and 4096"));
    }
    stop_dry_run(request.dry_run)?;
    let blob = seal(key, &request.encryption_context, &request.plaintext)?;
    Ok(json!({
        "CiphertextBlob": Base64(blob),
        "KeyId": key.arn,
        "EncryptionAlgorithm": SYMMETRIC,
    }))
}

pub fn decrypt(store: &mut Store, caller: &Caller, request: Decrypt) -> Result<Value, ApiError> {
    let opened = open(
        store,
        caller,
        "Decrypt",
        request.key_id.as_deref(),
        &request.ciphertext_blob,
        &request.encryption_context,
    )?;
    stop_dry_run(request.dry_run)?;
    Ok(json!({
        "Plaintext": Base64(opened.plaintext),
        "KeyId": opened.key_arn,
        "EncryptionAlgorithm": SYMMETRIC,
    }))
}

pub fn re_encrypt(
    store: &mut Store,
    caller: &Caller,
    request: ReEncrypt,
) -> Result<Value, ApiError> {
    let opened = open(
        store,
        caller,
        "ReEncryptFrom",
        request.source_key_id.as_deref(),
        &request.ciphertext_blob,
        &request.source_encryption_context,
    )?;
    let key = find_usable(store, caller, "ReEncryptTo", request.destination_key_id.as_deref())?;
    stop_dry_run(request.dry_run)?;
    let blob = seal(key, &request.destination_encryption_context, &opened.plaintext)?;
    Ok(json!({
        "CiphertextBlob": Base64(blob),
        "SourceKeyId": opened.key_arn,
        "KeyId": key.arn,
        "SourceEncryptionAlgorithm": SYMMETRIC,
        "DestinationEncryptionAlgorithm": SYMMETRIC,
    }))
}

/// GenerateDataKey and GenerateDataKeyWithoutPlaintext.
pub fn generate_data_key(
    store: &mut Store,
    caller: &Caller,
    operation: &str,
    request: GenerateDataKey,
) -> Result<Value, ApiError> {
    let key = find_usable(store, caller, operation, request.key_id.as_deref())?;
    let length = match (request.key_spec.as_deref(), request.number_of_bytes) {
        (Some("AES_256"), None) => 32,
        (Some("AES_128"), None) => 16,
        (None, Some(length @ 1..=1024)) => length,
        (None, Some(_)) => return Err(length_error("numberOfBytes", "between 1 and 1024")),
        (Some(_), None) => return Err(ApiError::validation("keySpec must be AES_256 or AES_128")),
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::validation("Please specify either number of bytes or key spec."));
        }
    };
    stop_dry_run(request.dry_run)?;
    let mut data_key = vec![0; length];
    getrandom::fill(&mut data_key)
        .map_err(|error| ApiError::new(500, "KMSInternalException", error.to_string()))?;
    let blob = seal(key, &request.encryption_context, &data_key)?;
    let mut answer = json!({"CiphertextBlob": Base64(blob), "KeyId": key.arn});
    if operation == "GenerateDataKey" {
        answer["Plaintext"] = json!(Base64(data_key));
    }
    Ok(answer)
}

struct Opened {
    plaintext: Vec<u8>,
    key_arn: String,
}

/// Decrypts with the key named or, failing that, with the one that the ciphertext names.
///
/// The order of the checks is visible in the errors: the key that the caller names must exist and
/// let the caller in before anything is said about the ciphertext, and its state comes before the
/// ciphertext is opened. A ciphertext that names a key which never was is a forgery, not a wrong
/// key.
fn open(
    store: &mut Store,
    caller: &Caller,
    action: &str,
    key_id: Option<&str>,
    ciphertext: &[u8],
    context: &EncryptionContext,
) -> Result<Opened, ApiError> {
    let blob = Blob::parse(ciphertext)
        .filter(|blob| store.key(blob.key_arn).is_some())
        .ok_or_else(ApiError::invalid_ciphertext);
    // Of a multi-Region key, the replica that is asked opens what any of them made.
    let mut wanted = blob.as_ref().map_or("", |blob| blob.key_arn).to_owned();
    if let Some(key_id) = key_id {
        let named = find(store, caller, action, Some(key_id))?.arn.clone();
        let wrote = blob.as_ref().map_err(Clone::clone)?.key_arn;
        let is_replica = |key: &Key| store.replicas(key).any(|replica| replica.arn == named);
        if !store.key(wrote).is_some_and(is_replica) {
            return Err(ApiError::incorrect_key());
        }
        wanted = named;
    } else if let Some(key) = store.key(&wanted).filter(|key| key.is_multi_region())
        && let Some(here) = store.replicas(key).find(|replica| replica.region == caller.region)
    {
        wanted = here.arn.clone();
    }
    let blob = blob?;
    let key = find_usable(store, caller, action, Some(&wanted)).map_err(|error| {
        // Nobody learns from a ciphertext whether a key exists.
        if key_id.is_none() && error.code == "NotFoundException" {
            ApiError::access_denied(
                "The ciphertext refers to a customer master key that does not exist, does not exist \
                 in this region, or you are not allowed to access.",
            )
        } else {
            error
        }
    })?;
    Ok(Opened { plaintext: blob.open(key, context)?, key_arn: key.arn.clone() })
}

/// Comes last of all checks: a dry run fails in this way exactly when the call would have
/// succeeded.
fn stop_dry_run(dry_run: bool) -> Result<(), ApiError> {
    if dry_run { Err(ApiError::dry_run()) } else { Ok(()) }
}

fn length_error(member: &str, bounds: &str) -> ApiError {
    ApiError::validation(format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: \
         Member must have length {bounds}"
    ))
}
