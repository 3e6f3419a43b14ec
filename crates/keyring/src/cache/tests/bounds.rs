//! However long a process lives, its cache stays as large as it was told, and as fast.

use super::*;

#[test]
fn a_miss_in_a_full_cache_looks_at_few_data_keys() {
    let mut of = fixture(500);
    (0..500).for_each(|number| of.miss(number));
    of.cache.looks.set(0);
    (500..2500).for_each(|number| of.miss(number));
    // One is dropped for each, a few tenants are tried; all are looked at once in a while only.
    assert!(of.cache.looks.value() <= 2000 * 12, "{} looks", of.cache.looks.value());
    assert_eq!(of.cache.len(), 500);
}

#[test]
fn what_was_used_since_costs_one_more_look_for_each_use() {
    let mut of = fixture(500);
    of.register(tenant("acme", &[]));
    (0..500).for_each(|number| of.put("acme", number));
    of.cache.looks.set(0);
    for number in 500..2500 {
        // Used in the order in which they were put in, so that none is where it belongs.
        (number - 250..number).step_by(50).for_each(|used| of.use_key("acme", used));
        of.put("acme", number);
    }
    let (uses, misses) = (2000 * 5, 2000);
    assert!(of.cache.looks.value() <= uses + misses * 3, "{} looks", of.cache.looks.value());
}

#[test]
fn data_keys_that_are_replaced_do_not_pile_up_in_the_queues() {
    for held in [1, 100] {
        let mut of = fixture(1000);
        (0..held).for_each(|number| of.miss(number));
        of.cache.looks.set(0);
        for round in 0..2000 {
            of.put(&name_of(round % held), round % held);
            let [by_use, by_unwrap, _] = of.queued();
            let most = 2 * held as usize + 64;
            assert!(by_use <= most && by_unwrap <= most, "{by_use} and {by_unwrap} of {held}");
        }
        assert_eq!((of.cache.len(), of.cache.dropped_for_room()), (held as usize, 0));
        assert!(of.cache.looks.value() <= 2000 * 3, "{} looks", of.cache.looks.value());
    }
}

#[test]
fn tenants_that_are_registered_anew_do_not_pile_up_in_the_queues() {
    let of = fixture(1000);
    (0..500).for_each(|number| of.register(tenant(&name_of(number), &[])));
    of.cache.looks.set(0);
    for _ in 0..2000 {
        of.cache.remove_tenant("tenant-7");
        of.register(tenant("tenant-7", &[]));
        assert!(of.queued()[2] <= 2 * 500 + 64);
    }
    assert_eq!(of.cache.tenants.len(), 500);
    assert!(of.cache.looks.value() <= 2000 * 3, "{} looks", of.cache.looks.value());
}

#[test]
fn tenants_without_a_data_key_are_bounded_and_those_with_one_stay() {
    let mut of = fixture(10);
    (0..5).for_each(|number| of.miss(number));
    for number in 100..1000 {
        of.register(tenant(&name_of(number), &[]));
        assert!(of.cache.tenants.len() <= 11, "{} tenants", of.cache.tenants.len());
        // The newest is what is needed now.
        assert!(of.cache.get(&name_of(number)).is_some());
    }
    assert_eq!(of.cache.tenants.len(), 11);
    assert!((0..5).all(|number| of.has(&name_of(number), number)));
    assert!(of.queued()[2] <= 2 * 11 + 64);
}

#[test]
fn few_tenants_are_kept_although_they_have_no_data_key() {
    let of = fixture(10);
    (0..11).for_each(|number| of.register(tenant(&name_of(number), &[])));
    assert!((0..11).all(|number| of.cache.get(&name_of(number)).is_some()));
}

#[test]
fn one_data_key_is_held_even_if_there_is_room_for_none() {
    let mut of = fixture(0);
    of.miss(1);
    assert_eq!(of.cache.len(), 1);
    of.miss(2);
    assert_eq!((of.cache.len(), of.cache.dropped_for_room()), (1, 1));
    assert!(of.has("tenant-2", 2));
}

#[test]
fn what_is_dropped_for_another_reason_leaves_no_trace_in_the_count() {
    let mut of = fixture(10);
    (0..10).for_each(|number| of.miss(number));
    of.cache.remove_tenant("tenant-3");
    of.cache.expire(1001);
    assert_eq!((of.cache.len(), of.cache.dropped_for_room()), (8, 0));
    assert!(!of.cache.is_empty());
    // Room for two.
    of.miss(20);
    of.miss(21);
    assert_eq!((of.cache.len(), of.cache.dropped_for_room()), (10, 0));
    of.cache.clear();
    assert!(of.cache.is_empty() && of.cache.tenants.is_empty());
    assert_eq!(of.queued(), [0; 3]);
}

#[test]
fn the_room_that_was_made_smaller_is_heeded_by_the_next_miss() {
    let mut of = fixture(10);
    (0..10).for_each(|number| of.miss(number));
    of.capacity = 4;
    of.miss(20);
    assert_eq!((of.cache.len(), of.cache.dropped_for_room()), (4, 7));
    assert!((7..10).all(|number| of.has(&name_of(number), number)));
}

#[test]
fn tenants_with_a_data_key_do_not_hide_those_without_one() {
    let mut of = fixture(100);
    // As many with a data key as there is room for, one behind another.
    (0..100).for_each(|number| of.miss(number));
    for number in 100..3000 {
        of.register(tenant(&name_of(number), &[]));
        assert!(of.cache.tenants.len() <= 150, "{} tenants", of.cache.tenants.len());
    }
    assert!((0..100).all(|number| of.has(&name_of(number), number)));
}

#[test]
fn hits_that_were_not_told_yet_take_no_more_room_than_the_tenants_they_are_of() {
    let mut of = fixture(1);
    for round in 0..2000 {
        // Two tenants whose values alternate, and room for one: a query of many rows.
        of.miss(round % 2);
        of.count_hits(&name_of(round % 2), round % 2, 1);
    }
    assert!(lock(&of.cache.totals.unflushed).len() <= 2);
    let mut uses = of.cache.take_unflushed_uses();
    uses.sort_unstable_by_key(|(tag, _)| tag.0);
    let told: u64 = uses.iter().map(|(_, uses)| uses.hits).sum();
    assert_eq!((told, uses[0].0), (2000, Tag::new(0, 1)));
}

#[test]
fn a_flush_looks_at_what_was_used_since_the_last_one_only() {
    let mut of = fixture(1000);
    (0..1000).for_each(|number| of.miss(number));
    (0..1000).for_each(|number| of.count_hits(&name_of(number), number, 1));
    assert_eq!(of.cache.take_unflushed_uses().len(), 1000);
    of.cache.looks.set(0);
    (0..5).for_each(|number| of.count_hits(&name_of(number % 2), number % 2, 1));
    assert_eq!(of.cache.take_unflushed_uses().len(), 2);
    assert_eq!(of.cache.looks.value(), 2);
}

#[test]
fn data_keys_that_are_gone_do_not_pile_up_among_those_that_were_used() {
    let mut of = fixture(100);
    of.cache.looks.set(0);
    for number in 0..2000 {
        of.miss(number);
        of.count_hits(&name_of(number), number, 1);
        assert!(lock(&of.cache.used).len() <= 2 * 100 + 65);
    }
    assert!(of.cache.looks.value() <= 2000 * 14, "{} looks", of.cache.looks.value());
    let uses = of.cache.take_unflushed_uses();
    assert_eq!(uses.iter().map(|(_, uses)| uses.hits).sum::<u64>(), 2000);
}
