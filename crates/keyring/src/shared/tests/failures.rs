//! How long not to ask again.

use super::*;
use crate::shared::history::PastChange;

const OF: Subject = subject(1, 0);

impl Memory {
    /// Until when nobody asks, if that is so.
    fn refused_until(&mut self, of: &Subject, now: Now) -> Option<u64> {
        match self.begin(of, 1, now) {
            Step::Refuse(_, until) => Some(until),
            _ => None,
        }
    }
}

/// The pauses that follow failures in a row, each met as soon as it may be, in nanoseconds.
fn pauses(memory: &mut Memory, seconds: u64, reason: Reason, count: usize) -> Vec<u64> {
    let mut now = at(seconds);
    let mut pauses = Vec::new();
    for _ in 0..count {
        let permit = memory.permit(&OF, 1, now);
        let ended =
            EndedCall { permit: &permit, subject: &OF, began: now.instant, now, rules: &RULES };
        memory.shared().failed(&ended, &reason.into());
        let until = memory.refused_until(&OF, now).expect("a pause");
        pauses.push(until - now.instant);
        assert_eq!(memory.refused_until(&OF, Now { instant: until - 1, ..now }), Some(until));
        now.instant = until;
    }
    pauses
}

/// Give or take a quarter.
fn is_about(pause: u64, seconds: u64) -> bool {
    (seconds * SECOND * 3 / 4..=seconds * SECOND * 5 / 4).contains(&pause)
}

#[test]
fn the_breaker_stretches_pauses_eightfold_at_most() {
    let pauses = pauses(&mut Memory::new(8, 4), 1000, Reason::KmsTimeout, 40);
    for (at, pause) in pauses.iter().enumerate() {
        let factor = [1, 1, 1, 2, 4].get(at).copied().unwrap_or(8);
        assert!(is_about(*pause, 4 * factor), "pause {at}: {pause}");
    }
}

#[test]
fn a_key_that_is_enabled_again_works_soon_however_long_it_was_disabled() {
    let pauses = pauses(&mut Memory::new(8, 4), 1000, Reason::KeyDisabled, 40);
    assert!(pauses.iter().all(|pause| is_about(*pause, 4)), "{pauses:?}");
}

#[test]
fn the_breaker_begins_anew_after_a_success_or_an_eviction() {
    let mut memory = Memory::new(8, 4);
    pauses(&mut memory, 1000, Reason::KmsTimeout, 10);
    memory.put(&OF, at(2000));
    memory.shared().evict(&OF.id, at(2000).instant);
    let first = pauses(&mut memory, 2001, Reason::KmsTimeout, 10)[0];
    assert!(is_about(first, 4), "{first}");
    // Whoever evicts wants to know at once how it is.
    let evicted = subject(1, 1);
    let permit = memory.permit(&evicted, 1, at(2002));
    let failed = permit.ended(&evicted, 2002, 2002);
    memory.shared().failed(&failed, &Reason::KmsTimeout.into());
    let until = memory.refused_until(&evicted, at(2002)).unwrap();
    assert!(is_about(until - at(2002).instant, 4), "{until}");
}

#[test]
fn a_process_that_fails_for_reasons_of_its_own_holds_up_no_other() {
    let mut memory = Memory::new(8, 4);
    let outcome = memory.fail(&OF, 1, 100, Reason::Credentials);
    assert!(matches!(outcome, Outcome::Failing(change) if change.is_news()));
    assert_eq!(memory.record(&OF).last_state().unwrap().key_state(), KeyState::Misconfigured);
    // Nor does a call that is on its way: it may well meet the same.
    memory.permit(&OF, 1, at(100));
    memory.permit(&OF, 2, at(100));
    // What all of them meet does.
    memory.fail(&OF, 2, 101, Reason::KmsTimeout);
    assert!(memory.refused_until(&OF, at(101)).is_some());
}

#[test]
fn a_process_of_its_own_business_does_not_hide_a_revocation() {
    let mut memory = Memory::new(8, 4);
    memory.fail(&OF, 1, 100, Reason::KeyDisabled);
    let outcome = memory.fail(&OF, 1, 110, Reason::Credentials);
    assert_eq!(outcome, Outcome::Failing(Change::NONE));
    let state = memory.record(&OF).last_state().unwrap();
    assert_eq!((state.key_state(), state.since), (KeyState::Revoked, 100_000_000));
}

#[test]
fn a_process_of_its_own_business_that_was_overtaken_says_nothing() {
    let mut memory = Memory::new(8, 4);
    let lost = memory.permit(&OF, 1, at(100));
    memory.put(&OF, at(107));
    let ended = lost.ended(&OF, 100, 108);
    let outcome = memory.shared().failed(&ended, &Reason::Credentials.into());
    assert_eq!(outcome, Outcome::Unrelated);
    assert_eq!(memory.record(&OF).last_state().unwrap().key_state(), KeyState::Usable);
}

#[test]
fn a_damaged_data_key_says_nothing_about_its_tenants_key() {
    let mut memory = Memory::new(8, 4);
    assert_eq!(memory.fail(&OF, 1, 100, Reason::CommitmentMismatch), Outcome::Unrelated);
    assert_eq!(memory.record(&OF).last_state(), None);
    assert!(matches!(memory.begin(&OF, 1, at(100)), Step::Ask(_)));
}

#[test]
fn nothing_is_fetched_ahead_of_need_during_a_pause_or_another_call() {
    let mut memory = Memory::new(8, 4);
    memory.fail(&OF, 1, 101, Reason::KmsTimeout);
    let until = memory.refused_until(&OF, at(101)).unwrap();
    let check = |memory: &mut Memory, of: &Subject, instant| {
        memory.shared().begin_check(of, 2, Now { instant, wall: 0 }, &RULES)
    };
    assert!(check(&mut memory, &OF, until - 1).is_none());
    assert!(check(&mut memory, &subject(2, 0), until - 1).is_some(), "of another tenant");
    let permit = check(&mut memory, &OF, until).unwrap();
    assert!(check(&mut memory, &OF, until).is_none(), "a call is on its way");
    // It was slow: no other for a while.
    memory.shared().abandon(&permit, until + 5);
    assert!(check(&mut memory, &OF, until + 4).is_none());
    assert!(check(&mut memory, &OF, until + 5).is_some());
}

#[test]
fn the_longest_rest_after_a_slow_call_holds() {
    let mut memory = Memory::new(8, 4);
    for (seconds, rest) in [(100, 50), (101, 20)] {
        let permit = memory.permit(&OF, 1, at(seconds));
        memory.shared().abandon(&permit, at(seconds + rest).instant);
    }
    assert_eq!(memory.record(&OF).stats.kms_calls, 2);
    let mut check = |seconds| memory.shared().begin_check(&OF, 1, at(seconds), &RULES);
    assert!(check(149).is_none() && check(150).is_some());
}

#[test]
fn a_recovery_ends_the_pause_and_is_told_to_the_monitor() {
    let mut memory = Memory::new(8, 4);
    memory.fail(&OF, 1, 100, Reason::KmsThrottled);
    memory.put(&OF, at(110));
    let record = memory.record(&OF);
    let told: Vec<_> = record.history.unannounced().collect();
    let change = |from, to| Change { from, to: Some(to), other_reason: false };
    let expected = [
        PastChange {
            at: 100_000_000,
            change: change(None, KeyState::Throttled),
            reason: Some(Reason::KmsThrottled),
        },
        PastChange {
            at: 110_000_000,
            change: change(Some(KeyState::Throttled), KeyState::Usable),
            reason: None,
        },
    ];
    assert_eq!(told, expected);
    assert_eq!(memory.notices(), 1);
}
