//! Golden envelopes of suite 1.

use crate::case::{Case, cases};
use cmk_encrypt::crypto::aead::Cipher;
use cmk_encrypt::crypto::commitment::{Commitment, DekId};
use cmk_encrypt::crypto::nonce::NonceSource;
use cmk_encrypt::envelope::{self, Envelope, OVERHEAD, seal};
use cmk_encrypt::error::Result;

const SUITE_1: &str = include_str!("../vectors/suite1.json");

/// Opens `envelope` with the key, tenant and aad of `case`.
fn open(case: &Case, envelope: &[u8]) -> Result<Vec<u8>> {
    let envelope = Envelope::parse(envelope)?;
    let mut plaintext = vec![0; envelope.plaintext_len()];
    let cipher = Cipher::new(&case.key());
    envelope.open(&cipher, case.tenant().as_bytes(), &case.bytes("aad"), &mut plaintext)?;
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
        assert_eq!(envelope.suite(), envelope::SUITE_1, "{}", case.name());
        assert_eq!(envelope.dek_id().0.as_slice(), case.bytes("dek_id"), "{}", case.name());
        assert_eq!(envelope.plaintext_len() + OVERHEAD, bytes.len(), "{}", case.name());
    }
}

#[test]
fn golden_commitments_are_recomputed() {
    for case in valid() {
        let commitment = Commitment::to(&case.key(), case.tenant().as_bytes());
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
        seal(
            &Cipher::new(&case.key()),
            dek_id,
            &mut NonceSource::new(),
            1,
            case.tenant().as_bytes(),
            &case.bytes("aad"),
            &plaintext,
            &mut sealed,
        )
        .unwrap();
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
