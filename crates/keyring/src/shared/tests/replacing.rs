//! Which record goes, should another tenant need its place, and what is not forgotten with it.

use super::*;

/// Tenants 1 and 2 have the only two records; 1 was used first. True if tenant 3 gets that of 1.
fn first_goes(memory: &mut Memory, seconds: u64) -> bool {
    memory.put(&subject(3, 0), at(seconds));
    let there = [1, 2].map(|id| memory.shared().find(&subject(id, 0).id).is_some());
    assert!(there == [true, false] || there == [false, true]);
    !there[0]
}

#[test]
fn the_least_recently_used_goes() {
    let mut memory = Memory::new(2, 4);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(101));
    assert!(first_goes(&mut memory, 102));
    let mut memory = Memory::new(2, 4);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(101));
    memory.begin(&subject(1, 0), 1, at(102));
    assert!(!first_goes(&mut memory, 103));
}

#[test]
fn one_whose_key_is_being_asked_for_stays() {
    let mut memory = Memory::new(2, 4);
    memory.permit(&subject(1, 0), 1, at(100));
    memory.put(&subject(2, 0), at(101));
    assert!(!first_goes(&mut memory, 102));
}

#[test]
fn one_whose_key_is_revoked_stays_while_copies_may_be_left() {
    for (seconds, goes) in [(399, false), (400, true)] {
        let mut memory = Memory::new(2, 4);
        memory.put(&subject(1, 0), at(100));
        memory.fail(&subject(1, 1), 1, 101, Reason::KeyDisabled);
        memory.put(&subject(2, 0), at(102));
        assert_eq!(first_goes(&mut memory, seconds), goes, "{seconds}");
    }
}

#[test]
fn one_whose_key_is_revoked_stays_until_it_may_be_asked_for_again() {
    for (seconds, goes) in [(103, false), (107, true)] {
        let mut memory = Memory::new(2, 4);
        memory.fail(&subject(1, 0), 1, 101, Reason::KeyDisabled);
        memory.put(&subject(2, 0), at(102));
        assert_eq!(first_goes(&mut memory, seconds), goes, "{seconds}");
    }
}

#[test]
fn an_outage_is_no_reason_to_stay() {
    let mut memory = Memory::new(2, 4);
    memory.fail(&subject(1, 0), 1, 101, Reason::KmsTimeout);
    memory.put(&subject(2, 0), at(102));
    assert!(first_goes(&mut memory, 103));
}

#[test]
fn who_gets_a_record_gets_nothing_of_its_tenant_but_what_must_not_be_missed() {
    let mut memory = Memory::new(1, 4);
    let (old, new) = (subject(1, 7), Subject { database: 6, ..subject(2, 8) });
    memory.put(&old, at(100));
    memory.shared().evict(&old.id, at(105).instant);
    memory.fail(&subject(1, 8), 1, 110, Reason::KmsTimeout);
    let old_generation = memory.record(&old).generation;
    let recycled =
        |memory: &Memory| memory.counters.recycled.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(recycled(&memory), 0, "it was nobody's");
    memory.put(&new, at(120));
    assert_eq!(recycled(&memory), 1);
    assert!(memory.shared().find(&old.id).is_none());
    let record = memory.record(&new);
    assert_eq!((record.id, record.database), (new.id, 6));
    assert_eq!(record.generation, old_generation.wrapping_add(1));
    assert_eq!(record.stats.kms_failures, 0);
    assert_eq!(record.last_state().unwrap().key_state(), KeyState::Usable);
    // It may have been the new one's before.
    assert_eq!(record.not_before(), at(105).instant);
    assert_eq!(record.holders_known_from, at(400).instant);
    assert_eq!(record.copies_until, at(420).instant);
    assert_eq!(memory.counters.forgotten_copies_until(), at(400).instant);
    // Known as it is, it is left alone.
    assert!(memory.has(&new, at(121)));
    assert!(matches!(memory.begin(&new, 1, at(121)), Step::Take(_)));
}

#[test]
fn copies_from_a_time_with_another_record_are_known_of() {
    let mut memory = Memory::new(1, 4);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(200));
    // It gets its record back, and no data key yet.
    memory.permit(&subject(1, 0), 1, at(250));
    assert_eq!(memory.record(&subject(1, 0)).copies_until, at(500).instant);
}

#[test]
fn copies_that_a_transaction_holds_are_known_of() {
    let mut memory = Memory::new(1, 4);
    let of = subject(1, 0);
    memory.shared().remember_copy(&of, at(300).instant);
    assert_eq!(memory.counters.forgotten_copies_until(), at(300).instant);
    memory.shared().remember_copy(&of, at(200).instant);
    assert_eq!(memory.counters.forgotten_copies_until(), at(300).instant);
    memory.put(&of, at(100));
    for (until, expected) in [(350, 400), (500, 500), (450, 500)] {
        memory.shared().remember_copy(&of, at(until).instant);
        let record = memory.record(&of);
        assert_eq!(record.copies_until, at(expected).instant);
        let latest = if until == 350 { 350 } else { 500 };
        assert_eq!(record.holders_known_from, at(latest).instant);
    }
    assert_eq!(memory.counters.forgotten_copies_until(), at(300).instant);
}

#[test]
fn another_customer_key_is_one_of_which_nothing_is_known() {
    let mut memory = Memory::new(2, 4);
    let (old, new) = (subject(1, 7), Subject { customer_key: 2, ..subject(1, 7) });
    memory.put(&old, at(100));
    memory.shared().count_look(&old, false, at(100).instant);
    memory.shared().evict(&old.id, at(101).instant);
    memory.put(&subject(1, 8), at(102));
    memory.put(&subject(2, 0), at(102));
    let tag = memory.shared().find(&old.id).unwrap().0;
    memory.shared().add_uses(&[(tag, hits(3))], at(103).instant);
    memory.shared().remember_copy(&old, at(500).instant);
    memory.fail(&subject(1, 9), 1, 104, Reason::KeyDisabled);
    assert!(matches!(memory.begin(&subject(1, 9), 1, at(104)), Step::Refuse(..)));

    let permit = memory.permit(&new, 1, at(105));
    assert!(matches!(memory.begin(&new, 2, at(105)), Step::Wait(_)), "its call is entered");
    let record = memory.record(&new);
    assert_eq!(record.last_state(), None);
    assert_eq!(memory.held(), 1, "data keys of the old key are left");
    // What concerns the tenant, whatever its key.
    assert_eq!(memory.shared().find(&new.id).unwrap().0, tag);
    assert_eq!(record.database, 5);
    assert_eq!(record.copies_until, at(500).instant);
    assert_eq!(record.holders_known_from, at(500).instant);
    assert_eq!(record.not_before(), at(104).instant, "a revocation is not forgotten");
    assert_eq!((record.stats.misses, record.stats.hits), (1, 3));
    assert_eq!((record.history.changes, record.used_at), (2, at(103).instant));

    memory.succeed(&permit.ended(&new, 105, 106), &dek(), true);
    assert!(matches!(memory.begin(&new, 2, at(106)), Step::Take(_)));
}

#[test]
fn what_is_met_first_with_another_customer_key_is_remembered() {
    let mut memory = Memory::new(2, 4);
    memory.put(&subject(1, 7), at(100));
    let new = Subject { customer_key: 2, ..subject(1, 7) };
    memory.fail(&new, 1, 105, Reason::KmsTimeout);
    assert!(matches!(memory.begin(&new, 2, at(105)), Step::Refuse(..)));
}

#[test]
fn a_tenant_with_another_customer_key_is_in_use() {
    let mut memory = Memory::new(2, 4);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(101));
    memory.permit(&Subject { customer_key: 2, ..subject(1, 0) }, 1, at(102));
    // Well after that call.
    assert!(!first_goes(&mut memory, 150));
}
