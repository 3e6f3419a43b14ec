use super::*;
use crate::shared::history::Change;
use crate::tests::process::{FakeProcess, open, seal};

fn other() -> CustomerKey {
    CustomerKey::parse("local:other", "{}", 0).unwrap()
}

fn world(route: Route) -> (Keyring, FakeProcess) {
    let process = FakeProcess::new(&["acme"]);
    process.route.set(route);
    (Keyring::new(), process)
}

fn rewrap(keyring: &Keyring, process: &FakeProcess, to: &CustomerKey) -> Result<Vec<u8>> {
    let tenant = process.tenant("acme").unwrap().unwrap();
    keyring.rewrap(process, &tenant, &tenant.data_keys[0], &mut Move::to(to))
}

/// What the registry has of the data key.
fn wrapped(process: &FakeProcess) -> Vec<u8> {
    let tenant = process.tenant("acme").unwrap().unwrap();
    tenant.data_keys[0].wrapped.clone().unwrap().into()
}

#[test]
fn the_short_way_takes_two_calls_and_the_long_way_three() {
    let (keyring, process) = world(Route::Rewrap);
    assert_eq!(rewrap(&keyring, &process, &other()).unwrap(), wrapped(&process));
    assert_eq!(process.calls.take(), 2);
    process.route.set(Route::UnwrapAndWrap);
    assert_eq!(rewrap(&keyring, &process, &other()).unwrap(), wrapped(&process));
    assert_eq!(process.calls.take(), 3);
}

#[test]
fn where_the_short_way_is_refused_it_is_tried_once() {
    let (keyring, process) = world(Route::Rewrap);
    process.rewrap_outage.set(Some(Reason::KeyAccessDenied));
    let tenant = process.tenant("acme").unwrap().unwrap();
    let to = other();
    let mut to = Move::to(&to);
    for calls in [4, 3] {
        keyring.rewrap(&process, &tenant, &tenant.data_keys[0], &mut to).unwrap();
        assert_eq!(process.calls.take(), calls);
    }
    // In an outage the long way would get no further.
    process.rewrap_outage.set(Some(Reason::KmsTimeout));
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!((refused.reason, process.calls.take()), (Reason::KmsTimeout, 1));
}

#[test]
fn a_replica_opens_the_same_bytes_and_the_old_key_is_not_asked() {
    let (keyring, process) = world(Route::SameBytes);
    // The old key's Region is out, and everybody knows.
    process.outage.set(Some(Reason::KmsUnreachable));
    seal(&keyring, &process, "acme").unwrap_err();
    process.outage.set(None);
    let calls = process.calls.get();
    assert_eq!(rewrap(&keyring, &process, &other()).unwrap(), wrapped(&process));
    assert_eq!(process.calls.get() - calls, 1);
}

#[test]
fn what_wraps_but_does_not_come_back_is_not_kept() {
    let (keyring, process) = world(Route::SameBytes);
    process.change("acme", |tenant| {
        tenant.data_keys[0].wrapped = Some([9; 32].into());
    });
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!(refused.detail(), "reason=commitment_mismatch key=next");
    process.outage.set(Some(Reason::KeyDisabled));
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!(refused.detail(), "reason=key_disabled key=next");
}

#[test]
fn what_the_new_key_is_refused_with_is_not_said_of_the_tenant() {
    let (keyring, process) = world(Route::UnwrapAndWrap);
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.generate_outage.set(Some(Reason::KeyDisabled));
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!(refused.detail(), "reason=key_disabled key=next");
    assert_eq!(process.logged.borrow().iter().filter(|change| **change != Change::NONE).count(), 0);
    assert_eq!(open(&keyring, &process, "acme", &sealed).unwrap(), b"value");
}

#[test]
fn what_the_old_key_is_refused_with_is_the_tenants_business() {
    let (keyring, process) = world(Route::UnwrapAndWrap);
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.outage.set(Some(Reason::KeyDisabled));
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!(refused.detail(), "reason=key_disabled");
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::KeyDisabled));
}

#[test]
fn each_call_is_taken_from_the_budget() {
    let (keyring, process) = world(Route::Rewrap);
    process.budget.set(4);
    rewrap(&keyring, &process, &other()).unwrap();
    rewrap(&keyring, &process, &other()).unwrap();
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!((refused.reason, process.calls.get()), (Reason::CallBudgetSpent, 4));
    process.pass(60);
    rewrap(&keyring, &process, &other()).unwrap();
}

#[test]
fn a_spent_budget_does_not_stop_a_confirmation() {
    let (keyring, process) = world(Route::Rewrap);
    process.budget.set(1);
    let tenant = process.tenant("acme").unwrap().unwrap();
    let confirm = |wrapped: &[u8]| {
        keyring.confirm(&process, &tenant, &tenant.data_keys[0], wrapped, &other())
    };
    for _ in 0..3 {
        confirm(&wrapped(&process)).unwrap();
    }
    // And is spent by it.
    assert_eq!(rewrap(&keyring, &process, &other()).unwrap_err().reason, Reason::CallBudgetSpent);
    assert_eq!(confirm(&[9; 32]).unwrap_err().detail(), "reason=commitment_mismatch key=next");
}

#[test]
fn a_destroyed_data_key_is_not_wrapped_again() {
    let (keyring, process) = world(Route::Rewrap);
    process.change("acme", |tenant| tenant.data_keys[0].wrapped = None);
    let refused = rewrap(&keyring, &process, &other()).unwrap_err();
    assert_eq!((refused.reason, process.calls.get()), (Reason::TenantShredded, 0));
}
