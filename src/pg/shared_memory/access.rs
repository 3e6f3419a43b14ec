//! Locked access to the shared keyring's memory.

use super::layout::{DATA_KEYS_LOCKED, Header, Layout, header, layout};
use crate::pg::clock;
use cmk_error::Instant;
use cmk_keyring::shared::brake::BRAKES;
use cmk_keyring::shared::counters::SharedCounters;
use cmk_keyring::shared::limits::CHUNK;
use cmk_keyring::shared::now::Now;
use cmk_keyring::shared::record::Record;
use cmk_keyring::shared::table::SharedKeyring;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

/// Tenants that a process remembers where the library is not preloaded.
const PRIVATE_RECORDS: usize = 1024;

static PRIVATE_COUNTERS: SharedCounters = SharedCounters::new();

thread_local! {
    static PRIVATE_RECORDS_TABLE: RefCell<Box<[Record]>> = RefCell::new(no_records());
}

/// Pages of zeroes that the kernel provides when they are first written to.
fn no_records() -> Box<[Record]> {
    let records = Box::<[Record]>::new_zeroed_slice(PRIVATE_RECORDS);
    // SAFETY: a record is plain numbers, valid when all are zero.
    unsafe { records.assume_init() }
}

/// Whether the library is preloaded, so that there is memory that all processes share.
pub fn is_shared() -> bool {
    header().is_some()
}

/// What needs no lock.
#[inline]
pub fn counters() -> &'static SharedCounters {
    match header() {
        Some(header) => &header.counters,
        None => {
            // Once; where the library is preloaded the postmaster did.
            PRIVATE_COUNTERS.draw_salt();
            &PRIVATE_COUNTERS
        }
    }
}

/// How often processes had to look before they used a data key again.
#[inline]
pub fn notices() -> u64 {
    header().map_or(&PRIVATE_COUNTERS, |header| &header.counters).notices()
}

/// False if the system did not let us keep shared data keys out of swap.
pub fn data_keys_are_locked() -> bool {
    !is_shared() || DATA_KEYS_LOCKED.load(Relaxed)
}

/// Runs `work` on memory of this process alone.
pub fn with_own<R>(work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
    PRIVATE_RECORDS_TABLE.with_borrow_mut(|records| {
        let counters = &PRIVATE_COUNTERS;
        let (slots, brakes) = (&mut [], &mut []);
        work(&mut SharedKeyring { counters, records, slots, shares_data_keys: false, brakes })
    })
}

/// Runs `work` on what all processes know, under the lock; on this one's own memory where the
/// library isn't preloaded. It must not wait, and can't raise an ERROR.
pub fn with<R>(work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
    let Some(at) = layout() else { return with_own(work) };
    let mut held = Held::acquire(&at, pg_sys::LWLockMode::LW_EXCLUSIVE);
    let result = held.run(work);
    held.is_sound = true;
    result
}

/// Read-only, under a shared lock: others may look at the same time.
pub fn read<R>(work: impl FnOnce(&SharedKeyring<'_>) -> R) -> R {
    let Some(at) = layout() else { return with_own(|shared| work(shared)) };
    let mut held = Held::acquire(&at, pg_sys::LWLockMode::LW_SHARED);
    held.is_sound = true;
    held.run(|shared| work(shared))
}

/// Runs `work` on one part of the tables after the other, with the lock let go in between: for what
/// looks at all of them, which is too long to keep others waiting.
pub fn in_chunks(mut work: impl FnMut(Range<usize>)) {
    let count = layout().map_or(PRIVATE_RECORDS, |at| at.count);
    for from in (0..count).step_by(CHUNK) {
        work(from..(from + CHUNK).min(count));
    }
}

/// The lock, and what to do should `work` panic: the lock is let go, and what it left half-done is
/// no more.
struct Held<'a> {
    at: &'a Layout,
    is_sound: bool,
}

impl<'a> Held<'a> {
    fn acquire(at: &'a Layout, mode: pg_sys::LWLockMode::Type) -> Self {
        // SAFETY: an initialised lock; on the main thread.
        unsafe { pg_sys::LWLockAcquire(at.lock.as_ptr(), mode) };
        Self { at, is_sound: false }
    }

    fn run<R>(&mut self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        work(&mut self.tables())
    }

    fn tables(&mut self) -> SharedKeyring<'_> {
        let Layout { header, records, slots, brakes, count, .. } = *self.at;
        // SAFETY: the lock keeps everybody else from changing the tables, and from looking at them
        // unless this process only looks too. The header is atomics only.
        unsafe {
            let header: &Header = header.as_ref();
            let has_worker = !header.worker_latch.load(Relaxed).is_null();
            SharedKeyring {
                counters: &header.counters,
                records: std::slice::from_raw_parts_mut(records.as_ptr(), count),
                slots: std::slice::from_raw_parts_mut(slots.as_ptr(), count),
                shares_data_keys: has_worker && !sees_anothers_changes(),
                brakes: std::slice::from_raw_parts_mut(brakes.as_ptr(), BRAKES),
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_sound {
            self.tables().clear_data_keys();
        }
        // SAFETY: this process holds it.
        unsafe { pg_sys::LWLockRelease(self.at.lock.as_ptr()) };
    }
}

/// True in a parallel worker whose leader has written something: an eviction, perhaps, that isn't
/// committed yet. Our functions don't run in parallel workers, but those of others that are
/// declared wrongly may call them. Calls and failures count as everybody's; data keys are not
/// shared.
fn sees_anothers_changes() -> bool {
    // SAFETY: set when the process starts; in a transaction on the main thread.
    unsafe {
        pg_sys::ParallelWorkerNumber >= 0
            && pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId
    }
}

/// Sees to it that the keyring worker wakes by `deadline`.
pub fn expire_by(deadline: Instant) {
    let Some(header) = header() else { return };
    // In this order: a worker that looks reads the time after it has taken the flag down.
    let is_sooner = deadline < header.next_expiry.fetch_min(deadline, SeqCst);
    let latch = header.worker_latch.load(Acquire);
    if is_sooner && !header.worker_is_looking.load(SeqCst) && !latch.is_null() {
        // SAFETY: a process's latch in shared memory, which outlives the process.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// Has the keyring worker see to it that a renewer takes note of what is wanted.
pub fn want_renewal() {
    let Some(header) = header() else { return };
    header.counters.renewal_wanted.store(true, SeqCst);
    let latch = header.worker_latch.load(Acquire);
    if !latch.is_null() {
        // SAFETY: a process's latch in shared memory, which outlives the process.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// A transaction with changes of the registry is over, and what it learned of keys while nobody
/// else saw those changes. If it was committed, all may know that they work.
pub fn settle_own(is_committed: bool) {
    if !is_shared() {
        return;
    }
    let learned = with_own(|shared| shared.take_learned());
    if is_committed && !learned.is_empty() {
        let now = Now { instant: clock::now(), wall: clock::wall() };
        with(|shared| learned.iter().for_each(|learned| shared.learn(learned, now)));
    }
}

/// Whether a keyring worker runs: without one nothing is shared.
pub fn has_worker() -> bool {
    header().is_some_and(|header| header.worker_pid.load(Acquire) != 0)
}

/// Whether the keyring worker still is the process of this number.
pub fn is_worker(pid: c_int) -> bool {
    header().is_some_and(|header| header.worker_pid.load(Acquire) == pid)
}

/// The condition variable of a record. `None` if nothing is shared, and so nobody can wait.
pub fn wait_point(record: usize) -> Option<*mut pg_sys::ConditionVariable> {
    let at = layout()?;
    // SAFETY: within the area, which has one for each record.
    (record < at.count).then(|| unsafe { at.waits.as_ptr().add(record) })
}

/// Processes that hold a data key of a record: its generation in the upper half, the number in the
/// lower.
pub fn holders(record: usize) -> Option<&'static AtomicU32> {
    let at = layout()?;
    // SAFETY: within the area, which has one for each record and lasts.
    (record < at.count).then(|| unsafe { at.holders.add(record).as_ref() })
}
