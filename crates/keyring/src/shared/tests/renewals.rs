//! Renewals ahead of need: by a query, or by a process that does nothing else.

use super::*;

const OF: Subject = subject(1, 0);
const WAIT: u64 = SECOND / 10;

/// A data key that KMS took `took` nanoseconds to unwrap.
fn unwrapped_in(took: u64, slots: usize) -> Memory {
    let mut memory = Memory::new(8, slots);
    let permit = memory.permit(&OF, 1, at(100));
    let now = Now { instant: at(100).instant + took, wall: 0 };
    let began = at(100).instant;
    let ended = EndedCall { permit: &permit, subject: &OF, began, now, rules: &RULES };
    memory.succeed(&ended, &dek(), true);
    memory
}

fn renew(memory: &mut Memory, now: u64, wait: u64) -> Renewal {
    let (unwrapped_at, now) = (at(100).instant, Now { instant: now, wall: 0 });
    memory.shared().begin_renewal(&OF, &fingerprint(&OF), unwrapped_at, 2, now, &RULES, wait)
}

fn limit(renewal: Renewal) -> Option<(u64, bool)> {
    match renewal {
        Renewal::Ask(_, Patience { limit, is_stretched }) => Some((limit, is_stretched)),
        _ => None,
    }
}

#[test]
fn a_query_renews_by_itself_where_kms_is_near() {
    let mut memory = unwrapped_in(WAIT / 2, 4);
    assert_eq!(limit(renew(&mut memory, at(300).instant, WAIT)), Some((WAIT, false)));
}

#[test]
fn where_kms_is_far_the_renewer_is_told_once() {
    let mut memory = unwrapped_in(SECOND * 15 / 100, 4);
    let now = at(300).instant;
    assert!(matches!(renew(&mut memory, now, WAIT), Renewal::HandOver));
    assert!(matches!(renew(&mut memory, now + SECOND, WAIT), Renewal::Later));
    let mut databases = BTreeSet::new();
    memory.shared().wanting_renewal(0..8, &mut databases);
    assert_eq!(databases, BTreeSet::from([OF.database]));
    assert_eq!(memory.shared().note_renewals(0..8, 6), []);
    assert_eq!(memory.shared().note_renewals(0..8, OF.database), [OF.id]);
    assert_eq!(memory.shared().note_renewals(0..8, OF.database), []);
    databases.clear();
    memory.shared().wanting_renewal(0..8, &mut databases);
    assert_eq!(databases, BTreeSet::new());
    // What it does serves everybody.
    let permit = memory.shared().begin_check(&OF, 3, at(301), &RULES).expect("a permit");
    assert!(matches!(renew(&mut memory, at(301).instant, WAIT), Renewal::Later));
    memory.succeed(&permit.ended(&OF, 301, 302), &dek(), false);
    let Renewal::Take(taken) = renew(&mut memory, at(302).instant, WAIT) else { panic!("gone") };
    assert_eq!(taken.unwrapped_at, at(301).instant);
}

#[test]
fn a_query_does_what_the_renewer_does_not_get_to() {
    let mut memory = unwrapped_in(SECOND * 15 / 100, 4);
    let now = at(300).instant;
    assert!(matches!(renew(&mut memory, now, WAIT), Renewal::HandOver));
    assert!(matches!(renew(&mut memory, now + 2 * SECOND - 1, WAIT), Renewal::Later));
    let latency = SECOND * 15 / 100;
    assert_eq!(limit(renew(&mut memory, now + 2 * SECOND, WAIT)), Some((2 * latency, true)));
}

#[test]
fn what_no_renewer_is_there_for_is_not_wanted_any_more() {
    let mut memory = unwrapped_in(SECOND * 15 / 100, 4);
    let now = at(300).instant;
    assert!(matches!(renew(&mut memory, now, WAIT), Renewal::HandOver));
    let wanting = |memory: &mut Memory| {
        let mut databases = BTreeSet::<u32>::new();
        memory.shared().wanting_renewal(0..usize::MAX, &mut databases);
        Vec::from_iter(databases)
    };
    let database = memory.record(&OF).database;
    assert_eq!(wanting(&mut memory), [database]);
    memory.shared().forget_renewals(0..usize::MAX, database + 1);
    assert_eq!(wanting(&mut memory), [database]);
    memory.shared().forget_renewals(0..usize::MAX, database);
    assert!(wanting(&mut memory).is_empty());
    assert!(memory.shared().note_renewals(0..usize::MAX, database).is_empty());
    assert!(matches!(renew(&mut memory, now, WAIT), Renewal::HandOver));
}

#[test]
fn a_data_key_without_a_place_is_not_handed_over_again_and_again() {
    let mut memory = unwrapped_in(SECOND * 15 / 100, 4);
    assert!(matches!(renew(&mut memory, at(300).instant, WAIT), Renewal::HandOver));
    memory.shared().clear_data_keys();
    let permit = memory.shared().begin_check(&OF, 3, at(301), &RULES).expect("a permit");
    memory.succeed(&permit.ended(&OF, 301, 302), &dek(), false);
    assert!(limit(renew(&mut memory, at(303).instant, WAIT)).is_some());
}

#[test]
fn without_a_renewer_a_query_waits_as_long_as_kms_takes_and_no_longer_than_a_second() {
    let latencies = [15, 50, 80, 120].map(|hundredths| SECOND * hundredths / 100);
    let limits = latencies.map(|latency| {
        let mut memory = unwrapped_in(latency, 0);
        limit(renew(&mut memory, at(300).instant, WAIT))
    });
    let stretched = |limit| Some((limit, true));
    let expected = [stretched(SECOND * 30 / 100), stretched(SECOND), stretched(SECOND), None];
    assert_eq!(limits, expected);
    // None could be started.
    let mut memory = unwrapped_in(latencies[0], 4);
    memory.counters.no_renewer_until.store(at(301).instant, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(limit(renew(&mut memory, at(300).instant, WAIT)), stretched(SECOND * 30 / 100));
}

#[test]
fn a_wait_of_zero_is_none_at_all() {
    let mut memory = unwrapped_in(1, 0);
    assert!(matches!(renew(&mut memory, at(300).instant, 0), Renewal::Later));
    let mut memory = unwrapped_in(1, 4);
    assert!(matches!(renew(&mut memory, at(300).instant, 0), Renewal::HandOver));
}

/// What a renewal does that is given up: its limit, and when the next one may be tried.
fn give_up(memory: &mut Memory, now: u64) -> (u64, u64) {
    let Renewal::Ask(permit, patience) = renew(memory, now, WAIT) else { panic!("not now") };
    let (took, ttl) = (patience.limit, RULES.failure_ttl);
    memory.shared().give_up_renewal(&permit, patience, took, now + took, ttl);
    (patience.limit, memory.record(&OF).refresh_after - now - took)
}

#[test]
fn one_that_was_given_up_teaches_how_long_kms_takes_at_least_and_no_more_than_that() {
    let mut memory = unwrapped_in(1, 0);
    let mut now = at(300).instant;
    let mut given_up = Vec::new();
    for _ in 0..6 {
        let (limit, pause) = give_up(&mut memory, now);
        now += limit + pause;
        given_up.push((limit / (SECOND / 10), pause));
    }
    let limits: Vec<_> = given_up.iter().map(|(limit, _)| *limit).collect();
    assert_eq!(limits, [1, 2, 2, 2, 2, 2], "a hung KMS makes queries wait longer and longer");
    for ((_, pause), times) in given_up.into_iter().zip([1, 2, 4, 8, 8, 8]) {
        let ttl = RULES.failure_ttl * times;
        assert!((ttl - ttl / 4..=ttl + ttl / 4).contains(&pause), "{pause} {times}");
    }
    // An answer ends that.
    let permit = memory.permit(&OF, 1, Now { instant: now, wall: 0 });
    let ended = EndedCall {
        permit: &permit,
        subject: &OF,
        began: now,
        now: Now { instant: now + 7, wall: 0 },
        rules: &RULES,
    };
    memory.succeed(&ended, &dek(), true);
    assert_eq!(give_up(&mut memory, now + SECOND).0, WAIT);
}
