//! Room for the keys that are derived from those in [`locked`](super::locked) pages, in the same
//! pages: each dies with the value that it was derived from, be that dropped or overdue.
//!
//! A place belongs to nobody, to the value that its key was derived from, or to whoever is just
//! writing or zeroing it. Only who has that value pinned reads or fills its places, and what is
//! pinned is not erased: so nobody zeroes a key in use. A signal handler that comes while a place
//! is being filled leaves it alone: it has no owner yet, and its owner is pinned anyway.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicUsize};
use zeroize::Zeroize;

/// How many keys are kept.
pub(crate) const PLACES: usize = 8;
/// Bytes of a place: an expanded AES-256-GCM key needs 1,136, the software fallback's schedule
/// included.
const PLACE: usize = 2048;
/// Bytes of all of them.
pub(crate) const ROOM: usize = PLACES * PLACE;
/// Bytes of a place for its key.
pub(crate) const CONTENT: usize = PLACE - 64;

/// All zero if it is free.
#[repr(C, align(2048))]
pub(crate) struct Place {
    content: [u8; CONTENT],
    /// [`NOBODY`], [`BUSY`], or the address of the value that the key was derived from.
    owner: AtomicUsize,
}

pub(crate) const NOBODY: usize = 0;
/// No value's address.
pub(crate) const BUSY: usize = 1;

/// The first place, once there is memory for them.
static FIRST: AtomicPtr<Place> = AtomicPtr::new(std::ptr::null_mut());

/// Takes [`ROOM`] bytes: zero, mapped for good, nobody else's, at the start of a page.
pub(crate) fn give_room(base: NonNull<u8>) {
    const { assert!(PLACE == size_of::<Place>()) };
    FIRST.store(base.cast().as_ptr(), Release);
}

/// The place of that number, once there is memory for it.
pub(crate) fn place(number: usize) -> Option<NonNull<Place>> {
    let first = NonNull::new(FIRST.load(Acquire))?;
    // SAFETY: as many places as there is room for, mapped for good.
    Some(unsafe { first.add(number) })
}

/// Whose a place is.
pub(crate) fn owner_of<'a>(place: NonNull<Place>) -> &'a AtomicUsize {
    // SAFETY: mapped for good; all zero when it was, and only used as an atomic since.
    unsafe { &(*place.as_ptr()).owner }
}

/// Zeroes a place that is `from` somebody, and hands it `to` another. False if it isn't theirs.
pub(crate) fn erase(place: NonNull<Place>, from: usize, to: usize) -> bool {
    let owner = owner_of(place);
    // Who makes it busy may write. Whoever comes in between finds nothing of theirs.
    if from == BUSY || owner.compare_exchange(from, BUSY, SeqCst, Relaxed).is_err() {
        return false;
    }
    if from != NOBODY {
        // SAFETY: ours as long as it is busy. The bytes are overwritten in place.
        unsafe {
            std::slice::from_raw_parts_mut(place.as_ptr().cast::<u8>(), CONTENT).zeroize();
        }
    }
    if to != BUSY {
        owner.store(to, SeqCst);
    }
    true
}

/// Zeroes what was derived from the value at this address, which is being erased and pinned by
/// nobody. Safe in a signal handler.
pub(crate) fn erase_of(value: usize) {
    for place in (0..PLACES).filter_map(place) {
        if owner_of(place).load(SeqCst) == value {
            erase(place, value, NOBODY);
        }
    }
}
