//! What is counted, and how all processes get to know it.

use super::process::{FakeProcess, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use crate::shared::uses::Sealed;
use cmk_error::Reason;

fn counted(keyring: &Keyring) -> [u64; 4] {
    let stats = keyring.stats();
    [&stats.hits, &stats.misses, &stats.kms_calls, &stats.kms_failures].map(|count| count.value())
}

#[test]
fn a_value_that_had_to_wait_for_its_data_key_is_no_hit() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(counted(&keyring), [0, 1, 1, 0]);
    keyring.flush_hits(&process);
    assert_eq!((process.record("acme").stats.hits, process.record("acme").used_at), (0, 0));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(counted(&keyring), [2, 1, 1, 0]);
    assert!(keyring.has_unflushed_hits());
}

#[test]
fn what_is_remembered_of_a_failure_is_neither_miss_nor_call() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.outage.set(Some(Reason::KmsTimeout));
    for _ in 0..10 {
        assert!(seal(&keyring, &process, "acme").is_err());
    }
    // The second one asked what the other processes know.
    assert_eq!(counted(&keyring), [0, 2, 1, 1]);
    let stats = process.record("acme").stats;
    assert_eq!((stats.misses, stats.kms_calls, stats.kms_failures), (2, 1, 1));
}

#[test]
fn hits_reach_all_processes_once() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    for _ in 0..4 {
        seal(&keyring, &process, "acme").unwrap();
    }
    process.pass(7);
    for _ in 0..2 {
        keyring.flush_hits(&process);
        assert!(!keyring.has_unflushed_hits());
        let record = process.record("acme");
        assert_eq!((record.stats.hits, record.used_at), (3, process.now.get()));
    }
    let looks = process.looks.get();
    keyring.flush_hits(&process);
    assert_eq!(process.looks.get(), looks, "there was nothing to say");
}

#[test]
fn hits_wait_until_the_transaction_that_changed_the_registry_is_over() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    for _ in 0..4 {
        seal(&keyring, &process, "acme").unwrap();
    }
    process.uncommitted.set(true);
    keyring.flush_hits(&process);
    assert!(keyring.has_unflushed_hits());
    assert_eq!(process.record("acme").stats.hits, 0);
    process.uncommitted.set(false);
    keyring.flush_hits(&process);
    assert_eq!(process.record("acme").stats.hits, 3);
}

#[test]
fn hits_of_a_data_key_that_was_dropped_are_not_lost() {
    let names: Vec<_> = (0..20).map(|i| format!("tenant-{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&names));
    for name in &names {
        for _ in 0..3 {
            process.pass(1);
            seal(&keyring, &process, name).unwrap();
        }
    }
    keyring.flush_hits(&process);
    let hits = names.iter().map(|name| process.record(name).stats.hits);
    assert_eq!(hits.collect::<Vec<_>>(), [2; 20]);
}

#[test]
fn a_process_that_waits_for_another_is_counted_as_waiting() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (first, second) = (Keyring::new(), Keyring::new());
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        process.be(2);
        // The first one takes too long.
        *process.during_wait.borrow_mut() = Some(Box::new(|process| process.pass(7)));
        seal(&second, process, "acme").unwrap();
        assert_eq!(counted(&second), [0, 1, 1, 0]);
        process.be(1);
    }));
    seal(&first, &process, "acme").unwrap();
    let stats = process.record("acme").stats;
    assert_eq!((stats.misses, stats.waits, stats.kms_calls), (2, 1, 2));
}

#[test]
fn hits_of_dropped_data_keys_are_kept_by_tenant_however_many_there_are() {
    let names: Vec<_> = (0..20).map(|number| format!("t{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let process = FakeProcess::new(&names).sharing(64);
    let keyring = Keyring::new();
    for _ in 0..100 {
        for name in &names {
            process.now.set(process.now.get() + 1);
            seal(&keyring, &process, name).unwrap();
            seal(&keyring, &process, name).unwrap();
        }
    }
    assert!(keyring.cache().dropped_for_room() > 1_000);
    let uses = keyring.cache().take_unflushed_uses();
    assert_eq!(uses.iter().map(|(_, uses)| uses.hits).sum::<u64>(), 20 * 100);
    assert_eq!(uses.iter().map(|(_, uses)| uses.sealed.values).sum::<u64>(), 20 * 200);
    assert!(uses.len() <= 20 + keyring.cache().len());
}

#[test]
fn every_sealed_value_is_counted_for_its_data_key_once() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    for _ in 0..3 {
        open(&keyring, &process, "acme", &sealed).unwrap();
    }
    seal(&keyring, &process, "acme").unwrap();
    keyring.flush_hits(&process);
    seal(&keyring, &process, "acme").unwrap();
    keyring.flush_hits(&process);
    assert!(seal(&keyring, &process, "initech").is_err());
    keyring.flush_hits(&process);
    let id = process.record("acme").id;
    let take = || process.server_memory(|shared| shared.take_sealed(0..100, process.database()));
    let taken = take();
    assert_eq!(taken, [(id, Sealed { values: 3, version: 1 })]);
    assert!(take().is_empty());
    process.server_memory(|shared| shared.give_back_sealed(&id, taken[0].1));
    assert!(process.server_memory(|shared| shared.take_sealed(0..100, 99)).is_empty());
    assert_eq!(take(), taken);
}
