//! Memory for what must not be seen: kept out of swap, core dumps and forked children, zeroed on free.
//!
//! [`Locked<T>`] is a `Box<T>` whose slot comes from pages that are `mlock`ed, marked
//! `MADV_DONTDUMP` and `MADV_DONTFORK`. Where the system refuses to lock (`RLIMIT_MEMLOCK`), the
//! memory is used unlocked and [`protection`] says so. Pages are never given back: freed slots are
//! zeroed and reused.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Mutex;
use zeroize::Zeroize;

/// Bytes a slot: an expanded XAES-256-GCM key needs 976, the software fallback's schedule included.
const SLOT: usize = 1024;
/// Bytes a mapping.
const CHUNK: usize = 64 * 1024;

/// Addresses of free slots. Leaked mappings stay reachable through it.
struct Pool {
    free: Vec<usize>,
    protection: Protection,
}

/// What the operating system granted for all locked memory of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    pub bytes: usize,
    /// Bytes that can't be swapped out.
    pub locked: usize,
    /// Bytes that are left out of core dumps.
    pub undumpable: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    protection: Protection { bytes: 0, locked: 0, undumpable: 0 },
});

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub fn protection() -> Protection {
    pool().protection
}

impl Pool {
    fn slot(&mut self) -> usize {
        if self.free.is_empty() {
            self.grow();
        }
        self.free.pop().expect("grow leaves free slots")
    }

    /// # Panics
    /// When the kernel has no memory left, as a `Box` would.
    fn grow(&mut self) {
        // SAFETY: a fresh anonymous private mapping, which nothing else refers to; checked below.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CHUNK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(base != libc::MAP_FAILED, "out of memory for locked pages");
        self.protection.bytes += CHUNK;
        // SAFETY: all calls name exactly the mapping made above.
        unsafe {
            if libc::mlock(base, CHUNK) == 0 {
                self.protection.locked += CHUNK;
            }
            #[cfg(target_os = "linux")]
            {
                if libc::madvise(base, CHUNK, libc::MADV_DONTDUMP) == 0 {
                    self.protection.undumpable += CHUNK;
                }
                libc::madvise(base, CHUNK, libc::MADV_DONTFORK);
            }
        }
        self.free.extend((0..CHUNK / SLOT).map(|i| base as usize + i * SLOT));
    }
}

/// An owned `T` in locked memory.
pub struct Locked<T> {
    slot: NonNull<T>,
    owns: PhantomData<T>,
}

// SAFETY: owns its T exclusively, as Box does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: hands out only &T, as Box does.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    pub fn new(value: T) -> Self {
        const {
            assert!(size_of::<T>() <= SLOT && align_of::<T>() <= 64);
        }
        let address = pool().slot();
        let slot = NonNull::new(address as *mut T).expect("a mapping is never at address zero");
        // SAFETY: the slot is ours alone, large enough and aligned (1024-byte slots of a page).
        unsafe { slot.write(value) };
        Self { slot, owns: PhantomData }
    }
}

/// Overwrites the dead part of the stack, where functions that have returned may have left copies of a
/// key: moves of a value are plain copies, which nobody zeroes. Called by who had a key expanded, after.
#[inline(never)]
pub fn scrub_stack() {
    // Deeper than a KMS call with all its layers goes; a backend has 100 kB to spare below any function.
    const DEPTH: usize = 64 * 1024;
    let mut dead = [0_u8; DEPTH];
    dead.zeroize();
    std::hint::black_box(&mut dead);
}

impl<T> Deref for Locked<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: initialised in new(), valid until drop.
        unsafe { self.slot.as_ref() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is initialised and never touched again; the slot is SLOT bytes of our
        // mapping and goes back to the pool zeroed.
        unsafe {
            self.slot.drop_in_place();
            std::slice::from_raw_parts_mut(self.slot.as_ptr().cast::<u8>(), SLOT).zeroize();
        }
        pool().free.push(self.slot.as_ptr() as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_zero() {
        let secret = Locked::new([0xA5_u8; 976]);
        let at = secret.slot.as_ptr().cast::<u8>();
        assert_eq!(*secret, [0xA5; 976]);
        drop(secret);
        // SAFETY: the mapping is never unmapped; another test's slot would be zeroed before reuse.
        let after = unsafe { std::slice::from_raw_parts(at, SLOT) };
        assert!(!after.contains(&0xA5));
    }

    #[test]
    fn slots_do_not_overlap() {
        let all: Vec<_> = (0..300_u32).map(|i| Locked::new([i % 128; 100])).collect();
        for (i, slot) in all.iter().enumerate() {
            assert_eq!(**slot, [i as u32 % 128; 100]);
        }
        assert!(protection().bytes >= 300 * SLOT);
    }
}
