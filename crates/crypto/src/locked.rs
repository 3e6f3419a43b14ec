//! Memory for what must not be seen: kept out of swap, core dumps and forked children, zeroed on
//! free and at a set time even if its owner sleeps.
//!
//! [`Locked<T>`] is a `Box<T>` whose slot comes from [`pages`](super::pages) that are locked, left
//! out of core dumps and not inherited. Where the system refuses to lock (`RLIMIT_MEMLOCK`), the
//! memory is used unlocked and [`protection`] says so. Pages are never given back: freed slots are
//! zeroed and reused.
//!
//! Each slot has a deadline. [`erase_overdue`] zeroes what is past it and may be called by a signal
//! handler, at any instruction of the thread that uses the slots: it touches nothing but atomics
//! and the slots, and leaves the one that is [`pinned`](Locked::pin) alone. Of all slots one can be
//! pinned at a time; while it is, another attempt gets nothing, so that no reference outlives what
//! it refers to.
//!
//! What is derived from a value dies with it: see [`places`].

use super::pages::{Protection, Sharing, map};
use super::places;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Mutex, OnceLock};
use zeroize::Zeroize;

/// Bytes of a slot: an expanded XAES-256-GCM key needs 976, the software fallback's schedule
/// included.
const SLOT: usize = 1024;
/// Bytes of it for the content, which comes first.
const CONTENT: usize = SLOT - 32;
/// Bytes of a mapping.
const CHUNK: usize = 64 * 1024;
/// Mappings at most: more slots than a cache of the largest size has.
const CHUNKS: usize = 2048;
/// Slots of the first mapping whose room derived keys take instead: so that what the system lets a
/// process lock at least, 64 KiB before Linux 5.16, holds both.
const TAKEN: usize = places::ROOM / SLOT;

/// Erased slots and free ones are all zero.
#[repr(C, align(1024))]
struct Slot {
    content: [u8; CONTENT],
    /// When to erase the content; 0: there is none.
    deadline: AtomicU64,
    /// What [`on_erase`] is told.
    tag: AtomicU64,
}

/// Every mapping made, for [`erase_overdue`].
static MAPPINGS: [AtomicPtr<Slot>; CHUNKS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS];

/// The slot in use; 0: none. A pin writes here first and then looks whether the slot is erased; an
/// erasure marks the slot first and then looks here. Both are sequentially consistent, so at least
/// one of them notices the other, be it a signal handler or another thread.
static PINNED: AtomicUsize = AtomicUsize::new(0);

static ON_ERASE: OnceLock<fn(u64)> = OnceLock::new();

/// Free slots.
struct Pool {
    free: Vec<NonNull<Slot>>,
    mappings: usize,
    protection: Protection,
}

// SAFETY: the slots are mapped for good, and a free one belongs to the pool alone.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    mappings: 0,
    protection: Protection { bytes: 0, locked: 0, undumpable: 0 },
});

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What the operating system granted to the pages of all keys of this process.
pub fn protection() -> Protection {
    pool().protection
}

impl Pool {
    fn slot(&mut self) -> NonNull<Slot> {
        if self.free.is_empty() {
            self.grow();
        }
        self.free.pop().expect("grow leaves free slots")
    }

    /// # Panics
    /// When the kernel has no memory left, as a `Box` would.
    fn grow(&mut self) {
        assert!(self.mappings < CHUNKS, "out of locked memory");
        let (base, granted) = map(CHUNK, Sharing::Private);
        self.protection.bytes += granted.bytes;
        self.protection.locked += granted.locked;
        self.protection.undumpable += granted.undumpable;
        let base = base.cast::<Slot>();
        let taken = taken(self.mappings);
        if taken > 0 {
            places::give_room(base.cast());
        }
        MAPPINGS[self.mappings].store(base.as_ptr(), Release);
        self.mappings += 1;
        // SAFETY: within the mapping.
        self.free.extend((taken..CHUNK / SLOT).map(|i| unsafe { base.add(i) }));
    }
}

/// How many slots a mapping begins with that are none.
const fn taken(mapping: usize) -> usize {
    if mapping == 0 { TAKEN } else { 0 }
}

/// # Safety
/// All zero bytes are a valid value, and one whose drop does nothing but zero itself.
pub unsafe trait Erasable {}

/// An owned `T` in locked memory, until its deadline.
pub struct Locked<T> {
    slot: NonNull<Slot>,
    owns: PhantomData<T>,
}

// SAFETY: owns its T exclusively, as Box does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: hands out only &T, as Box does.
unsafe impl<T: Sync> Sync for Locked<T> {}

/// Access to the content, which isn't erased meanwhile, whatever becomes of its owner. At most one
/// exists at a time: see [`Locked::pin`].
pub struct Pinned<T: 'static>(&'static T);

impl<T: Erasable> Locked<T> {
    /// `deadline` is a time that [`erase_overdue`] is going to be given; `tag` is for [`on_erase`].
    pub fn new(value: T, deadline: u64, tag: u64) -> Self {
        const {
            assert!(size_of::<T>() <= CONTENT && align_of::<T>() <= align_of::<Slot>());
            assert!(size_of::<Slot>() == SLOT);
        }
        let slot = pool().slot();
        // SAFETY: the slot is ours alone, large enough and aligned.
        unsafe {
            slot.cast::<T>().write(value);
            slot.as_ref().tag.store(tag, Relaxed);
            slot.as_ref().deadline.store(deadline.max(1), Release);
        }
        Self { slot, owns: PhantomData }
    }

    fn header(&self) -> &Slot {
        // SAFETY: mapped for good; the content is bytes here, and only atomics are written through
        // this.
        unsafe { self.slot.as_ref() }
    }

    /// The content; `None` if it is erased, or while any slot is pinned already. Not to be stored:
    /// until it is dropped nothing else can be pinned, and its slot outlives its deadline.
    #[inline]
    pub fn pin(&self) -> Option<Pinned<T>> {
        let slot = self.slot.as_ptr() as usize;
        PINNED.compare_exchange(0, slot, SeqCst, Relaxed).ok()?;
        // SAFETY: a slot that is mapped for good; it holds a T until it is erased, and pinned it
        // isn't erased. Nor is it given to another: an owner that is dropped meanwhile leaves it
        // out of the pool.
        let pinned = Pinned(unsafe { self.slot.cast::<T>().as_ref() });
        // If not, `pinned` is dropped, which unpins.
        (self.header().deadline.load(SeqCst) != 0).then_some(pinned)
    }

    /// Moves the deadline. Does nothing if the content is erased already.
    pub fn postpone(&self, deadline: u64) {
        let old = self.header().deadline.load(Relaxed);
        if old != 0 {
            // Fails only if it was erased in between.
            let _ = self.header().deadline.compare_exchange(old, deadline.max(1), Relaxed, Relaxed);
        }
    }
}

impl<T> Pinned<T> {
    /// The content, and state of the process that is used while something is pinned.
    #[inline]
    pub(crate) fn with<'b, S>(&'b mut self, state: &'static WhilePinned<S>) -> (&'b T, &'b mut S) {
        // SAFETY: one value is pinned at a time, and `self` is borrowed exclusively for as long as
        // the reference lives.
        (self.0, unsafe { &mut *state.0.get() })
    }

    /// Tells it from other values that are pinned, as long as it isn't dropped.
    #[inline]
    pub(crate) fn id(&self) -> usize {
        std::ptr::from_ref(self.0) as usize
    }
}

/// State of a process that takes no lock of its own: whoever has a value pinned may use it.
pub(crate) struct WhilePinned<S>(UnsafeCell<S>);

// SAFETY: used by one at a time, see `Pinned::with`. Pinning acquires what unpinning released.
unsafe impl<S: Send> Sync for WhilePinned<S> {}

impl<S> WhilePinned<S> {
    pub(crate) const fn new(state: S) -> Self {
        Self(UnsafeCell::new(state))
    }
}

impl<T> Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0
    }
}

impl<T> Drop for Pinned<T> {
    #[inline]
    fn drop(&mut self) {
        PINNED.store(0, Release);
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // A slot that is pinned this very moment stays out of the pool for good.
        if erase(self.slot) {
            pool().free.push(self.slot);
        }
    }
}

/// Has `hook` called with the tag of each value that is erased or dropped, once. It may run in a
/// signal handler. Only the first hook counts.
pub fn on_erase(hook: fn(u64)) {
    let _ = ON_ERASE.set(hook);
}

/// Zeroes a slot unless that is done. False if it is pinned.
fn erase(slot: NonNull<Slot>) -> bool {
    // SAFETY: a mapped slot, of which only atomics are touched here.
    let header = unsafe { slot.as_ref() };
    // Taking the deadline decides who erases, should a signal handler come in between.
    let deadline = header.deadline.swap(0, SeqCst);
    if deadline == 0 {
        return true;
    }
    if PINNED.load(SeqCst) == slot.as_ptr() as usize {
        header.deadline.store(deadline, SeqCst);
        return false;
    }
    // SAFETY: nobody has it pinned, and who tries from here on finds it erased. The bytes are
    // overwritten in place.
    unsafe {
        std::slice::from_raw_parts_mut(slot.as_ptr().cast::<u8>(), CONTENT).zeroize();
    }
    places::erase_of(slot.as_ptr() as usize);
    let tag = header.tag.swap(0, Relaxed);
    if let Some(hook) = ON_ERASE.get() {
        hook(tag);
    }
    true
}

/// Zeroes every value whose deadline is not after `now`. Returns the earliest deadline left; one
/// that has passed stands for the value that is in use this very moment.
pub fn erase_overdue(now: u64) -> Option<u64> {
    let mut earliest = None;
    let mappings = MAPPINGS.iter().map_while(|mapping| NonNull::new(mapping.load(Acquire)));
    let slots = |number: usize| taken(number)..CHUNK / SLOT;
    let mappings = mappings.enumerate();
    for slot in mappings.flat_map(|(number, base)| slots(number).map(move |i| (base, i))) {
        // SAFETY: within a mapping that stays.
        let slot = unsafe { slot.0.add(slot.1) };
        // SAFETY: as above.
        let deadline = unsafe { slot.as_ref() }.deadline.load(Acquire);
        if deadline != 0 && (deadline > now || !erase(slot)) {
            earliest = Some(earliest.map_or(deadline, |other: u64| other.min(deadline)));
        }
    }
    earliest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    // SAFETY: plain bytes.
    unsafe impl<const N: usize> Erasable for [u8; N] {}

    const NEVER: u64 = u64::MAX;

    /// Tests run side by side, but overdue values are erased wherever they are, and one at a time
    /// is pinned.
    static ALONE: Mutex<()> = Mutex::new(());

    pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn bytes(secret: &Locked<[u8; 976]>) -> &[u8; 976] {
        // SAFETY: mapped for good, erased or not.
        unsafe { secret.slot.cast().as_ref() }
    }

    #[test]
    fn a_freed_slot_is_zero() {
        let secret = Locked::new([0xA5_u8; 976], NEVER, 0);
        let at = secret.slot;
        assert_eq!(*bytes(&secret), [0xA5; 976]);
        drop(secret);
        // SAFETY: the mapping is never unmapped; another test's slot would be zeroed before reuse.
        let after = unsafe { std::slice::from_raw_parts(at.cast::<u8>().as_ptr(), CONTENT) };
        assert!(!after.contains(&0xA5));
    }

    #[test]
    fn an_overdue_value_is_erased_unless_it_is_in_use() {
        let _alone = alone();
        let [used, idle, later] = [10, 10, 1000].map(|at| Locked::new([0xA5_u8; 976], at, 0));
        let pinned = used.pin().unwrap();
        // While one is in use no other can be, so that none is unpinned too early.
        assert!(later.pin().is_none());
        drop(later.pin());
        assert_eq!(erase_overdue(10), Some(10));
        assert_eq!(*pinned, [0xA5; 976]);
        drop(pinned);
        assert_eq!(*bytes(&idle), [0; 976]);
        assert!(idle.pin().is_none());
        assert_eq!(erase_overdue(11), Some(1000));
        assert!(used.pin().is_none());
        later.postpone(2000);
        used.postpone(2000);
        assert_eq!(erase_overdue(1000), Some(2000));
        assert!(later.pin().is_some() && used.pin().is_none());
    }

    #[test]
    fn a_value_that_is_in_use_outlives_its_owner() {
        let _alone = alone();
        let owner = Locked::new([0xA5_u8; 976], 10, 0);
        let slot = owner.slot;
        let pinned = owner.pin().unwrap();
        drop(owner);
        let others: Vec<_> = (0..200).map(|_| Locked::new([1_u8; 976], NEVER, 0)).collect();
        assert!(others.iter().all(|other| other.slot != slot));
        assert_eq!(*pinned, [0xA5; 976]);
        drop(pinned);
        erase_overdue(10);
        // SAFETY: mapped for good.
        assert_eq!(unsafe { slot.cast::<[u8; CONTENT]>().read() }, [0; CONTENT]);
    }

    #[test]
    fn overdue_values_are_erased_in_whatever_mapping_they_lie() {
        let _alone = alone();
        // More than two mappings full.
        let all: Vec<_> = (0..200).map(|_| Locked::new([0xA5_u8; 976], 10, 0)).collect();
        erase_overdue(10);
        assert!(all.iter().all(|secret| *bytes(secret) == [0; 976]));
    }

    #[test]
    fn slots_do_not_overlap() {
        let all: Vec<_> = (0..300_u32).map(|i| Locked::new([i as u8; 100], NEVER, 0)).collect();
        for (i, slot) in all.iter().enumerate() {
            // SAFETY: holds what was put in.
            assert_eq!(unsafe { *slot.slot.cast::<[u8; 100]>().as_ref() }, [i as u8; 100]);
        }
        assert!(protection().bytes >= 300 * SLOT);
    }

    #[test]
    fn the_largest_cache_has_a_slot_for_each_data_key() {
        // `cmk_encrypt.cache_size` goes up to this.
        const { assert!(CHUNKS * (CHUNK / SLOT) - TAKEN >= 100_000) };
    }

    #[test]
    fn what_the_system_granted_is_told_in_full() {
        let all: Vec<_> = (0..300).map(|_| Locked::new([1; 100], NEVER, 0)).collect();
        let (_, granted) = map(CHUNK, Sharing::Private);
        let told = protection();
        assert!(told.bytes >= all.len() * SLOT && told.bytes.is_multiple_of(CHUNK));
        // What it still grants now, it granted before.
        assert!(granted.locked == 0 || told.locked == told.bytes);
        assert!(granted.undumpable == 0 || told.undumpable == told.bytes);
    }

    /// How often the hook was called with the tag of
    /// [`a_value_that_is_erased_or_dropped_is_told_once`].
    static TOLD: AtomicU64 = AtomicU64::new(0);
    const TAG: u64 = 0x7A6;

    #[test]
    fn a_value_that_is_erased_or_dropped_is_told_once() {
        let _alone = alone();
        on_erase(|tag| {
            if tag == TAG {
                TOLD.fetch_add(1, Relaxed);
            }
        });
        let told = || TOLD.load(Relaxed);
        drop(Locked::new([1; 100], NEVER, TAG));
        assert_eq!(told(), 1);
        let erased = Locked::new([1; 100], 5, TAG);
        erase_overdue(5);
        assert_eq!(told(), 2);
        erase_overdue(5);
        drop(erased);
        assert_eq!(told(), 2);
    }
}
