//! Any bytes as an envelope of a column, as armor and as what an index orders: all are total,
//! answer what the layout says and forge nothing; armor and envelope are each other's inverse.

#![no_main]

use cmk_envelope::column::{
    ColumnEnvelope, HEADER_MAX, PROBE_LEN, SUITE_2, SUITE_3, SUITE_4, SUITE_PROBE, SearchKey,
    Tokens, Which, header, overhead,
};
use cmk_envelope::{MAGIC, armor};
use golden::COLUMNS;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    as_envelope(bytes);
    as_armor(bytes);
    as_probe(bytes);
});

/// Where the nonce of a suite begins.
fn nonce_at(suite: u8) -> Option<usize> {
    match (suite & 0x0F, suite & 0x40) {
        (SUITE_2, _) if suite == SUITE_2 => Some(34),
        (SUITE_3, 0) => Some(54),
        (SUITE_4, 0) => Some(74),
        _ => None,
    }
}

fn as_envelope(bytes: &[u8]) {
    let nonce_at = bytes.get(1).and_then(|suite| nonce_at(*suite));
    let expected = match (bytes, nonce_at) {
        ([MAGIC, _, ..], None) => Some("unknown_suite"),
        ([MAGIC, ..], Some(at)) if bytes.len() >= at + 24 + 16 => None,
        _ => Some("not_an_envelope"),
    };
    let read = header(&bytes[..bytes.len().min(HEADER_MAX)]);
    let text = armor::encode(bytes).unwrap();
    let unarmored = armor::decode(&text).unwrap();
    match ColumnEnvelope::parse(bytes) {
        Ok(envelope) => {
            assert_eq!(expected, None);
            let nonce_at = nonce_at.unwrap();
            let fields = envelope.header();
            let [dek_id, tenant, column] = [&bytes[2..18], &bytes[18..26], &bytes[26..34]];
            assert_eq!(fields.suite, bytes[1]);
            assert_eq!((&fields.dek_id.0[..], &fields.tenant.0[..]), (dek_id, tenant));
            assert_eq!(fields.column.0, column);
            tokens(bytes, nonce_at, fields.tokens);
            assert_eq!(fields.nonce, bytes[nonce_at..nonce_at + 24]);
            assert_eq!(envelope.plaintext_len() + overhead(fields.tokens.as_ref()), bytes.len());

            assert_eq!(read, Some(fields), "a slice says something else");
            assert_eq!(unarmored.as_deref(), Some(bytes));
            ordered(bytes, Which::First, fields.tokens.map(|_| &bytes[34..54]));
            ordered(bytes, Which::Last, fields.tokens.map(|_| &bytes[nonce_at - 20..nonce_at]));
            COLUMNS.iter().for_each(|golden| golden.judge(bytes, &envelope));
        }
        Err(error) => {
            assert_eq!(expected, Some(error.reason.name()));
            assert_eq!((read, unarmored), (None, None));
        }
    }
}

fn tokens(bytes: &[u8], nonce_at: usize, tokens: Option<Tokens>) {
    let Some(Tokens { rule, first, next }) = tokens else {
        assert_eq!(nonce_at, 34);
        return;
    };
    let all = [Some(first), next].into_iter().flatten();
    let all = all.flat_map(|token| [&token.index_key[..], &token.value].concat());
    assert_eq!(all.collect::<Vec<u8>>(), bytes[34..nonce_at]);
    assert_eq!(rule.normalization as u8, bytes[1] >> 4 & 7);
    assert_eq!(rule.is_shortened, bytes[1] >= 0x80);
}

/// An envelope with tokens, or a probe, is ordered as the probe that looks for it.
fn ordered(bytes: &[u8], which: Which, token: Option<&[u8]>) {
    let slice = &bytes[..bytes.len().min(HEADER_MAX)];
    let key = SearchKey::of(slice, which);
    assert_eq!(key.is_some(), token.is_some());
    let (Some(key), Some(token)) = (key, token) else { return };
    let tenant = if bytes[1] == SUITE_PROBE { &bytes[2..10] } else { &bytes[18..26] };
    let probe = [&[MAGIC, SUITE_PROBE], tenant, token].concat();
    assert_eq!(SearchKey::of(&probe, which), Some(key));
    assert_eq!(key.abbreviated().to_be_bytes(), key.to_bytes()[..8]);
}

fn as_probe(bytes: &[u8]) {
    match bytes {
        [MAGIC, SUITE_PROBE, ..] if bytes.len() == PROBE_LEN => {
            ordered(bytes, Which::First, Some(&bytes[10..]));
            ordered(bytes, Which::Last, Some(&bytes[10..]));
        }
        _ if ColumnEnvelope::parse(bytes).is_err() => {
            assert_eq!(SearchKey::of(bytes, Which::First), None);
            assert_eq!(SearchKey::of(bytes, Which::Last), None);
        }
        _ => {}
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
