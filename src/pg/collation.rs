//! Collations.

use pgrx::pg_sys;

/// Whether only equal bytes are equal texts.
pub fn is_deterministic(collation: pg_sys::Oid) -> bool {
    let is_default = [pg_sys::InvalidOid, pg_sys::DEFAULT_COLLATION_OID, pg_sys::C_COLLATION_OID]
        .contains(&collation);
    // SAFETY: a catalog look-up in a transaction on the main thread.
    is_default || unsafe { pg_sys::get_collation_isdeterministic(collation) }
}
