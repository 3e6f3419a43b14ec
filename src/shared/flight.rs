//! Single flight: of many processes that lack a data key of a tenant, one asks KMS.

use super::Tag;
use crate::cache::Instant;

/// The place in a record where a flight is entered.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Slot {
    number: u64,
    /// After this the process is taken for lost and another may try.
    until: Instant,
    /// Process id; 0: nobody.
    pub process: u32,
}

/// The right, and the duty, to ask KMS and tell the others.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    pub tag: Tag,
    number: u64,
}

impl Slot {
    pub fn is_up(&self, now: Instant) -> bool {
        self.process != 0 && now < self.until
    }

    pub fn take_off(&mut self, tag: Tag, number: u64, process: u32, until: Instant) -> Flight {
        *self = Self { number, until, process };
        Flight { tag, number }
    }

    /// False if another took over meanwhile.
    pub fn land(&mut self, flight: &Flight) -> bool {
        let ours = self.number == flight.number;
        if ours {
            *self = Self::default();
        }
        ours
    }
}
