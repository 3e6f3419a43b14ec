//! How many processes hold a data key of a tenant.

use super::shared_memory::access;
use cmk_keyring::shared::limits::RECORDS_MAX;
use cmk_keyring::shared::tag::Tag;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Data keys that this process holds of each record: its generation in the upper half, the number
/// in the lower.
static HELD: [AtomicU32; RECORDS_MAX] = [const { AtomicU32::new(0) }; RECORDS_MAX];

/// Counts a copy of a data key in this process.
pub fn hold(tag: Tag) {
    if let Some((held, holders)) = counters(tag)
        && add(held, tag.generation()) == 1
    {
        add(holders, tag.generation());
    }
}

/// One copy less. Runs in signal handlers.
pub fn release(tag: u64) {
    let tag = Tag(tag);
    if let Some((held, holders)) = counters(tag)
        && subtract(held, tag.generation()) == Some(0)
    {
        subtract(holders, tag.generation());
    }
}

fn counters(tag: Tag) -> Option<(&'static AtomicU32, &'static AtomicU32)> {
    let record = tag.record()?;
    Some((HELD.get(record)?, access::holders(record)?))
}

/// How many processes hold a data key of this use of a record.
pub fn holders(tag: Tag) -> Option<u16> {
    let value = access::holders(tag.record()?)?.load(Relaxed);
    Some(if (value >> 16) as u16 == tag.generation() { value as u16 } else { 0 })
}

/// Counts one more. A counter of an older generation begins anew; one of a younger generation has
/// no place for it.
fn add(counter: &AtomicU32, generation: u16) -> u16 {
    let count = |value: u32| {
        let age = generation.wrapping_sub((value >> 16) as u16) as i16;
        match age {
            0 => Some((value as u16).saturating_add(1)),
            1.. => Some(1),
            _ => None,
        }
    };
    let join = |value| Some(u32::from(generation) << 16 | u32::from(count(value)?));
    counter.fetch_update(SeqCst, SeqCst, join).ok().and_then(count).unwrap_or(0)
}

/// Counts one less, unless the counter belongs to another generation.
fn subtract(counter: &AtomicU32, generation: u16) -> Option<u16> {
    let less = |value: u32| {
        let ours = (value >> 16) as u16 == generation && value as u16 > 0;
        ours.then(|| value - 1)
    };
    counter.fetch_update(SeqCst, SeqCst, less).ok().map(|value| value as u16 - 1)
}
