//! What this process sealed a moment ago. PostgreSQL shows it to the trigger again: as EXCLUDED in
//! INSERT ... ON CONFLICT, and to that of another partition where a row moves there.

use cmk_crypto::aead::TAG_LEN;
use cmk_crypto::nonce::NONCE_LEN;
use cmk_envelope::column::header;
use std::cell::RefCell;

/// More than a row has protected columns, as a rule: of one that has more, some are opened once to
/// see that they are what they seem.
const KEPT: usize = 32;

/// What an envelope is recognised by: its nonce and its tag.
type Mark = ([u8; NONCE_LEN], [u8; TAG_LEN]);

struct Recent {
    marks: [Mark; KEPT],
    /// The oldest, where the next one goes.
    next: usize,
}

thread_local! {
    static RECENT: RefCell<Recent> =
        const { RefCell::new(Recent { marks: [([0; NONCE_LEN], [0; TAG_LEN]); KEPT], next: 0 }) };
}

fn mark(envelope: &[u8]) -> Option<Mark> {
    Some((header(envelope)?.nonce, *envelope.last_chunk()?))
}

/// An envelope was sealed.
#[inline]
pub fn add(envelope: &[u8]) {
    let Some(mark) = mark(envelope) else { return };
    RECENT.with_borrow_mut(|recent| {
        recent.marks[recent.next] = mark;
        recent.next = (recent.next + 1) % KEPT;
    });
}

/// Whether it was one of the last.
pub fn contains(envelope: &[u8]) -> bool {
    mark(envelope).is_some_and(|mark| RECENT.with_borrow(|recent| recent.marks.contains(&mark)))
}
