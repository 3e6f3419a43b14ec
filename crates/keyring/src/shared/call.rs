//! A KMS call that is on its way, as a record has it.

use super::tag::Tag;
use cmk_error::Instant;

/// The place in a record where a call is entered; all zero: there is none.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CallSlot {
    pub(super) number: u64,
    /// After this the process is taken for lost and another may try.
    until: Instant,
    /// Process id; 0: nobody.
    pub(super) pid: u32,
    /// Somebody waits for the data key.
    pub(super) awaited: bool,
}

/// The right to ask KMS, and the duty to say how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPermit {
    /// The record in which the call is entered.
    pub tag: Tag,
    number: u64,
}

/// A call of another process: its number, and the record in which it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedCall {
    /// The record's number.
    pub record: usize,
    pub(super) number: u64,
}

impl CallSlot {
    pub(super) fn in_progress(&self, now: Instant) -> bool {
        self.pid != 0 && now < self.until
    }

    pub(super) fn begin(&mut self, tag: Tag, number: u64, pid: u32, until: Instant) -> CallPermit {
        *self = Self { number, until, pid, awaited: false };
        CallPermit { tag, number }
    }

    /// False if another took over meanwhile.
    pub(super) fn end(&mut self, permit: &CallPermit) -> bool {
        let ours = self.number == permit.number;
        if ours {
            *self = Self::default();
        }
        ours
    }
}
