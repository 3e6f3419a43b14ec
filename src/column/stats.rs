//! What this session sealed and opened of protected columns.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static SEALS: AtomicU64 = AtomicU64::new(0);
static OPENS: AtomicU64 = AtomicU64::new(0);

#[inline]
fn count(counter: &AtomicU64) {
    // One thread: no need for an atomic addition, which costs more.
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// A value was sealed.
#[inline]
pub fn sealed() {
    count(&SEALS);
}

/// A value was opened.
#[inline]
pub fn opened() {
    count(&OPENS);
}

/// Values sealed and opened since the session began.
pub fn totals() -> (u64, u64) {
    (SEALS.load(Relaxed), OPENS.load(Relaxed))
}
