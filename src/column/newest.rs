//! Whether a value is sealed under the data key that seals its tenant's new values. Takes no key.

use super::tenants;
use crate::pg::registry::{invalidation, read};
use cmk_crypto::commitment::DekId;
use cmk_error::{Reason, Result};
use std::cell::RefCell;
use std::collections::HashMap;

/// Data keys that a session remembers the answer for.
const REMEMBERED: usize = 4096;

struct Known {
    /// Of the registry, when this was read.
    generation: u64,
    last: Option<(DekId, bool)>,
    by_data_key: HashMap<[u8; 16], bool>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// False of an older data key of its tenant, and of one that the registry lacks.
///
/// # Errors
/// `not_installed`; as [`read::tenant`].
#[inline]
pub fn is_newest(id: &DekId) -> Result<bool> {
    let generation = invalidation::registry_generation();
    let at_hand = KNOWN.with_borrow(|known| {
        let known = known.as_ref().filter(|known| known.generation == generation)?;
        let (last, is_newest) = known.last.as_ref()?;
        (last == id).then_some(*is_newest)
    });
    at_hand.map_or_else(|| look_up(id), Ok)
}

#[cold]
fn look_up(id: &DekId) -> Result<bool> {
    let generation = invalidation::registry_generation();
    let remembered = KNOWN.with_borrow(|known| {
        let known = known.as_ref().filter(|known| known.generation == generation)?;
        known.by_data_key.get(&id.0).copied()
    });
    let is_newest = match remembered {
        Some(is_newest) => is_newest,
        None => ask_registry(id)?,
    };
    // The first look makes changes of the registry count.
    let generation = invalidation::registry_generation();
    KNOWN.with_borrow_mut(|known| {
        let fresh = || Known { generation, last: None, by_data_key: HashMap::new() };
        let known = known.get_or_insert_with(fresh);
        if known.generation != generation || known.by_data_key.len() >= REMEMBERED {
            *known = fresh();
        }
        known.by_data_key.insert(id.0, is_newest);
        known.last = Some((*id, is_newest));
    });
    Ok(is_newest)
}

fn ask_registry(id: &DekId) -> Result<bool> {
    let name = match tenants::of(id) {
        Err(error) if error.reason == Reason::UnknownDataKey => return Ok(false),
        name => name?,
    };
    let tenant = read::require_tenant(&name)?;
    Ok(tenant.current_data_key().is_ok_and(|key| key.commitment.dek_id() == *id))
}
