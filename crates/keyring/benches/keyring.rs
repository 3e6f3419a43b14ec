//! What a hit and a miss cost, and the shared table, small and large. `make bench-crates` runs it.
//!
//! A miss, making room, and everything that holds the shared table's lock has to cost about the
//! same at 1,000 entries and at 64,000.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

#[path = "world/process.rs"]
mod process;

use cmk_envelope::{Envelope, OVERHEAD};
use cmk_keyring::keyring::Keyring;
use cmk_keyring::process::Process;
use cmk_keyring::shared::limits::CHUNK;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use process::BenchProcess;

const SIZES: [usize; 2] = [1_000, 64_000];

fn seal(keyring: &Keyring, process: &BenchProcess, tenant: &str, out: &mut [u8]) {
    let plaintext = [7; 64];
    keyring.seal(process, tenant, b"", &plaintext, out).expect("a tenant that works");
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number}")).collect()
}

/// 64 bytes, everything at hand.
fn hits(criterion: &mut Criterion) {
    let process = BenchProcess::new(1, 16, 16);
    let (keyring, mut sealed) = (Keyring::new(), [0; 64 + OVERHEAD]);
    seal(&keyring, &process, "t0", &mut sealed);
    criterion.bench_function("hit/seal", |bench| {
        let mut out = sealed;
        bench.iter(|| seal(&keyring, &process, "t0", &mut out));
    });
    criterion.bench_function("hit/seal, one a statement", |bench| {
        let mut out = sealed;
        bench.iter(|| {
            process.statement.set(process.statement.get() + 1);
            seal(&keyring, &process, "t0", &mut out);
        });
    });
    // Rows that one statement sealed, and rows of as many statements.
    for (name, statements) in [("hit/open", 0), ("hit/open, sealed one a statement", 1)] {
        let mut all = vec![sealed; 64];
        for sealed in &mut all {
            process.statement.set(process.statement.get() + statements);
            seal(&keyring, &process, "t0", sealed);
        }
        criterion.bench_function(name, |bench| {
            let mut turns = all.iter().cycle();
            let mut out = [0; 64];
            bench.iter(|| {
                let sealed = turns.next().expect("without end");
                let envelope = Envelope::parse(sealed).expect("an envelope");
                keyring.open(&process, "t0", b"", &envelope, &mut out).expect("what was sealed");
            });
        });
    }
}

/// Tenants in turn, more than the cache holds: each call is a miss that the shared table answers,
/// and makes room in the cache.
fn misses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("miss, making room");
    for size in SIZES {
        let names = names(size + size / 8);
        // As many places as cmk_encrypt.shared_keyring_size has at most.
        let process = BenchProcess::new(names.len(), 2 * names.len(), size);
        let (keyring, mut out) = (Keyring::new(), [0; 64 + OVERHEAD]);
        for name in &names {
            seal(&keyring, &process, name, &mut out);
        }
        let mut turns = names.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                seal(&keyring, &process, turns.next().expect("without end"), &mut out);
            });
        });
        assert!(keyring.cache().dropped_for_room() > 0);
    }
}

/// What is done under the lock.
fn shared_table(criterion: &mut Criterion) {
    for size in SIZES {
        let names = names(size / 2);
        let process = BenchProcess::new(names.len(), size, names.len());
        let (keyring, mut out) = (Keyring::new(), [0; 64 + OVERHEAD]);
        for name in &names {
            seal(&keyring, &process, name, &mut out);
        }
        let ids: Vec<_> = names.iter().map(|name| process.tenant_id(name)).collect();
        let mut group = criterion.benchmark_group("shared table");
        let mut turns = ids.iter().cycle();
        group.bench_function(BenchmarkId::new("find", size), |bench| {
            bench.iter(|| {
                let id = turns.next().expect("without end");
                process.read_server_memory(|shared| shared.find(id).is_some())
            });
        });
        group.bench_function(BenchmarkId::new("expire a part", size), |bench| {
            bench.iter(|| process.server_memory(|shared| shared.expire(0..CHUNK, 0)));
        });
        group.bench_function(BenchmarkId::new("in use, a part", size), |bench| {
            bench.iter(|| process.read_server_memory(|shared| shared.in_use(0..CHUNK).len()));
        });
        // Last: it leaves nothing behind.
        group.bench_function(BenchmarkId::new("evict a tenant", size), |bench| {
            bench.iter(|| {
                let (id, now) = (turns.next().expect("without end"), process.now());
                process.server_memory(|shared| shared.evict(id, now));
            });
        });
    }
}

criterion_group!(benches, hits, misses, shared_table);
criterion_main!(benches);
