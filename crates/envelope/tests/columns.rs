//! Golden envelopes of protected columns, suites 2, 3 and 4, and their armor.
//!
//! As `golden.rs`: written once by an independent implementation, and a failure is a break of the
//! format.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../tests/vectors/case.rs"]
mod case;

use case::{Case, cases};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::nonce::{Moment, NonceSource};
use cmk_crypto::run::Fresh;
use cmk_envelope::armor;
use cmk_envelope::column::{
    ColumnBinding, ColumnEnvelope, ColumnTag, HEADER_MAX, Header, Normalization, SUITE_2, SUITE_3,
    SUITE_4, TenantTag, Token, TokenRule, Tokens, header, overhead, seal,
};
use cmk_error::Result;

/// The documents, and how many envelopes are valid and invalid in each.
const SUITES: [(u8, &str, usize, usize); 4] = [
    (SUITE_2, include_str!("../../../tests/vectors/suite2.json"), 19, 51),
    (SUITE_3, include_str!("../../../tests/vectors/suite3.json"), 19, 57),
    (SUITE_3, include_str!("../../../tests/vectors/suite3_rules.json"), 7, 255),
    (SUITE_4, include_str!("../../../tests/vectors/suite4.json"), 26, 68),
];

fn valid() -> impl Iterator<Item = (u8, Case)> {
    SUITES.into_iter().flat_map(|(suite, document, number, _)| {
        cases(document, "valid", number).into_iter().map(move |case| (suite, case))
    })
}

/// The names of the cases that have another rule than the default one.
fn rule(name: &str) -> TokenRule {
    let (normalization, is_shortened) = match name.strip_suffix("_shortened") {
        Some(normalization) => (normalization, true),
        None => (name, false),
    };
    match Normalization::from_name(normalization) {
        Some(normalization) => TokenRule { normalization, is_shortened },
        None => TokenRule { is_shortened, ..TokenRule::default() },
    }
}

fn tokens(suite: u8, case: &Case) -> Option<Tokens> {
    let token =
        |index_key, value| Token { index_key: array(case, index_key), value: array(case, value) };
    (suite != SUITE_2).then(|| Tokens {
        rule: rule(case.name()),
        first: token("index_key", "token"),
        next: (suite == SUITE_4).then(|| token("next_index_key", "next_token")),
    })
}

fn array<const LEN: usize>(case: &Case, field: &str) -> [u8; LEN] {
    case.bytes(field).try_into().unwrap()
}

fn key(case: &Case) -> SecretKey {
    SecretKey::from_slice(&case.bytes("key")).unwrap()
}

/// The header as the fields of the case give it, computing only what the case has to agree with.
fn expected(suite: u8, case: &Case) -> Header {
    Header {
        suite: if case.has("suite_byte") { case.bytes("suite_byte")[0] } else { suite },
        dek_id: Commitment::to(&key(case), case.tenant().as_bytes()).dek_id(),
        tenant: TenantTag::of(case.tenant().as_bytes()),
        column: ColumnTag::of(case.text("label").as_bytes()),
        tokens: tokens(suite, case),
        nonce: array(case, "nonce"),
    }
}

/// Opens `envelope` with the key and tenant of `case`.
fn open(case: &Case, envelope: &[u8]) -> Result<Vec<u8>> {
    let envelope = ColumnEnvelope::parse(envelope)?;
    let mut plaintext = vec![0; envelope.plaintext_len()];
    envelope.open(&Cipher::new(&key(case)), case.tenant().as_bytes(), &mut plaintext)?;
    Ok(plaintext)
}

#[test]
fn golden_envelopes_open() {
    for (suite, case) in valid() {
        let plaintext = open(&case, &case.bytes("envelope"));
        assert_eq!(plaintext.as_ref(), Ok(&case.bytes("plaintext")), "{suite} {}", case.name());
    }
}

#[test]
fn golden_envelopes_show_their_fields() {
    for (suite, case) in valid() {
        let bytes = case.bytes("envelope");
        let (header, expected) =
            (header(&bytes[..bytes.len().min(HEADER_MAX)]), expected(suite, &case));
        assert_eq!(header, Some(expected), "{suite} {}", case.name());
        assert_eq!(expected.dek_id.0.as_slice(), case.bytes("dek_id"));
        assert_eq!(expected.tenant.0.as_slice(), case.bytes("tenant_tag"));
        assert_eq!(expected.column.0.as_slice(), case.bytes("column_tag"));
        let plaintext_len = ColumnEnvelope::parse(&bytes).unwrap().plaintext_len();
        assert_eq!(plaintext_len + overhead(expected.tokens.as_ref()), bytes.len());
    }
}

#[test]
fn sealing_repeats_everything_of_a_golden_envelope_that_is_not_drawn() {
    for (suite, case) in valid() {
        let (golden, plaintext) = (case.bytes("envelope"), case.bytes("plaintext"));
        let mut sealed = vec![0; golden.len()];
        let Header { dek_id, tenant: tenant_tag, column, tokens, .. } = expected(suite, &case);
        let tenant = case.tenant().as_bytes();
        let binding = ColumnBinding { tenant, tenant_tag, column, tokens };
        let (mut nonces, moment) = (NonceSource::new(), Moment { pid: 1, now: 1, statement: 1 });
        let cipher = Cipher::new(&key(&case));
        let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment };
        seal(fresh, dek_id, &binding, &plaintext, &mut sealed).unwrap();
        let nonce_at = golden.len() - plaintext.len() - 16 - 24;
        assert_eq!(sealed[..nonce_at], golden[..nonce_at], "{suite} {}", case.name());
        assert_ne!(sealed[nonce_at..][..24], golden[nonce_at..][..24]);
        assert_eq!(open(&case, &sealed).as_ref(), Ok(&plaintext));
    }
}

#[test]
fn invalid_envelopes_fail_for_exactly_their_reason() {
    for (suite, document, _, number) in SUITES {
        for case in cases(document, "invalid", number) {
            let error = open(&case, &case.bytes("envelope")).expect_err(case.name());
            assert_eq!(error.reason.name(), case.text("reason"), "{suite} {}", case.name());
        }
    }
}

#[test]
fn golden_armor_is_written_and_read() {
    for (suite, case) in valid() {
        let (envelope, text) = (case.bytes("envelope"), case.text("armor").as_bytes());
        assert_eq!(armor::encode(&envelope).unwrap(), text, "{suite} {}", case.name());
        assert_eq!(armor::decode(text).unwrap(), Some(envelope), "{suite} {}", case.name());
    }
}

#[test]
fn what_is_no_armor_is_plain_text() {
    for (suite, document, ..) in SUITES.into_iter().filter(|(_, _, number, _)| *number > 7) {
        for case in cases(document, "invalid_armor", 29) {
            let decoded = armor::decode(case.text("armor").as_bytes());
            assert_eq!(decoded, Ok(None), "{suite} {}", case.name());
        }
    }
}
