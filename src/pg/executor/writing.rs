//! Queries that are running and write rows. What is printed inside one may be stored.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

type Context = pg_sys::MemoryContext;

thread_local! {
    /// Where on the stack the hook of each is, and the memory context that it goes with should an
    /// ERROR jump over that frame.
    static RUNNING: RefCell<Vec<(usize, Context)>> = const { RefCell::new(Vec::new()) };
}

/// Whether there may be anything in [`RUNNING`].
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// A query that writes begins to run, in a hook at this frame.
pub(super) fn push(frame: usize, context: Context) {
    RUNNING.with_borrow_mut(|running| running.push((frame, context)));
    IS_RUNNING.store(true, Relaxed);
}

/// The library is being loaded in the middle of a statement. If that is deeper than where the
/// client's own rows are printed, a query may be around it that writes, and that began unseen. So
/// all that the statement does counts as written, until its portal goes.
///
/// # Safety
/// From `_PG_init`, on the main thread.
pub(super) unsafe fn enter_at_load() {
    // SAFETY: looks at the running portal, if there is one; contexts have parents and names.
    let portal = unsafe {
        let Some(portal) = pg_sys::ActivePortal.as_ref() else { return };
        let mut context = pg_sys::CurrentMemoryContext;
        let mut executors = 0;
        while !context.is_null() && context != portal.portalContext {
            executors += usize::from(CStr::from_ptr((*context).name) == c"ExecutorState");
            if CStr::from_ptr((*context).name).to_bytes().starts_with(b"SPI ") {
                break;
            }
            context = (*context).parent;
        }
        if context == portal.portalContext && executors <= 1 {
            return;
        }
        portal
    };
    if super::forget_with(portal.portalContext) {
        push(usize::MAX, portal.portalContext);
    }
}

/// What began at this frame or below it is over.
pub(super) fn pop(frame: usize) {
    RUNNING.with_borrow_mut(|running| {
        running.retain(|(at, _)| *at > frame);
        IS_RUNNING.store(!running.is_empty(), Relaxed);
    });
}

/// The context goes, with whatever ran in it.
pub(super) fn forget(context: Context) {
    // Not where the thread's own data are gone already, in a process that exits.
    let _ = RUNNING.try_with(|running| running.borrow_mut().retain(|(_, of)| *of != context));
}

/// Whether a query that writes rows is running, at any depth.
#[inline]
pub fn is_writing() -> bool {
    IS_RUNNING.load(Relaxed) && find()
}

#[cold]
fn find() -> bool {
    RUNNING.with_borrow_mut(|running| {
        // The stack grows downwards: what lies below this frame belongs to something that an ERROR
        // has ended.
        let here = 0_u8;
        running.retain(|(frame, _)| *frame > (&raw const here) as usize);
        IS_RUNNING.store(!running.is_empty(), Relaxed);
        !running.is_empty()
    })
}
