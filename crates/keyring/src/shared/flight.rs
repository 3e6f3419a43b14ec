//! Single flight: of many processes that lack a data key of a tenant, one asks KMS.

use cmk_error::Instant;

/// One use of a record for one tenant, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// Of no record.
    pub const NONE: Self = Self(0);

    pub(super) fn new(at: usize, generation: u16) -> Self {
        Self((at as u64 + 1) << 16 | u64::from(generation))
    }

    /// The record's number.
    pub fn record(self) -> Option<usize> {
        ((self.0 >> 16) as usize).checked_sub(1)
    }

    pub fn generation(self) -> u16 {
        self.0 as u16
    }
}

/// The place in a record where a flight is entered.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Slot {
    pub(super) number: u64,
    /// After this the process is taken for lost and another may try.
    until: Instant,
    /// Process id; 0: nobody.
    pub process: u32,
    /// Somebody waits for the data key.
    pub awaited: bool,
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
        *self = Self { number, until, process, awaited: false };
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
