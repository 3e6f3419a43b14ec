//! An LRU map.

use lru::LruCache;
use std::hash::Hash;

/// A map that forgets what was not used for longest.
pub struct Kept<K: Hash + Eq, V> {
    entries: LruCache<K, V>,
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    /// Without a size of its own, so that nothing is set aside for entries that never come.
    pub fn new() -> Self {
        Self { entries: LruCache::unbounded() }
    }

    /// Counts as a use.
    pub fn find(&mut self, key: &K) -> Option<V> {
        self.entries.get(key).cloned()
    }

    /// Puts the entry in, in place of one of the same key, and keeps `most` at most, this one in
    /// any case. Returns what it takes out, for the caller to drop.
    pub fn keep(&mut self, key: K, value: V, most: usize) -> Vec<V> {
        let mut out: Vec<_> = self.entries.put(key, value).into_iter().collect();
        while self.entries.len() > most.max(1) {
            out.extend(self.entries.pop_lru().map(|(_, value)| value));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(kept: &mut Kept<u32, u32>, keys: impl IntoIterator<Item = u32>) -> Vec<u32> {
        keys.into_iter().filter_map(|key| kept.find(&key)).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut kept = Kept::new();
        for n in 0..4 {
            assert!(kept.keep(n, n, 4).is_empty());
        }
        assert_eq!(kept.find(&0), Some(0));
        assert_eq!(kept.keep(4, 4, 4), [1]);
        assert_eq!(kept.keep(5, 5, 4), [2]);
        assert_eq!(present(&mut kept, 0..6), [0, 3, 4, 5]);
    }

    #[test]
    fn the_same_key_takes_no_room() {
        let mut kept = Kept::new();
        kept.keep(1, 10, 2);
        kept.keep(2, 20, 2);
        assert_eq!(kept.keep(1, 11, 2), [10]);
        assert_eq!(present(&mut kept, [1, 2]), [11, 20]);
    }

    #[test]
    fn a_smaller_limit_holds_from_the_next_entry_on() {
        let mut kept = Kept::new();
        for n in 0..10 {
            kept.keep(n, n, 10);
        }
        assert_eq!(kept.keep(10, 10, 2), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(kept.keep(11, 11, 0), [9, 10]);
        assert_eq!(present(&mut kept, 0..12), [11]);
    }
}
