//! Golden search tokens: what one release has stored is found by every later one.
//!
//! As `golden.rs`: written once by an independent implementation, and a failure is a break of the
//! format.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../tests/vectors/case.rs"]
mod case;

use case::{Case, cases};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::token::TokenKey;
use cmk_envelope::column::{ColumnTag, Normalization, SearchKey, TenantTag, Token, Which, probe};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const TOKENS: &str = include_str!("../../../tests/vectors/tokens.json");
const UNICODE: &str = include_str!("../../../tests/vectors/unicode.json");

fn tokens() -> Vec<Case> {
    cases(TOKENS, "tokens", 145)
}

fn normalization(case: &Case) -> Normalization {
    Normalization::from_name(case.text("normalization")).unwrap_or_default()
}

#[test]
fn golden_texts_are_normalized() {
    for case in tokens() {
        let by = normalization(&case);
        let (plaintext, expected) = (case.bytes("plaintext"), case.bytes("normalized"));
        assert_eq!(by.apply(&plaintext).unwrap(), expected, "{}", case.name());
        assert_eq!(by.apply(&expected).unwrap(), expected, "{}", case.name());
    }
}

#[test]
fn golden_tokens_and_probes_are_recomputed() {
    for case in tokens() {
        let key = SecretKey::from_slice(&case.bytes("index_key")).unwrap();
        let tenant = case.tenant().as_bytes();
        let mut index_key = [0; 4];
        index_key.copy_from_slice(&Commitment::to(&key, tenant).dek_id().0[..4]);
        assert_eq!(index_key.as_slice(), case.bytes("index_key_id"), "{}", case.name());

        let column = ColumnTag::of(case.text("label").as_bytes());
        assert_eq!(column.0.as_slice(), case.bytes("column_tag"), "{}", case.name());
        let plaintext = case.bytes("plaintext");
        let normalized = normalization(&case).apply(&plaintext).unwrap();
        let value = TokenKey::new(&key).token(&column.0, &normalized);
        let whole = Token { index_key, value };
        let token = case.text("bits").parse().map_or(whole, |bits| whole.shortened(bits));
        assert_eq!(token.value.as_slice(), case.bytes("token"), "{}", case.name());

        let probe = probe(TenantTag::of(tenant), token);
        assert_eq!(probe.as_slice(), case.bytes("probe"), "{}", case.name());
    }
}

#[test]
fn an_index_keeps_its_order() {
    for case in cases(TOKENS, "search_keys", 10) {
        for (which, field) in [(Which::First, "first"), (Which::Last, "last")] {
            let key = SearchKey::of(&case.bytes("bytes"), which).unwrap();
            assert_eq!(key.to_bytes().as_slice(), case.bytes(field), "{} {field}", case.name());
        }
    }
    for case in cases(TOKENS, "no_search_keys", 9) {
        assert_eq!(SearchKey::of(&case.bytes("bytes"), Which::First), None, "{}", case.name());
    }
}

/// Of a field like `41-5A AA`.
fn characters(document: &Value, field: &str) -> HashSet<char> {
    let code = |text| u32::from_str_radix(text, 16).unwrap();
    let spans = document[field].as_str().unwrap().split(' ');
    let spans = spans.map(|span| span.split_once('-').unwrap_or((span, span)));
    spans.flat_map(|(from, to)| code(from)..=code(to)).filter_map(char::from_u32).collect()
}

fn lower_cases(document: &Value) -> HashMap<char, String> {
    let character = |text| char::from_u32(u32::from_str_radix(text, 16).unwrap()).unwrap();
    let pairs = document["lower"].as_str().unwrap().split(' ');
    let pairs = pairs.map(|pair| pair.split_once(':').unwrap());
    pairs.map(|(c, lower)| (character(c), lower.split('+').map(character).collect())).collect()
}

/// A failure after an update of Rust says that the new Unicode has changed its mind about a
/// character. Then the normalizations need a table of their own.
#[test]
fn characters_are_what_they_were_in_unicode_14() {
    let document = serde_json::from_str(UNICODE).unwrap();
    let (assigned, alphanumeric) =
        (characters(&document, "assigned"), characters(&document, "alphanumeric"));
    let lower_cases = lower_cases(&document);
    assert_eq!((assigned.len(), alphanumeric.len(), lower_cases.len()), (282_230, 134_989, 1_433));
    for character in assigned {
        let text = character.to_string();
        let apply =
            |by: Normalization| String::from_utf8(by.apply(text.as_bytes()).unwrap().into_owned());
        let lower = lower_cases.get(&character).unwrap_or(&text);
        assert_eq!(apply(Normalization::Lower).as_ref(), Ok(lower), "{character:?}");
        let kept = lower.chars().filter(|c| alphanumeric.contains(c)).collect();
        assert_eq!(apply(Normalization::Alnum), Ok(kept), "{character:?}");
    }
}
