//! The data keys that all processes share.

use super::*;

#[test]
fn the_least_recently_used_data_key_goes_first() {
    let mut memory = Memory::new(8, 3);
    for id in 1..=3 {
        memory.put(&subject(id, 0), at(100 + u64::from(id)));
    }
    let taken =
        memory.shared().begin(&subject(1, 0), &fingerprint(&subject(1, 0)), 2, at(110), &RULES);
    assert!(matches!(taken, Step::Take(_)));
    memory.put(&subject(4, 0), at(111));
    let there: Vec<_> = (1..=4).filter(|id| memory.has(&subject(*id, 0), at(111))).collect();
    assert_eq!(there, [1, 3, 4]);
}

#[test]
fn what_is_past_the_ttl_is_zeroed() {
    let mut memory = Memory::new(8, 3);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(200));
    assert_eq!(memory.shared().expire(0..8, 100 * SECOND), Some(200 * SECOND));
    assert!(memory.slots.iter().all(|slot| !slot.holds(1)));
    assert_eq!(memory.shared().expire(0..8, 200 * SECOND), None);
    assert!(memory.slots.iter().all(|slot| !slot.holds(2)));
}

#[test]
fn an_eviction_zeroes_older_data_keys_of_that_tenant_only() {
    let mut memory = Memory::new(8, 4);
    memory.put(&subject(1, 7), at(100));
    memory.put(&subject(2, 7), at(100));
    memory.permit(&subject(1, 8), 1, at(101));
    assert!(!memory.has(&subject(1, 7), at(101)) && memory.has(&subject(2, 7), at(101)));
}

#[test]
fn a_mere_check_keeps_no_data_key_unless_somebody_waits_for_it() {
    let mut memory = Memory::new(8, 4);
    for (id, waits) in [(1, false), (2, true)] {
        let of = subject(id, 0);
        let permit = memory.shared().begin_check(&of, 1, at(100), &RULES).unwrap();
        if waits {
            let step = memory.shared().begin(&of, &fingerprint(&of), 2, at(100), &RULES);
            assert!(matches!(step, Step::Wait(_)));
        }
        let dek = SecretKey::from_slice(&[9; 32]).unwrap();
        let ended = permit.ended(&of, 100, 101);
        memory.succeed(&ended, &dek, false);
        assert_eq!(memory.has(&of, at(101)), waits);
    }
}

#[test]
fn one_unwrap_renews_what_is_within_its_ttl_and_revives_nothing() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    memory.put(&of, at(100));
    let check = |memory: &mut Memory, seconds| {
        let permit = memory.shared().begin_check(&of, 1, at(seconds), &RULES).unwrap();
        let dek = SecretKey::from_slice(&[9; 32]).unwrap();
        let ended = permit.ended(&of, seconds, seconds);
        memory.succeed(&ended, &dek, false);
    };
    check(&mut memory, 399);
    assert!(memory.has(&of, at(500)));
    check(&mut memory, 699);
    assert!(!memory.has(&of, at(700)));
}

#[test]
fn the_links_of_a_tenants_data_keys_survive_whatever_takes_their_places() {
    let mut memory = Memory::new(8, 5);
    // Tenants take one another's places, data keys expire, tenants are revoked: in any order.
    for round in 0_u64..2_000 {
        let of = subject((round * 7 % 5) as u8 + 1, round / 50);
        let now = at(1_000 + round);
        match round % 11 {
            0 => memory.shared().revoke(&of, now.instant),
            1 => drop(memory.shared().expire(0..3, now.instant - 20 * SECOND)),
            2 => memory.shared().evict(&of.id, now.instant),
            _ => memory.put_version(&of, (round % 3) as u8, now),
        }
        let linked: usize = memory.links().iter().map(Vec::len).sum();
        assert_eq!(linked, memory.held(), "round {round}");
    }
}

#[test]
fn a_full_table_keeps_each_tenants_data_keys_apart() {
    let mut memory = Memory::new(8, 8);
    for version in 0..3 {
        memory.put_version(&subject(1, 0), version, at(100));
    }
    memory.put(&subject(2, 0), at(100));
    assert_eq!(memory.held(), 4);
    memory.shared().revoke(&subject(1, 0), at(101).instant);
    assert_eq!(memory.held(), 1);
    assert!(memory.has(&subject(2, 0), at(101)));
}

#[test]
fn everything_is_zeroed_whatever_state_it_is_in() {
    let mut memory = Memory::new(8, 4);
    memory.put(&subject(1, 0), at(100));
    memory.shared().clear_data_keys();
    assert!(memory.held() == 0 && memory.slots.iter().all(|slot| !slot.holds(1)));
    memory.put(&subject(1, 0), at(110));
    assert_eq!(memory.held(), 1);
}

#[test]
fn a_data_key_that_nobody_used_is_not_renewed() {
    for used in [false, true] {
        let mut memory = Memory::new(8, 4);
        let of = subject(1, 0);
        memory.put(&of, at(100));
        let check = |memory: &mut Memory, seconds| {
            let permit = memory.shared().begin_check(&of, 1, at(seconds), &RULES).unwrap();
            memory.succeed(&permit.ended(&of, seconds, seconds), &dek(), false);
        };
        check(&mut memory, 300);
        if used {
            assert!(matches!(memory.begin(&of, 2, at(350)), Step::Take(_)));
        }
        check(&mut memory, 500);
        // Without the second renewal it ends at 600.
        assert!(memory.has(&of, at(599)));
        assert_eq!(memory.has(&of, at(600)), used);
    }
}

#[test]
fn what_is_as_old_as_the_ttl_is_not_renewed() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    memory.put(&of, at(100));
    memory.begin(&of, 2, at(399));
    // Unwrapped at 100 and used at 399: a nanosecond less, and it may live on.
    let permit = memory.shared().begin_check(&of, 1, at(400), &RULES).unwrap();
    memory.succeed(&permit.ended(&of, 400, 400), &dek(), false);
    assert!(!memory.has(&of, at(401)));
}

#[test]
fn what_was_used_a_ttl_ago_is_not_renewed() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    memory.put(&of, at(100));
    for seconds in [200, 400] {
        let permit = memory.shared().begin_check(&of, 1, at(seconds), &RULES).unwrap();
        memory.succeed(&permit.ended(&of, seconds, seconds), &dek(), false);
    }
    // Used at 100 for the last time.
    assert!(memory.has(&of, at(499)) && !memory.has(&of, at(500)));
}

#[test]
fn a_renewal_makes_nothing_older() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let slow = memory.permit(&of, 1, at(100));
    memory.put(&of, at(107));
    memory.succeed(&slow.ended(&of, 100, 108), &dek(), false);
    assert!(memory.has(&of, at(406)));
}

#[test]
fn an_unwrap_of_another_copy_replaces_the_older_one() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    for seconds in [100, 401, 702] {
        memory.put(&of, at(seconds));
        assert_eq!(memory.held(), 1);
        assert_eq!(memory.links().iter().map(Vec::len).sum::<usize>(), 1);
    }
}

#[test]
fn after_everything_was_zeroed_no_record_links_anything() {
    let mut memory = Memory::new(8, 4);
    for id in 1..=3 {
        memory.put(&subject(id, 0), at(100));
    }
    memory.shared().clear_data_keys();
    assert!(memory.links().iter().all(Vec::is_empty));
}

#[test]
fn where_nothing_is_shared_nothing_is_kept() {
    let mut memory = Memory::new(8, 0);
    memory.put(&subject(1, 0), at(100));
    assert!(!memory.has(&subject(1, 0), at(100)));
}
