//! Yardsticks for `make bench`; compiled with the feature `bench` only.

use crate::pg::report::{IntoSql, SqlResult};
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

/// Nanoseconds a call of the bare cipher on `bytes` bytes already in memory, the best of 5 runs.
#[pg_extern(schema = "cmk", volatile, strict, parallel_unsafe)]
fn bench_cipher(bytes: i32, calls: i32) -> SqlResult<f64> {
    let cipher = Cipher::new(&SecretKey::generate().into_sql()?);
    let plaintext = vec![7; bytes.unsigned_abs() as usize];
    let mut out = plaintext.clone();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for i in 0..calls {
            let mut nonce = [0; 24];
            nonce[..4].copy_from_slice(&i.to_ne_bytes());
            black_box(cipher.seal(&nonce, b"", black_box(&plaintext), &mut out).into_sql()?);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    Ok(best)
}

/// Nanoseconds that counting a sealed value takes, the best of 5 runs.
#[pg_extern(schema = "cmk", volatile, strict, parallel_unsafe)]
fn bench_count(calls: i32) -> f64 {
    let counter = Counter::default();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(&counter).add(1);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}
