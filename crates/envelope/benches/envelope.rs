//! What sealing and opening one value costs, without PostgreSQL around it.

#![allow(missing_docs, reason = "criterion makes a public function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::nonce::{Moment, NonceSource};
use cmk_crypto::run::Fresh;
use cmk_crypto::token::TokenKey;
use cmk_envelope::armor;
use cmk_envelope::column::{
    self, ColumnBinding, ColumnEnvelope, ColumnTag, Normalization, SearchKey, TenantTag, Token,
    TokenRule, Tokens, Which,
};
use cmk_envelope::{Binding, Envelope, OVERHEAD, seal};

/// The aad is as long as an `int8send(id)`.
const BINDING: Binding<'_> = Binding { tenant: b"acme", aad: &[7; 8] };

fn envelopes(criterion: &mut Criterion) {
    let key = SecretKey::generate().expect("the system has random numbers");
    let dek_id = Commitment::to(&key, BINDING.tenant).dek_id();
    let cipher = Cipher::new(&key);
    let mut nonces = NonceSource::new();
    let moment = Moment { pid: std::process::id(), now: 0, statement: 0 };

    for bytes in [64, 1024] {
        let mut group = criterion.benchmark_group(format!("{bytes} bytes"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut plaintext = vec![7; bytes];
        let mut sealed = vec![0; bytes + OVERHEAD];

        group.bench_function("seal", |bencher| {
            bencher.iter(|| {
                let plaintext = black_box(plaintext.as_slice());
                let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment };
                seal(fresh, dek_id, &BINDING, plaintext, &mut sealed)
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
    let moment = Moment { pid: std::process::id(), now: 0, statement: 0 };

    for (number, tokens) in
        [("no", None), ("one", Some(tokens(false))), ("two", Some(tokens(true)))]
    {
        let binding = ColumnBinding {
            tenant: BINDING.tenant,
            tenant_tag: TenantTag::of(BINDING.tenant),
            column: ColumnTag::of(b"users.ssn"),
            tokens,
        };
        let mut group = criterion.benchmark_group(format!("64 bytes of a column, {number} token"));
        let mut plaintext = vec![7; 64];
        let mut sealed = vec![0; plaintext.len() + column::overhead(tokens.as_ref())];
        let mut text = vec![0; armor::encoded_len(sealed.len())];

        group.bench_function("seal", |bencher| {
            bencher.iter(|| {
                let plaintext = black_box(plaintext.as_slice());
                let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment };
                column::seal(fresh, dek_id, &binding, plaintext, &mut sealed)
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

fn tokens(has_next: bool) -> Tokens {
    let token = Token { index_key: [7; 4], value: [7; 16] };
    Tokens { rule: TokenRule::default(), first: token, next: has_next.then_some(token) }
}

fn search(criterion: &mut Criterion) {
    let key = SecretKey::generate().expect("the system has random numbers");
    let token_key = TokenKey::new(&key);
    let ColumnTag(column) = ColumnTag::of(b"users.email");
    let text = b"Firstname.Lastname@example.com";

    let mut group = criterion.benchmark_group("search");
    group.bench_function("token of 30 bytes", |bencher| {
        bencher.iter(|| token_key.token(&column, black_box(text)));
    });
    for by in Normalization::ALL {
        group.bench_function(format!("normalize, {by:?}"), |bencher| {
            bencher.iter(|| by.apply(black_box(text)).map(|normalized| normalized.len()));
        });
    }

    // As a B-tree compares: a probe with what stands in the index.
    let tenant = TenantTag::of(BINDING.tenant);
    let probe = column::probe(tenant, tokens(false).first);
    let binding = ColumnBinding {
        tenant: BINDING.tenant,
        tenant_tag: tenant,
        column: ColumnTag(column),
        tokens: Some(tokens(true)),
    };
    let mut sealed = vec![0; text.len() + column::overhead(binding.tokens.as_ref())];
    let (mut nonces, moment) =
        (NonceSource::new(), Moment { pid: std::process::id(), now: 0, statement: 0 });
    let dek_id = Commitment::to(&key, BINDING.tenant).dek_id();
    let cipher = Cipher::new(&key);
    let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment };
    column::seal(fresh, dek_id, &binding, text, &mut sealed).expect("the room is right");
    group.bench_function("compare two search keys", |bencher| {
        bencher.iter(|| {
            let probe = SearchKey::of(black_box(&probe), Which::First);
            probe.cmp(&SearchKey::of(black_box(&sealed), Which::First))
        });
    });
    group.finish();
}

criterion_group!(benches, envelopes, columns, search);
criterion_main!(benches);
