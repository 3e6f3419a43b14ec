//! Yardsticks for `make bench`; compiled with the feature `bench` only.

use crate::pg::report::{IntoSql, SqlResult};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use cmk_crypto::aead::Cipher;
use cmk_crypto::key::SecretKey;
use cmk_keyring::cache::Counter;
use pgrx::pg_extern;
use std::hint::black_box;
use std::time::Instant;

/// What any pgrx function over `bytea` costs before it does anything.
#[pg_extern(schema = "cmk", immutable, strict, parallel_safe)]
fn bench_identity(value: &[u8]) -> &[u8] {
    value
}

/// As long as what an ordinary value is bound to.
const AAD: &[u8] = &[7; 48];

/// Nanoseconds a call of the bare cipher on `bytes` bytes already in memory, each under a message
/// key of its own. In a row, a processor begins with one before it is done with the one before it;
/// `one_by_one`, each takes something of the one before it, as if there were a database in between.
#[pg_extern(schema = "cmk", volatile, strict, parallel_unsafe)]
fn bench_cipher(bytes: i32, calls: i32, one_by_one: bool) -> SqlResult<f64> {
    let cipher = Cipher::new(&SecretKey::generate().into_sql()?);
    let plaintext = vec![7; bytes.unsigned_abs() as usize];
    let (mut out, mut nonce) = (plaintext.clone(), [0; 24]);
    Ok(best(calls, |i| {
        nonce[..4].copy_from_slice(&i.to_ne_bytes());
        let tag = black_box(cipher.seal(&nonce, AAD, black_box(&plaintext), &mut out));
        if let (true, Ok([.., last])) = (one_by_one, &tag) {
            nonce[4] = *last;
        }
        tag.is_ok()
    }))
}

/// The same of one message key for all of them, which is at hand.
#[pg_extern(schema = "cmk", volatile, strict, parallel_unsafe)]
fn bench_cipher_at_hand(bytes: i32, calls: i32, one_by_one: bool) -> f64 {
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let plaintext = vec![7; bytes.unsigned_abs() as usize];
    let (mut out, mut nonce) = (plaintext.clone(), [0; 12]);
    best(calls, |i| {
        nonce[..4].copy_from_slice(&i.to_ne_bytes());
        let Ok(buffer) = InOutBuf::new(black_box(&plaintext), &mut out) else { return false };
        let tag = black_box(cipher.encrypt_inout_detached(&nonce.into(), AAD, buffer));
        if let (true, Ok(tag)) = (one_by_one, &tag) {
            nonce[4] = tag[15];
        }
        tag.is_ok()
    })
}

/// Nanoseconds that counting a sealed value takes.
#[pg_extern(schema = "cmk", volatile, strict, parallel_unsafe)]
fn bench_count(calls: i32) -> f64 {
    let counter = Counter::default();
    best(calls, |_| {
        black_box(&counter).add(1);
        true
    })
}

/// Nanoseconds a call, the best of 5 runs; not a number if one fails.
fn best(calls: i32, mut call: impl FnMut(i32) -> bool) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        if !(0..calls).all(&mut call) {
            return f64::NAN;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}
