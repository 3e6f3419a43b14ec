//! Whether a value is sealed under the data key that seals its tenant's new values. Takes no key.

use super::remembered::Remembered;
use super::tenants;
use crate::pg::registry::invalidation::Place;
use crate::pg::registry::read;
use cmk_crypto::commitment::DekId;
use cmk_error::{Reason, Result};
use std::cell::RefCell;

thread_local! {
    static KNOWN: RefCell<Remembered<bool>> = RefCell::default();
}

/// False of an older data key of its tenant, and of one that the registry lacks.
///
/// # Errors
/// `not_installed`; as [`read::tenant`].
#[inline]
pub fn is_newest(id: &DekId) -> Result<bool> {
    KNOWN.with_borrow_mut(|known| known.get(id)).map_or_else(|| look_up(id), Ok)
}

#[cold]
fn look_up(id: &DekId) -> Result<bool> {
    let name = match tenants::of(id) {
        Err(error) if error.reason == Reason::UnknownDataKey => return Ok(false),
        name => name?,
    };
    // Before the read: a change during it then makes the answer stale, not wrong.
    let place = Place::of(&name);
    let generation = place.generation();
    let tenant = read::require_tenant(&name)?;
    let is_newest = tenant.current_data_key().is_ok_and(|key| key.commitment.dek_id() == *id);
    KNOWN.with_borrow_mut(|known| known.put(id, place, generation, is_newest));
    Ok(is_newest)
}
