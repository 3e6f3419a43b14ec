mod brakes;
mod calls;
mod fetch;
mod index_keys;
pub(crate) mod other_key;
pub mod process;
mod processes;
mod refresh;
mod registry;
mod roles;
mod statistics;
mod uncommitted;

use crate::keyring::Keyring;
use crate::tenant::*;
use cmk_crypto::locked::erase_overdue;
use cmk_error::Reason;
use process::{FakeProcess, SECOND, TTL, data_key, open, seal};

#[test]
fn one_call_serves_until_the_hard_ttl_and_not_a_nanosecond_longer() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.outage.set(Some(Reason::KmsTimeout));
    process.now.set(process.now.get() + TTL * SECOND - 1);
    assert_eq!(open(&keyring, &process, "acme", &sealed).unwrap(), b"value");
    assert_eq!(process.calls.get(), 1);
    process.now.set(process.now.get() + 1);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::KmsTimeout));
}

#[test]
fn opening_goes_by_the_last_tick_sealing_does_not() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.pass(TTL);
    process.since_tick.set(1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 1);
    // Erased, it doesn't come back, whatever time it is taken for.
    erase_overdue(process.now.get());
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
    process.pass(TTL);
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn the_ttl_counts_from_the_start_of_the_unwrap() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    *process.during_call.borrow_mut() = Some(Box::new(|process| process.pass(TTL - 1)));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.pass(1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn an_answer_that_took_longer_than_the_ttl_is_not_used() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    *process.during_call.borrow_mut() = Some(Box::new(|process| process.pass(TTL)));
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::KmsTimeout);
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn a_revoked_key_purges_every_data_key_of_its_tenant_only() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let old = seal(&keyring, &process, "acme").unwrap();
    let other = seal(&keyring, &process, "globex").unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    process.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::KeyDisabled);
    assert_eq!(open(&keyring, &process, "acme", &old), Err(Reason::KeyDisabled));
    open(&keyring, &process, "globex", &other).unwrap();
}

#[test]
fn an_unreachable_kms_leaves_cached_keys_alone() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let old = seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    process.outage.set(Some(Reason::KmsUnreachable));
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::KmsUnreachable);
    open(&keyring, &process, "acme", &old).unwrap();
}

#[test]
fn a_failure_is_remembered_for_a_while() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.outage.set(Some(Reason::KeyAccessDenied));
    for _ in 0..10 {
        assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::KeyAccessDenied);
    }
    assert_eq!(process.calls.get(), 1);
    process.outage.set(None);
    process.pass(6);
    seal(&keyring, &process, "acme").unwrap();
}

#[test]
fn a_tampered_row_fails_alone_and_is_asked_for_once() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let good = seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        let mut bad = data_key("acme", 2);
        bad.wrapped = data_key("acme", 3).wrapped;
        tenant.data_keys.push(bad);
    });
    for _ in 0..3 {
        assert_eq!(
            seal(&keyring, &process, "acme").unwrap_err().reason,
            Reason::CommitmentMismatch
        );
    }
    assert_eq!(process.calls.get(), 2);
    open(&keyring, &process, "acme", &good).unwrap();
}

#[test]
fn an_eviction_forgets_keys_and_failures() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |tenant| tenant.epoch += 1);
    process.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&keyring, &process, "acme").is_err());
    process.outage.set(None);
    process.pass(1);
    process.change("acme", |tenant| tenant.epoch += 1);
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn a_change_during_the_unwrap_is_seen_before_the_key_is_used() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    *process.during_call.borrow_mut() = Some(Box::new(|process| {
        process.change("acme", |tenant| tenant.state = TenantState::Suspended);
    }));
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::TenantSuspended);
}

#[test]
fn permission_is_checked_on_cache_hits_and_without_a_call() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.grant.set(Grant { encrypt: Right::Always, decrypt: Right::Never });
    process.change("acme", |_| {});
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn never_holds_more_than_its_capacity() {
    let names: Vec<_> = (0..50).map(|i| format!("tenant-{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&names));
    for name in &names {
        process.pass(1);
        seal(&keyring, &process, name).unwrap();
        assert!(keyring.cache().len() <= process.capacity);
    }
    assert_eq!(keyring.cache().dropped_for_room(), 40);
    // The last ones are the ones still there.
    for name in &names[40..] {
        seal(&keyring, &process, name).unwrap();
    }
    assert_eq!(process.calls.get(), 50);
}

#[test]
fn another_tenants_value_is_refused_without_a_call() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    assert_eq!(open(&keyring, &process, "globex", &sealed), Err(Reason::UnknownDataKey));
    assert_eq!(open(&keyring, &process, "nobody", &sealed), Err(Reason::UnknownTenant));
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn warming_fetches_every_version() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    assert_eq!(keyring.warm(&process, "acme").unwrap(), 2);
    assert_eq!((keyring.cache().len(), process.calls.get()), (2, 2));
    assert_eq!(keyring.warm(&process, "nobody").unwrap_err().reason, Reason::UnknownTenant);
    process.grant.set(Grant::default());
    process.change("acme", |_| {});
    assert_eq!(keyring.warm(&process, "acme").unwrap_err().reason, Reason::NoGrant);
}

#[test]
fn a_spent_budget_refuses_calls_but_not_what_is_cached() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    process.budget.set(3);
    let mut sealed = Vec::new();
    for _ in 0..3 {
        sealed = seal(&keyring, &process, "acme").unwrap();
        process.change("acme", |tenant| tenant.epoch += 1);
    }
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::CallBudgetSpent);
    seal(&keyring, &process, "globex").unwrap();
    process.pass(20);
    open(&keyring, &process, "acme", &sealed).unwrap();
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 5);
}

#[test]
fn the_circuit_breaker_stretches_the_pauses_of_an_outage() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.outage.set(Some(Reason::KmsTimeout));
    for _ in 0..600 {
        process.pass(1);
        assert!(seal(&keyring, &process, "acme").is_err());
    }
    // 3 pauses of 4 s, then 8, 16 and 32 s for ever, each ± 25 %.
    assert!((15..=30).contains(&process.calls.get()), "{}", process.calls.get());
}
