use super::*;
use serde_json::json;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const US: &str = "arn:aws:sts::444455556666:assumed-role/database/i-0example";

fn record(id: &str, operation: &str, time: &str, more: Value) -> Value {
    let mut record = json!({
        "eventSource": "kms.amazonaws.com",
        "eventName": operation,
        "eventTime": time,
        "requestID": id,
        "userIdentity": {"arn": US},
        "requestParameters": {
            "keyId": KEY,
            "encryptionContext": {"cmk_encrypt": "v1", "purpose": "values", "tenant": "acme"},
        },
        "resources": [{"ARN": KEY, "accountId": "111122223333"}],
    });
    for (name, value) in more.as_object().expect("an object") {
        record[name] = value.clone();
    }
    record
}

fn ours(id: &str, at: &str, outcome: &str) -> Ours {
    Ours {
        request_id: id.into(),
        operation: Some("Decrypt".into()),
        at: time::parse(at),
        outcome: Some(outcome.into()),
        act: None,
    }
}

fn keys() -> BTreeSet<String> {
    [KEY.to_owned()].into()
}

fn seen(ours: Vec<Ours>, records: &[Value]) -> Vec<(String, Side, String)> {
    let matches = join("acme", &keys(), ours, true, records);
    matches.into_iter().map(|it| (it.request_id, it.side, it.explanation)).collect()
}

#[test]
fn the_same_request_is_on_both_sides() {
    let at = "2026-01-01T00:00:00Z";
    let records = [
        record("a", "Decrypt", at, json!({})),
        record("b", "Decrypt", at, json!({"errorCode": "DisabledException"})),
        record("c", "Decrypt", at, json!({"errorCode": "AccessDenied"})),
        record("d", "Encrypt", at, json!({})),
    ];
    let calls = vec![
        ours("a", at, "success"),
        ours("b", at, "key_disabled"),
        ours("c", at, "success"),
        ours("d", at, "success"),
    ];
    let seen = seen(calls, &records);
    assert!(seen.iter().all(|(_, side, _)| *side == Side::Both));
    let told: Vec<_> = seen.iter().map(|(.., told)| &**told).collect();
    assert_eq!(
        told[..2],
        ["the same request on both sides", "KMS refused it with DisabledException"]
    );
    assert!(told[2].contains("differ in the outcome"), "{told:?}");
    assert!(told[3].contains("differ in the operation"), "{told:?}");
}

#[test]
fn what_cloudtrail_lacks_is_explained() {
    let records = [
        record("x", "Decrypt", "2026-01-02T00:00:00Z", json!({})),
        record("y", "Decrypt", "2026-01-03T00:00:00Z", json!({})),
    ];
    for (at, outcome, told) in [
        ("2026-01-01T00:00:00Z", "success", "before the first record"),
        ("2026-01-04T00:00:00Z", "success", "after the last record"),
        ("2026-01-02T12:00:00Z", "success", "another account or Region"),
        ("2026-01-02T12:00:00Z", "key_access_denied", "caller's account only"),
        ("2026-01-02T12:00:00Z", "interrupted", "given up"),
    ] {
        let found = seen(vec![ours("a", at, outcome)], &records);
        let (_, side, explanation) = found.iter().find(|(id, ..)| id == "a").expect("a");
        assert_eq!(*side, Side::OursOnly);
        assert!(explanation.contains(told), "{explanation}");
    }
    assert_eq!(
        seen(vec![ours("a", "2026-01-01T00:00:00Z", "success")], &[])[0].2,
        "no record was given"
    );
}

#[test]
fn what_we_lack_is_explained() {
    let at = "2026-01-01T00:00:00Z";
    let other = json!({"userIdentity": {"arn": "arn:aws:iam::111122223333:user/eve"}});
    let bare = json!({"requestParameters": {"keyId": KEY}});
    let records = [
        record("a", "Decrypt", at, json!({})),
        record("b", "Decrypt", at, other),
        record("c", "Decrypt", at, bare.clone()),
        record("d", "Decrypt", at, json!({})),
        record("e", "DescribeKey", at, bare.clone()),
        record("f", "DisableKeyRotation", at, bare),
    ];
    let seen = seen(vec![ours("a", at, "success")], &records);
    let told: Vec<_> = seen.iter().map(|(.., told)| &**told).collect();
    assert_eq!(seen[0].1, Side::Both);
    assert!(seen[1..].iter().all(|(_, side, _)| *side == Side::TheirsOnly));
    for (told, part) in told[1..].iter().zip([
        "user/eve, which is not how we were seen",
        "without this tenant's encryption context",
        "somebody else uses our identity",
        "somebody else uses our identity",
        "does not call DisableKeyRotation",
    ]) {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn records_of_others_are_passed_over() {
    let at = "2026-01-01T00:00:00Z";
    let records = [
        record("a", "PutObject", at, json!({"eventSource": "s3.amazonaws.com"})),
        record(
            "b",
            "Decrypt",
            at,
            json!({
                "requestParameters": {"encryptionContext": {"tenant": "other"}},
                "resources": [],
            }),
        ),
    ];
    assert_eq!(seen(Vec::new(), &records), []);
}

#[test]
fn records_come_in_three_forms() {
    let one = record("a", "Decrypt", "2026-01-01T00:00:00Z", json!({}));
    let found = vec![one.clone()];
    let looked_up =
        json!({"Events": [{"EventName": "Decrypt", "CloudTrailEvent": one.to_string()}]});
    for events in [json!({"Records": [one]}), json!([one]), looked_up] {
        assert_eq!(records(&events).as_ref(), Some(&found));
    }
    for events in [json!(null), json!({}), json!("x"), json!([1]), json!({"Records": {}})] {
        assert_eq!(records(&events), None);
    }
}

#[test]
fn lines_of_the_log_are_requests() {
    let line = json!({
        "tenant": "acme",
        "operation": "Decrypt",
        "request_id": "r",
        "outcome": "success",
        "at": "2026-01-01T00:00:00.000001Z",
    });
    let call = Ours::from_line(&line, "acme", &keys()).expect("a request");
    assert_eq!((call.request_id.as_str(), call.outcome.as_deref()), ("r", Some("success")));
    assert!(Ours::from_line(&line, "other", &keys()).is_none());
    let described =
        json!({"tenant": null, "key_uri": KEY, "operation": "DescribeKey", "request_id": "s"});
    assert!(Ours::from_line(&described, "acme", &keys()).is_some());
}
