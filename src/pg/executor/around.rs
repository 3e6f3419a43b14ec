//! What is being run as another role than it was started as: all that happens in it needs the
//! latter's grant too.

use cmk_keyring::tenant::Role;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

type Context = pg_sys::MemoryContext;

thread_local! {
    static AROUND: RefCell<Vec<Around>> = const { RefCell::new(Vec::new()) };
}

/// Whether there may be anything in [`AROUND`].
static IS_AROUND: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
struct Around {
    /// Where on the stack its hook is. An ERROR jumps over that frame; then what lies below it is
    /// over.
    frame: usize,
    /// With which the entry goes if it doesn't return.
    context: Context,
    role: Role,
}

/// A role that nobody is, and that holds no grant.
const NOBODY: Role = Role(0);

/// Something begins to run that was started as `role`, in a hook at this frame.
pub(super) fn push(frame: usize, context: Context, role: Role) {
    // Two of them: deny, instead of checking both.
    let role = if around().is_none_or(|of| of == role) { role } else { NOBODY };
    AROUND.with_borrow_mut(|around| around.push(Around { frame, context, role }));
    IS_AROUND.store(true, Relaxed);
}

/// What began at this frame or below it is over.
pub(super) fn pop(frame: usize) {
    AROUND.with_borrow_mut(|around| around.retain(|entry| entry.frame > frame));
}

/// The context goes, with whatever ran in it.
pub(super) fn forget(context: Context) {
    // Not where the thread's own data are gone already, in a process that exits.
    let _ = AROUND.try_with(|around| around.borrow_mut().retain(|entry| entry.context != context));
}

/// The role of what is around the present call, and runs as another role than it was started as.
#[inline]
pub fn around() -> Option<Role> {
    if IS_AROUND.load(Relaxed) { find() } else { None }
}

#[cold]
fn find() -> Option<Role> {
    AROUND.with_borrow_mut(|around| {
        // The stack grows downwards: what lies below this frame belongs to something that an ERROR
        // has ended.
        let here = 0_u8;
        around.retain(|entry| entry.frame > (&raw const here) as usize);
        IS_AROUND.store(!around.is_empty(), Relaxed);
        around.last().map(|entry| entry.role)
    })
}
