//! How a backend learns that the registry, a grant or a role membership changed.
//!
//! Every changed row of a registry table invalidates that table's relation cache entry (a row
//! trigger, which also fires for logical replication, calls [`announce`]). PostgreSQL carries the
//! message to all backends at commit, and to standbys with the commit record; on rollback it undoes
//! it locally. Here it only counts [`generation`] up: the keyring compares and reads the registry
//! again.

use crate::pg::shared_memory::access;
use pgrx::{pg_guard, pg_sys};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Object ids of the registry tables as last seen; 0 before the first look.
static TABLES: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];

/// Once per process, or in the postmaster for all its children.
pub fn register_callbacks() {
    let none = pg_sys::Datum::from(0_usize);
    // SAFETY: called from _PG_init on the main thread; the callbacks touch atomics only.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation), none);
        // The database too: its owner is the one member of pg_database_owner.
        for cache in [AUTH_OID, AUTH_MEMBERS, DATABASE] {
            pg_sys::CacheRegisterSyscacheCallback(cache, Some(on_role), none);
        }
    }
}

const AUTH_OID: i32 = pg_sys::SysCacheIdentifier::AUTHOID as i32;
const AUTH_MEMBERS: i32 = pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM as i32;
const DATABASE: i32 = pg_sys::SysCacheIdentifier::DATABASEOID as i32;

/// The tables that matter from now on; all of them or it is called again.
pub fn watch(tables: [pg_sys::Oid; 4]) {
    for (slot, oid) in TABLES.iter().zip(tables) {
        slot.store(oid.to_u32(), Relaxed);
    }
}

/// The generation of the registry and of notices, after taking in what other backends committed
/// meanwhile, also in the middle of a statement.
#[inline]
pub fn generation() -> u64 {
    // SAFETY: in a transaction on the main thread, as for any function call of the executor.
    // Without pending messages it is one comparison.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    // Both only grow, so the sum changes if either does.
    GENERATION.load(Relaxed) + access::notices()
}

/// That of the registry alone, as of the last call of [`generation`].
pub fn registry_generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// This transaction changed the registry.
static DIRTY: AtomicBool = AtomicBool::new(false);

/// True from a change of the registry to the end of the transaction. What it sees is nobody else's
/// yet: a data key unwrapped under an uncommitted eviction would outlive the commit in other
/// sessions.
pub fn has_uncommitted_changes() -> bool {
    DIRTY.load(Relaxed)
}

/// At the end of a transaction. True if it had changed the registry.
pub fn settle() -> bool {
    DIRTY.swap(false, Relaxed)
}

/// Tells every backend, at commit, that `table` changed.
pub fn announce(table: pg_sys::Oid) {
    DIRTY.store(true, Relaxed);
    // SAFETY: in a transaction on the main thread, with the table locked by the statement that
    // fired.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}

/// An invalid oid stands for "everything": messages were lost.
#[pg_guard]
extern "C-unwind" fn on_relation(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let relation = relation.to_u32();
    if relation == 0 || TABLES.iter().any(|table| table.load(Relaxed) == relation) {
        GENERATION.fetch_add(1, Relaxed);
    }
}

#[pg_guard]
extern "C-unwind" fn on_role(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    GENERATION.fetch_add(1, Relaxed);
}
