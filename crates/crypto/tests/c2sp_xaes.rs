//! C2SP XAES-256-GCM (<https://c2sp.org/XAES-256-GCM>): the specification's vectors, through our
//! cipher.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use cmk_crypto::aead::{Cipher, TAG_LEN};
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_crypto::nonce::NONCE_LEN;
use data_encoding::HEXLOWER;
use shake::Shake128;
use shake::digest::{ExtendableOutput, Update, XofReader};

/// Ciphertext ‖ tag, after checking that it opens again.
fn seal(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let cipher = Cipher::new(&SecretKey::from_slice(key).unwrap());
    let mut sealed = vec![0; plaintext.len() + TAG_LEN];
    let (ciphertext, tag) = sealed.split_last_chunk_mut().unwrap();
    *tag = cipher.seal(nonce, aad, plaintext, ciphertext).unwrap();

    let mut opened = vec![0; plaintext.len()];
    cipher.open(nonce, aad, ciphertext, tag, &mut opened).unwrap();
    assert_eq!(opened, plaintext);
    sealed
}

/// The two keys differ in MSB₁(L), so that both ways to derive K1 are taken.
#[test]
fn single_vectors() {
    let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
    let plaintext = b"XAES-256-GCM";
    assert_eq!(
        HEXLOWER.encode(&seal(&[1; KEY_LEN], nonce, b"", plaintext)),
        "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
    );
    assert_eq!(
        HEXLOWER.encode(&seal(&[3; KEY_LEN], nonce, b"c2sp.org/XAES-256-GCM", plaintext)),
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"
    );
}

/// SHAKE-128 over all ciphertexts, where each iteration reads key, nonce, plaintext and aad (both
/// with a length byte before them) from one SHAKE-128 stream over nothing.
fn accumulated(iterations: u32) -> String {
    let mut stream = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    for _ in 0..iterations {
        let key = read_array(&mut stream);
        let nonce = read_array(&mut stream);
        let plaintext = read_prefixed(&mut stream);
        let aad = read_prefixed(&mut stream);
        hash.update(&seal(&key, &nonce, &aad, &plaintext));
    }
    HEXLOWER.encode(&read_array::<32>(&mut hash.finalize_xof()))
}

fn read_array<const N: usize>(stream: &mut impl XofReader) -> [u8; N] {
    let mut array = [0; N];
    stream.read(&mut array);
    array
}

fn read_prefixed(stream: &mut impl XofReader) -> Vec<u8> {
    let [len] = read_array(stream);
    let mut bytes = vec![0; len.into()];
    stream.read(&mut bytes);
    bytes
}

#[test]
fn accumulated_vector_of_10_000() {
    assert_eq!(
        accumulated(10_000),
        "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    );
}

/// Optimised builds only (`cargo test --release --test c2sp_xaes`): seconds there, minutes without.
#[cfg(not(debug_assertions))]
#[test]
fn accumulated_vector_of_1_000_000() {
    assert_eq!(
        accumulated(1_000_000),
        "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
    );
}
