//! What is known of one tenant, and what a newer snapshot of the registry leaves of it.

use super::*;
use crate::tenant::{Grant, Right, Role};
use cmk_error::Reason;

fn failure(dek_id: Option<DekId>, reason: Reason) -> Failure {
    Failure { dek_id, error: reason.into(), until: 2000 }
}

fn reasons(of: &Fixture, name: &str) -> Vec<Reason> {
    of.cache.get(name).unwrap().failures.iter().map(|failure| failure.error.reason).collect()
}

/// Of a tenant with two data keys and a failure of each kind.
fn acme() -> Fixture {
    let mut of = fixture(10);
    of.register(tenant("acme", &[1, 2]));
    (1..=2).for_each(|number| of.put("acme", number));
    of.change("acme", |entry| {
        entry.put_failure(failure(None, Reason::Credentials));
        entry.put_failure(failure(Some(dek_id(1)), Reason::CommitmentMismatch));
        entry.put_failure(failure(Some(dek_id(2)), Reason::KmsAnswerMismatch));
    });
    of
}

#[test]
fn a_newer_snapshot_keeps_what_it_vouches_for() {
    let of = acme();
    of.change("acme", |entry| entry.put_grant(Role(1), Grant::default()));
    let mut newer = tenant("acme", &[1, 2]);
    newer.data_keys[0].state = DataKeyState::Destroyed;
    newer.data_keys[0].wrapped = None;
    newer.data_keys[1].state = DataKeyState::Current;
    of.cache.put_tenant(newer, TenantId::default(), 7, 10);
    assert!(!of.has("acme", 1), "a destroyed data key is used");
    assert!(of.has("acme", 2), "a registered data key was thrown away");
    let entry = of.cache.get("acme").unwrap();
    assert_eq!((entry.registry, entry.grants.len(), entry.failures.len()), (7, 0, 3));
    drop(entry);
    assert_eq!(of.cache.tenants.len(), 1);
}

#[test]
fn a_data_key_seals_only_while_the_registry_says_that_it_is_the_current_one() {
    let of = acme();
    let mut newer = tenant("acme", &[1, 2]);
    newer.data_keys[1].state = DataKeyState::Current;
    of.register(newer);
    let entry = of.cache.get("acme").unwrap();
    let current: Vec<_> = entry.keys.iter().map(|key| (key.dek_id, key.current)).collect();
    assert_eq!(current, [(dek_id(1), false), (dek_id(2), true)]);
}

#[test]
fn a_data_key_that_the_registry_does_not_know_is_not_used() {
    let of = acme();
    of.register(tenant("acme", &[2]));
    assert!(!of.has("acme", 1) && of.has("acme", 2));
}

#[test]
fn an_eviction_and_another_customer_key_leave_nothing() {
    let mut evicted = tenant("acme", &[1, 2]);
    evicted.epoch = 1;
    let mut moved = tenant("acme", &[1, 2]);
    moved.customer_key = CustomerKey::parse("local:other", "{}", 0).unwrap();
    for newer in [evicted, moved] {
        let of = acme();
        of.register(newer);
        assert!(of.cache.is_empty());
        assert_eq!(reasons(&of, "acme"), []);
    }
}

#[test]
fn a_suspension_zeroes_data_keys_and_says_nothing_of_failures() {
    let of = acme();
    let mut suspended = tenant("acme", &[1, 2]);
    suspended.state = TenantState::Suspended;
    of.register(suspended);
    assert!(of.cache.is_empty());
    assert_eq!(reasons(&of, "acme").len(), 3);
}

#[test]
fn an_unwrap_disproves_the_failures_that_it_concerns() {
    let of = acme();
    of.change("acme", |entry| entry.forget_failures(dek_id(1)));
    assert_eq!(reasons(&of, "acme"), [Reason::KmsAnswerMismatch], "of the other data key");
}

#[test]
fn of_one_thing_the_last_failure_is_remembered() {
    let of = acme();
    of.change("acme", |entry| {
        entry.put_failure(failure(Some(dek_id(1)), Reason::KmsAnswerMismatch));
        entry.put_failure(failure(None, Reason::Endpoint));
    });
    let all = [Reason::KmsAnswerMismatch, Reason::KmsAnswerMismatch, Reason::Endpoint];
    assert_eq!(reasons(&of, "acme"), all);
}

#[test]
fn grants_of_many_roles_are_remembered_and_of_too_many_not_all() {
    let of = acme();
    of.change("acme", |entry| {
        for role in 0..64 {
            entry.put_grant(
                Role(role),
                Grant { encrypt: Right::Always, decrypt: Right::of(role % 2 == 0, false) },
            );
        }
        let known = |role| entry.grant(Role(role)).map(|grant| grant.decrypt);
        assert_eq!(
            [known(0), known(1), known(63), known(64)],
            [Some(Right::Always), Some(Right::Never), Some(Right::Never), None]
        );
        for role in 64..1000 {
            entry.put_grant(Role(role), Grant::default());
            assert_eq!(entry.grant(Role(role)), Some(Grant::default()));
            assert!(entry.grants.len() <= 64);
        }
    });
}

#[test]
fn who_decided_by_an_older_snapshot_changes_nothing() {
    let of = acme();
    let old = of.snapshot("acme");
    of.register(tenant("acme", &[1, 2]));
    of.cache.update(&old, |_| panic!("the entry is of another snapshot"));
    of.cache.put_key(&old, new_key(3, 1), 1, 10);
    assert!(!of.has("acme", 3));
    assert_eq!((of.cache.len(), of.queued()[0]), (2, 2));
}

#[test]
fn hits_are_told_once_and_those_of_a_dropped_data_key_are_not_lost() {
    let of = acme();
    assert_eq!(of.cache.take_unflushed_uses(), [], "nothing was used");
    let hits = |hits| Uses { hits, ..Uses::default() };
    let hit = |number, hits| of.count_hits("acme", number, hits);
    hit(1, 3);
    assert_eq!(of.cache.take_unflushed_uses(), [(Tag::new(1, 1), hits(3))]);
    hit(1, 2);
    hit(2, 5);
    of.cache.remove_tenant("acme");
    let mut uses = of.cache.take_unflushed_uses();
    uses.sort_unstable_by_key(|(tag, _)| tag.0);
    assert_eq!(uses, [(Tag::new(1, 1), hits(2)), (Tag::new(2, 1), hits(5))]);
    assert_eq!(of.cache.take_unflushed_uses(), []);
}

#[test]
fn a_tenant_that_is_forgotten_takes_its_data_keys_along() {
    let mut of = acme();
    of.miss(9);
    of.cache.remove_tenant("acme");
    assert!(of.cache.get("acme").is_none() && of.cache.len() == 1);
    let mut seen = Vec::new();
    of.cache.for_each(|entry| seen.push(entry.tenant.name.clone()));
    assert_eq!(seen, [Box::<str>::from("tenant-9")]);
}
