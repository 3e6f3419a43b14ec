//! Makes the shared keyring's memory, in the postmaster.

use super::layout::{COUNT, DATA_KEYS, DATA_KEYS_LOCKED, HEADER, LOCK, NAME, Offsets, header};
use crate::pg::compat;
use crate::pg::settings::values;
use cmk_crypto::pages::{self, Sharing};
use cmk_keyring::shared::data_keys::DataKeySlot;
use pgrx::{pg_guard, pg_sys};
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use zeroize::Zeroize;

static PREVIOUS_REQUEST: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_STARTUP: AtomicUsize = AtomicUsize::new(0);

type Hook = unsafe extern "C-unwind" fn();

/// In the postmaster, before its shared memory is made.
pub fn reserve() {
    // SAFETY: _PG_init of a preloaded library, the time and place to set these hooks.
    unsafe {
        let previous = compat::on_shared_memory_request(on_request);
        PREVIOUS_REQUEST.store(address(previous), Relaxed);
        PREVIOUS_STARTUP.store(address(pg_sys::shmem_startup_hook), Relaxed);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

fn address(hook: Option<Hook>) -> usize {
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

#[pg_guard]
extern "C-unwind" fn on_request() {
    call_previous(&PREVIOUS_REQUEST);
    // SAFETY: the time to ask for shared memory.
    unsafe {
        pg_sys::RequestAddinShmemSpace(Offsets::of(values::shared_keyring_size()).end);
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
    }
}

/// Also after a crash, when PostgreSQL makes its shared memory anew; ours is then zeroed.
#[pg_guard]
extern "C-unwind" fn on_startup() {
    call_previous(&PREVIOUS_STARTUP);
    let count = values::shared_keyring_size();
    COUNT.store(count, Release);
    let size = Offsets::of(count).end;
    let mut found = false;
    // SAFETY: in the postmaster, alone; the area has the size asked for and is aligned to a cache
    // line. The condition variables are initialised before anyone can use them.
    unsafe {
        let base = pg_sys::ShmemInitStruct(NAME.as_ptr(), size, &mut found).cast::<u8>();
        base.write_bytes(0, size);
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock;
        LOCK.store(lock, Release);
        HEADER.store(base.cast(), Release);
        let waits = base.add(Offsets::of(count).waits).cast::<pg_sys::ConditionVariable>();
        for i in 0..count {
            pg_sys::ConditionVariableInit(waits.add(i));
        }
    }
    if let Some(header) = header() {
        header.counters.draw_salt();
    }
    match NonNull::new(DATA_KEYS.load(Acquire)) {
        // All of it, for a process may have been killed in the middle of a change.
        // SAFETY: as made below; no other process is alive.
        Some(slots) => unsafe {
            let size = count * size_of::<DataKeySlot>();
            std::slice::from_raw_parts_mut(slots.cast::<u8>().as_ptr(), size).zeroize();
        },
        None => {
            let (base, granted) =
                pages::map(count * size_of::<DataKeySlot>(), Sharing::WithChildren);
            DATA_KEYS_LOCKED.store(granted.locked > 0, Relaxed);
            DATA_KEYS.store(base.cast().as_ptr(), Release);
        }
    }
}
