//! Shared memory: what the processes of this server know in common ([`Shared`]), its lock, and the means to
//! wait for one another. Without `shared_preload_libraries` the same structures are memory of one process.
//!
//! Data keys lie apart from PostgreSQL's shared memory, in a mapping of our own that the postmaster makes and
//! all processes inherit, so that it can be locked and left out of core dumps as a whole.

use super::settings;
use cmk_crypto::pages::{self, Sharing};
use cmk_error::Instant;
use cmk_keyring::shared::brake::{BRAKES, Brake};
use cmk_keyring::shared::record::Record;
use cmk_keyring::shared::vault::Slot;
use cmk_keyring::shared::{Shared, Words};
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use zeroize::Zeroize;

/// What lies at the beginning of our piece of PostgreSQL's shared memory. Then come `records` times a
/// [`Record`], a condition variable and a count of holders.
#[repr(C)]
pub struct Header {
    pub words: Words,
    /// The latch of the process that zeroes expired data keys; null: none is alive, and nothing is shared.
    pub sweeper: AtomicPtr<pg_sys::Latch>,
    /// When the sweeper looks next.
    pub next_sweep: AtomicU64,
}

struct Layout {
    header: NonNull<Header>,
    lock: NonNull<pg_sys::LWLock>,
    records: NonNull<Record>,
    waits: NonNull<pg_sys::ConditionVariable>,
    holders: NonNull<AtomicU32>,
    brakes: NonNull<Brake>,
    slots: NonNull<Slot>,
}

/// Set in the postmaster and inherited; null where the library was not preloaded.
static HEADER: AtomicPtr<Header> = AtomicPtr::new(std::ptr::null_mut());
static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(std::ptr::null_mut());
/// Records and slots.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static VAULT: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());
static VAULT_LOCKED: AtomicBool = AtomicBool::new(false);

/// Of the area and of the lock's tranche.
const NAME: &std::ffi::CStr = c"cmk_encrypt";

/// Tenants that a process remembers where the library is not preloaded.
const PRIVATE_RECORDS: usize = 1024;

static PRIVATE_WORDS: Words = Words::new();

thread_local! {
    static PRIVATE: RefCell<Box<[Record]>> = RefCell::new(no_records());
}

/// Pages of zeroes that the kernel provides when they are first written to.
fn no_records() -> Box<[Record]> {
    let records = Box::<[Record]>::new_zeroed_slice(PRIVATE_RECORDS);
    // SAFETY: a record is plain numbers, valid when all are zero.
    unsafe { records.assume_init() }
}

#[cfg(not(feature = "pg14"))]
static PREVIOUS_REQUEST: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_STARTUP: AtomicUsize = AtomicUsize::new(0);

type Hook = unsafe extern "C-unwind" fn();

/// In the postmaster, before its shared memory is made.
pub fn reserve() {
    // SAFETY: _PG_init of a preloaded library, the time and place to set these hooks.
    unsafe {
        #[cfg(feature = "pg14")]
        request();
        #[cfg(not(feature = "pg14"))]
        {
            PREVIOUS_REQUEST.store(hook_address(pg_sys::shmem_request_hook), Relaxed);
            pg_sys::shmem_request_hook = Some(on_request);
        }
        PREVIOUS_STARTUP.store(hook_address(pg_sys::shmem_startup_hook), Relaxed);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

fn hook_address(hook: Option<Hook>) -> usize {
    hook.map_or(0, |hook| hook as usize)
}

fn call_previous(hook: &AtomicUsize) {
    let address = hook.load(Relaxed);
    if address != 0 {
        // SAFETY: another library's hook of this type, which was there before ours.
        let hook: Hook = unsafe { std::mem::transmute(address) };
        // SAFETY: called when PostgreSQL would have called it.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| hook()) };
    }
}

#[cfg(not(feature = "pg14"))]
#[pg_guard]
extern "C-unwind" fn on_request() {
    call_previous(&PREVIOUS_REQUEST);
    request();
}

fn request() {
    // SAFETY: the time to ask for shared memory.
    unsafe {
        pg_sys::RequestAddinShmemSpace(size());
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
    }
}

fn size() -> usize {
    offsets(settings::shared_size())[4]
}

/// Where records, condition variables, holders and brakes begin, and where all ends.
fn offsets(records: usize) -> [usize; 5] {
    let mut at = size_of::<Header>().next_multiple_of(64);
    let sizes = [
        size_of::<Record>() * records,
        size_of::<pg_sys::ConditionVariable>() * records,
        size_of::<AtomicU32>() * records,
        size_of::<Brake>() * BRAKES,
        0,
    ];
    sizes.map(|size| {
        let begin = at;
        at = (at + size).next_multiple_of(64);
        begin
    })
}

/// Also after a crash, when PostgreSQL makes its shared memory anew; ours is then zeroed.
#[pg_guard]
extern "C-unwind" fn on_startup() {
    call_previous(&PREVIOUS_STARTUP);
    let count = settings::shared_size();
    COUNT.store(count, Relaxed);
    let mut found = false;
    // SAFETY: in the postmaster, alone; the area has the size asked for and is aligned to a cache line. The
    // condition variables are initialised before anyone can use them.
    unsafe {
        let base = pg_sys::ShmemInitStruct(NAME.as_ptr(), size(), &mut found).cast::<u8>();
        base.write_bytes(0, size());
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock;
        LOCK.store(lock, Release);
        HEADER.store(base.cast(), Release);
        let waits = base.add(offsets(count)[1]).cast::<pg_sys::ConditionVariable>();
        for i in 0..count {
            pg_sys::ConditionVariableInit(waits.add(i));
        }
    }
    match NonNull::new(VAULT.load(Acquire)) {
        // All of it, for a process may have been killed in the middle of a change.
        // SAFETY: as made below; no other process is alive.
        Some(vault) => unsafe {
            std::slice::from_raw_parts_mut(vault.cast::<u8>().as_ptr(), count * size_of::<Slot>())
                .zeroize();
        },
        None => {
            let (base, granted) = pages::map(count * size_of::<Slot>(), Sharing::WithChildren);
            VAULT_LOCKED.store(granted.locked > 0, Relaxed);
            VAULT.store(base.cast().as_ptr(), Release);
        }
    }
}

/// Where everything is; `None` if the library was not preloaded.
fn layout() -> Option<Layout> {
    let header = NonNull::new(HEADER.load(Acquire))?;
    let [records, waits, holders, brakes, _] = offsets(COUNT.load(Relaxed));
    // SAFETY: within the area that on_startup() made.
    unsafe {
        Some(Layout {
            header,
            lock: NonNull::new(LOCK.load(Acquire))?,
            records: header.byte_add(records).cast(),
            waits: header.byte_add(waits).cast(),
            holders: header.byte_add(holders).cast(),
            brakes: header.byte_add(brakes).cast(),
            slots: NonNull::new(VAULT.load(Acquire))?,
        })
    }
}

pub fn is_shared() -> bool {
    !HEADER.load(Relaxed).is_null()
}

pub fn header() -> Option<&'static Header> {
    // SAFETY: shared memory lasts as long as the process; the header is atomics only.
    NonNull::new(HEADER.load(Acquire)).map(|header| unsafe { header.as_ref() })
}

#[inline]
pub fn words() -> &'static Words {
    header().map_or(&PRIVATE_WORDS, |header| &header.words)
}

/// Sees to it that the sweeper wakes by `deadline`.
pub fn sweep_by(deadline: Instant) {
    let Some(header) = header() else { return };
    let latch = header.sweeper.load(Acquire);
    if deadline < header.next_sweep.load(Acquire) && !latch.is_null() {
        // SAFETY: a process's latch in shared memory, which outlives the process.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// False if the system did not let us keep shared data keys out of swap.
pub fn vault_is_locked() -> bool {
    !is_shared() || VAULT_LOCKED.load(Relaxed)
}

/// Runs `work` on memory of this process alone.
pub fn with_own<R>(work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
    PRIVATE.with_borrow_mut(|records| {
        work(&mut Shared { words: &PRIVATE_WORDS, records, slots: &mut [], brakes: &mut [] })
    })
}

/// Runs `work` on what all processes know, under the lock; on this one's own memory where the library isn't
/// preloaded. It must not wait, and can't raise an ERROR.
pub fn with<R>(work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
    let Some(at) = layout() else { return with_own(work) };
    let count = COUNT.load(Relaxed);
    let exclusive = pg_sys::LWLockMode::LW_EXCLUSIVE;
    // SAFETY: the lock keeps everybody else from records and slots. Should `work` panic, the transaction's
    // abort or the process's exit releases the lock.
    unsafe {
        let header = at.header.as_ref();
        pg_sys::LWLockAcquire(at.lock.as_ptr(), exclusive);
        let records = std::slice::from_raw_parts_mut(at.records.as_ptr(), count);
        let shares = !header.sweeper.load(Relaxed).is_null() && !sees_anothers_changes();
        let slots = if shares { count } else { 0 };
        let slots = std::slice::from_raw_parts_mut(at.slots.as_ptr(), slots);
        let brakes = std::slice::from_raw_parts_mut(at.brakes.as_ptr(), BRAKES);
        let result = work(&mut Shared { words: &header.words, records, slots, brakes });
        pg_sys::LWLockRelease(at.lock.as_ptr());
        result
    }
}

/// True in a parallel worker whose leader has written something: an eviction, perhaps, that isn't committed yet. Our
/// functions don't run in parallel workers, but those of others that are declared wrongly may call them. Calls and
/// failures count as everybody's; data keys are not shared.
fn sees_anothers_changes() -> bool {
    // SAFETY: set when the process starts; in a transaction on the main thread.
    unsafe {
        pg_sys::ParallelWorkerNumber >= 0
            && pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId
    }
}

/// The condition variable of a record. `None` if nothing is shared, and so nobody can wait.
pub fn wait_point(record: usize) -> Option<*mut pg_sys::ConditionVariable> {
    let at = layout()?;
    // SAFETY: within the area, which has one for each record.
    (record < COUNT.load(Relaxed)).then(|| unsafe { at.waits.as_ptr().add(record) })
}

/// Processes that hold a data key of a record: its generation in the upper half, the number in the lower.
pub fn holders(record: usize) -> Option<&'static AtomicU32> {
    let at = layout()?;
    // SAFETY: within the area, which has one for each record and lasts.
    (record < COUNT.load(Relaxed)).then(|| unsafe { at.holders.add(record).as_ref() })
}
