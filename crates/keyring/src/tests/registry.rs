//! What the registry says now is what holds.

use super::process::{FakeProcess, data_key, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use crate::tenant::{DataKeyState, TenantState};
use cmk_envelope::Envelope;
use cmk_error::Reason;

#[test]
fn a_tenant_that_is_gone_leaves_no_data_key() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |_| {});
    process.tenants.borrow_mut().clear();
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::UnknownTenant));
    assert!(keyring.cache().is_empty());
    assert_eq!(open(&keyring, &process, "", &sealed), Err(Reason::TenantName));
}

#[test]
fn a_registry_that_never_rests_ends_in_an_error_and_not_in_a_loop() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    process.restless.set(true);
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::TenantBusy);
    assert_eq!((process.tenant_reads.get(), process.calls.get()), (64, 0));
}

#[test]
fn a_change_of_one_tenant_costs_the_others_nothing() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let seal_both = || {
        for name in ["acme", "globex"] {
            seal(&keyring, &process, name).unwrap();
        }
        (process.tenant_reads.get(), process.grant_reads.get(), process.looks.get())
    };
    let (tenants, grants, looks) = seal_both();
    process.change("acme", |_| {});
    assert_eq!(seal_both(), (tenants + 1, grants + 1, looks + 1));
    process.counters.notify(&process.tenant_id("globex"));
    assert_eq!(seal_both(), (tenants + 1, grants + 1, looks + 2));
    // Of what concerns both, each is looked at.
    process.counters.notify_all();
    assert_eq!(seal_both(), (tenants + 1, grants + 1, looks + 4));
    process.generation.set(2);
    assert_eq!(seal_both(), (tenants + 3, grants + 3, looks + 6));
}

#[test]
fn a_retired_data_key_seals_nothing_although_it_is_at_hand() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let old = seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    // Unwrapped when it is retired already.
    let keyring = Keyring::new();
    open(&keyring, &process, "acme", &old).unwrap();
    let new = seal(&keyring, &process, "acme").unwrap();
    let dek_id = |bytes| Envelope::parse(bytes).unwrap().dek_id();
    let [retired, current] =
        [0, 1].map(|at| process.registered("acme").data_keys[at].commitment.dek_id());
    assert_eq!((dek_id(&old), dek_id(&new)), (retired, current));
    assert_eq!(dek_id(&seal(&keyring, &process, "acme").unwrap()), current);
    assert_eq!(process.calls.get(), 3);
}

#[test]
fn a_destroyed_data_key_opens_nothing() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Destroyed;
        tenant.data_keys[0].wrapped = None;
        tenant.data_keys.push(data_key("acme", 2));
    });
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::TenantShredded));
    assert_eq!(keyring.warm(&process, "acme").unwrap(), 1, "it can not be warmed either");
    assert_eq!(keyring.cache().len(), 1);
}

#[test]
fn warming_sees_what_the_registry_says_now() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    assert_eq!(keyring.warm(&process, "acme").unwrap(), 1);
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    assert_eq!(keyring.warm(&process, "acme").unwrap(), 2);
    process.change("acme", |tenant| {
        tenant.state = TenantState::Pending;
        tenant.data_keys.clear();
        tenant.last_version = 0;
    });
    assert_eq!(keyring.warm(&process, "acme").unwrap_err().reason, Reason::TenantPending);
}
