//! Calls of KMS: of many processes one asks.

use super::*;

#[test]
fn a_lost_call_is_taken_over_and_its_outcome_counts_only_once() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let lost = memory.permit(&of, 1, at(100));
    let step = memory.shared().begin(&of, &fingerprint(&of), 2, at(105), &RULES);
    assert!(matches!(step, Step::Wait(_)));
    let second = memory.permit(&of, 2, at(106));
    memory.shared().abandon(&lost, 0);
    let step = memory.shared().begin(&of, &fingerprint(&of), 3, at(107), &RULES);
    assert!(matches!(step, Step::Wait(_)), "the first process ended the permit of the second");
    let Step::Wait(awaited) = step else { return };
    assert!(!memory.shared().abandon_call_of(awaited, 1), "it is the call of another");
    assert!(memory.shared().abandon_call_of(awaited, 2));
    assert!(!memory.shared().abandon_call_of(awaited, 2), "it is over");
    memory.shared().abandon(&second, 0);
    memory.permit(&of, 3, at(107));
}

#[test]
fn an_unwrap_begun_before_a_revocation_was_seen_is_refused() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let early = memory.permit(&of, 1, at(100));
    let late = memory.permit(&of, 2, at(107));
    let error = Error::new(Reason::KeyDisabled).with_info("request_id=1");
    let Outcome::Revoked(_, change) = memory.shared().failed(&late.ended(&of, 107, 108), &error)
    else {
        panic!("not revoked");
    };
    assert_eq!(change.to, Some(KeyState::Revoked));
    let dek = SecretKey::from_slice(&[9; 32]).unwrap();
    let ended = early.ended(&of, 100, 109);
    let refused = memory.shared().succeeded(&ended, Some((&fingerprint(&of), &dek)), true);
    assert_eq!(refused, Outcome::Revoked(error, Change::NONE));
    assert_eq!(memory.held(), 0);
}

#[test]
fn an_overtaken_call_that_fails_changes_nothing() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let lost = memory.permit(&of, 1, at(100));
    let second = memory.permit(&of, 2, at(107));
    let dek = SecretKey::from_slice(&[9; 32]).unwrap();
    let ended = second.ended(&of, 107, 108);
    memory.succeed(&ended, &dek, true);
    let outcome = memory.shared().failed(&lost.ended(&of, 100, 109), &Reason::KmsTimeout.into());
    assert_eq!(outcome, Outcome::Superseded);
    let again = memory.shared().begin(&of, &fingerprint(&of), 1, at(109), &RULES);
    assert!(matches!(again, Step::Take(_)));
}

#[test]
fn a_wait_is_for_one_call_whatever_begins_after_it() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let first = memory.permit(&of, 1, at(100));
    let step = memory.shared().begin(&of, &fingerprint(&of), 2, at(100), &RULES);
    let Step::Wait(awaited) = step else { panic!("nothing to wait for") };
    assert_eq!(memory.shared().caller_of(awaited, at(101).instant), Some(1));
    memory.shared().abandon(&first, 0);
    memory.permit(&of, 3, at(101));
    assert_eq!(memory.shared().caller_of(awaited, at(101).instant), None);
}
