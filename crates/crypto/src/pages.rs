//! Pages for secrets: locked, left out of core dumps, and where the kernel has memfd_secret(2), out
//! of everybody's sight.

use std::ptr::NonNull;

/// What the operating system granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Bytes of the pages.
    pub bytes: usize,
    /// Bytes that can't be swapped out.
    pub locked: usize,
    /// Bytes that are left out of core dumps.
    pub undumpable: usize,
}

/// Fresh zeroed pages, locked and kept out of core dumps as far as the system lets us; out of
/// `/proc/PID/mem` too, where the kernel has memfd_secret(2). Private ones are kept from forked
/// children; shared ones are for them.
///
/// # Panics
/// When the kernel has no memory left, as a `Box` would.
pub fn map(len: usize, sharing: Sharing) -> (NonNull<u8>, Protection) {
    let secret = secret_pages(len, sharing);
    let mut granted = Protection { bytes: len, ..Protection::default() };
    // SAFETY: fresh pages, which nothing else refers to; checked before they are used, and all
    // calls name exactly them.
    let base = unsafe {
        let base = secret.unwrap_or_else(|| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = match sharing {
                Sharing::Private => libc::MAP_PRIVATE,
                Sharing::WithChildren => libc::MAP_SHARED,
            };
            libc::mmap(std::ptr::null_mut(), len, access, flags | libc::MAP_ANONYMOUS, -1, 0)
        });
        assert!(base != libc::MAP_FAILED, "out of memory for locked pages");
        // Secret pages are locked and left out of core dumps by nature.
        if secret.is_some() || libc::mlock(base, len) == 0 {
            granted.locked = len;
        }
        #[cfg(target_os = "linux")]
        {
            if secret.is_some() || libc::madvise(base, len, libc::MADV_DONTDUMP) == 0 {
                granted.undumpable = len;
            }
            if secret.is_none() && sharing == Sharing::Private {
                libc::madvise(base, len, libc::MADV_DONTFORK);
            }
        }
        base
    };
    (NonNull::new(base.cast()).expect("a mapping is never at address zero"), granted)
}

/// Whose pages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Of this process.
    Private,
    /// Of this process and those that it forks.
    WithChildren,
}

/// Pages of memfd_secret(2): the kernel takes them out of its own address space, and refuses to
/// read them for anybody but the process itself. `None` where the kernel has none, or
/// `RLIMIT_MEMLOCK` none left.
#[cfg(target_os = "linux")]
fn secret_pages(len: usize, sharing: Sharing) -> Option<*mut libc::c_void> {
    // SAFETY: plain system calls; the descriptor is ours, and closed when the mapping has taken its
    // place.
    unsafe {
        let fd = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC);
        let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let base = match libc::ftruncate(fd, len as libc::off_t) {
            0 => libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0),
            _ => libc::MAP_FAILED,
        };
        libc::close(fd);
        if base == libc::MAP_FAILED {
            return None;
        }
        // They are shared by nature: a child that inherited them could write to them.
        if sharing == Sharing::Private && libc::madvise(base, len, libc::MADV_DONTFORK) != 0 {
            libc::munmap(base, len);
            return None;
        }
        Some(base)
    }
}

#[cfg(not(target_os = "linux"))]
fn secret_pages(_len: usize, _sharing: Sharing) -> Option<*mut libc::c_void> {
    None
}
