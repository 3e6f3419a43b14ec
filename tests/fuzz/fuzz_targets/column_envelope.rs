//! Any bytes as an envelope of a column, and as armor: both are total, answer what the layout says,
//! forge nothing, and are each other's inverse.

#![no_main]

use cmk_envelope::column::{ColumnEnvelope, HEADER_MAX, SUITE_2, SUITE_3, header, overhead};
use cmk_envelope::{MAGIC, armor};
use golden::COLUMNS;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    as_envelope(bytes);
    as_armor(bytes);
});

fn as_envelope(bytes: &[u8]) {
    let expected = match bytes {
        [MAGIC, suite @ (SUITE_2 | SUITE_3), ..] if bytes.len() >= overhead(*suite == SUITE_3) => {
            None
        }
        [MAGIC, suite, ..] if ![SUITE_2, SUITE_3].contains(suite) => Some("unknown_suite"),
        _ => Some("not_an_envelope"),
    };
    let read = header(&bytes[..bytes.len().min(HEADER_MAX)]);
    let text = armor::encode(bytes).unwrap();
    let unarmored = armor::decode(&text).unwrap();
    match ColumnEnvelope::parse(bytes) {
        Ok(envelope) => {
            assert_eq!(expected, None);
            let fields = envelope.header();
            let [dek_id, tenant, column] = [&bytes[2..18], &bytes[18..26], &bytes[26..34]];
            assert_eq!(fields.suite, bytes[1]);
            assert_eq!((&fields.dek_id.0[..], &fields.tenant.0[..]), (dek_id, tenant));
            assert_eq!(fields.column.0, column);
            let token = fields.token.map(|token| [&token.index_key[..], &token.value].concat());
            assert_eq!(token.as_deref(), (bytes[1] == SUITE_3).then(|| &bytes[34..54]));
            let nonce_at = if token.is_some() { 54 } else { 34 };
            assert_eq!(fields.nonce, bytes[nonce_at..nonce_at + 24]);
            assert_eq!(envelope.plaintext_len() + overhead(token.is_some()), bytes.len());

            assert_eq!(read, Some(fields), "a slice says something else");
            assert_eq!(unarmored.as_deref(), Some(bytes));
            COLUMNS.iter().for_each(|golden| golden.judge(bytes, &envelope));
        }
        Err(error) => {
            assert_eq!(expected, Some(error.reason.name()));
            assert_eq!((read, unarmored), (None, None));
        }
    }
}

fn as_armor(text: &[u8]) {
    if let Some(envelope) = armor::decode(text).unwrap() {
        assert_eq!(armor::encode(&envelope).unwrap(), text, "two texts of one envelope");
        assert_eq!(armor::decoded_len(text.len()), Some(envelope.len()));
        assert!(armor::needs_escape(text));
        as_envelope(&envelope);
    }
}
