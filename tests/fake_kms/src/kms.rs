//! The KMS operations (awsJson 1.1).

mod admin;
mod blob;
mod data;
mod wire;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::{Caller, Scope};
use crate::error::ApiError;
use crate::fault::Kind;
use crate::log::EncryptionContext;
use crate::store::{CALLER_ACCOUNT, Key, KeyState, Store, key_arn};
use wire::{Base64, Subject as Named};

/// Performs one operation and returns the body of the answer.
///
/// # Errors
/// The error that AWS answers in this situation.
pub fn perform(
    store: &mut Store,
    caller: &Caller,
    operation: &str,
    body: &[u8],
) -> Result<Value, ApiError> {
    match operation {
        "Encrypt" => data::encrypt(store, caller, parse(body)?),
        "Decrypt" => data::decrypt(store, caller, parse(body)?),
        "ReEncrypt" => data::re_encrypt(store, caller, parse(body)?),
        "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" => {
            data::generate_data_key(store, caller, operation, parse(body)?)
        }
        "CreateKey" => admin::create_key(store, caller, parse(body)?),
        "ListKeys" => Ok(admin::list_keys(store, caller)),
        "DescribeKey" => admin::describe_key(store, caller, parse(body)?),
        "EnableKey" => admin::enable_key(store, caller, parse(body)?),
        "DisableKey" => admin::disable_key(store, caller, parse(body)?),
        "ScheduleKeyDeletion" => admin::schedule_key_deletion(store, caller, parse(body)?),
        "CancelKeyDeletion" => admin::cancel_key_deletion(store, caller, parse(body)?),
        "GetKeyRotationStatus" => admin::get_key_rotation_status(store, caller, parse(body)?),
        "EnableKeyRotation" => admin::enable_key_rotation(store, caller, parse(body)?),
        "GetKeyPolicy" => admin::get_key_policy(store, caller, parse(body)?),
        "CreateGrant" => admin::create_grant(store, caller, parse(body)?),
        "RotateKeyOnDemand" => admin::rotate_key_on_demand(store, caller, parse(body)?),
        _ => Err(ApiError::new(400, "UnknownOperationException", "")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::serialization(&error))
}

/// What a call is about, as far as it can be seen without performing it: for the log and for
/// faults.
#[derive(Default)]
pub struct Subject {
    /// The key that the log names comes first; ReEncrypt has two.
    pub arns: Vec<String>,
    pub encryption_context: Option<EncryptionContext>,
}

pub fn subject(store: &Store, scope: Option<&Scope>, body: &[u8]) -> Subject {
    let named: Named = serde_json::from_slice(body).unwrap_or_default();
    let region = scope.map_or("", |scope| &scope.region);
    let account = scope
        .and_then(|scope| store.session(&scope.access_key_id))
        .map_or(CALLER_ACCOUNT, |session| session.account());
    // A name that leads to no key is kept as it is: it was asked for.
    let arn = |name: &String| key_arn(region, account, name).unwrap_or_else(|_| name.clone());
    let inside = |bytes: &Base64| blob::Blob::parse(bytes).map(|blob| blob.key_arn.to_owned());
    let source = named.key_id.or(named.source_key_id).as_ref().map(arn);
    let source = source.or_else(|| named.ciphertext_blob.as_ref().and_then(inside));
    let destination = named.destination_key_id.as_ref().map(arn);
    Subject {
        arns: source.into_iter().chain(destination).collect(),
        encryption_context: named.encryption_context.or(named.source_encryption_context),
    }
}

/// What a service answers that decrypts without looking at the encryption context.
pub fn opened_anyhow(store: &Store, scope: Option<&Scope>, body: &[u8]) -> Value {
    let key_id = subject(store, scope, body).arns.into_iter().next();
    json!({ "KeyId": key_id, "Plaintext": Base64(vec![0x31; 32]) })
}

/// Makes a true answer wrong in the way that the fault names.
pub fn falsify(body: &mut Value, kind: Kind) {
    match (kind, body) {
        (Kind::WrongKeyId, body) => {
            if let Some(key_id) = body.get_mut("KeyId") {
                *key_id = json!(format!(
                    "arn:aws:kms:us-east-1:{CALLER_ACCOUNT}:key/00000000-0000-4000-8000-000000000000"
                ));
            }
        }
        (Kind::ShortKey, body) => {
            if let Some(plaintext) = body.get_mut("Plaintext") {
                *plaintext = json!(Base64(vec![0x31; 31]));
            }
        }
        _ => (),
    }
}

/// The key that a request names, if it exists in the caller's Region and lets the caller do this.
fn find<'a>(
    store: &'a mut Store,
    caller: &Caller,
    action: &str,
    key_id: Option<&str>,
) -> Result<&'a mut Key, ApiError> {
    let key_id = key_id.ok_or_else(|| {
        ApiError::validation(
            "1 validation error detected: Value null at 'keyId' failed to satisfy constraint: \
             Member must not be null",
        )
    })?;
    let arn = key_arn(&caller.region, &caller.account, key_id)?;
    let key = store
        .key_mut(&arn)
        .filter(|key| key.state != KeyState::Deleted)
        .ok_or_else(|| ApiError::no_such_key(&arn))?;
    key.authorize(caller, action)?;
    Ok(key)
}

/// The same for cryptography: the key must also be enabled and of the right kind.
fn find_usable<'a>(
    store: &'a mut Store,
    caller: &Caller,
    action: &str,
    key_id: Option<&str>,
) -> Result<&'a Key, ApiError> {
    let key = find(store, caller, action, key_id)?;
    key.check_enabled()?;
    key.check_usage(action)?;
    Ok(key)
}
