//! What a session remembers of data keys, until the registry says something new of their tenants.

use crate::pg::registry::invalidation::Place;
use cmk_crypto::commitment::DekId;
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Data keys that are remembered.
const MOST: usize = 4096;

pub struct Remembered<T> {
    last: Option<(DekId, Known<T>)>,
    by_data_key: HashMap<[u8; 16], Known<T>, RandomState>,
}

#[derive(Clone)]
struct Known<T> {
    place: Place,
    /// Of the tenant in the registry, when this was read.
    generation: u64,
    what: T,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { last: None, by_data_key: HashMap::default() }
    }
}

impl<T: Clone> Remembered<T> {
    /// Of one statement's values, many are sealed under one data key.
    #[inline]
    pub fn get(&mut self, id: &DekId) -> Option<T> {
        match &self.last {
            Some((last, known)) if last == id && known.holds() => Some(known.what.clone()),
            _ => self.find(id),
        }
    }

    #[cold]
    fn find(&mut self, id: &DekId) -> Option<T> {
        let known = self.by_data_key.get(&id.0).filter(|known| known.holds())?.clone();
        let what = known.what.clone();
        self.last = Some((*id, known));
        Some(what)
    }

    /// What holds of a data key as of that generation of its tenant's place.
    pub fn put(&mut self, id: &DekId, place: Place, generation: u64, what: T) {
        if self.by_data_key.len() >= MOST {
            self.by_data_key.clear();
        }
        let known = Known { place, generation, what };
        self.by_data_key.insert(id.0, known.clone());
        self.last = Some((*id, known));
    }
}

impl<T> Known<T> {
    #[inline]
    fn holds(&self) -> bool {
        self.place.generation() == self.generation
    }
}
