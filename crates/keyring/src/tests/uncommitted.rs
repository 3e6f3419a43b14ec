//! A process whose transaction changed the registry: what it learns is nobody else's, but for what
//! takes something away.

use super::process::{FakeProcess, SECOND, TTL, check, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use cmk_error::Reason;

fn uncommitted() -> (Keyring, FakeProcess) {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]).sharing(4));
    process.uncommitted.set(true);
    (keyring, process)
}

#[test]
fn what_it_unwraps_serves_nobody_else() {
    let (keyring, process) = uncommitted();
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.uncommitted.set(false);
    process.be(2);
    open(&Keyring::new(), &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn its_copies_are_known_to_all() {
    let (keyring, process) = uncommitted();
    let deadline = process.now() + TTL * SECOND;
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.counters.forgotten_copies_until(), deadline);
    // A copy that is taken from the others is counted there.
    let (keyring, process) = {
        drop((keyring, process));
        (Keyring::new(), FakeProcess::new(&["acme"]).sharing(4))
    };
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.counters.forgotten_copies_until(), 0);
    assert_eq!(process.record("acme").copies_until, deadline);
}

#[test]
fn a_refresh_of_its_copies_is_known_to_all_too() {
    let (keyring, process) = uncommitted();
    process.soft_ttl.set(200 * SECOND);
    seal(&keyring, &process, "acme").unwrap();
    process.pass(221);
    let deadline = process.now() + TTL * SECOND;
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2);
    assert_eq!(process.counters.forgotten_copies_until(), deadline);
}

#[test]
fn a_refusal_that_it_meets_is_everybodys_business() {
    let (keyring, process) = uncommitted();
    process.uncommitted.set(false);
    let (other, sealed) = (Keyring::new(), seal(&keyring, &process, "acme").unwrap());
    open(&other, &process, "acme", &sealed).unwrap();
    process.pass(1);
    process.uncommitted.set(true);
    process.outage.set(Some(Reason::KeyDisabled));
    let tenant = process.registered("acme");
    assert!(check(&keyring, &process, &tenant));
    process.uncommitted.set(false);
    process.be(2);
    // Nobody uses what was unwrapped before.
    assert_eq!(open(&other, &process, "acme", &sealed), Err(Reason::KeyDisabled));
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn an_outage_that_it_meets_is_not() {
    let (keyring, process) = uncommitted();
    process.uncommitted.set(false);
    let (other, sealed) = (Keyring::new(), seal(&keyring, &process, "acme").unwrap());
    open(&other, &process, "acme", &sealed).unwrap();
    process.pass(1);
    process.uncommitted.set(true);
    process.outage.set(Some(Reason::KmsTimeout));
    assert!(check(&keyring, &process, &process.registered("acme")));
    process.uncommitted.set(false);
    open(&other, &process, "acme", &sealed).unwrap();
    let id = process.tenant_id("acme");
    assert_eq!(process.server_memory(|shared| shared.revoked_at(&id)), 0);
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn a_refusal_that_everybody_meets_anyway_is_told_once() {
    let (keyring, process) = uncommitted();
    process.uncommitted.set(false);
    process.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&keyring, &process, "acme").is_err());
    assert_eq!(process.counters.notices(), 1);
}

#[test]
fn its_call_is_not_one_that_others_could_end() {
    let (keyring, process) = uncommitted();
    *process.during_call.borrow_mut() =
        Some(Box::new(|process| assert!(process.open_call.get().is_none())));
    seal(&keyring, &process, "acme").unwrap();
    assert!(process.during_call.borrow().is_none());
}
