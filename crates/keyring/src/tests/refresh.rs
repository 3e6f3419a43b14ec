//! Refreshing ahead of need.

use super::process::{FakeProcess, REFRESH_WAIT, SECOND, TTL, data_key, open, seal};
use crate::keyring::Keyring;
use crate::shared::history::Change;
use crate::tenant::DataKeyState;
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
