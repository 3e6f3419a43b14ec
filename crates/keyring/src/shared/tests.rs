use super::subject::hash;
use super::*;
use cmk_crypto::key::SecretKey;

const SECOND: u64 = 1_000_000_000;

fn subject(id: u8, epoch: u64) -> Subject {
    Subject { id: TenantId([id; 16]), database: 5, custody: 1, epoch }
}

fn at(seconds: u64) -> Now {
    Now { instant: seconds * SECOND, wall: seconds as i64 * 1_000_000 }
}

const RULES: Rules =
    Rules { ttl: 300 * SECOND, failure_ttl: 4 * SECOND, patience: 6 * SECOND, budget: 0 };

struct Memory {
    words: Words,
    records: Vec<Record>,
    slots: Vec<Slot>,
    brakes: [Brake; 4],
}

impl Memory {
    fn new(records: usize, slots: usize) -> Self {
        Self {
            words: Words::new(),
            records: vec![Record::default(); records],
            slots: (0..slots).map(|_| Slot::default()).collect(),
            brakes: Default::default(),
        }
    }

    fn shared(&mut self) -> Shared<'_> {
        Shared {
            words: &self.words,
            records: &mut self.records,
            slots: &mut self.slots,
            brakes: &mut self.brakes,
        }
    }

    fn flight(&mut self, of: &Subject, process: u32, now: Now) -> Flight {
        match self.shared().begin(of, &fingerprint(of), process, now, &RULES) {
            Step::Fetch(flight) => flight,
            _ => panic!("no flight"),
        }
    }

    fn put(&mut self, of: &Subject, now: Now) {
        let flight = self.flight(of, 1, now);
        let dek = SecretKey::from_slice(&[of.id.0[0]; 32]).unwrap();
        let landing =
            Landing { flight: &flight, subject: of, began: now.instant, now, rules: &RULES };
        self.shared().finish(&landing, Some((&fingerprint(of), &dek)), true).unwrap();
    }

    fn held(&self) -> usize {
        vault::ages(&self.slots).len()
    }

    fn has(&mut self, of: &Subject, now: Now) -> bool {
        vault::find(&mut self.slots, &fingerprint(of), now.instant.saturating_sub(RULES.ttl))
            .is_some()
    }
}

impl Flight {
    fn landing<'a>(&'a self, subject: &'a Subject, began: u64, now: u64) -> Landing<'a> {
        Landing { flight: self, subject, began: at(began).instant, now: at(now), rules: &RULES }
    }
}

fn fingerprint(of: &Subject) -> Fingerprint {
    Fingerprint(hash(&[&of.id.0, &of.epoch.to_be_bytes()]))
}

#[test]
fn memory_of_zeroes_is_valid_and_empty() {
    let mut memory = Memory::new(4, 4);
    assert_eq!(memory.held(), 0);
    assert!(memory.shared().find(&TenantId([1; 16])).is_none());
    assert_eq!(memory.records[0].seen(), None);
}

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
    assert_eq!(vault::expire(&mut memory.slots, 100 * SECOND), Some(200 * SECOND));
    assert!(memory.slots.iter().all(|slot| !slot.dek.contains(&1)));
    assert_eq!(vault::expire(&mut memory.slots, 200 * SECOND), None);
    assert!(memory.slots.iter().all(|slot| slot.dek == [0; 32]));
}

#[test]
fn an_eviction_zeroes_older_data_keys_of_that_tenant_only() {
    let mut memory = Memory::new(8, 4);
    memory.put(&subject(1, 7), at(100));
    memory.put(&subject(2, 7), at(100));
    memory.flight(&subject(1, 8), 1, at(101));
    assert!(!memory.has(&subject(1, 7), at(101)) && memory.has(&subject(2, 7), at(101)));
}

#[test]
fn a_mere_check_keeps_no_data_key_unless_somebody_waits_for_it() {
    let mut memory = Memory::new(8, 4);
    for (id, waits) in [(1, false), (2, true)] {
        let of = subject(id, 0);
        let flight = memory.shared().begin_check(&of, 1, at(100), &RULES).unwrap();
        if waits {
            let step = memory.shared().begin(&of, &fingerprint(&of), 2, at(100), &RULES);
            assert!(matches!(step, Step::Wait(_)));
        }
        let dek = SecretKey::from_slice(&[9; 32]).unwrap();
        let landing = flight.landing(&of, 100, 101);
        memory.shared().finish(&landing, Some((&fingerprint(&of), &dek)), false).unwrap();
        assert_eq!(memory.has(&of, at(101)), waits);
    }
}

#[test]
fn one_unwrap_renews_what_is_within_its_ttl_and_revives_nothing() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    memory.put(&of, at(100));
    let check = |memory: &mut Memory, seconds| {
        let flight = memory.shared().begin_check(&of, 1, at(seconds), &RULES).unwrap();
        let dek = SecretKey::from_slice(&[9; 32]).unwrap();
        let landing = flight.landing(&of, seconds, seconds);
        memory.shared().finish(&landing, Some((&Fingerprint::default(), &dek)), false).unwrap();
    };
    check(&mut memory, 399);
    assert!(memory.has(&of, at(500)));
    check(&mut memory, 699);
    assert!(!memory.has(&of, at(700)));
}

#[test]
fn a_lost_flight_is_taken_over_and_its_outcome_counts_only_once() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let lost = memory.flight(&of, 1, at(100));
    let step = memory.shared().begin(&of, &fingerprint(&of), 2, at(105), &RULES);
    assert!(matches!(step, Step::Wait(_)));
    let second = memory.flight(&of, 2, at(106));
    memory.shared().abandon(&lost, 0);
    let step = memory.shared().begin(&of, &fingerprint(&of), 3, at(107), &RULES);
    assert!(matches!(step, Step::Wait(_)), "the first process ended the flight of the second");
    let ended: Vec<_> = memory.shared().abandon_all(2).collect();
    assert_eq!(ended, [second.tag.record().unwrap()]);
    memory.flight(&of, 3, at(107));
}

#[test]
fn an_unwrap_begun_before_a_revocation_was_seen_is_refused() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let early = memory.flight(&of, 1, at(100));
    let late = memory.flight(&of, 2, at(107));
    let error = Error::new(Reason::KeyDisabled).with_info("request_id=1");
    let change = memory.shared().fail(&late.landing(&of, 107, 108), &error);
    assert_eq!(change.unwrap().to, Some("revoked"));
    let dek = SecretKey::from_slice(&[9; 32]).unwrap();
    let landing = early.landing(&of, 100, 109);
    let refused = memory.shared().finish(&landing, Some((&fingerprint(&of), &dek)), true);
    assert_eq!(refused.unwrap_err(), Some(error));
    assert_eq!(memory.held(), 0);
}

#[test]
fn a_state_keeps_its_time_while_its_reason_changes() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    for (seconds, reason) in [(100, Reason::KmsTimeout), (110, Reason::KmsServerError)] {
        let flight = memory.flight(&of, 1, at(seconds));
        memory.shared().fail(&flight.landing(&of, seconds, seconds), &reason.into());
    }
    let seen = memory.shared().find(&of.id).unwrap().1.seen().unwrap();
    assert_eq!(seen.since, 100_000_000);
    assert_eq!(seen.error.unwrap().reason, Reason::KmsServerError);
    assert_eq!(memory.records.iter().map(|record| record.changes).sum::<u64>(), 1);
}

#[test]
fn the_least_recently_used_record_makes_room_and_its_hits_go_nowhere() {
    let mut memory = Memory::new(2, 4);
    memory.put(&subject(1, 0), at(100));
    memory.put(&subject(2, 0), at(101));
    let (stale, _) = memory.shared().find(&subject(2, 0).id).unwrap();
    memory.put(&subject(3, 0), at(102));
    memory.put(&subject(4, 0), at(103));
    memory.shared().add_hits(&[(stale, 7), (Tag::new(99, 0), 1)], 0);
    assert!(memory.records.iter().all(|record| record.stats.hits == 0));
}

#[test]
fn a_revocation_is_not_forgotten_with_its_record() {
    let mut memory = Memory::new(2, 4);
    let of = subject(1, 0);
    let flight = memory.flight(&of, 1, at(100));
    memory.shared().fail(&flight.landing(&of, 100, 101), &Reason::KeyDisabled.into());
    // The other place is taken as long as there is one; a revoked key's only then.
    memory.put(&subject(2, 0), at(102));
    memory.put(&subject(3, 0), at(103));
    assert!(memory.shared().find(&of.id).is_some());
    let flight = memory.flight(&subject(3, 0), 1, at(500));
    memory.shared().fail(&flight.landing(&subject(3, 0), 500, 501), &Reason::KeyDisabled.into());
    memory.put(&subject(4, 0), at(502));
    assert!(memory.shared().find(&of.id).is_none());
    assert_eq!(memory.shared().revoked_at(&of.id), at(101).instant);
    assert_eq!(memory.shared().revoked_at(&subject(4, 0).id), at(101).instant);
}

#[test]
fn an_overtaken_flight_that_fails_changes_nothing() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let lost = memory.flight(&of, 1, at(100));
    let second = memory.flight(&of, 2, at(107));
    let dek = SecretKey::from_slice(&[9; 32]).unwrap();
    let landing = second.landing(&of, 107, 108);
    memory.shared().finish(&landing, Some((&fingerprint(&of), &dek)), true).unwrap();
    let change = memory.shared().fail(&lost.landing(&of, 100, 109), &Reason::KmsTimeout.into());
    assert_eq!(change, None);
    let again = memory.shared().begin(&of, &fingerprint(&of), 1, at(109), &RULES);
    assert!(matches!(again, Step::Take(_)));
}

#[test]
fn a_wait_is_for_one_flight_whatever_takes_off_after_it() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let first = memory.flight(&of, 1, at(100));
    let step = memory.shared().begin(&of, &fingerprint(&of), 2, at(100), &RULES);
    let Step::Wait(awaited) = step else { panic!("nothing to wait for") };
    assert_eq!(memory.shared().flying(awaited, at(101).instant), Some(1));
    memory.shared().abandon(&first, 0);
    memory.flight(&of, 3, at(101));
    assert_eq!(memory.shared().flying(awaited, at(101).instant), None);
}

#[test]
fn another_reason_is_news_while_a_key_is_revoked_and_only_then() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let mut news = |seconds, reason: Reason| {
        let flight = memory.flight(&of, 1, at(seconds));
        let change = memory.shared().fail(&flight.landing(&of, seconds, seconds), &reason.into());
        change.unwrap().is_news()
    };
    assert!(news(100, Reason::KeyDisabled));
    assert!(!news(110, Reason::KeyDisabled));
    assert!(news(120, Reason::KeyPendingDeletion));
    assert!(news(130, Reason::KmsTimeout));
    assert!(!news(140, Reason::KmsServerError));
    let record = *memory.shared().find(&of.id).unwrap().1;
    let told: Vec<_> = record.unannounced().map(|past| (past.change.to, past.reason)).collect();
    assert_eq!(
        told,
        [
            (Some("revoked"), Some(Reason::KeyDisabled)),
            (Some("revoked"), Some(Reason::KeyPendingDeletion)),
            (Some("unreachable"), Some(Reason::KmsTimeout)),
        ]
    );
}
