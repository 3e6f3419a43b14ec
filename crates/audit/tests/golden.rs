//! Hashes never change: `tests/crosscheck` recomputes the same ones in another language.

use cmk_audit::{Event, Link};
use data_encoding::HEXLOWER;
use serde_json::Value;

const VECTORS: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/audit_events.json"));

fn read(event: &Value) -> (Event, Link) {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let must = |name: &str| text(name).unwrap_or_else(|| panic!("{name}"));
    let number = |name: &str| event[name].as_i64();
    let ids = event["kms_request_ids"].as_array().expect("an array");
    let made = Event {
        tenant: must("tenant"),
        origin: must("origin"),
        at: number("at").expect("a number"),
        session_role: must("session_role"),
        acting_role: must("acting_role"),
        client_address: text("client_address"),
        application_name: text("application_name"),
        database: must("database"),
        transaction: number("transaction").expect("a number"),
        act: must("act"),
        data_key: number("data_key").map(|it| it as i32),
        before: text("before"),
        after: text("after"),
        kms_request_ids: ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let previous = HEXLOWER.decode(must("previous_hash").as_bytes()).expect("hexadecimal");
    let previous = previous.try_into().expect("32 bytes");
    (made, Link { number: number("number").expect("a number"), previous })
}

#[test]
fn hashes_are_those_of_the_vectors() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    assert_eq!(vectors.len(), 3);
    for vector in &vectors {
        let (event, link) = read(vector);
        assert_eq!(vector["hash"].as_str(), Some(&*HEXLOWER.encode(&event.hash(&link))));
    }
}
