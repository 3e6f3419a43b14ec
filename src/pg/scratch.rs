//! Memory for what a comparison allocates. PostgreSQL calls a type's comparison and hash functions
//! from contexts that live as long as a sort does, and expects them to leave nothing there.

use pgrx::pg_sys;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

static SCRATCH: AtomicPtr<pg_sys::MemoryContextData> = AtomicPtr::new(std::ptr::null_mut());

/// Runs `work` with memory of its own as the current one, which is given back when it returns.
/// Nothing that is in it may be returned. `work` must not come here again.
pub fn with<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread; the context lives as long as the process. An ERROR leaves the
    // current context to whoever catches it, and the memory to the next call.
    unsafe {
        let scratch = match SCRATCH.load(Relaxed) {
            made if !made.is_null() => made,
            _ => make(),
        };
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = scratch;
        let done = work();
        pg_sys::CurrentMemoryContext = before;
        if !(*scratch).isReset {
            pg_sys::MemoryContextReset(scratch);
        }
        done
    }
}

#[cold]
fn make() -> pg_sys::MemoryContext {
    // SAFETY: on the main thread; a child of a context that is never reset.
    let made = unsafe {
        pg_sys::AllocSetContextCreateExtended(
            pg_sys::TopMemoryContext,
            c"cmk_encrypt comparison".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    };
    SCRATCH.store(made, Relaxed);
    made
}
