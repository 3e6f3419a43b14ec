//! The memory that processes share, and nothing else.

mod brakes;
mod calls;
mod evictions;
mod failures;
mod keeping;
mod ranges;
mod records;
mod renewals;
mod replacing;
mod who_asks;

use super::brake::Brake;
use super::call::CallPermit;
use super::counters::SharedCounters;
use super::data_keys::{self, DataKeySlot};
use super::history::Change;
use super::identity::{Fingerprint, Salt, Subject, TenantId, hash};
use super::now::{Now, Rules};
use super::outcome::{EndedCall, Outcome};
use super::record::Record;
use super::renewal::{Patience, Renewal};
use super::single_flight::Step;
use super::table::SharedKeyring;
use super::tag::Tag;
use super::uses::{Sealed, Uses};
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, KeyState, Reason};
use std::collections::BTreeSet;

const SECOND: u64 = 1_000_000_000;

const fn hits(hits: u64) -> Uses {
    Uses { hits, sealed: Sealed { values: 0, version: 0 } }
}

const fn subject(id: u8, epoch: u64) -> Subject {
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
        let shares_data_keys = !self.slots.is_empty();
        SharedKeyring {
            counters: &self.counters,
            records: &mut self.records,
            slots: &mut self.slots,
            shares_data_keys,
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

    /// KMS refuses, or doesn't answer, at once.
    fn fail(&mut self, of: &Subject, pid: u32, seconds: u64, reason: Reason) -> Outcome {
        let permit = self.permit(of, pid, at(seconds));
        self.shared().failed(&permit.ended(of, seconds, seconds), &reason.into())
    }

    fn begin(&mut self, of: &Subject, pid: u32, now: Now) -> Step {
        self.shared().begin(of, &fingerprint(of), pid, now, &RULES)
    }

    fn record(&mut self, of: &Subject) -> Record {
        *self.shared().find(&of.id).expect("a record").1
    }

    fn notices(&self) -> u64 {
        self.counters.notices()
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

fn dek() -> SecretKey {
    SecretKey::from_slice(&[9; 32]).unwrap()
}

fn fingerprint(of: &Subject) -> Fingerprint {
    Fingerprint(hash(&[&of.id.0, &of.epoch.to_be_bytes()]))
}
