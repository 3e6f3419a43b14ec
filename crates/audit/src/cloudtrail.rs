//! Joins our requests to KMS with the records of AWS CloudTrail, by the request id.
//!
//! AWS CloudTrail User Guide, "CloudTrail record contents"; AWS KMS Developer Guide, "Logging AWS
//! KMS API calls with AWS CloudTrail".

use crate::time;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A request of ours, as an event of the audit trail or a line of the server log tells of it.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// As CloudTrail has it: `requestID`.
    pub request_id: String,
    /// The service's own name for it, if the log is at hand.
    pub operation: Option<String>,
    /// When, in microseconds since the Unix epoch.
    pub at: Option<i64>,
    /// `success` or the name of a reason, if the log is at hand.
    pub outcome: Option<String>,
    /// The act that took it.
    pub act: Option<String>,
}

impl Ours {
    /// Out of a line of the server log: the object behind `cmk_encrypt kms=`. `None` for a request
    /// of another tenant, and for what KMS gave no id.
    pub fn from_line(line: &Value, tenant: &str, keys: &BTreeSet<String>) -> Option<Self> {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let concerns = match line["tenant"].as_str() {
            Some(of) => of == tenant,
            None => line["key_uri"].as_str().is_some_and(|key| keys.contains(key)),
        };
        Some(Self {
            request_id: text("request_id").filter(|_| concerns)?,
            operation: text("operation"),
            at: text("at").and_then(|at| time::parse(&at)),
            outcome: text("outcome"),
            act: None,
        })
    }
}

/// A record of CloudTrail.
#[derive(Clone, Debug)]
struct Theirs {
    operation: String,
    at: Option<i64>,
    error: Option<String>,
    principal: Option<String>,
    /// What the encryption context says.
    tenant: Option<String>,
}

/// Who knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We and CloudTrail.
    Both,
    /// Only we.
    OursOnly,
    /// Only CloudTrail.
    TheirsOnly,
}

impl Side {
    /// As SQL shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::OursOnly => "ours_only",
            Self::TheirsOnly => "theirs_only",
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// As CloudTrail has it: `requestID`.
    pub request_id: String,
    /// Who knows of it.
    pub side: Side,
    /// The service's own name for it.
    pub operation: Option<String>,
    /// When, in microseconds since the Unix epoch; CloudTrail's time if it knows.
    pub at: Option<i64>,
    /// The act that took it.
    pub act: Option<String>,
    /// What to make of it.
    pub explanation: String,
}

/// The records out of what CloudTrail delivers: `{"Records": […]}` as in its files, an array of
/// records, or of what `aws cloudtrail lookup-events` answers, whose `CloudTrailEvent` is a record
/// as text. `None` for anything else.
pub fn records(events: &Value) -> Option<Vec<Value>> {
    let inner = ["Records", "Events"].into_iter().find_map(|name| events.get(name));
    let records = inner.unwrap_or(events).as_array()?;
    let whole = |record: &Value| match record.get("CloudTrailEvent").and_then(Value::as_str) {
        Some(text) => serde_json::from_str(text).ok(),
        None => record.is_object().then(|| record.clone()),
    };
    records.iter().map(whole).collect()
}

/// Joins requests of a tenant with records; `keys` are the URIs of its keys, `has_log` whether
/// lines of the server log are among `ours`. Records of other services, keys and tenants are passed
/// over. In the order of time.
pub fn join(
    tenant: &str,
    keys: &BTreeSet<String>,
    ours: Vec<Ours>,
    has_log: bool,
    records: &[Value],
) -> Vec<Match> {
    let theirs: BTreeMap<String, Theirs> =
        records.iter().filter_map(|record| read(record, tenant, keys)).collect();
    let mut known: BTreeMap<String, Ours> = BTreeMap::new();
    for call in ours {
        let merged = match known.remove(&call.request_id) {
            None => call,
            Some(before) => Ours {
                operation: before.operation.or(call.operation),
                at: before.at.or(call.at),
                outcome: before.outcome.or(call.outcome),
                act: before.act.or(call.act),
                ..call
            },
        };
        known.insert(merged.request_id.clone(), merged);
    }
    let principals: BTreeSet<&str> = theirs
        .iter()
        .filter(|(id, _)| known.contains_key(*id))
        .filter_map(|(_, record)| record.principal.as_deref())
        .collect();
    let times = || records.iter().filter_map(time_of);
    let span = times().min().zip(times().max());
    let mut matches: Vec<_> = known
        .values()
        .map(|call| match theirs.get(&call.request_id) {
            Some(record) => both(call, record),
            None => ours_only(call, span),
        })
        .collect();
    let unknown = theirs.iter().filter(|(id, _)| !known.contains_key(*id));
    matches
        .extend(unknown.map(|(id, record)| theirs_only(id, record, tenant, &principals, has_log)));
    matches.sort_by(|a, b| (a.at, &a.request_id).cmp(&(b.at, &b.request_id)));
    matches
}

fn time_of(record: &Value) -> Option<i64> {
    record["eventTime"].as_str().and_then(time::parse)
}

/// A record, if it is about the tenant or one of its keys.
fn read(record: &Value, tenant: &str, keys: &BTreeSet<String>) -> Option<(String, Theirs)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parameters = &record["requestParameters"];
    let source = record["eventSource"].as_str().unwrap_or_default();
    if !matches!(source, "kms.amazonaws.com" | "sts.amazonaws.com") {
        return None;
    }
    let contexts = ["encryptionContext", "sourceEncryptionContext", "destinationEncryptionContext"];
    let context = contexts.into_iter().find_map(|name| text(&parameters[name]["tenant"]));
    let named = ["keyId", "sourceKeyId", "destinationKeyId"].map(|name| &parameters[name]);
    let resources = record["resources"].as_array().into_iter().flatten().map(|it| &it["ARN"]);
    let mut named = named.into_iter().chain(resources).filter_map(Value::as_str);
    let is_its_key = named.any(|name| {
        // An ARN, or the key's id alone.
        keys.iter().any(|key| key == name || key.rsplit('/').next() == Some(name))
    });
    if context.as_deref() != Some(tenant) && !is_its_key {
        return None;
    }
    let theirs = Theirs {
        operation: text(&record["eventName"])?,
        at: time_of(record),
        error: text(&record["errorCode"]),
        principal: text(&record["userIdentity"]["arn"]),
        tenant: context,
    };
    Some((text(&record["requestID"])?, theirs))
}

fn both(call: &Ours, record: &Theirs) -> Match {
    let operation = call.operation.as_deref().unwrap_or(&record.operation);
    let mut explanation = match &record.error {
        Some(error) => format!("KMS refused it with {error}"),
        None => "the same request on both sides".to_owned(),
    };
    let differs = match (call.outcome.as_deref(), &record.error) {
        _ if operation != record.operation => Some("operation"),
        (Some("success"), Some(_)) => Some("outcome"),
        _ => None,
    };
    if let Some(what) = differs {
        explanation = format!("the two sides differ in the {what}: one of the trails was altered");
    }
    Match {
        request_id: call.request_id.clone(),
        side: Side::Both,
        operation: Some(record.operation.clone()),
        at: record.at.or(call.at),
        act: call.act.clone(),
        explanation,
    }
}

/// CloudTrail delivers most records within minutes (User Guide: "on average within about 5
/// minutes"); records and our clocks may be a little apart.
const TOLERANCE: i64 = 60 * 1_000_000;

fn ours_only(call: &Ours, span: Option<(i64, i64)>) -> Match {
    let outcome = call.outcome.as_deref();
    let explanation = match (outcome, call.at, span) {
        _ if call.operation.as_deref() == Some("AssumeRole") => {
            "AssumeRole is in the trail of both accounts, as an event of STS: look for those records too"
        }
        (Some("key_access_denied"), ..) => {
            "denied: a call across accounts that KMS denies appears in the trail of the caller's account only"
        }
        (Some("interrupted"), ..) => "given up while it was under way: it may not have arrived",
        (_, Some(at), Some((first, _))) if at + TOLERANCE < first => {
            "before the first record that was given"
        }
        (_, Some(at), Some((_, last))) if at > last + TOLERANCE => {
            "after the last record that was given: CloudTrail delivers within minutes, not at once"
        }
        (_, _, None) => "no record was given",
        _ => {
            "not among the records that were given: they are of another account or Region, or not all of them (KMS events can be excluded from a trail); if not, ask who altered which trail"
        }
    };
    Match {
        request_id: call.request_id.clone(),
        side: Side::OursOnly,
        operation: call.operation.clone(),
        at: call.at,
        act: call.act.clone(),
        explanation: explanation.to_owned(),
    }
}

fn theirs_only(
    id: &str,
    record: &Theirs,
    tenant: &str,
    principals: &BTreeSet<&str>,
    has_log: bool,
) -> Match {
    const WITH_DATA_KEYS: &[&str] =
        &["Decrypt", "Encrypt", "GenerateDataKeyWithoutPlaintext", "ReEncrypt"];
    let principal = record.principal.as_deref().unwrap_or("an unnamed principal");
    let is_other = !principals.is_empty() && !principals.contains(principal);
    let uses_data_keys = WITH_DATA_KEYS.contains(&&*record.operation);
    let log = match has_log {
        true => {
            "none of our lines has it: the log is not whole, or somebody else uses our identity"
        }
        false => {
            "an ordinary unwrap, a check by the monitor, or an act that was rolled back stands in the server log only: give its lines as calls"
        }
    };
    let explanation = if is_other {
        format!("by {principal}, which is not how we were seen: another user of the key")
    } else if uses_data_keys && record.tenant.as_deref() != Some(tenant) {
        format!("by {principal}, without this tenant's encryption context: not by this software")
    } else if !uses_data_keys && !record.operation.starts_with("Describe") && !is_ours(record) {
        format!("by {principal}: this software does not call {}", record.operation)
    } else {
        format!("by {principal}; {log}")
    };
    Match {
        request_id: id.to_owned(),
        side: Side::TheirsOnly,
        operation: Some(record.operation.clone()),
        at: record.at,
        act: None,
        explanation,
    }
}

/// What we call beside what moves data keys.
fn is_ours(record: &Theirs) -> bool {
    const CALLED: &[&str] = &[
        "AssumeRole",
        "DescribeKey",
        "DisableKey",
        "GetCallerIdentity",
        "GetKeyRotationStatus",
        "PutKeyPolicy",
        "ScheduleKeyDeletion",
    ];
    // The last three only to see that they are denied.
    CALLED.contains(&&*record.operation)
}

#[cfg(test)]
mod tests;
