//! What this process sealed a moment ago. PostgreSQL shows it to the trigger again: as EXCLUDED in
//! INSERT ... ON CONFLICT, and to that of another partition where a row moves there.

use foldhash::fast::RandomState;
use std::cell::RefCell;
use std::hash::BuildHasher;

/// More than a row has protected columns, as a rule: of one that has more, some are opened once to
/// see that they are what they seem.
const KEPT: usize = 32;

struct Recent {
    /// Of the whole envelope, under a seed that nobody knows: a changed one has another.
    hashes: [u64; KEPT],
    /// The oldest, where the next one goes.
    next: usize,
    hasher: RandomState,
}

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::new(Recent {
        hashes: [0; KEPT],
        next: 0,
        hasher: RandomState::default(),
    });
}

/// An envelope was sealed.
#[inline]
pub fn add(envelope: &[u8]) {
    RECENT.with_borrow_mut(|recent| {
        recent.hashes[recent.next] = recent.hasher.hash_one(envelope);
        recent.next = (recent.next + 1) % KEPT;
    });
}

/// Whether it was one of the last.
pub fn contains(envelope: &[u8]) -> bool {
    RECENT.with_borrow(|recent| recent.hashes.contains(&recent.hasher.hash_one(envelope)))
}
