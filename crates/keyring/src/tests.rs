mod host;
mod processes;
mod refresh;

use crate::Keyring;
use crate::tenant::*;
use cmk_error::Reason;
use host::{FakeHost, SECOND, TTL, data_key, open, seal};

#[test]
fn one_call_serves_until_the_hard_ttl_and_not_a_nanosecond_longer() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    host.outage.set(Some(Reason::KmsTimeout));
    host.now.set(host.now.get() + TTL * SECOND - 1);
    assert_eq!(open(&keyring, &host, "acme", &sealed).unwrap(), b"value");
    assert_eq!(host.calls.get(), 1);
    host.now.set(host.now.get() + 1);
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::KmsTimeout));
}

#[test]
fn the_ttl_counts_from_the_start_of_the_unwrap() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    *host.during_call.borrow_mut() = Some(Box::new(|host| host.pass(TTL - 1)));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    host.pass(1);
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn an_answer_that_took_longer_than_the_ttl_is_not_used() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    *host.during_call.borrow_mut() = Some(Box::new(|host| host.pass(TTL)));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KmsTimeout);
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn a_revoked_key_purges_every_data_key_of_its_tenant_only() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme", "globex"]));
    let old = seal(&keyring, &host, "acme").unwrap();
    let other = seal(&keyring, &host, "globex").unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    host.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KeyDisabled);
    assert_eq!(open(&keyring, &host, "acme", &old), Err(Reason::KeyDisabled));
    open(&keyring, &host, "globex", &other).unwrap();
}

#[test]
fn an_unreachable_kms_leaves_cached_keys_alone() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let old = seal(&keyring, &host, "acme").unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    host.outage.set(Some(Reason::KmsUnreachable));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KmsUnreachable);
    open(&keyring, &host, "acme", &old).unwrap();
}

#[test]
fn a_failure_is_remembered_for_a_while() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.outage.set(Some(Reason::KeyAccessDenied));
    for _ in 0..10 {
        assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KeyAccessDenied);
    }
    assert_eq!(host.calls.get(), 1);
    host.outage.set(None);
    host.pass(6);
    seal(&keyring, &host, "acme").unwrap();
}

#[test]
fn a_tampered_row_fails_alone_and_is_asked_for_once() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let good = seal(&keyring, &host, "acme").unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        let mut bad = data_key("acme", 2);
        bad.wrapped = data_key("acme", 3).wrapped;
        tenant.data_keys.push(bad);
    });
    for _ in 0..3 {
        assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::CommitmentMismatch);
    }
    assert_eq!(host.calls.get(), 2);
    open(&keyring, &host, "acme", &good).unwrap();
}

#[test]
fn an_eviction_forgets_keys_and_failures() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    seal(&keyring, &host, "acme").unwrap();
    host.change("acme", |tenant| tenant.epoch += 1);
    host.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&keyring, &host, "acme").is_err());
    host.outage.set(None);
    host.pass(1);
    host.change("acme", |tenant| tenant.epoch += 1);
    seal(&keyring, &host, "acme").unwrap();
    assert_eq!(host.calls.get(), 3);
}

#[test]
fn a_change_during_the_unwrap_is_seen_before_the_key_is_used() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    *host.during_call.borrow_mut() = Some(Box::new(|host| {
        host.change("acme", |tenant| tenant.state = TenantState::Suspended);
    }));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::TenantSuspended);
}

#[test]
fn permission_is_checked_on_cache_hits_and_without_a_call() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    host.permissions.set(Permissions { encrypt: true, decrypt: false });
    host.change("acme", |_| {});
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::NoGrant));
    seal(&keyring, &host, "acme").unwrap();
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn never_holds_more_than_its_capacity() {
    let names: Vec<_> = (0..50).map(|i| format!("tenant-{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (keyring, host) = (Keyring::new(), FakeHost::new(&names));
    for name in &names {
        host.pass(1);
        seal(&keyring, &host, name).unwrap();
        assert!(keyring.cache().len() <= host.capacity);
    }
    assert_eq!(keyring.cache().evictions(), 40);
    // The last ones are the ones still there.
    for name in &names[40..] {
        seal(&keyring, &host, name).unwrap();
    }
    assert_eq!(host.calls.get(), 50);
}

#[test]
fn another_tenants_value_is_refused_without_a_call() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme", "globex"]));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    assert_eq!(open(&keyring, &host, "globex", &sealed), Err(Reason::UnknownDataKey));
    assert_eq!(open(&keyring, &host, "nobody", &sealed), Err(Reason::UnknownTenant));
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn warming_fetches_every_version() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    assert_eq!(keyring.warm(&host, "acme").unwrap(), 2);
    assert_eq!((keyring.cache().len(), host.calls.get()), (2, 2));
    assert_eq!(keyring.warm(&host, "nobody").unwrap_err().reason, Reason::UnknownTenant);
    host.permissions.set(Permissions::default());
    host.change("acme", |_| {});
    assert_eq!(keyring.warm(&host, "acme").unwrap_err().reason, Reason::NoGrant);
}

#[test]
fn a_spent_budget_refuses_calls_but_not_what_is_cached() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme", "globex"]));
    host.budget.set(3);
    let mut sealed = Vec::new();
    for _ in 0..3 {
        sealed = seal(&keyring, &host, "acme").unwrap();
        host.change("acme", |tenant| tenant.epoch += 1);
    }
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::CallBudgetSpent);
    seal(&keyring, &host, "globex").unwrap();
    host.pass(20);
    open(&keyring, &host, "acme", &sealed).unwrap();
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 5);
}

#[test]
fn the_circuit_breaker_stretches_the_pauses_of_an_outage() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.outage.set(Some(Reason::KmsTimeout));
    for _ in 0..600 {
        host.pass(1);
        assert!(seal(&keyring, &host, "acme").is_err());
    }
    // 3 pauses of 4 s, then 8, 16 and 32 s for ever, each ± 25 %.
    assert!((15..=30).contains(&host.calls.get()), "{}", host.calls.get());
}
