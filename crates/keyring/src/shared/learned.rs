//! What a transaction learned of keys while it had uncommitted changes of the registry, and kept to
//! itself: when it commits, that a key works is news for all.

use super::identity::Subject;
use super::now::Now;
use super::record::Record;
use super::table::SharedKeyring;
use cmk_error::KeyState;

/// A key that works.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    subject: Subject,
    /// Microseconds since the Unix epoch.
    since: i64,
    last_success: i64,
}

impl SharedKeyring<'_> {
    /// Of the memory of one transaction, which is over: which keys it found to work. It is empty
    /// afterwards, so that the next transaction begins anew.
    pub fn take_learned(&mut self) -> Vec<Learned> {
        let used = self.records.iter_mut().filter(|record| record.id != Default::default());
        let learned = used.filter_map(|record| {
            let record = std::mem::take(record);
            let last = record.last_state().filter(|last| last.key_state() == KeyState::Usable)?;
            let last_success = record.stats.last_success;
            Some(Learned { subject: record.subject(), since: last.since, last_success })
        });
        learned.collect()
    }

    /// Takes in that a key works, unless more is known of it.
    pub fn learn(&mut self, learned: &Learned, now: Now) {
        let Learned { subject, since, last_success } = *learned;
        if self
            .find(&subject.id)
            .is_some_and(|(_, record)| record.is_of(&subject) && record.was_asked())
        {
            return;
        }
        let at = self.record_of(&subject, now.instant);
        let record: &mut Record = &mut self.records[at];
        record.succeeded(Now { wall: since, ..now });
        record.stats.last_success = record.stats.last_success.max(last_success);
    }
}
