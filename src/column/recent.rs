//! What this process sealed a moment ago. PostgreSQL shows it to the trigger again: as EXCLUDED in
//! INSERT ... ON CONFLICT, and to that of another partition where a row moves there.

use std::cell::RefCell;

/// More than a row has protected columns, as a rule.
const KEPT: usize = 32;

/// Of longer envelopes nothing is kept: they are opened once more, to see that they are what they
/// seem.
const LONGEST: usize = 4096;

struct Recent {
    /// Whole envelopes, so that a changed one is none of them; empty: none.
    envelopes: [Vec<u8>; KEPT],
    /// The oldest, where the next one goes.
    next: usize,
}

thread_local! {
    static RECENT: RefCell<Recent> =
        const { RefCell::new(Recent { envelopes: [const { Vec::new() }; KEPT], next: 0 }) };
}

/// An envelope was sealed.
#[inline]
pub fn add(envelope: &[u8]) {
    if envelope.len() <= LONGEST {
        RECENT.with_borrow_mut(|recent| {
            let oldest = &mut recent.envelopes[recent.next];
            oldest.clear();
            oldest.extend_from_slice(envelope);
            recent.next = (recent.next + 1) % KEPT;
        });
    }
}

/// Whether it was one of the last.
pub fn contains(envelope: &[u8]) -> bool {
    RECENT.with_borrow(|recent| recent.envelopes.iter().any(|kept| kept == envelope))
}
