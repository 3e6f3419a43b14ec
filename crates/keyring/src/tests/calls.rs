//! Calls of KMS that an administrator or the monitor makes.

use super::process::{FakeProcess, SECOND, TTL, answer, check, data_key, open, seal};
use crate::keyring::Keyring;
use crate::process::Process;
use crate::tenant::{DataKeyState, Tenant, TenantState};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_error::{KeyState, Reason};
use cmk_kms::Purpose;

fn pair() -> (Keyring, FakeProcess) {
    (Keyring::new(), FakeProcess::new(&["acme"]).sharing(4))
}

fn make(keyring: &Keyring, process: &FakeProcess) -> Result<(), Reason> {
    let made = keyring.make_data_key(process, &process.registered("acme"), Purpose::Values);
    made.map(|_| ()).map_err(|error| error.reason)
}

fn state(process: &FakeProcess) -> KeyState {
    process.record("acme").last_state().unwrap().key_state()
}

#[test]
fn a_new_data_key_is_unwrapped_once_before_anything_is_sealed_under_it() {
    let (keyring, process) = pair();
    let tenant = process.registered("acme");
    let made = keyring.make_data_key(&process, &tenant, Purpose::Values).unwrap();
    let dek = SecretKey::from_slice(&made.wrapped).unwrap();
    assert_eq!(made.commitment, Commitment::to(&dek, b"acme"));
    assert_eq!(process.calls.get(), 2);
    assert_eq!(keyring.stats().kms_calls.value(), 2);
    let record = process.record("acme");
    assert_eq!((record.stats.kms_calls, process.woken.borrow().len()), (2, 2));
}

#[test]
fn who_may_not_make_data_keys_may_still_be_let_unwrap_them() {
    let (keyring, process) = pair();
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.generate_outage.set(Some(Reason::KeyAccessDenied));
    assert_eq!(make(&keyring, &process), Err(Reason::KeyAccessDenied));
    assert_eq!(process.calls.get(), 3, "whether the key is revoked was not tried");
    assert_eq!(state(&process), KeyState::Usable);
    open(&keyring, &process, "acme", &sealed).unwrap();
    assert_eq!(process.calls.get(), 3, "cached data keys stay");
}

#[test]
fn who_may_do_neither_finds_the_key_revoked() {
    let (keyring, process) = pair();
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.pass(1);
    process.outage.set(Some(Reason::KeyAccessDenied));
    assert_eq!(make(&keyring, &process), Err(Reason::KeyAccessDenied));
    assert_eq!(process.calls.get(), 3);
    assert_eq!(state(&process), KeyState::Revoked);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::KeyAccessDenied));
}

#[test]
fn a_denial_counts_where_there_is_no_data_key_to_try() {
    let (keyring, process) = pair();
    process.change("acme", |tenant| tenant.data_keys[0].state = DataKeyState::Retired);
    process.generate_outage.set(Some(Reason::KeyAccessDenied));
    assert_eq!(make(&keyring, &process), Err(Reason::KeyAccessDenied));
    assert_eq!((process.calls.get(), state(&process)), (1, KeyState::Revoked));
}

#[test]
fn any_other_refusal_counts_at_once() {
    let (keyring, process) = pair();
    process.generate_outage.set(Some(Reason::KeyDisabled));
    assert_eq!(make(&keyring, &process), Err(Reason::KeyDisabled));
    assert_eq!((process.calls.get(), state(&process)), (1, KeyState::Revoked));
}

#[test]
fn an_administrator_may_ask_whether_a_refusal_still_stands_and_not_during_an_outage() {
    let (keyring, process) = pair();
    for (reason, calls) in [(Reason::KeyDisabled, [1, 2]), (Reason::KmsTimeout, [3, 3])] {
        process.outage.set(Some(reason));
        for calls in calls {
            assert_eq!(make(&keyring, &process), Err(reason));
            assert_eq!(process.calls.get(), calls, "{reason:?}");
        }
    }
    process.outage.set(None);
    assert_eq!(make(&keyring, &process), Err(Reason::KmsTimeout));
    process.pass(6);
    make(&keyring, &process).unwrap();
}

#[test]
fn two_administrators_ask_one_after_the_other() {
    let (keyring, process) = pair();
    let second = Keyring::new();
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        process.be(2);
        // The first one's call takes too long.
        *process.during_wait.borrow_mut() = Some(Box::new(|process| process.pass(7)));
        make(&second, process).unwrap();
        assert!(process.during_wait.borrow().is_none(), "it did not wait");
        process.be(1);
    }));
    make(&keyring, &process).unwrap();
    assert_eq!(process.calls.get(), 4);
}

#[test]
fn a_key_is_proven_by_the_data_key_that_seals_now() {
    let (keyring, process) = pair();
    let prove = |tenant: Tenant| {
        let proven = keyring.prove_key(&process, &tenant, &tenant.customer_key);
        proven.map_err(|error| error.reason)
    };
    assert_eq!(prove(process.registered("acme")), Ok(()));
    let mut other = process.registered("acme");
    other.data_keys[0].wrapped = data_key("acme", 1).wrapped;
    assert_eq!(prove(other), Err(Reason::CommitmentMismatch));
    assert_eq!(process.calls.get(), 2);
    let mut pending = process.registered("acme");
    (pending.state, pending.last_version) = (TenantState::Pending, 0);
    pending.data_keys.clear();
    assert_eq!(prove(pending), Err(Reason::TenantPending));
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn a_check_asks_kms_and_keeps_no_data_key() {
    let (keyring, process) = pair();
    let began = process.now();
    assert!(check(&keyring, &process, &process.registered("acme")));
    assert_eq!((process.calls.get(), state(&process)), (1, KeyState::Usable));
    assert!(keyring.cache().is_empty());
    assert_eq!(*process.erasures.borrow(), [began + TTL * SECOND]);
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2, "the data key of a mere check was kept");
    // That one is there for all.
    process.be(2);
    seal(&Keyring::new(), &process, "acme").unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn checks_go_on_side_by_side_and_one_that_is_dropped_is_given_up() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
    let begin = |name: &str| keyring.begin_check(&process, process.registered(name));
    let (acme, (globex, wrapped)) = (begin("acme").unwrap(), begin("globex").unwrap());
    assert!(begin("acme").is_none(), "it is under way");
    keyring.end_check(globex, answer(&process, &wrapped));
    drop(acme);
    assert!(begin("acme").is_some(), "nobody else may ask");
    // Another tenant's data key is not taken for this one's.
    let (check, _) = begin("acme").unwrap();
    let other = SecretKey::generate().unwrap();
    keyring.end_check(check, Ok(other));
    let calls = process.calls.get();
    seal(&keyring, &process, "acme").unwrap();
    assert_eq!(process.calls.get(), calls + 1);
}

#[test]
fn a_check_of_what_may_not_be_asked_says_so() {
    let (keyring, process) = pair();
    process.outage.set(Some(Reason::KmsTimeout));
    assert!(check(&keyring, &process, &process.registered("acme")));
    assert!(!check(&keyring, &process, &process.registered("acme")), "it failed just now");
    let mut pending = process.registered("acme");
    pending.data_keys.clear();
    process.pass(6);
    assert!(!check(&keyring, &process, &pending), "there is nothing to unwrap");
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn who_waits_for_a_call_is_woken_once_and_by_no_other() {
    let (keyring, process) = pair();
    seal(&keyring, &process, "acme").unwrap();
    let id = process.tenant_id("acme");
    let record = process.server_memory(|shared| shared.find(&id).unwrap().0.record().unwrap());
    assert_eq!(*process.woken.borrow(), [record]);
}

/// Evicts the tenant in the middle of so many of the calls that follow.
fn evict_during(process: &FakeProcess, calls: u32) {
    let Some(left) = calls.checked_sub(1) else { return };
    *process.during_call.borrow_mut() = Some(Box::new(move |process| {
        let id = process.tenant_id("acme");
        process.server_memory(|shared| shared.evict(&id, process.now.get()));
        process.now.set(process.now.get() + 1);
        evict_during(process, left);
    }));
}

#[test]
fn evictions_that_overtake_a_call_have_it_made_again() {
    let (keyring, process) = pair();
    evict_during(&process, 5);
    assert_eq!(make(&keyring, &process), Ok(()));
    assert_eq!(process.calls.get(), 7);
    evict_during(&process, 5);
    assert!(seal(&keyring, &process, "acme").is_ok());
    assert_eq!((process.calls.get(), state(&process)), (13, KeyState::Usable));
}

#[test]
fn evictions_without_end_are_not_blamed_on_kms() {
    let (keyring, process) = pair();
    evict_during(&process, 100);
    assert_eq!(make(&keyring, &process), Err(Reason::TenantBusy));
    assert_eq!(process.calls.get(), 16);
    assert_eq!(seal(&keyring, &process, "acme").unwrap_err().reason, Reason::TenantBusy);
    assert_eq!(process.calls.get(), 32);
    // It is nothing that would be remembered.
    process.during_call.take();
    assert!(seal(&keyring, &process, "acme").is_ok());
}

#[test]
fn a_call_is_made_again_for_no_longer_than_one_may_take() {
    let (keyring, process) = pair();
    let slow = |process: &FakeProcess| {
        let id = process.tenant_id("acme");
        process.server_memory(|shared| shared.evict(&id, process.now.get()));
        process.pass(7);
    };
    let slow_twice = move |process: &FakeProcess| {
        slow(process);
        *process.during_call.borrow_mut() = Some(Box::new(slow));
    };
    *process.during_call.borrow_mut() = Some(Box::new(slow_twice));
    assert_eq!(make(&keyring, &process), Err(Reason::TenantBusy));
    assert_eq!(process.calls.get(), 2, "once more in any case");
}
