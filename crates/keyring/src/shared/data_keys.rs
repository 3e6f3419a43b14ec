//! Unwrapped data keys that all processes of a server share: a table of fixed size, in which each
//! record links the data keys of its tenant.
//!
//! Of the places that a data key may take, the least recently used is taken; what is past the TTL
//! is zeroed by a process that does nothing else.

use super::identity::{Fingerprint, TenantId};
use super::limits::probe;
use super::record::Record;
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_error::Instant;
use std::ops::Range;
use zeroize::Zeroize;

/// A place for a data key; all zero if empty.
#[derive(Default)]
#[repr(C)]
pub struct DataKeySlot {
    fingerprint: Fingerprint,
    dek: [u8; KEY_LEN],
    /// When the unwrap began; 0: empty.
    unwrapped_at: Instant,
    last_used: Instant,
    /// The tenant's record, by its number.
    record: u32,
    /// The tenant's other data keys: their places, from 1; 0: none.
    next: u32,
    previous: u32,
}

/// Both tables. A place's links are followed no further than they make sense.
pub(super) struct DataKeys<'a> {
    pub slots: &'a mut [DataKeySlot],
    pub records: &'a mut [Record],
    /// Whether data keys may be taken and put in.
    pub shares: bool,
}

/// A data key to keep.
pub(super) struct NewDataKey<'a> {
    pub fingerprint: &'a Fingerprint,
    pub dek: &'a SecretKey,
    pub unwrapped_at: Instant,
}

impl DataKeySlot {
    fn is_empty(&self) -> bool {
        self.unwrapped_at == 0
    }

    fn clear(&mut self) {
        self.dek.zeroize();
        *self = Self::default();
    }
}

impl DataKeys<'_> {
    /// The data key and when its unwrap began, if that was after `newer_than`.
    pub fn take(
        &mut self,
        fingerprint: &Fingerprint,
        newer_than: Instant,
        now: Instant,
    ) -> Option<(SecretKey, Instant)> {
        if !self.shares {
            return None;
        }
        let mut places = probe(self.slots.len(), &fingerprint.0);
        let at = places.find(|&at| {
            let slot = &self.slots[at];
            slot.unwrapped_at > newer_than && slot.fingerprint == *fingerprint
        })?;
        let slot = &mut self.slots[at];
        slot.last_used = now;
        Some((SecretKey::from_slice(&slot.dek).ok()?, slot.unwrapped_at))
    }

    /// Puts a data key of a record in, at the cost of the least recently used one if its places are
    /// taken.
    pub fn put(&mut self, record: usize, new: &NewDataKey<'_>, now: Instant) {
        if !self.shares {
            return;
        }
        let places = || probe(self.slots.len(), &new.fingerprint.0);
        let same = places().find(|&at| self.slots[at].fingerprint == *new.fingerprint);
        let oldest = || places().min_by_key(|&at| self.slots[at].last_used);
        let Some(at) = same.or_else(oldest) else { return };
        self.clear(at);
        let Some(first) = self.records.get_mut(record).map(|of| &mut of.first_data_key) else {
            return;
        };
        let next = std::mem::replace(first, at as u32 + 1);
        if let Some(next) = self.slot(next) {
            next.previous = at as u32 + 1;
        }
        let slot = &mut self.slots[at];
        slot.fingerprint = *new.fingerprint;
        slot.dek.copy_from_slice(new.dek.expose_secret());
        slot.unwrapped_at = new.unwrapped_at;
        slot.last_used = now;
        slot.record = record as u32;
        slot.next = next;
    }

    /// KMS unwrapped one data key of a tenant at `began`, so the tenant's key was good for all of
    /// them. Renews those that were unwrapped, and used, after `oldest`: what nobody needs is to
    /// go.
    pub fn renew(&mut self, record: usize, began: Instant, oldest: Instant) {
        self.for_each_of(record, |slot| {
            if slot.unwrapped_at > oldest && slot.last_used > oldest {
                slot.unwrapped_at = slot.unwrapped_at.max(began);
            }
        });
    }

    /// Zeroes all that a record's tenant has.
    pub fn clear_all_of(&mut self, record: usize) {
        self.for_each_of(record, DataKeySlot::clear);
        if let Some(record) = self.records.get_mut(record) {
            record.first_data_key = 0;
        }
    }

    /// Zeroes what stands in `range` and was unwrapped at `oldest` or before. Returns when the
    /// oldest one left there was unwrapped.
    pub fn expire(&mut self, range: Range<usize>, oldest: Instant) -> Option<Instant> {
        let mut oldest_left = None;
        for at in range.start..range.end.min(self.slots.len()) {
            let slot = &self.slots[at];
            if slot.is_empty() {
                continue;
            }
            if slot.unwrapped_at <= oldest {
                self.clear(at);
            } else {
                let first = oldest_left.unwrap_or(Instant::MAX);
                oldest_left = Some(slot.unwrapped_at.min(first));
            }
        }
        oldest_left
    }

    /// Zeroes everything, whatever state it is in.
    pub fn clear_everything(&mut self) {
        self.slots.iter_mut().for_each(DataKeySlot::clear);
        self.records.iter_mut().for_each(|record| record.first_data_key = 0);
    }

    /// Zeroes one place and takes it out of its tenant's list.
    fn clear(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.is_empty() {
            return;
        }
        let (record, previous, next) = (slot.record as usize, slot.previous, slot.next);
        if let Some(next) = self.slot(next) {
            next.previous = previous;
        }
        match self.slot(previous) {
            Some(previous) => previous.next = next,
            None => {
                if let Some(record) = self.records.get_mut(record)
                    && record.first_data_key as usize == at + 1
                {
                    record.first_data_key = next;
                }
            }
        }
        self.slots[at].clear();
    }

    fn for_each_of(&mut self, record: usize, mut visit: impl FnMut(&mut DataKeySlot)) {
        let mut place = self.records.get(record).map_or(0, |record| record.first_data_key);
        for _ in 0..self.slots.len() {
            let Some(slot) = self.slot(place) else { return };
            place = slot.next;
            visit(slot);
        }
    }

    fn slot(&mut self, place: u32) -> Option<&mut DataKeySlot> {
        self.slots.get_mut((place as usize).checked_sub(1)?)
    }
}

/// When the oldest data key of each tenant with a record in `range` was unwrapped, if one was used
/// since.
pub(super) fn in_use(
    slots: &[DataKeySlot],
    records: &[Record],
    range: Range<usize>,
) -> Vec<(TenantId, Instant)> {
    let records = records.get(range.start..range.end.min(records.len())).unwrap_or_default();
    let oldest = |record: &Record| {
        let slot = |place: u32| slots.get((place as usize).checked_sub(1)?);
        let all = std::iter::successors(slot(record.first_data_key), |of| slot(of.next));
        all.take(slots.len()).map(|slot| slot.unwrapped_at).min()
    };
    let used = records.iter().filter_map(|record| Some((record, oldest(record)?)));
    used.filter(|(record, oldest)| record.used_at > *oldest)
        .map(|(record, oldest)| (record.id, oldest))
        .collect()
}

#[cfg(test)]
impl DataKeys<'_> {
    /// Whether [`take`](Self::take) would find it.
    pub fn has(&self, fingerprint: &Fingerprint, newer_than: Instant) -> bool {
        let found =
            |slot: &DataKeySlot| slot.unwrapped_at > newer_than && slot.fingerprint == *fingerprint;
        probe(self.slots.len(), &fingerprint.0).any(|at| found(&self.slots[at]))
    }
}

/// The places that a record links.
#[cfg(test)]
pub(super) fn linked(slots: &[DataKeySlot], record: &Record) -> Vec<usize> {
    let at = |place: u32| (place as usize).checked_sub(1);
    let all = std::iter::successors(at(record.first_data_key), |&of| at(slots[of].next));
    let all: Vec<_> = all.take(slots.len() + 1).collect();
    assert!(all.iter().all(|&of| slots[of].unwrapped_at > 0), "an empty place is linked");
    assert!(all.windows(2).all(|two| slots[two[1]].previous as usize == two[0] + 1));
    all
}

/// How many there are.
#[cfg(test)]
pub(super) fn count(slots: &[DataKeySlot]) -> usize {
    slots.iter().filter(|slot| !slot.is_empty()).count()
}

#[cfg(test)]
impl DataKeySlot {
    pub(super) fn holds(&self, byte: u8) -> bool {
        self.dek.contains(&byte)
    }
}
