//! Several processes that share what they know.

use super::host::{FakeHost, TTL, data_key, open, seal};
use crate::Keyring;
use crate::tenant::DataKeyState;
use cmk_error::Reason;

#[test]
fn one_unwrap_serves_every_process_within_the_ttl() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let processes: Vec<_> = (0..5).map(|_| Keyring::new()).collect();
    let sealed = seal(&processes[0], &host, "acme").unwrap();
    for (id, keyring) in processes.iter().enumerate() {
        host.be(id as u32 + 1);
        open(keyring, &host, "acme", &sealed).unwrap();
    }
    assert_eq!(host.calls.get(), 1);
    host.outage.set(Some(Reason::KmsTimeout));
    host.pass(TTL);
    // A copy is as old as the unwrap it came from.
    for keyring in &processes {
        assert_eq!(open(keyring, &host, "acme", &sealed), Err(Reason::KmsTimeout));
    }
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn of_two_processes_one_asks_and_the_other_waits() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let (first, second) = (Keyring::new(), std::rc::Rc::new(Keyring::new()));
    let waiter = second.clone();
    *host.during_call.borrow_mut() = Some(Box::new(move |host| {
        host.be(2);
        *host.during_wait.borrow_mut() =
            Some(Box::new(|_| std::panic::resume_unwind(Box::new("waits"))));
        let unwound =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal(&waiter, host, "acme")));
        assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "waits");
        host.be(1);
    }));
    let sealed = seal(&first, &host, "acme").unwrap();
    host.be(2);
    open(&second, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn a_waiter_survives_the_one_it_waits_for() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let (lost, waiter) = (Keyring::new(), Keyring::new());
    *host.during_call.borrow_mut() =
        Some(Box::new(|_| std::panic::resume_unwind(Box::new("cancelled"))));
    let cancelled =
        || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal(&lost, &host, "acme")));
    assert!(cancelled().is_err());
    host.be(2);
    seal(&waiter, &host, "acme").unwrap();
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn a_revocation_seen_by_one_process_purges_all() {
    let host = FakeHost::new(&["acme", "globex"]).sharing(4);
    let (first, second) = (Keyring::new(), Keyring::new());
    let sealed = seal(&first, &host, "acme").unwrap();
    let other = seal(&first, &host, "globex").unwrap();
    host.be(2);
    open(&second, &host, "acme", &sealed).unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    host.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&second, &host, "acme").is_err());
    host.be(1);
    assert_eq!(open(&first, &host, "acme", &sealed), Err(Reason::KeyDisabled));
    open(&first, &host, "globex", &other).unwrap();
    assert_eq!(host.calls.get(), 3);
    host.outage.set(None);
    host.pass(6);
    open(&first, &host, "acme", &sealed).unwrap();
}

#[test]
fn a_failure_is_remembered_by_all_processes() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    host.outage.set(Some(Reason::KmsTimeout));
    for process in 1..10 {
        host.be(process);
        assert_eq!(seal(&Keyring::new(), &host, "acme").unwrap_err().reason, Reason::KmsTimeout);
    }
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn an_eviction_reaches_what_is_shared() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let sealed = seal(&Keyring::new(), &host, "acme").unwrap();
    host.change("acme", |tenant| tenant.epoch = 77);
    open(&Keyring::new(), &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 2);
}
