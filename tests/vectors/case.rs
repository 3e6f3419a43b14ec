//! How a file of `tests/vectors/` reads.

use data_encoding::HEXLOWER;
use serde_json::Value;

/// A vector: fields of text as it stands, or decoded from hexadecimal.
pub struct Case(Value);

impl Case {
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("no text {field} in {}", self.0))
    }

    #[allow(dead_code, reason = "not all files have fields that some cases lack")]
    pub fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some()
    }

    pub fn bytes(&self, field: &str) -> Vec<u8> {
        HEXLOWER.decode(self.text(field).as_bytes()).unwrap()
    }

    pub fn name(&self) -> &str {
        self.text("name")
    }

    pub fn tenant(&self) -> &str {
        self.text("tenant")
    }
}

/// The cases of one kind in a document; their number is part of the format's promise.
pub fn cases(document: &str, kind: &str, number: usize) -> Vec<Case> {
    let mut document: Value = serde_json::from_str(document).unwrap();
    let Value::Array(cases) = document[kind].take() else { panic!("no array {kind}") };
    assert_eq!(cases.len(), number, "golden vectors are never removed");
    cases.into_iter().map(Case).collect()
}
