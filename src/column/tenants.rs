//! Whose value it is: an envelope names its data key, and the registry knows the tenant.

use crate::pg::registry::{invalidation, read};
use cmk_crypto::commitment::DekId;
use cmk_error::{Error, Reason, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Data keys that a session remembers the tenants of.
const REMEMBERED: usize = 4096;

struct Tenants {
    /// Of the registry, when this was read.
    generation: u64,
    last: Option<(DekId, Rc<str>)>,
    by_data_key: HashMap<[u8; 16], Rc<str>>,
}

thread_local! {
    static TENANTS: RefCell<Option<Tenants>> = const { RefCell::new(None) };
}

/// The tenant of a data key, by name. Whether its values may be opened is asked elsewhere.
///
/// # Errors
/// `unknown_data_key`, `not_installed`.
#[inline]
pub fn of(id: &DekId) -> Result<Rc<str>> {
    let generation = invalidation::registry_generation();
    let at_hand = TENANTS.with_borrow(|tenants| {
        let tenants = tenants.as_ref().filter(|tenants| tenants.generation == generation)?;
        let (last, name) = tenants.last.as_ref()?;
        (last == id).then(|| name.clone())
    });
    at_hand.map_or_else(|| look_up(id), Ok)
}

#[cold]
fn look_up(id: &DekId) -> Result<Rc<str>> {
    let generation = invalidation::registry_generation();
    let remembered = TENANTS.with_borrow(|tenants| {
        let tenants = tenants.as_ref().filter(|tenants| tenants.generation == generation)?;
        tenants.by_data_key.get(&id.0).cloned()
    });
    let name = match remembered {
        Some(name) => name,
        None => read::tenant_of_data_key(id)?
            .map(Rc::from)
            .ok_or_else(|| Error::new(Reason::UnknownDataKey))?,
    };
    // The first look makes changes of the registry count.
    let generation = invalidation::registry_generation();
    TENANTS.with_borrow_mut(|tenants| {
        let fresh = || Tenants { generation, last: None, by_data_key: HashMap::new() };
        let tenants = tenants.get_or_insert_with(fresh);
        if tenants.generation != generation || tenants.by_data_key.len() >= REMEMBERED {
            *tenants = fresh();
        }
        tenants.by_data_key.insert(id.0, name.clone());
        tenants.last = Some((*id, name.clone()));
    });
    Ok(name)
}
