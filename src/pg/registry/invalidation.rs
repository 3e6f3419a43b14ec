//! How a backend learns that the registry, a grant or a role membership changed.
//!
//! Every changed row of a registry table sends an invalidation message (a row trigger, which also
//! fires for logical replication, calls [`announce`] or [`announce_tenant`]). PostgreSQL carries
//! the message to all backends at commit, and to standbys with the commit record; on rollback it
//! undoes it locally. Here it only counts a generation up: the keyring compares and reads the
//! registry again.
//!
//! What concerns one tenant counts for that tenant, and for the few that share its place, so that a
//! change costs the same however many tenants there are.

use crate::pg::shared_memory::access;
use cmk_envelope::column::TenantTag;
use pgrx::{pg_guard, pg_sys};
use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Of everything that changed.
static ANY: AtomicU64 = AtomicU64::new(1);

/// Of what concerns all tenants.
static COMMON: AtomicU64 = AtomicU64::new(1);

/// Of what concerns some, by their names.
static PLACES: [AtomicU64; PLACES_LEN] = [const { AtomicU64::new(0) }; PLACES_LEN];

const PLACES_LEN: usize = 1 << 12;

/// The message for a place names a relation with this object id or one of those after it, the last
/// that there are. A table that has such an id is nothing worse than looked up again.
const FIRST_PLACE: u32 = u32::MAX - (PLACES_LEN as u32 - 1);

/// A transaction that changes more rows than this sends messages for their tables from there on. Of
/// a statement those are one a table: as many as its rows would push out of PostgreSQL's queue,
/// which holds 4,096, what slow sessions did not read.
const TENANTS_MAX: u32 = 256;

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
    ANY.load(Relaxed) + access::notices()
}

/// That of the registry alone, as of the last call of [`generation`].
pub fn registry_generation() -> u64 {
    ANY.load(Relaxed)
}

/// The same without what the registry says of single tenants.
#[inline]
pub fn common_generation() -> u64 {
    COMMON.load(Relaxed)
}

/// The same with what it says of this tenant.
pub fn tenant_generation(name: &str) -> u64 {
    Place::of(name).generation()
}

/// Where changes of a tenant are counted.
#[derive(Clone, Copy)]
pub struct Place(u16);

impl Place {
    /// The same in every process, on standbys too.
    pub fn of(tenant: &str) -> Self {
        let [first, second, ..] = TenantTag::of(tenant.as_bytes()).0;
        Self(u16::from_be_bytes([first, second]) % PLACES_LEN as u16)
    }

    /// As [`tenant_generation`].
    #[inline]
    pub fn generation(self) -> u64 {
        let place = PLACES.get(usize::from(self.0)).map_or(0, |place| place.load(Relaxed));
        common_generation() + place
    }

    fn message(self) -> u32 {
        FIRST_PLACE + u32::from(self.0)
    }
}

/// This transaction changed the registry.
static DIRTY: AtomicBool = AtomicBool::new(false);

/// True from a change of the registry to the end of the transaction. What it sees is nobody else's
/// yet: a data key unwrapped under an uncommitted eviction would outlive the commit in other
/// sessions.
pub fn has_uncommitted_changes() -> bool {
    DIRTY.load(Relaxed)
}

/// Messages for tenants that this transaction has sent.
static ANNOUNCED: AtomicU32 = AtomicU32::new(0);

/// At the end of a transaction. True if it had changed the registry.
pub fn settle() -> bool {
    ANNOUNCED.store(0, Relaxed);
    DIRTY.swap(false, Relaxed)
}

/// Tells every backend, at commit, that what `table` says of this tenant changed.
pub fn announce_tenant(name: &str, table: pg_sys::Oid) {
    if ANNOUNCED.fetch_add(1, Relaxed) >= TENANTS_MAX {
        return announce(table);
    }
    DIRTY.store(true, Relaxed);
    invalidate_relation(Place::of(name).message());
}

/// What [`pg_sys::CacheInvalidateRelcacheByTuple`] looks at: a row of `pg_class`.
#[repr(C)]
struct ClassRow {
    header: pg_sys::HeapTupleHeaderData,
    class: pg_sys::FormData_pg_class,
}

/// Sends the message that PostgreSQL sends when a table of this database changed, of a table that
/// there need not be. It is the only kind of message that an extension can send and receive.
fn invalidate_relation(number: u32) {
    // SAFETY: plain numbers, which may all be zero.
    let mut row: ClassRow = unsafe { std::mem::zeroed() };
    row.header.t_hoff = offset_of!(ClassRow, class) as u8;
    row.class.oid = pg_sys::Oid::from(number);
    let t_data = (&raw mut row).cast();
    let mut tuple =
        pg_sys::HeapTupleData { t_len: size_of::<ClassRow>() as u32, t_data, ..Default::default() };
    // SAFETY: in a transaction on the main thread. The function reads `oid` and `relisshared` of
    // the row, `t_hoff` bytes after its beginning, and keeps nothing of it.
    unsafe { pg_sys::CacheInvalidateRelcacheByTuple(&mut tuple) };
}

/// Tells every backend, at commit, that `table` changed in a way that may concern any tenant.
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
        common_changed();
    } else if let Some(place) = relation.checked_sub(FIRST_PLACE)
        && let Some(place) = PLACES.get(place as usize)
    {
        place.fetch_add(1, Relaxed);
        ANY.fetch_add(1, Relaxed);
    }
}

#[pg_guard]
extern "C-unwind" fn on_role(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    common_changed();
}

fn common_changed() {
    COMMON.fetch_add(1, Relaxed);
    ANY.fetch_add(1, Relaxed);
}
