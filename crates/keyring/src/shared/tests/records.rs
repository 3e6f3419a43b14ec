//! What is known of a tenant's key, and of which tenant.

use super::super::record::{Warning, Warnings};
use super::*;

#[test]
fn memory_of_zeroes_is_valid_and_empty() {
    let mut memory = Memory::new(4, 4);
    assert_eq!(memory.held(), 0);
    assert!(memory.shared().find(&TenantId([1; 16])).is_none());
    assert_eq!(memory.records[0].last_state(), None);
}

#[test]
fn a_state_keeps_its_time_while_its_reason_changes() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    for (seconds, reason) in [(100, Reason::KmsTimeout), (110, Reason::KmsServerError)] {
        let permit = memory.permit(&of, 1, at(seconds));
        memory.shared().failed(&permit.ended(&of, seconds, seconds), &reason.into());
    }
    let seen = memory.shared().find(&of.id).unwrap().1.last_state().unwrap();
    assert_eq!(seen.since, 100_000_000);
    assert_eq!(seen.error.unwrap().reason, Reason::KmsServerError);
    assert_eq!(memory.records.iter().map(|record| record.history.changes).sum::<u64>(), 1);
}

#[test]
fn the_least_recently_used_record_makes_room_and_its_hits_go_nowhere() {
    let mut memory = Memory::new(2, 4);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(101));
    let (stale, _) = memory.shared().find(&subject(2, 0).id).unwrap();
    memory.put(&subject(3, 0), at(102));
    memory.put(&subject(4, 0), at(103));
    memory.shared().add_uses(&[(stale, hits(7)), (Tag::new(99, 0), hits(1))], 0);
    assert!(memory.records.iter().all(|record| record.stats.hits == 0));
}

#[test]
fn a_revocation_is_not_forgotten_with_its_record() {
    let mut memory = Memory::new(2, 4);
    let of = subject(1, 0);
    let permit = memory.permit(&of, 1, at(100));
    memory.shared().failed(&permit.ended(&of, 100, 101), &Reason::KeyDisabled.into());
    // The other place is taken as long as there is one; a revoked key's only then.
    memory.put(&subject(2, 0), at(102));
    memory.put(&subject(3, 0), at(103));
    assert!(memory.shared().find(&of.id).is_some());
    let permit = memory.permit(&subject(3, 0), 1, at(500));
    memory.shared().failed(&permit.ended(&subject(3, 0), 500, 501), &Reason::KeyDisabled.into());
    memory.put(&subject(4, 0), at(502));
    assert!(memory.shared().find(&of.id).is_none());
    assert_eq!(memory.shared().revoked_at(&of.id), at(101).instant);
    assert_eq!(memory.shared().revoked_at(&subject(4, 0).id), at(101).instant);
}

#[test]
fn another_reason_is_news_while_a_key_is_revoked_and_only_then() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let mut news = |seconds, reason: Reason| {
        let permit = memory.permit(&of, 1, at(seconds));
        match memory.shared().failed(&permit.ended(&of, seconds, seconds), &reason.into()) {
            Outcome::Revoked(_, change) | Outcome::Failing(change) => change.is_news(),
            other => panic!("{other:?}"),
        }
    };
    assert!(news(100, Reason::KeyDisabled));
    assert!(!news(110, Reason::KeyDisabled));
    assert!(news(120, Reason::KeyPendingDeletion));
    assert!(news(130, Reason::KmsTimeout));
    assert!(!news(140, Reason::KmsServerError));
    let record = *memory.shared().find(&of.id).unwrap().1;
    let told: Vec<_> =
        record.history.unannounced().map(|past| (past.change.to, past.reason)).collect();
    assert_eq!(
        told,
        [
            (Some(KeyState::Revoked), Some(Reason::KeyDisabled)),
            (Some(KeyState::Revoked), Some(Reason::KeyPendingDeletion)),
            (Some(KeyState::Unreachable), Some(Reason::KmsTimeout)),
        ]
    );
}

#[test]
fn a_recovery_is_a_notice_and_so_is_the_first_refusal_only() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let notices = |memory: &Memory| memory.counters.notices();
    memory.put(&of, at(100));
    assert_eq!(notices(&memory), 0);
    let permit = memory.permit(&subject(1, 1), 1, at(101));
    memory.shared().failed(&permit.ended(&subject(1, 1), 101, 102), &Reason::KmsTimeout.into());
    assert_eq!(notices(&memory), 0, "an outage takes nothing away");
    memory.put(&subject(1, 1), at(120));
    assert_eq!(notices(&memory), 1, "what others remember of it ends");
    for (seconds, expected) in [(130, 2), (140, 2)] {
        let of = subject(1, 2 + seconds);
        let permit = memory.permit(&of, 1, at(seconds));
        memory.shared().failed(&permit.ended(&of, seconds, seconds), &Reason::KeyDisabled.into());
        assert_eq!(notices(&memory), expected);
    }
}

#[test]
fn names_are_salted() {
    let salts = [Salt([1; 16]), Salt([2; 16])];
    let [one, other] = salts.map(|salt| TenantId::new(&salt, 5, "acme"));
    assert_ne!(one, other);
    assert_ne!(one, TenantId::new(&salts[0], 6, "acme"));
    assert_eq!(one, TenantId::new(&salts[0], 5, "acme"));
    let counters = SharedCounters::new();
    counters.draw_salt();
    let drawn = counters.salt().0;
    counters.draw_salt();
    assert_eq!(drawn, counters.salt().0, "a salt is drawn once");
    assert_ne!(drawn, SharedCounters::new().salt().0);
}

#[test]
fn what_tenants_cost_is_counted_on_though_their_records_and_counters_go() {
    let mut memory = Memory::new(2, 4);
    let total = |memory: &mut Memory| {
        let shared = memory.shared();
        let mut totals = shared.totals(0..2);
        totals.add(&shared.counters.past());
        totals.0[2]
    };
    for id in 1..=5 {
        memory.put(&subject(id, 0), at(100 + u64::from(id)));
        assert_eq!(total(&mut memory), u64::from(id));
    }
    let database = subject(5, 0).database;
    memory.shared().reset_stats(0..2, database);
    assert_eq!(memory.shared().totals(0..2).0, [0; 6]);
    assert_eq!(total(&mut memory), 5);
}

#[test]
fn warnings_are_of_one_key_and_those_that_cannot_be_seen_are_none() {
    let mut memory = Memory::new(2, 4);
    let of = subject(1, 0);
    memory.put(&of, at(100));
    let seen = |memory: &mut Memory| {
        let warnings = memory.shared().find(&of.id).unwrap().1.warnings;
        warnings.all().map(|all| all.map(Warning::name).collect::<Vec<_>>())
    };
    assert_eq!(seen(&mut memory), None);
    let given = [Warning::RotationOff, Warning::DeletionScheduled];
    memory.shared().put_warnings(&of, Warnings::seen(given));
    assert_eq!(seen(&mut memory).unwrap(), ["deletion_scheduled", "rotation_off"]);
    memory.shared().put_warnings(&of, Warnings::seen([]));
    assert_eq!(seen(&mut memory), Some(vec![]));
    let moved = Subject { customer_key: of.customer_key + 1, ..of };
    memory.shared().put_warnings(&moved, Warnings::HIDDEN);
    assert_eq!(seen(&mut memory), Some(vec![]), "said of another key");
    memory.put(&moved, at(101));
    assert_eq!(seen(&mut memory), None, "known of the old key");
}

#[test]
fn another_tenant_of_the_same_name_begins_to_count_sealed_values_anew() {
    let mut memory = Memory::new(2, 4);
    let (before, after) = (subject(1, 7), subject(1, 8));
    let sealed = |version| Sealed { values: 5, version };
    for (of, version, taken) in [(before, 9, 9), (before, 1, 0), (after, 1, 1)] {
        memory.shared().count_look(&of, false, at(100).instant);
        let (tag, _) = memory.shared().find(&of.id).unwrap();
        let uses = Uses { hits: 0, sealed: sealed(version) };
        memory.shared().add_uses(&[(tag, uses)], at(101).instant);
        let database = memory.record(&of).database;
        let found = memory.shared().take_sealed(0..8, database);
        let expected = if taken == 0 { vec![] } else { vec![(of.id, sealed(taken))] };
        assert_eq!(found, expected);
        assert_eq!(memory.record(&of).used_at, 0, "what is sealed without a hit is no use");
    }
}

#[test]
fn a_table_two_thirds_full_forgets_nobody() {
    let mut memory = Memory::new(1024, 0);
    for number in 1..=1024 * 2 / 3 {
        let id = TenantId::new(&Salt([7; 16]), 5, &format!("tenant-{number}"));
        memory.shared().record_of(&Subject { id, ..subject(1, 1) }, number);
    }
    assert_eq!(memory.counters.recycled.load(std::sync::atomic::Ordering::Relaxed), 0);
}
