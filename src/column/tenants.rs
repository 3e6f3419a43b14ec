//! Whose value it is: an envelope names its data key, and the registry knows the tenant.

use super::remembered::Remembered;
use crate::pg::registry::{invalidation, read};
use cmk_crypto::commitment::DekId;
use cmk_error::{Error, Reason, Result};
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static TENANTS: RefCell<Remembered<Rc<str>>> = RefCell::default();
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
    // From now on changes count, and one meanwhile makes the answer one that is not remembered.
    read::watch()?;
    let generation = invalidation::registry_generation();
    let name = read::tenant_of_data_key(id)?.ok_or_else(|| Error::new(Reason::UnknownDataKey))?;
    let (of, name) = (invalidation::tenant_generation(&name), Rc::from(name));
    if invalidation::registry_generation() == generation {
        TENANTS.with_borrow_mut(|tenants| tenants.put(id, &name, of, Rc::clone(&name)));
    }
    Ok(name)
}
