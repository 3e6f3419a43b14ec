//! One line of JSON in the server log: `cmk_encrypt audit={…}`.

use crate::event::{Event, Hash, Link};
use crate::limit::LeftOut;
use crate::text::clean;
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::value::RawValue;

/// What became of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, in a transaction that has not ended.
    Done,
    /// Its transaction is committed: the event is in the chain.
    Committed,
    /// Its transaction, or the part of it, was rolled back: it did not happen.
    RolledBack,
    /// It was tried, and not done.
    Refused,
}

/// As serialized. Names are stable: programs read them.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    act: &'a str,
    tenant: &'a str,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_key: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a RawValue>,
    session_role: &'a str,
    acting_role: &'a str,
    client_address: Option<&'a str>,
    application_name: Option<&'a str>,
    database: &'a str,
    xid: Option<i64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    kms_request_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

impl<'a> Line<'a> {
    fn of(event: &'a Event, outcome: Outcome) -> Self {
        Self {
            event: "act",
            act: &event.act,
            tenant: &event.tenant,
            outcome,
            reason: None,
            data_key: event.data_key,
            before: raw(event.before.as_deref()),
            after: raw(event.after.as_deref()),
            session_role: &event.session_role,
            acting_role: &event.acting_role,
            client_address: event.client_address.as_deref(),
            application_name: event.application_name.as_deref(),
            database: &event.database,
            xid: (event.transaction != 0).then_some(event.transaction),
            kms_request_ids: &event.kms_request_ids,
            origin: None,
            number: None,
            hash: None,
        }
    }

    fn print(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("cmk_encrypt audit={json}")
    }
}

fn raw(json: Option<&str>) -> Option<&RawValue> {
    serde_json::from_str(json?).ok()
}

/// An act that was done or rolled back.
pub fn of_act(event: &Event, outcome: Outcome) -> String {
    Line::of(event, outcome).print()
}

/// An act whose transaction is committed, with its place in the chain: whoever keeps the log can
/// tell later whether the chain is still the same.
pub fn of_commit(event: &Event, link: &Link, hash: &Hash) -> String {
    let hash = Some(HEXLOWER.encode(hash));
    let line = Line::of(event, Outcome::Committed);
    // What was done stands in the line of the act.
    let line = Line { before: None, after: None, kms_request_ids: &[], ..line };
    Line { origin: Some(&event.origin), number: Some(link.number), hash, ..line }.print()
}

/// An act that was tried and refused. What was asked for is in `event` as far as it is known; the
/// name of the tenant may be anything.
pub fn of_refusal(event: &Event, reason: &str) -> String {
    let tenant = clean(&event.tenant);
    let line = Line::of(event, Outcome::Refused);
    Line { tenant: &tenant, reason: Some(reason), ..line }.print()
}

/// A request to a key management service that ended.
#[derive(Serialize)]
pub struct KmsCall<'a> {
    /// `kms` and `sts` of AWS, `local`.
    pub service: &'a str,
    /// The service's own name for it.
    pub operation: &'a str,
    /// The key that it was made for.
    pub key_uri: &'a str,
    /// Where a data key was moved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_key_uri: Option<&'a str>,
    /// Out of the encryption context.
    pub tenant: Option<&'a str>,
    /// What the data key is for.
    pub purpose: Option<&'a str>,
    /// As CloudTrail has it.
    pub request_id: Option<&'a str>,
    /// `success`, the name of a reason, `interrupted`.
    pub outcome: &'a str,
    /// When it began: ISO 8601.
    pub at: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The name of the database.
    pub database: &'a str,
}

/// One request to a key management service: `cmk_encrypt kms={…}`.
pub fn of_kms_call(call: &KmsCall<'_>) -> String {
    format!("cmk_encrypt kms={}", serde_json::to_string(call).unwrap_or_default())
}

/// What was left out of the log, because it said the same again and again.
pub fn of_left_out(left_out: &LeftOut) -> String {
    let LeftOut { subject, times } = left_out;
    format!("cmk_encrypt log: {times} more like this were left out: {subject}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event() -> Event {
        Event {
            tenant: "a\"b".into(),
            origin: "1/2".into(),
            at: 0,
            session_role: "alice".into(),
            acting_role: "dba".into(),
            client_address: Some("[local]".into()),
            application_name: None,
            database: "app".into(),
            transaction: 7,
            act: "rotate_tenant".into(),
            data_key: Some(2),
            before: Some(r#"{"data_key":1}"#.into()),
            after: None,
            kms_request_ids: vec!["r".into()],
        }
    }

    fn json(line: &str) -> Value {
        let json = line.strip_prefix("cmk_encrypt audit=").expect("an audit line");
        assert!(!json.contains('\n'));
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn a_line_is_one_json_object() {
        let mut expected = json!({
            "event": "act", "act": "rotate_tenant", "tenant": "a\"b", "outcome": "done",
            "data_key": 2, "before": {"data_key": 1}, "session_role": "alice",
            "acting_role": "dba", "client_address": "[local]", "application_name": null,
            "database": "app", "xid": 7, "kms_request_ids": ["r"],
        });
        assert_eq!(json(&of_act(&event(), Outcome::Done)), expected);
        let fields = expected.as_object_mut().expect("an object");
        fields.remove("before");
        fields.remove("kms_request_ids");
        fields.insert("outcome".into(), "committed".into());
        fields.insert("origin".into(), "1/2".into());
        fields.insert("number".into(), 3.into());
        fields.insert("hash".into(), "ab".repeat(32).into());
        let link = Link { number: 3, previous: Link::START };
        assert_eq!(json(&of_commit(&event(), &link, &[0xab; 32])), expected);
    }

    #[test]
    fn a_refused_name_makes_no_other_line() {
        let forged = Event { tenant: "x\ncmk_encrypt audit={}".into(), ..event() };
        let line = of_refusal(&forged, "tenant_name");
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains(r#""reason":"tenant_name""#), "{line}");
    }
}
