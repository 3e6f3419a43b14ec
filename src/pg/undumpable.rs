//! Closes `/proc/PID` of the server's processes to the server's own OS user.
//!
//! A role with `pg_read_server_files` reads any file that the server can read, and on Linux a
//! process is files too: `/proc/self/mem` holds the data keys, `/proc/self/environ` the AWS
//! credentials. prctl(2) with PR_SET_DUMPABLE 0 gives those files to root. Set in the postmaster,
//! it holds for all its children; there are no core dumps then, and debuggers have to be root's.

/// Once per process, or in the postmaster for all its children.
#[cfg(target_os = "linux")]
pub fn close(in_postmaster: bool) {
    // SAFETY: changes a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    if in_postmaster && std::env::var_os("PG_OOM_ADJUST_FILE").is_some() {
        // SAFETY: registers a function that does what a child may do right after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

#[cfg(not(target_os = "linux"))]
pub fn close(_in_postmaster: bool) {}

/// PostgreSQL's children put their OOM score back (PostgreSQL Documentation, "Linux Memory
/// Overcommit"), for which they have to open a file that is root's while they are undumpable. So it
/// is done here, a moment earlier, and this process is dumpable while it opens that file.
/// PostgreSQL's own attempt fails, and it doesn't mind. Without this, all processes would keep the
/// postmaster's score, and the kernel might find none to end. docs/security.md says what the moment
/// is worth.
#[cfg(target_os = "linux")]
extern "C" fn in_child() {
    // SAFETY: system calls, and looks at the environment, which nothing changes; no allocation.
    unsafe {
        let file = libc::getenv(c"PG_OOM_ADJUST_FILE".as_ptr());
        if file.is_null() {
            return;
        }
        let value = match libc::getenv(c"PG_OOM_ADJUST_VALUE".as_ptr()) {
            value if value.is_null() => c"0".as_ptr(),
            value => value,
        };
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        let fd = libc::open(file, libc::O_WRONLY | libc::O_CLOEXEC);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        if fd >= 0 {
            // Refused, it leaves the score as it is, as PostgreSQL does.
            let _ = libc::write(fd, value.cast(), libc::strlen(value));
            libc::close(fd);
        }
    }
}
