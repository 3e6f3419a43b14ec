//! What goes through the tables a part at a time, and what is counted there.

use super::*;

/// Eight records, of tenants 1 to 8, by turns of databases 5 and 6.
fn full() -> Memory {
    let mut memory = Memory::new(8, 8);
    (1..=8).for_each(|id| memory.put(&of(id), at(100 + u64::from(id))));
    memory
}

fn of(id: u8) -> Subject {
    Subject { database: 5 + u32::from(id % 2), ..subject(id, 0) }
}

impl Memory {
    fn place(&mut self, id: u8) -> usize {
        self.shared().find(&of(id).id).unwrap().0.record().unwrap()
    }

    /// The tenants of a database with a record in a range.
    fn ids(&mut self, range: std::ops::Range<usize>, database: u32) -> Vec<u8> {
        let of_database = (1..=8).filter(|id| of(*id).database == database);
        of_database.filter(|id| range.contains(&self.place(*id))).collect()
    }
}

#[test]
fn a_reset_concerns_the_counters_of_one_database() {
    let mut memory = full();
    memory.shared().reset_stats(2..6, 5);
    let reset = memory.ids(2..6, 5);
    assert!(!reset.is_empty());
    for id in 1..=8 {
        let stats = memory.record(&of(id)).stats;
        assert_eq!(stats.kms_calls, u64::from(!reset.contains(&id)));
        assert_eq!(stats.last_success, 100_000_000 + i64::from(id) * 1_000_000);
    }
    memory.shared().reset_stats(0..100, 6);
    memory.shared().reset_stats(50..100, 5);
    assert!((1..=8).all(|id| memory.record(&of(id)).stats.kms_calls == 0
        || of(id).database == 5 && !reset.contains(&id)));
}

#[test]
fn changes_are_made_known_once() {
    let mut memory = full();
    let unannounced = |memory: &mut Memory, range, database| {
        let records = memory.shared().unannounced(range, database);
        let mut ids: Vec<_> = records.iter().map(|record| record.id.0[0]).collect();
        ids.sort_unstable();
        ids
    };
    let expected = memory.ids(2..6, 5);
    assert_eq!(unannounced(&mut memory, 2..6, 5), expected);
    assert_eq!(unannounced(&mut memory, 0..100, 6), [1, 3, 5, 7]);
    assert!(unannounced(&mut memory, 50..100, 6).is_empty());
    let record = memory.record(&of(3));
    memory.shared().announced(&record);
    assert_eq!(unannounced(&mut memory, 0..8, 6), [1, 5, 7]);
    // What comes meanwhile is told the next time.
    let record = memory.record(&of(5));
    memory.fail(&Subject { epoch: 1, ..of(5) }, 1, 200, Reason::KmsTimeout);
    memory.shared().announced(&record);
    assert_eq!(unannounced(&mut memory, 0..8, 6), [1, 5, 7]);
    let told = memory.record(&of(5)).history;
    assert_eq!(told.unannounced().count(), 1);
}

#[test]
fn what_was_made_known_of_another_tenant_is_not_made_known_of_this_one() {
    let mut memory = Memory::new(1, 4);
    memory.put(&of(1), at(100));
    let record = memory.record(&of(1));
    // The record goes to another and back.
    memory.put(&of(2), at(101));
    memory.put(&of(1), at(102));
    memory.shared().announced(&record);
    assert_eq!(memory.record(&of(1)).history.unannounced().count(), 1);
}

#[test]
fn data_keys_in_use_are_those_that_were_used_after_their_unwrap() {
    let mut memory = full();
    let in_use = |memory: &mut Memory, range| {
        let mut all = memory.shared().in_use(range);
        all.sort_unstable_by_key(|(id, _)| id.0);
        all
    };
    assert!(in_use(&mut memory, 0..8).is_empty());
    let used: Vec<_> =
        [1, 4, 6].map(|id| (memory.shared().find(&of(id).id).unwrap().0, hits(2))).into();
    memory.shared().add_uses(&used, at(104).instant);
    // Tenant 4 was unwrapped at 104, tenant 6 later.
    assert_eq!(in_use(&mut memory, 0..8), [(of(1).id, at(101).instant)]);
    memory.shared().add_uses(&used, at(107).instant);
    let all = [1, 4, 6].map(|id| (of(id).id, at(100 + u64::from(id)).instant));
    assert_eq!(in_use(&mut memory, 0..100), all);
    let part = [1, 4, 6].into_iter().filter(|id| (2..6).contains(&memory.place(*id)));
    let part: Vec<_> = part.map(|id| (of(id).id, at(100 + u64::from(id)).instant)).collect();
    assert_eq!(in_use(&mut memory, 2..6), part);
    assert!(in_use(&mut memory, 50..100).is_empty());
    assert_eq!([1, 2].map(|id| memory.record(&of(id)).stats.hits), [4, 0]);
}

#[test]
fn of_several_data_keys_of_a_tenant_the_oldest_counts() {
    let mut memory = Memory::new(8, 8);
    let of = subject(1, 0);
    memory.put_version(&of, 1, at(100));
    // By its own call, which renews nothing: it is past the TTL of nobody.
    memory.put_version(&of, 2, at(100));
    let tag = memory.shared().find(&of.id).unwrap().0;
    memory.shared().add_uses(&[(tag, hits(1))], at(150).instant);
    assert_eq!(memory.shared().in_use(0..8), [(of.id, at(100).instant)]);
}

#[test]
fn a_sweep_says_when_the_next_data_key_is_due() {
    let mut memory = full();
    assert_eq!(memory.shared().expire(0..8, at(103).instant), Some(at(104).instant));
    assert_eq!(memory.held(), 5);
    assert_eq!(memory.shared().expire(0..0, at(400).instant), None);
    assert_eq!(memory.held(), 5);
    assert_eq!(memory.shared().expire(0..100, at(107).instant), Some(at(108).instant));
    assert_eq!(memory.held(), 1);
}

#[test]
fn a_sweep_of_a_part_leaves_the_rest() {
    let mut memory = full();
    memory.shared().expire(2..6, at(400).instant);
    assert_eq!(memory.held(), 4);
    memory.shared().expire(6..8, at(400).instant);
    assert_eq!(memory.held(), 2);
}

#[test]
fn looks_and_calls_are_counted_for_their_tenant() {
    let mut memory = Memory::new(8, 4);
    let of = of(1);
    memory.shared().count_look(&of, false, at(99).instant);
    memory.shared().count_look(&of, true, at(99).instant);
    memory.shared().count_look(&of, true, at(99).instant);
    let permit = memory.permit(&of, 1, at(100));
    memory.succeed(&permit.ended(&of, 100, 102), &dek(), true);
    memory.fail(&Subject { epoch: 1, ..of }, 1, 110, Reason::KmsTimeout);
    let stats = memory.record(&of).stats;
    assert_eq!((stats.misses, stats.waits), (1, 2));
    assert_eq!((stats.kms_calls, stats.kms_failures), (2, 1));
    assert_eq!((stats.last_success, stats.last_failure), (102_000_000, 110_000_000));
    let slowest = stats.latency.percentile(1.0).unwrap();
    assert!((2000.0..2000.0 * 1.4143).contains(&slowest), "{slowest}");
}
