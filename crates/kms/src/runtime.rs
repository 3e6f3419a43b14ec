//! Drives futures to their end inside a PostgreSQL backend, interruptibly: one, or several side by
//! side.
//!
//! The runtime is a tokio current-thread one, made on first use and never dropped: dropping would
//! join helper threads inside `exit()`. It belongs to the process that made it; after a fork
//! another one is made.
//!
//! Even that runtime starts threads (DNS, files). All signals are blocked while it runs, so that
//! those threads inherit a full mask and no signal handler of PostgreSQL ever runs off the main
//! thread. The run is cut into slices; between two slices the mask is the caller's again, pending
//! signals arrive, and `tick` looks at them.

use crate::resources;
use cmk_error::Result;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Longest time without a look at interrupts.
const SLICE: Duration = Duration::from_millis(25);

/// Helper threads go soon after their work, so that a backend at rest has one thread, as PostgreSQL
/// expects.
const THREAD_KEEP_ALIVE: Duration = Duration::from_millis(10);

/// Runs `future` to its end, calling `tick` after each slice. If `tick` unwinds, the future is
/// dropped, which cancels what it was doing.
///
/// # Errors
/// `kms_unreachable` if the operating system refuses what a runtime is made of (file descriptors).
pub fn drive<F: Future>(future: F, mut tick: impl FnMut()) -> Result<F::Output> {
    let runtime = runtime().map_err(|error| resources::refused(&error))?;
    // Declared first, so that it comes after the end of the future, cancelled or not.
    let _settled = Settled(runtime);
    let mut future = pin!(future);
    loop {
        let slice = {
            let _blocked = BlockedSignals::new();
            runtime.block_on(async { tokio::time::timeout(SLICE, future.as_mut()).await })
        };
        match slice {
            Ok(output) => return Ok(output),
            Err(_elapsed) => tick(),
        }
    }
}

/// Drives all these futures until one has ended, for one slice of time at most. Returns what that
/// one ended with; `None` if none did.
///
/// # Errors
/// As [`drive`].
pub fn drive_one_of<F: Future>(futures: &mut FuturesUnordered<F>) -> Result<Option<F::Output>> {
    let runtime = runtime().map_err(|error| resources::refused(&error))?;
    let _settled = Settled(runtime);
    let _blocked = BlockedSignals::new();
    let ended = runtime.block_on(async { tokio::time::timeout(SLICE, futures.next()).await });
    Ok(ended.unwrap_or_default())
}

/// Lets tasks that a future left behind come to their end, above all a connection with its
/// descriptor and its buffers: afterwards nobody drives them.
struct Settled(&'static Runtime);

impl Drop for Settled {
    fn drop(&mut self) {
        const ROUNDS: usize = 32;
        let _blocked = BlockedSignals::new();
        self.0.block_on(async {
            for _ in 0..ROUNDS {
                tokio::task::yield_now().await;
            }
        });
    }
}

/// The runtime of this process.
fn runtime() -> std::io::Result<&'static Runtime> {
    static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);
    let mut slot = RUNTIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pid = std::process::id();
    match *slot {
        Some((owner, runtime)) if owner == pid => Ok(runtime),
        _ => {
            let _blocked = BlockedSignals::new();
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(4)
                .thread_keep_alive(THREAD_KEEP_ALIVE)
                .build()?;
            let runtime: &'static Runtime = Box::leak(Box::new(runtime));
            *slot = Some((pid, runtime));
            Ok(runtime)
        }
    }
}

/// All signals but those that a fault of this very thread raises are blocked while this lives.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises `all`; pthread_sigmask reads it and initialises `before`.
        let before = unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is a mask that the kernel gave us.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(field: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        text.lines().find(|line| line.starts_with(field)).unwrap().to_owned()
    }

    #[test]
    fn restores_the_signal_mask_and_ticks_while_waiting() {
        let before = status("SigBlk");
        let mut ticks = 0;
        let future = async {
            assert_ne!(status("SigBlk"), before);
            tokio::time::sleep(SLICE * 4).await;
            7
        };
        assert_eq!(drive(future, || ticks += 1).unwrap(), 7);
        assert!((2..=4).contains(&ticks), "{ticks}");
        assert_eq!(status("SigBlk"), before);
    }

    #[test]
    fn the_first_to_end_is_told_and_the_others_go_on() {
        let before = status("SigBlk");
        let mut sleeping: FuturesUnordered<_> = [3, 0, 200]
            .into_iter()
            .map(|slices| async move {
                tokio::time::sleep(SLICE * slices).await;
                slices
            })
            .collect();
        assert_eq!(drive_one_of(&mut sleeping).unwrap(), Some(0));
        assert_eq!(drive_one_of(&mut sleeping).unwrap(), None);
        let later = (0..4).find_map(|_| drive_one_of(&mut sleeping).unwrap());
        assert_eq!(later, Some(3));
        assert_eq!(sleeping.len(), 1);
        assert_eq!(status("SigBlk"), before);
    }

    #[test]
    fn an_unwinding_tick_drops_the_future_and_leaves_the_runtime_usable() {
        struct Dropped<'a>(&'a std::cell::Cell<bool>);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = std::cell::Cell::new(false);
        let guard = Dropped(&dropped);
        let hung = async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drive(hung, || std::panic::resume_unwind(Box::new("cancelled")))
        }));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "cancelled");
        assert!(dropped.get());
        assert_eq!(drive(async { 1 }, || ()).unwrap(), 1);
    }
}
