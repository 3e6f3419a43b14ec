//! Which data key goes, and when.

use super::*;

/// Numbers that look random and are the same each time.
fn numbers(seed: u32) -> impl Iterator<Item = u32> {
    let next = |last: &u32| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(seed), next).map(|number| number >> 16)
}

#[test]
fn exactly_the_least_recently_used_is_dropped_for_room() {
    let mut of = fixture(8);
    // What should be there, the least recently used first.
    let (mut expected, mut dropped) = (Vec::new(), 0);
    for number in numbers(1).take(2000) {
        let (key, is_use) = (number % 20, number % 3 == 0);
        let there = expected.iter().position(|other| *other == key);
        match there {
            Some(at) => {
                expected.remove(at);
                // A data key that is unwrapped again takes no other's place.
                if is_use { of.use_key(&name_of(key), key) } else { of.miss(key) }
            }
            None => {
                if expected.len() == 8 {
                    expected.remove(0);
                    dropped += 1;
                }
                of.miss(key);
            }
        }
        expected.push(key);
        let all: Vec<_> = (0..20).filter(|key| of.has(&name_of(*key), *key)).collect();
        let mut sorted = expected.clone();
        sorted.sort_unstable();
        assert_eq!(all, sorted);
        assert_eq!(of.cache.dropped_for_room(), dropped);
        assert_eq!(of.cache.len(), expected.len());
    }
    assert!(dropped > 400, "{dropped} dropped");
}

#[test]
fn the_order_of_use_survives_that_the_queues_are_made_anew() {
    let mut of = fixture(3);
    (0..3).for_each(|number| of.miss(number));
    of.use_key("tenant-0", 0);
    let renewals = 100;
    (0..renewals).for_each(|_| of.put("tenant-2", 2));
    assert!(of.queued()[0] < renewals, "the queues were not made anew");
    of.miss(9);
    assert!(of.has("tenant-0", 0) && !of.has("tenant-1", 1), "1 was used before 0");
    of.miss(10);
    assert!(!of.has("tenant-0", 0) && of.has("tenant-2", 2));
}

#[test]
fn what_was_unwrapped_too_long_ago_is_dropped_and_not_a_moment_earlier() {
    let mut of = fixture(10);
    (0..3).for_each(|number| of.miss(number));
    // They were unwrapped at 1001, 1002 and 1003.
    of.cache.expire(1000);
    assert_eq!(of.cache.len(), 3);
    of.cache.expire(1002);
    assert_eq!(of.cache.len(), 1);
    assert!(of.has("tenant-2", 2));
    of.cache.expire(1003);
    assert!(of.cache.is_empty());
}

#[test]
fn a_data_key_that_was_refreshed_lives_longer_and_not_for_ever() {
    let mut of = fixture(10);
    (0..2).for_each(|number| of.miss(number));
    of.cache.get("tenant-0").unwrap().keys[0].unwrapped_at.set(2000);
    of.cache.expire(1999);
    assert!(of.has("tenant-0", 0) && !of.has("tenant-1", 1));
    of.cache.expire(2000);
    assert!(of.cache.is_empty());
}

#[test]
fn unwraps_are_forgotten_in_order_although_the_queues_were_made_anew() {
    let mut of = fixture(10);
    of.miss(0);
    of.miss(1);
    (0..100).for_each(|_| of.put("tenant-1", 1));
    of.cache.expire(1001);
    assert!(!of.has("tenant-0", 0) && of.has("tenant-1", 1));
}

#[test]
fn only_the_data_key_that_has_to_go_goes() {
    let mut of = fixture(3);
    of.register(tenant("acme", &[1, 2, 3]));
    (1..=3).for_each(|number| of.put("acme", number));
    of.miss(9);
    assert!(!of.has("acme", 1) && of.has("acme", 2) && of.has("acme", 3));
    of.cache.expire(1002);
    assert!(!of.has("acme", 2) && of.has("acme", 3));
}
