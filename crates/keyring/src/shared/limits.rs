//! Sizes of the shared keyring, and where in a table something may lie.

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
