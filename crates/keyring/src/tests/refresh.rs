//! Refreshing ahead of need.

use super::host::{FakeHost, SECOND, TTL, data_key, open, seal};
use crate::Keyring;
use crate::shared::record::Change;
use crate::tenant::DataKeyState;
use cmk_error::Reason;

fn young_tenant() -> (Keyring, FakeHost, Vec<u8>) {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.soft_ttl.set(200 * SECOND);
    let sealed = seal(&keyring, &host, "acme").unwrap();
    (keyring, host, sealed)
}

#[test]
fn from_the_soft_ttl_on_a_data_key_is_fetched_ahead_of_need() {
    let (keyring, host, sealed) = young_tenant();
    host.pass(179);
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 1);
    host.pass(42);
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 2);
    host.pass(170);
    host.outage.set(Some(Reason::KmsTimeout));
    open(&keyring, &host, "acme", &sealed).unwrap();
}

#[test]
fn an_outage_met_by_a_refresh_is_told_once_and_serves_until_the_hard_ttl() {
    let (keyring, host, sealed) = young_tenant();
    host.outage.set(Some(Reason::KmsUnreachable));
    for _ in 0..TTL - 1 {
        host.pass(1);
        open(&keyring, &host, "acme", &sealed).unwrap();
    }
    let refreshes = host.calls.get() - 1;
    assert!((3..=30).contains(&refreshes), "{refreshes}");
    host.pass(1);
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::KmsUnreachable));
    let outage = Change { from: Some("usable"), to: Some("unreachable"), other_reason: false };
    assert_eq!(*host.told.borrow(), [outage]);
}

#[test]
fn a_refresh_that_finds_the_key_revoked_purges_at_once() {
    let (keyring, host, sealed) = young_tenant();
    host.pass(221);
    host.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::KeyDisabled));
    assert!(keyring.cache().is_empty());
}

#[test]
fn a_slow_refresh_says_nothing_about_the_key() {
    let (keyring, host, sealed) = young_tenant();
    host.pass(221);
    host.outage.set(Some(Reason::KmsTimeout));
    for _ in 0..100 {
        open(&keyring, &host, "acme", &sealed).unwrap();
    }
    assert_eq!(host.calls.get(), 2);
    assert!(host.told.borrow().is_empty());
    host.change("acme", |tenant| tenant.data_keys.push(data_key("acme", 2)));
    host.change("acme", |tenant| tenant.data_keys[0].state = DataKeyState::Retired);
    host.outage.set(None);
    seal(&keyring, &host, "acme").unwrap();
}
