//! What sealing and opening one value costs, without PostgreSQL around it.

#![allow(missing_docs, reason = "criterion makes a public function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::nonce::{Moment, NonceSource};
use cmk_envelope::{Binding, Envelope, OVERHEAD, seal};

/// The aad is as long as an `int8send(id)`.
const BINDING: Binding<'_> = Binding { tenant: b"acme", aad: &[7; 8] };

fn envelopes(criterion: &mut Criterion) {
    let key = SecretKey::generate().expect("the system has random numbers");
    let dek_id = Commitment::to(&key, BINDING.tenant).dek_id();
    let cipher = Cipher::new(&key);
    let mut nonces = NonceSource::new();
    let moment = Moment { pid: std::process::id(), now: 0 };

    for bytes in [64, 1024] {
        let mut group = criterion.benchmark_group(format!("{bytes} bytes"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut plaintext = vec![7; bytes];
        let mut sealed = vec![0; bytes + OVERHEAD];

        group.bench_function("seal", |bencher| {
            bencher.iter(|| {
                let plaintext = black_box(plaintext.as_slice());
                seal(&cipher, dek_id, &mut nonces, moment, &BINDING, plaintext, &mut sealed)
            });
        });
        group.bench_function("open", |bencher| {
            bencher.iter(|| {
                Envelope::parse(black_box(&sealed))?.open(&cipher, &BINDING, &mut plaintext)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, envelopes);
criterion_main!(benches);
