//! Of many processes that lack a data key one asks; the others wait, or take what it got.

use super::*;

const OF: Subject = subject(1, 0);

#[test]
fn a_shared_data_key_is_taken_within_its_ttl_and_not_a_nanosecond_longer() {
    let mut memory = Memory::new(8, 4);
    memory.put(&OF, at(100));
    let end = at(400).instant;
    let now = |instant| Now { instant, wall: 0 };
    match memory.begin(&OF, 2, now(end - 1)) {
        Step::Take(taken) => {
            assert_eq!(taken.dek.expose_secret(), &[1; 32]);
            assert_eq!(taken.unwrapped_at, at(100).instant);
            assert_eq!(taken.tag, memory.shared().find(&OF.id).unwrap().0);
        }
        _ => panic!("it is not there"),
    }
    assert!(matches!(memory.begin(&OF, 2, now(end)), Step::Ask(_)));
}

#[test]
fn who_takes_a_copy_is_known_to_have_it() {
    let mut memory = Memory::new(8, 4);
    memory.put(&OF, at(100));
    assert_eq!(memory.record(&OF).copies_until, at(400).instant);
    let longer = Rules { ttl: 500 * SECOND, ..RULES };
    memory.shared().begin(&OF, &fingerprint(&OF), 2, at(150), &longer);
    let record = memory.record(&OF);
    assert_eq!((record.copies_until, record.used_at), (at(600).instant, at(150).instant));
    // Whose TTL is shorter takes nothing back.
    memory.shared().begin(&OF, &fingerprint(&OF), 2, at(151), &RULES);
    assert_eq!(memory.record(&OF).copies_until, at(600).instant);
}

#[test]
fn a_refresh_takes_a_younger_copy_only() {
    let mut memory = Memory::new(8, 4);
    memory.put(&OF, at(100));
    let mut refresh = |unwrapped_at, seconds| {
        let (now, print) = (at(seconds), fingerprint(&OF));
        memory.shared().begin_renewal(&OF, &print, unwrapped_at, 2, now, &RULES, SECOND)
    };
    let unwrapped_at = at(100).instant;
    assert!(matches!(refresh(unwrapped_at - 1, 200), Renewal::Take(_)));
    let Renewal::Ask(permit, _) = refresh(unwrapped_at, 200) else { panic!("it is as old") };
    assert!(matches!(refresh(unwrapped_at, 200), Renewal::Later), "somebody is asking");
    memory.shared().abandon(&permit, 0);
    memory.fail(&subject(1, 1), 1, 201, Reason::KmsTimeout);
    let (of, now) = (subject(1, 1), at(201));
    let step = memory.shared().begin_renewal(&of, &fingerprint(&of), 0, 2, now, &RULES, SECOND);
    assert!(matches!(step, Renewal::Later), "an outage is remembered");
}

#[test]
fn where_no_data_keys_are_shared_each_process_asks_for_itself() {
    let mut memory = Memory::new(8, 0);
    memory.permit(&OF, 1, at(100));
    memory.permit(&OF, 2, at(100));
    let mut memory = Memory::new(8, 4);
    memory.permit(&OF, 1, at(100));
    assert!(matches!(memory.begin(&OF, 2, at(100)), Step::Wait(_)));
}

#[test]
fn nobody_waits_for_a_call_that_he_makes_himself() {
    let mut memory = Memory::new(8, 4);
    memory.permit(&OF, 1, at(100));
    // An interrupt ended it, and nobody said so yet.
    memory.permit(&OF, 1, at(100));
}

#[test]
fn a_wait_is_over_when_the_call_should_be() {
    let mut memory = Memory::new(8, 4);
    memory.permit(&OF, 1, at(100));
    let Step::Wait(awaited) = memory.begin(&OF, 2, at(100)) else { panic!("no wait") };
    let now = |instant| Now { instant, wall: 0 }.instant;
    let timeout = at(106).instant;
    assert_eq!(memory.shared().caller_of(awaited, now(timeout - 1)), Some(1));
    assert_eq!(memory.shared().caller_of(awaited, now(timeout)), None);
    assert!(memory.record(&OF).is_being_asked(timeout - 1));
    assert!(!memory.record(&OF).is_being_asked(timeout));
}

#[test]
fn only_the_lost_call_itself_is_abandoned_for_its_process() {
    let mut memory = Memory::new(8, 4);
    memory.permit(&OF, 1, at(100));
    let Step::Wait(awaited) = memory.begin(&OF, 2, at(100)) else { panic!("no wait") };
    memory.permit(&OF, 1, at(107));
    assert!(!memory.shared().abandon_call_of(awaited, 1), "the same process asks anew");
    assert!(memory.record(&OF).is_being_asked(at(107).instant));
}

#[test]
fn a_spent_budget_refuses_for_a_moment_and_is_counted() {
    let mut memory = Memory::new(8, 4);
    let rules = Rules { budget: 1, ..RULES };
    let begin =
        |memory: &mut Memory, now| memory.shared().begin(&OF, &fingerprint(&OF), 1, now, &rules);
    assert!(matches!(begin(&mut memory, at(100)), Step::Ask(_)));
    let Step::Refuse(error, until) = begin(&mut memory, at(101)) else { panic!("not refused") };
    assert_eq!(error.reason, Reason::CallBudgetSpent);
    assert_eq!(until, at(101).instant + SECOND / 10);
    assert!(memory.shared().begin_check(&OF, 1, at(107), &rules).is_none());
    assert_eq!(memory.record(&OF).stats.refused, 2);
    assert!(matches!(begin(&mut memory, at(160)), Step::Ask(_)));
}

#[test]
fn calls_are_told_apart_whatever_record_they_are_entered_in() {
    let counters = SharedCounters::new();
    assert_eq!([counters.next_call(), counters.next_call()], [1, 2], "0 stands for none");
}

#[test]
fn an_administrators_call_waits_for_another_and_minds_outages_only() {
    let mut memory = Memory::new(8, 4);
    let begin = |memory: &mut Memory, pid, seconds| {
        memory.shared().begin_call(&OF, pid, at(seconds), &RULES)
    };
    memory.fail(&OF, 1, 100, Reason::KeyDisabled);
    let Step::Ask(permit) = begin(&mut memory, 1, 100) else { panic!("a refusal may end") };
    assert!(matches!(begin(&mut memory, 2, 100), Step::Wait(_)));
    memory.shared().failed(&permit.ended(&OF, 100, 101), &Reason::KmsThrottled.into());
    assert!(matches!(begin(&mut memory, 1, 101), Step::Refuse(..)));
    assert!(matches!(begin(&mut memory, 1, 107), Step::Ask(_)));
}
