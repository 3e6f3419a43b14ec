//! Refreshing ahead of need.

use super::process::{FakeProcess, REFRESH_WAIT, SECOND, TTL, check, data_key, open, seal};
use crate::keyring::Keyring;
use crate::shared::history::Change;
use crate::tenant::DataKeyState;
use cmk_crypto::locked::erase_overdue;
use cmk_error::{KeyState, Reason};

fn young_tenant() -> (Keyring, FakeProcess, Vec<u8>) {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.soft_ttl.set(200 * SECOND);
    let sealed = seal(&keyring, &process, "acme").unwrap();
    (keyring, process, sealed)
}

#[test]
fn from_the_soft_ttl_on_a_data_key_is_fetched_ahead_of_need() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(179);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 1);
    process.pass(42);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
    process.pass(170);
    process.outage.set(Some(Reason::KmsTimeout));
    open(&keyring, &process, "acme", &sealed).unwrap();
}

#[test]
fn an_outage_met_by_a_refresh_is_logged_once_and_serves_until_the_hard_ttl() {
    let (keyring, process, sealed) = young_tenant();
    process.outage.set(Some(Reason::KmsUnreachable));
    for _ in 0..TTL - 1 {
        process.pass(1);
        open(&keyring, &process, "acme", &sealed).unwrap();
    }
    let refreshes = process.calls.get() - 1;
    assert!((3..=30).contains(&refreshes), "{refreshes}");
    process.pass(1);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::KmsUnreachable));
    let outage = Change {
        from: Some(KeyState::Usable),
        to: Some(KeyState::Unreachable),
        other_reason: false,
    };
    assert_eq!(*process.logged.borrow(), [outage]);
}

#[test]
fn a_refresh_that_finds_the_key_revoked_purges_at_once() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(221);
    process.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::KeyDisabled));
    assert!(keyring.cache().is_empty());
}

#[test]
fn a_slow_refresh_says_nothing_about_the_key() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(221);
    process.outage.set(Some(Reason::KmsTimeout));
    let takes = |process: &FakeProcess| process.now.set(process.now.get() + REFRESH_WAIT);
    *process.during_call.borrow_mut() = Some(Box::new(takes));
    for _ in 0..100 {
        open(&keyring, &process, "acme", &sealed).unwrap();
    }
    assert_eq!(process.calls.get(), 2);
    assert!(process.logged.borrow().is_empty());
    process.change("acme", |tenant| tenant.data_keys.push(data_key("acme", 2)));
    process.change("acme", |tenant| tenant.data_keys[0].state = DataKeyState::Retired);
    process.outage.set(None);
    seal(&keyring, &process, "acme").unwrap();
}

#[test]
fn a_timeout_of_kms_itself_is_an_outage_although_a_refresh_met_it() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(221);
    process.outage.set(Some(Reason::KmsTimeout));
    // The provider gave up sooner than the query would have.
    let takes = |process: &FakeProcess| process.now.set(process.now.get() + REFRESH_WAIT - 1);
    *process.during_call.borrow_mut() = Some(Box::new(takes));
    open(&keyring, &process, "acme", &sealed).unwrap();
    let logged: Vec<_> = process.logged.borrow().iter().map(|change| change.to).collect();
    assert_eq!(logged, [Some(KeyState::Unreachable)]);
}

/// Well past the soft TTL, whatever the jitter.
const OLD: u64 = 221;

#[test]
fn a_younger_copy_of_another_process_spares_a_call() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    process.soft_ttl.set(200 * SECOND);
    let (first, second) = (Keyring::new(), Keyring::new());
    let sealed = seal(&first, &process, "acme").unwrap();
    open(&second, &process, "acme", &sealed).unwrap();
    process.pass(OLD);
    // The copy in the memory of all is as old as its own: KMS is asked.
    open(&first, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
    let until = process.now.get() + TTL * SECOND;
    process.be(2);
    open(&second, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
    // And it lives as long as the younger one.
    process.outage.set(Some(Reason::KmsTimeout));
    erase_overdue(until - 1);
    process.now.set(until - 1);
    open(&second, &process, "acme", &sealed).unwrap();
    assert_eq!(second.stats().misses.value(), 1, "it was erased too early");
    process.pass(1);
    assert_eq!(open(&second, &process, "acme", &sealed), Err(Reason::KmsTimeout));
}

#[test]
fn a_data_key_that_was_refreshed_is_erased_later() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(OLD);
    open(&keyring, &process, "acme", &sealed).unwrap();
    let deadline = process.now.get() + TTL * SECOND;
    assert_eq!(process.erasures.borrow().last(), Some(&deadline));
    erase_overdue(deadline - 1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
    erase_overdue(deadline);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn a_refresh_waits_no_longer_than_its_query_would_and_a_fetch_as_long_as_it_takes() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(OLD);
    open(&keyring, &process, "acme", &sealed).unwrap();
    let limit = Some(std::time::Duration::from_nanos(REFRESH_WAIT));
    assert_eq!(*process.limits.borrow(), [None, limit]);
}

#[test]
fn after_a_slow_refresh_nobody_tries_for_a_while() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(OLD);
    process.outage.set(Some(Reason::KmsTimeout));
    let takes = |process: &FakeProcess| process.now.set(process.now.get() + REFRESH_WAIT);
    *process.during_call.borrow_mut() = Some(Box::new(takes));
    for _ in 0..29 {
        open(&keyring, &process, "acme", &sealed).unwrap();
        process.now.set(process.now.get() + SECOND / 10);
    }
    assert_eq!(process.calls.get(), 2);
    process.outage.set(None);
    process.pass(3);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn a_failed_refresh_costs_the_rows_that_follow_nothing() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(OLD);
    process.outage.set(Some(Reason::KmsTimeout));
    open(&keyring, &process, "acme", &sealed).unwrap();
    let looks = process.looks.get();
    for _ in 0..100 {
        open(&keyring, &process, "acme", &sealed).unwrap();
    }
    assert_eq!(process.looks.get(), looks, "rows stand in line for the lock of all processes");
    process.now.set(process.now.get() + SECOND / 10 - 1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.looks.get(), looks);
    process.now.set(process.now.get() + 1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.looks.get(), looks + 1);
}

#[test]
fn a_slow_answer_that_is_no_timeout_is_an_outage() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(OLD);
    process.outage.set(Some(Reason::KmsUnreachable));
    let takes = |process: &FakeProcess| process.now.set(process.now.get() + REFRESH_WAIT);
    *process.during_call.borrow_mut() = Some(Box::new(takes));
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.logged.borrow().len(), 1);
}

#[test]
fn each_data_key_is_refreshed_for_itself() {
    let (keyring, process, old) = young_tenant();
    process.pass(100);
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    let new = seal(&keyring, &process, "acme").unwrap();
    let unwrapped_at = |version| {
        let entry = keyring.cache().get("acme").unwrap();
        let key = entry.keys.iter().find(|key| key.version == version).unwrap();
        key.unwrapped_at.value()
    };
    let (first, second) = (unwrapped_at(1), unwrapped_at(2));
    process.pass(OLD - 100);
    open(&keyring, &process, "acme", &old).unwrap();
    assert_eq!((unwrapped_at(1), unwrapped_at(2)), (process.now.get(), second));
    assert_eq!(first + OLD * SECOND, process.now.get());
    open(&keyring, &process, "acme", &new).unwrap();
    assert_eq!((process.calls.get(), unwrapped_at(2)), (3, second));
}

#[test]
fn a_refresh_that_gets_another_key_back_leaves_the_good_one_alone() {
    let (keyring, process, sealed) = young_tenant();
    process.pass(OLD);
    process.change("acme", |tenant| {
        tenant.data_keys[0].wrapped = data_key("acme", 9).wrapped;
    });
    open(&keyring, &process, "acme", &sealed).unwrap();
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
    // It isn't refreshed by what is wrong, so it ends when it had to anyway.
    process.pass(TTL - OLD);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::CommitmentMismatch));
}

/// How long a far Region takes: longer than a query may wait.
const FAR: u64 = SECOND * 15 / 100;

fn takes_long(process: &FakeProcess) {
    let takes = |process: &FakeProcess| process.now.set(process.now.get() + FAR);
    *process.during_call.borrow_mut() = Some(Box::new(takes));
}

#[test]
fn where_kms_is_far_no_query_asks_it_ahead_of_need() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]).sharing(4));
    process.soft_ttl.set(200 * SECOND);
    takes_long(&process);
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.pass(OLD);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!((process.calls.get(), process.handed_over.get()), (1, 1));
    assert_eq!(*process.short_waits.borrow(), [(FAR, true)]);
    // The renewer does, and within a tenth of a second its work is taken up.
    takes_long(&process);
    let began = process.now.get();
    assert!(check(&Keyring::new(), &process, &process.registered("acme")));
    process.now.set(began + SECOND / 10 + FAR);
    open(&keyring, &process, "acme", &sealed).unwrap();
    let entry = keyring.cache().get("acme").unwrap();
    assert_eq!(entry.keys[0].unwrapped_at.value(), began);
    assert_eq!((process.calls.get(), process.handed_over.get()), (2, 1));
}

#[test]
fn without_a_renewer_one_query_waits_as_long_as_kms_takes_and_the_log_says_so() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.soft_ttl.set(200 * SECOND);
    takes_long(&process);
    let sealed = seal(&keyring, &process, "acme").unwrap();
    for calls in 2..5 {
        process.pass(OLD);
        takes_long(&process);
        open(&keyring, &process, "acme", &sealed).unwrap();
        assert_eq!(process.calls.get(), calls, "one call for each time it is due");
    }
    assert_eq!(process.handed_over.get(), 0);
    assert_eq!(*process.short_waits.borrow(), [(FAR, false); 3]);
    let limits: Vec<_> = process.limits.borrow().iter().flatten().map(|it| it.as_nanos()).collect();
    assert_eq!(limits, [u128::from(FAR) * 2; 3]);
}
