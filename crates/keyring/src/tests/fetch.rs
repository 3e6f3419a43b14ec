//! How a data key is fetched, and what is remembered if it can't be.

use super::process::{FakeProcess, SECOND, TTL, data_key, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use crate::tenant::DataKeyState;
use cmk_crypto::locked::erase_overdue;
use cmk_error::Reason;

/// The tenant is evicted during the next call, and during `more` that follow.
fn evict_during_calls(process: &FakeProcess, more: u32) {
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        let (id, now) = (process.tenant_id("acme"), process.now());
        process.server_memory(|shared| shared.evict(&id, now));
        process.pass(1);
        if more > 0 {
            evict_during_calls(process, more - 1);
        }
    }));
}

#[test]
fn what_an_eviction_overtook_is_asked_for_again_for_a_while() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    evict_during_calls(&process, 0);
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2);
    process.change("acme", |tenant| tenant.epoch += 1);
    evict_during_calls(&process, 100);
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::TenantBusy);
    // Each takes a second of the six that a call may take.
    assert_eq!(process.calls.get(), 8, "evictions in a row must not keep a query for ever");
}

#[test]
fn a_data_key_is_erased_at_the_end_of_its_ttl_whoever_sleeps() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let began = process.now();
    *process.during_call.borrow_mut() = Some(Box::new(|process| process.pass(3)));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    let deadline = began + TTL * SECOND;
    assert!(process.erasures.borrow().iter().all(|at| *at == deadline));
    assert!(!process.erasures.borrow().is_empty());
    erase_overdue(deadline - 1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 1);
    erase_overdue(deadline);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2, "an erased data key was used");
}

#[test]
fn a_process_without_credentials_asks_seldom_and_holds_up_no_other() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (poor, rich) = (Keyring::new(), Keyring::new());
    process.outage.set(Some(Reason::Credentials));
    for _ in 0..10 {
        assert_eq!(seal(&poor, &process, "acme").unwrap_err().reason, Reason::Credentials);
    }
    assert_eq!(process.calls.get(), 1);
    process.pass(6);
    assert!(seal(&poor, &process, "acme").is_err());
    assert_eq!(process.calls.get(), 2);
    process.outage.set(None);
    process.be(2);
    seal(&rich, &process, "acme").unwrap();
    // And what it found serves the other too.
    process.be(1);
    seal(&poor, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn how_long_an_outage_is_remembered_is_up_to_all_processes() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.outage.set(Some(Reason::KmsTimeout));
    let remembered = || {
        let entry = keyring.cache().get("acme").unwrap();
        entry.failures.iter().map(|failure| failure.until).collect::<Vec<_>>()
    };
    assert!(seal(&keyring, &process, "acme").is_err());
    assert!(remembered().is_empty(), "its own pause would be another than that of all");
    assert!(seal(&keyring, &process, "acme").is_err());
    assert_eq!(remembered().len(), 1);
    let looks = process.looks.get();
    assert!(seal(&keyring, &process, "acme").is_err());
    assert_eq!(process.looks.get(), looks, "a dead key is not asked for once a row");
}

#[test]
fn one_data_key_that_is_damaged_is_no_failure_of_another() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let old = seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        let mut damaged = data_key("acme", 2);
        damaged.wrapped = Some([1].into());
        tenant.data_keys.push(damaged);
    });
    let keyring = Keyring::new();
    for _ in 0..3 {
        assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::KmsAnswerMismatch);
        open(&keyring, &process, "acme", &old).unwrap();
    }
    assert_eq!(process.calls.get(), 3);
    // It is asked for again in the end, for somebody may have mended it.
    process.pass(6);
    assert!(seal(&keyring, &process, "acme").is_err());
    assert_eq!(process.calls.get(), 4);
}

#[test]
fn a_failure_that_another_process_disproved_is_not_reported() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (slow, second) = (Keyring::new(), Keyring::new());
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        process.pass(7);
        process.be(2);
        seal(&second, process, "acme").unwrap();
        process.be(1);
        process.outage.set(Some(Reason::KmsTimeout));
    }));
    seal(&slow, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2);
    assert!(process.logged.borrow().is_empty());
}
