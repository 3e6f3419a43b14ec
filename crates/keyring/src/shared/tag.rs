//! A reference to a record that goes stale when the record is recycled.

/// One use of a record for one tenant, in a word: the record's number in the upper 48 bits, its
/// generation in the lower 16. A record that another tenant gets counts its generation up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

impl Tag {
    /// Of no record.
    pub const NONE: Self = Self(0);

    pub(crate) fn new(at: usize, generation: u16) -> Self {
        Self((at as u64 + 1) << 16 | u64::from(generation))
    }

    /// The record's number; `None` for [`Tag::NONE`].
    pub fn record(self) -> Option<usize> {
        ((self.0 >> 16) as usize).checked_sub(1)
    }

    /// The generation that the record had.
    pub fn generation(self) -> u16 {
        self.0 as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_holds_a_record_and_its_generation_apart() {
        for (record, generation) in [(0, 0), (0, 1), (7, 0xFFFF), (65_535, 0x8001)] {
            let tag = Tag::new(record, generation);
            assert_eq!((tag.record(), tag.generation()), (Some(record), generation));
        }
        assert_eq!(Tag::NONE.record(), None);
        assert_eq!(Tag::new(1, 2).0, 2 << 16 | 2);
    }
}
