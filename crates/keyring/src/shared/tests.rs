use super::brake::Brake;
use super::call::CallPermit;
use super::counters::SharedCounters;
use super::data_keys::{self, DataKeySlot};
use super::history::Change;
use super::identity::{Fingerprint, Subject, TenantId, hash};
use super::now::{Now, Rules};
use super::outcome::{EndedCall, Outcome};
use super::record::Record;
use super::single_flight::Step;
use super::table::SharedKeyring;
use super::tag::Tag;
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, KeyState, Reason};

const SECOND: u64 = 1_000_000_000;

fn subject(id: u8, epoch: u64) -> Subject {
    Subject { id: TenantId([id; 16]), database: 5, customer_key: 1, epoch }
}

fn at(seconds: u64) -> Now {
    Now { instant: seconds * SECOND, wall: seconds as i64 * 1_000_000 }
}

const RULES: Rules =
    Rules { ttl: 300 * SECOND, failure_ttl: 4 * SECOND, call_timeout: 6 * SECOND, budget: 0 };

struct Memory {
    counters: SharedCounters,
    records: Vec<Record>,
    slots: Vec<DataKeySlot>,
    brakes: [Brake; 4],
}

impl Memory {
    fn new(records: usize, slots: usize) -> Self {
        Self {
            counters: SharedCounters::new(),
            records: vec![Record::default(); records],
            slots: (0..slots).map(|_| DataKeySlot::default()).collect(),
            brakes: Default::default(),
        }
    }

    fn shared(&mut self) -> SharedKeyring<'_> {
        SharedKeyring {
            counters: &self.counters,
            records: &mut self.records,
            slots: &mut self.slots,
            brakes: &mut self.brakes,
        }
    }

    fn permit(&mut self, of: &Subject, pid: u32, now: Now) -> CallPermit {
        match self.shared().begin(of, &fingerprint(of), pid, now, &RULES) {
            Step::Ask(permit) => permit,
            _ => panic!("no permit"),
        }
    }

    fn put(&mut self, of: &Subject, now: Now) {
        let permit = self.permit(of, 1, now);
        let dek = SecretKey::from_slice(&[of.id.0[0]; 32]).unwrap();
        let ended =
            EndedCall { permit: &permit, subject: of, began: now.instant, now, rules: &RULES };
        self.succeed(&ended, &dek, true);
    }

    fn succeed(&mut self, ended: &EndedCall<'_>, dek: &SecretKey, needed: bool) -> Change {
        let fingerprint = fingerprint(ended.subject);
        match self.shared().succeeded(ended, Some((&fingerprint, dek)), needed) {
            Outcome::Usable(change) => change,
            other => panic!("{other:?}"),
        }
    }

    /// Another data key of the same tenant.
    fn put_version(&mut self, of: &Subject, version: u8, now: Now) {
        let Some(permit) = self.shared().begin_check(of, 1, now, &RULES) else { return };
        let dek = SecretKey::from_slice(&[version + 1; 32]).unwrap();
        let fingerprint = Fingerprint(hash(&[&of.id.0, &of.epoch.to_be_bytes(), &[version]]));
        let ended =
            EndedCall { permit: &permit, subject: of, began: now.instant, now, rules: &RULES };
        self.shared().succeeded(&ended, Some((&fingerprint, &dek)), true);
    }

    /// The places that each record links.
    fn links(&self) -> Vec<Vec<usize>> {
        self.records.iter().map(|record| data_keys::linked(&self.slots, record)).collect()
    }

    fn held(&self) -> usize {
        data_keys::count(&self.slots)
    }

    fn has(&mut self, of: &Subject, now: Now) -> bool {
        let newer_than = now.instant.saturating_sub(RULES.ttl);
        self.shared().data_keys().has(&fingerprint(of), newer_than)
    }
}

impl CallPermit {
    fn ended<'a>(&'a self, subject: &'a Subject, began: u64, now: u64) -> EndedCall<'a> {
        EndedCall { permit: self, subject, began: at(began).instant, now: at(now), rules: &RULES }
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
    assert_eq!(memory.records[0].last_state(), None);
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
fn a_state_keeps_its_time_while_its_reason_changes() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    for (seconds, reason) in [(100, Reason::KmsTimeout), (110, Reason::KmsServerError)] {
        let permit = memory.permit(&of, 1, at(seconds));
        memory.shared().failed(&permit.ended(&of, seconds, seconds), &reason.into());
    }
    let seen = memory.shared().find(&of.id).unwrap().1.last_state().unwrap();
    assert_eq!(seen.since, 100_000_000);
    assert_eq!(seen.error.unwrap().reason, Reason::KmsServerError);
    assert_eq!(memory.records.iter().map(|record| record.history.changes).sum::<u64>(), 1);
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
    let permit = memory.permit(&of, 1, at(100));
    memory.shared().failed(&permit.ended(&of, 100, 101), &Reason::KeyDisabled.into());
    // The other place is taken as long as there is one; a revoked key's only then.
    memory.put(&subject(2, 0), at(102));
    memory.put(&subject(3, 0), at(103));
    assert!(memory.shared().find(&of.id).is_some());
    let permit = memory.permit(&subject(3, 0), 1, at(500));
    memory.shared().failed(&permit.ended(&subject(3, 0), 500, 501), &Reason::KeyDisabled.into());
    memory.put(&subject(4, 0), at(502));
    assert!(memory.shared().find(&of.id).is_none());
    assert_eq!(memory.shared().revoked_at(&of.id), at(101).instant);
    assert_eq!(memory.shared().revoked_at(&subject(4, 0).id), at(101).instant);
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

#[test]
fn another_reason_is_news_while_a_key_is_revoked_and_only_then() {
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let mut news = |seconds, reason: Reason| {
        let permit = memory.permit(&of, 1, at(seconds));
        match memory.shared().failed(&permit.ended(&of, seconds, seconds), &reason.into()) {
            Outcome::Revoked(_, change) | Outcome::Failing(change) => change.is_news(),
            other => panic!("{other:?}"),
        }
    };
    assert!(news(100, Reason::KeyDisabled));
    assert!(!news(110, Reason::KeyDisabled));
    assert!(news(120, Reason::KeyPendingDeletion));
    assert!(news(130, Reason::KmsTimeout));
    assert!(!news(140, Reason::KmsServerError));
    let record = *memory.shared().find(&of.id).unwrap().1;
    let told: Vec<_> =
        record.history.unannounced().map(|past| (past.change.to, past.reason)).collect();
    assert_eq!(
        told,
        [
            (Some(KeyState::Revoked), Some(Reason::KeyDisabled)),
            (Some(KeyState::Revoked), Some(Reason::KeyPendingDeletion)),
            (Some(KeyState::Unreachable), Some(Reason::KmsTimeout)),
        ]
    );
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
fn a_recovery_is_a_notice_and_so_is_the_first_refusal_only() {
    use std::sync::atomic::Ordering::Relaxed;
    let mut memory = Memory::new(8, 4);
    let of = subject(1, 0);
    let notices = |memory: &Memory| memory.counters.notices.load(Relaxed);
    memory.put(&of, at(100));
    assert_eq!(notices(&memory), 0);
    let permit = memory.permit(&subject(1, 1), 1, at(101));
    memory.shared().failed(&permit.ended(&subject(1, 1), 101, 102), &Reason::KmsTimeout.into());
    assert_eq!(notices(&memory), 0, "an outage takes nothing away");
    memory.put(&subject(1, 1), at(120));
    assert_eq!(notices(&memory), 1, "what others remember of it ends");
    for (seconds, expected) in [(130, 2), (140, 2)] {
        let of = subject(1, 2 + seconds);
        let permit = memory.permit(&of, 1, at(seconds));
        memory.shared().failed(&permit.ended(&of, seconds, seconds), &Reason::KeyDisabled.into());
        assert_eq!(notices(&memory), expected);
    }
}

#[test]
fn names_are_salted() {
    let salts = [super::identity::Salt([1; 16]), super::identity::Salt([2; 16])];
    let [one, other] = salts.map(|salt| TenantId::new(&salt, 5, "acme"));
    assert_ne!(one, other);
    assert_ne!(one, TenantId::new(&salts[0], 6, "acme"));
    assert_eq!(one, TenantId::new(&salts[0], 5, "acme"));
    let counters = SharedCounters::new();
    counters.draw_salt();
    let drawn = counters.salt().0;
    counters.draw_salt();
    assert_eq!(drawn, counters.salt().0, "a salt is drawn once");
    assert_ne!(drawn, SharedCounters::new().salt().0);
}
