//! Which library is ahead at which length, where each value has a key of its own. `seal` and `open`
//! are ours, which choose; the others are what they choose from, without the derivation.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use cmk_crypto::aead::Cipher;
use cmk_crypto::key::{KEY_LEN, SecretKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const LENGTHS: [usize; 11] =
    [64, 256, 512, 640, 768, 896, 1024, 2048, 4096, 16 * 1024, 1024 * 1024];
/// As long as that of an ordinary value.
const AAD: &[u8] = &[7; 48];

fn lengths(criterion: &mut Criterion) {
    let key = SecretKey::generate().expect("the system has random numbers");
    let cipher = Cipher::new(&key);
    let raw = [7; KEY_LEN];
    let mut group = criterion.benchmark_group("a key for each value");
    for length in LENGTHS {
        group.throughput(Throughput::Bytes(length as u64));
        let (plaintext, mut out) = (vec![7; length], vec![0; length]);
        let id = |name| BenchmarkId::new(name, length);

        group.bench_function(id("seal"), |bench| {
            bench.iter(|| cipher.seal(&[7; 24], AAD, black_box(&plaintext), &mut out));
        });
        let mut sealed = vec![0; length];
        let tag = cipher.seal(&[7; 24], AAD, &plaintext, &mut sealed).expect("the room is right");
        group.bench_function(id("open"), |bench| {
            bench.iter(|| cipher.open(&[7; 24], AAD, black_box(&sealed), &tag, &mut out));
        });
        group.bench_function(id("aes-gcm, seal"), |bench| {
            bench.iter(|| {
                let cipher = aes_gcm::Aes256Gcm::new(black_box(&raw).into());
                let buffer = InOutBuf::new(black_box(&plaintext), &mut out).expect("equal lengths");
                cipher.encrypt_inout_detached(&[7; 12].into(), AAD, buffer)
            });
        });
        group.bench_function(id("aws-lc, seal"), |bench| {
            bench.iter(|| {
                let key = UnboundKey::new(&AES_256_GCM, black_box(&raw)).expect("32 bytes");
                let (nonce, mut tag) = (Nonce::assume_unique_for_key([7; 12]), [0; 16]);
                let (plaintext, aad) = (black_box(&plaintext), Aad::from(AAD));
                LessSafeKey::new(key)
                    .seal_out_of_place_scatter(nonce, aad, plaintext, &mut out, &[], &mut tag)
                    .map(|()| tag)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lengths);
criterion_main!(benches);
