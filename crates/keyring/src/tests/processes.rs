//! Several processes that share what they know.

use super::process::{FakeProcess, SECOND, TTL, check, data_key, open, seal};
use crate::keyring::Keyring;
use crate::tenant::DataKeyState;
use cmk_error::Reason;

#[test]
fn one_unwrap_serves_every_process_within_the_ttl() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let processes: Vec<_> = (0..5).map(|_| Keyring::new()).collect();
    let sealed = seal(&processes[0], &process, "acme").unwrap();
    for (id, keyring) in processes.iter().enumerate() {
        process.be(id as u32 + 1);
        open(keyring, &process, "acme", &sealed).unwrap();
    }
    assert_eq!(process.calls.get(), 1);
    process.outage.set(Some(Reason::KmsTimeout));
    process.pass(TTL);
    // A copy is as old as the unwrap it came from.
    for keyring in &processes {
        assert_eq!(open(keyring, &process, "acme", &sealed), Err(Reason::KmsTimeout));
    }
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn of_two_processes_one_asks_and_the_other_waits() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (first, second) = (Keyring::new(), std::rc::Rc::new(Keyring::new()));
    let waiter = second.clone();
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        process.be(2);
        *process.during_wait.borrow_mut() =
            Some(Box::new(|_| std::panic::resume_unwind(Box::new("waits"))));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seal(&waiter, process, "acme")
        }));
        assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "waits");
        process.be(1);
    }));
    let sealed = seal(&first, &process, "acme").unwrap();
    process.be(2);
    open(&second, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn a_waiter_survives_the_one_it_waits_for() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let (lost, waiter) = (Keyring::new(), Keyring::new());
    *process.during_call.borrow_mut() =
        Some(Box::new(|_| std::panic::resume_unwind(Box::new("cancelled"))));
    let cancelled =
        || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal(&lost, &process, "acme")));
    assert!(cancelled().is_err());
    process.be(2);
    seal(&waiter, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn a_revocation_seen_by_one_process_purges_all() {
    let process = FakeProcess::new(&["acme", "globex"]).sharing(4);
    let (first, second) = (Keyring::new(), Keyring::new());
    let sealed = seal(&first, &process, "acme").unwrap();
    let other = seal(&first, &process, "globex").unwrap();
    process.be(2);
    open(&second, &process, "acme", &sealed).unwrap();
    process.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    process.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&second, &process, "acme").is_err());
    process.be(1);
    assert_eq!(open(&first, &process, "acme", &sealed), Err(Reason::KeyDisabled));
    open(&first, &process, "globex", &other).unwrap();
    assert_eq!(process.calls.get(), 3);
    process.outage.set(None);
    process.pass(6);
    open(&first, &process, "acme", &sealed).unwrap();
}

#[test]
fn a_failure_is_remembered_by_all_processes() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    process.outage.set(Some(Reason::KmsTimeout));
    for pid in 1..10 {
        process.be(pid);
        assert_eq!(seal(&Keyring::new(), &process, "acme").unwrap_err().reason, Reason::KmsTimeout);
    }
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn an_eviction_reaches_what_is_shared() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let sealed = seal(&Keyring::new(), &process, "acme").unwrap();
    process.change("acme", |tenant| tenant.epoch = 77);
    open(&Keyring::new(), &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn a_remembered_outage_ends_for_all_processes_when_one_sees_kms_again() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    let keyrings: Vec<_> = (0..3).map(|_| Keyring::new()).collect();
    process.outage.set(Some(Reason::KmsTimeout));
    for (pid, keyring) in keyrings.iter().enumerate() {
        process.be(pid as u32 + 1);
        seal(keyring, &process, "acme").unwrap_err();
    }
    process.outage.set(None);
    // An administrator rotates, say: the first process asks before the others' memory of it ends.
    let tenant = process.tenants.borrow()["acme"].clone();
    process.pass(6);
    process.be(1);
    assert!(check(&keyrings[0], &process, &tenant));
    process.now.set(process.now.get() - 5 * SECOND);
    for (pid, keyring) in keyrings.iter().enumerate() {
        process.be(pid as u32 + 1);
        seal(keyring, &process, "acme").unwrap();
    }
}

#[test]
fn a_call_is_known_to_its_process_while_it_lasts() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    *process.during_call.borrow_mut() =
        Some(Box::new(|process| assert!(process.open_call.get().is_some())));
    seal(&Keyring::new(), &process, "acme").unwrap();
    assert!(process.during_call.borrow().is_none() && process.open_call.get().is_none());
}

#[test]
fn a_call_that_an_interrupt_cut_short_is_over_for_all_at_once() {
    let process = FakeProcess::new(&["acme"]).sharing(4);
    *process.during_call.borrow_mut() =
        Some(Box::new(|_| std::panic::resume_unwind(Box::new("cancelled"))));
    let lost = Keyring::new();
    let cancelled =
        || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal(&lost, &process, "acme")));
    assert!(cancelled().is_err());
    assert!(process.open_call.get().is_none());
    assert_eq!(process.woken.borrow().len(), 1);
    process.be(2);
    *process.during_wait.borrow_mut() = Some(Box::new(|_| panic!("there is nobody to wait for")));
    seal(&Keyring::new(), &process, "acme").unwrap();
}
