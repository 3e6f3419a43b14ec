//! Evictions and revocations: what was unwrapped before is used by nobody.

use super::*;

const OF: Subject = subject(1, 7);

#[test]
fn an_eviction_takes_its_tenants_data_keys_and_no_others() {
    let mut memory = Memory::new(8, 4);
    for id in 1..=2 {
        memory.put(&subject(id, 7), at(100));
    }
    let now = at(105).instant;
    memory.shared().evict(&OF.id, now);
    assert!(!memory.has(&OF, at(105)) && memory.has(&subject(2, 7), at(105)));
    assert_eq!(memory.shared().revoked_at(&OF.id), now);
    assert_eq!(memory.shared().revoked_at(&subject(2, 7).id), 0);
    assert_eq!(memory.notices(), 1);
    // Of whom there is no record may have had one that was recycled.
    assert_eq!(memory.shared().revoked_at(&subject(3, 7).id), now);
}

#[test]
fn what_is_unwrapped_during_an_eviction_is_not_used_and_what_comes_after_is() {
    for (began, outcome) in [(104, false), (105, false), (106, true)] {
        let mut memory = Memory::new(8, 4);
        let permit = memory.permit(&OF, 1, at(began));
        memory.shared().evict(&OF.id, at(105).instant);
        let ended = permit.ended(&OF, began, 107);
        let got = memory.shared().succeeded(&ended, Some((&fingerprint(&OF), &dek())), true);
        let usable = matches!(got, Outcome::Usable(_));
        assert_eq!(usable, outcome, "{began}: {got:?}");
        assert_eq!(memory.held(), usize::from(usable));
    }
}

#[test]
fn an_eviction_of_a_database_reaches_its_records_in_range_only() {
    let mut memory = Memory::new(8, 8);
    let of = |id, database| Subject { database, ..subject(id, 7) };
    for id in 1..=8 {
        memory.put(&of(id, 5 + u32::from(id % 2)), at(100));
    }
    let place =
        |memory: &mut Memory, id| memory.shared().find(&of(id, 5).id).unwrap().0.record().unwrap();
    let now = at(105).instant;
    memory.shared().evict_range(2..5, 5, now);
    for id in 1..=8 {
        let evicted = id % 2 == 0 && (2..5).contains(&place(&mut memory, id));
        assert_eq!(memory.shared().revoked_at(&of(id, 5).id), if evicted { now } else { 0 });
        assert_eq!(memory.has(&of(id, 5), at(106)), !evicted);
    }
    // The end of the table is where it ends.
    memory.shared().evict_range(0..100, 5, now);
    assert!((1..=8).all(|id| memory.has(&of(id, 5), at(106)) == (id % 2 == 1)));
}

#[test]
fn a_refusal_that_comes_late_is_told_to_who_unwrapped_before_it() {
    let mut memory = Memory::new(8, 4);
    let early = memory.permit(&OF, 1, at(100));
    memory.fail(&OF, 2, 107, Reason::KeyDisabled);
    for (began, revoked) in [(107, true), (108, false)] {
        let ended = early.ended(&OF, began, 109);
        let got = memory.shared().succeeded(&ended, None, false);
        assert_eq!(matches!(got, Outcome::Revoked(..)), revoked, "{began}: {got:?}");
    }
}

#[test]
fn a_refusal_that_a_later_call_disproved_holds_up_nobody() {
    let mut memory = Memory::new(8, 4);
    let early = memory.permit(&OF, 1, at(100));
    memory.fail(&OF, 2, 107, Reason::KeyDisabled);
    memory.put(&OF, at(120));
    let ended = early.ended(&OF, 100, 121);
    assert!(matches!(memory.shared().succeeded(&ended, None, false), Outcome::Usable(_)));
}

#[test]
fn a_refusal_that_a_transaction_met_has_others_ask_again() {
    let mut memory = Memory::new(8, 4);
    let permit = memory.permit(&OF, 1, at(100));
    memory.shared().revoke(&OF, at(101).instant);
    let ended = permit.ended(&OF, 100, 102);
    assert_eq!(memory.shared().succeeded(&ended, None, false), Outcome::Superseded);
}

#[test]
fn a_revocation_is_told_once_for_as_long_as_it_lasts() {
    let mut memory = Memory::new(8, 4);
    memory.put(&OF, at(100));
    memory.shared().revoke(&OF, at(101).instant);
    assert_eq!((memory.notices(), memory.held()), (1, 0));
    assert_eq!(memory.shared().revoked_at(&OF.id), at(101).instant);
    memory.fail(&OF, 1, 102, Reason::KeyDisabled);
    assert_eq!(memory.notices(), 2, "until it is known why, each may be the first");
    memory.shared().revoke(&OF, at(103).instant);
    assert_eq!(memory.notices(), 2);
    // Without a record.
    memory.shared().revoke(&subject(9, 7), at(104).instant);
    assert_eq!(memory.notices(), 3);
    assert_eq!(memory.shared().revoked_at(&subject(9, 7).id), at(104).instant);
}

#[test]
fn an_answer_for_a_record_that_was_given_away_is_used_unless_something_was_revoked_since() {
    for (began, usable) in [(100, false), (102, false), (103, true)] {
        let mut memory = Memory::new(1, 4);
        let permit = memory.permit(&OF, 1, at(100));
        // Another tenant gets the only record, which was evicted just before.
        memory.shared().evict(&OF.id, at(102).instant);
        memory.put(&subject(2, 7), at(103));
        let ended = permit.ended(&OF, began, 104);
        let got = memory.shared().succeeded(&ended, Some((&fingerprint(&OF), &dek())), true);
        let expected = if usable { Outcome::Usable(Change::NONE) } else { Outcome::Superseded };
        assert_eq!(got, expected, "{began}");
        // It says nothing about the other tenant, nor is it kept there; its copy is known of.
        assert_eq!(memory.record(&subject(2, 7)).stats.kms_calls, 1);
        assert_eq!(memory.held(), 1);
        assert_eq!(memory.counters.forgotten_copies_until(), at(began + 300).instant);
    }
}

#[test]
fn a_failure_for_a_record_that_was_given_away_says_nothing_about_the_other_tenant() {
    for (reason, revoked) in [(Reason::KmsTimeout, false), (Reason::KeyDisabled, true)] {
        let mut memory = Memory::new(1, 4);
        let permit = memory.permit(&OF, 1, at(100));
        memory.put(&subject(2, 7), at(103));
        let got = memory.shared().failed(&permit.ended(&OF, 100, 104), &reason.into());
        let expected = match revoked {
            true => Outcome::Revoked(reason.into(), Change::NONE),
            false => Outcome::Unrelated,
        };
        assert_eq!(got, expected);
        assert!(memory.has(&subject(2, 7), at(105)));
        let state = memory.record(&subject(2, 7)).last_state().unwrap();
        assert_eq!(state.key_state(), KeyState::Usable);
    }
}

#[test]
fn what_an_answer_says_of_one_key_is_not_taken_for_another() {
    let mut memory = Memory::new(8, 4);
    let permit = memory.permit(&OF, 1, at(100));
    let moved = Subject { customer_key: 2, ..OF };
    memory.permit(&moved, 2, at(101));
    let got = memory.shared().failed(&permit.ended(&OF, 100, 102), &Reason::KmsTimeout.into());
    assert_eq!(got, Outcome::Unrelated);
    assert_eq!(memory.record(&moved).last_state(), None, "nothing is known of the new key");
}

#[test]
fn a_process_that_may_use_no_data_key_clears_them_all_the_same() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    memory.put(&of, at(100));
    let mut shared = memory.shared();
    shared.shares_data_keys = false;
    let step = shared.begin(&of, &fingerprint(&of), 2, at(101), &RULES);
    assert!(matches!(step, Step::Ask(_)), "it must not see what the others share");
    shared.revoke(&of, at(102).instant);
    assert_eq!(memory.held(), 0);
}
