//! Unwrapped data keys that all processes of a server share. A table of fixed size; of the places that a data
//! key may take, the least recently used is taken, and what is past the TTL is zeroed by a process that does nothing else.

use super::{Fingerprint, Subject, TenantId, probe};
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_error::Instant;
use zeroize::Zeroize;

/// A place for a data key; all zero if empty.
#[derive(Default)]
#[repr(C)]
pub struct Slot {
    fingerprint: Fingerprint,
    pub dek: [u8; KEY_LEN],
    tenant: TenantId,
    custody: u64,
    epoch: u64,
    /// When the unwrap began; 0: empty.
    pub unwrapped_at: Instant,
    pub last_used: Instant,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.unwrapped_at == 0
    }

    fn clear(&mut self) {
        self.dek.zeroize();
        *self = Self::default();
    }
}

/// The data key, if it was unwrapped after `newer_than`.
pub fn find<'a>(
    slots: &'a mut [Slot],
    fingerprint: &Fingerprint,
    newer_than: Instant,
) -> Option<&'a mut Slot> {
    let mut places = probe(slots.len(), &fingerprint.0);
    let at = places
        .find(|&at| slots[at].unwrapped_at > newer_than && slots[at].fingerprint == *fingerprint)?;
    slots.get_mut(at)
}

/// Puts a data key in, at the cost of the least recently used one if the table is full.
pub fn put(
    slots: &mut [Slot],
    subject: &Subject,
    fingerprint: &Fingerprint,
    dek: &SecretKey,
    unwrapped_at: Instant,
    now: Instant,
) {
    let places = || probe(slots.len(), &fingerprint.0);
    let same = places().find(|&at| slots[at].fingerprint == *fingerprint);
    let Some(at) = same.or_else(|| places().min_by_key(|&at| slots[at].last_used)) else { return };
    let slot = &mut slots[at];
    slot.fingerprint = *fingerprint;
    slot.dek.copy_from_slice(dek.expose_secret());
    slot.tenant = subject.id;
    slot.custody = subject.custody;
    slot.epoch = subject.epoch;
    slot.unwrapped_at = unwrapped_at;
    slot.last_used = now;
}

/// KMS unwrapped one data key of a tenant at `began`, so the tenant's key was good for all of them. Renews those
/// that were unwrapped, and used, after `oldest`: what nobody needs is to go.
pub fn renew(slots: &mut [Slot], subject: &Subject, began: Instant, oldest: Instant) {
    let theirs = |slot: &&mut Slot| {
        slot.unwrapped_at > oldest
            && slot.last_used > oldest
            && slot.tenant == subject.id
            && slot.custody == subject.custody
            && slot.epoch == subject.epoch
    };
    for slot in slots.iter_mut().filter(theirs) {
        slot.unwrapped_at = slot.unwrapped_at.max(began);
    }
}

/// Whose data keys are here, and when each was unwrapped.
pub fn ages(slots: &[Slot]) -> Vec<(TenantId, Instant)> {
    let there = slots.iter().filter(|slot| !slot.is_empty());
    there.map(|slot| (slot.tenant, slot.unwrapped_at)).collect()
}

/// Zeroes what was unwrapped at `oldest` or before. Returns when the oldest one left was unwrapped.
pub fn expire(slots: &mut [Slot], oldest: Instant) -> Option<Instant> {
    clear_where(slots, |slot| slot.unwrapped_at <= oldest);
    slots.iter().filter(|slot| !slot.is_empty()).map(|slot| slot.unwrapped_at).min()
}

pub fn drop_tenant(slots: &mut [Slot], tenant: &TenantId) {
    clear_where(slots, |slot| slot.tenant == *tenant);
}

/// Zeroes what a tenant had before it was evicted.
pub fn drop_other_epochs(slots: &mut [Slot], subject: &Subject) {
    clear_where(slots, |slot| slot.tenant == subject.id && slot.epoch != subject.epoch);
}

pub fn clear(slots: &mut [Slot]) {
    clear_where(slots, |_| true);
}

fn clear_where(slots: &mut [Slot], mut condition: impl FnMut(&Slot) -> bool) {
    slots.iter_mut().filter(|slot| !slot.is_empty() && condition(slot)).for_each(Slot::clear);
}
