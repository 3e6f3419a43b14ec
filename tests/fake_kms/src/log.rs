//! The request log. The counters are counted from it, so the two can't disagree.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;

/// The outcome of a call that has not been answered yet.
const PENDING: &str = "pending";
/// The outcome of a call whose client went away before the answer.
const ABANDONED: &str = "abandoned";

pub type EncryptionContext = BTreeMap<String, String>;

/// One call, entered on arrival, so that a hanging call can be seen to hang.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    seq: u64,
    /// The one of the answer, as CloudTrail would have it
    request_id: String,
    operation: String,
    key_arn: Option<String>,
    encryption_context: Option<EncryptionContext>,
    access_key_id: Option<String>,
    /// Milliseconds since 1970
    at_ms: u64,
    /// `Success`, an error code, `fault:KIND`, `pending` or `abandoned`
    outcome: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Counters {
    total: u64,
    by_operation: BTreeMap<String, u64>,
    by_key: BTreeMap<String, BTreeMap<String, u64>>,
    by_outcome: BTreeMap<String, u64>,
}

#[derive(Default)]
pub struct Log {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Goes on across [`Log::clear`], so that a late outcome never lands in a newer entry.
    next_seq: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    pub fn enter(
        &self,
        request_id: &str,
        operation: &str,
        key_arn: Option<String>,
        encryption_context: Option<EncryptionContext>,
        access_key_id: Option<String>,
    ) -> OpenEntry<'_> {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut inner = self.inner.lock();
        inner.next_seq += 1;
        let seq = inner.next_seq;
        let entry = Entry {
            seq,
            request_id: request_id.to_owned(),
            operation: operation.to_owned(),
            key_arn,
            encryption_context,
            access_key_id,
            at_ms: elapsed.as_millis() as u64,
            outcome: PENDING.to_owned(),
        };
        inner.entries.insert(seq, entry);
        OpenEntry { log: self, seq, closed: false }
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.inner.lock().entries.values().cloned().collect()
    }

    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for entry in self.inner.lock().entries.values() {
            counters.total += 1;
            *counters.by_operation.entry(entry.operation.clone()).or_default() += 1;
            *counters.by_outcome.entry(entry.outcome.clone()).or_default() += 1;
            if let Some(arn) = &entry.key_arn {
                let operations = counters.by_key.entry(arn.clone()).or_default();
                *operations.entry(entry.operation.clone()).or_default() += 1;
            }
        }
        counters
    }

    pub fn clear(&self) {
        self.inner.lock().entries.clear();
    }

    fn set_outcome(&self, seq: u64, outcome: &str) {
        if let Some(entry) = self.inner.lock().entries.get_mut(&seq) {
            entry.outcome = outcome.to_owned();
        }
    }
}

/// An entry without an outcome; dropped without one, the call counts as abandoned.
pub struct OpenEntry<'a> {
    log: &'a Log,
    seq: u64,
    closed: bool,
}

impl OpenEntry<'_> {
    pub fn close(mut self, outcome: &str) {
        self.log.set_outcome(self.seq, outcome);
        self.closed = true;
    }
}

impl Drop for OpenEntry<'_> {
    fn drop(&mut self) {
        if !self.closed {
            self.log.set_outcome(self.seq, ABANDONED);
        }
    }
}
