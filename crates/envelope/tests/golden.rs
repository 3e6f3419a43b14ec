//! Golden envelopes of suite 1.
//!
//! What one release has sealed opens in every later one.
//!
//! `tests/vectors/` was written once by an independent implementation (`tests/crosscheck/`) and
//! never changes. A failure here is a break of the format.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../tests/vectors/case.rs"]
mod case;

use case::{Case, cases};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::{Commitment, DekId};
use cmk_crypto::key::SecretKey;
use cmk_crypto::nonce::{Moment, NonceSource};
use cmk_crypto::run::Fresh;
use cmk_envelope::{Binding, Envelope, OVERHEAD, seal};
use cmk_error::Result;

const SUITE_1: &str = include_str!("../../../tests/vectors/suite1.json");

fn key(case: &Case) -> SecretKey {
    SecretKey::from_slice(&case.bytes("key")).unwrap()
}

/// Opens `envelope` with the key, tenant and aad of `case`.
fn open(case: &Case, envelope: &[u8]) -> Result<Vec<u8>> {
    let envelope = Envelope::parse(envelope)?;
    let mut plaintext = vec![0; envelope.plaintext_len()];
    let cipher = Cipher::new(&key(case));
    let aad = case.bytes("aad");
    let binding = Binding { tenant: case.tenant().as_bytes(), aad: &aad };
    envelope.open(&cipher, &binding, &mut plaintext)?;
    Ok(plaintext)
}

fn valid() -> Vec<Case> {
    cases(SUITE_1, "valid", 16)
}

#[test]
fn golden_envelopes_open() {
    for case in valid() {
        let plaintext = open(&case, &case.bytes("envelope"));
        assert_eq!(plaintext.as_ref(), Ok(&case.bytes("plaintext")), "{}", case.name());
    }
}

#[test]
fn golden_envelopes_show_their_fields() {
    for case in valid() {
        let bytes = case.bytes("envelope");
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(envelope.suite(), cmk_envelope::SUITE_1, "{}", case.name());
        assert_eq!(envelope.dek_id().0.as_slice(), case.bytes("dek_id"), "{}", case.name());
        assert_eq!(envelope.plaintext_len() + OVERHEAD, bytes.len(), "{}", case.name());
    }
}

#[test]
fn golden_commitments_are_recomputed() {
    for case in valid() {
        let commitment = Commitment::to(&key(&case), case.tenant().as_bytes());
        assert_eq!(commitment.as_bytes().as_slice(), case.bytes("commitment"), "{}", case.name());
        assert_eq!(commitment.dek_id().0.as_slice(), case.bytes("dek_id"), "{}", case.name());
    }
}

#[test]
fn sealing_repeats_everything_of_a_golden_envelope_that_is_not_drawn() {
    for case in valid() {
        let golden = case.bytes("envelope");
        let mut sealed = vec![0; golden.len()];
        let dek_id = DekId(case.bytes("dek_id").try_into().unwrap());
        let plaintext = case.bytes("plaintext");
        let cipher = Cipher::new(&key(&case));
        let (mut nonces, moment) = (NonceSource::new(), Moment { pid: 1, now: 1, statement: 1 });
        let aad = case.bytes("aad");
        let binding = Binding { tenant: case.tenant().as_bytes(), aad: &aad };
        let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment };
        seal(fresh, dek_id, &binding, &plaintext, &mut sealed).unwrap();
        assert_eq!(sealed[..18], golden[..18], "{}", case.name());
        assert_ne!(sealed[18..42], golden[18..42], "{}", case.name());
        assert_eq!(open(&case, &sealed).as_ref(), Ok(&plaintext), "{}", case.name());
    }
}

#[test]
fn invalid_envelopes_fail_for_exactly_their_reason() {
    for case in cases(SUITE_1, "invalid", 40) {
        let error = open(&case, &case.bytes("envelope")).expect_err(case.name());
        assert_eq!(error.reason.name(), case.text("reason"), "{}", case.name());
    }
}
