//! What holds before the registry says so.

use super::process::{FakeProcess, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use crate::shared::brake::{self, Brake};
use crate::tenant::{Grant, Right};
use cmk_error::Reason;

impl FakeProcess {
    /// Another process pulls it, in its transaction.
    fn pull(&self, brake: Brake) {
        brake::pull(&mut *self.brakes.borrow_mut(), &self.counters, brake.by(2, 1));
    }

    fn lift(&self) {
        brake::lift(&mut *self.brakes.borrow_mut(), &self.counters, 2, 1);
    }
}

fn reason_of_seal(keyring: &Keyring, process: &FakeProcess, tenant: &str) -> Option<Reason> {
    seal(keyring, process, tenant).err().map(|error| error.reason)
}

#[test]
fn a_suspension_holds_before_the_registry_says_so_and_for_its_tenant_only() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    seal(&keyring, &process, "globex").unwrap();
    process.pull(Brake::suspension(process.database(), process.tenant_id("acme")));
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::TenantSuspended));
    assert_eq!(reason_of_seal(&keyring, &process, "globex"), None);
    // The transaction is undone.
    process.lift();
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.tenant_reads.get(), 2, "the registry may be locked and must not be read");
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn a_grant_that_is_taken_back_is_asked_for_again_until_it_is_settled() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    seal(&keyring, &process, "acme").unwrap();
    let (database, tenant) = (process.database(), process.tenant_id("acme"));
    process.pull(Brake::revocation(database, Some(tenant), 10, (true, false)));
    process.grant.set(Grant { encrypt: Right::Never, decrypt: Right::Always });
    assert_eq!(reason_of_seal(&keyring, &process, "acme"), Some(Reason::NoGrant));
    process.lift();
    process.grant.set(Grant { encrypt: Right::Always, decrypt: Right::Always });
    assert_eq!(reason_of_seal(&keyring, &process, "acme"), None);
    assert_eq!(process.grant_reads.get(), 3);
    // Other news are no reason to ask for grants again.
    process.counters.notify_all();
    assert_eq!(reason_of_seal(&keyring, &process, "acme"), None);
    assert_eq!(process.grant_reads.get(), 3);
}

#[test]
fn what_was_unwrapped_before_an_eviction_is_not_used() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    let other = seal(&keyring, &process, "globex").unwrap();
    // In the same nanosecond.
    let (id, now) = (process.tenant_id("acme"), process.now());
    process.server_memory(|shared| shared.evict(&id, now));
    process.pass(1);
    open(&keyring, &process, "acme", &sealed).unwrap();
    open(&keyring, &process, "globex", &other).unwrap();
    assert_eq!((process.calls.get(), process.tenant_reads.get()), (3, 2));
}

#[test]
fn news_end_what_is_remembered_of_the_key_and_not_of_a_tampered_row() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    process.change("globex", |tenant| tenant.data_keys[0].wrapped = Some([1; 32].into()));
    process.outage.set(Some(Reason::Credentials));
    assert_eq!(reason_of_seal(&keyring, &process, "acme"), Some(Reason::Credentials));
    process.outage.set(None);
    assert_eq!(reason_of_seal(&keyring, &process, "globex"), Some(Reason::CommitmentMismatch));
    process.counters.notify_all();
    assert_eq!(reason_of_seal(&keyring, &process, "acme"), None);
    assert_eq!(reason_of_seal(&keyring, &process, "globex"), Some(Reason::CommitmentMismatch));
    assert_eq!(process.calls.get(), 3);
}
