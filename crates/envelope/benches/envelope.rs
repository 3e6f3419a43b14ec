//! What sealing and opening one value costs, without PostgreSQL around it.

#![allow(missing_docs, reason = "criterion makes a public function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::nonce::{Moment, NonceSource};
use cmk_envelope::armor;
use cmk_envelope::column::{self, ColumnBinding, ColumnEnvelope, ColumnTag, TenantTag, Token};
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

fn columns(criterion: &mut Criterion) {
    let key = SecretKey::generate().expect("the system has random numbers");
    let dek_id = Commitment::to(&key, BINDING.tenant).dek_id();
    let cipher = Cipher::new(&key);
    let mut nonces = NonceSource::new();
    let moment = Moment { pid: std::process::id(), now: 0 };

    for token in [None, Some(Token { index_key: [7; 4], value: [7; 16] })] {
        let binding = ColumnBinding {
            tenant: BINDING.tenant,
            tenant_tag: TenantTag::of(BINDING.tenant),
            column: ColumnTag::of(b"users.ssn"),
            token,
        };
        let with = if token.is_some() { "with" } else { "without" };
        let mut group = criterion.benchmark_group(format!("64 bytes of a column, {with} token"));
        let mut plaintext = vec![7; 64];
        let mut sealed = vec![0; plaintext.len() + column::overhead(token.is_some())];
        let mut text = vec![0; armor::encoded_len(sealed.len())];

        group.bench_function("seal", |bencher| {
            bencher.iter(|| {
                let plaintext = black_box(plaintext.as_slice());
                column::seal(&cipher, dek_id, &mut nonces, moment, &binding, plaintext, &mut sealed)
            });
        });
        group.bench_function("open", |bencher| {
            bencher.iter(|| {
                let envelope = ColumnEnvelope::parse(black_box(&sealed))?;
                envelope.open(&cipher, BINDING.tenant, &mut plaintext)
            });
        });
        group.bench_function("header", |bencher| {
            bencher.iter(|| column::header(black_box(&sealed)));
        });
        group.bench_function("armor", |bencher| {
            bencher.iter(|| armor::encode_into(black_box(&sealed), &mut text));
        });
        group.bench_function("unarmor", |bencher| {
            bencher.iter(|| armor::decode_into(black_box(&text), &mut sealed));
        });
        group.finish();
    }
    criterion.bench_function("tenant tag", |bencher| {
        bencher.iter(|| TenantTag::of(black_box(BINDING.tenant)));
    });
}

criterion_group!(benches, envelopes, columns);
criterion_main!(benches);
