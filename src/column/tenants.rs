//! Whose value it is: an envelope names its data key, and the registry knows the tenant.

use super::remembered::Remembered;
use crate::pg::registry::invalidation::{self, Place};
use crate::pg::registry::read;
use cmk_crypto::commitment::DekId;
use cmk_error::{Reason, Result};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

/// Unknown data keys that a session remembers.
const UNKNOWN_MOST: usize = 4096;

thread_local! {
    static TENANTS: RefCell<Remembered<Rc<str>>> = RefCell::default();
    /// Data keys that the registry did not have at this generation of it.
    static UNKNOWN: RefCell<(u64, HashSet<[u8; 16]>)> = RefCell::default();
}

/// The tenant of a data key, by name. Whether its values may be opened is asked elsewhere.
///
/// # Errors
/// `unknown_data_key`, `not_installed`.
#[inline]
pub fn of(id: &DekId) -> Result<Rc<str>> {
    TENANTS.with_borrow_mut(|tenants| tenants.get(id)).map_or_else(|| look_up(id), Ok)
}

#[cold]
fn look_up(id: &DekId) -> Result<Rc<str>> {
    // Before the read: an answer that a change came into is not remembered.
    let generation = invalidation::registry_generation();
    if UNKNOWN.with_borrow(|(of, ids)| *of == generation && ids.contains(&id.0)) {
        return Err(Reason::UnknownDataKey.into());
    }
    let Some(name) = read::tenant_of_data_key(id)? else {
        UNKNOWN.with_borrow_mut(|(of, ids)| {
            if *of != generation || ids.len() >= UNKNOWN_MOST {
                (*of, *ids) = (generation, HashSet::new());
            }
            ids.insert(id.0);
        });
        return Err(Reason::UnknownDataKey.into());
    };
    let (place, name) = (Place::of(&name), Rc::from(name));
    let of = place.generation();
    if invalidation::registry_generation() == generation {
        TENANTS.with_borrow_mut(|tenants| tenants.put(id, place, of, Rc::clone(&name)));
    }
    Ok(name)
}
