//! What data keys were used for, on its way from one process to all.

/// Uses of a tenant's data keys since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Uses {
    /// Values sealed or opened under a data key that was at hand.
    pub hits: u64,
    /// Values sealed under the data key of that version, at hand or not.
    pub sealed: Sealed,
}

/// Values that were sealed under one data key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sealed {
    /// How many, at least.
    pub values: u64,
    /// Of the data key; 0: none.
    pub version: i32,
}

impl Sealed {
    /// Counts more of them. Who seals by the data key before, because it has not heard of the new
    /// one yet, is not counted any more: that one seals nothing from now on.
    pub fn add(&mut self, more: Self) {
        if more.version > self.version {
            *self = more;
        } else if more.version == self.version {
            self.values = self.values.saturating_add(more.values);
        }
    }
}

impl Uses {
    /// True if there were none.
    pub fn is_empty(&self) -> bool {
        self.hits == 0 && self.sealed.values == 0
    }

    /// Counts more of them.
    pub fn add(&mut self, more: Self) {
        self.hits += more.hits;
        self.sealed.add(more.sealed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_for_the_newest_data_key() {
        let mut sealed = Sealed::default();
        for (values, version) in [(3, 1), (4, 1), (2, 2), (9, 1), (5, 2)] {
            sealed.add(Sealed { values, version });
        }
        assert_eq!(sealed, Sealed { values: 7, version: 2 });
    }

    #[test]
    fn uses_add_up() {
        let mut uses = Uses::default();
        assert!(uses.is_empty());
        uses.add(Uses { hits: 2, sealed: Sealed::default() });
        uses.add(Uses { hits: 0, sealed: Sealed { values: 1, version: 4 } });
        assert_eq!(uses, Uses { hits: 2, sealed: Sealed { values: 1, version: 4 } });
        assert!(!uses.is_empty());
    }
}
