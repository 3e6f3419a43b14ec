//! The JSON interface under `/_control/`, by which tests arrange keys, roles and faults.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::call::Answer;
use crate::fault::Fault;
use crate::server::Shared;
use crate::store::{Key, KeyState, NewKey, SYMMETRIC, Store, Trouble, Trust};

/// Why a control request was not carried out.
pub struct Refusal {
    status: u16,
    pub message: String,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    region: String,
    account: String,
    key_id: Option<String>,
    usage: Option<String>,
    spec: Option<String>,
    origin: Option<String>,
    #[serde(default)]
    multi_region: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicateRequest {
    arn: String,
    region: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRequest {
    arn: String,
    policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyStateRequest {
    arn: String,
    state: KeyState,
    deletion_date: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyMaterialRequest {
    arn: String,
    valid_to: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyStoreRequest {
    arn: String,
    trouble: Option<Trouble>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DenyRequest {
    arn: String,
    deny: bool,
    operations: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrincipalsRequest {
    arn: String,
    allow: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    role_arn: String,
    external_id: Option<String>,
    allow: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndSessionsRequest {
    role_arn: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessKeysRequest {
    allow: Option<Vec<String>>,
}

pub fn answer(shared: &Shared, method: &str, path: &str, body: &[u8]) -> Answer {
    let parsed = match body {
        [] => Ok(Value::Null),
        body => serde_json::from_slice(body).map_err(|error| Refusal::new(400, error.to_string())),
    };
    match parsed.and_then(|body| perform(shared, method, path, body)) {
        Ok(body) => Answer::json(200, &body),
        Err(refusal) => Answer::refusal(refusal.status, &refusal.message),
    }
}

/// # Errors
/// 404 for an unknown path or key, 409 for a key that exists, 400 for a body of the wrong shape.
pub fn perform(shared: &Shared, method: &str, path: &str, body: Value) -> Result<Value, Refusal> {
    let done = json!({});
    match (method, path) {
        ("POST", "key") => add_key(&mut shared.store.lock(), parse(body)?),
        ("POST", "key_state") => {
            let KeyStateRequest { arn, state, deletion_date } = parse(body)?;
            if deletion_date.is_some() && state != KeyState::PendingDeletion {
                return Err(Refusal::new(400, "only a key pending deletion has a deletion_date"));
            }
            let date = deletion_date.map(time_at).transpose()?;
            key(&mut shared.store.lock(), &arn)?.put_into(state, date);
            Ok(done)
        }
        ("POST", "key_material") => {
            let KeyMaterialRequest { arn, valid_to } = parse(body)?;
            let date = valid_to.map(time_at).transpose()?;
            key(&mut shared.store.lock(), &arn)?.import(date);
            Ok(done)
        }
        ("POST", "key_store") => {
            let KeyStoreRequest { arn, trouble } = parse(body)?;
            let mut store = shared.store.lock();
            let key = key(&mut store, &arn)?;
            if !key.is_in_custom_key_store() {
                return Err(Refusal::new(400, "the key is in no custom key store"));
            }
            key.trouble = trouble;
            Ok(done)
        }
        ("POST", "replicate") => replicate(&mut shared.store.lock(), parse(body)?),
        ("POST", "policy") => {
            let PolicyRequest { arn, policy } = parse(body)?;
            key(&mut shared.store.lock(), &arn)?.policy = policy;
            Ok(done)
        }
        ("POST", "deny") => {
            let DenyRequest { arn, deny, operations } = parse(body)?;
            key(&mut shared.store.lock(), &arn)?.denied.set(deny, operations);
            Ok(done)
        }
        ("POST", "principals") => {
            let PrincipalsRequest { arn, allow } = parse(body)?;
            key(&mut shared.store.lock(), &arn)?.principals = allow;
            Ok(done)
        }
        ("POST", "role") => {
            let RoleRequest { role_arn, external_id, allow } = parse(body)?;
            shared.store.lock().trust(role_arn, Trust { external_id, allow });
            Ok(done)
        }
        ("POST", "end_sessions") => {
            let EndSessionsRequest { role_arn } = parse(body)?;
            Ok(json!({"ended": shared.store.lock().end_sessions(&role_arn)}))
        }
        ("POST", "access_keys") => {
            let AccessKeysRequest { allow } = parse(body)?;
            shared.store.lock().access_keys = allow;
            Ok(done)
        }
        ("POST", "fault") => {
            let fault: Fault = parse(body)?;
            match fault.lacks() {
                Some(field) => Err(Refusal::new(400, format!("this fault needs `{field}`"))),
                None => Ok(json!({"id": shared.faults.add(fault)})),
            }
        }
        ("DELETE", "faults") => {
            shared.faults.clear();
            Ok(done)
        }
        ("GET", "log") => Ok(json!(shared.log.entries())),
        ("DELETE", "log") => {
            shared.log.clear();
            Ok(done)
        }
        ("GET", "counters") => Ok(json!(shared.log.counters())),
        ("GET", "health") => Ok(json!({"status": "ok"})),
        _ => Err(Refusal::new(404, format!("no such control: {method} {path}"))),
    }
}

fn parse<T: DeserializeOwned>(body: Value) -> Result<T, Refusal> {
    serde_json::from_value(body).map_err(|error| Refusal::new(400, error.to_string()))
}

/// Times are in seconds since the Unix epoch.
fn time_at(seconds: i64) -> Result<OffsetDateTime, Refusal> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|error| Refusal::new(400, error.to_string()))
}

fn key<'a>(store: &'a mut Store, arn: &str) -> Result<&'a mut Key, Refusal> {
    store.key_mut(arn).ok_or_else(|| Refusal::new(404, format!("no such key: {arn}")))
}

fn add_key(store: &mut Store, request: KeyRequest) -> Result<Value, Refusal> {
    let same = |key: &Key| {
        (&key.region, &key.account) == (&request.region, &request.account)
            && request.key_id.as_ref() == Some(&key.id)
    };
    if store.keys().any(same) {
        return Err(Refusal::new(409, "this key exists already"));
    }
    let key = store.add_key(NewKey {
        region: request.region,
        account: request.account,
        key_id: request.key_id,
        usage: request.usage.unwrap_or_else(|| "ENCRYPT_DECRYPT".into()),
        spec: request.spec.unwrap_or_else(|| SYMMETRIC.into()),
        origin: request.origin.unwrap_or_else(|| "AWS_KMS".into()),
        description: String::new(),
        multi_region: request.multi_region,
    });
    let key = key.map_err(|error| Refusal::new(500, error.to_string()))?;
    Ok(json!({"arn": key.arn}))
}

fn replicate(store: &mut Store, request: ReplicateRequest) -> Result<Value, Refusal> {
    let ReplicateRequest { arn, region } = request;
    let missing = || Refusal::new(404, format!("no such key: {arn}"));
    let source = store.key(&arn).ok_or_else(missing)?;
    if !source.is_multi_region() {
        return Err(Refusal::new(400, "only a multi-Region key has replicas"));
    }
    if store.replicas(source).any(|replica| replica.region == region) {
        return Err(Refusal::new(409, "there is a replica in this Region already"));
    }
    let replica = store.replicate(&arn, &region).ok_or_else(missing)?;
    Ok(json!({"arn": replica.arn}))
}
