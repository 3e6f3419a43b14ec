//! Sizes of the shared keyring, how much of it to look at under one lock, and where in a table
//! something may lie.

use super::identity::first_word;

/// Records, and places for data keys, at most: the largest `cmk_encrypt.shared_keyring_size`.
pub const RECORDS_MAX: usize = 65_536;

/// Entries to look at while a lock is held that keeps others waiting: some ten microseconds' worth.
pub const CHUNK: usize = 1_024;

/// Places of a table that one entry may take: so few that to look at all of them is cheap, so many
/// that a table is nearly full before they are.
const PROBE_LENGTH: usize = 64;

/// The places in a table of `len` places where something may lie that is named by a hash.
pub(crate) fn probe(len: usize, hash: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let first = first_word(hash) as usize % len.max(1);
    (0..len.min(PROBE_LENGTH)).map(move |i| (first + i) % len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(len: usize, first: u64) -> Vec<usize> {
        probe(len, &first.to_be_bytes()).collect()
    }

    #[test]
    fn what_a_hash_names_lies_in_few_places_that_follow_one_another() {
        assert_eq!(places(100, 7), (7..71).collect::<Vec<_>>());
        // Round the end.
        assert_eq!(places(100, 190), (90..100).chain(0..54).collect::<Vec<_>>());
        assert_eq!(places(100, u64::MAX), (15..79).collect::<Vec<_>>());
        assert_eq!(places(3, 4), [1, 2, 0]);
        assert!(places(0, 4).is_empty());
    }
}
