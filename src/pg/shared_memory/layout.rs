//! Layout of our shared memory.

use cmk_keyring::shared::brake::{BRAKES, Brake};
use cmk_keyring::shared::counters::SharedCounters;
use cmk_keyring::shared::data_keys::DataKeySlot;
use cmk_keyring::shared::record::Record;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
};

/// Databases that can be looked for at the same time.
pub const SCOUTS: usize = 64;

/// What lies at the beginning of our piece of PostgreSQL's shared memory. Then come, for each
/// record, the record, a condition variable and a count of holders; then the brakes.
#[repr(C)]
pub struct Header {
    pub counters: SharedCounters,
    /// The latch of the process that zeroes expired data keys; null: none is alive, and nothing is
    /// shared.
    pub worker_latch: AtomicPtr<pg_sys::Latch>,
    /// Its process id; 0: none is alive.
    pub worker_pid: AtomicI32,
    /// When it has to look next, as far as anybody knows.
    pub next_expiry: AtomicU64,
    /// What was found of the databases that monitors are to watch, by the numbers of the scouts.
    pub scouts: [AtomicU8; SCOUTS],
    /// It is looking: it reads `next_expiry` when it is done, and needs no waking.
    pub worker_is_looking: AtomicBool,
}

/// All of it.
pub struct Layout {
    pub header: NonNull<Header>,
    pub lock: NonNull<pg_sys::LWLock>,
    pub records: NonNull<Record>,
    pub waits: NonNull<pg_sys::ConditionVariable>,
    pub holders: NonNull<AtomicU32>,
    pub brakes: NonNull<Brake>,
    pub slots: NonNull<DataKeySlot>,
    /// Records, and places for data keys.
    pub count: usize,
}

/// Set in the postmaster and inherited; null where the library was not preloaded.
pub static HEADER: AtomicPtr<Header> = AtomicPtr::new(std::ptr::null_mut());
pub static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(std::ptr::null_mut());
/// Records, and places for data keys.
pub static COUNT: AtomicUsize = AtomicUsize::new(0);
pub static DATA_KEYS: AtomicPtr<DataKeySlot> = AtomicPtr::new(std::ptr::null_mut());
pub static DATA_KEYS_LOCKED: AtomicBool = AtomicBool::new(false);

/// Of the area and of the lock's tranche.
pub const NAME: &CStr = c"cmk_encrypt";

/// Where the parts begin, and where all ends, in bytes from the header.
pub struct Offsets {
    pub records: usize,
    pub waits: usize,
    pub holders: usize,
    pub brakes: usize,
    pub end: usize,
}

impl Offsets {
    /// Each part begins at a cache line.
    pub fn of(count: usize) -> Self {
        const LINE: usize = 64;
        let records = size_of::<Header>().next_multiple_of(LINE);
        let waits = (records + size_of::<Record>() * count).next_multiple_of(LINE);
        let holders =
            (waits + size_of::<pg_sys::ConditionVariable>() * count).next_multiple_of(LINE);
        let brakes = (holders + size_of::<AtomicU32>() * count).next_multiple_of(LINE);
        let end = (brakes + size_of::<Brake>() * BRAKES).next_multiple_of(LINE);
        Self { records, waits, holders, brakes, end }
    }
}

/// Where everything is; `None` if the library was not preloaded.
pub fn layout() -> Option<Layout> {
    let header = NonNull::new(HEADER.load(Acquire))?;
    let count = COUNT.load(Acquire);
    let at = Offsets::of(count);
    // SAFETY: within the area that was made at startup.
    unsafe {
        Some(Layout {
            header,
            lock: NonNull::new(LOCK.load(Acquire))?,
            records: header.byte_add(at.records).cast(),
            waits: header.byte_add(at.waits).cast(),
            holders: header.byte_add(at.holders).cast(),
            brakes: header.byte_add(at.brakes).cast(),
            slots: NonNull::new(DATA_KEYS.load(Acquire))?,
            count,
        })
    }
}

/// The header, if the library was preloaded.
#[inline]
pub fn header() -> Option<&'static Header> {
    // SAFETY: shared memory lasts as long as the process; the header is atomics only.
    NonNull::new(HEADER.load(Acquire)).map(|header| unsafe { header.as_ref() })
}
