//! What is learned of another key than the registered one: options that are tried, options that
//! were.

use super::process::{FakeProcess, SECOND, TTL, check, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use crate::tenant::Tenant;
use cmk_error::Reason;
use cmk_kms::CustomerKey;
use std::rc::Rc;

fn other_key() -> CustomerKey {
    CustomerKey::parse("local:other", "{}", 77).unwrap()
}

/// As an administrator commits it.
fn alter(tenant: &mut Tenant) {
    (tenant.customer_key, tenant.epoch) = (other_key(), 77);
}

#[test]
fn a_key_that_is_tried_in_vain_takes_nothing_from_anybody() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (user, administrator) = (Keyring::new(), Keyring::new());
    let sealed = seal(&user, &process, "acme").unwrap();
    process.pass(10);
    process.be(2);
    process.outage.set(Some(Reason::KeyAccessDenied));
    let registered = process.registered("acme");
    let proven = administrator.prove_key(&process, &registered, &other_key());
    assert_eq!(proven.unwrap_err().reason, Reason::KeyAccessDenied);
    // Meanwhile the registered key has an outage: what was unwrapped serves on.
    process.outage.set(Some(Reason::KmsTimeout));
    process.be(1);
    assert_eq!(open(&user, &process, "acme", &sealed).unwrap(), b"value");
    assert_eq!(process.counters.notices(), 0);
    assert!(process.logged.borrow().is_empty());
}

#[test]
fn a_key_that_is_tried_keeps_to_the_budget_of_the_registered_one() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    process.budget.set(3);
    let (keyring, registered) = (Keyring::new(), process.registered("acme"));
    let tries = (0..50).map(|_| keyring.prove_key(&process, &registered, &other_key()));
    assert_eq!(tries.filter(Result::is_ok).count(), 3);
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn a_revocation_is_not_forgotten_with_the_key_it_was_of() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (warm, finder, other) = (Keyring::new(), Keyring::new(), Keyring::new());
    let sealed = seal(&warm, &process, "acme").unwrap();
    process.pass(1);
    process.be(2);
    process.outage.set(Some(Reason::KeyDisabled));
    assert!(check(&finder, &process, &process.registered("acme")));
    // Somebody comes with another key, as after a change that the first ones haven't seen.
    process.be(3);
    process.outage.set(None);
    let mut altered = process.registered("acme");
    alter(&mut altered);
    assert!(check(&other, &process, &altered));
    process.outage.set(Some(Reason::KeyDisabled));
    process.be(1);
    process.pass(TTL - 2);
    assert_eq!(open(&warm, &process, "acme", &sealed), Err(Reason::KeyDisabled));
}

#[test]
fn a_late_refusal_of_the_old_key_takes_nothing_from_the_new_one() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (slow, user) = (Keyring::new(), Rc::new(Keyring::new()));
    let quick = user.clone();
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        process.change("acme", alter);
        process.be(2);
        seal(&quick, process, "acme").unwrap();
        // The owner closes the old way in.
        process.outage.set(Some(Reason::KeyAccessDenied));
        process.be(1);
        *process.during_wait.borrow_mut() = None;
    }));
    // The slow query looks again, and takes what the other process has under the new key.
    seal(&slow, &process, "acme").unwrap();
    process.be(2);
    process.outage.set(Some(Reason::KmsTimeout));
    seal(&user, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn a_copy_of_a_call_that_was_overtaken_by_another_key_is_known_of() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let began = process.now();
    *process.during_call.borrow_mut() = Some(Box::new(|process| {
        let mut altered = process.registered("acme");
        alter(&mut altered);
        process.be(2);
        check(&Keyring::new(), process, &altered);
        process.be(1);
    }));
    seal(&Keyring::new(), &process, "acme").unwrap();
    let id = process.tenant_id("acme");
    let until = process.server_memory(|shared| shared.find(&id).map(|(_, of)| of.copies_until));
    assert!(until >= Some(began + TTL * SECOND));
}
